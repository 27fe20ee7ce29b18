//! A block in several calls: the plugin sees no more rows than it wants, and all of its answers count, or none.

use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};

use super::super::enrich::tests::{Bench, resource};
use crate::plugin::tests::guest::Guest;

/// A guest that wants so many rows, drops the first of each call, and `then` does something with `$rows`.
fn wanting(rows: u32, then: &str) -> Vec<u8> {
    let code = format!(
        "(func $configure (param i32 i32) (result i32)
            (i32.store (i32.const 148) (i32.const {rows})) (i32.const 128))
        (func $transform (param $rows i32) (param i32 i32) (result i32)
            {then}
            (i32.store (i32.const 180) (i32.const 600)) (i32.store (i32.const 184) (i32.const 1))
            (i32.store (i32.const 600) (i32.const 0)) (i32.const 176))"
    );
    Guest::of_world("transform", &code).component()
}

fn numbered(numbers: impl Iterator<Item = u8>) -> TracesData {
    let spans: Vec<Span> = numbers.map(|number| Span { span_id: vec![number; 8], ..Span::default() }).collect();
    let (first, second) = spans.split_at(spans.len() / 2);
    TracesData { resource_spans: vec![resource("a", first.to_vec()), resource("b", second.to_vec())] }
}

fn numbers(block: &TracesData) -> Vec<u8> {
    let scopes = block.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| span.span_id[0]).collect()
}

#[test]
fn rows_are_shown_as_many_at_a_time_as_the_plugin_wants() {
    let bench = Bench::new();
    let mut tried = bench.step(&wanting(64, ""));
    let out = tried.run(&numbered(0..150)).unwrap().unwrap();
    let expected: Vec<u8> = (0..150).filter(|number| number % 64 != 0).collect();
    assert_eq!(numbers(&out), expected, "one of each call is dropped, over the border of resources too");
    let counters = &tried.counters.plugin;
    assert_eq!((counters.calls.get(), counters.rows.get(), counters.rows_dropped.get()), (3, 150, 3));
    assert_eq!(numbers(&tried.run(&numbered(0..64)).unwrap().unwrap()), Vec::from_iter(1..64), "one call is enough");
    assert_eq!(tried.counters.plugin.calls.get(), 4);
}

#[test]
fn a_call_that_fails_takes_back_those_before_it() {
    let bench = Bench::new();
    let last = "(if (i32.eq (local.get $rows) (i32.const 22)) (then unreachable))";
    let mut tried = bench.step(&wanting(64, last));
    assert_eq!(tried.run(&numbered(0..150)), Err("trap"));
    let counters = &tried.counters.plugin;
    assert_eq!(
        (counters.calls.get(), counters.rows_dropped.get()),
        (6, 0),
        "nothing of it happened, though asked twice"
    );
    assert_eq!((counters.traps.get(), tried.counters.retries.get()), (1, 1), "one block failed");
    let out = tried.run(&numbered(0..128)).unwrap().unwrap();
    assert_eq!(numbers(&out).len(), 126);
    assert_eq!(tried.counters.plugin.rows_dropped.get(), 2);
}
