//! Borrowed views over checked OTLP trace bytes, for whoever must look inside.
//!
//! A view reads when it is asked and keeps nothing: `Span::trace_id` walks to the id (the first field, as every encoder
//! writes it), [`Span::read`] reads all plain fields in one pass. Attributes are iterators. Given bytes that never
//! passed the check a view sees less; it does not panic.

use super::fields::{Field, Fields, Value};
use super::ids::{SpanId, TraceId};

/// The `ResourceSpans` of a payload.
pub fn resource_spans(payload: &[u8]) -> impl Iterator<Item = ResourceSpans<'_>> {
    messages(payload, 1).map(ResourceSpans)
}

/// Every span of a payload with what it came in.
pub fn spans(payload: &[u8]) -> impl Iterator<Item = (ResourceSpans<'_>, ScopeSpans<'_>, Span<'_>)> {
    resource_spans(payload).flat_map(|resource| {
        resource.scope_spans().flat_map(move |scope| scope.spans().map(move |span| (resource, scope, span)))
    })
}

/// Spans of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceSpans<'a>(&'a [u8]);

impl<'a> ResourceSpans<'a> {
    /// The resource's attributes.
    pub fn attributes(self) -> impl Iterator<Item = Attribute<'a>> {
        messages(self.0, 1).flat_map(|resource| messages(resource, 1)).map(Attribute::read)
    }

    /// Its spans by scope.
    pub fn scope_spans(self) -> impl Iterator<Item = ScopeSpans<'a>> {
        messages(self.0, 2).map(ScopeSpans)
    }
}

/// Spans of one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeSpans<'a>(&'a [u8]);

impl<'a> ScopeSpans<'a> {
    /// The scope's name; empty when it has none.
    #[must_use]
    pub fn name(self) -> &'a str {
        let fields = messages(self.0, 1).flat_map(Fields::of);
        fields.filter(|field| field.number == 1).last().map_or("", |field| field.value.text())
    }

    /// Its spans.
    pub fn spans(self) -> impl Iterator<Item = Span<'a>> {
        messages(self.0, 2).map(Span)
    }
}

/// One span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'a>(&'a [u8]);

/// The plain fields of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanFields<'a> {
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Itself.
    pub span_id: Option<SpanId>,
    /// Its parent; `None` for a root.
    pub parent_span_id: Option<SpanId>,
    /// Its name.
    pub name: &'a str,
    /// `SpanKind` as a number: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: u64,
    /// Start, Unix nanoseconds.
    pub start_ns: u64,
    /// End, Unix nanoseconds.
    pub end_ns: u64,
    /// `StatusCode` as a number: 0 unset, 1 ok, 2 error.
    pub status_code: u64,
    /// What the status says.
    pub status_message: &'a str,
}

impl<'a> Span<'a> {
    /// Its message body.
    #[must_use]
    pub fn body(self) -> &'a [u8] {
        self.0
    }

    /// The id of its trace, at the cost of the fields before it: none, as encoders write.
    #[must_use]
    pub fn trace_id(self) -> Option<TraceId> {
        TraceId::from_bytes(messages(self.0, 1).next()?)
    }

    /// All plain fields in one pass; of several the last counts, as protobuf has it.
    #[must_use]
    pub fn read(self) -> SpanFields<'a> {
        let mut fields = SpanFields::default();
        for field in Fields::of(self.0) {
            match field.number {
                1 => fields.trace_id = TraceId::from_bytes(field.value.bytes()),
                2 => fields.span_id = SpanId::from_bytes(field.value.bytes()),
                4 => fields.parent_span_id = SpanId::from_bytes(field.value.bytes()),
                5 => fields.name = field.value.text(),
                6 => fields.kind = field.value.number(),
                7 => fields.start_ns = field.value.number(),
                8 => fields.end_ns = field.value.number(),
                15 => (fields.status_code, fields.status_message) = status(field),
                _ => {}
            }
        }
        fields
    }

    /// Start and end, Unix nanoseconds; 0 for one that is not stated.
    #[must_use]
    pub fn times(self) -> (u64, u64) {
        let (mut start_ns, mut end_ns) = (0, 0);
        for field in Fields::of(self.0) {
            match field.number {
                7 => start_ns = field.value.number(),
                8 => end_ns = field.value.number(),
                _ => {}
            }
        }
        (start_ns, end_ns)
    }

    /// Its attributes.
    pub fn attributes(self) -> impl Iterator<Item = Attribute<'a>> {
        messages(self.0, 9).map(Attribute::read)
    }

    /// The traces and spans that it links to.
    pub fn links(self) -> impl Iterator<Item = (Option<TraceId>, Option<SpanId>)> {
        messages(self.0, 13).map(|link| {
            let id = |number| messages(link, number).last().unwrap_or_default();
            (TraceId::from_bytes(id(1)), SpanId::from_bytes(id(2)))
        })
    }
}

fn status(field: Field<'_>) -> (u64, &str) {
    let mut status = (0, "");
    for field in Fields::of(field.value.bytes()) {
        match field.number {
            2 => status.1 = field.value.text(),
            3 => status.0 = field.value.number(),
            _ => {}
        }
    }
    status
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: AnyValue<'a>,
}

/// An attribute's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnyValue<'a> {
    /// None of the kinds.
    Empty,
    /// Text.
    Text(&'a str),
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Integer(i64),
    /// A floating point number.
    Double(f64),
    /// Values in order.
    Array(ArrayValue<'a>),
    /// Keys with values.
    Map(MapValue<'a>),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// The body of an `ArrayValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayValue<'a>(&'a [u8]);

impl<'a> ArrayValue<'a> {
    /// Its elements.
    pub fn values(self) -> impl Iterator<Item = AnyValue<'a>> {
        messages(self.0, 1).map(AnyValue::read)
    }
}

/// The body of a `KeyValueList`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapValue<'a>(&'a [u8]);

impl<'a> MapValue<'a> {
    /// Its entries.
    pub fn entries(self) -> impl Iterator<Item = Attribute<'a>> {
        messages(self.0, 1).map(Attribute::read)
    }
}

impl<'a> Attribute<'a> {
    fn read(body: &'a [u8]) -> Attribute<'a> {
        let mut attribute = Attribute { key: "", value: AnyValue::Empty };
        for field in Fields::of(body) {
            match field.number {
                1 => attribute.key = field.value.text(),
                2 => attribute.value = AnyValue::read(field.value.bytes()),
                _ => {}
            }
        }
        attribute
    }
}

impl<'a> AnyValue<'a> {
    fn read(body: &'a [u8]) -> AnyValue<'a> {
        let mut value = AnyValue::Empty;
        for field in Fields::of(body) {
            value = match field.number {
                1 => AnyValue::Text(field.value.text()),
                2 => AnyValue::Bool(field.value.number() != 0),
                3 => AnyValue::Integer(field.value.number().cast_signed()),
                4 => AnyValue::Double(f64::from_bits(field.value.number())),
                5 => AnyValue::Array(ArrayValue(field.value.bytes())),
                6 => AnyValue::Map(MapValue(field.value.bytes())),
                7 => AnyValue::Bytes(field.value.bytes()),
                _ => value,
            };
        }
        value
    }
}

/// The bodies of the messages in the fields with this number.
#[inline]
fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields::of(message).filter(move |field| field.number == number).map(|field| match field.value {
        Value::Bytes(bytes) => bytes,
        _ => &[],
    })
}
