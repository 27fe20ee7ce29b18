//! The whole encoder, from lines to decoded OTLP.

use super::*;
use crate::block::{Block, MAX_BYTES, SourceId};
use crate::config::{Mapping, OtherSourcetypes, Uberagent};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// 2025-05-12T07:00:00Z, near the events of the samples.
const RECEIVED_NS: u64 = 1_747_033_200_000_000_000;

const SESSION: Uberagent = Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };

fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/uberagent/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The lines of a file as a TCP receiver would cut them.
fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// A decoded span with its resource.
#[derive(Clone, Debug, PartialEq)]
struct Decoded {
    host: String,
    service: String,
    /// Attributes of the resource beside the two.
    session: Vec<KeyValue>,
    span: Span,
}

fn decode(block: &Block) -> Vec<Decoded> {
    assert!(block.payload.len() <= MAX_BYTES);
    let request = ExportTraceServiceRequest::decode(&block.payload[..]).expect("valid OTLP");
    let mut decoded = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = resource_spans.resource.unwrap();
        let value = |key: &str| resource.attributes.iter().find(|pair| pair.key == key).map(|pair| text(&pair.value));
        let (host, service) = (value("host.name").unwrap_or_default(), value("service.name").unwrap());
        let session = resource.attributes.iter().filter(|pair| pair.key.contains("session")).cloned();
        let session: Vec<KeyValue> = session.collect();
        let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        decoded.extend(spans.map(|span| {
            let (host, service, session) = (host.clone(), service.clone(), session.clone());
            Decoded { host, service, session, span }
        }));
    }
    assert_eq!(decoded.len(), block.meta.spans as usize);
    decoded
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key == key).map(|pair| text(&pair.value))
}

fn drain(encoder: &mut Encoder) -> Vec<Decoded> {
    std::iter::from_fn(|| encoder.close()).flat_map(|block| decode(&block)).collect()
}

/// Encodes JSON lines together.
fn encode(settings: Uberagent, lines: &[Vec<u8>]) -> (Vec<Outcome>, Vec<Decoded>) {
    let mut encoder = Encoder::new(settings, SourceId(0));
    let outcome = |line: &Vec<u8>| encoder.json(line, Origin::default(), RECEIVED_NS);
    let outcomes = lines.iter().map(outcome).collect();
    (outcomes, drain(&mut encoder))
}

fn said(outcome: Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Encoded { fields_dropped } => ("encoded", format!("fields_dropped={fields_dropped}")),
        Outcome::Filtered(sourcetype) => ("filtered", sourcetype.name().to_owned()),
        Outcome::DeadLetter(reason) => ("dead_letter", reason.to_owned()),
        Outcome::Blank => ("blank", "-".to_owned()),
    }
}

#[test]
fn every_hostile_line_is_decided_and_the_decision_holds() {
    let lines = lines(&data("hostile.ndjson"));
    let decisions = String::from_utf8(data("hostile_decisions.tsv")).unwrap();
    let decisions: Vec<Vec<&str>> = decisions.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    assert_eq!(decisions.len(), lines.len());
    for (line, decision) in lines.iter().zip(&decisions) {
        let (outcomes, spans) = encode(SESSION, std::slice::from_ref(line));
        let (outcome, reason) = said(outcomes[0]);
        assert_eq!((outcome, reason.as_str()), (decision[1], decision[2]), "line {}", decision[0]);
        let rows = spans.iter().filter(|decoded| attribute(&decoded.span, "uberagent.synthesised").is_none());
        assert_eq!(rows.count(), usize::from(outcome == "encoded"), "line {}", decision[0]);
    }
}

/// What the notes of the decisions claim beyond the outcome, on all hostile lines together.
#[test]
fn hostile_rows_keep_the_promises_of_ids_times_and_texts() {
    let lines = lines(&data("hostile.ndjson"));
    let (outcomes, spans) = encode(SESSION, &lines);
    let rows: Vec<&Decoded> =
        spans.iter().filter(|decoded| attribute(&decoded.span, "uberagent.synthesised").is_none()).collect();
    let encoded = (1..).zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Encoded { .. }));
    let by_line: std::collections::HashMap<usize, &Span> =
        encoded.map(|(line, _)| line).zip(rows.iter().map(|row| &row.span)).collect();
    for decoded in &spans {
        let span = &decoded.span;
        assert_ne!(span.span_id, [0; 8]);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        assert!(matches!(span.trace_id[0] >> 4, 1 | 2), "{:?}", span.trace_id);
        assert_ne!(span.parent_span_id, span.span_id, "a self-loop");
    }
    let high_word = |line: usize| u32::from_be_bytes(by_line[&line].span_id[..4].try_into().unwrap());
    assert_eq!(by_line[&1].span_id, by_line[&2].span_id);
    assert_ne!(by_line[&1].span_id, by_line[&3].span_id);
    for made_up in [4, 5, 10, 11, 15] {
        assert_eq!(high_word(made_up), 0, "line {made_up}");
    }
    assert_eq!(high_word(1), 5223);
    assert_ne!(
        (&by_line[&8].parent_span_id, &by_line[&9].parent_span_id),
        (&by_line[&9].span_id, &by_line[&8].span_id)
    );
    assert_eq!(by_line[&26].trace_id, by_line[&1].trace_id);
    assert_eq!(by_line[&27].trace_id, by_line[&1].trace_id);
    for (line, flag) in [
        (28, "uberagent.session.unknown"),
        (34, "uberagent.time.clamped"),
        (35, "uberagent.time.clamped"),
        (36, "uberagent.time.clamped"),
        (43, "uberagent.clock.skewed"),
        (53, "uberagent.truncated"),
    ] {
        assert!(attribute(by_line[&line], flag).is_some(), "line {line} has no {flag}");
        assert!(attribute(by_line[&1], flag).is_none());
    }
    for line in [38, 39, 40, 41, 42, 44] {
        assert_eq!(by_line[&line].start_time_unix_nano, by_line[&1].start_time_unix_nano, "line {line}");
    }
    assert_eq!(by_line[&54].name, "Other");
    assert_eq!(by_line[&55].name, "Other");
    assert_eq!(attribute(by_line[&53], "process.command_line").unwrap().len(), 32 * 1024);
    assert!(attribute(by_line[&57], "process.command_line").unwrap().contains('\u{fffd}'));
}

mod keys;
mod oracle;
mod sessions;
mod transports;
