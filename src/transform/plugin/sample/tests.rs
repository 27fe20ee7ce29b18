//! Samplers as steps of a chain: real components, blocks in, blocks out.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, TracesData};

use super::super::enrich::tests::{Bench, kept, resource};
use super::*;
use crate::plugin::tests::guest::Guest;

/// Spans of traces, by number; 0 is none.
fn block(traces: &[u8]) -> TracesData {
    let span = |trace: &u8| Span { trace_id: vec![*trace; if *trace == 0 { 0 } else { 16 }], ..Span::default() };
    TracesData { resource_spans: vec![resource("a", traces.iter().map(span).collect())] }
}

fn spans(block: &TracesData) -> Vec<&Span> {
    let scopes = block.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).collect()
}

fn trace_ids(block: &Option<TracesData>) -> Vec<u8> {
    let spans = block.as_ref().map(spans).unwrap_or_default();
    spans.iter().map(|span| span.trace_id.first().copied().unwrap_or(0)).collect()
}

/// A guest that decides so on the first two traces of every question.
fn deciding(first: u8, second: u8) -> Vec<u8> {
    let code = format!(
        "(func $transform (param i32 i32 i32) (result i32)
            (i32.store8 (i32.const 512) (i32.const {first})) (i32.store8 (i32.const 513) (i32.const {second}))
            (i32.const 176))"
    );
    Guest::of_world("sample", &code).component()
}

#[test]
fn the_spans_of_dropped_traces_go_and_those_without_a_trace_stay() {
    let bench = Bench::new();
    let mut tried = bench.step(&deciding(0, 1));
    let out = tried.run(&block(&[7, 8, 0, 7, 8])).unwrap();
    assert_eq!(trace_ids(&out), [8, 0, 8]);
    let counters = &tried.counters.plugin;
    assert_eq!((counters.rows.get(), counters.rows_dropped.get()), (2, 2), "two traces, two spans of the first");
}

#[test]
fn a_trace_that_was_kept_is_kept_without_a_question_and_a_dropped_one_is_asked_about_again() {
    let bench = Bench::new();
    let mut tried = bench.step(&deciding(1, 0));
    assert_eq!(trace_ids(&tried.run(&block(&[7, 8])).unwrap()), [7]);
    // Now 8 is the first that it is asked about.
    assert_eq!(tried.run(&block(&[7, 8])), Ok(None));
    assert_eq!(tried.counters.plugin.rows.get(), 3);
    assert_eq!(tried.run(&block(&[8, 7])), Ok(None));
    assert_eq!(tried.counters.plugin.rows.get(), 3, "both were kept");
}

#[test]
fn not_yet_and_no_opinion_keep_the_spans_and_decide_nothing() {
    let bench = Bench::new();
    let mut tried = bench.step(&deciding(2, 3));
    for asked in [2, 4] {
        assert_eq!(tried.run(&block(&[7, 8])), Ok(None));
        assert_eq!(tried.counters.plugin.rows.get(), asked);
    }
}

#[test]
fn what_a_trace_stands_for_is_written_to_its_spans() {
    let bench = Bench::new();
    let mut tried = bench.step(&kept("sample"));
    for calls in [1, 1] {
        let out = tried.run(&block(&[7, 7, 0])).unwrap().unwrap();
        let weights = |span: &Span| {
            let weights = span.attributes.iter().filter(|attribute| attribute.key == "sampling.weight");
            weights.map(|attribute| attribute.value.clone().unwrap().value.unwrap()).collect::<Vec<_>>()
        };
        let weights: Vec<Vec<Value>> = spans(&out).into_iter().map(weights).collect();
        assert_eq!(weights, [vec![Value::DoubleValue(2.0)], vec![Value::DoubleValue(2.0)], vec![]]);
        assert_eq!(tried.counters.plugin.calls.get(), calls);
    }
}

#[test]
fn a_trace_is_its_root_and_numbers_over_its_spans() {
    let span = |id: u8, parent: u8, (start, end): (u64, u64), code: i32| Span {
        trace_id: vec![id; 16],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        status: Some(Status { code, ..Status::default() }),
        ..Span::default()
    };
    let spans = vec![
        span(1, 5, (100, 150), 2),
        span(2, 5, (90, 95), 2),
        span(1, 0, (120, 400), 0),
        span(2, 6, (80, 85), 2),
        span(1, 5, (0, 0), 1),
    ];
    let fields = ALWAYS.map(|(key, kind)| Field {
        level: Level::Intrinsic,
        key: key.to_owned(),
        kind,
        read: true,
        write: false,
    });
    let selection = Selection::new(crate::block::Signal::Traces, fields.to_vec()).unwrap();
    let mut columns = Columns::default();
    let data = TracesData { resource_spans: vec![resource("a", spans)] };
    selection.gather(&prost::Message::encode_to_vec(&data), &mut columns);
    let (traces, of_row) = Sampler::default().traces(&selection, &columns);
    assert_eq!(of_row, [0, 1, 0, 1, 0].map(Some));
    let numbers = |trace: &Trace| [OfTrace::Spans, OfTrace::Errors, OfTrace::Duration].map(|what| trace.number(what));
    assert_eq!(
        (traces[0].row, numbers(&traces[0])),
        (2, [3, 1, 300]),
        "its root; a time that is not stated says nothing"
    );
    assert_eq!((traces[1].row, numbers(&traces[1])), (3, [2, 2, 15]), "the earliest, where there is no root");
}

#[test]
fn what_a_sampler_fails_on_goes_aside_and_nothing_of_it_is_remembered() {
    let bench = Bench::new();
    for (code, reason) in [
        (include_str!("../../../../tests/guests/hostile/traps.wat"), "trap"),
        (include_str!("../../../../tests/guests/hostile/loops.wat"), "time_out"),
        ("(func $misbehave (i32.store (i32.const 184) (i32.const 2)))", "refused"),
        ("(func $misbehave (i32.store8 (i32.const 512) (i32.const 9)))", "refused"),
    ] {
        let mut tried = bench.step(&Guest::of_world("sample", code).component());
        assert_eq!(tried.run(&block(&[7])), Err(reason));
        assert_eq!(tried.run(&block(&[7])), Err(reason));
    }
}
