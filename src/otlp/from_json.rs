//! OTLP's JSON mapping of a traces request, to protobuf: the cold path for browsers and scripts.
//!
//! The text is read once, front to back, and written as protobuf bytes by one table a message: no tree is built, for one
//! would take many times the text (`0,` is two bytes, a node of a tree thirty). [`check`](super::check) has the last word
//! over the result, as over any other. The mapping is the specification's: lowerCamelCase names only, ids in hex,
//! other bytes in base64, 64-bit integers as strings or numbers, enums as integers, unknown fields passed over. Ids
//! that are not hex become empty, which the check reports as a bad span.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::writer::push_bytes_field;

/// Text that is not a traces request in OTLP's JSON: what is wrong, and at which line and column.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct JsonFault(#[from] serde_json::Error);

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

/// Appends the protobuf bytes of an `ExportTraceServiceRequest` in JSON to `out`: not more than the text has. They still
/// have to be checked.
pub fn traces(json: &[u8], out: &mut Vec<u8>) -> Result<(), JsonFault> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    MessageSeed { shape: Shape::Request, out }.deserialize(&mut reader)?;
    Ok(reader.end()?)
}

/// Appends the field `name` of a span, which is a list of messages (`events`, `links`), given as a JSON array of them: not
/// more bytes than the text has. They still have to be checked.
pub(super) fn list_of_span(name: &str, json: &[u8], out: &mut Vec<u8>) -> Result<(), JsonFault> {
    let entry = SPAN.iter().find(|entry| entry.name == name).expect("spans have such a list");
    let mut reader = serde_json::Deserializer::from_slice(json);
    FieldSeed { entry, out }.deserialize(&mut reader)?;
    Ok(reader.end()?)
}

/// Writes the fields of an object.
struct MessageSeed<'a> {
    shape: Shape,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object for a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(name) = object.next_key::<Cow<'_, str>>()? {
            match self.shape.entries().iter().find(|entry| entry.name == name) {
                Some(entry) => object.next_value_seed(FieldSeed { entry, out: self.out })?,
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Writes one field; nothing for `null`.
struct FieldSeed<'a> {
    entry: &'static Entry,
    out: &'a mut Vec<u8>,
}

impl FieldSeed<'_> {
    /// Writes a nested message whose fields `fields` writes.
    fn nested<E>(self, shape: Shape, fields: impl FnOnce(MessageSeed<'_>) -> Result<(), E>) -> Result<(), E> {
        let FieldSeed { entry, out } = self;
        out.push(key(entry, 2));
        let start = out.len();
        fields(MessageSeed { shape, out })?;
        // The length is known only now: it is written behind the message and turned to its front.
        let length = out.len() - start;
        prost::encoding::encode_varint(length as u64, out);
        let length_bytes = out.len() - start - length;
        out[start..].rotate_right(length_bytes);
        Ok(())
    }

    /// Writes an integer, given in the two's complement that protobuf's varints are.
    fn integer<E: Error>(self, value: u64) -> Result<(), E> {
        let FieldSeed { entry, out } = self;
        match entry.kind {
            Kind::Varint => {
                out.push(key(entry, 0));
                prost::encoding::encode_varint(value, out);
            }
            Kind::Fixed64 => {
                out.push(key(entry, 1));
                out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Fixed32 => {
                let value = u32::try_from(value).map_err(|_| wrong(entry))?;
                prost::encoding::fixed32::encode(u32::from(entry.number), &value, out);
            }
            _ => return Err(wrong(entry)),
        }
        Ok(())
    }
}

/// A value that is not of its field's kind.
fn wrong<E: Error>(entry: &Entry) -> E {
    E::custom(format_args!("field {} has a value that is not of its kind", entry.name))
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for field {}", self.entry.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let Kind::Bool = self.entry.kind else { return Err(wrong(self.entry)) };
        self.out.extend_from_slice(&[key(self.entry, 0), u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "what JSON's readers do with a double written as an integer")]
        if let Kind::Double = self.entry.kind { self.visit_f64(value as f64) } else { self.integer(value) }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        if let Kind::Double = self.entry.kind {
            self.visit_f64(value as f64)
        } else {
            self.integer(value.cast_unsigned())
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let Kind::Double = self.entry.kind else { return Err(wrong(self.entry)) };
        self.out.push(key(self.entry, 1));
        self.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let FieldSeed { entry, out } = self;
        match entry.kind {
            Kind::Text => push_bytes_field(out, key(entry, 2), text.as_bytes()),
            Kind::Hex => push_bytes_field(out, key(entry, 2), &hex(text)),
            Kind::Base64 => push_bytes_field(out, key(entry, 2), &base64(text).ok_or_else(|| wrong(entry))?),
            Kind::Double => return FieldSeed { entry, out }.visit_f64(text.parse().map_err(|_| wrong(entry))?),
            Kind::Varint | Kind::Fixed32 | Kind::Fixed64 => {
                let integer = text.parse().or_else(|_| text.parse().map(i64::cast_unsigned));
                return FieldSeed { entry, out }.integer(integer.map_err(|_| wrong(entry))?);
            }
            Kind::Bool | Kind::Message(_) | Kind::Messages(_) => return Err(wrong(entry)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        let Kind::Message(shape) = self.entry.kind else { return Err(wrong(self.entry)) };
        self.nested(shape, |message| message.visit_map(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let FieldSeed { entry, out } = self;
        let Kind::Messages(_) = entry.kind else { return Err(wrong(entry)) };
        while values.next_element_seed(ElementSeed { entry, out })?.is_some() {}
        Ok(())
    }
}

/// Writes one message of a repeated field.
struct ElementSeed<'a> {
    entry: &'static Entry,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let ElementSeed { entry, out } = self;
        let Kind::Messages(shape) = entry.kind else { return Err(wrong(entry)) };
        FieldSeed { entry, out }.nested(shape, |message| message.deserialize(reader))
    }
}

/// The key of a field below 16, the only one above being `flags`.
fn key(entry: &Entry, wire_type: u8) -> u8 {
    debug_assert!(entry.number < 16, "{} has a key of two bytes", entry.name);
    entry.number << 3 | wire_type
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
        {"key":"b","value":{"boolValue":true}},{"key":"d","value":{"doubleValue":-7.430360533928741e-274}},{"key":"x","value":{"bytesValue":"aGk="}},
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
        assert_eq!(values[4], Any::DoubleValue(-7.430360533928741e-274), "to the last bit");
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
    fn the_order_of_fields_and_repeated_names_change_nothing_of_the_meaning() {
        let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[null]}]}]}"#;
        assert!(traces(json.as_bytes(), &mut Vec::new()).is_err(), "a span is an object");
        let json = r#"{"resourceSpans":null,"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a","kind":1,"name":"b"}],
            "scope":{"name":"s"}}],"x":{"y":[{}]}}]} "#;
        let mut out = Vec::new();
        traces(json.as_bytes(), &mut out).unwrap();
        let request = ExportTraceServiceRequest::decode(out.as_slice()).unwrap();
        let scope_spans = &request.resource_spans[0].scope_spans[0];
        assert_eq!((scope_spans.spans[0].name.as_str(), scope_spans.spans[0].kind), ("b", 1));
        assert_eq!(scope_spans.scope.as_ref().unwrap().name, "s");
        let error = traces(b"{\"resourceSpans\":[{\"schemaUrl\":7}]}", &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("schemaUrl") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn depth_costs_no_stack() {
        let unknown = format!("{{\"x\":{}1{}}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        traces(unknown.as_bytes(), &mut Vec::new()).unwrap();
        let (open, close) = ("{\"arrayValue\":{\"values\":[", "]}}");
        let value = format!("{}{}", open.repeat(1 << 16), close.repeat(1 << 16));
        let json = EXAMPLE.replace("{\"stringValue\":\"my.service\"}", &value);
        let error = traces(json.as_bytes(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("recursion limit exceeded"), "{error}");
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
