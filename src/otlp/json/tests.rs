//! What comes out is read back with serde_json and compared with the messages that went in.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;
use serde_json::{Value as Json, json};

use super::*;

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn traces(spans: Vec<Span>) -> Vec<u8> {
    let scope = InstrumentationScope { name: "millrace".into(), ..Default::default() };
    let resource =
        Resource { attributes: vec![attribute("host.name", Any::StringValue("h\"1\"".into()))], ..Default::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn read(signal: Signal, payloads: &[&[u8]]) -> Json {
    let mut out = Vec::new();
    encode(signal, payloads, &mut out);
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
}

#[test]
fn a_span_has_the_mapping_of_the_specification() {
    let list = ArrayValue { values: vec![AnyValue { value: Some(Any::BoolValue(false)) }, AnyValue { value: None }] };
    let map = KeyValueList { values: vec![attribute("k", Any::DoubleValue(f64::NAN))] };
    let span = Span {
        trace_id: (0..16).collect(),
        span_id: vec![0xab; 8],
        name: "smss.exe \u{1} \u{1f600}".into(),
        kind: 1,
        flags: 257,
        start_time_unix_nano: u64::MAX,
        end_time_unix_nano: 1,
        attributes: vec![
            attribute("int", Any::IntValue(-5)),
            attribute("zero", Any::IntValue(0)),
            attribute("double", Any::DoubleValue(0.5)),
            attribute("bytes", Any::BytesValue(vec![0xff, 0xfe, 0xfd, 0xfc])),
            attribute("list", Any::ArrayValue(list)),
            attribute("map", Any::KvlistValue(map)),
        ],
        events: vec![span::Event { time_unix_nano: 7, name: "e".into(), ..Default::default() }],
        links: vec![span::Link { trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() }],
        status: Some(Status { message: "bad".into(), code: 2 }),
        ..Default::default()
    };
    let json = read(Signal::Traces, &[&traces(vec![span])]);
    let group = &json["resourceSpans"][0];
    assert_eq!(group["resource"], json!({"attributes": [{"key": "host.name", "value": {"stringValue": "h\"1\""}}]}));
    assert_eq!(group["scopeSpans"][0]["scope"], json!({"name": "millrace"}));
    let expected = json!({
        "traceId": "000102030405060708090a0b0c0d0e0f",
        "spanId": "abababababababab",
        "flags": 257,
        "name": "smss.exe \u{1} \u{1f600}",
        "kind": 1,
        "startTimeUnixNano": "18446744073709551615",
        "endTimeUnixNano": "1",
        "attributes": [
            {"key": "int", "value": {"intValue": "-5"}},
            {"key": "zero", "value": {"intValue": "0"}},
            {"key": "double", "value": {"doubleValue": 0.5}},
            {"key": "bytes", "value": {"bytesValue": "//79/A=="}},
            {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": false}, {}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"doubleValue": "NaN"}}]}}},
        ],
        "events": [{"timeUnixNano": "7", "name": "e"}],
        "links": [{"traceId": "01".repeat(16), "spanId": "02".repeat(8)}],
        "status": {"message": "bad", "code": 2},
    });
    assert_eq!(group["scopeSpans"][0]["spans"][0], expected);
}

#[test]
fn several_payloads_are_one_request() {
    let payloads = [traces(vec![Span::default()]), traces(vec![Span::default(), Span::default()])];
    let json = read(Signal::Traces, &[&payloads[0], &payloads[1]]);
    let groups = json["resourceSpans"].as_array().unwrap();
    let counts: Vec<usize> =
        groups.iter().map(|group| group["scopeSpans"][0]["spans"].as_array().unwrap().len()).collect();
    assert_eq!(counts, [1, 2]);
    assert_eq!(read(Signal::Traces, &[]), json!({}));
}

#[test]
fn a_log_record_is_written_too() {
    let record = LogRecord {
        time_unix_nano: 5,
        observed_time_unix_nano: 6,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(AnyValue { value: Some(Any::StringValue("row".into())) }),
        flags: 1,
        ..Default::default()
    };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let json = read(Signal::Logs, &[&bytes]);
    let expected = json!({
        "timeUnixNano": "5", "observedTimeUnixNano": "6", "severityNumber": 9, "severityText": "INFO",
        "body": {"stringValue": "row"}, "flags": 1,
    });
    assert_eq!(json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0], expected);
    assert!(!knows(Signal::Metrics));
}

#[test]
fn base64_pads_like_the_standard() {
    let encoded = |bytes: &[u8]| {
        let mut out = Vec::new();
        base64(bytes, &mut out);
        String::from_utf8(out).unwrap()
    };
    // RFC 4648 section 10.
    let vectors =
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
    for (plain, coded) in vectors {
        assert_eq!(encoded(plain.as_bytes()), format!("\"{coded}\""));
    }
}
