//! Moments as Millrace tells them: on the wall clock, in one form for programs.
//!
//! Clocks are read at the edges; their readings are arguments here.

use std::time::Duration;

use jiff::Timestamp;

/// A moment of the wall clock as every JSON for programs has it: ISO 8601 in UTC, to the nanosecond.
#[must_use]
pub fn iso(unix_ns: u64) -> String {
    format!("{:.9}", Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::MAX))
}

/// A time in nanoseconds; more than 584 years are as many.
#[must_use]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Time since the process started.
    pub now: Duration,
    /// The wall clock, Unix nanoseconds.
    pub wall_ns: u64,
}

impl Moment {
    /// A time of the monotonic clock on the wall clock, for programs.
    #[must_use]
    pub fn wall(&self, time: Duration) -> String {
        iso(self.wall_ns_of(time))
    }

    /// A time of the monotonic clock on the wall clock, Unix nanoseconds.
    #[must_use]
    pub fn wall_ns_of(&self, time: Duration) -> u64 {
        match time.checked_sub(self.now) {
            Some(ahead) => self.wall_ns.saturating_add(nanoseconds(ahead)),
            None => self.wall_ns.saturating_sub(nanoseconds(self.now.saturating_sub(time))),
        }
    }
}
