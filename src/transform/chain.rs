//! The chain: steps one after the other, and the pieces in which their result is appended.
//!
//! Each step reads the payload that the one before it left and writes another, or says that it is to stay: a block that no
//! step changes is copied by nobody. The buffers are the chain's own and are used again. What is left is cut at
//! [`MAX_BYTES`], and each piece is described anew: how many spans, how many of them stand for a record (at most as many as
//! did), and which time they cover.

use std::time::Duration;

use super::PluginStep;
use crate::block::{MAX_BYTES, Meta, Signal, SourceId};
use crate::otlp::Summary;
use crate::otlp::slice::{self, Bounds};

/// A part of a block that is left to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What the payload is.
    pub meta: Meta,
    /// OTLP bytes, at most [`MAX_BYTES`].
    pub payload: Vec<u8>,
}

/// Why a block is kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The name of the step.
    pub step: String,
    /// One of a small fixed set of words, a metric's label.
    pub reason: &'static str,
    /// What went wrong, for people.
    pub message: String,
}

/// What becomes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on as it is.
    Untouched,
    /// These go on in its place, in order; the spans that are in none of them were dropped.
    Changed(Vec<Piece>),
    /// Nothing of it goes on; it is to be kept as it came.
    Aside(Cause),
}

/// A block as a step is given it.
pub struct Given<'a> {
    /// The block as its producer described it; its counts are those of the payload as it came.
    pub meta: &'a Meta,
    /// The payload that the step before left. A step may lend it; it is as it was when the step is done.
    pub payload: &'a mut Vec<u8>,
    /// Monotonic.
    pub now: Duration,
}

/// What a step makes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// It stays as it is.
    Same,
    /// Another payload, which was written behind each other into the step's output, and what it holds.
    Other(Summary),
    /// The step failed on it, and what it fails on is to be kept aside.
    Aside(Cause),
}

/// Which blocks concern a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taking {
    /// Those of these signals,
    pub signals: Vec<Signal>,
    /// and of these sources; none: of all.
    pub sources: Option<Vec<SourceId>>,
}

impl Taking {
    /// Whether a block like this does.
    #[must_use]
    pub fn takes(&self, meta: &Meta) -> bool {
        let is_of = |sources: &Vec<SourceId>| sources.contains(&meta.source);
        meta.spans > 0 && self.signals.contains(&meta.signal) && self.sources.as_ref().is_none_or(is_of)
    }
}

/// One step. Another kind of transform is another variant.
pub enum Step {
    /// A plugin of the user.
    Plugin(Box<PluginStep>),
    /// What a test says.
    #[cfg(test)]
    Scripted(super::scripted::Scripted),
}

impl Step {
    fn taking(&self) -> &Taking {
        match self {
            Step::Plugin(plugin) => plugin.taking(),
            #[cfg(test)]
            Step::Scripted(_) => super::scripted::taking(),
        }
    }

    fn spent(&mut self) -> Duration {
        match self {
            Step::Plugin(plugin) => plugin.spent(),
            #[cfg(test)]
            Step::Scripted(_) => Duration::ZERO,
        }
    }

    fn run(&mut self, given: Given<'_>, out: &mut Vec<u8>) -> Made {
        match self {
            Step::Plugin(plugin) => plugin.run(given, out),
            #[cfg(test)]
            Step::Scripted(scripted) => scripted.run(given, out),
        }
    }
}

/// The steps of one lane; see the module.
pub struct Chain {
    pub(super) steps: Vec<Step>,
    piece_bytes: usize,
    current: Vec<u8>,
    next: Vec<u8>,
}

impl Chain {
    /// A chain of these steps, in order.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> Chain {
        Chain::in_pieces_of(steps, MAX_BYTES)
    }

    /// As [`Chain::new`], with results cut at so many bytes.
    #[must_use]
    pub fn in_pieces_of(steps: Vec<Step>, piece_bytes: usize) -> Chain {
        Chain { steps, piece_bytes, current: Vec::new(), next: Vec::new() }
    }

    /// Whether any step could change a block like this: if not, it need not be run.
    #[must_use]
    pub fn takes(&self, meta: &Meta) -> bool {
        self.steps.iter().any(|step| step.taking().takes(meta))
    }

    /// What [`Chain::takes`] goes by, for whoever has to know it apart from the chain.
    #[must_use]
    pub fn taking(&self) -> Vec<Taking> {
        self.steps.iter().map(|step| step.taking().clone()).collect()
    }

    /// Runs a block through the steps. The payload is as it was afterwards.
    pub fn run(&mut self, meta: &Meta, payload: &mut Vec<u8>, now: Duration) -> Outcome {
        let mut made = None;
        for step in self.steps.iter_mut().filter(|step| step.taking().takes(meta)) {
            let given = if made.is_some() { &mut self.current } else { &mut *payload };
            self.next.clear();
            match step.run(Given { meta, payload: given, now }, &mut self.next) {
                Made::Same => {}
                Made::Other(summary) => {
                    std::mem::swap(&mut self.current, &mut self.next);
                    made = Some(summary);
                    if summary.spans == 0 {
                        break;
                    }
                }
                Made::Aside(cause) => return Outcome::Aside(cause),
            }
        }
        match made {
            None => Outcome::Untouched,
            Some(summary) => Outcome::Changed(self.pieces(meta, summary)),
        }
    }

    /// Processor time of the steps since this was last asked.
    pub fn spent(&mut self) -> Duration {
        self.steps.iter_mut().map(Step::spent).sum()
    }

    /// Takes the buffer of a piece back, so that the next block needs no other.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > self.current.capacity() {
            self.current = buffer;
        }
    }

    fn pieces(&mut self, meta: &Meta, summary: Summary) -> Vec<Piece> {
        if summary.spans == 0 {
            return Vec::new();
        }
        let mut records = meta.records;
        if self.current.len() <= self.piece_bytes {
            let meta = describe(meta, summary, &mut records);
            return vec![Piece { meta, payload: std::mem::take(&mut self.current) }];
        }
        let bounds = Bounds { max_bytes: self.piece_bytes, max_spans: u32::MAX };
        let cut = slice::pieces(&self.current, bounds);
        debug_assert_eq!(cut.too_big_spans, 0, "a step that makes a span so big has failed");
        let piece =
            |piece: slice::Piece| Piece { meta: describe(meta, piece.summary, &mut records), payload: piece.payload };
        cut.pieces.into_iter().map(piece).collect()
    }
}

/// A piece's description; takes the records that its spans stand for from those that are left.
fn describe(meta: &Meta, summary: Summary, records: &mut u32) -> Meta {
    let stands_for = summary.spans.min(*records);
    *records -= stands_for;
    Meta {
        records: stands_for,
        spans: summary.spans,
        first_span_ns: summary.first_start_ns,
        last_span_ns: summary.last_end_ns,
        ..*meta
    }
}
