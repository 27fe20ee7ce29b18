//! The strict check: proves that a peer's bytes are an `ExportTraceServiceRequest`, without decoding them to objects.
//!
//! Runs on the gateway's thread, once over the bytes, and allocates nothing for a good request: what passes is the
//! payload, as it came. Two kinds of fault:
//!
//! - *wire faults* make the whole request unusable ([`Fault`], answered 400): wire types 3 and 4, field number 0, a
//!   known field with another wire type, any field that does not end exactly at its parent's end, on unknown fields
//!   too; and bad text, nesting or too many spans outside a span;
//! - *bad spans* are cut out and reported (partial success): a trace id that is not 16 bytes or all zero, a span id that
//!   is not 8 bytes or all zero, parent and link ids of another length, text that is not UTF-8, nesting beyond 32.
//!
//! So the concatenation of two checked payloads is the merge of both requests, and whatever passes decodes everywhere.
//! Deliberately not checked: times, kinds, duplicate attributes; a backend can live with any of those.

use std::borrow::Cow;

use super::Summary;
use super::fields::Fields;
use super::slice;
use super::wire::{self, FIXED32};

/// Messages inside messages, the request being the first; protobuf libraries stop at 100.
pub const MAX_DEPTH: u32 = 32;

/// Spans of one request.
pub const MAX_SPANS: u32 = 100_000;

const SPAN_DEPTH: u32 = 4;
const RESOURCE_DEPTH: u32 = 3;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes end inside a field.
    #[error("the bytes end inside a field")]
    Truncated,
    /// A length-delimited field reaches past the end of its parent.
    #[error("a field reaches past the end of its parent")]
    Overrun,
    /// A varint of more than 64 bits.
    #[error("a varint has more than 64 bits")]
    Varint,
    /// Field number 0, or one above 2^29 - 1.
    #[error("a field has a number that does not exist")]
    FieldNumber,
    /// A field's key takes more bytes than it needs.
    #[error("a field's key is padded")]
    PaddedKey,
    /// A group, a wire type that does not exist, or one that is not the field's own.
    #[error("a field has a wire type that is not its own")]
    WireType,
    /// More than [`MAX_SPANS`] spans.
    #[error("more than 100000 spans")]
    TooManySpans,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// Messages nested beyond [`MAX_DEPTH`].
    #[error("nested deeper than 32 messages")]
    TooDeep,
    /// A trace id that is missing, not 16 bytes or all zero.
    #[error("the trace id is not 16 bytes with one set")]
    TraceId,
    /// A span id that is missing, not 8 bytes or all zero.
    #[error("the span id is not 8 bytes with one set")]
    SpanId,
    /// A parent span id that is neither empty nor 8 bytes.
    #[error("the parent span id is neither empty nor 8 bytes")]
    ParentSpanId,
    /// A link's ids that are neither empty nor 16 and 8 bytes.
    #[error("a link's ids are neither empty nor 16 and 8 bytes")]
    LinkId,
    /// A span that is too big for any block. Found when a request is cut.
    #[error("the span with its resource and scope is bigger than 1 MiB")]
    TooBig,
}

impl Reason {
    /// Whether the fault, found inside a span, leaves the rest of the request usable.
    fn spoils_only_its_span(self) -> bool {
        use Reason::{LinkId, ParentSpanId, SpanId, TooDeep, TraceId, Utf8};
        matches!(self, Utf8 | TooDeep | TraceId | SpanId | ParentSpanId | LinkId)
    }
}

/// Where and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {reason}")]
pub struct Fault {
    /// Offset into the request: of the field's rest for a wire fault, of the span for a bad span.
    pub offset: usize,
    /// What is wrong there.
    pub reason: Reason,
}

/// Spans that were cut out of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOut {
    /// How many.
    pub spans: u32,
    /// What was wrong with the first.
    pub first: Fault,
}

/// A request that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The request as it came, or a copy without the bad spans.
    pub payload: Cow<'a, [u8]>,
    /// What is in the payload.
    pub summary: Summary,
    /// What was cut out.
    pub cut_out: Option<CutOut>,
}

/// Checks a request; the limits are [`MAX_SPANS`] and [`MAX_DEPTH`]. A [`Fault`] means that the whole is unusable.
pub fn check(request: &[u8]) -> Result<Checked<'_>, Fault> {
    let mut checker = Checker { fault_address: 0, summary: Summary::EMPTY, seen: 0, bad: Vec::new() };
    // Errors inside carry no place, which keeps the good path lean; where they arose is what was left unread.
    checker.request(request).map_err(|reason| Fault { offset: checker.offset_in(request), reason })?;
    let summary = checker.summary;
    let Some(&(_, reason)) = checker.bad.first() else {
        return Ok(Checked { payload: Cow::Borrowed(request), summary, cut_out: None });
    };
    let bad: Vec<usize> = checker.bad.iter().map(|&(address, _)| address - address_of(request)).collect();
    let cut_out =
        CutOut { spans: u32::try_from(bad.len()).unwrap_or(u32::MAX), first: Fault { offset: bad[0], reason } };
    let mut payload = Vec::with_capacity(request.len());
    slice::without(request, &bad, &mut payload);
    Ok(Checked { payload: Cow::Owned(payload), summary, cut_out: Some(cut_out) })
}

/// Checks events and links that are to become fields of a span, and nothing else. A link needs ids: one that points nowhere
/// is let pass only where a peer has sent it.
pub(super) fn lists_of_span(mut rest: &[u8]) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        let body = message(&mut rest)?;
        match tag {
            0x5a => event(body, SPAN_DEPTH + 1)?,
            0x6a => {
                link(body, SPAN_DEPTH + 1)?;
                let has_id = |number| Fields::of(body).bytes(number).is_some_and(|id| id.iter().any(|byte| *byte != 0));
                if !has_id(1) || !has_id(2) {
                    return Err(Reason::LinkId);
                }
            }
            _ => return Err(Reason::WireType),
        }
    }
    Ok(())
}

/// The address of a slice's first byte: offsets of nested slices are differences of addresses.
fn address_of(bytes: &[u8]) -> usize {
    bytes.as_ptr() as usize
}

struct Checker {
    /// Address at which the last fault was noticed.
    fault_address: usize,
    summary: Summary,
    seen: u32,
    /// Address and reason of each bad span, in order.
    bad: Vec<(usize, Reason)>,
}

impl Checker {
    fn offset_in(&self, request: &[u8]) -> usize {
        self.fault_address.saturating_sub(address_of(request)).min(request.len())
    }

    /// Notes the place of a fault on its way up; the innermost place stays.
    #[inline]
    fn at<T>(&mut self, rest: &[u8], result: Result<T, Reason>) -> Result<T, Reason> {
        if result.is_err() && self.fault_address == 0 {
            self.fault_address = address_of(rest);
        }
        result
    }

    fn request(&mut self, mut rest: &[u8]) -> Result<(), Reason> {
        while let Some(&tag) = rest.first() {
            let before = rest;
            let step = if tag == 0x0a {
                message(&mut rest).and_then(|bytes| self.resource_spans(bytes))
            } else {
                unknown(&mut rest, &[1])
            };
            self.at(before, step)?;
        }
        Ok(())
    }

    fn resource_spans(&mut self, mut rest: &[u8]) -> Result<(), Reason> {
        while let Some(&tag) = rest.first() {
            let before = rest;
            let step = match tag {
                0x0a => message(&mut rest).and_then(|bytes| resource(bytes, RESOURCE_DEPTH)),
                0x12 => message(&mut rest).and_then(|bytes| self.scope_spans(bytes)),
                0x1a => text(&mut rest),
                _ => unknown(&mut rest, &[1, 2, 3]),
            };
            self.at(before, step)?;
        }
        Ok(())
    }

    fn scope_spans(&mut self, mut rest: &[u8]) -> Result<(), Reason> {
        while let Some(&tag) = rest.first() {
            let before = rest;
            let step = match tag {
                0x0a => message(&mut rest).and_then(|bytes| scope(bytes, SPAN_DEPTH)),
                0x12 => message(&mut rest).and_then(|bytes| self.span(bytes)),
                0x1a => text(&mut rest),
                _ => unknown(&mut rest, &[1, 2, 3]),
            };
            self.at(before, step)?;
        }
        Ok(())
    }

    fn span(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        self.seen += 1;
        if self.seen > MAX_SPANS {
            return Err(Reason::TooManySpans);
        }
        match span_times(bytes) {
            Ok((start_ns, end_ns)) => self.summary.add_span(start_ns, end_ns),
            Err(reason) if reason.spoils_only_its_span() => self.bad.push((address_of(bytes), reason)),
            Err(reason) => return Err(reason),
        }
        Ok(())
    }
}

/// Checks a `Span`; its start and end.
fn span_times(mut rest: &[u8]) -> Result<(u64, u64), Reason> {
    let (mut trace_id, mut span_id) = (false, false);
    let (mut start_ns, mut end_ns) = (0, 0);
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a => trace_id = id::<16>(&mut rest)?,
            0x12 => span_id = id::<8>(&mut rest)?,
            0x22 => empty_or(&mut rest, 8, Reason::ParentSpanId)?,
            0x39 => start_ns = fixed64(&mut rest)?,
            0x41 => end_ns = fixed64(&mut rest)?,
            0x4a => attribute(&mut rest, SPAN_DEPTH + 1)?,
            0x1a | 0x2a => text(&mut rest)?,
            0x30 | 0x50 | 0x60 | 0x70 => number(&mut rest)?,
            0x5a => event(message(&mut rest)?, SPAN_DEPTH + 1)?,
            0x6a => link(message(&mut rest)?, SPAN_DEPTH + 1)?,
            0x7a => status(message(&mut rest)?)?,
            _ => unknown_in_span(&mut rest)?,
        }
    }
    match (trace_id, span_id) {
        (true, true) => Ok((start_ns, end_ns)),
        (false, _) => Err(Reason::TraceId),
        (true, false) => Err(Reason::SpanId),
    }
}

/// A field of a span that is not one of the first fifteen; `flags` has number 16 and a key of two bytes.
fn unknown_in_span(rest: &mut &[u8]) -> Result<(), Reason> {
    let (number, wire_type) = wire::key(rest)?;
    let expected = match number {
        1..=15 => return Err(Reason::WireType),
        16 => FIXED32,
        _ => wire_type,
    };
    if wire_type != expected {
        return Err(Reason::WireType);
    }
    wire::skip(rest, wire_type)
}

fn event(mut rest: &[u8], depth: u32) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x09 => fixed64(&mut rest).map(drop)?,
            0x12 => text(&mut rest)?,
            0x1a => attribute(&mut rest, depth + 1)?,
            0x20 => number(&mut rest)?,
            _ => unknown(&mut rest, &[1, 2, 3, 4])?,
        }
    }
    Ok(())
}

fn link(mut rest: &[u8], depth: u32) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a => empty_or(&mut rest, 16, Reason::LinkId)?,
            0x12 => empty_or(&mut rest, 8, Reason::LinkId)?,
            0x1a => text(&mut rest)?,
            0x22 => attribute(&mut rest, depth + 1)?,
            0x28 => number(&mut rest)?,
            0x35 => {
                rest = &rest[1..];
                wire::fixed::<4>(&mut rest)?;
            }
            _ => unknown(&mut rest, &[1, 2, 3, 4, 5, 6])?,
        }
    }
    Ok(())
}

fn status(mut rest: &[u8]) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x12 => text(&mut rest)?,
            0x18 => number(&mut rest)?,
            _ => unknown(&mut rest, &[2, 3])?,
        }
    }
    Ok(())
}

fn resource(mut rest: &[u8], depth: u32) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a => attribute(&mut rest, depth + 1)?,
            0x10 => number(&mut rest)?,
            0x1a => entity(message(&mut rest)?)?,
            _ => unknown(&mut rest, &[1, 2, 3])?,
        }
    }
    Ok(())
}

/// An `EntityRef`: schema URL, type, keys of the identifying and of the describing attributes.
fn entity(mut rest: &[u8]) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a | 0x12 | 0x1a | 0x22 => text(&mut rest)?,
            _ => unknown(&mut rest, &[1, 2, 3, 4])?,
        }
    }
    Ok(())
}

fn scope(mut rest: &[u8], depth: u32) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a | 0x12 => text(&mut rest)?,
            0x1a => attribute(&mut rest, depth + 1)?,
            0x20 => number(&mut rest)?,
            _ => unknown(&mut rest, &[1, 2, 3, 4])?,
        }
    }
    Ok(())
}

/// A `KeyValue` field, `depth` being the depth of the `KeyValue` itself. The hot loop: a dozen a span.
#[inline]
fn attribute(rest: &mut &[u8], depth: u32) -> Result<(), Reason> {
    let body = message(rest)?;
    if is_plain_text(body) { Ok(()) } else { key_value(body, depth) }
}

/// Whether a `KeyValue` is a short key and a short text, both ASCII, as encoders write nearly all of them: key, value
/// and lengths are then ASCII as a whole, so that one look at all bytes proves the text and the one-byte lengths.
#[inline]
fn is_plain_text(body: &[u8]) -> bool {
    let &[0x0a, key_bytes, ref rest @ ..] = body else { return false };
    let Some(&[0x12, value_bytes, 0x0a, text_bytes, ref text @ ..]) = rest.get(usize::from(key_bytes)..) else {
        return false;
    };
    usize::from(text_bytes) == text.len() && usize::from(value_bytes) == text.len() + 2 && is_ascii(body)
}

fn key_value(mut rest: &[u8], depth: u32) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a => text(&mut rest)?,
            0x12 => any_value(message(&mut rest)?, depth + 1)?,
            _ => unknown(&mut rest, &[1, 2])?,
        }
    }
    Ok(())
}

fn any_value(mut rest: &[u8], depth: u32) -> Result<(), Reason> {
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a => text(&mut rest)?,
            0x10 | 0x18 => number(&mut rest)?,
            0x21 => fixed64(&mut rest).map(drop)?,
            0x2a => values(message(&mut rest)?, any_value, depth + 1)?,
            0x32 => values(message(&mut rest)?, key_value, depth + 1)?,
            0x3a => message(&mut rest).map(drop)?,
            _ => unknown(&mut rest, &[1, 2, 3, 4, 5, 6, 7])?,
        }
    }
    Ok(())
}

/// An `ArrayValue` or a `KeyValueList`: nothing but elements, each checked by `element`.
fn values(mut rest: &[u8], element: fn(&[u8], u32) -> Result<(), Reason>, depth: u32) -> Result<(), Reason> {
    if depth >= MAX_DEPTH {
        return Err(Reason::TooDeep);
    }
    while let Some(&tag) = rest.first() {
        match tag {
            0x0a => element(message(&mut rest)?, depth + 1)?,
            _ => unknown(&mut rest, &[1])?,
        }
    }
    Ok(())
}

/// The value of a length-delimited field whose key takes one byte.
#[inline]
fn message<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Reason> {
    *rest = &rest[1..];
    wire::chunk(rest)
}

#[inline]
fn text(rest: &mut &[u8]) -> Result<(), Reason> {
    if is_utf8(message(rest)?) { Ok(()) } else { Err(Reason::Utf8) }
}

#[inline]
fn number(rest: &mut &[u8]) -> Result<(), Reason> {
    *rest = &rest[1..];
    wire::varint(rest).map(drop)
}

#[inline]
fn fixed64(rest: &mut &[u8]) -> Result<u64, Reason> {
    *rest = &rest[1..];
    wire::fixed::<8>(rest).map(u64::from_le_bytes)
}

/// Whether an id has its length and a bit that is set; of several the last counts, as protobuf has it.
#[inline]
fn id<const N: usize>(rest: &mut &[u8]) -> Result<bool, Reason> {
    let id = message(rest)?;
    Ok(id.len() == N && id.iter().fold(0, |all, byte| all | byte) != 0)
}

#[inline]
fn empty_or(rest: &mut &[u8], bytes: usize, reason: Reason) -> Result<(), Reason> {
    let id = message(rest)?;
    if id.is_empty() || id.len() == bytes { Ok(()) } else { Err(reason) }
}

/// Passes over a field that the message does not know; one that it does know has come with a wrong wire type.
#[cold]
fn unknown(rest: &mut &[u8], known: &[u32]) -> Result<(), Reason> {
    let (number, wire_type) = wire::key(rest)?;
    if known.contains(&number) {
        return Err(Reason::WireType);
    }
    wire::skip(rest, wire_type)
}

/// UTF-8, fast for the short ASCII strings that names and attributes are: two dozen of them make up a span, and the
/// call into the standard library's validator would cost more than all other checks together.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    is_ascii(bytes) || std::str::from_utf8(bytes).is_ok()
}

#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut seen = 0u64;
    if let Some(last) = bytes.last_chunk::<8>() {
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            seen |= u64::from_le_bytes(*word);
        }
        seen |= u64::from_le_bytes(*last);
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        seen = u64::from(u32::from_le_bytes(*first) | u32::from_le_bytes(*last));
    } else {
        for &byte in bytes {
            seen |= u64::from(byte);
        }
    }
    seen & HIGH == 0
}

#[cfg(test)]
pub(super) mod tests;
