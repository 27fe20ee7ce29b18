//! The check against prost, the oracle: on good requests, on bad spans and on thousands of mutants.

use fastrand::Rng;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::*;

fn text(rng: &mut Rng) -> String {
    let alphabet = ["a", "Z", "0", ".", "_", "é", "日", "🦀", ""];
    (0..rng.usize(0..40)).map(|_| alphabet[rng.usize(0..alphabet.len())]).collect()
}

fn any_value(rng: &mut Rng, depth: u32) -> AnyValue {
    let value = match rng.u8(0..if depth < 3 { 8 } else { 6 }) {
        0 => return AnyValue { value: None },
        1 => Any::StringValue(text(rng)),
        2 => Any::BoolValue(rng.bool()),
        3 => Any::IntValue(rng.i64(..)),
        4 => Any::DoubleValue(rng.f64()),
        5 => Any::BytesValue((0..rng.usize(0..20)).map(|_| rng.u8(..)).collect()),
        6 => Any::ArrayValue(ArrayValue { values: (0..rng.usize(0..3)).map(|_| any_value(rng, depth + 1)).collect() }),
        _ => Any::KvlistValue(KeyValueList { values: attributes(rng, depth + 1) }),
    };
    AnyValue { value: Some(value) }
}

fn attributes(rng: &mut Rng, depth: u32) -> Vec<KeyValue> {
    (0..rng.usize(0..4)).map(|_| KeyValue { key: text(rng), value: Some(any_value(rng, depth)) }).collect()
}

fn id(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rng.u8(1..)).collect()
}

fn span(rng: &mut Rng) -> Span {
    let event = |rng: &mut Rng| Event {
        time_unix_nano: rng.u64(..),
        name: text(rng),
        attributes: attributes(rng, 0),
        dropped_attributes_count: rng.u32(..),
    };
    let link = |rng: &mut Rng| Link {
        trace_id: id(rng, 16),
        span_id: id(rng, 8),
        trace_state: text(rng),
        attributes: attributes(rng, 0),
        dropped_attributes_count: rng.u32(0..2),
        flags: rng.u32(..),
    };
    Span {
        trace_id: id(rng, 16),
        span_id: id(rng, 8),
        trace_state: text(rng),
        parent_span_id: if rng.bool() { id(rng, 8) } else { Vec::new() },
        flags: rng.u32(0..1000),
        name: text(rng),
        kind: rng.i32(0..6),
        start_time_unix_nano: rng.u64(1..),
        end_time_unix_nano: rng.u64(1..),
        attributes: attributes(rng, 0),
        dropped_attributes_count: rng.u32(0..2),
        events: (0..rng.usize(0..3)).map(|_| event(rng)).collect(),
        dropped_events_count: rng.u32(0..2),
        links: (0..rng.usize(0..3)).map(|_| link(rng)).collect(),
        dropped_links_count: rng.u32(0..2),
        status: rng.bool().then(|| Status { message: text(rng), code: rng.i32(0..3) }),
    }
}

/// A request with everything in it; also what the cutting tests cut.
pub(in crate::otlp) fn request(rng: &mut Rng, max_spans_a_scope: usize) -> ExportTraceServiceRequest {
    let scope_spans = |rng: &mut Rng| ScopeSpans {
        scope: rng.bool().then(|| InstrumentationScope {
            name: text(rng),
            version: text(rng),
            attributes: attributes(rng, 0),
            dropped_attributes_count: rng.u32(0..2),
        }),
        spans: (0..rng.usize(0..=max_spans_a_scope)).map(|_| span(rng)).collect(),
        schema_url: text(rng),
    };
    let resource_spans = |rng: &mut Rng| ResourceSpans {
        resource: rng.bool().then(|| Resource {
            attributes: attributes(rng, 0),
            dropped_attributes_count: rng.u32(0..2),
            entity_refs: Vec::new(),
        }),
        scope_spans: (0..rng.usize(0..4)).map(|_| scope_spans(rng)).collect(),
        schema_url: text(rng),
    };
    ExportTraceServiceRequest { resource_spans: (0..rng.usize(1..4)).map(|_| resource_spans(rng)).collect() }
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    request.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans)
}

fn is_good(span: &Span) -> bool {
    let id = |id: &[u8], bytes| id.len() == bytes && id.iter().any(|&byte| byte != 0);
    let empty_or = |id: &[u8], bytes| id.is_empty() || id.len() == bytes;
    id(&span.trace_id, 16)
        && id(&span.span_id, 8)
        && empty_or(&span.parent_span_id, 8)
        && span.links.iter().all(|link| empty_or(&link.trace_id, 16) && empty_or(&link.span_id, 8))
}

#[test]
fn a_good_request_passes_as_it_came() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..500 {
        let request = request(&mut rng, 5);
        let bytes = request.encode_to_vec();
        let checked = check(&bytes).unwrap();
        assert!(matches!(checked.payload, Cow::Borrowed(payload) if payload == bytes));
        assert_eq!(checked.cut_out, None);
        assert_eq!(checked.summary.spans as usize, spans(&request).count());
        let first = spans(&request).map(|span| span.start_time_unix_nano).min().unwrap_or(u64::MAX);
        let last = spans(&request).map(|span| span.end_time_unix_nano).max().unwrap_or(0);
        assert_eq!((checked.summary.first_start_ns, checked.summary.last_end_ns), (first, last));
    }
}

/// Whatever passes, prost decodes, with only good spans in it; and what prost refuses does not pass as it came.
fn compare_with_prost(bytes: &[u8]) -> bool {
    let prost = ExportTraceServiceRequest::decode(bytes);
    let Ok(checked) = check(bytes) else { return false };
    let payload = ExportTraceServiceRequest::decode(&*checked.payload).expect("what passes decodes");
    assert!(spans(&payload).all(is_good));
    assert_eq!(checked.summary.spans as usize, spans(&payload).count());
    match (prost, checked.cut_out) {
        (Ok(request), None) => assert_eq!(request, payload),
        (Ok(request), Some(cut_out)) => {
            let kept: Vec<_> = spans(&payload).cloned().collect();
            assert_eq!(spans(&request).count(), kept.len() + cut_out.spans as usize);
            // prost has no opinion on ids and nests deeper; the good spans survive in order.
            let mut good = spans(&request).filter(|span| is_good(span));
            assert!(kept.iter().all(|span| good.any(|other| other == span)));
        }
        (Err(error), cut_out) => assert!(cut_out.is_some(), "passed whole, but: {error}"),
    }
    true
}

#[test]
fn mutants_pass_only_when_prost_agrees() {
    let mut rng = Rng::with_seed(2);
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..6_000 {
        let mut bytes = request(&mut rng, 2).encode_to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..bytes.len());
            match rng.u8(0..5) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes[at] ^= 1 << rng.u8(0..8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, rng.u8(..)),
                _ => bytes.truncate(at + 1),
            }
            if bytes.is_empty() {
                break;
            }
        }
        *if compare_with_prost(&bytes) { &mut passed } else { &mut refused } += 1;
    }
    assert!(
        passed > 500 && refused > 2_000,
        "{passed} passed, {refused} refused: the mutants are too tame or too wild"
    );
}

#[test]
fn every_byte_of_a_small_request_may_take_every_value() {
    let mut attributes = Vec::new();
    for value in [Any::StringValue("value".into()), Any::IntValue(300), Any::StringValue("é".into())] {
        let attribute = KeyValue { key: "key".into(), value: Some(AnyValue { value: Some(value) }) };
        wire_bytes(&mut attributes, 9, &attribute.encode_to_vec());
    }
    let good = request_with(&attributes);
    assert!(compare_with_prost(&good));
    for at in 0..good.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = good.clone();
            bytes[at] = byte;
            compare_with_prost(&bytes);
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..rng.usize(0..60)).map(|_| rng.u8(..) & if rng.bool() { 0x7f } else { 0x1f }).collect();
        compare_with_prost(&bytes);
    }
}

#[test]
fn the_concatenation_of_two_payloads_is_their_merge() {
    let mut rng = Rng::with_seed(4);
    for _ in 0..100 {
        let (one, other) = (request(&mut rng, 3), request(&mut rng, 3));
        let bytes = [one.encode_to_vec(), other.encode_to_vec()].concat();
        assert!(check(&bytes).unwrap().cut_out.is_none());
        let both = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(both.resource_spans, [one.resource_spans, other.resource_spans].concat());
    }
}

/// One span of one scope of one resource, with `field` behind its ids.
fn request_with(field: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    wire_bytes(&mut body, 1, &[1; 16]);
    wire_bytes(&mut body, 2, &[2; 8]);
    body.extend_from_slice(field);
    wrapped(&body)
}

fn wrapped(span: &[u8]) -> Vec<u8> {
    [2, 2, 1].into_iter().fold(span.to_vec(), |body, number| {
        let mut out = Vec::new();
        wire_bytes(&mut out, number, &body);
        out
    })
}

fn wire_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn fault(field: &[u8]) -> Reason {
    check(&request_with(field)).unwrap_err().reason
}

#[test]
fn wire_faults_spoil_the_request() {
    assert!(check(&request_with(&[])).unwrap().cut_out.is_none());
    assert_eq!(fault(&[0x00, 0x00]), Reason::FieldNumber);
    assert_eq!(fault(&[0xa3, 0x06, 0xa4, 0x06]), Reason::WireType, "a group in an unknown field");
    assert_eq!(fault(&[0xa6, 0x06]), Reason::WireType, "wire type 6");
    assert_eq!(fault(&[0x38, 0x01]), Reason::WireType, "a start that is a varint");
    assert_eq!(fault(&[0x80, 0x01, 0x01]), Reason::WireType, "flags that are a varint");
    assert_eq!(fault(&[0xa2, 0x06, 0x05, 0x00]), Reason::Overrun, "an unknown field past the end");
    assert_eq!(fault(&[0xa0, 0x06, 0x80]), Reason::Truncated);
    assert_eq!(fault(&[0xaa, 0x00, 0x00]), Reason::PaddedKey);
    assert!(check(&request_with(&[0xa2, 0x06, 0x01, 0x00])).unwrap().cut_out.is_none(), "unknown and well formed");
    assert!(check(&request_with(&[0x85, 0x01, 1, 0, 0, 0])).unwrap().cut_out.is_none(), "flags");
}

#[test]
fn a_fault_says_where_it_is() {
    let good = request_with(&[]);
    let offset = good.len();
    let bytes = [good.as_slice(), &[0x12, 0x00, 0x0b]].concat();
    assert_eq!(check(&bytes), Err(Fault { offset: offset + 2, reason: Reason::WireType }));
    assert_eq!(check(&[0x0a, 0x05]).unwrap_err().offset, 0);
}

#[test]
fn faults_of_one_span_cut_that_span_out() {
    let bad_utf8 = [0x2a, 0x02, 0xff, 0xfe];
    for (bytes, reason) in [
        (request_with(&bad_utf8), Reason::Utf8),
        (request_with(&[0x22, 0x01, 0x01]), Reason::ParentSpanId),
        (request_with(&[0x6a, 0x03, 0x0a, 0x01, 0x01]), Reason::LinkId),
        (request_with(&[0x0a, 0x01, 0x01]), Reason::TraceId),
        (request_with(&[0x12, 0x08, 0, 0, 0, 0, 0, 0, 0, 0]), Reason::SpanId),
        (wrapped(&[]), Reason::TraceId),
    ] {
        let good = request_with(&[]);
        let whole = [good.as_slice(), &bytes].concat();
        let checked = check(&whole).unwrap();
        let cut_out = checked.cut_out.unwrap();
        assert_eq!((cut_out.spans, cut_out.first.reason), (1, reason));
        assert!(cut_out.first.offset > good.len() && cut_out.first.offset <= whole.len());
        let payload = ExportTraceServiceRequest::decode(&*checked.payload).unwrap();
        assert_eq!((spans(&payload).count(), checked.summary.spans), (1, 1));
    }
}

#[test]
fn bad_text_in_a_resource_spoils_the_request() {
    let mut attribute = Vec::new();
    wire_bytes(&mut attribute, 1, &[0xff]);
    let bytes = [1, 1, 1].into_iter().fold(attribute, |body, number| {
        let mut out = Vec::new();
        wire_bytes(&mut out, number, &body);
        out
    });
    assert_eq!(check(&bytes).unwrap_err().reason, Reason::Utf8);
}

#[test]
fn nesting_is_bounded() {
    let nested = |arrays: u32| {
        let mut value = AnyValue { value: Some(Any::IntValue(1)) };
        for _ in 0..arrays {
            value = AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![value] })) };
        }
        let mut field = Vec::new();
        wire_bytes(&mut field, 9, &KeyValue { key: "k".into(), value: Some(value) }.encode_to_vec());
        request_with(&field)
    };
    // Request, resource spans, scope spans, span, attribute, value: six messages; every array adds two.
    let fits = (MAX_DEPTH - 6) / 2;
    assert!(check(&nested(fits)).unwrap().cut_out.is_none());
    assert_eq!(check(&nested(fits + 1)).unwrap().cut_out.unwrap().first.reason, Reason::TooDeep);
    assert_eq!(check(&nested(20)).unwrap().cut_out.unwrap().first.reason, Reason::TooDeep);
}

#[test]
fn spans_are_counted_to_the_limit() {
    let one = {
        let mut span = Vec::new();
        wire_bytes(&mut span, 1, &[1; 16]);
        wire_bytes(&mut span, 2, &[2; 8]);
        let mut out = Vec::new();
        wire_bytes(&mut out, 2, &span);
        out
    };
    let request = |spans: u32| {
        [2, 1].into_iter().fold(one.repeat(spans as usize), |body, number| {
            let mut out = Vec::new();
            wire_bytes(&mut out, number, &body);
            out
        })
    };
    assert_eq!(check(&request(MAX_SPANS)).unwrap().summary.spans, MAX_SPANS);
    assert_eq!(check(&request(MAX_SPANS + 1)).unwrap_err().reason, Reason::TooManySpans);
}

#[test]
fn utf8_is_judged_as_the_standard_library_does() {
    let mut rng = Rng::with_seed(5);
    for length in 0..40 {
        for _ in 0..200 {
            let mut bytes: Vec<u8> = (0..length).map(|_| rng.u8(0..0x80)).collect();
            if length > 0 && rng.bool() {
                let at = rng.usize(0..length);
                bytes[at] = rng.u8(..);
            }
            assert_eq!(is_utf8(&bytes), std::str::from_utf8(&bytes).is_ok(), "{bytes:?}");
        }
    }
}
