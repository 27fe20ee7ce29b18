//! The segments of a lane that hold entries, oldest first.
//!
//! A backlog may be a hundred thousand segments, so nothing that is asked once a turn walks them: what is asked by id or by
//! lag is a binary search, the ends are at the ends, and what still has to be synced or sealed stands at the back. Each
//! segment is listed with the bytes of entries and of files before it. Kept behind the log's mutex.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::position::Position;
use super::segment::Segment;

#[derive(Debug)]
struct Listed {
    segment: Arc<Segment>,
    /// Bytes of entries in all segments ever listed before.
    bytes_before: u64,
    /// Bytes of their files.
    file_bytes_before: u64,
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct List {
    segments: VecDeque<Listed>,
    file_bytes: u64,
}

impl List {
    /// Lists a segment behind all others; the one before it is sealed, or will be taken off.
    pub(super) fn push(&mut self, segment: Arc<Segment>) {
        let bytes_before = self.end_bytes();
        let last = self.segments.back();
        let file_bytes_before = last.map_or(0, |last| last.file_bytes_before + last.segment.header.file_bytes);
        debug_assert!(self.newest().is_none_or(|newest| newest.id() < segment.id()), "segments are listed in order");
        self.file_bytes += segment.header.file_bytes;
        self.segments.push_back(Listed { segment, bytes_before, file_bytes_before });
    }

    fn end_bytes(&self) -> u64 {
        self.segments.back().map_or(0, |last| last.bytes_before + last.segment.entry_bytes())
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of entries.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.end_bytes() - self.segments.front().map_or(0, |first| first.bytes_before)
    }

    /// Bytes of files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(super) fn oldest(&self) -> Option<&Arc<Segment>> {
        self.segments.front().map(|listed| &listed.segment)
    }

    pub(super) fn newest(&self) -> Option<&Arc<Segment>> {
        self.segments.back().map(|listed| &listed.segment)
    }

    /// Every segment, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.segments.iter().map(|listed| &listed.segment)
    }

    /// The first segment with at least this id.
    pub(super) fn from(&self, id: u64) -> Option<&Arc<Segment>> {
        let at = self.segments.partition_point(|listed| listed.segment.id() < id);
        self.segments.get(at).map(|listed| &listed.segment)
    }

    /// Takes a segment off, wherever it stands.
    pub(super) fn remove(&mut self, id: u64) -> Option<Arc<Segment>> {
        let at = self.segments.binary_search_by_key(&id, |listed| listed.segment.id()).ok()?;
        self.segments.remove(at).map(|listed| self.taken_off(listed))
    }

    /// Takes off the oldest segments that lie wholly before `up_to`.
    pub(super) fn release(&mut self, up_to: &Position) -> Vec<Arc<Segment>> {
        let mut freed = Vec::new();
        while self.oldest().is_some_and(|oldest| oldest.consumed_at(up_to)) {
            let listed = self.segments.pop_front().expect("there is an oldest");
            freed.push(self.taken_off(listed));
        }
        freed
    }

    fn taken_off(&mut self, listed: Listed) -> Arc<Segment> {
        self.file_bytes -= listed.segment.header.file_bytes;
        listed.segment
    }

    /// Bytes of entries behind a position.
    pub(super) fn bytes_behind(&self, position: &Position) -> u64 {
        let at = self.segments.partition_point(|listed| listed.segment.id() < position.segment);
        let Some(first) = self.segments.get(at) else { return 0 };
        let read = position.offset.saturating_sub(first.segment.start.offset).min(first.segment.entry_bytes());
        let read = if first.segment.id() == position.segment { read } else { 0 };
        self.end_bytes() - first.bytes_before - read
    }

    /// The start of the oldest segment from which on there are at most `max_lag_bytes`; the newest at least. A segment that
    /// is being written counts with its entries, the others with their files: that is what they take of the budget, and each
    /// failed sync leaves one behind that is nearly empty.
    pub(super) fn at_lag(&self, max_lag_bytes: u64) -> Option<Position> {
        let end = self.segments.back().map_or(0, |last| last.file_bytes_before + last.segment.entry_bytes());
        let at = self.segments.partition_point(|listed| end - listed.file_bytes_before > max_lag_bytes);
        self.segments.get(at.min(self.segments.len().saturating_sub(1))).map(|listed| listed.segment.start)
    }

    /// The start of the oldest segment with a block received at or after `wall_ns`, or that is being written. Looks at no
    /// more segments than who goes there leaves behind.
    pub(super) fn at_age(&self, wall_ns: u64) -> Option<Position> {
        self.iter().find(|segment| !segment.extent.is_older_than(wall_ns)).map(|segment| segment.start)
    }

    /// Segments whose writing is not over, oldest first: all behind the newest one with a footer.
    pub(super) fn unfinished(&self) -> Vec<Arc<Segment>> {
        // Relaxed: written by the sync thread, which is also the one that asks.
        let open = |segment: &&Arc<Segment>| !segment.footer_written.load(Ordering::Relaxed);
        let mut found: Vec<_> = self.iter().rev().take_while(open).map(Arc::clone).collect();
        found.reverse();
        found
    }
}
