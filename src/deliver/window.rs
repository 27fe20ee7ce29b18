//! A sliding window of two counts: what happened, and how often it went a certain way.
//!
//! Ten buckets, so the window covers between nine tenths and all of its length; a bucket is cleared when its time comes
//! round again. The breaker counts calls and failures in it, the retry budget requests and retries, dead letters spans
//! settled and spans given up.

use std::time::Duration;

const BUCKETS: usize = 10;

/// Two counts over the last `length`.
#[derive(Debug)]
pub(super) struct Window {
    bucket_length: Duration,
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    number: u64,
    total: u64,
    marked: u64,
}

impl Window {
    /// An empty window over `length`.
    pub(super) fn new(length: Duration) -> Window {
        Window { bucket_length: length / 10, buckets: [Bucket::default(); BUCKETS] }
    }

    /// Counts `total` events, `marked` of which (or beside which) went the certain way.
    pub(super) fn add(&mut self, total: u64, marked: u64, now: Duration) {
        let number = self.number(now);
        let index = usize::try_from(number % 10).expect("a remainder below ten");
        let bucket = &mut self.buckets[index];
        if bucket.number != number {
            *bucket = Bucket { number, total: 0, marked: 0 };
        }
        bucket.total += total;
        bucket.marked += marked;
    }

    /// Both counts at `now`.
    pub(super) fn counts(&self, now: Duration) -> (u64, u64) {
        let newest = self.number(now);
        let fresh = self.buckets.iter().filter(|bucket| bucket.number + 10 > newest);
        fresh.fold((0, 0), |(total, marked), bucket| (total + bucket.total, marked + bucket.marked))
    }

    /// The next moment after `now` at which something may leave the window.
    pub(super) fn next_change(&self, now: Duration) -> Duration {
        let number = u32::try_from(self.number(now) + 1).unwrap_or(u32::MAX);
        self.bucket_length * number
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buckets = [Bucket::default(); BUCKETS];
    }

    fn number(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.bucket_length.as_nanos()).expect("584 years of nanoseconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten_bucket_by_bucket() {
        let mut window = Window::new(Duration::from_secs(10));
        let at = Duration::from_secs;
        assert_eq!(window.counts(at(0)), (0, 0));
        window.add(3, 1, at(0));
        window.add(2, 2, at(5));
        assert_eq!(window.counts(at(9)), (5, 3));
        assert_eq!(window.counts(at(10)), (2, 2));
        assert_eq!(window.counts(at(14)), (2, 2));
        assert_eq!(window.counts(at(15)), (0, 0));
        window.add(1, 0, at(15));
        assert_eq!(window.counts(at(15)), (1, 0), "a bucket kept what it counted ten seconds before");
        assert_eq!(window.next_change(Duration::from_millis(15_300)), at(16));
        window.clear();
        assert_eq!(window.counts(at(15)), (0, 0));
    }
}
