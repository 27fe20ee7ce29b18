//! What a thread of the pipeline does after a turn.
//!
//! Every thread's body is a loop around a `turn` that is told the time, never waits and says what it waits for. So the loop
//! alone reads clocks and parks, and whoever has a clock of his own can take the turns of all threads one after the other.

use std::time::Duration;

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another turn: there was more than one may take.
    Again,
    /// A turn when somebody wakes the thread, and at the latest after this time.
    Wait(Duration),
    /// Nothing: the thread's work is done.
    Ended,
}
