//! A step for tests: drops some spans, fails on some blocks, both told by the bytes of the spans alone.
//!
//! So whoever knows a span knows what the step does with it, and a block that comes again fares the same.

use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

use super::{Cause, Given, Made, Taking};
use crate::block::Signal;
use crate::otlp::slice;
use crate::otlp::view;

/// See the module. Zero is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        let kept: Vec<u32> = (0..).zip(spans()).filter(|(_, span)| !self.drops(span)).map(|(row, _)| row).collect();
        Made::Other(slice::part(Signal::Traces, payload, &kept, out, &mut Vec::new()).0)
    }
}

/// Every block of spans.
pub(super) fn taking() -> &'static Taking {
    static ALL: LazyLock<Taking> = LazyLock::new(|| Taking { signals: vec![Signal::Traces], sources: None });
    &ALL
}

fn one_in(every: u64, span: &[u8], salt: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(salt);
    hasher.write(span);
    every > 0 && hasher.finish().is_multiple_of(every)
}
