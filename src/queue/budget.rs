//! The disk budget: whole segments over all lanes, pools included, and bytes that stay free on the file system.
//!
//! Shared by every lane. Reserving is a compare-and-swap a segment (64 MiB), so it needs no queue; whoever found it used
//! up is woken when bytes come back. A race between two lanes can only refuse one of them, which then waits like any other.

use std::sync::{Mutex, PoisonError};

use crossbeam::sync::Unparker;

use super::quota::Quota;

/// What bounds a new segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// The budget, and the reserve of the file system.
    Budget,
    /// The reserve alone: for blocks that have to be moved, whose old files go when they are durable. Where they fill the
    /// budget no room would ever come.
    FreeSpace,
}

/// How much disk the log may use.
#[derive(Debug)]
pub struct Budget {
    max_bytes: u64,
    reserve_bytes: u64,
    used: Quota,
    waiting: Mutex<Vec<Unparker>>,
}

impl Budget {
    /// At most `max_bytes` of segments, as long as `reserve_bytes` stay free on the file system.
    #[must_use]
    pub fn new(max_bytes: u64, reserve_bytes: u64) -> Budget {
        Budget { max_bytes, reserve_bytes, used: Quota::new(), waiting: Mutex::new(Vec::new()) }
    }

    /// Bytes of segments on disk.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.used()
    }

    /// Bytes that segments may use.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Wakes this thread whenever bytes come back.
    pub fn subscribe(&self, waker: Unparker) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
    }

    /// Whether `bytes` more would fit now, with `free_bytes` on the file system.
    pub(super) fn fits(&self, bytes: u64, free_bytes: u64, bound: Bound) -> bool {
        let is_free = free_bytes >= self.reserve_bytes.saturating_add(bytes);
        is_free && (bound == Bound::FreeSpace || self.used_bytes().saturating_add(bytes) <= self.max_bytes)
    }

    /// Takes `bytes`; false when they do not fit.
    pub(super) fn reserve(&self, bytes: u64, free_bytes: u64, bound: Bound) -> bool {
        match bound {
            Bound::Budget => self.fits(bytes, free_bytes, Bound::FreeSpace) && self.used.take(bytes, self.max_bytes),
            Bound::FreeSpace if self.fits(bytes, free_bytes, bound) => {
                self.adopt(bytes);
                true
            }
            Bound::FreeSpace => false,
        }
    }

    /// Counts bytes that are on disk already, whether they fit or not: recovery throws nothing away.
    pub(super) fn adopt(&self, bytes: u64) {
        self.used.adopt(bytes);
    }

    /// Gives bytes back that are no longer on disk.
    pub(super) fn give_back(&self, bytes: u64) {
        self.used.give_back(bytes);
        self.wake();
    }

    /// Wakes those who may wait for room.
    pub(super) fn wake(&self) {
        for waker in &*self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.unpark();
        }
    }
}
