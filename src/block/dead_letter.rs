//! A front dead letter: a record that could not become a span, on its way to be kept aside with the reason.
//!
//! It is from before redaction, so what is kept of its bytes is decided where it is stored, not here. It leaves the
//! decoding thread through a bounded channel that never blocks: when the channel is full the bytes are given up and
//! counted, the record stays booked as dead-lettered with its reason.

use super::SourceId;

/// One undecodable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontDeadLetter {
    /// The receiver that it came in by.
    pub source: SourceId,
    /// Why: one of a small fixed set of words, a metric's label.
    pub reason: &'static str,
    /// What the decoder says of it, in its own words; empty where the word says it all.
    pub detail: String,
    /// When it came, Unix nanoseconds.
    pub received_ns: u64,
    /// Its bytes as they were sent.
    pub bytes: Vec<u8>,
}

/// Where decoding threads leave dead letters; `try_send` only.
pub type DeadLetterSender = crossbeam::channel::Sender<FrontDeadLetter>;
