//! A step for tests: drops some spans, fails on some blocks, both told by the bytes of the spans alone.
//!
//! So whoever knows a span knows what the step does with it, and a block that comes again fares the same.

use std::hash::{DefaultHasher, Hasher};

use super::{Cause, Given, Made};
use crate::block::Signal;
use crate::otlp::Summary;
use crate::otlp::slice;
use crate::otlp::view;

/// See the module. Zero is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scripted {
    /// One span in so many is dropped.
    pub drop_every: u64,
    /// A block with one span in so many is kept aside.
    pub aside_every: u64,
    /// A block with one span in so many is written anew, as it was.
    pub rewrite_every: u64,
}

impl Scripted {
    /// Whether the step drops this span.
    #[must_use]
    pub fn drops(&self, span: &[u8]) -> bool {
        one_in(self.drop_every, span, 1)
    }

    /// Whether the step fails on blocks that hold this span.
    #[must_use]
    pub fn fails(&self, span: &[u8]) -> bool {
        one_in(self.aside_every, span, 2)
    }

    pub(super) fn run(&self, given: Given<'_>, out: &mut Vec<u8>) -> Made {
        if given.meta.signal != Signal::Traces {
            return Made::Same;
        }
        let payload = &given.payload[..];
        let spans = || view::spans(payload).map(|(_, _, span)| span.body());
        if spans().any(|span| self.fails(span)) {
            let message = "it was told to".to_owned();
            return Made::Aside(Cause { step: "scripted".to_owned(), reason: "trap", message });
        }
        let rewrites = spans().any(|span| one_in(self.rewrite_every, span, 3));
        if !rewrites && !spans().any(|span| self.drops(span)) {
            return Made::Same;
        }
        let mut summary = Summary::EMPTY;
        let kept: Vec<bool> = spans().map(|span| !self.drops(span)).collect();
        let mut first = 0;
        for run in kept.chunk_by(|a, b| a == b) {
            let end = first + u32::try_from(run.len()).expect("a block has few spans");
            if run[0] {
                // What is written behind each other is one payload.
                let part = slice::range(payload, first..end, out);
                summary.spans += part.spans;
                summary.first_start_ns = summary.first_start_ns.min(part.first_start_ns);
                summary.last_end_ns = summary.last_end_ns.max(part.last_end_ns);
            }
            first = end;
        }
        Made::Other(summary)
    }
}

fn one_in(every: u64, span: &[u8], salt: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(salt);
    hasher.write(span);
    every > 0 && hasher.finish().is_multiple_of(every)
}
