//! OTLP's JSON mapping of a traces request, to protobuf: the cold path for browsers and scripts.
//!
//! The text becomes a tree, the tree becomes protobuf bytes by one table a message, and [`check`](super::check) has the last
//! word over the result, as over any other. The mapping is the specification's: lowerCamelCase names only, ids in hex,
//! other bytes in base64, 64-bit integers as strings or numbers, enums as integers, unknown fields passed over. Ids
//! that are not hex become empty, which the check reports as a bad span.

use serde_json::{Map, Value};

use super::writer::push_bytes_field;

/// Text that is not a traces request in OTLP's JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonFault {
    /// Not JSON at all; the JSON parser says where.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// A field with a value of another kind.
    #[error("field {0} has a value that is not of its kind")]
    Kind(&'static str),
    /// Another thing than an object where a message belongs.
    #[error("a message is not an object")]
    NotAnObject,
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Hex,
    Base64,
    /// uint32, int64 or an enum: a varint.
    Varint,
    Bool,
    Fixed32,
    Fixed64,
    Double,
    Message(Shape),
    /// Repeated.
    Messages(Shape),
}

/// The messages of a traces request.
#[derive(Clone, Copy)]
enum Shape {
    Request,
    ResourceSpans,
    Resource,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    Status,
    KeyValue,
    AnyValue,
    Array,
    Map,
}

impl Shape {
    fn entries(self) -> &'static [Entry] {
        match self {
            Shape::Request => REQUEST,
            Shape::ResourceSpans => RESOURCE_SPANS,
            Shape::Resource => RESOURCE,
            Shape::ScopeSpans => SCOPE_SPANS,
            Shape::Scope => SCOPE,
            Shape::Span => SPAN,
            Shape::Event => EVENT,
            Shape::Link => LINK,
            Shape::Status => STATUS,
            Shape::KeyValue => KEY_VALUE,
            Shape::AnyValue => ANY_VALUE,
            Shape::Array => ARRAY,
            Shape::Map => MAP,
        }
    }
}

struct Entry {
    name: &'static str,
    number: u8,
    kind: Kind,
}

const fn entry(name: &'static str, number: u8, kind: Kind) -> Entry {
    Entry { name, number, kind }
}

static REQUEST: &[Entry] = &[entry("resourceSpans", 1, Kind::Messages(Shape::ResourceSpans))];
static RESOURCE_SPANS: &[Entry] = &[
    entry("resource", 1, Kind::Message(Shape::Resource)),
    entry("scopeSpans", 2, Kind::Messages(Shape::ScopeSpans)),
    entry("schemaUrl", 3, Kind::Text),
];
static RESOURCE: &[Entry] =
    &[entry("attributes", 1, Kind::Messages(Shape::KeyValue)), entry("droppedAttributesCount", 2, Kind::Varint)];
static SCOPE_SPANS: &[Entry] = &[
    entry("scope", 1, Kind::Message(Shape::Scope)),
    entry("spans", 2, Kind::Messages(Shape::Span)),
    entry("schemaUrl", 3, Kind::Text),
];
static SCOPE: &[Entry] = &[
    entry("name", 1, Kind::Text),
    entry("version", 2, Kind::Text),
    entry("attributes", 3, Kind::Messages(Shape::KeyValue)),
    entry("droppedAttributesCount", 4, Kind::Varint),
];
static SPAN: &[Entry] = &[
    entry("traceId", 1, Kind::Hex),
    entry("spanId", 2, Kind::Hex),
    entry("traceState", 3, Kind::Text),
    entry("parentSpanId", 4, Kind::Hex),
    entry("name", 5, Kind::Text),
    entry("kind", 6, Kind::Varint),
    entry("startTimeUnixNano", 7, Kind::Fixed64),
    entry("endTimeUnixNano", 8, Kind::Fixed64),
    entry("attributes", 9, Kind::Messages(Shape::KeyValue)),
    entry("droppedAttributesCount", 10, Kind::Varint),
    entry("events", 11, Kind::Messages(Shape::Event)),
    entry("droppedEventsCount", 12, Kind::Varint),
    entry("links", 13, Kind::Messages(Shape::Link)),
    entry("droppedLinksCount", 14, Kind::Varint),
    entry("status", 15, Kind::Message(Shape::Status)),
    entry("flags", 16, Kind::Fixed32),
];
static EVENT: &[Entry] = &[
    entry("timeUnixNano", 1, Kind::Fixed64),
    entry("name", 2, Kind::Text),
    entry("attributes", 3, Kind::Messages(Shape::KeyValue)),
    entry("droppedAttributesCount", 4, Kind::Varint),
];
static LINK: &[Entry] = &[
    entry("traceId", 1, Kind::Hex),
    entry("spanId", 2, Kind::Hex),
    entry("traceState", 3, Kind::Text),
    entry("attributes", 4, Kind::Messages(Shape::KeyValue)),
    entry("droppedAttributesCount", 5, Kind::Varint),
    entry("flags", 6, Kind::Fixed32),
];
static STATUS: &[Entry] = &[entry("message", 2, Kind::Text), entry("code", 3, Kind::Varint)];
static KEY_VALUE: &[Entry] = &[entry("key", 1, Kind::Text), entry("value", 2, Kind::Message(Shape::AnyValue))];
static ANY_VALUE: &[Entry] = &[
    entry("stringValue", 1, Kind::Text),
    entry("boolValue", 2, Kind::Bool),
    entry("intValue", 3, Kind::Varint),
    entry("doubleValue", 4, Kind::Double),
    entry("arrayValue", 5, Kind::Message(Shape::Array)),
    entry("kvlistValue", 6, Kind::Message(Shape::Map)),
    entry("bytesValue", 7, Kind::Base64),
];
static ARRAY: &[Entry] = &[entry("values", 1, Kind::Messages(Shape::AnyValue))];
static MAP: &[Entry] = &[entry("values", 1, Kind::Messages(Shape::KeyValue))];

/// Appends the protobuf bytes of an `ExportTraceServiceRequest` in JSON to `out`. They still have to be checked.
pub fn traces(json: &[u8], out: &mut Vec<u8>) -> Result<(), JsonFault> {
    message(&serde_json::from_slice(json)?, Shape::Request, out)
}

fn message(value: &Value, shape: Shape, out: &mut Vec<u8>) -> Result<(), JsonFault> {
    let Value::Object(object) = value else { return Err(JsonFault::NotAnObject) };
    shape.entries().iter().try_for_each(|entry| field(object, entry, out))
}

fn field(object: &Map<String, Value>, entry: &'static Entry, out: &mut Vec<u8>) -> Result<(), JsonFault> {
    let value = match object.get(entry.name) {
        None | Some(Value::Null) => return Ok(()),
        Some(value) => value,
    };
    let wrong = || JsonFault::Kind(entry.name);
    match entry.kind {
        Kind::Text => push_bytes_field(out, key(entry, 2), value.as_str().ok_or_else(wrong)?.as_bytes()),
        Kind::Hex => push_bytes_field(out, key(entry, 2), &hex(value.as_str().ok_or_else(wrong)?)),
        Kind::Base64 => {
            let bytes = value.as_str().and_then(base64).ok_or_else(wrong)?;
            push_bytes_field(out, key(entry, 2), &bytes);
        }
        Kind::Varint => {
            out.push(key(entry, 0));
            prost::encoding::encode_varint(integer(value).ok_or_else(wrong)?, out);
        }
        Kind::Bool => out.extend_from_slice(&[key(entry, 0), u8::from(value.as_bool().ok_or_else(wrong)?)]),
        Kind::Fixed64 => {
            out.push(key(entry, 1));
            out.extend_from_slice(&integer(value).ok_or_else(wrong)?.to_le_bytes());
        }
        Kind::Fixed32 => {
            let flags = integer(value).and_then(|value| u32::try_from(value).ok()).ok_or_else(wrong)?;
            prost::encoding::fixed32::encode(u32::from(entry.number), &flags, out);
        }
        Kind::Double => {
            out.push(key(entry, 1));
            out.extend_from_slice(&double(value).ok_or_else(wrong)?.to_le_bytes());
        }
        Kind::Message(shape) => nested(value, entry, shape, out)?,
        Kind::Messages(shape) => {
            let Value::Array(values) = value else { return Err(wrong()) };
            values.iter().try_for_each(|value| nested(value, entry, shape, out))?;
        }
    }
    Ok(())
}

fn nested(value: &Value, entry: &Entry, shape: Shape, out: &mut Vec<u8>) -> Result<(), JsonFault> {
    out.push(key(entry, 2));
    let start = out.len();
    message(value, shape, out)?;
    // The length is known only now: it is written behind the message and turned to its front.
    let length = out.len() - start;
    prost::encoding::encode_varint(length as u64, out);
    let length_bytes = out.len() - start - length;
    out[start..].rotate_right(length_bytes);
    Ok(())
}

/// The key of a field below 16, the only one above being `flags`.
fn key(entry: &Entry, wire_type: u8) -> u8 {
    debug_assert!(entry.number < 16, "{} has a key of two bytes", entry.name);
    entry.number << 3 | wire_type
}

/// An integer in the two's complement that protobuf's varints are.
fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned)),
        Value::String(text) => text.parse().ok().or_else(|| text.parse().ok().map(i64::cast_unsigned)),
        _ => None,
    }
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// The bytes of hex digits; empty when they are none.
fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect::<Option<Vec<u8>>>();
    bytes.filter(|_| odd.is_empty()).unwrap_or_default()
}

/// The bytes of base64 text, either alphabet, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in chunk {
            bits = bits << 6 | u32::from(sextet(digit)?);
        }
        bits <<= 6 * (4 - chunk.len());
        let bytes = bits.to_be_bytes();
        match chunk.len() {
            1 => return None,
            length => out.extend_from_slice(&bytes[1..length]),
        }
    }
    Some(out)
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use prost::Message;

    use super::*;

    /// The example of the specification's repository, with a value of every kind.
    const EXAMPLE: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},
        "scopeSpans":[{"scope":{"name":"my.library","version":"1.0.0","unknown":[1]},"spans":[{
        "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"EEE19B7EC3C1B173",
        "name":"I'm a server span","startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,"kind":2,"flags":257,
        "status":{"code":2,"message":"no"},"links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}],
        "events":[{"timeUnixNano":"7","name":"e"}],"attributes":[
        {"key":"s","value":{"stringValue":"some value"}},{"key":"i","value":{"intValue":"-12"}},{"key":"j","value":{"intValue":12}},
        {"key":"b","value":{"boolValue":true}},{"key":"d","value":{"doubleValue":1.5}},{"key":"x","value":{"bytesValue":"aGk="}},
        {"key":"a","value":{"arrayValue":{"values":[{"intValue":1},{"stringValue":"t"}]}}},
        {"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"intValue":"1"}}]}}}]}]}]}]}"#;

    #[test]
    fn every_kind_of_value_arrives() {
        let mut out = Vec::new();
        traces(EXAMPLE.as_bytes(), &mut out).unwrap();
        assert_eq!(crate::otlp::check::check(&out).unwrap().summary.spans, 1);
        let request = ExportTraceServiceRequest::decode(out.as_slice()).unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(span.trace_id[..2], [0x5b, 0x8e]);
        assert_eq!(span.parent_span_id.len(), 8);
        assert_eq!((span.kind, span.flags), (2, 257));
        assert_eq!(
            (span.start_time_unix_nano, span.end_time_unix_nano),
            (1_544_712_660_000_000_000, 1_544_712_661_000_000_000)
        );
        assert_eq!(span.status.as_ref().unwrap().code, 2);
        let values: Vec<_> = span.attributes.iter().map(|a| a.value.clone().unwrap().value.unwrap()).collect();
        assert_eq!(values[1], Any::IntValue(-12));
        assert_eq!(values[2], Any::IntValue(12));
        assert_eq!(values[3], Any::BoolValue(true));
        assert_eq!(values[4], Any::DoubleValue(1.5));
        assert_eq!(values[5], Any::BytesValue(b"hi".to_vec()));
        assert!(matches!(&values[6], Any::ArrayValue(array) if array.values.len() == 2));
        assert!(matches!(&values[7], Any::KvlistValue(map) if map.values[0].key == "k"));
    }

    #[test]
    fn ids_in_base64_are_bad_spans_and_wrong_kinds_are_faults() {
        let mut out = Vec::new();
        let json = EXAMPLE.replace("5B8EFFF798038103D269B633813FC60C", "W47/95gDgQPSabYzgT/GDA==");
        traces(json.as_bytes(), &mut out).unwrap();
        assert_eq!(crate::otlp::check::check(&out).unwrap().cut_out.unwrap().spans, 1);
        for (from, to) in [
            ("\"kind\":2", "\"kind\":\"SPAN_KIND_SERVER\""),
            ("\"my.library\"", "7"),
            ("[{\"resource\"", "{\"x\":[{\"resource\""),
        ] {
            assert!(traces(EXAMPLE.replace(from, to).as_bytes(), &mut Vec::new()).is_err(), "{to}");
        }
    }

    #[test]
    fn a_message_of_megabytes_keeps_its_length() {
        let long = "x".repeat(5 << 20);
        let mut out = Vec::new();
        traces(EXAMPLE.replace("some value", &long).as_bytes(), &mut out).unwrap();
        let request = ExportTraceServiceRequest::decode(out.as_slice()).unwrap();
        let value = request.resource_spans[0].scope_spans[0].spans[0].attributes[0].value.clone().unwrap();
        assert_eq!(value.value, Some(Any::StringValue(long)));
    }
}
