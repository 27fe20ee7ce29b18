//! How fast counters have risen over the last ten seconds.
//!
//! Whoever shows metrics takes a sample about once a second; a rate is the rise since the oldest sample that is at most ten
//! seconds old. A counter that was not there then has no rate yet.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How far back a rate looks.
const WINDOW: Duration = Duration::from_secs(10);

/// Counters by their names.
pub(super) type Counts = BTreeMap<String, u64>;

/// The samples of the last ten seconds.
#[derive(Debug, Default)]
pub(super) struct Rates {
    samples: VecDeque<(Duration, Counts)>,
}

impl Rates {
    /// Takes a sample.
    pub(super) fn sample(&mut self, now: Duration, counts: Counts) {
        self.samples.push_back((now, counts));
        while self.samples.len() > 2 && now.saturating_sub(self.samples[0].0) > WINDOW {
            self.samples.pop_front();
        }
    }

    /// A counter's rise a second, as of the newest sample.
    pub(super) fn of(&self, name: &str) -> u64 {
        let (Some((then, before)), Some((now, after))) = (self.samples.front(), self.samples.back()) else { return 0 };
        let (Some(before), Some(after)) = (before.get(name), after.get(name)) else { return 0 };
        let elapsed_ms = now.saturating_sub(*then).as_millis().max(1);
        let rate = u128::from(after.saturating_sub(*before)) * 1000 / elapsed_ms;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_looks_back_ten_seconds_and_no_further() {
        let mut rates = Rates::default();
        assert_eq!(rates.of("spans"), 0);
        for second in 0..=30 {
            let count = if second < 15 { 1000 * second } else { 15_000 };
            rates.sample(Duration::from_secs(second), Counts::from([("spans".to_owned(), count)]));
            match second {
                10 => assert_eq!(rates.of("spans"), 1000),
                20 => assert_eq!(rates.of("spans"), 500),
                25.. => assert_eq!(rates.of("spans"), 0),
                _ => {}
            }
        }
        assert_eq!(rates.of("records"), 0);
    }
}
