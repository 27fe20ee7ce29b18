//! Bytes that lanes take from one amount and give back: a word and a compare-and-swap.
//!
//! What is adopted may go beyond the amount, for recovery throws nothing away; what is taken may not. It publishes nothing
//! but itself, so every access is Relaxed: read-modify-write on one word cannot lose an update. Imports nothing from the
//! crate: `tests/loom` checks it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in use.
#[derive(Debug)]
pub(crate) struct Quota(AtomicU64);

impl Quota {
    /// None in use.
    pub(crate) fn new() -> Quota {
        Quota(AtomicU64::new(0))
    }

    /// Bytes in use now.
    pub(crate) fn used(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `bytes` unless that made more than `max`; whether it did.
    pub(crate) fn take(&self, bytes: u64, max: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|after| *after <= max);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts bytes that are in use already.
    pub(crate) fn adopt(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives bytes back. Whoever waits for them is to be woken after this, by something that synchronises.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}
