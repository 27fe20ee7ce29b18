//! What is not settled yet: one counter a block, and the frontier below which everything is.
//!
//! Blocks are numbered densely in the order of their offers, so a deque and a base are the whole structure. Settling the
//! same span twice is a broken invariant and panics, because the balance of the destination would be wrong from then on.

use std::collections::VecDeque;

use super::Part;

/// Unsettled spans and bytes of the blocks from the frontier on.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    frontier: u64,
    unsettled: VecDeque<u32>,
    bytes: usize,
    spans: u64,
}

impl Tracker {
    /// Takes a block on and numbers it.
    pub(super) fn offer(&mut self, spans: u32, bytes: usize) -> u64 {
        let block = self.frontier + self.unsettled.len() as u64;
        self.unsettled.push_back(spans);
        if spans > 0 {
            self.bytes += bytes;
            self.spans += u64::from(spans);
        }
        self.advance();
        block
    }

    /// The spans of `part` are settled.
    pub(super) fn settle(&mut self, part: &Part) {
        let at = part.block.checked_sub(self.frontier).expect("a block below the frontier was settled already");
        let at = usize::try_from(at).expect("the distance to a tracked block");
        let left = self.unsettled.get_mut(at).expect("a part belongs to an offered block");
        *left = left.checked_sub(part.end - part.first).expect("a span is settled once");
        self.bytes -= part.bytes;
        self.spans -= part.spans();
        self.advance();
    }

    /// Every block below this is settled.
    pub(super) fn frontier(&self) -> u64 {
        self.frontier
    }

    /// Blocks from the frontier on.
    pub(super) fn blocks(&self) -> usize {
        self.unsettled.len()
    }

    /// Bytes not settled.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Spans not settled.
    pub(super) fn spans(&self) -> u64 {
        self.spans
    }

    fn advance(&mut self) {
        while self.unsettled.front() == Some(&0) {
            self.unsettled.pop_front();
            self.frontier += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(block: u64, first: u32, end: u32) -> Part {
        Part { block, first, end, of: 10, bytes: 100 }
    }

    #[test]
    fn the_frontier_waits_for_the_oldest_span() {
        let mut tracker = Tracker::default();
        assert_eq!(
            (tracker.offer(10, 200), tracker.offer(10, 100), tracker.offer(0, 7), tracker.offer(10, 100)),
            (0, 1, 2, 3)
        );
        tracker.settle(&part(1, 0, 10));
        tracker.settle(&part(0, 5, 10));
        assert_eq!((tracker.frontier(), tracker.bytes(), tracker.spans()), (0, 200, 15));
        tracker.settle(&part(0, 0, 5));
        assert_eq!((tracker.frontier(), tracker.bytes(), tracker.spans()), (3, 100, 10));
        assert_eq!(tracker.blocks(), 1);
    }

    #[test]
    #[should_panic(expected = "a span is settled once")]
    fn settling_twice_is_a_broken_invariant() {
        let mut tracker = Tracker::default();
        tracker.offer(10, 300);
        tracker.settle(&part(0, 0, 8));
        tracker.settle(&part(0, 0, 8));
    }
}
