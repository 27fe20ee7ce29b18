//! Models of a log: its progress and the extents of its segments, with locks where the product has locks.
//!
//! The disk is a list of what the sync thread has synced. Whatever the log says is durable has to be in it.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::extent::Extent;
use super::progress::Progress;

/// Blocks of one byte: the entry at offset `n` of a segment is the block behind its first by `n`.
struct Segment {
    first: u64,
    extent: Extent,
}

impl Segment {
    fn new(first: u64) -> Arc<Segment> {
        Arc::new(Segment { first, extent: Extent::open(0) })
    }
}

struct Log {
    progress: Progress,
    mark: Mutex<u64>,
    segments: Mutex<Vec<Arc<Segment>>>,
}

fn log() -> Arc<Log> {
    let segments = Mutex::new(vec![Segment::new(1)]);
    Arc::new(Log { progress: Progress::at(0), mark: Mutex::new(0), segments })
}

impl Log {
    /// As the appender does: a block and a mark of it.
    fn append(&self, segment: &Segment, end: u64) {
        let sequence = segment.first + end - 1;
        segment.extent.publish(end);
        self.progress.publish(sequence, 1);
        *self.mark.lock().unwrap() = sequence;
    }

    fn list(&self, segment: &Arc<Segment>) {
        self.segments.lock().unwrap().push(Arc::clone(segment));
    }

    /// As `Log::sync`, to a disk on which blocks become durable; with what the mark said.
    fn sync(&self, disk: &mut Vec<u64>) -> Option<(u64, u64)> {
        if self.progress.wants_rewrite() {
            return None;
        }
        let mark = *self.mark.lock().unwrap();
        let goal = self.progress.goal();
        let segments = self.segments.lock().unwrap().clone();
        for segment in segments.iter().filter(|segment| segment.extent.needs_sync()) {
            let (end, _sealed) = segment.extent.load();
            disk.extend(segment.first..segment.first + end);
            segment.extent.sync_to(end);
        }
        self.progress.reach(goal);
        Some((goal.sequence, mark))
    }
}

/// Loom's models, with so few switches that are forced on a thread: more find nothing more here, and take minutes.
fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// The writer fills a segment and goes over to the next, while the sync thread syncs.
pub(crate) fn nothing_is_durable_that_was_not_synced() {
    model(|| {
        let shared = log();
        let syncing = Arc::clone(&shared);
        let syncing = thread::spawn(move || {
            let mut disk = Vec::new();
            let (durable, mark) = syncing.sync(&mut disk).unwrap();
            assert!((1..=durable).all(|block| disk.contains(&block)), "durable to {durable}, on the disk: {disk:?}");
            assert!(mark <= durable, "a mark of {mark}, and durable to {durable}");
            disk
        });
        let first = Arc::clone(&shared.segments.lock().unwrap()[0]);
        shared.append(&first, 1);
        let second = Segment::new(2);
        first.extent.seal(1);
        shared.list(&second);
        shared.append(&second, 1);
        let mut disk = syncing.join().unwrap();
        if shared.progress.unsynced_bytes() > 0 {
            shared.sync(&mut disk);
        }
        assert_eq!(shared.progress.durable(), 2, "nothing is left to sync, and not all is durable");
    });
}

/// The writer appends a last entry, sets the footer and seals, while the sync thread looks whether a footer is due.
pub(crate) fn a_footer_speaks_of_entries_that_are_durable() {
    model(|| {
        let shared = Arc::new((Extent::open(0), UnsafeCell::new(0)));
        shared.0.publish(1);
        let syncing = Arc::clone(&shared);
        let syncing = thread::spawn(move || {
            let (extent, footer) = &*syncing;
            let mut on_disk = 0;
            for _ in 0..2 {
                if extent.needs_sync() {
                    (on_disk, _) = extent.load();
                    extent.sync_to(on_disk);
                }
                if extent.is_complete() {
                    // SAFETY: set before the seal, and read after; loom reports an access that races.
                    footer.with(|end| assert_eq!(unsafe { *end }, on_disk, "a footer of entries that are not synced"));
                }
            }
        });
        let (extent, footer) = &*shared;
        extent.publish(2);
        // SAFETY: as above.
        footer.with_mut(|end| unsafe { *end = 2 });
        extent.seal(2);
        syncing.join().unwrap();
    });
}

pub(crate) fn no_segment_is_too_old_with_a_block_that_is_not() {
    model(|| {
        let extent = Arc::new(Extent::open(0));
        extent.note_received(3);
        extent.publish(1);
        let retaining = Arc::clone(&extent);
        let retaining =
            thread::spawn(move || assert!(!retaining.is_older_than(5), "a block of 6 goes with those of 3"));
        extent.note_received(6);
        extent.publish(2);
        extent.seal(2);
        retaining.join().unwrap();
        assert!(extent.is_older_than(7));
    });
}

/// A sync has failed, and the writer moves the block that was not durable: until it stands elsewhere nothing is synced.
pub(crate) fn what_was_moved_is_durable_in_its_new_file_only() {
    model(|| {
        let shared = log();
        let first = Arc::clone(&shared.segments.lock().unwrap()[0]);
        shared.append(&first, 1);
        shared.sync(&mut Vec::new());
        shared.append(&first, 2);
        shared.progress.want_rewrite();
        let syncing = Arc::clone(&shared);
        let syncing = thread::spawn(move || {
            let mut disk = Vec::new();
            let Some((durable, _mark)) = syncing.sync(&mut disk) else { return };
            assert_eq!((durable, disk.as_slice()), (2, &[2][..]), "durable to {durable}, on the disk: {disk:?}");
        });
        let second = Segment::new(2);
        shared.list(&second);
        shared.append(&second, 1);
        first.extent.suspect();
        first.extent.seal(1);
        shared.progress.rewritten();
        syncing.join().unwrap();
    });
}

/// The first of two segments was synced before the second could not be.
pub(crate) fn who_is_told_to_move_blocks_sees_which() {
    model(|| {
        let shared = Arc::new((Progress::at(0), Segment::new(1)));
        shared.1.extent.publish(1);
        let writer = Arc::clone(&shared);
        let writer = thread::spawn(move || {
            if writer.0.wants_rewrite() {
                assert_eq!(writer.1.extent.synced_end(), 1, "what is durable is moved");
            }
        });
        shared.1.extent.sync_to(1);
        shared.0.want_rewrite();
        writer.join().unwrap();
    });
}

pub(crate) fn who_sees_a_durable_sequence_sees_its_sync() {
    model(|| {
        let shared = Arc::new((Progress::at(0), UnsafeCell::new(false), AtomicU64::new(0)));
        shared.0.publish(1, 1);
        let syncing = Arc::clone(&shared);
        let syncing = thread::spawn(move || {
            let goal = syncing.0.goal();
            // SAFETY: written before it is said to be durable, read after; loom reports an access that races.
            syncing.1.with_mut(|synced| unsafe { *synced = true });
            syncing.2.store(goal.sequence, Ordering::Relaxed);
            syncing.0.reach(goal);
        });
        if shared.0.durable() == 1 {
            // SAFETY: as above.
            shared.1.with(|synced| assert!(unsafe { *synced }));
            assert_eq!(shared.2.load(Ordering::Relaxed), 1);
        }
        syncing.join().unwrap();
    });
}
