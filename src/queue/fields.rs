//! Little-endian fields in and out of byte slices, for the log's small fixed formats.
//!
//! Which field stands where is said by the module whose format it is; nothing here checks more than lengths.

/// The highest sequence, id, offset or number of spans that is believed: a lane that appends a billion spans a second gets
/// there in 36 years. The checks on the disk hold off rot and not somebody who writes there; what he claims must not make
/// sums overflow.
pub(super) const MAX_COUNT: u64 = 1 << 60;

/// Reads fields one after another; a missing byte is `None`.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    /// A number of things or of bytes: no more than [`MAX_COUNT`].
    pub(super) fn count(&mut self) -> Option<u64> {
        self.u64().filter(|count| *count <= MAX_COUNT)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
}

/// Appends fields.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}
