//! How far a log has come: the sequences that are published and durable, and whether the writer must move blocks.
//!
//! The writer moves what is published, the sync thread what is durable; each word has one thread that stores it, but for
//! the flag by which the sync thread asks for blocks to be moved and the writer says that it has. A sync takes its goal
//! first and looks at the segments then: what the goal counts is in one of them, in front of its published end. Imports
//! nothing from the crate: `tests/loom` checks it, with [`super::extent`].

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    published: AtomicU64,
    durable: AtomicU64,
    appended_bytes: AtomicU64,
    synced_bytes: AtomicU64,
    /// A sync failed; the writer has to move what was not durable.
    rewrite_wanted: AtomicBool,
}

/// What a sync makes durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// The last block.
    pub(crate) sequence: u64,
    bytes: u64,
}

impl Progress {
    /// Up to `sequence` all is published and durable.
    pub(crate) fn at(sequence: u64) -> Progress {
        Progress {
            published: AtomicU64::new(sequence),
            durable: AtomicU64::new(sequence),
            appended_bytes: AtomicU64::new(0),
            synced_bytes: AtomicU64::new(0),
            rewrite_wanted: AtomicBool::new(false),
        }
    }

    /// Sequence of the last block that readers can see.
    pub(crate) fn published(&self) -> u64 {
        // Acquire: pairs with the Release of `publish`; whoever sees the sequence may read the block.
        self.published.load(Ordering::Acquire)
    }

    /// Sequence up to which every block has been synced.
    pub(crate) fn durable(&self) -> u64 {
        // Acquire: pairs with the Release in `reach`, after the sync returned.
        self.durable.load(Ordering::Acquire)
    }

    /// Bytes appended and not yet synced.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        // Relaxed: decides only when to sync.
        let synced = self.synced_bytes.load(Ordering::Relaxed);
        self.appended_bytes.load(Ordering::Relaxed).saturating_sub(synced)
    }

    /// Shows readers and the sync thread an entry of `bytes`, whose extent was published before.
    pub(crate) fn publish(&self, sequence: u64, bytes: u64) {
        // Release: pairs with the Acquire of `published`. Moved blocks keep their sequences and were published already.
        if sequence > self.published.load(Ordering::Relaxed) {
            self.published.store(sequence, Ordering::Release);
        }
        let before = self.appended_bytes.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `goal`, so that bytes counted there are published. One writer, so load and
        // store lose nothing.
        self.appended_bytes.store(before + bytes, Ordering::Release);
    }

    /// What a sync that begins now makes durable, once it has looked for what to sync after this.
    pub(crate) fn goal(&self) -> Goal {
        // In this order: what was counted is published. Acquire: pairs with the Release at the end of `publish`.
        let bytes = self.appended_bytes.load(Ordering::Acquire);
        Goal { sequence: self.published(), bytes }
    }

    /// All of it is durable.
    pub(crate) fn reach(&self, goal: Goal) {
        // Relaxed: read by the thread that stores it.
        self.synced_bytes.store(goal.bytes, Ordering::Relaxed);
        // Release: pairs with the Acquire of `durable`.
        self.durable.store(goal.sequence, Ordering::Release);
    }

    /// Asks the writer to move what is not durable. Nothing is synced until it has.
    pub(crate) fn want_rewrite(&self) {
        // Release: pairs with the Acquire of the writer in `wants_rewrite`; it sees what was synced and what is suspect.
        self.rewrite_wanted.store(true, Ordering::Release);
    }

    /// The writer has moved it: every block stands in front of the end of a segment that may be synced.
    pub(crate) fn rewritten(&self) {
        // Release: pairs with the Acquire of the sync thread in `wants_rewrite`.
        self.rewrite_wanted.store(false, Ordering::Release);
    }

    /// A sync failed, and what it should have made durable waits for the writer to move it.
    pub(crate) fn wants_rewrite(&self) -> bool {
        // Acquire: pairs with the Release of either side, above.
        self.rewrite_wanted.load(Ordering::Acquire)
    }
}
