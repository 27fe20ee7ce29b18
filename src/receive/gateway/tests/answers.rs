//! What a request of OTLP is answered, and when.

use std::io::{Read, Write};

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::super::*;
use super::harness::{DURABLE, PROTOBUF, Policy, Rig, connect, limits, post, read_reply, request, send, span};
use crate::block::{MAX_BYTES, Refusal, VerdictOutcome};
use crate::otlp::messages::{ExportTraceServiceResponse, Status};
use crate::otlp::slice::count_spans;

#[test]
fn a_good_request_is_stored_as_it_came_and_answered_with_an_empty_body() {
    let rig = Rig::start(DURABLE, 100);
    for body in [request(vec![span(1, 10)]), request(vec![span(2, 100_000)])] {
        let reply = rig.traces(&body);
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.header("content-type"), Some("application/x-protobuf"));
        let block = rig.outlet.blocks().pop().unwrap();
        assert_eq!(block.payload, body);
        assert_eq!((block.meta.spans, block.meta.first_span_ns, block.meta.last_span_ns), (1, 5, 9));
        assert_eq!((block.meta.source, block.meta.made), (SourceId(0), crate::block::Made::Passed));
    }
    assert_eq!(rig.fronts[0].spans_passed.get(), 2);
    assert_eq!(rig.traces(b"").status, 200, "an empty request is a success");
    assert_eq!(rig.outlet.blocks().len(), 2);
}

#[test]
fn ureq_is_served_with_gzip_and_zstd() {
    let rig = Rig::start(DURABLE, 100);
    let body = request(vec![span(1, 3000)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&body).unwrap();
    let zstd = zstd::encode_all(body.as_slice(), 1).unwrap();
    for (encoding, packed) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd), ("identity", body.clone())] {
        let url = format!("http://{}/v1/traces", rig.otlp);
        let call =
            ureq::post(url).header("content-type", "application/x-protobuf").header("content-encoding", encoding);
        assert_eq!(call.send(&packed[..]).unwrap().status(), 200, "{encoding}");
    }
    let blocks = rig.outlet.blocks();
    assert_eq!(blocks.iter().map(|block| count_spans(&block.payload)).sum::<u32>(), 3);
    assert!(blocks.iter().all(|block| block.payload == body));
}

#[test]
fn nothing_is_answered_before_the_verdict() {
    let rig = Rig::start(Policy::Hold, 100);
    let mut streams: Vec<_> = (0..20).map(|_| connect(rig.otlp)).collect();
    for (id, stream) in (1u8..).zip(&mut streams) {
        send(stream, "POST", "/v1/traces", &[PROTOBUF], &request(vec![span(id, 10)]));
    }
    let all_in = || rig.outlet.blocks().iter().map(|block| block.meta.spans).sum::<u32>() == 20;
    while !all_in() {
        std::thread::yield_now();
    }
    streams[0].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(streams[0].read(&mut [0]).is_err(), "an answer came before the verdict");
    streams[0].set_read_timeout(None).unwrap();
    rig.outlet.answer_all(VerdictOutcome::Durable);
    for stream in &mut streams {
        assert_eq!(read_reply(stream).unwrap().status, 200);
    }
    assert_eq!(rig.outlet.blocks().iter().map(|block| count_spans(&block.payload)).sum::<u32>(), 20);
}

#[test]
fn a_refused_block_is_503_with_retry_after() {
    for outcome in [VerdictOutcome::Refused(Refusal::Storage), VerdictOutcome::Unknown] {
        let rig = Rig::start(Policy::Answer(outcome), 100);
        let reply = rig.traces(&request(vec![span(1, 10)]));
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert_eq!(rig.fronts[0].requests_refused.get(), 1);
    }
}

#[test]
fn without_room_for_all_of_it_nothing_is_stored() {
    let rig = Rig::start(Policy::Hold, 2);
    let three_blocks = request((1..=6).map(|id| span(id, MAX_BYTES * 2 / 5)).collect());
    assert_eq!(rig.traces(&three_blocks).status, 503);
    assert!(rig.outlet.blocks().is_empty());
    let two_blocks = request((1..=4).map(|id| span(id, MAX_BYTES * 2 / 5)).collect());
    let mut stream = connect(rig.otlp);
    send(&mut stream, "POST", "/v1/traces", &[PROTOBUF], &two_blocks);
    while rig.outlet.blocks().len() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(rig.traces(&request(vec![span(1, 10)])).status, 503, "the ring is full");
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut stream).unwrap().status, 200);
}

#[test]
fn bad_spans_are_reported_and_the_rest_is_stored() {
    let rig = Rig::start(DURABLE, 100);
    let bad = Span { trace_id: vec![0; 16], ..span(2, 10) };
    let too_big = span(3, MAX_BYTES);
    let reply = rig.traces(&request(vec![span(1, 10), bad.clone(), too_big]));
    assert_eq!(reply.status, 200);
    let partial = ExportTraceServiceResponse::decode(reply.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(partial.error_message.contains("trace id"), "{}", partial.error_message);
    assert_eq!(count_spans(&rig.outlet.blocks()[0].payload), 1);
    assert_eq!((rig.fronts[0].spans_passed.get(), rig.fronts[0].spans_rejected.get()), (1, 2));
    let reply = rig.traces(&request(vec![bad]));
    let partial = ExportTraceServiceResponse::decode(reply.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!((reply.status, partial.rejected_spans), (200, 1));
}

#[test]
fn refusals_are_statuses_in_the_encoding_of_the_request() {
    let rig = Rig::with_limits(DURABLE, 100, HttpLimits { max_body_bytes: 10_000, ..limits() });
    let reply = rig.traces(b"not protobuf");
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("byte 0"), "{}", reply.message());
    assert_eq!(rig.traces(&[0; 10_001]).status, 413);
    let json = post(rig.otlp, "/v1/traces", &["content-type: application/json; charset=utf-8"], b"{");
    assert_eq!((json.status, json.json()["code"].as_i64()), (400, Some(3)));
    for path in ["/v1/metrics", "/v1/logs", "/"] {
        let reply = post(rig.otlp, path, &[PROTOBUF], b"");
        assert_eq!((reply.status, Status::decode(reply.body.as_slice()).unwrap().code), (404, 12), "{path}");
    }
    assert_eq!(post(rig.otlp, "/v1/traces", &["content-type: text/plain"], b"").status, 415);
    for encodings in [
        &["content-encoding: gzip, gzip"][..],
        &["content-encoding: br"],
        &["content-encoding: gzip", "content-encoding: gzip"],
    ] {
        let mut headers = vec![PROTOBUF];
        headers.extend_from_slice(encodings);
        assert_eq!(post(rig.otlp, "/v1/traces", &headers, b"x").status, 415, "{encodings:?}");
    }
    assert_eq!(post(rig.otlp, "/v1/traces", &[PROTOBUF, "content-encoding: gzip"], b"x").status, 400);
    let mut stream = connect(rig.otlp);
    send(&mut stream, "PUT", "/v1/traces", &[PROTOBUF], b"");
    let reply = read_reply(&mut stream).unwrap();
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    assert!(rig.outlet.blocks().is_empty());
}

#[test]
fn a_client_that_sends_far_too_much_still_hears_why() {
    let rig = Rig::start(DURABLE, 100);
    let body = vec![0; 12 << 20];
    assert_eq!(rig.traces(&body).status, 413);
    assert_eq!(post(rig.otlp, "/v1/metrics", &[PROTOBUF], &body).status, 404);
    assert_eq!(post(rig.otlp, "/v1/traces", &["content-type: text/plain"], &body).status, 415);
    assert_eq!(post(rig.bulk, "/_bulk", &[], &body).status, 413);
    assert!(rig.outlet.blocks().is_empty());
}

#[test]
fn json_is_taken_and_answered_in_json() {
    let rig = Rig::start(DURABLE, 100);
    let body = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"x"}]}]}]}"#;
    let reply = post(rig.otlp, "/v1/traces", &["content-type: application/json"], body);
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(count_spans(&rig.outlet.blocks()[0].payload), 1);
}
