//! A place in the log of a lane, with what lies before it.
//!
//! Positions are what readers move by, cursors store and destinations release; a place alone would not tell how many
//! spans a jump passes over, nor where to go on when its segment was moved.

use std::cmp::Ordering;

/// Between two entries of a lane's log. Ordered by place.
///
/// `spans` makes every jump exact: the spans between two positions are the difference of their `spans`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Segment id; 0 is before every segment.
    pub segment: u64,
    /// Offset in the segment's file, bytes.
    pub offset: u64,
    /// Sequence of the last block before; 0 when there is none. A reader continues after it wherever the place has gone.
    pub sequence: u64,
    /// Spans that the lane ever appended before this position.
    pub spans: u64,
}

impl Position {
    /// Spans between `earlier` and this position; 0 when it is not earlier.
    #[must_use]
    pub fn spans_since(&self, earlier: &Position) -> u64 {
        self.spans.saturating_sub(earlier.spans)
    }

    /// The place of `to`, with everything passed that was passed already: a segment that blocks were moved to after a failed
    /// sync starts before the end of the one that they were moved from.
    #[must_use]
    pub fn forward_to(&self, to: &Position) -> Position {
        Position { sequence: to.sequence.max(self.sequence), spans: to.spans.max(self.spans), ..*to }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Position) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Position) -> Ordering {
        (self.segment, self.offset, self.sequence, self.spans).cmp(&(
            other.segment,
            other.offset,
            other.sequence,
            other.spans,
        ))
    }
}
