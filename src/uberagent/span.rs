//! Writes the fixed part of a span: ids, name, times; and the attributes that every mapping adds.
//!
//! The parent id stands at a fixed place and the resolution of the parent has a fixed width, so both can be patched in
//! the open block once the rows decoded together are known: the shorter words get a longer (padded) length varint.

use super::attributes::{SPAN_ATTRIBUTE, cut};
use super::parents::Parent;
use super::times::Base;
use crate::otlp::keys;
use crate::otlp::writer::{Key, Writer};

static PARENT_RESOLUTION: Key = Key::new(keys::PARENT_RESOLUTION);
static TIME_BASE: Key = Key::new(keys::TIME_BASE);
static RECEIVED_MS: Key = Key::new(keys::RECEIVED_MS);
static SESSION_ID: Key = Key::new(keys::SESSION_ID);

/// Bytes at which span names are cut.
const NAME_CAP_BYTES: usize = 256;

/// Where the parent id of a span begins: behind the trace id, the span id and its own tag and length.
const PARENT_ID_OFFSET: usize = 18 + 10 + 2;

/// `AnyValue`s of one width, see the module.
const TOGETHER: [u8; 10] = *b"\x0a\x08together";
const TABLE: [u8; 10] = *b"\x0a\x85\x80\x80\x00table";
const ROOT: [u8; 10] = *b"\x0a\x84\x80\x80\x80\x00root";

/// `Span.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// `SPAN_KIND_INTERNAL`.
    Internal = 1,
    /// `SPAN_KIND_CLIENT`.
    Client = 3,
}

/// The fixed part of a span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent_id: Option<[u8; 8]>,
    pub name: &'a [u8],
    pub kind: SpanKind,
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Head<'_> {
    /// Begins a span in an empty writer.
    #[inline]
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.clear();
        writer.raw([0x0a, 16]); // Span.trace_id
        writer.raw(self.trace_id);
        writer.raw([0x12, 8]); // Span.span_id
        writer.raw(self.span_id);
        if let Some(parent_id) = self.parent_id {
            writer.raw([0x22, 8]); // Span.parent_span_id
            writer.raw(parent_id);
        }
        writer.bytes_field(0x2a, cut(self.name, NAME_CAP_BYTES)); // Span.name
        writer.raw([0x30, self.kind as u8]); // Span.kind
        writer.fixed64_field(0x39, self.start_ns); // Span.start_time_unix_nano
        writer.fixed64_field(0x41, self.end_ns); // Span.end_time_unix_nano
    }
}

/// Writes the resolution of a parent that is still the root; returns where [`patch_parent`] finds it.
#[inline]
pub(crate) fn write_resolution(writer: &mut Writer) -> usize {
    writer.encoded_attribute(SPAN_ATTRIBUTE, &PARENT_RESOLUTION, ROOT)
}

/// Gives a span with a parent, and a resolution at `resolution`, the parent that was found.
#[inline]
pub(crate) fn patch_parent(span: &mut [u8], resolution: usize, parent: Parent) {
    span[PARENT_ID_OFFSET..PARENT_ID_OFFSET + 8].copy_from_slice(&parent.span_id);
    span[resolution..resolution + 10].copy_from_slice(if parent.together { &TOGETHER } else { &TABLE });
}

/// Writes what times were counted from, unless it is the `usual` of such spans.
#[inline]
pub(crate) fn write_base(writer: &mut Writer, base: Base, usual: Base) {
    if base != usual {
        writer.text_attribute(SPAN_ATTRIBUTE, &TIME_BASE, base.name().as_bytes());
    }
}

/// Writes when the row was received.
#[expect(clippy::cast_possible_wrap, reason = "2^64 nanoseconds are few milliseconds")]
pub(crate) fn write_received(writer: &mut Writer, received_ns: u64) {
    writer.int_attribute(SPAN_ATTRIBUTE, &RECEIVED_MS, (received_ns / 1_000_000) as i64);
}

/// Writes the session's GUID.
pub(crate) fn write_session_id(writer: &mut Writer, guid: &[u8; 36]) {
    writer.text_attribute(SPAN_ATTRIBUTE, &SESSION_ID, guid);
}

/// Writes a link to another span.
pub(crate) fn write_link(writer: &mut Writer, trace_id: [u8; 16], span_id: [u8; 8]) {
    writer.raw([0x6a, 28, 0x0a, 16]); // Span.links, Link.trace_id
    writer.raw(trace_id);
    writer.raw([0x12, 8]); // Link.span_id
    writer.raw(span_id);
}

/// Writes `Span.status` with the code ERROR.
pub(crate) fn write_error(writer: &mut Writer) {
    writer.raw([0x7a, 2, 0x18, 2]);
}

/// Writes a boolean attribute that is only there when it is true.
pub(crate) fn write_flag(writer: &mut Writer, key: &Key) {
    writer.bool_attribute(SPAN_ATTRIBUTE, key, true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    fn head(name: &[u8]) -> Head<'_> {
        let (trace_id, span_id) = ([1; 16], [2; 8]);
        let kind = SpanKind::Internal;
        Head { trace_id, span_id, parent_id: Some([3; 8]), name, kind, start_ns: 4, end_ns: 5 }
    }

    #[test]
    fn a_parent_is_patched_where_it_stands() {
        let words = [(None, "root"), (Some(true), "together"), (Some(false), "table")];
        for (together, word) in words {
            let mut writer = Writer::new(0);
            head(b"svchost.exe").write(&mut writer);
            let resolution = write_resolution(&mut writer);
            write_link(&mut writer, [8; 16], [9; 8]);
            write_error(&mut writer);
            let mut bytes = writer.as_bytes().to_vec();
            if let Some(together) = together {
                patch_parent(&mut bytes, resolution, Parent { span_id: [7; 8], together });
            }
            let span = Span::decode(&bytes[..]).unwrap();
            let parent = if together.is_some() { [7; 8] } else { [3; 8] };
            assert_eq!((span.parent_span_id, span.name.as_str()), (parent.to_vec(), "svchost.exe"));
            assert_eq!(format!("{:?}", span.attributes[0].value.as_ref().unwrap()).matches(word).count(), 1);
            assert_eq!((span.links[0].span_id.clone(), span.status.unwrap().code), (vec![9; 8], 2));
        }
    }
}
