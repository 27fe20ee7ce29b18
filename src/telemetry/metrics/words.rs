//! What a destination says of itself in words: its trouble, and the last thing that went wrong.
//!
//! Written by the destination's own thread when it changes, read when somebody asks. Times are of the monotonic clock;
//! whoever shows them knows the wall clock. What a peer said is at most the beginning of its reply, on one line.

use std::sync::PoisonError;
use std::time::Duration;

use super::{DestinationGauges, Moment};

/// What there is to say of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Why it does not deliver as it should, if that is so.
    pub trouble: Option<Trouble>,
    /// The last thing that went wrong, and when.
    pub last_error: Option<(Duration, String)>,
    /// There is no backend: it only lets go of what is old.
    pub retains: bool,
    /// The key of the log that it waits for.
    pub missing_key: Option<String>,
}

/// Why a destination does not deliver as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub kind: TroubleKind,
    /// Since when.
    pub since: Duration,
    /// When it is tried again, when that is known.
    pub next_try: Option<Duration>,
}

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The backend refuses us: somebody has to change something.
    Holding,
    /// The breaker is open.
    Unreachable,
    /// The breaker lets one request through at a time.
    Recovering,
    /// The backend asked for a pause.
    Throttled,
    /// It is not in the configuration any more and its place is kept.
    Parked,
    /// What comes next in the log needs a key that is missing.
    Locked,
}

impl DestinationGauges {
    /// How old the oldest block is that it has not settled.
    pub(super) fn lag(&self, wall_ns: u64) -> Duration {
        match self.oldest_ns.get() {
            0 => Duration::ZERO,
            oldest => Duration::from_nanos(wall_ns.saturating_sub(oldest)),
        }
    }

    /// When something last went wrong, Unix seconds; 0 when nothing has.
    pub(super) fn failed_seconds(&self, at: Moment) -> u64 {
        self.words().last_error.map_or(0, |(time, _)| at.wall_ns_of(time) / 1_000_000_000)
    }

    /// A copy of what there is to say.
    #[must_use]
    pub fn words(&self) -> Words {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
