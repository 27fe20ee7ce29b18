//! How old things are, though the wall clock is set while the process runs.
//!
//! Ages are between two readings of the wall clock, for they outlive the process. A clock that is set ahead would make
//! everything as much older at once: a retention would drop all that it holds. So a step ahead is left out of ages until
//! whatever was there before it is older than is kept anyway, or the process ends. A step back makes things younger, and time
//! in which the machine is suspended is taken for a step: they are kept for longer.

use std::time::Duration;

use crate::telemetry::moment::nanoseconds;

/// Between two looks, clocks that are adjusted gradually and not set differ by less.
const LEAST_STEP_NS: u64 = 60_000_000_000;

/// The steps that the wall clock has taken ahead, each with its moment (monotonic).
#[derive(Debug, Default)]
pub struct Ages {
    seen: Option<(Duration, u64)>,
    ahead: Vec<(Duration, u64)>,
}

impl Ages {
    /// What was received before this moment is older than `keep`; Unix nanoseconds. To be called now and then: steps are
    /// seen by the monotonic clock, `now`, which has gone on evenly meanwhile.
    pub fn oldest_kept(&mut self, keep: Duration, now: Duration, wall_ns: u64) -> u64 {
        if let Some((then, before_ns)) = self.seen.replace((now, wall_ns)) {
            let expected_ns = before_ns.saturating_add(nanoseconds(now.saturating_sub(then)));
            match wall_ns.checked_sub(expected_ns) {
                Some(ahead_ns) if ahead_ns >= LEAST_STEP_NS => self.ahead.push((now, ahead_ns)),
                Some(_) => {}
                None => self.step_back(expected_ns - wall_ns),
            }
        }
        self.ahead.retain(|(at, step_ns)| *step_ns > 0 && now.saturating_sub(*at) < keep);
        let ahead_ns = self.ahead.iter().map(|(_, step_ns)| *step_ns).fold(nanoseconds(keep), u64::saturating_add);
        wall_ns.saturating_sub(ahead_ns)
    }

    /// What was a step ahead is undone by one back.
    fn step_back(&mut self, by_ns: u64) {
        let mut left_ns = if by_ns >= LEAST_STEP_NS { by_ns } else { 0 };
        for (_, step_ns) in self.ahead.iter_mut().rev() {
            let undone_ns = left_ns.min(*step_ns);
            *step_ns -= undone_ns;
            left_ns -= undone_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;
    const DAY: Duration = Duration::from_secs(86_400);
    const TEN_YEARS_NS: u64 = 3_652 * 24 * HOUR_NS;

    /// The oldest that is kept, in hours since a start, of a clock that is read at hours and is then so far ahead.
    fn kept(readings: &[(u64, i64)]) -> Vec<i64> {
        let (mut ages, start) = (Ages::default(), 2 * TEN_YEARS_NS);
        let read = |&(hour, ahead_ns): &(u64, i64)| {
            let wall_ns = (start + hour * HOUR_NS).saturating_add_signed(ahead_ns);
            let oldest = ages.oldest_kept(DAY, Duration::from_nanos(hour * HOUR_NS), wall_ns);
            (oldest.cast_signed() - start.cast_signed()).div_euclid(HOUR_NS.cast_signed())
        };
        readings.iter().map(read).collect()
    }

    #[test]
    fn a_clock_that_is_not_set_gives_plain_ages() {
        let drifts = 50_000_000_000;
        assert_eq!(kept(&[(30, 0), (31, drifts), (40, 2 * drifts)]), [6, 7, 16]);
    }

    #[test]
    fn a_step_ahead_makes_nothing_older_until_all_before_it_is_too_old() {
        let (ahead, years) = (TEN_YEARS_NS.cast_signed(), TEN_YEARS_NS.cast_signed() / HOUR_NS.cast_signed());
        assert_eq!(kept(&[(30, 0), (31, ahead), (54, ahead)]), [6, 7, 30]);
        assert_eq!(
            kept(&[(30, 0), (31, ahead), (55, ahead)]),
            [6, 7, 31 + years],
            "what came before hour 31 is a day old"
        );
    }

    #[test]
    fn a_step_back_undoes_one_ahead_and_else_keeps_for_longer() {
        let day = 24 * HOUR_NS.cast_signed();
        assert_eq!(kept(&[(30, 0), (31, day), (32, 0), (40, 0)]), [6, 7, 8, 16]);
        assert_eq!(kept(&[(30, 0), (31, day), (32, day / 2), (33, -day)]), [6, 7, 8, -15]);
        assert_eq!(kept(&[(30, 0), (31, -day), (32, 0)]), [6, -17, -16], "a clock that is set right again");
    }
}
