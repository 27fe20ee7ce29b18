//! How many pages of mapped files were replaced by zeros, counted so that nobody takes the zeros for what was there.
//!
//! The thread that faults replaces the page, and others read it at the same moment: counted only before that or only
//! after it, there is an instant in which another has noted the count, found the page sound, reads zeros, and finds the
//! count as it was. So a page is counted twice: as one that goes, before, and as one that is gone, after. Who notes the
//! second and asks by the first misses none. Imports nothing from the crate: `tests/loom` checks it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// See the module.
#[derive(Debug)]
pub(super) struct Lost {
    going: AtomicU64,
    gone: AtomicU64,
}

impl Lost {
    /// None yet, from the two words.
    pub(super) const fn new(going: AtomicU64, gone: AtomicU64) -> Lost {
        Lost { going, gone }
    }

    /// Pages that are gone: to be noted before what is read is found sound.
    pub(super) fn count(&self) -> u64 {
        // Acquire: what is read after this is read after it; pairs with the Release in `replace`.
        self.gone.load(Ordering::Acquire)
    }

    /// Whether a page went since `count` was noted: to be asked after what was read.
    pub(super) fn is_beyond(&self, count: u64) -> bool {
        // Acquire: what was read before is read before the load. Who has read zeros sees that they were counted, for the
        // kernel replaces a page after what the thread did before it.
        fence(Ordering::Acquire);
        self.going.load(Ordering::Relaxed) != count
    }

    /// Counts a page while `replace` puts zeros in its place; what that says.
    pub(super) fn replace(&self, replace: impl FnOnce() -> bool) -> bool {
        // Relaxed: the kernel's change of the page orders it, see `is_beyond`.
        self.going.fetch_add(1, Ordering::Relaxed);
        let is_replaced = replace();
        // Release: pairs with the Acquire in `count`; who notes this one reads the page as it is now.
        self.gone.fetch_add(1, Ordering::Release);
        is_replaced
    }
}
