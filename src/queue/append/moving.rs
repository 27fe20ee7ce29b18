//! Moving blocks out of files whose sync failed, to where a sync may succeed.
//!
//! Such a file is never synced again: what it shows may not be on the disk. Blocks keep their sequences, so a reader that
//! has passed them once passes over their second copies. Room for all of them is made first; without it nothing moves,
//! the appender is stuck, and the next append or turn tries again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{AppendError, Appender, add_block};
use crate::block::{Header, Kind, Meta};
use crate::queue::budget::Bound;
use crate::queue::format::{FIRST_ENTRY, entry_bytes};
use crate::queue::log::Log;
use crate::queue::mark::MARK_BYTES;
use crate::queue::packing::Unpacker;
use crate::queue::pool::NoSpare;
use crate::queue::segment::{OpenSegment, Segment};
use crate::telemetry::ledger::LaneTotals;

impl Appender {
    /// Moves what was not durable, when there is room for it.
    pub(super) fn move_unsynced(&mut self) -> Result<(), AppendError> {
        let outcome = self.rewrite();
        self.stuck = matches!(outcome, Err(AppendError::Full));
        outcome
    }

    /// Writes what was not durable to a new segment, under the same sequences. It is read back through the page cache and
    /// believed only with its CRC, so no copies are kept in memory. The readable end of what is left behind is fixed at
    /// the last durable offset; readers beyond it go on by sequence. Without room for all of it on the file system nothing is
    /// moved, and the next append tries again.
    fn rewrite(&mut self) -> Result<(), AppendError> {
        if !self.log.pool.has_room(&*self.log.storage, Bound::FreeSpace) {
            return Err(AppendError::Full);
        }
        let moved: Vec<Arc<Segment>> =
            self.log.segments().into_iter().filter(|segment| unsynced_from(segment).is_some()).collect();
        let end_of_log = self.sequence;
        let mut blocks = Vec::new();
        for segment in &moved {
            let open = self.log.open_segment(segment).map_err(AppendError::Storage)?;
            collect_unsynced(&open, &mut blocks);
        }
        self.make_room_for(&blocks)?;
        let first = blocks.first().map_or(end_of_log + 1, |(header, ..)| header.sequence);
        let mut before = self.totals;
        for (_, meta, _) in &blocks {
            subtract_block(&mut before, meta);
        }
        let saved = blocks.iter().filter(|(.., payload)| payload.is_some()).count();
        self.log.unsaved_blocks.fetch_add((blocks.len() - saved) as u64, Ordering::Relaxed);
        let after = std::mem::replace(&mut self.totals, before);
        self.sequence = first - 1;
        self.active = None;
        let result = self.rewrite_blocks(&blocks);
        self.totals = after;
        self.sequence = end_of_log;
        if let Err(error) = result {
            // Half of them stand in two places: only a restart, which reads both, sorts that out.
            self.log.fail();
            return Err(error);
        }
        for segment in moved {
            abandon(&self.log, &segment);
        }
        self.write_mark()?;
        self.log.progress.rewritten();
        Ok(())
    }

    /// Has every segment ready that the blocks will fill: a full disk must not stop a move in the middle.
    fn make_room_for(&self, blocks: &[Unsynced]) -> Result<(), AppendError> {
        let segment_bytes = self.log.options.segment_bytes;
        let (mut segments, mut end) = (1, FIRST_ENTRY + entry_bytes(MARK_BYTES));
        for (header, ..) in blocks {
            let bytes = entry_bytes(header.stored_bytes as usize);
            // Behind the last of them stand the mark that ends the move, and the one that ends the segment.
            if end + bytes + 2 * entry_bytes(MARK_BYTES) > segment_bytes {
                (segments, end) = (segments + 1, FIRST_ENTRY + entry_bytes(MARK_BYTES));
            }
            end += bytes;
        }
        self.log.pool.prepare(&*self.log.storage, self.wall_ns, (segments, Bound::FreeSpace)).map_err(|reason| {
            match reason {
                NoSpare::Full => AppendError::Full,
                NoSpare::Storage(error) => {
                    self.log.fail();
                    AppendError::Storage(error)
                }
            }
        })
    }

    fn rewrite_blocks(&mut self, blocks: &[Unsynced]) -> Result<(), AppendError> {
        self.switch()?;
        for (header, meta, payload) in blocks {
            match payload {
                Some(payload) => self.append_as(header.sequence, meta, payload)?,
                // Not to be saved: the totals go on, so readers find it missing.
                None => {
                    add_block(&mut self.totals, meta);
                    self.sequence = header.sequence;
                }
            }
        }
        Ok(())
    }
}

/// A block that was not durable, with its payload if that passes.
type Unsynced = (Header, Meta, Option<bytes::Bytes>);

fn unsynced_from(segment: &Segment) -> Option<u64> {
    let synced = segment.extent.synced_end();
    (synced < segment.extent.load().0).then_some(synced)
}

fn collect_unsynced(open: &OpenSegment, blocks: &mut Vec<Unsynced>) {
    let (end, _sealed) = open.segment.extent.load();
    let mut from = open.segment.extent.synced_end();
    let mut unpacker = Unpacker::default();
    while let Some((offset, header)) = open.find_header(from, end) {
        from = offset + entry_bytes(header.stored_bytes as usize);
        if let Kind::Block(meta) = header.kind {
            let payload = open.payload(offset, &header, &mut unpacker).map(|(payload, _)| payload);
            blocks.push((header, meta, payload));
        }
    }
}

/// Ends a segment where it was durable; one with nothing durable leaves the list.
fn abandon(log: &Log, segment: &Segment) {
    let synced = segment.extent.synced_end();
    segment.extent.suspect();
    segment.extent.seal(synced);
    if synced == FIRST_ENTRY {
        log.unlist(segment.id());
    }
}

fn subtract_block(totals: &mut LaneTotals, meta: &Meta) {
    let spans = u64::from(meta.spans);
    let (passed, synthesised) = (u64::from(meta.passed()), u64::from(meta.synthesised()));
    totals.passed -= passed;
    totals.synthesised -= synthesised;
    totals.encoded -= spans - passed - synthesised;
    totals.appended -= spans;
}
