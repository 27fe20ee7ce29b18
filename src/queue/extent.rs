//! How far a segment may be read: the one word that the lane's writer publishes and readers go by.
//!
//! Bit 63 says that the segment is sealed (no entry will follow), the rest is the offset at which its entries end. Only
//! the writer stores; it stores after the bytes are in place. Imports nothing from the crate: `tests/loom` checks it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

const SEALED: u64 = 1 << 63;

/// The published end of a segment.
#[derive(Debug)]
pub(crate) struct Extent(AtomicU64);

impl Extent {
    /// An open segment whose entries end at `end`.
    pub(crate) fn open(end: u64) -> Extent {
        Extent(AtomicU64::new(end))
    }

    /// A segment that nobody will append to.
    pub(crate) fn sealed(end: u64) -> Extent {
        Extent(AtomicU64::new(end | SEALED))
    }

    /// Where the entries end, and whether more may follow.
    pub(crate) fn load(&self) -> (u64, bool) {
        // Acquire: pairs with the Release of `publish` and `seal`, so the bytes below the end are seen with it.
        let word = self.0.load(Ordering::Acquire);
        (word & !SEALED, word & SEALED != 0)
    }

    /// Shows readers everything below `end`.
    pub(crate) fn publish(&self, end: u64) {
        // Release: pairs with the Acquire of `load`; the entry's bytes were stored before.
        self.0.store(end, Ordering::Release);
    }

    /// Fixes the end: no entry follows. After a failed sync it lies before what was published.
    pub(crate) fn seal(&self, end: u64) {
        // Release: as in `publish`; the segment that follows is in the list before this store.
        self.0.store(end | SEALED, Ordering::Release);
    }
}
