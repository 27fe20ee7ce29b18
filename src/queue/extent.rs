//! How far a segment may be read and how far it is durable: the words that the lane's writer, its sync thread and readers
//! share.
//!
//! The writer moves the published end, after the bytes are in place; bit 63 says that the segment is sealed (no entry will
//! follow), the rest is the offset at which its entries end. The sync thread moves the durable end. What is decided from
//! several words is decided here, the published end first: what was stored before it is seen then. Imports
//! nothing from the crate: `tests/loom` checks it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SEALED: u64 = 1 << 63;

/// The published end of a segment, and what hangs on it.
#[derive(Debug)]
pub(crate) struct Extent {
    end: AtomicU64,
    /// Entries before this offset are durable.
    synced_end: AtomicU64,
    /// A sync of the file failed, or the file is not to be had whole: never sync it again, never recycle it.
    suspect: AtomicBool,
    /// Newest receive time of a block, Unix nanoseconds; kept by the writer.
    newest_ns: AtomicU64,
}

impl Extent {
    /// An open segment whose entries end at `end`, and are durable.
    pub(crate) fn open(end: u64) -> Extent {
        Extent::new(end, end, 0)
    }

    /// A segment that nobody will append to, all of it durable.
    pub(crate) fn sealed(end: u64, newest_ns: u64) -> Extent {
        Extent::new(end | SEALED, end, newest_ns)
    }

    fn new(end: u64, synced_end: u64, newest_ns: u64) -> Extent {
        Extent {
            end: AtomicU64::new(end),
            synced_end: AtomicU64::new(synced_end),
            suspect: AtomicBool::new(false),
            newest_ns: AtomicU64::new(newest_ns),
        }
    }

    /// Where the entries end, and whether no more will follow.
    pub(crate) fn load(&self) -> (u64, bool) {
        // Acquire: pairs with the Release of `publish` and `seal`, so the bytes below the end are seen with it.
        let word = self.end.load(Ordering::Acquire);
        (word & !SEALED, word & SEALED != 0)
    }

    /// Shows readers everything below `end`.
    pub(crate) fn publish(&self, end: u64) {
        // Release: pairs with the Acquire of `load`; the entry's bytes were stored before.
        self.end.store(end, Ordering::Release);
    }

    /// Fixes the end: no entry follows. After a failed sync it lies before what was published.
    pub(crate) fn seal(&self, end: u64) {
        // Release: as in `publish`; the footer was set before.
        self.end.store(end | SEALED, Ordering::Release);
    }

    /// Entries before this offset are durable.
    pub(crate) fn synced_end(&self) -> u64 {
        // Relaxed: the sync thread reads what it has stored; the writer asks once it was told of a failed sync, which
        // orders it (`progress`).
        self.synced_end.load(Ordering::Relaxed)
    }

    /// A sync has returned that was begun with entries up to `end`.
    pub(crate) fn sync_to(&self, end: u64) {
        // Relaxed: as in `synced_end`.
        self.synced_end.store(end, Ordering::Relaxed);
    }

    /// Whether a sync has something to do here.
    pub(crate) fn needs_sync(&self) -> bool {
        let (end, _sealed) = self.load();
        !self.is_suspect() && self.synced_end() < end
    }

    /// Whether no entry will follow and all of them are durable: what may be said of them at the segment's end.
    pub(crate) fn is_complete(&self) -> bool {
        // From one load: an entry and the seal may come between two.
        let (end, is_sealed) = self.load();
        is_sealed && !self.is_suspect() && self.synced_end() >= end
    }

    /// The file is given up: no sync and no second use of it.
    pub(crate) fn suspect(&self) {
        // Relaxed: the sync thread reads what it has stored; what the writer stores is ordered by the seal that follows.
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Whether the file is given up.
    pub(crate) fn is_suspect(&self) -> bool {
        // Relaxed: as in `suspect`.
        self.suspect.load(Ordering::Relaxed)
    }

    /// A block that was received then is about to be published. Called by the writer alone, with times that only rise.
    pub(crate) fn note_received(&self, received_ns: u64) {
        // Relaxed: the publish that follows orders it.
        self.newest_ns.store(received_ns, Ordering::Relaxed);
    }

    /// Whether no block was received at or after `wall_ns`, nor will one be.
    pub(crate) fn is_older_than(&self, wall_ns: u64) -> bool {
        // In this order: once it is sealed, its newest block was noted before. Relaxed: as in `note_received`.
        self.load().1 && self.newest_ns.load(Ordering::Relaxed) < wall_ns
    }
}
