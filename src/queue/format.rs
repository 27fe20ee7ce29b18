//! The segment file, byte by byte. Integers are little-endian.
//!
//! ```text
//!     0  512  header, copy A         4096  512  footer, once sealed and synced, copy A
//!   512  512  header, copy B         4608  512  footer, copy B
//!  5120  512  header, copy C         8192   ..  entries, each at a multiple of 64
//!
//! header                                  footer
//! off size field                          off size field
//!   0   8  magic `MRSEG001`                 0   8  magic `MRFOOT01`
//!   8   4  compat features                  8   8  end: offset at which the entries end
//!  12   4  incompat features               16   8  sequence before the first block
//!  16   8  segment id                      24   8  sequence of the last block
//!  24   4  lane                            32   8  blocks
//!  28   4  zero                            40   8  records
//!  32   8  lane incarnation                48   8  stored bytes of blocks
//!  40   8  file bytes                      56   8  spans ever appended, before the first block
//!  48   8  created, Unix ns                64   8  trusted: marks beyond this sequence are not believed
//!  56  16  key of this use                 72   8  newest receive time, Unix ns
//!  72   4  CRC32C of bytes 0..72           80  48  lane totals after the last block, as in a commit-mark
//!  76   4  zero                           128   4  rolling CRC32C of the blocks' CRCs
//!  80   8  master key id, if encrypted    132   4  zero
//!  88   4  CRC32C of bytes 0..88, same    136   8  SipHash-1-3 under the key of bytes 0..136 ‖ segment id
//! ```
//!
//! An unknown compat bit is ignored, an unknown incompat bit refuses the segment. Incompat bits: 0, blocks may be compressed;
//! 1, blocks are encrypted (all of them, AES-256-GCM, `keys`): there is no bit in a block to flip, and with this one flipped
//! no payload is one. Marks and footers are never encrypted, so recovery needs no key and counts without one.
//!
//! Copies stand in different sectors, and the header's in different pages: losing one costs no entry. Copy C is believed
//! only when it has the id that the file is named after: it may be of an earlier use of a recycled file, and the first
//! versions wrote none. The footer is keyed, so that one of an earlier use is never believed. A footer that was not written
//! by recovery says that everything before it had been synced when it was written.

use std::hash::Hasher;
use std::io;

use siphasher::sip::SipHasher13;

use super::crc32c;
use super::fields::{Fields, MAX_COUNT, Writer};
use super::keys::KeyId;
use super::mark::read_totals;
use super::sabotage::{Sabotage, planted};
use super::storage::StoredFile;
use crate::block::{HEADER_BYTES, HeaderKey};
use crate::telemetry::ledger::LaneTotals;

const MAGIC: [u8; 8] = *b"MRSEG001";
const FOOTER_MAGIC: [u8; 8] = *b"MRFOOT01";
const COPY_BYTES: usize = 512;
const HEADER_FIELDS: usize = 72;
const ENCRYPTED_FIELDS: usize = 88;
const FOOTER_FIELDS: usize = 136;

/// The longest file that is believed, a thousand times what can be configured.
const MAX_FILE_BYTES: u64 = 1 << 40;

/// Incompat bits.
const COMPRESSED: u32 = 1;
const ENCRYPTED: u32 = 2;

/// Offsets of the two footer copies.
pub(super) const FOOTER_OFFSETS: [u64; 2] = [4096, 4608];
/// Where the first entry stands.
pub(super) const FIRST_ENTRY: u64 = 8192;
/// Offsets of the header's copies.
pub(super) const HEADER_OFFSETS: [u64; 3] = [0, COPY_BYTES as u64, LAST_HEADER];
const LAST_HEADER: u64 = 5120;

/// The name of a segment's file.
pub(super) fn segment_name(id: u64) -> String {
    format!("seg-{id:016x}.log")
}

/// The id that a segment's file is named after; `None` when that is not a name we give.
pub(super) fn segment_id(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name.strip_prefix("seg-")?.strip_suffix(".log")?, 16).ok()?;
    (segment_name(id) == name && id <= MAX_COUNT).then_some(id)
}

/// Bytes that an entry with `stored` bytes takes, header and padding included.
pub(super) fn entry_bytes(stored: usize) -> u64 {
    (HEADER_BYTES + stored).next_multiple_of(HEADER_BYTES) as u64
}

/// The header of a segment file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: u64,
    pub(super) lane: u32,
    pub(super) incarnation: u64,
    pub(super) file_bytes: u64,
    pub(super) created_ns: u64,
    pub(super) key: HeaderKey,
    /// Blocks may be compressed.
    pub(super) compressed: bool,
    /// Blocks are encrypted, under a key derived from this one.
    pub(super) master: Option<KeyId>,
}

/// What a copy of a header turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFound {
    Valid(SegmentHeader),
    /// Written by a version that we cannot read.
    Unsupported,
    Damaged,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; COPY_BYTES] {
        let mut writer = Writer::default();
        writer.0.extend_from_slice(&MAGIC);
        writer.u32(0);
        writer.u32(u32::from(self.compressed) * COMPRESSED + u32::from(self.master.is_some()) * ENCRYPTED);
        writer.u64(self.id);
        writer.u32(self.lane);
        writer.u32(0);
        writer.u64(self.incarnation);
        writer.u64(self.file_bytes);
        writer.u64(self.created_ns);
        writer.0.extend_from_slice(&self.key.0);
        let crc = crc32c::crc32c(&writer.0);
        writer.u32(crc);
        if let Some(master) = self.master {
            writer.u32(0);
            writer.0.extend_from_slice(&master.0);
            let crc = crc32c::crc32c(&writer.0);
            writer.u32(crc);
        }
        let mut out = [0u8; COPY_BYTES];
        out[..writer.0.len()].copy_from_slice(&writer.0);
        out
    }

    /// The first copy that can be believed in a file that is named after `id`, if after any.
    pub(super) fn read(file: &dyn StoredFile, id: Option<u64>) -> HeaderFound {
        for offset in HEADER_OFFSETS {
            let mut bytes = [0u8; COPY_BYTES];
            if file.read_at(offset, &mut bytes).is_err() {
                continue;
            }
            match SegmentHeader::decode(&bytes) {
                HeaderFound::Damaged => {}
                HeaderFound::Valid(header) if offset == LAST_HEADER && id != Some(header.id) => {}
                found => return found,
            }
        }
        HeaderFound::Damaged
    }

    pub(super) fn decode(bytes: &[u8; COPY_BYTES]) -> HeaderFound {
        if bytes[..8] != MAGIC || !crc_holds(bytes, HEADER_FIELDS) {
            return HeaderFound::Damaged;
        }
        let mut fields = Fields(&bytes[8..HEADER_FIELDS]);
        let mut read = || {
            let (_compat, incompat) = (fields.u32()?, fields.u32()?);
            let (id, lane, _zero) = (fields.count()?, fields.u32()?, fields.u32()?);
            let (incarnation, file_bytes, created_ns) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let key = HeaderKey(fields.bytes()?);
            let compressed = incompat & COMPRESSED != 0;
            let header = SegmentHeader { id, lane, incarnation, file_bytes, created_ns, key, compressed, master: None };
            Some((incompat, header))
        };
        match read() {
            Some((_, header)) if header.file_bytes > MAX_FILE_BYTES => HeaderFound::Damaged,
            Some((incompat, _)) if incompat & !(COMPRESSED | ENCRYPTED) != 0 => HeaderFound::Unsupported,
            Some((incompat, header)) if incompat & ENCRYPTED == 0 => HeaderFound::Valid(header),
            Some((_, header)) if crc_holds(bytes, ENCRYPTED_FIELDS) => {
                let master = Fields(&bytes[80..ENCRYPTED_FIELDS]).bytes().map(KeyId);
                HeaderFound::Valid(SegmentHeader { master, ..header })
            }
            Some(_) | None => HeaderFound::Damaged,
        }
    }
}

/// Whether the CRC behind the first `fields` bytes is theirs.
fn crc_holds(bytes: &[u8; COPY_BYTES], fields: usize) -> bool {
    Fields(&bytes[fields..]).u32() == Some(crc32c::crc32c(&bytes[..fields]))
}

/// What a sealed segment says of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) end: u64,
    pub(super) before_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) blocks: u64,
    pub(super) records: u64,
    pub(super) stored_bytes: u64,
    pub(super) spans_before: u64,
    pub(super) trusted: u64,
    pub(super) newest_ns: u64,
    pub(super) totals: LaneTotals,
    pub(super) rolling_crc: u32,
}

impl Footer {
    /// Bytes of an encoded footer.
    pub(super) const BYTES: usize = FOOTER_FIELDS + 8;

    /// Whether no entry was found in it, not even the mark with which each begins: it tells nothing of its neighbours.
    pub(super) fn is_empty(&self) -> bool {
        self.end == FIRST_ENTRY
    }

    pub(super) fn encode(&self, key: HeaderKey, segment: u64) -> [u8; Footer::BYTES] {
        let mut writer = Writer::default();
        writer.0.extend_from_slice(&FOOTER_MAGIC);
        let fields = [
            self.end,
            self.before_sequence,
            self.last_sequence,
            self.blocks,
            self.records,
            self.stored_bytes,
            self.spans_before,
            self.trusted,
            self.newest_ns,
            self.totals.encoded,
            self.totals.passed,
            self.totals.synthesised,
            self.totals.transform_dropped,
            self.totals.refused,
            self.totals.appended,
        ];
        for field in fields {
            writer.u64(field);
        }
        writer.u32(self.rolling_crc);
        writer.u32(0);
        let check = footer_check(key, &writer.0, segment);
        writer.u64(check);
        writer.0.try_into().expect("the fields above are as long as the format says")
    }

    /// Writes both copies and syncs them; what is before the footer must be durable already.
    pub(super) fn write(&self, file: &dyn StoredFile, key: HeaderKey, segment: u64) -> io::Result<()> {
        let bytes = self.encode(key, segment);
        for offset in FOOTER_OFFSETS {
            file.write_at(offset, &bytes)?;
        }
        file.sync()
    }

    /// The first copy that is valid for this use of the file.
    pub(super) fn read(file: &dyn StoredFile, key: HeaderKey, segment: u64) -> Option<Footer> {
        FOOTER_OFFSETS.into_iter().find_map(|offset| {
            let mut bytes = [0u8; Footer::BYTES];
            file.read_at(offset, &mut bytes).ok()?;
            Footer::decode(&bytes, key, segment).filter(|footer| footer.end <= file.bytes())
        })
    }

    pub(super) fn decode(bytes: &[u8; Footer::BYTES], key: HeaderKey, segment: u64) -> Option<Footer> {
        let (body, check) = bytes.split_at(FOOTER_FIELDS);
        let holds = Fields(check).u64()? == footer_check(key, body, segment) || planted(Sabotage::FooterUnchecked);
        if body[..8] != FOOTER_MAGIC || !holds {
            return None;
        }
        let mut fields = Fields(&body[8..]);
        Some(Footer {
            end: fields.count().filter(|end| *end >= FIRST_ENTRY)?,
            before_sequence: fields.count()?,
            last_sequence: fields.count()?,
            blocks: fields.count()?,
            records: fields.count()?,
            stored_bytes: fields.count()?,
            spans_before: fields.count()?,
            trusted: fields.u64()?,
            newest_ns: fields.u64()?,
            totals: read_totals(&mut fields)?,
            rolling_crc: fields.u32()?,
        })
    }
}

fn footer_check(key: HeaderKey, body: &[u8], segment: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key.0);
    hasher.write(body);
    hasher.write(&segment.to_le_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_footers_come_back_and_no_flipped_bit_is_believed() {
        let key = HeaderKey([9; 16]);
        let header = SegmentHeader {
            id: 3,
            lane: 1,
            incarnation: 77,
            file_bytes: 1 << 20,
            created_ns: 5,
            key,
            ..SegmentHeader::default()
        };
        let encrypted = SegmentHeader { compressed: true, master: Some(KeyId([5; 8])), ..header };
        for (header, fields) in [(header, HEADER_FIELDS), (encrypted, ENCRYPTED_FIELDS)] {
            let bytes = header.encode();
            assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::Valid(header));
            for bit in 0..(fields + 4) * 8 {
                let mut damaged = bytes;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(SegmentHeader::decode(&damaged), HeaderFound::Damaged, "bit {bit}");
            }
        }
        let footer = Footer { end: 9000, blocks: 2, trusted: u64::MAX, rolling_crc: 1, ..Footer::default() };
        let bytes = footer.encode(key, 3);
        assert_eq!(Footer::decode(&bytes, key, 3), Some(footer));
        assert_eq!(Footer::decode(&bytes, key, 4), None);
        for bit in 0..Footer::BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Footer::decode(&damaged, key, 3), None, "bit {bit}");
        }
    }

    #[test]
    fn an_unknown_incompat_bit_refuses_the_segment_and_an_unknown_compat_bit_does_not() {
        let key = HeaderKey([9; 16]);
        let header = SegmentHeader {
            id: 3,
            lane: 1,
            incarnation: 77,
            file_bytes: 1 << 20,
            created_ns: 5,
            key,
            ..SegmentHeader::default()
        };
        for (at, found) in [(8, HeaderFound::Valid(header)), (12, HeaderFound::Unsupported)] {
            let mut bytes = header.encode();
            bytes[at] |= 4;
            let crc = crc32c::crc32c(&bytes[..HEADER_FIELDS]);
            bytes[HEADER_FIELDS..HEADER_FIELDS + 4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(SegmentHeader::decode(&bytes), found);
        }
    }
}
