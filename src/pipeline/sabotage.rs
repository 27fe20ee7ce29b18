//! Planted bugs, for tests of the tests: each must be found by the simulation of the pipeline.
//!
//! In a build that is not a test `planted` is a constant `false`, and the branches around it vanish.

/// A bug that a test can plant on its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// A sender is told yes before the sync.
    VerdictBeforeSync,
    /// A sender is told yes although nothing becomes durable any more.
    UnknownAcknowledged,
    /// A sender is told yes although the log is full.
    FullAcknowledged,
    /// What is refused is not booked.
    RefusedNotBooked,
    /// The block that waits for room is forgotten.
    HeldForgotten,
    /// A sender is told yes although what is to be kept aside is not durable yet.
    LetterAwaitedByNobody,
    /// A block that is back from the plugins while there is no room is forgotten.
    BackForgotten,
    /// Blocks go to exchanged transforms by what the old ones took.
    TakingOfTheOld,
    /// The writer ends without the blocks that are under way to the plugins.
    EndsWithoutAway,
    /// Half of a changed block is appended.
    PieceForgotten,
    /// What transforms dropped is booked as refused.
    DroppedAsRefused,
    /// The sync thread ends without a last sync.
    NoLastSync,
    /// A cursor moves past what is durable.
    CursorPastDurable,
    /// A cursor's totals are those of now, not those of its position.
    TotalsAhead,
    /// Segments are released by a cursor that is committed now and then only.
    EarlyRelease,
    /// What is settled is booked twice.
    SettledTwice,
    /// Spans that a peer refused are booked as delivered.
    RefusedAsDelivered,
    /// What is sent again is not counted.
    RedeliveryNotCounted,
    /// What a jump passes over is not counted.
    JumpNotCounted,
    /// A cursor stays in front of segments that hold nothing but copies of blocks.
    CopiesHeld,
    /// A refused span is not kept before the cursor moves past it.
    LetterNotKept,
    /// An answer is lost between sender and destination.
    AnswerLost,
    /// No probe ever closes the breaker.
    BreakerNeverCloses,
    /// The blocks of a request change their places.
    OrderReversed,
}

#[cfg(test)]
pub(super) use switch::{plant, planted};

#[cfg(not(test))]
pub(super) const fn planted(_bug: Sabotage) -> bool {
    false
}

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static PLANTED: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    pub(in super::super) fn planted(bug: Sabotage) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug on this thread, or none.
    pub(in super::super) fn plant(bug: Option<Sabotage>) {
        PLANTED.set(bug);
    }
}
