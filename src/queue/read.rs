//! The reading end of a log: blocks in order, each checked, and exactly how many spans are missing where some are.
//!
//! Owned by a destination's thread. It never waits: `next` answers `None` at the end, and the destination parks until it
//! is woken (`Log::subscribe`). A damaged entry is passed over in silence; the next commit-mark says how many spans were ever
//! appended before it, and the difference to what was read is the gap. So a gap is exact, is counted once, also across a
//! restart (the position carries the count), and can cover lost headers, files and segments alike.

mod ahead;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::format::{FIRST_ENTRY, entry_bytes};
use super::log::Log;
use super::mark::Mark;
use super::packing::Unpacker;
use super::position::Position;
use super::sabotage::{Sabotage, planted};
use super::segment::{OpenSegment, Segment};
use crate::block::{Header, Kind, Meta};
use crate::config::MissingKey;

pub use ahead::Ahead;

/// What comes next in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A block, byte for byte as it was appended.
    Block {
        /// What its header says.
        meta: Meta,
        /// Its sequence.
        sequence: u64,
        /// Its payload: with mapped storage and neither compression nor encryption a slice of the page cache, so any number
        /// can be held to gather a request.
        payload: Bytes,
        /// CRC-32C of the payload, which it has passed: a mapped file may be damaged later.
        crc: u32,
        /// Behind it: commit this once everything up to it is settled.
        end: Position,
    },
    /// Spans that were appended and are not there any more.
    Gap {
        /// How many.
        spans: u64,
        /// Behind it.
        end: Position,
    },
}

/// A cursor in motion.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    position: Position,
    open: Option<Arc<OpenSegment>>,
    unpacker: Unpacker,
    /// The time, for a reader that shares sums.
    shares_at: Option<Duration>,
}

impl Reader {
    pub(super) fn new(log: Arc<Log>, position: Position) -> Reader {
        Reader { log, position, open: None, unpacker: Unpacker::default(), shares_at: None }
    }

    /// Told once a turn, what this reads is to be sent: blocks that another reader of the log has summed within a second
    /// before `now` are not summed again, and what this one sums others need not. A reader that was never told sums every
    /// block. (`passed` says why that is safe.)
    pub fn share_sums(&mut self, now: Duration) {
        self.shares_at = Some(now);
    }

    /// Behind the last entry returned, marks included.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The start of the segment that it is in. Nothing before it is left to be read.
    #[must_use]
    pub fn segment_start(&self) -> Position {
        Position { offset: FIRST_ENTRY, ..self.position }
    }

    /// Goes forward to `to` without reading, and says how many spans that passes over. Backward is no move.
    pub fn skip_to(&mut self, to: Position) -> u64 {
        if to <= self.position {
            return 0;
        }
        let to = self.position.forward_to(&to);
        let spans = to.spans_since(&self.position);
        self.position = to;
        self.open = None;
        spans
    }

    /// The next entry; `None` at the end of what is published.
    #[expect(clippy::should_implement_trait, reason = "the end is not final, so this is no Iterator")]
    pub fn next(&mut self) -> Option<Entry> {
        loop {
            let Some(open) = self.open.clone() else {
                let here = self.position.segment;
                let Some(segment) = self.log.segment_from(here) else { return self.settle_end(here) };
                self.enter(&segment)?;
                continue;
            };
            let (end, sealed) = open.segment.extent.load();
            if self.position.offset >= end {
                if !sealed {
                    return None;
                }
                let next = self.position.segment + 1;
                let Some(segment) = self.log.segment_from(next) else { return self.settle_end(next) };
                self.enter(&segment)?;
                continue;
            }
            if !open.is_readable() && self.log.options.at_rest.missing_key == MissingKey::Hold {
                return None;
            }
            let offset = self.position.offset;
            let Some(header) = open.header_at(offset, end) else {
                self.position.offset = open.find_header(offset + 1, end).map_or(end, |(offset, _)| offset);
                continue;
            };
            self.position.offset += entry_bytes(header.stored_bytes as usize);
            let entry = match header.kind {
                Kind::Block(meta) => self.block(&open, offset, &header, meta),
                Kind::CommitMark { .. } => self.settle(&open, offset, &header),
            };
            if entry.is_some() {
                return entry;
            }
        }
    }

    /// Opens a segment. `None` when that has to be tried again: too many files are open, or the memory is used up.
    fn enter(&mut self, segment: &Arc<Segment>) -> Option<()> {
        let open = match self.log.open_segment(segment) {
            Ok(open) => open,
            Err(error) if is_shortage(&error) => return None,
            Err(_) => OpenSegment::lost(segment),
        };
        if self.position.segment != segment.id() {
            // Sequence and spans stay: the segment's first mark settles what lay between.
            self.position.segment = segment.id();
            self.position.offset = FIRST_ENTRY;
        }
        self.open = Some(Arc::new(open));
        Some(())
    }

    fn block(&mut self, open: &OpenSegment, offset: u64, header: &Header, meta: Meta) -> Option<Entry> {
        // A block that was moved after a failed sync may stand in two places.
        if header.sequence <= self.position.sequence && !planted(Sabotage::BothCopies) {
            return None;
        }
        let (payload, crc) = match self.shares_at.filter(|_| self.may_share()) {
            Some(now) => open.payload_to_send(offset, header, &mut self.unpacker, now)?,
            None => open.payload(offset, header, &mut self.unpacker)?,
        };
        self.position.sequence = header.sequence;
        self.position.spans += u64::from(meta.spans);
        Some(Entry::Block { meta, sequence: header.sequence, payload, crc, end: self.position })
    }

    /// Until the first sync that fails: from then on the page cache may show what the disk does not have.
    fn may_share(&self) -> bool {
        // Relaxed: who reads while a sync fails is as early as one who read before it.
        self.log.sync_failures.load(Ordering::Relaxed) == 0 || planted(Sabotage::SumsSharedAfterFailure)
    }

    fn settle(&mut self, open: &OpenSegment, offset: u64, header: &Header) -> Option<Entry> {
        let trusted = header.sequence <= open.segment.trusted || planted(Sabotage::TornMarksBelieved);
        if header.sequence < self.position.sequence || !trusted {
            return None;
        }
        let mark = Mark::decode(&open.stored(offset, header)?)?;
        let spans = mark.totals.appended.saturating_sub(self.position.spans);
        self.position.sequence = header.sequence;
        self.position.spans = mark.totals.appended;
        (spans > 0).then_some(Entry::Gap { spans, end: self.position })
    }

    /// Behind all that is listed, without a segment from `next` on. A log that was opened on a full disk has no file to put
    /// its first mark in, and a lane that no longer runs never will: what is missing before the end is told by the mark
    /// in memory.
    fn settle_end(&mut self, next: u64) -> Option<Entry> {
        // The mark first, then the list again: what it counts stands in a listed segment, or is gone.
        let tail = self.log.tail();
        let spans = tail.spans_since(&self.position);
        if spans == 0 || self.log.segment_from(next).is_some() {
            return None;
        }
        self.position = self.position.forward_to(&tail);
        self.open = None;
        Some(Entry::Gap { spans, end: self.position })
    }
}

/// Whether opening may succeed later.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR))
}
