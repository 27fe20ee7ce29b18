//! How many requests may be in flight: additive increase, multiplicative decrease, between 1 and the configured most.
//!
//! The limit grows by one after a whole round of accepted requests (as many as the limit) that really used it and came
//! back about as fast as the peer can; it halves when the peer throttles or fails, at most once for the requests that
//! were in flight together, because they are one piece of news.

use std::time::Duration;

/// Answers slower than this many times the usual best do not raise the limit.
const SLOW_FACTOR: u32 = 2;

/// The limit of one destination.
#[derive(Debug)]
pub(super) struct Concurrency {
    limit: usize,
    most: usize,
    accepted_in_round: usize,
    halved_at: Option<Duration>,
    best_latency: Option<Duration>,
}

impl Concurrency {
    /// Starts at one request in flight and may grow to `most`.
    pub(super) fn new(most: usize) -> Concurrency {
        assert!(most > 0, "a destination without a single request in flight delivers nothing");
        Concurrency { limit: 1, most, accepted_in_round: 0, halved_at: None, best_latency: None }
    }

    /// Requests that may be in flight.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A request was accepted after `latency`; `in_flight` counts it.
    pub(super) fn accepted(&mut self, latency: Duration, in_flight: usize) {
        // The best drifts up by a 64th an answer, so that one lucky answer does not forbid growth for good.
        let best = self.best_latency.map_or(latency, |best| latency.min(best + best / 64));
        self.best_latency = Some(best);
        if in_flight < self.limit || latency > best * SLOW_FACTOR {
            return;
        }
        self.accepted_in_round += 1;
        if self.accepted_in_round >= self.limit && self.limit < self.most {
            self.limit += 1;
            self.accepted_in_round = 0;
        }
    }

    /// A request sent at `sent_at` was throttled or failed at `now`.
    pub(super) fn congested(&mut self, sent_at: Duration, now: Duration) {
        if self.halved_at.is_some_and(|halved_at| sent_at < halved_at) {
            return;
        }
        self.limit = (self.limit / 2).max(1);
        self.accepted_in_round = 0;
        self.halved_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    fn grown(most: usize) -> Concurrency {
        let mut concurrency = Concurrency::new(most);
        for _ in 0..1000 {
            concurrency.accepted(FAST, concurrency.limit());
        }
        concurrency
    }

    #[test]
    fn it_grows_by_one_a_round_up_to_the_most() {
        let mut concurrency = Concurrency::new(3);
        let limits: Vec<usize> = (0..6)
            .map(|_| {
                concurrency.accepted(FAST, concurrency.limit());
                concurrency.limit()
            })
            .collect();
        assert_eq!(limits, [2, 2, 3, 3, 3, 3]);
    }

    #[test]
    fn an_unused_limit_and_slow_answers_do_not_raise_it() {
        let mut concurrency = Concurrency::new(8);
        concurrency.accepted(FAST, 1);
        assert_eq!(concurrency.limit(), 2);
        for _ in 0..10 {
            concurrency.accepted(FAST, 1);
            concurrency.accepted(FAST * 5, 2);
        }
        assert_eq!(concurrency.limit(), 2);
    }

    #[test]
    fn what_was_in_flight_together_halves_it_once() {
        let mut concurrency = grown(8);
        assert_eq!(concurrency.limit(), 8);
        let at = Duration::from_secs;
        concurrency.congested(at(1), at(5));
        concurrency.congested(at(2), at(6));
        assert_eq!(concurrency.limit(), 4);
        concurrency.congested(at(6), at(7));
        concurrency.congested(at(7), at(8));
        concurrency.congested(at(8), at(9));
        assert_eq!(concurrency.limit(), 1, "never below one");
    }
}
