//! Rows that make no span, passed on as OTLP log records: the row as it was sent is the body.
//!
//! Nothing is mapped: what such a row means is for the reader to say. Its sourcetype is an attribute, its event time
//! the record's time.

use super::attributes::cut;
use super::blocks::{Item, Resource};
use super::encoder::{Output, RowContext};
use super::fields::{self, TEXT_CAP_BYTES};
use crate::otlp::keys;
use crate::otlp::writer::{Key, varint_bytes};

static SOURCETYPE: Key = Key::new(keys::SOURCETYPE);

/// `LogRecord.attributes`.
const LOG_ATTRIBUTE: u8 = 0x32;

/// Bytes at which bodies are cut.
const BODY_CAP_BYTES: usize = 256 * 1024;

/// Encodes a row; the number of fields left out, which is none.
pub(crate) fn encode(row: RowContext<'_>, out: &mut Output) -> u32 {
    let named = row.view.text(fields::SOURCETYPE).filter(|name| !name.is_empty());
    let sourcetype = named.unwrap_or(row.sourcetype.name().as_bytes());
    let sourcetype = cut(sourcetype, TEXT_CAP_BYTES);
    let body = cut(row.raw, BODY_CAP_BYTES);
    let time_ns = row.event_ns.unwrap_or(row.received_ns);
    let writer = &mut out.writer;
    writer.clear();
    writer.fixed64_field(0x09, time_ns); // LogRecord.time_unix_nano
    writer.raw([0x10, 9]); // LogRecord.severity_number: INFO
    writer.raw([0x2a]); // LogRecord.body
    writer.varint((1 + varint_bytes(body.len() as u64) + body.len()) as u64);
    writer.bytes_field(0x0a, body); // AnyValue.string_value
    writer.text_attribute(LOG_ATTRIBUTE, &SOURCETYPE, sourcetype);
    writer.fixed64_field(0x59, row.received_ns); // LogRecord.observed_time_unix_nano
    let bytes = out.writer.as_bytes();
    let item = Item { bytes, start_ns: time_ns, end_ns: time_ns, records: 1, received_ns: row.received_ns };
    out.logs.append(Resource { host: row.host, service: b"uberagent", session: None }, item);
    0
}
