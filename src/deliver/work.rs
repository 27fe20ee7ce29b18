//! A piece of work: the parts that travel together in one request, with what has happened to them so far.
//!
//! Work is made by `gather` from fresh blocks, comes back after every answer that does not settle it, and is halved when
//! the peer refuses it. Halving keeps the sum of bytes exact, so what the tracker added up comes out at zero again.

use std::sync::Arc;
use std::time::Duration;

use super::Part;
use crate::block::Signal;

/// Parts that are sent together.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) signal: Signal,
    pub(super) parts: Arc<[Part]>,
    pub(super) spans: u64,
    pub(super) bytes: usize,
    /// Not to be sent before this, unless a probe asks for the oldest.
    pub(super) not_before: Duration,
    /// Transport failures so far.
    pub(super) failures: u32,
    /// When it failed last.
    pub(super) failed_at: Option<Duration>,
    /// Failures between which the peer accepted something else.
    pub(super) lonely_failures: u32,
    /// The next attempt repeats a failed one and is paid from the retry budget.
    pub(super) costs_budget: bool,
    /// It has been in a request before.
    pub(super) attempted: bool,
    /// The peer refused the compressed form, so the next attempt is uncompressed.
    pub(super) uncompressed: bool,
    /// Times that the peer refused it in a way that is not its size.
    pub(super) refusals: u32,
    /// An answer to it was lost: the peer may have it.
    pub(super) answer_lost: bool,
}

impl Work {
    /// Work that was never sent.
    pub(super) fn fresh(signal: Signal, parts: Arc<[Part]>) -> Work {
        Work {
            signal,
            spans: parts.iter().map(Part::spans).sum(),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            parts,
            not_before: Duration::ZERO,
            failures: 0,
            failed_at: None,
            lonely_failures: 0,
            costs_budget: false,
            attempted: false,
            uncompressed: false,
            refusals: 0,
            answer_lost: false,
        }
    }

    /// The same parts before a peer that knows nothing of them; what an earlier one may have is still what it may have.
    pub(super) fn forgiven(self) -> Work {
        Work { answer_lost: self.answer_lost, ..Work::fresh(self.signal, self.parts) }
    }

    /// Where it stands in the order of the log; no two pieces of work share it.
    pub(super) fn key(&self) -> (u64, u32) {
        (self.parts[0].block, self.parts[0].first)
    }

    /// The first span alone, and the rest if there is any.
    pub(super) fn first_span(self) -> (Work, Option<Work>) {
        if self.spans == 1 {
            return (self, None);
        }
        let mut parts = self.parts.to_vec();
        if parts[0].spans() > 1 {
            let (first, others) = cut(&parts[0], parts[0].first + 1);
            parts.splice(..1, [first, others]);
        }
        let rest = parts.split_off(1);
        (self.with_parts(parts), Some(self.with_parts(rest)))
    }

    /// The same history with other parts.
    pub(super) fn with_parts(&self, parts: Vec<Part>) -> Work {
        let sums = Work::fresh(self.signal, parts.into());
        Work { parts: sums.parts, spans: sums.spans, bytes: sums.bytes, ..self.clone() }
    }

    /// Whether `other` may travel in the same request: both only wait because a request failed.
    pub(super) fn can_join(&self, other: &Work) -> bool {
        let failed = |work: &Work| work.costs_budget && work.refusals == 0 && work.lonely_failures == 0;
        let alike = self.uncompressed == other.uncompressed && self.answer_lost == other.answer_lost;
        self.signal == other.signal && failed(self) && failed(other) && alike
    }

    /// One piece of several. Its parts stand in the order of the log: a piece that was joined before may have parts on either
    /// side of another's.
    pub(super) fn joined(pieces: &[Work]) -> Work {
        let mut parts: Vec<Part> = pieces.iter().flat_map(|work| work.parts.iter().copied()).collect();
        parts.sort_unstable_by_key(|part| (part.block, part.first));
        let failures = pieces.iter().map(|work| work.failures).max().unwrap_or(0);
        Work { failures, ..pieces[0].with_parts(parts) }
    }

    /// Two pieces with about half of the spans each, cut between blocks when there are several. Panics on a single span.
    pub(super) fn halve(self) -> [Work; 2] {
        let (front, back) = match &*self.parts {
            [part] => {
                let (front, back) = cut(part, part.first + (part.end - part.first) / 2);
                (vec![front], vec![back])
            }
            parts => {
                let (front, back) = parts.split_at(middle(parts, self.spans));
                (front.to_vec(), back.to_vec())
            }
        };
        [front, back].map(|parts| self.with_parts(parts))
    }
}

/// The index of the boundary closest to half of the spans, with at least one part on either side.
fn middle(parts: &[Part], spans: u64) -> usize {
    let mut before = 0;
    let full = parts.iter().take_while(|part| {
        before += part.spans();
        before <= spans / 2
    });
    full.count().clamp(1, parts.len() - 1)
}

/// Cuts a part in front of span `at`, which must lie inside it.
pub(super) fn cut(part: &Part, at: u32) -> (Part, Part) {
    assert!(part.first < at && at < part.end, "span {at} does not cut {part:?}");
    let share = u128::from(at - part.first) * part.bytes as u128 / u128::from(part.end - part.first);
    let share = usize::try_from(share).expect("a share is not more than the whole");
    (Part { end: at, bytes: share, ..*part }, Part { first: at, bytes: part.bytes - share, ..*part })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(block: u64, spans: u32, bytes: usize) -> Part {
        Part { block, first: 0, end: spans, of: spans, bytes }
    }

    fn leaves(work: Work) -> Vec<Part> {
        if work.spans == 1 {
            return work.parts.to_vec();
        }
        let [front, back] = work.halve();
        assert!(front.key() < back.key());
        [leaves(front), leaves(back)].concat()
    }

    #[test]
    fn halving_ends_with_every_span_once_and_every_byte_once() {
        let parts: Arc<[Part]> = [block(3, 1, 50), block(4, 1000, 65_000), block(5, 7, 1_001)].into();
        let leaves = leaves(Work::fresh(Signal::Traces, parts));
        assert_eq!(leaves.len(), 1008);
        assert_eq!(leaves.iter().map(|part| part.bytes).sum::<usize>(), 66_051);
        assert!(leaves.is_sorted_by_key(|part| (part.block, part.first)));
        assert!(leaves.iter().all(|part| part.spans() == 1));
    }

    #[test]
    fn only_what_merely_failed_is_joined() {
        let failed = |first| {
            let work = Work::fresh(Signal::Traces, [block(first, 10, 100)].into());
            Work { costs_budget: true, failures: 1, ..work }
        };
        let others = [
            Work { signal: Signal::Logs, ..failed(1) },
            Work { costs_budget: false, ..failed(1) },
            Work { refusals: 1, ..failed(1) },
            Work { lonely_failures: 1, ..failed(1) },
            Work { uncompressed: true, ..failed(1) },
            Work { answer_lost: true, ..failed(1) },
        ];
        assert!(others.iter().all(|other| !failed(0).can_join(other) && !other.can_join(&failed(0))));
        assert!(failed(0).can_join(&failed(1)));
        let joined = Work::joined(&[failed(0), Work { failures: 4, ..failed(1) }]);
        assert_eq!((joined.key(), joined.spans, joined.bytes, joined.failures), ((0, 0), 20, 200, 4));
    }

    #[test]
    fn what_is_joined_twice_stands_in_the_order_of_the_log() {
        let parts: Vec<Part> = [0, 1, 2].map(|number| block(number, 10, 100)).into();
        let (front, back) = cut(&parts[0], 4);
        let piece = |part: Part| Work::fresh(Signal::Traces, [part].into());
        let around = Work::joined(&[piece(front), piece(parts[2])]);
        let joined = Work::joined(&[around, piece(back), piece(parts[1])]);
        assert_eq!(joined.parts[..], [front, back, parts[1], parts[2]]);
    }

    #[test]
    fn several_blocks_are_parted_before_one_is_cut() {
        let parts: Arc<[Part]> = [block(0, 900, 9), block(1, 50, 9), block(2, 50, 9)].into();
        let [front, back] = Work::fresh(Signal::Traces, parts).halve();
        assert_eq!((front.spans, back.spans), (900, 100));
        let [front, back] = front.halve();
        assert_eq!((front.spans, back.spans), (450, 450));
        assert!(!front.parts[0].is_whole());
    }
}
