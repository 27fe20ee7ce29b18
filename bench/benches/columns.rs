//! Declared fields gathered from a block of spans, and edits applied to it, beside a copy of the block and beside prost
//! decoding and encoding it.
//!
//! The block is that of the load generator: spans of about 430 bytes and 12 attributes each. Selected are the span's
//! `http.route` and `enduser.id`, the first of which is replaced in every span, in one of eight, or in none.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millrace::block::Signal;
use millrace::otlp::columns::{Columns, Field, Kind, Level, Selection, TextColumn};
use millrace::otlp::edit::{self, Patch, TextEdits};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

#[path = "../src/spans.rs"]
#[allow(dead_code, unused_imports, reason = "only the rendered request is needed here, not the walk")]
mod spans;

const START_NS: u64 = 1_747_033_200_000_000_000;
const MAX_EDIT_BYTES: usize = 1 << 20;

fn field(key: &str, write: bool) -> Field {
    Field { level: Level::Record, key: key.to_owned(), kind: Kind::Text, read: true, write }
}

/// A new value for every `step`th of `rows`.
fn patch(rows: u32, step: usize) -> Patch {
    const VALUE: &[u8] = b"/carts/REDACTED";
    let rows: Vec<u32> = (0..rows).step_by(step).collect();
    let ends = (1..=rows.len()).map(|cell| u32::try_from(cell * VALUE.len()).expect("a block is small")).collect();
    let bytes = VALUE.repeat(rows.len());
    let cells = TextColumn { rows, ends, bytes };
    Patch { text: vec![TextEdits { field: 0, cells }], ..Patch::default() }
}

fn benches(criterion: &mut Criterion) {
    for spans in [64, 512, 4096] {
        let template = spans::RequestTemplate::new(spans, START_NS);
        let mut payload = template.body.clone();
        template.number(&mut payload, 1, 0);
        let mut group = criterion.benchmark_group("columns");
        group.throughput(Throughput::Elements(spans as u64));
        let id = |name: &str| BenchmarkId::new(name, spans);
        let mut out = Vec::with_capacity(2 * payload.len());
        group.bench_function(id("copy the block"), |bencher| {
            bencher.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&payload));
                black_box(&mut out);
            });
        });
        for fields in [vec![field("http.route", true)], vec![field("http.route", true), field("enduser.id", false)]] {
            let name = format!("gather {}", fields.len());
            let selection = Selection::new(Signal::Traces, fields).expect("attributes can be anything");
            let mut columns = Columns::default();
            group.bench_function(id(&name), |bencher| {
                bencher.iter(|| selection.gather(black_box(&payload), &mut columns));
            });
        }
        let selection = Selection::new(Signal::Traces, vec![field("http.route", true)]).expect("an attribute");
        let mut columns = Columns::default();
        selection.gather(&payload, &mut columns);
        for (name, patch) in [
            ("apply to none", Patch::default()),
            ("apply to an eighth", patch(columns.rows(), 8)),
            ("apply to all", patch(columns.rows(), 1)),
        ] {
            let edits = edit::check(&selection, &columns, patch.clone(), MAX_EDIT_BYTES).expect("a good patch");
            group.bench_function(id(name), |bencher| {
                bencher.iter(|| edit::apply(black_box(&payload), &selection, &columns, &edits, &mut out));
            });
            group.bench_function(id(&format!("check and {name}")), |bencher| {
                bencher.iter(|| {
                    let edits = edit::check(&selection, &columns, patch.clone(), MAX_EDIT_BYTES).expect("a good patch");
                    edit::apply(black_box(&payload), &selection, &columns, &edits, &mut out)
                });
            });
        }
        group.bench_function(id("prost decode and encode"), |bencher| {
            bencher.iter(|| {
                let request = ExportTraceServiceRequest::decode(black_box(payload.as_slice())).expect("a request");
                out.clear();
                request.encode(&mut out).expect("memory does not end");
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = columns;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(columns);
