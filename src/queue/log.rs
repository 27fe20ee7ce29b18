//! The log of one lane, as everybody but its writer sees it.
//!
//! Shared by the writer (through [`super::Appender`]), one sync thread, and a [`super::Reader`] per destination. The list of
//! segments is behind a mutex that is taken once a segment, never for an entry. Who may move what: the writer moves
//! what is published, the sync thread what is durable ([`super::progress`]), destinations move nothing, they only release what
//! all of them are past.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::sync::Unparker;

use super::budget::Budget;
use super::index::Index;
use super::keys::{Keys, TAG_BYTES};
use super::list::List;
use super::mark::Mark;
use super::pool::Pool;
use super::position::Position;
use super::progress::Progress;
use super::read::Reader;
use super::sabotage::{Sabotage, planted};
use super::segment::{OpenSegment, Segment};
use super::state::StateFile;
use super::storage::Storage;
use crate::config::{BlockCompression, MissingKey};

/// How a log is laid out.
#[derive(Clone, Debug)]
pub struct Options {
    /// The lane's own directory.
    pub directory: PathBuf,
    /// Where files go that are not ours to read.
    pub quarantine: PathBuf,
    /// The lane.
    pub lane: u32,
    /// Bytes of a segment file, a multiple of 4096.
    pub segment_bytes: u64,
    /// Bytes of the largest payload; a segment must hold one.
    pub max_payload_bytes: usize,
    /// Recycled segments kept ready.
    pub pool_segments: usize,
    /// Sealed segments that are opened at start, the newest; what older ones say is taken from the index.
    pub opened_at_start: usize,
    /// The disk budget, shared by all lanes.
    pub budget: Arc<Budget>,
    /// The wall clock, Unix nanoseconds.
    pub wall_ns: u64,
    /// How blocks lie on the disk.
    pub at_rest: AtRest,
}

#[cfg(test)]
impl Options {
    /// Lane 0 under `root`, with segments of 4 MiB and room for 1 GiB.
    pub(crate) fn of_a_test(root: &std::path::Path) -> Options {
        Options {
            directory: root.join("log/lane-00"),
            quarantine: root.join("log/quarantine"),
            lane: 0,
            segment_bytes: 4 << 20,
            max_payload_bytes: crate::block::MAX_BYTES,
            pool_segments: 0,
            opened_at_start: 16,
            budget: Arc::new(Budget::new(1 << 30, 0)),
            wall_ns: 1,
            at_rest: AtRest::default(),
        }
    }
}

/// How blocks lie on the disk: by default as they are.
#[derive(Clone, Debug, Default)]
pub struct AtRest {
    /// How new blocks are compressed.
    pub compression: BlockCompression,
    /// The keys of encrypted segments; without any, new ones are not encrypted.
    pub keys: Keys,
    /// What becomes of segments whose key is not there.
    pub missing_key: MissingKey,
}

/// Why the sync thread must stop acknowledging.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A sync failed, and so did the attempt to move the blocks to another file. What is not durable never will be.
    #[error("storage failed for good: {0}")]
    Failed(#[source] io::Error),
    /// As `Failed`, and reported before.
    #[error("storage has failed")]
    FailedBefore,
}

/// Sizes and counts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segments that hold entries.
    pub segments: u64,
    /// Segments that wait for reuse.
    pub pool_segments: u64,
    /// Bytes of entries.
    pub entry_bytes: u64,
    /// Bytes of segment files, pool left out.
    pub file_bytes: u64,
    /// Syncs that failed.
    pub sync_failures: u64,
    /// Blocks that could not be saved from a file whose sync failed.
    pub unsaved_blocks: u64,
}

/// A place behind a commit-mark, and what the mark said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MarkPoint {
    pub(super) position: Position,
    pub(super) mark: Mark,
}

/// What the sync thread alone uses.
#[derive(Debug)]
pub(super) struct SyncSide {
    pub(super) state: StateFile,
    pub(super) index: Index,
    pub(super) failures_in_a_row: u32,
    /// The newest mark that is durable.
    pub(super) durable_mark: MarkPoint,
}

/// The log of a lane.
#[derive(Debug)]
pub struct Log {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: Options,
    pub(super) incarnation: u64,
    pub(super) pool: Pool,
    pub(super) segments: Mutex<List>,
    pub(super) retired: Mutex<Vec<Arc<Segment>>>,
    pub(super) progress: Progress,
    mark: Mutex<MarkPoint>,
    pub(super) sync_side: Mutex<SyncSide>,
    failed: AtomicBool,
    pub(super) sync_failures: AtomicU64,
    pub(super) unsaved_blocks: AtomicU64,
    subscribers: Mutex<BTreeMap<u64, Unparker>>,
    /// Counts changes of the subscribers, so that the writer copies the list only when it has changed.
    subscriptions: AtomicU64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread leaves these lists whole: each change of them is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        options: Options,
        (incarnation, pool): (u64, Pool),
        (state, index): (StateFile, Index),
        sequence: u64,
    ) -> Log {
        let sync_side = SyncSide { state, index, failures_in_a_row: 0, durable_mark: MarkPoint::default() };
        Log {
            storage,
            options,
            incarnation,
            pool,
            segments: Mutex::default(),
            retired: Mutex::default(),
            progress: Progress::at(sequence),
            mark: Mutex::default(),
            sync_side: Mutex::new(sync_side),
            failed: AtomicBool::new(false),
            sync_failures: AtomicU64::new(0),
            unsaved_blocks: AtomicU64::new(0),
            subscribers: Mutex::default(),
            subscriptions: AtomicU64::new(0),
        }
    }

    /// The lane that this is the log of.
    #[must_use]
    pub fn lane(&self) -> u32 {
        self.options.lane
    }

    /// Tells this log from every other that the lane's directory ever held.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Sequence of the last block that readers can see.
    #[must_use]
    pub fn published_sequence(&self) -> u64 {
        self.progress.published()
    }

    /// Sequence up to which every block has been synced.
    #[must_use]
    pub fn durable_sequence(&self) -> u64 {
        self.progress.durable()
    }

    /// Bytes appended and not yet synced.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.progress.unsynced_bytes()
    }

    /// Storage has failed for good: nothing more becomes durable.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        // Relaxed: a latch that is only ever set.
        self.failed.load(Ordering::Relaxed)
    }

    /// A sync failed, and what it should have made durable waits for the writer to move it to another file.
    #[must_use]
    pub fn moves_blocks(&self) -> bool {
        self.progress.wants_rewrite()
    }

    /// Before the oldest entry: where a new destination starts that wants everything.
    #[must_use]
    pub fn oldest(&self) -> Position {
        let oldest = lock(&self.segments).oldest().map(|segment| segment.start);
        oldest.unwrap_or_else(|| self.tail())
    }

    /// The id of the newest segment: readers go by the ids, so each next one's is higher.
    pub(super) fn newest_segment(&self) -> Option<u64> {
        lock(&self.segments).newest().map(|segment| segment.id())
    }

    /// Behind the newest commit-mark: where a new destination starts that wants only what comes. At most one sync older
    /// than the newest block, and exact in its spans.
    #[must_use]
    pub fn tail(&self) -> Position {
        lock(&self.mark).position
    }

    /// Behind the newest commit-mark that is durable, or the oldest entry: where a cursor may be committed to at once. Waits
    /// for a sync that is running.
    #[must_use]
    pub fn durable_tail(&self) -> Position {
        let mark = lock(&self.sync_side).durable_mark.position;
        let oldest = lock(&self.segments).oldest().map(|segment| segment.start);
        oldest.map_or(mark, |oldest| mark.max(oldest))
    }

    /// The oldest place that is at most `max_lag_bytes` on the disk behind the newest entry, in whole segments: where the
    /// cursor of an optional destination jumps to.
    #[must_use]
    pub fn position_at_lag(&self, max_lag_bytes: u64) -> Position {
        let found = lock(&self.segments).at_lag(max_lag_bytes);
        found.unwrap_or_else(|| self.tail())
    }

    /// The start of the oldest segment that holds a block received at or after `wall_ns`: what retention by age keeps.
    #[must_use]
    pub fn position_at_age(&self, wall_ns: u64) -> Position {
        let found = lock(&self.segments).at_age(wall_ns);
        found.unwrap_or_else(|| self.tail())
    }

    /// Bytes of entries behind a position.
    #[must_use]
    pub fn bytes_behind(&self, position: &Position) -> u64 {
        lock(&self.segments).bytes_behind(position)
    }

    /// A reader that continues behind `from`. A place beyond the end (of a log that was lost under its cursor, or had no
    /// room for a new segment at its start) becomes the beginning of the last segment, with nothing read again.
    #[must_use]
    pub fn reader(self: &Arc<Self>, from: Position) -> Reader {
        let newest = lock(&self.segments).newest().map(|segment| segment.start);
        let from = match newest {
            Some(newest) if from.segment > newest.segment => from.forward_to(&newest),
            _ => from,
        };
        Reader::new(Arc::clone(self), from)
    }

    /// Wakes this thread whenever there is something to read; the number is for [`Log::unsubscribe`].
    pub fn subscribe(&self, waker: Unparker) -> u64 {
        let mut subscribers = lock(&self.subscribers);
        let number = subscribers.last_key_value().map_or(0, |(number, _)| number + 1);
        subscribers.insert(number, waker);
        // Release: pairs with the Acquire in `subscribers_since`.
        self.subscriptions.fetch_add(1, Ordering::Release);
        number
    }

    /// The thread reads no more.
    pub fn unsubscribe(&self, number: u64) {
        lock(&self.subscribers).remove(&number);
        // Release: as in `subscribe`.
        self.subscriptions.fetch_add(1, Ordering::Release);
    }

    /// Frees every segment that lies wholly before `up_to`: the least of the *durable* cursors of the destinations that must
    /// not lose anything. Idempotent. Returns the segments freed; their files go at the next [`Log::tend`].
    pub fn release(&self, up_to: &Position) -> usize {
        let freed = lock(&self.segments).release(up_to);
        let count = freed.len();
        lock(&self.retired).extend(freed);
        count
    }

    /// Makes what was published before the call durable. Called by the sync thread alone.
    ///
    /// When a sync fails, the file is never synced again: the writer is asked to move what was not durable to another file
    /// (its next `append` or `maintain`), and the sequence stands still until a sync of that succeeded. When that fails
    /// too, the log has failed for good.
    pub fn sync(&self) -> Result<u64, SyncError> {
        if self.has_failed() {
            return Err(SyncError::FailedBefore);
        }
        if self.progress.wants_rewrite() {
            return Ok(self.durable_sequence());
        }
        let mut side = lock(&self.sync_side);
        // In this order: what was marked is published, and what is published is in the list.
        let point = *lock(&self.mark);
        let goal = self.progress.goal();
        let unfinished = lock(&self.segments).unfinished();
        for segment in unfinished.into_iter().filter(|segment| segment.extent.needs_sync()) {
            let (end, _sealed) = segment.extent.load();
            let file = segment.kept().expect("the file is kept until its footer is written");
            if !planted(Sabotage::AckBeforeSync)
                && let Err(error) = file.sync()
                && !(planted(Sabotage::SyncRetried) && file.sync().is_ok())
            {
                return self.sync_failed(&mut side, &segment, error);
            }
            segment.extent.sync_to(end);
        }
        side.failures_in_a_row = 0;
        side.durable_mark = point;
        self.progress.reach(goal);
        Ok(goal.sequence)
    }

    fn sync_failed(&self, side: &mut SyncSide, segment: &Segment, error: io::Error) -> Result<u64, SyncError> {
        self.sync_failures.fetch_add(1, Ordering::Relaxed);
        segment.extent.suspect();
        side.failures_in_a_row += 1;
        if side.failures_in_a_row > 1 {
            self.fail();
            return Err(SyncError::Failed(error));
        }
        self.progress.want_rewrite();
        self.options.budget.wake();
        Ok(self.durable_sequence())
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Bytes that a block grows by when it is stored.
    pub(super) fn tag_bytes(&self) -> usize {
        if self.options.at_rest.keys.writing().is_some() { TAG_BYTES } else { 0 }
    }

    /// Whether the segment's key is there, if it needs one.
    pub(super) fn is_readable(&self, segment: &Segment) -> bool {
        segment.header.master.is_none_or(|master| self.options.at_rest.keys.ids().any(|id| id == master))
    }

    /// Sizes and counts.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let mut stats = LogStats {
            pool_segments: self.pool.free_segments() as u64,
            sync_failures: self.sync_failures.load(Ordering::Relaxed),
            unsaved_blocks: self.unsaved_blocks.load(Ordering::Relaxed),
            ..LogStats::default()
        };
        let segments = lock(&self.segments);
        stats.segments = segments.len() as u64;
        stats.entry_bytes = segments.entry_bytes();
        stats.file_bytes = segments.file_bytes();
        stats
    }
}

/// What the writer and readers use.
impl Log {
    /// Lists a segment, before any entry of it is published.
    pub(super) fn list(&self, segment: Arc<Segment>) {
        lock(&self.segments).push(segment);
    }

    /// The first segment with at least this id.
    pub(super) fn segment_from(&self, id: u64) -> Option<Arc<Segment>> {
        lock(&self.segments).from(id).map(Arc::clone)
    }

    /// Opens a segment for one reader.
    pub(super) fn open_segment(&self, segment: &Arc<Segment>) -> io::Result<OpenSegment> {
        OpenSegment::open(segment, &*self.storage, (&self.options.directory, &self.options.at_rest.keys))
    }

    /// Every segment that holds entries, oldest first.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).iter().map(Arc::clone).collect()
    }

    /// Takes a segment off the list, to be disposed of.
    pub(super) fn unlist(&self, id: u64) {
        if let Some(segment) = lock(&self.segments).remove(id) {
            lock(&self.retired).push(segment);
        }
    }

    /// Hands a segment that was never listed to disposal.
    pub(super) fn retire(&self, segment: Arc<Segment>) {
        lock(&self.retired).push(segment);
    }

    /// Begins at what recovery found, all of it durable. With a full disk there is no segment for a mark that says so, and
    /// what is released before there is one must not take the balance with it.
    pub(super) fn begin_at(&self, point: MarkPoint) {
        lock(&self.sync_side).durable_mark = point;
        self.set_mark(point);
    }

    pub(super) fn set_mark(&self, point: MarkPoint) {
        *lock(&self.mark) = point;
    }

    /// The subscribers, when there are others than `seen` subscriptions ago.
    pub(super) fn subscribers_since(&self, seen: &mut u64) -> Option<Vec<Unparker>> {
        // Acquire: pairs with the Release in `subscribe`; the list itself is behind its lock. Loaded too early, it costs a new
        // reader that wake: it sleeps no longer than its thread's idle time.
        let now = self.subscriptions.load(Ordering::Acquire);
        if now == *seen {
            return None;
        }
        *seen = now;
        Some(lock(&self.subscribers).values().cloned().collect())
    }
}
