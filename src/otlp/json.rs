//! OTLP/JSON from OTLP protobuf bytes: for destinations that speak nothing else, a cold path.
//!
//! The mapping of the OTLP specification: lowerCamelCase names, trace and span ids in hex, 64-bit integers as strings,
//! enums as integers, other bytes in base64. One table a message type; a field that no table names is left out, as
//! receivers must ignore it anyway. Several payloads become one request, because their concatenation is their merge.
//! Metrics have no tables here: no source of this appliance makes them.

use super::fields::{Fields, Value};
use crate::block::Signal;

/// How a field's value is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Hex,
    Base64,
    Bool,
    Number,
    Text64,
    Double,
    One(&'static [Field]),
    Many(&'static [Field]),
}

/// A field of a message: number, name, and how its value is written.
struct Field(u32, &'static str, Kind);

use Kind::{Base64, Bool, Double, Hex, Many, Number, One, Text, Text64};

static TRACES: [Field; 1] = [Field(1, "resourceSpans", Many(&RESOURCE_SPANS))];
static RESOURCE_SPANS: [Field; 3] =
    [Field(1, "resource", One(&RESOURCE)), Field(2, "scopeSpans", Many(&SCOPE_SPANS)), Field(3, "schemaUrl", Text)];
static RESOURCE: [Field; 2] = [Field(1, "attributes", Many(&KEY_VALUE)), Field(2, "droppedAttributesCount", Number)];
static SCOPE_SPANS: [Field; 3] =
    [Field(1, "scope", One(&SCOPE)), Field(2, "spans", Many(&SPAN)), Field(3, "schemaUrl", Text)];
static SCOPE: [Field; 4] = [
    Field(1, "name", Text),
    Field(2, "version", Text),
    Field(3, "attributes", Many(&KEY_VALUE)),
    Field(4, "droppedAttributesCount", Number),
];
static SPAN: [Field; 16] = [
    Field(1, "traceId", Hex),
    Field(2, "spanId", Hex),
    Field(3, "traceState", Text),
    Field(4, "parentSpanId", Hex),
    Field(16, "flags", Number),
    Field(5, "name", Text),
    Field(6, "kind", Number),
    Field(7, "startTimeUnixNano", Text64),
    Field(8, "endTimeUnixNano", Text64),
    Field(9, "attributes", Many(&KEY_VALUE)),
    Field(10, "droppedAttributesCount", Number),
    Field(11, "events", Many(&EVENT)),
    Field(12, "droppedEventsCount", Number),
    Field(13, "links", Many(&LINK)),
    Field(14, "droppedLinksCount", Number),
    Field(15, "status", One(&STATUS)),
];
static EVENT: [Field; 4] = [
    Field(1, "timeUnixNano", Text64),
    Field(2, "name", Text),
    Field(3, "attributes", Many(&KEY_VALUE)),
    Field(4, "droppedAttributesCount", Number),
];
static LINK: [Field; 6] = [
    Field(1, "traceId", Hex),
    Field(2, "spanId", Hex),
    Field(3, "traceState", Text),
    Field(4, "attributes", Many(&KEY_VALUE)),
    Field(5, "droppedAttributesCount", Number),
    Field(6, "flags", Number),
];
static STATUS: [Field; 2] = [Field(2, "message", Text), Field(3, "code", Number)];
static KEY_VALUE: [Field; 2] = [Field(1, "key", Text), Field(2, "value", One(&ANY_VALUE))];
static ANY_VALUE: [Field; 7] = [
    Field(1, "stringValue", Text),
    Field(2, "boolValue", Bool),
    Field(3, "intValue", Text64),
    Field(4, "doubleValue", Double),
    Field(5, "arrayValue", One(&ARRAY)),
    Field(6, "kvlistValue", One(&KEY_VALUE_LIST)),
    Field(7, "bytesValue", Base64),
];
static ARRAY: [Field; 1] = [Field(1, "values", Many(&ANY_VALUE))];
static KEY_VALUE_LIST: [Field; 1] = [Field(1, "values", Many(&KEY_VALUE))];

static LOGS: [Field; 1] = [Field(1, "resourceLogs", Many(&RESOURCE_LOGS))];
static RESOURCE_LOGS: [Field; 3] =
    [Field(1, "resource", One(&RESOURCE)), Field(2, "scopeLogs", Many(&SCOPE_LOGS)), Field(3, "schemaUrl", Text)];
static SCOPE_LOGS: [Field; 3] =
    [Field(1, "scope", One(&SCOPE)), Field(2, "logRecords", Many(&LOG_RECORD)), Field(3, "schemaUrl", Text)];
static LOG_RECORD: [Field; 11] = [
    Field(1, "timeUnixNano", Text64),
    Field(11, "observedTimeUnixNano", Text64),
    Field(2, "severityNumber", Number),
    Field(3, "severityText", Text),
    Field(5, "body", One(&ANY_VALUE)),
    Field(6, "attributes", Many(&KEY_VALUE)),
    Field(7, "droppedAttributesCount", Number),
    Field(8, "flags", Number),
    Field(9, "traceId", Hex),
    Field(10, "spanId", Hex),
    Field(12, "eventName", Text),
];

/// Whether requests of this signal can be written as JSON.
#[must_use]
pub fn knows(signal: Signal) -> bool {
    request(signal).is_some()
}

/// Appends the request that `payloads` make together, as JSON. Panics on a signal that it does not [know](knows).
pub fn encode(signal: Signal, payloads: &[&[u8]], out: &mut Vec<u8>) {
    let table = request(signal).expect("the caller asked whether the signal is known");
    message(table, payloads, out);
}

/// Appends a `Span.Event` as JSON.
pub(super) fn event(body: &[u8], out: &mut Vec<u8>) {
    message(&EVENT, &[body], out);
}

/// Appends a `Span.Link` as JSON.
pub(super) fn link(body: &[u8], out: &mut Vec<u8>) {
    message(&LINK, &[body], out);
}

fn request(signal: Signal) -> Option<&'static [Field]> {
    match signal {
        Signal::Traces => Some(&TRACES),
        Signal::Logs => Some(&LOGS),
        Signal::Metrics => None,
    }
}

/// Writes one message whose bytes lie in several pieces. Each field is looked for on its own: that reads the lengths of a
/// message once a field, and needs no memory to bring repeated fields together.
fn message(table: &[Field], pieces: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'{');
    let mut comma = false;
    for Field(number, name, kind) in table {
        let number = *number;
        let values = pieces.iter().flat_map(|piece| Fields::of(piece)).filter(move |field| field.number == number);
        let mut values = values.map(|field| field.value).peekable();
        if values.peek().is_none() {
            continue;
        }
        if comma {
            out.push(b',');
        }
        comma = true;
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        match kind {
            Many(table) => {
                out.push(b'[');
                for (index, value) in values.enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    message(table, &[value.bytes()], out);
                }
                out.push(b']');
            }
            One(table) => message(table, &values.map(Value::bytes).collect::<Vec<_>>(), out),
            scalar => write_scalar(*scalar, values.last().expect("one was peeked at"), out),
        }
    }
    out.push(b'}');
}

fn write_scalar(kind: Kind, value: Value<'_>, out: &mut Vec<u8>) {
    match kind {
        Text => json_text(&String::from_utf8_lossy(value.bytes()), out),
        Hex => {
            out.push(b'"');
            out.extend(
                value.bytes().iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
            );
            out.push(b'"');
        }
        Base64 => base64(value.bytes(), out),
        Bool => out.extend_from_slice(if value.number() == 0 { b"false" } else { b"true" }),
        // Enums and 32-bit integers: a negative enum is sign-extended on the wire.
        Number => out.extend_from_slice(value.number().cast_signed().to_string().as_bytes()),
        Text64 => {
            let text = match value {
                Value::Varint(value) => value.cast_signed().to_string(),
                other => other.number().to_string(),
            };
            json_text(&text, out);
        }
        Double => double(f64::from_bits(value.number()), out),
        One(_) | Many(_) => unreachable!("messages are written by their table"),
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) fn json_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// Protobuf's JSON mapping has words for what JSON numbers cannot say.
pub(super) fn double(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        serde_json::to_writer(out, &value).expect("writing to memory does not fail");
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    }
}

/// RFC 4648 section 4, with padding.
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for group in bytes.chunks(3) {
        let (a, b, c) = (group[0], group.get(1).copied(), group.get(2).copied());
        let bits = u32::from(a) << 16 | u32::from(b.unwrap_or(0)) << 8 | u32::from(c.unwrap_or(0));
        let digit = |shift: u32| ALPHABET[(bits >> shift & 63) as usize];
        out.extend([digit(18), digit(12), b.map_or(b'=', |_| digit(6)), c.map_or(b'=', |_| digit(0))]);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;
