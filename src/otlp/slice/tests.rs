//! Cutting against prost: every piece decodes, and together they hold the same spans under the same wrappers.

use fastrand::Rng;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::*;
use crate::block::Signal;
use crate::otlp::check::check;
use crate::otlp::view;

type Placed = (Option<Resource>, String, Option<InstrumentationScope>, String, Span);

/// Every span with all that is around it, in order.
fn placed(payload: &[u8]) -> Vec<Placed> {
    let request = ExportTraceServiceRequest::decode(payload).unwrap();
    let mut out = Vec::new();
    for resource in request.resource_spans {
        for scope in resource.scope_spans {
            for span in scope.spans {
                out.push((
                    resource.resource.clone(),
                    resource.schema_url.clone(),
                    scope.scope.clone(),
                    scope.schema_url.clone(),
                    span,
                ));
            }
        }
    }
    out
}

fn requests(seed: u64) -> impl Iterator<Item = (Rng, Vec<u8>)> {
    let mut rng = Rng::with_seed(seed);
    (0..200).map(move |_| (rng.fork(), crate::otlp::check::tests::request(&mut rng, 8).encode_to_vec()))
}

fn summary(payload: &[u8]) -> Summary {
    check(payload).unwrap().summary
}

#[test]
fn pieces_hold_everything_within_their_bounds() {
    for (mut rng, payload) in requests(1) {
        let all = placed(&payload);
        let bounds = Bounds { max_bytes: rng.usize(3_000..20_000), max_spans: rng.u32(1..12) };
        let cut = pieces(&payload, bounds);
        assert_eq!(cut.too_big_spans, 0, "the generator's spans are under 3 kB");
        let mut together = Vec::new();
        for piece in &cut.pieces {
            assert!(piece.payload.len() <= bounds.max_bytes && piece.summary.spans <= bounds.max_spans);
            assert_eq!(piece.summary, summary(&piece.payload));
            assert!(piece.summary.spans > 0);
            together.extend(placed(&piece.payload));
        }
        assert_eq!(together, all);
    }
}

#[test]
fn pieces_by_rows_hold_so_many_each_and_together_everything() {
    for (mut rng, payload) in requests(7) {
        let rows = rng.u32(1..6);
        let cut = by_rows(Signal::Traces, &payload, rows);
        let (last, full) = cut.split_last().map_or((0, &[][..]), |(last, full)| (last.summary.spans, full));
        assert!(full.iter().all(|piece| piece.summary.spans == rows) && last <= rows);
        assert!(cut.iter().all(|piece| piece.summary == summary(&piece.payload)));
        assert_eq!(cut.iter().flat_map(|piece| placed(&piece.payload)).collect::<Vec<_>>(), placed(&payload));
    }
    assert!(by_rows(Signal::Logs, b"", 3).is_empty());
}

#[test]
fn a_span_that_fits_nowhere_is_counted_and_the_others_are_kept() {
    for (_, payload) in requests(2) {
        let all = placed(&payload);
        let cut = pieces(&payload, Bounds { max_bytes: 700, max_spans: u32::MAX });
        let together: Vec<_> = cut.pieces.iter().flat_map(|piece| placed(&piece.payload)).collect();
        assert_eq!(together.len() + cut.too_big_spans as usize, all.len());
        assert!(cut.pieces.iter().all(|piece| piece.payload.len() <= 700));
        let mut rest = all.iter();
        assert!(together.iter().all(|span| rest.any(|other| other == span)), "order is kept");
    }
}

#[test]
fn a_range_is_those_spans() {
    for (mut rng, payload) in requests(3) {
        let all = placed(&payload);
        let spans = u32::try_from(all.len()).unwrap();
        let start = rng.u32(0..=spans);
        let end = rng.u32(start..=spans);
        let mut out = b"kept".to_vec();
        range(&payload, start..end, &mut out);
        assert_eq!(&out[..4], b"kept");
        assert_eq!(placed(&out[4..]), all[start as usize..end as usize]);
        assert_eq!(count_spans(&payload), spans);
    }
}

#[test]
fn two_parts_are_the_whole() {
    for (mut rng, payload) in requests(6) {
        let all = placed(&payload);
        let is_chosen: Vec<bool> = all.iter().map(|_| rng.bool()).collect();
        let positions: Vec<u32> = (0..).zip(&is_chosen).filter(|(_, is)| **is).map(|(position, _)| position).collect();
        let (mut chosen, mut rest) = (Vec::new(), Vec::new());
        let summaries = part(Signal::Traces, &payload, &positions, &mut chosen, &mut rest);
        assert_eq!(summaries, (summary(&chosen), summary(&rest)));
        let of =
            |what: bool| all.iter().zip(&is_chosen).filter(move |(_, is)| **is == what).map(|(span, _)| span.clone());
        assert_eq!((placed(&chosen), placed(&rest)), (of(true).collect(), of(false).collect()));
    }
}

#[test]
fn log_records_are_cut_by_their_own_time() {
    // ResourceLogs, ScopeLogs, two records with a time (field 1), a dropped count (7) and flags (8).
    let record = |time| [&[0x12, 16, 0x09, time, 0, 0, 0, 0, 0, 0, 0, 0x38, 3, 0x45], [9; 4].as_slice()].concat();
    let payload = [&[0x0a, 38, 0x12, 36][..], &record(5), &record(7)].concat();
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    let summaries = part(Signal::Logs, &payload, &[1], &mut chosen, &mut rest);
    let expected = |time| Summary { spans: 1, first_start_ns: time, last_end_ns: time };
    assert_eq!(summaries, (expected(7), expected(5)));
}

#[test]
fn what_is_left_out_is_what_was_named() {
    for (mut rng, payload) in requests(4) {
        let all = placed(&payload);
        let bodies: Vec<usize> = view::spans(&payload)
            .map(|(_, _, span)| span.body().as_ptr() as usize - payload.as_ptr() as usize)
            .collect();
        let bad: Vec<bool> = all.iter().map(|_| rng.u8(0..3) == 0).collect();
        let offsets: Vec<usize> = bodies.iter().zip(&bad).filter(|(_, bad)| **bad).map(|(body, _)| *body).collect();
        let mut out = Vec::new();
        without(&payload, &offsets, &mut out);
        let left: Vec<_> = all.into_iter().zip(bad).filter(|(_, bad)| !bad).map(|(span, _)| span).collect();
        assert_eq!(placed(&out), left);
    }
}

#[test]
fn views_read_what_prost_reads() {
    for (_, payload) in requests(5) {
        let all = placed(&payload);
        let views: Vec<_> = view::spans(&payload).collect();
        assert_eq!(views.len(), all.len());
        for ((resource, scope, span), (expected_resource, _, expected_scope, _, expected)) in views.into_iter().zip(all)
        {
            let read = span.read();
            assert_eq!(read.trace_id.unwrap().bytes().as_slice(), expected.trace_id);
            assert_eq!(span.trace_id(), read.trace_id);
            assert_eq!(read.span_id.unwrap().bytes().as_slice(), expected.span_id);
            assert_eq!(read.parent_span_id.map(|id| id.bytes().to_vec()).unwrap_or_default(), expected.parent_span_id);
            assert_eq!((read.name, read.kind), (expected.name.as_str(), u64::try_from(expected.kind).unwrap()));
            assert_eq!((read.start_ns, read.end_ns), (expected.start_time_unix_nano, expected.end_time_unix_nano));
            assert_eq!(span.times(), (read.start_ns, read.end_ns));
            let status = expected.status.unwrap_or_default();
            assert_eq!(
                (read.status_code, read.status_message),
                (u64::try_from(status.code).unwrap(), status.message.as_str())
            );
            let keys = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
                attributes.iter().map(|attribute| attribute.key.clone()).collect::<Vec<_>>()
            };
            assert_eq!(span.attributes().map(|a| a.key.to_owned()).collect::<Vec<_>>(), keys(&expected.attributes));
            let resource_keys: Vec<_> = resource.attributes().map(|a| a.key.to_owned()).collect();
            assert_eq!(resource_keys, keys(&expected_resource.unwrap_or_default().attributes));
            assert_eq!(scope.name(), expected_scope.unwrap_or_default().name);
            assert_eq!(span.links().count(), expected.links.len());
        }
    }
}
