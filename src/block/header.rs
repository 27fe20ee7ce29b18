//! The block header: 64 bytes in front of every entry of the log, keyed to the place where it stands.
//!
//! All integers are little-endian; an entry starts at a multiple of 64 bytes, its stored bytes follow the header.
//!
//! ```text
//! off size field
//!   0   4  magic `MRBK`
//!   4   4  stored length: bytes after the header, without padding; never trusted before the check passes
//!   8   8  sequence: per lane, ascending, never reused
//!  16   4  CRC32C of the stored bytes
//!  20   1  bits 0-3 kind: 1 block encoded from records, 2 commit-mark, 3 block passed through
//!          bits 4-7 compression of a block's payload: 0 none, 1 lz4, 2 zstd
//!  21   1  signal: 1 traces, 2 metrics, 3 logs; 0 for a commit-mark
//!  22   2  source id
//!  24   4  records: spans of the payload that stand for one record each
//!  28   4  spans (items) in the payload
//!  32   8  receive time, Unix ns
//!  40   8  first span start, Unix ns
//!  48   8  last span end, Unix ns
//!  56   8  check: SipHash-1-3 under the segment's 128-bit key of bytes 0..56 ‖ segment id ‖ offset
//! ```
//!
//! The check is keyed because senders control payload bytes: a scan that resynchronises after damage must not believe a
//! header forged inside a payload, nor a valid one left by an earlier use of a recycled segment (each use draws a new
//! key), nor one that was written somewhere else (the place is part of the hash). That key is no secret from one who can
//! read the disk: in an encrypted segment the header is also what the block's tag vouches for ([`Header::vouched`]), so
//! there it cannot be forged at all. Stored bytes of a block, inside out: payload; when compressed, `u32` payload length and
//! the compressed bytes; when encrypted, that as ciphertext and a 16-byte tag.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{MAX_BYTES, Made, Meta, Signal, SourceId};

/// Bytes of a header, and the alignment of entries.
pub const HEADER_BYTES: usize = 64;

/// Stored bytes beyond a block's payload that encryption and compression may add.
const MAX_OVERHEAD_BYTES: usize = 4096;

const MAGIC: [u8; 4] = *b"MRBK";

/// The random key of one use of one segment. It stands in the segment's header: what it keys cannot be forged by one who
/// does not read the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderKey(pub [u8; 16]);

/// How a block's payload is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Packing {
    /// As it is.
    #[default]
    None = 0,
    /// One lz4 block.
    Lz4 = 1,
    /// One zstd frame.
    Zstd = 2,
}

/// What an entry of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block: its stored bytes are an OTLP payload.
    Block(Meta),
    /// A commit-mark: its stored bytes are the lane's durable sequence and counters.
    CommitMark {
        /// When the mark was written, Unix nanoseconds.
        written_ns: u64,
    },
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes after the header.
    pub stored_bytes: u32,
    /// The entry's sequence in its lane.
    pub sequence: u64,
    /// CRC32C of the stored bytes.
    pub crc: u32,
    /// Block or commit-mark, with what the header says of it.
    pub kind: Kind,
    /// How the payload is compressed; a commit-mark never is.
    pub packing: Packing,
}

/// Bytes of [`Header::vouched`].
pub const VOUCHED_BYTES: usize = 72;

impl Header {
    /// The header's bytes when it stands at `offset` of segment `segment`.
    #[must_use]
    pub fn encode(&self, key: HeaderKey, segment: u64, offset: u64) -> [u8; HEADER_BYTES] {
        let mut out = self.fields();
        let check = check(key, &out, segment, offset);
        out[56..64].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// Every field, without the check.
    fn fields(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0u8; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..20].copy_from_slice(&self.crc.to_le_bytes());
        match self.kind {
            Kind::Block(meta) => {
                out[20] = match meta.made {
                    Made::Encoded => 1,
                    Made::Passed => 3,
                } | (self.packing as u8) << 4;
                out[21] = meta.signal as u8;
                out[22..24].copy_from_slice(&meta.source.0.to_le_bytes());
                out[24..28].copy_from_slice(&meta.records.to_le_bytes());
                out[28..32].copy_from_slice(&meta.spans.to_le_bytes());
                out[32..40].copy_from_slice(&meta.received_ns.to_le_bytes());
                out[40..48].copy_from_slice(&meta.first_span_ns.to_le_bytes());
                out[48..56].copy_from_slice(&meta.last_span_ns.to_le_bytes());
            }
            Kind::CommitMark { written_ns } => {
                out[20] = 2;
                out[32..40].copy_from_slice(&written_ns.to_le_bytes());
            }
        }
        out
    }

    /// What the tag of an encrypted block vouches for besides its bytes: every field of the header but the CRC, which
    /// covers the tag itself, and the place. A block that was altered, moved or swapped does not open.
    #[must_use]
    pub fn vouched(&self, segment: u64, offset: u64) -> [u8; VOUCHED_BYTES] {
        let fields = Header { crc: 0, ..*self }.fields();
        let mut out = [0u8; VOUCHED_BYTES];
        out[..56].copy_from_slice(&fields[..56]);
        out[56..64].copy_from_slice(&segment.to_le_bytes());
        out[64..72].copy_from_slice(&offset.to_le_bytes());
        out
    }

    /// Reads a header that claims to stand at `offset` of segment `segment`. `None` unless the keyed check holds and
    /// every field has a meaning; the stored bytes still have to pass their CRC.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_BYTES], key: HeaderKey, segment: u64, offset: u64) -> Option<Header> {
        if bytes[0..4] != MAGIC || u64_at(bytes, 56) != check(key, bytes, segment, offset) {
            return None;
        }
        let stored_bytes = u32_at(bytes, 4);
        if stored_bytes as usize > MAX_BYTES + MAX_OVERHEAD_BYTES {
            return None;
        }
        let packing = match bytes[20] >> 4 {
            0 => Packing::None,
            1 => Packing::Lz4,
            2 => Packing::Zstd,
            _ => return None,
        };
        let kind = match bytes[20] & 0x0f {
            made @ (1 | 3) if u32_at(bytes, 24) <= u32_at(bytes, 28) => Kind::Block(Meta {
                signal: Signal::from_u8(bytes[21])?,
                made: if made == 1 { Made::Encoded } else { Made::Passed },
                source: SourceId(u16::from_le_bytes([bytes[22], bytes[23]])),
                records: u32_at(bytes, 24),
                spans: u32_at(bytes, 28),
                received_ns: u64_at(bytes, 32),
                first_span_ns: u64_at(bytes, 40),
                last_span_ns: u64_at(bytes, 48),
            }),
            2 if packing == Packing::None => Kind::CommitMark { written_ns: u64_at(bytes, 32) },
            _ => return None,
        };
        Some(Header { stored_bytes, sequence: u64_at(bytes, 8), crc: u32_at(bytes, 16), kind, packing })
    }
}

fn check(key: HeaderKey, header: &[u8; HEADER_BYTES], segment: u64, offset: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key.0);
    hasher.write(&header[0..56]);
    hasher.write(&segment.to_le_bytes());
    hasher.write(&offset.to_le_bytes());
    hasher.finish()
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a range of four bytes"))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut meta = Meta::empty(Signal::Traces, Made::Encoded, SourceId(7), 1_747_033_126_563_000_000);
        meta.records = 70;
        meta.spans = 71;
        meta.cover(5, 9);
        Header { stored_bytes: 65_000, sequence: 42, crc: 0xdead_beef, kind: Kind::Block(meta), packing: Packing::Zstd }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let key = HeaderKey([3; 16]);
        let mark = Header { kind: Kind::CommitMark { written_ns: 11 }, packing: Packing::None, ..header() };
        let plain = Header { packing: Packing::None, ..header() };
        for header in [header(), plain, mark] {
            let bytes = header.encode(key, 9, 4096);
            assert_eq!(Header::decode(&bytes, key, 9, 4096), Some(header));
        }
    }

    #[test]
    fn the_tag_vouches_for_every_field_and_the_place_but_not_for_the_crc() {
        let header = header();
        let vouched = header.vouched(9, 4096);
        assert_eq!(Header { crc: 1, ..header }.vouched(9, 4096), vouched);
        let Kind::Block(meta) = header.kind else { panic!("a block") };
        let others = [
            Header { stored_bytes: 1, ..header },
            Header { sequence: 1, ..header },
            Header { packing: Packing::None, ..header },
            Header { kind: Kind::Block(Meta { spans: 1, ..meta }), ..header },
            Header { kind: Kind::Block(Meta { source: SourceId(1), ..meta }), ..header },
            Header { kind: Kind::Block(Meta { last_span_ns: 1, ..meta }), ..header },
        ];
        for other in others {
            assert_ne!(other.vouched(9, 4096), vouched, "{other:?}");
        }
        assert_ne!(header.vouched(8, 4096), vouched);
        assert_ne!(header.vouched(9, 4160), vouched);
    }

    #[test]
    fn a_header_is_bound_to_its_place_its_key_and_every_bit() {
        let key = HeaderKey([3; 16]);
        let bytes = header().encode(key, 9, 4096);
        assert_eq!(Header::decode(&bytes, HeaderKey([4; 16]), 9, 4096), None);
        assert_eq!(Header::decode(&bytes, key, 8, 4096), None);
        assert_eq!(Header::decode(&bytes, key, 9, 4160), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged, key, 9, 4096), None, "bit {bit} flipped and believed");
        }
    }
}
