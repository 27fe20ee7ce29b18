//! How long to wait before the same is sent again: pure functions of the count of failures and a random number.
//!
//! A transport failure waits with *full* jitter: a fleet that failed together must not come back together. A throttled
//! request waits at least as long as the peer said, else with *equal* jitter: full jitter can collapse to nothing and
//! hammer a peer that has just asked for less. Nothing here knows a maximum elapsed time, because there is none.

use std::time::Duration;

use fastrand::Rng;

/// A peer's `Retry-After` is believed within these bounds: neither a busy loop nor a night without data.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15 * 60));

/// `rand(0, min(max, initial * 2^failures))`, `failures` counted from 0.
pub(super) fn full_jitter(initial: Duration, max: Duration, failures: u32, rng: &mut Rng) -> Duration {
    doubled(initial, max, failures).mul_f64(rng.f64())
}

/// `c/2 + rand(0, c/2)` with `c = min(max, initial * 2^failures)`.
pub(super) fn equal_jitter(initial: Duration, max: Duration, failures: u32, rng: &mut Rng) -> Duration {
    let ceiling = doubled(initial, max, failures);
    ceiling.mul_f64(0.5 + rng.f64() / 2.0)
}

/// What a peer's `Retry-After` comes to: clamped, and up to a tenth longer so that not everybody returns at once.
pub(super) fn retry_after(asked: Duration, rng: &mut Rng) -> Duration {
    asked.clamp(RETRY_AFTER.0, RETRY_AFTER.1).mul_f64(1.0 + rng.f64() / 10.0).min(RETRY_AFTER.1)
}

fn doubled(initial: Duration, max: Duration, failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    initial.checked_mul(factor).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum_and_the_jitter_fills_its_range() {
        let mut rng = Rng::with_seed(1);
        for (failures, ceiling_ms) in [(0, 500), (1, 1_000), (3, 4_000), (7, 60_000), (31, 60_000), (4_000_000, 60_000)]
        {
            let ceiling = Duration::from_millis(ceiling_ms);
            let full: Vec<Duration> = (0..1000).map(|_| full_jitter(INITIAL, MAX, failures, &mut rng)).collect();
            let equal: Vec<Duration> = (0..1000).map(|_| equal_jitter(INITIAL, MAX, failures, &mut rng)).collect();
            assert!(full.iter().all(|wait| *wait <= ceiling));
            assert!(full.iter().any(|wait| *wait < ceiling / 10) && full.iter().any(|wait| *wait > ceiling * 9 / 10));
            assert!(equal.iter().all(|wait| *wait >= ceiling / 2 && *wait <= ceiling));
        }
    }

    #[test]
    fn a_peers_wish_is_honoured_within_bounds() {
        let mut rng = Rng::with_seed(2);
        for (asked, least, most) in [
            (0, 100, 110),
            (1, 100, 110),
            (2_000, 2_000, 2_200),
            (900_000, 900_000, 900_000),
            (u64::MAX, 900_000, 900_000),
        ] {
            let wait = retry_after(Duration::from_millis(asked), &mut rng);
            assert!(
                wait >= Duration::from_millis(least) && wait <= Duration::from_millis(most),
                "{asked} ms: {wait:?}"
            );
        }
    }
}
