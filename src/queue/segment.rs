//! One segment in memory: its file, how far it may be read, and the checks that every reader makes.
//!
//! Shared by the lane's writer (which alone moves the extent), the sync thread (which alone moves `synced_end`) and any
//! number of readers. Nothing is believed that did not pass: a header its keyed check, a payload its CRC; an I/O error
//! while reading counts as damage of what could not be read.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::crc32c;
use super::extent::Extent;
use super::format::{FIRST_ENTRY, Footer, entry_bytes};
use super::position::Position;
use super::sabotage::{Sabotage, planted};
use super::storage::StoredFile;
use crate::block::{HEADER_BYTES, Header, HeaderKey};

/// Bytes looked at together when a header is searched after damage.
const SEARCH_BYTES: u64 = 64 * 1024;

/// A segment that readers may see.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) key: HeaderKey,
    /// Before the first entry.
    pub(super) start: Position,
    /// Marks beyond this sequence say nothing: they count blocks that a crash took (recovery judged so).
    pub(super) trusted: u64,
    pub(super) extent: Extent,
    /// Entries before this offset are durable; moved by the sync thread.
    pub(super) synced_end: AtomicU64,
    /// A sync of this file failed: never sync it again, never recycle it.
    pub(super) suspect: AtomicBool,
    /// Newest receive time of a block, Unix nanoseconds; kept by the writer.
    pub(super) newest_ns: AtomicU64,
    /// Set by the writer when it seals, read by the sync thread, which writes it.
    pub(super) footer: OnceLock<Footer>,
    pub(super) footer_written: AtomicBool,
}

impl Segment {
    /// The header of the entry at `offset`, if one stands there and fits before `end`.
    pub(super) fn header_at(&self, offset: u64, end: u64) -> Option<Header> {
        if offset + HEADER_BYTES as u64 > end {
            return None;
        }
        let mut bytes = [0u8; HEADER_BYTES];
        self.file.read_at(offset, &mut bytes).ok()?;
        self.decode(&bytes, offset, end)
    }

    fn decode(&self, bytes: &[u8; HEADER_BYTES], offset: u64, end: u64) -> Option<Header> {
        let header = Header::decode(bytes, self.key, self.id, offset)?;
        (offset + entry_bytes(header.stored_bytes as usize) <= end).then_some(header)
    }

    /// The stored bytes of the entry at `offset`, if they pass their CRC.
    pub(super) fn stored(&self, offset: u64, header: &Header) -> Option<Bytes> {
        let start = offset + HEADER_BYTES as u64;
        let bytes = Arc::clone(&self.file).view(start, header.stored_bytes as usize).ok()?;
        (crc32c::crc32c(&bytes) == header.crc || planted(Sabotage::PayloadUnchecked)).then_some(bytes)
    }

    /// The first entry at or after `from` whose header passes, with its offset.
    pub(super) fn find_header(&self, from: u64, end: u64) -> Option<(u64, Header)> {
        let mut chunk_start = from.next_multiple_of(HEADER_BYTES as u64);
        while chunk_start + HEADER_BYTES as u64 <= end {
            let chunk_bytes = SEARCH_BYTES.min(end - chunk_start);
            let len = usize::try_from(chunk_bytes).expect("a chunk is small");
            // What cannot be read is damaged like what does not pass.
            if let Ok(chunk) = Arc::clone(&self.file).view(chunk_start, len) {
                let (places, _rest) = chunk.as_chunks::<HEADER_BYTES>();
                for (place, bytes) in places.iter().enumerate() {
                    let offset = chunk_start + (place * HEADER_BYTES) as u64;
                    if let Some(header) = self.decode(bytes, offset, end) {
                        return Some((offset, header));
                    }
                }
            }
            chunk_start += SEARCH_BYTES;
        }
        None
    }

    /// Whether every entry is consumed by one who stands at `position`.
    pub(super) fn consumed_at(&self, position: &Position) -> bool {
        let (end, sealed) = self.extent.load();
        sealed && (self.id < position.segment || (self.id == position.segment && position.offset >= end))
    }

    /// Bytes of entries.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.extent.load().0 - FIRST_ENTRY
    }

    /// Whether a sync has something to do here.
    pub(super) fn needs_sync(&self) -> bool {
        // Relaxed: both are hints of what to sync next; the sync itself orders the bytes.
        !self.suspect.load(Ordering::Relaxed) && self.synced_end.load(Ordering::Relaxed) < self.extent.load().0
    }
}
