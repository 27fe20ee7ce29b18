//! What the world outside the process knows: every span that was handed in, every promise that was made of it, and what
//! the backends have.
//!
//! A span is told by the hash of its bytes, so one that comes out changed is one that was never handed in. What belongs to
//! a destination is a bit of a mask. The oracle outlives crashes; it knows nothing of logs, cursors or windows.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

use bytes::Bytes;

use crate::block::{Block, Made};
use crate::deliver::Request;
use crate::otlp::view;
use crate::transform::scripted::Scripted;

/// The name of a span that every backend refuses.
pub(super) const POISON: &str = "poison";

/// A span as the oracle names it.
pub(super) type SpanIndex = u32;

#[derive(Debug)]
struct Known {
    encoded: bool,
    poisoned: bool,
    /// Transforms drop it; nobody can say when they were exchanged while it was under way.
    dropped: Option<bool>,
    /// It is in a block that was kept aside.
    aside: bool,
    /// Handed in more than once, byte for byte: a root, or a row that was sent twice.
    repeated: bool,
    /// The outlet that it went through first, and its place in what went through there.
    outlet: u32,
    place: u64,
    /// Destinations that have to get it, because somebody was told yes.
    due: u8,
    taken: u8,
    /// Destinations that refused it and said so.
    refused: u8,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    spans: Vec<Known>,
    by_hash: HashMap<u64, SpanIndex, BuildHasherDefault<DefaultHasher>>,
    outlets: u32,
    places: u64,
    trace: DefaultHasher,
    /// What the lanes' transforms do, and what they are about to do instead.
    pub(super) transform: Scripted,
    coming: Option<Scripted>,
    /// Spans that somebody was told yes for.
    pub(super) promised: u64,
}

/// Names a span by its bytes.
pub(super) fn hash(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}

impl Oracle {
    /// Adds to the trace of the run.
    pub(super) fn note(&mut self, what: &'static str, numbers: &[u64]) {
        self.trace.write(what.as_bytes());
        numbers.iter().for_each(|number| self.trace.write_u64(*number));
    }

    /// The hash of everything noted.
    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// A number for a new outlet.
    pub(super) fn new_outlet(&mut self) -> u32 {
        self.outlets += 1;
        self.outlets
    }

    /// Whether the transforms drop a span that is handed in now.
    fn drops(&self, body: &[u8]) -> Option<bool> {
        let drops = self.transform.drops(body);
        self.coming.is_none_or(|coming| coming.drops(body) == drops).then_some(drops)
    }

    /// Other transforms are on their way to the lanes: what is under way meets the old ones or the new ones.
    pub(super) fn exchange(&mut self, coming: Scripted) {
        self.coming = Some(coming);
        let is_under_way = |known: &&mut Known| known.due | known.taken | known.refused == 0;
        self.spans.iter_mut().filter(is_under_way).for_each(|known| known.dropped = None);
    }

    /// Whether some are on their way.
    pub(super) fn is_exchanging(&self) -> bool {
        self.coming.is_some()
    }

    /// They are there, if any were on their way.
    pub(super) fn exchanged(&mut self) {
        self.transform = self.coming.take().unwrap_or(self.transform);
    }

    /// A block is handed in.
    pub(super) fn handed_in(&mut self, block: &Block, outlet: u32) {
        let mut spans = 0;
        for (_, _, span) in view::spans(&block.payload) {
            spans += 1;
            self.places += 1;
            let known = Known {
                encoded: block.meta.made == Made::Encoded,
                poisoned: span.read().name == POISON,
                dropped: self.drops(span.body()),
                aside: false,
                repeated: false,
                outlet,
                place: self.places,
                due: 0,
                taken: 0,
                refused: 0,
            };
            let next = SpanIndex::try_from(self.spans.len()).expect("a run hands in some thousands");
            let index = *self.by_hash.entry(hash(span.body())).or_insert(next);
            match self.spans.get_mut(index as usize) {
                Some(before) => {
                    before.repeated = true;
                    before.dropped = before.dropped.filter(|dropped| known.dropped == Some(*dropped));
                }
                None => self.spans.push(known),
            }
        }
        assert_eq!(spans, block.meta.spans, "a block says how many spans it holds");
    }

    /// Somebody was told yes: each span is due to the destinations of `all`, or of `encoded` when it was encoded.
    pub(super) fn promise(&mut self, hashes: &[u64], (all, encoded): (u8, u8)) {
        for hash in hashes {
            let index = self.by_hash.get(hash).expect("what was acknowledged was handed in");
            let known = &mut self.spans[*index as usize];
            known.due |= all | if known.encoded { encoded } else { 0 };
        }
        self.promised += hashes.len() as u64;
    }

    /// What was promised is void for the destinations of `mask` where they have not got it yet.
    pub(super) fn void(&mut self, mask: u8) {
        self.spans.iter_mut().for_each(|known| known.due &= known.taken | !mask);
    }

    /// The spans of a request, each of which was handed in, in the order in which they were.
    pub(super) fn sent(&self, request: &Request, payloads: &[Bytes]) -> Vec<SpanIndex> {
        let bodies = payloads.iter().flat_map(|payload| view::spans(payload));
        let find = |body: &[u8]| *self.by_hash.get(&hash(body)).expect("nothing is delivered that was not handed in");
        let spans: Vec<SpanIndex> = bodies.map(|(_, _, span)| find(span.body())).collect();
        assert_eq!(spans.len() as u64, request.spans, "a request holds as many spans as it says");
        let dropped = spans.iter().any(|index| self.spans[*index as usize].dropped == Some(true));
        assert!(!dropped, "a span that was dropped is delivered");
        let mut last: Vec<(u32, u64)> = Vec::new();
        for known in spans.iter().map(|index| &self.spans[*index as usize]).filter(|known| !known.repeated) {
            match last.iter_mut().find(|(outlet, _)| *outlet == known.outlet) {
                Some((_, place)) => {
                    assert!(*place < known.place, "the spans of one producer changed their places in a request");
                    *place = known.place;
                }
                None => last.push((known.outlet, known.place)),
            }
        }
        spans
    }

    /// A block was kept aside, durably.
    pub(super) fn quarantined(&mut self, payload: &[u8]) {
        for (_, _, span) in view::spans(payload) {
            let index = *self.by_hash.get(&hash(span.body())).expect("what is kept aside was handed in");
            self.spans[index as usize].aside = true;
        }
    }

    /// Whether a backend refuses one of them.
    pub(super) fn any_poisoned(&self, spans: &[SpanIndex]) -> bool {
        spans.iter().any(|index| self.spans[*index as usize].poisoned)
    }

    /// Whether it was handed in more than once.
    pub(super) fn is_repeated(&self, span: SpanIndex) -> bool {
        self.spans[span as usize].repeated
    }

    /// A backend has taken a request, but for so many of the last spans, which it refused.
    pub(super) fn taken(&mut self, spans: &[SpanIndex], refused: u64, destination: u8) {
        let taken = spans.len() - usize::try_from(refused).expect("not more than were sent");
        for (position, index) in spans.iter().enumerate() {
            let known = &mut self.spans[*index as usize];
            *(if position < taken { &mut known.taken } else { &mut known.refused }) |= destination;
        }
    }

    /// A span was kept as a dead letter.
    pub(super) fn kept_aside(&mut self, payload: &[u8], destination: u8) {
        for (_, _, span) in view::spans(payload) {
            let index = *self.by_hash.get(&hash(span.body())).expect("a dead letter was handed in");
            let known = &mut self.spans[index as usize];
            assert!(known.poisoned, "a span that nobody refuses became a dead letter");
            known.refused |= destination;
        }
    }

    /// Spans that are due to a destination and that it has neither taken nor refused.
    pub(super) fn missing(&self) -> usize {
        let is_missing = |known: &&Known| {
            known.dropped == Some(false) && !known.aside && known.due & !known.taken & !known.refused != 0
        };
        self.spans.iter().filter(is_missing).count()
    }
}
