//! Cuts a payload at span boundaries; the resource and scope around each span are repeated in every piece.
//!
//! One pass, one copy of each span's bytes, whatever is asked: pieces of at most so many bytes and spans, the spans
//! `[a, b)`, some of them, or everything but some. Log records are cut as spans are; they differ in where their time is.
//! Wrappers without a span and unknown fields of the request itself do not survive. The lengths of the two wrappers are
//! written as varints of a fixed four bytes, patched when the wrapper is closed: legal protobuf, and the reason why a piece
//! stays under 256 MiB.

use std::ops::Range;

use super::Summary;
use super::fields::{Field, Fields};
use crate::block::Signal;

/// Bytes of a wrapper's key and its fixed-width length.
const WRAPPER_BYTES: usize = 1 + LENGTH_BYTES;
pub(super) const LENGTH_BYTES: usize = 4;

const RESOURCE_SPANS: u8 = 0x0a;
const SCOPE_SPANS: u8 = 0x12;

/// How big a piece may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes.
    pub max_bytes: usize,
    /// Spans.
    pub max_spans: u32,
}

/// A piece of a request: a payload of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// OTLP bytes.
    pub payload: Vec<u8>,
    /// What they hold.
    pub summary: Summary,
}

/// A request cut into pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// In order.
    pub pieces: Vec<Piece>,
    /// Spans in no piece, because one with its resource and scope is more than the bounds allow.
    pub too_big_spans: u32,
}

/// Cuts a checked payload of traces into as few pieces as a single pass can.
#[must_use]
pub fn pieces(payload: &[u8], bounds: Bounds) -> Pieces {
    let mut cutter = Cutter::new(Signal::Traces, Vec::new(), bounds);
    cutter.run(payload, |_, _| true);
    cutter.finish_piece();
    Pieces { pieces: cutter.done, too_big_spans: cutter.too_big_spans }
}

/// Cuts a checked payload into pieces of `rows` spans or log records, the last of what is left; nothing of one without any.
#[must_use]
pub fn by_rows(signal: Signal, payload: &[u8], rows: u32) -> Vec<Piece> {
    let mut cutter = Cutter::new(signal, Vec::new(), Bounds { max_bytes: usize::MAX, max_spans: rows });
    cutter.run(payload, |_, _| true);
    cutter.finish_piece();
    cutter.done
}

/// Appends the spans with these positions (0 is the payload's first) to `out`, as a payload.
pub fn range(payload: &[u8], spans: Range<u32>, out: &mut Vec<u8>) {
    append(Signal::Traces, payload, out, |index, _| spans.contains(&index));
}

/// Appends the spans with these ascending positions to `chosen`, as a payload, and all others to `rest`: together they are
/// what the payload was, for the concatenation of payloads is their merge.
pub fn part(
    signal: Signal,
    payload: &[u8],
    positions: &[u32],
    chosen: &mut Vec<u8>,
    rest: &mut Vec<u8>,
) -> (Summary, Summary) {
    let mut ahead = positions.iter().peekable();
    let chosen = append(signal, payload, chosen, |index, _| ahead.next_if_eq(&&index).is_some());
    let mut ahead = positions.iter().peekable();
    (chosen, append(signal, payload, rest, |index, _| ahead.next_if_eq(&&index).is_none()))
}

/// Appends everything but the spans whose bodies start at these ascending offsets to `out`.
pub(super) fn without(payload: &[u8], offsets: &[usize], out: &mut Vec<u8>) {
    let start = payload.as_ptr() as usize;
    let mut bad = offsets.iter().map(|offset| start + offset).peekable();
    append(Signal::Traces, payload, out, |_, body| bad.next_if_eq(&(body.as_ptr() as usize)).is_none());
}

/// Spans in a checked payload.
#[must_use]
pub fn count_spans(payload: &[u8]) -> u32 {
    let messages =
        |bytes, number| Fields::of(bytes).filter(move |field| field.number == number).map(|f| f.value.bytes());
    let scopes = messages(payload, 1).flat_map(|resource_spans| messages(resource_spans, 2));
    scopes.map(|scope_spans| u32::try_from(messages(scope_spans, 2).count()).unwrap_or(u32::MAX)).sum()
}

fn append(signal: Signal, payload: &[u8], out: &mut Vec<u8>, keep: impl FnMut(u32, &[u8]) -> bool) -> Summary {
    let unbounded = Bounds { max_bytes: usize::MAX, max_spans: u32::MAX };
    let mut cutter = Cutter::new(signal, std::mem::take(out), unbounded);
    cutter.run(payload, keep);
    cutter.close_resource();
    *out = cutter.out;
    cutter.summary
}

/// A message that is being written, or could be.
#[derive(Clone, Copy, Default)]
struct Wrapper<'a> {
    /// Its body in the payload.
    body: &'a [u8],
    /// Number of the field that repeats inside; all others belong to every copy.
    inner: u32,
    /// Where its body starts in the output, when it is open.
    opened_at: Option<usize>,
}

impl<'a> Wrapper<'a> {
    fn outer_fields(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let inner = self.inner;
        Fields::of(self.body).filter(move |field| field.number != inner)
    }

    /// Bytes that opening it costs.
    fn cost(&self) -> usize {
        WRAPPER_BYTES + self.outer_fields().map(|field| field.raw.len()).sum::<usize>()
    }

    fn open(&mut self, key: u8, out: &mut Vec<u8>) {
        out.push(key);
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        self.opened_at = Some(out.len());
        for field in self.outer_fields() {
            out.extend_from_slice(field.raw);
        }
    }

    fn close(&mut self, out: &mut [u8]) {
        if let Some(at) = self.opened_at.take() {
            close_length(out, at);
        }
    }
}

/// Writes the length of a wrapper whose body starts at `at` and ends with the output.
pub(super) fn close_length(out: &mut [u8], at: usize) {
    let length = out.len() - at;
    debug_assert!(length < 1 << (7 * LENGTH_BYTES), "a wrapper of {length} bytes");
    for (index, byte) in out[at - LENGTH_BYTES..at].iter_mut().enumerate() {
        let more = if index + 1 < LENGTH_BYTES { 0x80 } else { 0 };
        *byte = (length >> (7 * index)).to_le_bytes()[0] & 0x7f | more;
    }
}

struct Cutter<'a> {
    /// Tags of a span's start and end.
    time_tags: (u8, u8),
    out: Vec<u8>,
    bounds: Bounds,
    summary: Summary,
    resource: Wrapper<'a>,
    scope: Wrapper<'a>,
    done: Vec<Piece>,
    too_big_spans: u32,
}

impl<'a> Cutter<'a> {
    fn new(signal: Signal, out: Vec<u8>, bounds: Bounds) -> Cutter<'a> {
        // A log record ends when it starts.
        let time_tags = if signal == Signal::Logs { (0x09, 0x09) } else { (0x39, 0x41) };
        let (resource, scope) = (Wrapper::default(), Wrapper::default());
        Cutter { time_tags, out, bounds, summary: Summary::EMPTY, resource, scope, done: Vec::new(), too_big_spans: 0 }
    }

    fn run(&mut self, payload: &'a [u8], mut keep: impl FnMut(u32, &[u8]) -> bool) {
        let mut index = 0;
        for resource_spans in Fields::of(payload).filter(|field| field.number == 1) {
            self.resource = Wrapper { body: resource_spans.value.bytes(), inner: 2, opened_at: None };
            for scope_spans in Fields::of(self.resource.body).filter(|field| field.number == 2) {
                self.scope = Wrapper { body: scope_spans.value.bytes(), inner: 2, opened_at: None };
                for span in Fields::of(self.scope.body).filter(|field| field.number == 2) {
                    if keep(index, span.value.bytes()) {
                        self.span(span);
                    }
                    index += 1;
                }
                self.scope.close(&mut self.out);
            }
            self.close_resource();
        }
    }

    fn span(&mut self, span: Field<'a>) {
        if !self.fits(span.raw.len()) {
            self.finish_piece();
            if !self.fits(span.raw.len()) {
                self.too_big_spans += 1;
                return;
            }
        }
        if self.resource.opened_at.is_none() {
            self.resource.open(RESOURCE_SPANS, &mut self.out);
        }
        if self.scope.opened_at.is_none() {
            self.scope.open(SCOPE_SPANS, &mut self.out);
        }
        self.out.extend_from_slice(span.raw);
        let (mut start_ns, mut end_ns) = (0, 0);
        for field in Fields::of(span.value.bytes()) {
            let tag = field.raw.first().copied().unwrap_or_default();
            if tag == self.time_tags.0 {
                start_ns = field.value.number();
            }
            if tag == self.time_tags.1 {
                end_ns = field.value.number();
            }
        }
        self.summary.add_span(start_ns, end_ns);
    }

    fn fits(&self, span_bytes: usize) -> bool {
        if self.bounds.max_bytes == usize::MAX {
            return self.summary.spans < self.bounds.max_spans;
        }
        let resource = if self.resource.opened_at.is_none() { self.resource.cost() } else { 0 };
        let scope = if self.scope.opened_at.is_none() { self.scope.cost() } else { 0 };
        self.summary.spans < self.bounds.max_spans
            && self.out.len() + resource + scope + span_bytes <= self.bounds.max_bytes
    }

    fn close_resource(&mut self) {
        self.scope.close(&mut self.out);
        self.resource.close(&mut self.out);
    }

    fn finish_piece(&mut self) {
        self.close_resource();
        if !self.out.is_empty() {
            let payload = std::mem::take(&mut self.out);
            let summary = std::mem::replace(&mut self.summary, Summary::EMPTY);
            self.done.push(Piece { payload, summary });
        }
    }
}

#[cfg(test)]
mod tests;
