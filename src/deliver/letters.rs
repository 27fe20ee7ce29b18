//! How many dead letters are still poison, and from when on they mean that something else is wrong.
//!
//! More than a hundred in a minute, or more than one percent of the spans settled in that minute, and the destination is
//! held instead: a peer that refuses a stream must not empty it into the dead letters. Below ten letters a percentage
//! says nothing (one bad span among fifty-seven is two percent), so the ratio counts from the tenth on.

use std::time::Duration;

use super::window::Window;

const WINDOW: Duration = Duration::from_secs(60);
const MOST: u64 = 100;
const RATIO_FROM: u64 = 10;
const SPANS_PER_LETTER: u64 = 100;

/// Spans settled and spans dead-lettered in the last minute.
#[derive(Debug)]
pub(super) struct LetterRate {
    spans: Window,
}

impl LetterRate {
    /// Nothing settled yet.
    pub(super) fn new() -> LetterRate {
        LetterRate { spans: Window::new(WINDOW) }
    }

    /// `spans` were delivered.
    pub(super) fn delivered(&mut self, spans: u64, now: Duration) {
        self.spans.add(spans, 0, now);
    }

    /// Whether one more span may become a dead letter; counts it if so.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let (settled, letters) = self.spans.counts(now);
        let often = letters + 1 >= RATIO_FROM && (letters + 1) * SPANS_PER_LETTER > settled + 1;
        if letters >= MOST || often {
            return false;
        }
        self.spans.add(1, 1, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(delivered: u64) -> usize {
        let mut rate = LetterRate::new();
        rate.delivered(delivered, Duration::ZERO);
        (0..1000).take_while(|_| rate.take(Duration::from_secs(1))).count()
    }

    #[test]
    fn a_hundred_a_minute_or_one_percent_is_the_most() {
        for (delivered, most) in [(0, 9), (57, 9), (1_000, 10), (5_000, 50), (9_900, 100), (1_000_000, 100)] {
            assert_eq!(taken(delivered), most, "after {delivered} spans delivered");
        }
    }

    #[test]
    fn the_next_minute_starts_afresh() {
        let mut rate = LetterRate::new();
        while rate.take(Duration::ZERO) {}
        assert!(!rate.take(Duration::from_secs(53)));
        assert!(rate.take(Duration::from_secs(60)));
    }
}
