//! OTLP as bytes: the wire format is the working format.
//!
//! Nothing here builds a tree of objects on the hot path. [`check`] proves that a peer's bytes are what they claim to
//! be, [`slice`] cuts them at span boundaries, [`view`] lends whoever must look inside borrowed views, [`columns`] takes
//! declared fields out for many records at once, [`ids`] names the two identifiers and [`messages`] holds the few answers
//! that are worth a struct. All but `check` take bytes that have passed the check (or that we wrote ourselves); given
//! other bytes they see less, they never panic.
//!
//! Concatenation is the merge: two checked `ExportTraceServiceRequest`s behind each other are one.

pub mod check;
pub mod columns;
pub mod edit;
pub mod fields;
pub mod from_json;
pub mod ids;
pub mod json;
pub mod keys;
pub mod messages;
pub mod rows;
pub mod slice;
pub mod view;
mod wire;
pub mod writer;

/// What a payload of traces holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Spans.
    pub spans: u32,
    /// Earliest start, Unix nanoseconds; `u64::MAX` when no span has one.
    pub first_start_ns: u64,
    /// Latest end, Unix nanoseconds; 0 when no span has one.
    pub last_end_ns: u64,
}

impl Summary {
    /// Of a payload without spans.
    pub const EMPTY: Summary = Summary { spans: 0, first_start_ns: u64::MAX, last_end_ns: 0 };

    /// Counts one more span; a time of 0 is one that the sender did not state.
    pub fn add_span(&mut self, start_ns: u64, end_ns: u64) {
        self.spans += 1;
        if start_ns != 0 {
            self.first_start_ns = self.first_start_ns.min(start_ns);
        }
        self.last_end_ns = self.last_end_ns.max(end_ns);
    }
}
