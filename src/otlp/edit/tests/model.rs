//! What gathering and editing mean, said with decoded messages: the oracle.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value as Json;

use crate::block::Signal;
use crate::otlp::columns::{Field, Kind, Level};

/// A decoded request of either signal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model(pub(super) Vec<ModelResource>);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelResource {
    resource: Option<Resource>,
    schema_url: String,
    scopes: Vec<ModelScope>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelScope {
    scope: Option<InstrumentationScope>,
    schema_url: String,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Row {
    Span(Box<Span>),
    Log(Box<LogRecord>),
    Dropped,
}

/// A cell, in whatever column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Bytes(Vec<u8>),
    Num(i64),
    Json(Json),
}

impl Model {
    pub(super) fn decode(signal: Signal, payload: &[u8]) -> Model {
        if signal == Signal::Traces {
            let request = ExportTraceServiceRequest::decode(payload).unwrap();
            Model(
                request
                    .resource_spans
                    .into_iter()
                    .map(|r| ModelResource {
                        resource: r.resource,
                        schema_url: r.schema_url,
                        scopes: r
                            .scope_spans
                            .into_iter()
                            .map(|s| ModelScope {
                                scope: s.scope,
                                schema_url: s.schema_url,
                                rows: s.spans.into_iter().map(|span| Row::Span(Box::new(span))).collect(),
                            })
                            .collect(),
                    })
                    .collect(),
            )
        } else {
            let request = ExportLogsServiceRequest::decode(payload).unwrap();
            Model(
                request
                    .resource_logs
                    .into_iter()
                    .map(|r| ModelResource {
                        resource: r.resource,
                        schema_url: r.schema_url,
                        scopes: r
                            .scope_logs
                            .into_iter()
                            .map(|s| ModelScope {
                                scope: s.scope,
                                schema_url: s.schema_url,
                                rows: s.log_records.into_iter().map(|record| Row::Log(Box::new(record))).collect(),
                            })
                            .collect(),
                    })
                    .collect(),
            )
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().flat_map(|resource| &resource.scopes).flat_map(|scope| &scope.rows)
    }

    /// First rows of the resources, and of the scopes, that have any.
    pub(super) fn groups(&self) -> (Vec<u32>, Vec<u32>) {
        let (mut resources, mut scopes, mut row) = (Vec::new(), Vec::new(), 0);
        for resource in &self.0 {
            let first = row;
            for scope in &resource.scopes {
                if !scope.rows.is_empty() {
                    scopes.push(row);
                }
                row += u32::try_from(scope.rows.len()).unwrap();
            }
            if row > first {
                resources.push(first);
            }
        }
        (resources, scopes)
    }

    /// Row and cell of every row or group that has one.
    pub(super) fn column(&mut self, field: &Field) -> Vec<(u32, Cell)> {
        let (resources, scopes) = self.groups();
        let rows = match field.level {
            Level::Resource => resources,
            Level::Scope => scopes,
            _ => (0..u32::try_from(self.rows().count()).unwrap()).collect(),
        };
        let cells = rows.into_iter().filter_map(|row| {
            let cell = match field.level {
                Level::Resource => attribute(&self.resource(row).resource.as_ref()?.attributes, field),
                Level::Scope => attribute(&self.scope(row).scope.as_ref()?.attributes, field),
                Level::Record => attribute(self.row(row).attributes(), field),
                Level::Intrinsic if field.key.starts_with("scope-") => {
                    let scope = self.scope(row).scope.as_ref()?;
                    let text = if field.key == "scope-name" { &scope.name } else { &scope.version };
                    (!text.is_empty()).then(|| Cell::Bytes(text.clone().into_bytes()))
                }
                Level::Intrinsic => intrinsic(self.row(row), field),
            };
            cell.map(|cell| (row, cell))
        });
        cells.collect()
    }

    /// Sets or removes one value; rows still stand where they stood.
    pub(super) fn edit(&mut self, field: &Field, row: u32, new: Option<&Cell>) {
        match field.level {
            Level::Resource => {
                let resource = &mut self.resource(row).resource;
                if resource.is_some() || new.is_some() {
                    set_attribute(&mut resource.get_or_insert_default().attributes, field, new);
                }
            }
            Level::Scope => {
                let scope = &mut self.scope(row).scope;
                if scope.is_some() || new.is_some() {
                    set_attribute(&mut scope.get_or_insert_default().attributes, field, new);
                }
            }
            Level::Record => set_attribute(self.row(row).attributes(), field, new),
            Level::Intrinsic => set_intrinsic(self.row(row), field, new),
        }
    }

    /// Removes all but the first value; whether there were several.
    pub(super) fn first_only(&mut self, field: &Field, row: u32) -> bool {
        let attributes = match field.level {
            Level::Resource => self.resource(row).resource.as_mut().map(|resource| &mut resource.attributes),
            Level::Scope => self.scope(row).scope.as_mut().map(|scope| &mut scope.attributes),
            Level::Record => Some(self.row(row).attributes()),
            Level::Intrinsic => None,
        };
        let Some(attributes) = attributes else { return false };
        let (before, mut seen) = (attributes.len(), false);
        attributes.retain(|attribute| attribute.key != field.key || !std::mem::replace(&mut seen, true));
        attributes.len() < before
    }

    pub(super) fn drop(&mut self, row: u32) {
        *self.row(row) = Row::Dropped;
    }

    /// What had rows and has none left vanishes.
    pub(super) fn finish(mut self) -> Model {
        let is_lost = |scope: &ModelScope| !scope.rows.is_empty() && scope.rows.iter().all(is_dropped);
        self.0.retain_mut(|resource| {
            let had_rows = resource.scopes.iter().any(|scope| !scope.rows.is_empty());
            resource.scopes.retain(|scope| !is_lost(scope));
            for scope in &mut resource.scopes {
                scope.rows.retain(|row| !is_dropped(row));
            }
            !had_rows || resource.scopes.iter().any(|scope| !scope.rows.is_empty())
        });
        self
    }

    fn place(&self, row: u32) -> (usize, usize, usize) {
        let mut left = row as usize;
        for (r, resource) in self.0.iter().enumerate() {
            for (s, scope) in resource.scopes.iter().enumerate() {
                if left < scope.rows.len() {
                    return (r, s, left);
                }
                left -= scope.rows.len();
            }
        }
        panic!("no row {row}");
    }

    fn resource(&mut self, row: u32) -> &mut ModelResource {
        let (r, ..) = self.place(row);
        &mut self.0[r]
    }

    fn scope(&mut self, row: u32) -> &mut ModelScope {
        let (r, s, _) = self.place(row);
        &mut self.0[r].scopes[s]
    }

    fn row(&mut self, row: u32) -> &mut Row {
        let (r, s, row) = self.place(row);
        &mut self.0[r].scopes[s].rows[row]
    }
}

fn is_dropped(row: &Row) -> bool {
    matches!(row, Row::Dropped)
}

impl Row {
    fn attributes(&mut self) -> &mut Vec<KeyValue> {
        match self {
            Row::Span(span) => &mut span.attributes,
            Row::Log(record) => &mut record.attributes,
            Row::Dropped => panic!("a row is dropped last"),
        }
    }

    /// Start and end, 0 where they are not stated.
    pub(super) fn times(&self) -> (u64, u64) {
        match self {
            Row::Span(span) => (span.start_time_unix_nano, span.end_time_unix_nano),
            Row::Log(record) => (record.time_unix_nano, record.time_unix_nano),
            Row::Dropped => panic!("a row is dropped last"),
        }
    }
}

fn attribute(attributes: &[KeyValue], field: &Field) -> Option<Cell> {
    let first = attributes.iter().find(|attribute| attribute.key == field.key)?;
    value(first.value.as_ref().and_then(|value| value.value.as_ref()), field.kind)
}

fn value(value: Option<&Any>, kind: Kind) -> Option<Cell> {
    Some(match (kind, value) {
        (Kind::Text | Kind::Bytes | Kind::Any, Some(Any::StringValue(text))) => Cell::Bytes(text.clone().into_bytes()),
        (Kind::Bytes, Some(Any::BytesValue(bytes))) => Cell::Bytes(bytes.clone()),
        (Kind::Integer, Some(Any::IntValue(number))) => Cell::Num(*number),
        (Kind::Double, Some(Any::DoubleValue(double))) => Cell::Num(double.to_bits().cast_signed()),
        (Kind::Double, Some(Any::IntValue(number))) => Cell::Num((*number as f64).to_bits().cast_signed()),
        (Kind::Boolean, Some(Any::BoolValue(value))) => Cell::Num(i64::from(*value)),
        (Kind::Json | Kind::Any, value) => Cell::Json(json(value)),
        _ => return None,
    })
}

fn json(value: Option<&Any>) -> Json {
    let inner = |value: &Option<AnyValue>| json(value.as_ref().and_then(|value| value.value.as_ref()));
    match value {
        None => Json::Null,
        Some(Any::StringValue(text)) => text.clone().into(),
        Some(Any::BoolValue(value)) => (*value).into(),
        Some(Any::IntValue(number)) => (*number).into(),
        Some(Any::DoubleValue(double)) if double.is_finite() => (*double).into(),
        Some(Any::DoubleValue(double)) if double.is_nan() => "NaN".into(),
        Some(Any::DoubleValue(double)) => if *double > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Some(Any::BytesValue(bytes)) => {
            let mut text = Vec::new();
            crate::otlp::json::base64(bytes, &mut text);
            serde_json::from_slice(&text).unwrap()
        }
        Some(Any::ArrayValue(array)) => array.values.iter().map(|value| json(value.value.as_ref())).collect(),
        Some(Any::KvlistValue(map)) => map.values.iter().map(|pair| (pair.key.clone(), inner(&pair.value))).collect(),
    }
}

fn intrinsic(row: &Row, field: &Field) -> Option<Cell> {
    let (start_ns, end_ns) = row.times();
    let num = |value: i64| Some(Cell::Num(value));
    let time = |value: u64| (value != 0).then_some(Cell::Num(value.cast_signed()));
    let text = |text: &str| (!text.is_empty()).then(|| Cell::Bytes(text.as_bytes().to_vec()));
    let id = |id: &[u8]| {
        let hex = || id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
        (!id.is_empty()).then(|| Cell::Bytes(if field.kind == Kind::Text { hex() } else { id.to_vec() }))
    };
    match (field.key.as_str(), row) {
        ("start", _) => time(start_ns),
        ("end", _) => time(end_ns),
        ("duration", _) if start_ns == 0 || end_ns == 0 => None,
        ("duration", _) => num(i64::try_from(end_ns.saturating_sub(start_ns)).unwrap()),
        ("sourcetype", _) => None,
        ("trace-id", Row::Span(span)) => id(&span.trace_id),
        ("span-id", Row::Span(span)) => id(&span.span_id),
        ("parent-span-id", Row::Span(span)) => id(&span.parent_span_id),
        ("name", Row::Span(span)) => text(&span.name),
        ("trace-state", Row::Span(span)) => text(&span.trace_state),
        ("events", Row::Span(span)) => list(&span.events, crate::otlp::json::event),
        ("links", Row::Span(span)) => list(&span.links, crate::otlp::json::link),
        ("kind", Row::Span(span)) => num(span.kind.into()),
        ("status", Row::Span(span)) => num(span.status.as_ref().map_or(0, |status| status.code.into())),
        ("status-message", Row::Span(span)) => text(span.status.as_ref().map_or("", |status| &status.message)),
        ("trace-id", Row::Log(record)) => id(&record.trace_id),
        ("span-id", Row::Log(record)) => id(&record.span_id),
        ("severity", Row::Log(record)) => num(record.severity_number.into()),
        ("severity-text", Row::Log(record)) => text(&record.severity_text),
        ("body", Row::Log(record)) => value(record.body.as_ref()?.value.as_ref(), field.kind),
        (other, _) => panic!("no intrinsic {other}"),
    }
}

/// Messages as OTLP/JSON; that mapping has its own oracle.
fn list(messages: &[impl Message], push: fn(&[u8], &mut Vec<u8>)) -> Option<Cell> {
    let json = |message: &_| {
        let mut text = Vec::new();
        push(&Message::encode_to_vec(message), &mut text);
        serde_json::from_slice::<Json>(&text).unwrap()
    };
    (!messages.is_empty()).then(|| Cell::Json(messages.iter().map(json).collect()))
}

fn set_attribute(attributes: &mut Vec<KeyValue>, field: &Field, new: Option<&Cell>) {
    let place = attributes.iter().position(|attribute| attribute.key == field.key);
    let mut index = 0;
    attributes.retain(|attribute| {
        index += 1;
        attribute.key != field.key || (new.is_some() && place == Some(index - 1))
    });
    if let Some(cell) = new {
        let attribute = KeyValue { key: field.key.clone(), value: Some(any_value(field.kind, cell)) };
        match place {
            Some(place) => attributes[place] = attribute,
            None => attributes.push(attribute),
        }
    }
}

fn set_intrinsic(row: &mut Row, field: &Field, new: Option<&Cell>) {
    let text = || match new {
        Some(Cell::Bytes(text)) => String::from_utf8(text.clone()).unwrap(),
        _ => String::new(),
    };
    let num = || match new {
        Some(Cell::Num(number)) => i32::try_from(*number).unwrap(),
        _ => 0,
    };
    match (field.key.as_str(), row) {
        ("name", Row::Span(span)) => span.name = text(),
        ("kind", Row::Span(span)) => span.kind = num(),
        ("trace-state", Row::Span(span)) => span.trace_state = text(),
        ("events", Row::Span(span)) => span.events.clear(),
        ("links", Row::Span(span)) => span.links.clear(),
        ("status" | "status-message", Row::Span(span)) if span.status.is_none() && new.is_none() => {}
        ("status", Row::Span(span)) => span.status.get_or_insert_default().code = num(),
        ("status-message", Row::Span(span)) => span.status.get_or_insert_default().message = text(),
        ("severity", Row::Log(record)) => record.severity_number = num(),
        ("severity-text", Row::Log(record)) => record.severity_text = text(),
        ("body", Row::Log(record)) => record.body = new.map(|cell| any_value(field.kind, cell)),
        (other, _) => panic!("{other} cannot be written"),
    }
}

fn any_value(kind: Kind, cell: &Cell) -> AnyValue {
    let value = match (kind, cell) {
        (Kind::Text | Kind::Any, Cell::Bytes(text)) => Any::StringValue(String::from_utf8(text.clone()).unwrap()),
        (Kind::Bytes, Cell::Bytes(bytes)) => Any::BytesValue(bytes.clone()),
        (Kind::Integer, Cell::Num(number)) => Any::IntValue(*number),
        (Kind::Double, Cell::Num(bits)) => Any::DoubleValue(f64::from_bits(bits.cast_unsigned())),
        (Kind::Boolean, Cell::Num(value)) => Any::BoolValue(*value != 0),
        (Kind::Json, Cell::Json(json)) => return any_json(json),
        other => panic!("{other:?}"),
    };
    AnyValue { value: Some(value) }
}

fn any_json(json: &Json) -> AnyValue {
    AnyValue {
        value: match json {
            Json::Null => None,
            Json::Bool(value) => Some(Any::BoolValue(*value)),
            Json::String(text) => Some(Any::StringValue(text.clone())),
            Json::Number(number) => Some(match number.as_i64() {
                Some(number) => Any::IntValue(number),
                None => Any::DoubleValue(number.as_f64().unwrap()),
            }),
            Json::Array(values) => Some(Any::ArrayValue(ArrayValue { values: values.iter().map(any_json).collect() })),
            Json::Object(map) => Some(Any::KvlistValue(KeyValueList {
                values: map
                    .iter()
                    .map(|(key, value)| KeyValue { key: key.clone(), value: Some(any_json(value)) })
                    .collect(),
            })),
        },
    }
}
