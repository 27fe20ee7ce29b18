//! The two clocks, read only at the edges of the program: threads that own an event loop.
//!
//! Deadlines come from [`monotonic`], which a step of the wall clock does not move; [`wall_ns`] goes into records only.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the first call in this process; never goes back.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The wall clock in Unix nanoseconds; 0 for a clock before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
pub fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
