//! The block: the unit of everything after decode.
//!
//! A block is the OTLP payload of one source and one signal: a serialized `ExportTraceServiceRequest` (or the logs or
//! metrics request), so two payloads of one signal concatenated are their merge. It is closed at [`TARGET_BYTES`],
//! after a few milliseconds, or at the end of the event-loop turn in which somebody waits for it, and never holds more
//! than [`MAX_BYTES`]. Blocks travel from a producer (reactor or gateway) through a ring to the lane's writer.
//!
//! Counting: one uberAgent record becomes exactly one item (span or log record), so in a block of encoded records
//! `spans - records` were synthesised; a block that was passed through holds no record. The ledger relies on this.
//!
//! This module knows nothing of sockets, segments or backends. `header` is the block's form in the log, `outlet` the
//! producer's side of the ring, `outcome` what a destination's answer means.

mod dead_letter;
mod header;
mod outcome;
mod outlet;

pub use dead_letter::{DeadLetterSender, FrontDeadLetter};
pub use header::{HEADER_BYTES, Header, HeaderKey, Kind, Packing, VOUCHED_BYTES};
pub use outcome::Outcome;
pub use outlet::{Outlet, Refusal, Ticket, Verdict, VerdictOutcome};

/// Bytes of payload at which an open block is closed.
pub const TARGET_BYTES: usize = 64 * 1024;

/// Bytes of payload that no block exceeds; a bigger request is cut at span boundaries.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The OTLP signal of a payload; blocks of different signals are never joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Signal {
    /// `ExportTraceServiceRequest`.
    Traces = 1,
    /// `ExportMetricsServiceRequest`.
    Metrics = 2,
    /// `ExportLogsServiceRequest`.
    Logs = 3,
}

impl Signal {
    /// The signal with this number in a header, if there is one.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Signal> {
        match value {
            1 => Some(Signal::Traces),
            2 => Some(Signal::Metrics),
            3 => Some(Signal::Logs),
            _ => None,
        }
    }
}

/// A configured receiver (never a peer): its index in the configuration. `MIXED` marks spans of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

impl SourceId {
    /// More than one source, in bookings that cannot be told apart.
    pub const MIXED: SourceId = SourceId(u16::MAX);
}

/// How a payload came to be: it decides which side of the ledger its spans are booked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Encoded from records, with synthesised spans among them.
    Encoded,
    /// Checked and passed through as it came.
    Passed,
}

/// What a block says of its payload: the fields of the block header that a producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The payload's signal.
    pub signal: Signal,
    /// How the payload came to be.
    pub made: Made,
    /// The receiver that the payload came in by.
    pub source: SourceId,
    /// Spans of the payload that stand for one record each, at most `spans`; 0 for a payload passed through.
    pub records: u32,
    /// Spans (or log records) in the payload.
    pub spans: u32,
    /// Wall clock when the block's first bytes were received, Unix nanoseconds.
    pub received_ns: u64,
    /// Earliest span start in the payload, Unix nanoseconds; `u64::MAX` while empty.
    pub first_span_ns: u64,
    /// Latest span end in the payload, Unix nanoseconds; 0 while empty.
    pub last_span_ns: u64,
}

impl Meta {
    /// The description of an empty block.
    #[must_use]
    pub fn empty(signal: Signal, made: Made, source: SourceId, received_ns: u64) -> Meta {
        Meta { signal, made, source, records: 0, spans: 0, received_ns, first_span_ns: u64::MAX, last_span_ns: 0 }
    }

    /// Widens the span of time covered by the payload.
    pub fn cover(&mut self, start_ns: u64, end_ns: u64) {
        self.first_span_ns = self.first_span_ns.min(start_ns);
        self.last_span_ns = self.last_span_ns.max(end_ns);
    }

    /// Spans that no record stands for: synthesised roots. 0 for a payload passed through.
    #[must_use]
    pub fn synthesised(&self) -> u32 {
        debug_assert!(self.records <= self.spans, "{} records in {} spans", self.records, self.spans);
        match self.made {
            Made::Encoded => self.spans.saturating_sub(self.records),
            Made::Passed => 0,
        }
    }

    /// Spans passed through as they came.
    #[must_use]
    pub fn passed(&self) -> u32 {
        match self.made {
            Made::Encoded => 0,
            Made::Passed => self.spans,
        }
    }
}

/// A block: open while its producer appends to the payload, closed once it was pushed.
#[derive(Clone, Debug)]
pub struct Block {
    /// What the payload is.
    pub meta: Meta,
    /// OTLP protobuf bytes.
    pub payload: Vec<u8>,
    /// A peer waits for this block's verdict: sync as soon as possible.
    pub awaited: bool,
}

impl Block {
    /// An open block that appends to `buffer`, which must be empty.
    #[must_use]
    pub fn open(meta: Meta, buffer: Vec<u8>) -> Block {
        assert!(buffer.is_empty(), "a block opens on an empty buffer, this one holds {} bytes", buffer.len());
        Block { meta, payload: buffer, awaited: false }
    }
}
