//! What a destination has taken from the log and not yet put behind it: from "read" to "may be committed".
//!
//! Blocks enter in the order in which they were read, over all lanes; spans of them are settled in any order. A block
//! that is settled whole leaves from the front into its lane's queue, and from there into the lane's committable state once
//! its sequence is durable. So what [`Window::committable`] gives is, for each lane, a position and the totals *as of that
//! position*: what was settled beyond it, or in part, is not in them, for after a crash it is read again.
//!
//! Owned by the destination's thread. `P` is a position in a lane's log.

use std::collections::VecDeque;

use crate::telemetry::ledger::DestinationTotals;

/// A block between read and settled.
struct Held<P> {
    lane: usize,
    sequence: u64,
    end: P,
    unsettled: u32,
    totals: DestinationTotals,
}

/// One lane's part of the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneState<P> {
    /// Everything before this position is settled.
    pub position: P,
    /// The destination's totals over this lane, as of that position.
    pub totals: DestinationTotals,
}

struct Lane<P> {
    state: LaneState<P>,
    /// Settled, and perhaps not durable: sequence, end, what it adds to the totals.
    settled: VecDeque<(u64, P, DestinationTotals)>,
    changed: bool,
}

/// The blocks of one destination between read and committed.
pub struct Window<P> {
    first: u64,
    held: VecDeque<Held<P>>,
    lanes: Vec<Lane<P>>,
    totals: DestinationTotals,
    unsettled: u64,
}

impl<P: Copy + Ord> Window<P> {
    /// An empty window over lanes that stand where their cursor says; `elsewhere` is what lanes count that are gone.
    #[must_use]
    pub fn new(lanes: Vec<LaneState<P>>, elsewhere: &[DestinationTotals]) -> Window<P> {
        let mut totals = DestinationTotals::default();
        lanes.iter().map(|state| &state.totals).chain(elsewhere).for_each(|lane| add(&mut totals, lane));
        let lane = |state| Lane { state, settled: VecDeque::new(), changed: false };
        Window { first: 0, held: VecDeque::new(), lanes: lanes.into_iter().map(lane).collect(), totals, unsettled: 0 }
    }

    /// Takes in the next block read; its index counts up from 0.
    pub fn push(&mut self, lane: usize, sequence: u64, end: P, spans: u32) -> u64 {
        let totals = DestinationTotals::default();
        self.unsettled += u64::from(spans);
        self.held.push_back(Held { lane, sequence, end, unsettled: spans, totals });
        self.first + self.held.len() as u64 - 1
    }

    /// Settles `spans` spans of the block `index`; `book` says as what.
    pub fn settle(&mut self, index: u64, spans: u32, book: impl Fn(&mut DestinationTotals)) {
        let at = usize::try_from(index - self.first).expect("an index into memory");
        let held = &mut self.held[at];
        held.unsettled = held.unsettled.checked_sub(spans).expect("no span is settled twice");
        self.unsettled -= u64::from(spans);
        book(&mut held.totals);
        book(&mut self.totals);
    }

    /// Spans of the block `index` that nothing has become of yet.
    #[must_use]
    pub fn unsettled(&self, index: u64) -> u32 {
        self.held[usize::try_from(index - self.first).expect("an index into memory")].unsettled
    }

    /// The index of the first block of the lane that ends beyond `place`; of the next block when there is none.
    #[must_use]
    pub fn first_beyond(&self, lane: usize, place: P) -> u64 {
        let beyond = self.held.iter().position(|held| held.lane == lane && held.end > place);
        self.first + beyond.unwrap_or(self.held.len()) as u64
    }

    /// Spans read and not settled.
    #[must_use]
    pub fn unsettled_spans(&self) -> u64 {
        self.unsettled
    }

    /// Where the lane's cursor will stand when everything settled so far is durable.
    #[must_use]
    pub fn front(&self, lane: usize) -> P {
        let lane = &self.lanes[lane];
        lane.settled.back().map_or(lane.state.position, |(_, end, _)| *end)
    }

    /// The destination's balance: everything settled over all lanes, committed or not.
    #[must_use]
    pub fn totals(&self) -> DestinationTotals {
        self.totals
    }

    /// Lets the blocks that are settled whole leave; returns how many, so that their payloads can be let go.
    pub fn advance(&mut self) -> usize {
        let mut left = 0;
        while let Some(held) = self.held.pop_front_if(|held| held.unsettled == 0) {
            self.first += 1;
            left += 1;
            self.lanes[held.lane].settled.push_back((held.sequence, held.end, held.totals));
        }
        left
    }

    /// Blocks read and not settled whole.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Nothing of the lane is between read and settled.
    #[must_use]
    pub fn has_none_of(&self, lane: usize) -> bool {
        self.held.iter().all(|held| held.lane != lane)
    }

    /// Nothing is between read and settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Moves the lanes' states up to what is durable. True when a commit would say something new.
    pub fn catch_up(&mut self, durable: impl Fn(usize) -> u64) -> bool {
        let mut changed = false;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let durable = durable(index);
            while let Some((_, end, totals)) = lane.settled.pop_front_if(|(sequence, ..)| *sequence <= durable) {
                lane.state.position = end;
                add(&mut lane.state.totals, &totals);
                lane.changed = true;
            }
            changed |= lane.changed;
        }
        changed
    }

    /// The state of every lane to commit.
    pub fn committable(&self) -> impl Iterator<Item = LaneState<P>> + '_ {
        self.lanes.iter().map(|lane| lane.state)
    }

    /// The states were committed.
    pub fn committed(&mut self) {
        for lane in &mut self.lanes {
            lane.changed = false;
        }
    }
}

fn add(sum: &mut DestinationTotals, other: &DestinationTotals) {
    sum.delivered += other.delivered;
    sum.refused_by_peer += other.refused_by_peer;
    sum.dead_lettered += other.dead_lettered;
    for (sum, other) in sum.dropped.iter_mut().zip(other.dropped) {
        *sum += other;
    }
    sum.lost += other.lost;
    sum.skipped_at_start += other.skipped_at_start;
    sum.redelivered += other.redelivered;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(lanes: usize) -> Window<u64> {
        Window::new(vec![LaneState { position: 0, totals: DestinationTotals::default() }; lanes], &[])
    }

    fn states(window: &Window<u64>) -> Vec<(u64, u64)> {
        window.committable().map(|lane| (lane.position, lane.totals.delivered)).collect()
    }

    #[test]
    fn what_is_settled_beyond_a_gap_is_in_no_cursor() {
        let mut window = window(2);
        let a = window.push(0, 1, 100, 10);
        let b = window.push(1, 1, 500, 20);
        let c = window.push(0, 2, 200, 30);
        window.settle(c, 30, |totals| totals.delivered += 30);
        window.settle(b, 5, |totals| totals.delivered += 5);
        assert_eq!((window.advance(), window.catch_up(|_| 9)), (0, false));
        window.settle(a, 10, |totals| totals.delivered += 10);
        assert_eq!((window.advance(), window.catch_up(|_| 9)), (1, true));
        assert_eq!(states(&window), [(100, 10), (0, 0)], "the half of b, and c behind it, are not counted");
        window.settle(b, 15, |totals| totals.refused_by_peer += 15);
        assert_eq!(window.advance(), 2);
        assert!(window.catch_up(|_| 9));
        assert_eq!(states(&window), [(200, 40), (500, 5)]);
        assert!(window.is_empty());
    }

    #[test]
    fn a_place_is_found_among_the_blocks_of_its_lane() {
        let mut window = window(2);
        for (lane, end) in [(0, 100), (1, 500), (0, 200)] {
            window.push(lane, 1, end, 1);
        }
        assert_eq!([window.first_beyond(0, 50), window.first_beyond(0, 100), window.first_beyond(0, 200)], [0, 2, 3]);
        assert_eq!(window.first_beyond(1, 0), 1);
    }

    #[test]
    fn no_lane_moves_past_its_durable_sequence() {
        let mut window = window(1);
        for sequence in 1..=3 {
            let index = window.push(0, sequence, sequence * 100, 1);
            window.settle(index, 1, |totals| totals.delivered += 1);
        }
        window.advance();
        assert!(window.catch_up(|_| 2));
        assert_eq!(states(&window), [(200, 2)]);
        window.committed();
        assert!(!window.catch_up(|_| 2));
        assert!(window.catch_up(|_| 3));
        assert_eq!(states(&window), [(300, 3)]);
    }

    #[test]
    #[should_panic(expected = "no span is settled twice")]
    fn settling_a_span_twice_is_a_broken_invariant() {
        let mut window = window(1);
        let index = window.push(0, 1, 1, 2);
        window.settle(index, 2, |_| ());
        window.settle(index, 1, |_| ());
    }
}
