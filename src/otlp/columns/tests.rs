//! Gathering by example; the differential tests are those of `edit`, which looks at both.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::*;
use crate::block::Signal;

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn read(level: Level, key: &str, kind: Kind) -> Field {
    Field { level, key: key.to_owned(), kind, read: true, write: false }
}

fn gather(signal: Signal, payload: &[u8], fields: &[Field]) -> Columns {
    let mut columns = Columns::default();
    Selection::new(signal, fields.to_vec()).unwrap().gather(payload, &mut columns);
    columns
}

fn texts(column: &Column) -> (Vec<u32>, Vec<String>) {
    let Column::Text(column) = column else { panic!("a column of numbers") };
    let mut start = 0;
    let cell = |end: &u32| {
        let cell = String::from_utf8(column.bytes[start..*end as usize].to_vec()).unwrap();
        start = *end as usize;
        cell
    };
    (column.rows.clone(), column.ends.iter().map(cell).collect())
}

fn nums(column: &Column) -> (Vec<u32>, Vec<i64>) {
    let Column::Num(column) = column else { panic!("a column of text") };
    (column.rows.clone(), column.values.clone())
}

fn strings(expected: &[&str]) -> Vec<String> {
    expected.iter().map(|text| (*text).to_owned()).collect()
}

/// Two resources, an empty one between them; three scopes; four spans.
fn trace() -> Vec<u8> {
    let span = |name: &str, attributes| Span {
        trace_id: vec![0xab; 16],
        span_id: vec![1; 8],
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 1_250,
        attributes,
        status: (name == "b").then(|| Status { message: "no".to_owned(), code: 2 }),
        ..Span::default()
    };
    let scope = |name: &str, spans| ScopeSpans {
        scope: Some(InstrumentationScope {
            name: name.to_owned(),
            attributes: vec![attribute("s", Any::StringValue(name.to_owned()))],
            ..InstrumentationScope::default()
        }),
        spans,
        ..ScopeSpans::default()
    };
    let resource = |host: &str, scope_spans| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![attribute("host.name", Any::StringValue(host.to_owned()))],
            ..Resource::default()
        }),
        scope_spans,
        ..ResourceSpans::default()
    };
    let url = |url: &str| attribute("url.full", Any::StringValue(url.to_owned()));
    let list = Any::ArrayValue(ArrayValue {
        values: vec![
            AnyValue { value: Some(Any::DoubleValue(1.5)) },
            AnyValue { value: None },
            AnyValue { value: Some(Any::BytesValue(b"hi".to_vec())) },
            AnyValue { value: Some(Any::KvlistValue(KeyValueList { values: vec![url("\"")] })) },
        ],
    });
    let first =
        scope("x", vec![span("a", vec![url("1"), url("2")]), span("b", vec![attribute("n", Any::IntValue(-3))])]);
    let second = scope("y", vec![span("c", vec![attribute("url.full", Any::IntValue(7)), url("late")])]);
    let third =
        scope("z", vec![span("", vec![attribute("list", list), url("4"), attribute("n", Any::BoolValue(true))])]);
    let resource_spans = vec![
        resource("h1", vec![first, scope("none", Vec::new()), second]),
        resource("none", vec![scope("none", Vec::new())]),
        resource("h2", vec![third]),
    ];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

#[test]
fn attributes_of_all_levels_become_columns() {
    let fields = [
        read(Level::Record, "url.full", Kind::Text),
        read(Level::Resource, "host.name", Kind::Text),
        read(Level::Scope, "s", Kind::Bytes),
        read(Level::Record, "n", Kind::Integer),
        read(Level::Record, "n", Kind::Double),
        read(Level::Record, "n", Kind::Boolean),
        read(Level::Record, "list", Kind::Json),
        read(Level::Record, "url.full", Kind::Json),
        read(Level::Record, "nowhere", Kind::Text),
    ];
    let got = gather(Signal::Traces, &trace(), &fields);
    assert_eq!((got.rows(), got.resources(), got.scopes()), (4, [0, 3].as_slice(), [0, 2, 3].as_slice()));
    let columns = got.columns();
    assert_eq!(columns.len(), fields.len());
    // The first of two counts, and hides the second where it is of another kind.
    assert_eq!(texts(&columns[0]), (vec![0, 3], strings(&["1", "4"])));
    assert_eq!(texts(&columns[1]), (vec![], strings(&["h1", "h2"])), "a cell for each group needs no rows");
    assert_eq!(texts(&columns[2]), (vec![], strings(&["x", "y", "z"])));
    assert_eq!(nums(&columns[3]), (vec![1], vec![-3]));
    assert_eq!(nums(&columns[4]), (vec![1], vec![(-3f64).to_bits().cast_signed()]));
    assert_eq!(nums(&columns[5]), (vec![3], vec![1]));
    assert_eq!(texts(&columns[6]), (vec![3], strings(&[r#"[1.5,null,"aGk=",{"url.full":"\""}]"#])));
    assert_eq!(texts(&columns[7]), (vec![0, 2, 3], strings(&["\"1\"", "7", "\"4\""])));
    assert_eq!(texts(&columns[8]), (vec![], vec![]));
}

#[test]
fn intrinsics_of_spans_are_read() {
    let intrinsic = |key, kind| read(Level::Intrinsic, key, kind);
    let fields = [
        intrinsic("trace-id", Kind::Text),
        intrinsic("span-id", Kind::Bytes),
        intrinsic("parent-span-id", Kind::Text),
        intrinsic("name", Kind::Text),
        intrinsic("kind", Kind::Integer),
        intrinsic("start", Kind::Integer),
        intrinsic("duration", Kind::Integer),
        intrinsic("status", Kind::Integer),
        intrinsic("status-message", Kind::Text),
        intrinsic("sourcetype", Kind::Text),
    ];
    let got = gather(Signal::Traces, &trace(), &fields);
    let columns = got.columns();
    assert_eq!(texts(&columns[0]).1[0], "ab".repeat(16));
    assert_eq!(texts(&columns[1]).1[0].as_bytes(), [1; 8]);
    assert_eq!(texts(&columns[2]), (vec![], vec![]));
    assert_eq!(texts(&columns[3]), (vec![0, 1, 2], strings(&["a", "b", "c"])), "an empty name is none");
    assert_eq!(nums(&columns[4]).1, [2; 4]);
    assert_eq!(nums(&columns[5]).1, [1_000; 4]);
    assert_eq!(nums(&columns[6]).1, [250; 4]);
    assert_eq!(nums(&columns[7]), (vec![], vec![0, 2, 0, 0]));
    assert_eq!(texts(&columns[8]), (vec![1], strings(&["no"])));
    assert_eq!(texts(&columns[9]), (vec![], vec![]));
    let summary = got.summary();
    assert_eq!((summary.first_start_ns, summary.last_end_ns), (1_000, 1_250));
}

#[test]
fn log_records_are_read_by_their_own_numbers() {
    let record = LogRecord {
        time_unix_nano: 5,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(Any::StringValue("line".to_owned())) }),
        attributes: vec![attribute("uberagent.sourcetype", Any::StringValue("uberAgent:X:Y".to_owned()))],
        trace_id: vec![0xcd; 16],
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs { log_records: vec![record, LogRecord::default()], ..ScopeLogs::default() }];
    let payload =
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] };
    let fields = [
        read(Level::Intrinsic, "body", Kind::Text),
        read(Level::Intrinsic, "severity", Kind::Integer),
        read(Level::Intrinsic, "severity-text", Kind::Text),
        read(Level::Intrinsic, "sourcetype", Kind::Text),
        read(Level::Intrinsic, "trace-id", Kind::Text),
        read(Level::Intrinsic, "start", Kind::Integer),
        read(Level::Intrinsic, "body", Kind::Json),
    ];
    let got = gather(Signal::Logs, &payload.encode_to_vec(), &fields);
    let columns = got.columns();
    assert_eq!(texts(&columns[0]), (vec![0], strings(&["line"])));
    assert_eq!(nums(&columns[1]), (vec![], vec![9, 0]));
    assert_eq!(texts(&columns[2]), (vec![0], strings(&["INFO"])));
    assert_eq!(texts(&columns[3]), (vec![0], strings(&["uberAgent:X:Y"])));
    assert_eq!(texts(&columns[4]), (vec![0], vec!["cd".repeat(16)]));
    assert_eq!(nums(&columns[5]), (vec![0], vec![5]));
    assert_eq!(texts(&columns[6]), (vec![0], strings(&["\"line\""])));
    assert_eq!((got.summary().spans, got.summary().last_end_ns), (2, 5));
}

#[test]
fn what_was_not_declared_can_be_read_as_text() {
    let payload = trace();
    let read = |level, key| texts(&column(Signal::Traces, &payload, level, key, Kind::Any).unwrap());
    assert_eq!(read(Level::Record, "n"), (vec![1, 3], strings(&["-3", "true"])));
    assert_eq!(read(Level::Record, "url.full"), (vec![0, 2, 3], strings(&["1", "7", "4"])));
    assert_eq!(read(Level::Resource, "host.name"), (vec![], strings(&["h1", "h2"])));
    let body = column(Signal::Traces, &payload, Level::Intrinsic, "body", Kind::Text);
    assert!(matches!(body, Err(FieldError::Unknown { .. })));
    assert_eq!(keys(Signal::Traces, &payload, Level::Record).unwrap(), strings(&["url.full", "n", "list"]));
    assert_eq!(keys(Signal::Traces, &payload, Level::Scope).unwrap(), strings(&["s"]));
    assert!(keys(Signal::Traces, &payload, Level::Intrinsic).unwrap().contains(&"duration".to_owned()));
}

#[test]
fn fields_that_cannot_be_are_refused_with_what_could() {
    let refused = |signal, field: Field| Selection::new(signal, vec![field]).unwrap_err().to_string();
    let unknown = refused(Signal::Traces, read(Level::Intrinsic, "nam", Kind::Text));
    assert_eq!(unknown, "spans have no intrinsic \"nam\", the nearest is \"name\"");
    let kind = refused(Signal::Logs, read(Level::Intrinsic, "severity", Kind::Text));
    assert_eq!(kind, "intrinsic \"severity\" is not Text, it can be [Integer]");
    let write = Field { write: true, ..read(Level::Intrinsic, "start", Kind::Integer) };
    let expected = "intrinsic \"start\" cannot be written, those that can are [\"name\", \"kind\", \"status\", \
                    \"status-message\", \"trace-state\", \"events\", \"links\"]";
    assert_eq!(refused(Signal::Traces, write), expected);
    assert_eq!(refused(Signal::Metrics, read(Level::Record, "a", Kind::Text)), FieldError::Metrics.to_string());
    let unused = refused(Signal::Traces, Field { read: false, ..read(Level::Record, "a", Kind::Text) });
    assert_eq!(unused, "\"a\" is neither read nor written");
    let twice = Field { write: true, ..read(Level::Record, "a", Kind::Text) };
    let twice = vec![twice.clone(), Field { kind: Kind::Json, ..twice }];
    assert!(matches!(Selection::new(Signal::Traces, twice), Err(FieldError::WrittenTwice { .. })));
    let many = vec![read(Level::Record, "a", Kind::Text); MAX_FIELDS + 1];
    assert_eq!(Selection::new(Signal::Traces, many).unwrap_err(), FieldError::TooMany(65));
}

#[test]
fn columns_are_reused_whatever_they_held() {
    let payload = trace();
    let text = [read(Level::Record, "url.full", Kind::Text), read(Level::Intrinsic, "kind", Kind::Integer)];
    let num = [read(Level::Intrinsic, "kind", Kind::Integer)];
    let mut columns = Columns::default();
    for fields in [text.as_slice(), &num, &text] {
        let selection = Selection::new(Signal::Traces, fields.to_vec()).unwrap();
        selection.gather(&payload, &mut columns);
        assert_eq!(columns.columns(), gather(Signal::Traces, &payload, fields).columns());
    }
    Selection::new(Signal::Traces, text.to_vec()).unwrap().gather(&[], &mut columns);
    assert_eq!((columns.rows(), columns.resources().len()), (0, 0));
    assert!(
        columns.columns().iter().all(
            |column| *column == Column::Text(TextColumn::default()) || *column == Column::Num(NumColumn::default())
        )
    );
}
