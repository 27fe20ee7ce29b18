//! Planted bugs, for tests of the tests: each must be found by the crash-state explorer.
//!
//! In a build that is not a test `planted` is a constant `false`, and the branches around it vanish.

/// A bug that a test can plant on its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Says durable without a sync.
    AckBeforeSync,
    /// Leaves names in directories unsynced.
    DirectoryNotSynced,
    /// Uses one key for every segment.
    OneKeyForAll,
    /// Believes a payload without its CRC.
    PayloadUnchecked,
    /// Recovery stops at the first damaged entry.
    StopAtFirstDamage,
    /// Numbers blocks on from the last one seen.
    SequenceReused,
    /// Syncs a file again after a failure, and believes it.
    SyncRetried,
    /// Recovery and readers take both copies of rewritten blocks.
    BothCopies,
    /// Believes a slot without its CRC.
    SlotUnchecked,
    /// Takes the older of two slots.
    OlderSlot,
    /// Writes always to the same slot.
    SameSlot,
    /// Does not sync a slot.
    SlotNotSynced,
    /// Believes marks written beyond the first crash damage.
    TornMarksBelieved,
    /// Writes a footer before the entries are synced.
    EarlyFooter,
    /// Recovery does not sync what it found in the page cache.
    RecoveredNotSynced,
    /// Releases segments by a cursor that is not durable yet (planted in the destination of the tests).
    #[cfg(test)]
    EarlyRelease,
    /// Commits a cursor past what is durable.
    CursorAhead,
    /// Derives the same cipher for every segment.
    OneCipherForAll,
    /// Encrypts every block of a segment with the same nonce.
    OneNonceForAll,
    /// Believes a footer, in a file or in the index, without its check.
    FooterUnchecked,
    /// Writes a segment's record to the index before its entries are synced.
    IndexEarly,
    /// Tags do not cover the header's fields.
    FieldsNotVouched,
    /// Tags do not cover the place.
    PlaceNotVouched,
    /// Believes an encrypted block without its tag.
    TagUnchecked,
    /// Believes what another reader has summed, however long ago.
    SumsSharedForever,
    /// Believes what another reader has summed although a sync has failed since.
    SumsSharedAfterFailure,
    /// Moves blocks after a failed sync that a reader has summed before, without a sum of its own.
    SumsSharedWithMoves,
}

#[cfg(test)]
pub(crate) use switch::{plant, planted};

#[cfg(not(test))]
pub(crate) const fn planted(_bug: Sabotage) -> bool {
    false
}

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static PLANTED: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    pub(crate) fn planted(bug: Sabotage) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug on this thread, or none.
    pub(crate) fn plant(bug: Option<Sabotage>) {
        PLANTED.set(bug);
    }
}
