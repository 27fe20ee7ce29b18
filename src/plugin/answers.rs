//! What plugins are given and what they answer, in our own types, by world.
//!
//! Numbers that mean nothing have been refused when one of these exists; whether rows, ends and fields fit the batch is for
//! whoever uses the answer to check.

use std::ops::Range;

use crate::block::Signal;
use crate::otlp::columns::{Column, Columns, Field};
use crate::otlp::edit::Patch;

/// A batch that is changed or written.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What the rows are; one that the plugin wants.
    pub signal: Signal,
    /// The rows, gathered by the selection of the plugin's generation.
    pub columns: &'a Columns,
    /// When the block was received, Unix nanoseconds.
    pub received_ns: u64,
}

/// Rows that are no spans: combinations of values, or traces.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// What they are of.
    pub signal: Signal,
    /// How many.
    pub rows: u32,
    /// A column for each field that the plugin reads.
    pub columns: &'a [Column],
    /// When the block was received, Unix nanoseconds.
    pub received_ns: u64,
}

/// What a plugin wants changed, unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Fields of this patch alone, numbered after the plugin's own: for [`Selection::extended`].
    ///
    /// [`Selection::extended`]: crate::otlp::columns::Selection::extended
    pub extra: Vec<Field>,
    /// What to change.
    pub patch: Patch,
}

/// What becomes of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes.
    Drop,
    /// It stays.
    Keep,
    /// More of it has to be seen.
    NotYet,
    /// Somebody else may say.
    NoOpinion,
}

/// What becomes of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdicts {
    /// One for each trace.
    pub decisions: Vec<Decision>,
    /// How many traces each one stands for, at least 1; empty for 1 each.
    pub weights: Vec<f64>,
}

/// Records from the bytes of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes used, of those that were given.
    pub consumed: usize,
    /// Records made.
    pub rows: u32,
    /// Their values, unchecked: each cell is set in a row that has nothing.
    pub answer: Answer,
    /// Records understood and not wanted.
    pub filtered: u32,
    /// Records that could not be used.
    pub rejected: Vec<Rejected>,
    /// Bytes for the peer, once the rows are safe.
    pub reply: Vec<u8>,
}

/// A record that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Where it is in the bytes that were given; within those used.
    pub bytes: Range<usize>,
    /// Why, for people.
    pub reason: String,
}

/// A batch in the plugin's format, unchecked: see `encoder` in `wit/worlds.wit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The messages.
    pub bytes: Vec<u8>,
    /// Where each ends in them.
    pub ends: Vec<u32>,
    /// After which row each ends.
    pub rows: Vec<u32>,
    /// Rows that cannot be said.
    pub unencodable: Vec<u32>,
    /// What they are.
    pub content_type: String,
}
