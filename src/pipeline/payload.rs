//! A block's payload while it waits in a destination's window, in the page cache where the log mapped it.
//!
//! It was checked when it was read. What has happened to the file since, by another process or a disk that fails, is found
//! before it is sent: every page is touched, and once a page of any mapping was replaced by zeros, payloads are checked
//! again. So a healthy process pays a load a page and never a second CRC, and no request carries bytes that the log did not.

use bytes::Bytes;

use crate::queue::crc32c;
use crate::sys::sigbus;

/// A payload with the check that it has passed.
pub struct Payload {
    bytes: Bytes,
    crc: u32,
}

impl Payload {
    /// The payload of a block as its reader gave it, with its CRC-32C.
    #[must_use]
    pub fn new(bytes: Bytes, crc: u32) -> Payload {
        Payload { bytes, crc }
    }

    /// Of an entry that sends nothing.
    #[must_use]
    pub fn none() -> Payload {
        Payload { bytes: Bytes::new(), crc: crc32c(&[]) }
    }

    /// The bytes, if they still are what they were.
    #[must_use]
    pub fn intact(&self) -> Option<&Bytes> {
        sigbus::touch(&self.bytes);
        (!sigbus::has_faulted_since(0) || crc32c(&self.bytes) == self.crc).then_some(&self.bytes)
    }
}
