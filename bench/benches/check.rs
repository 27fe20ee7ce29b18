//! One OTLP request, checked and summed up as the gateway does before it passes the bytes on.
//!
//! The request is that of the load generator: 512 spans of about 430 bytes and 12 attributes each.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace::otlp::check::check;

#[path = "../src/spans.rs"]
#[allow(dead_code, unused_imports, reason = "only the rendered request is needed here, not the walk")]
mod spans;

const SPANS: usize = 512;
const START_NS: u64 = 1_747_033_200_000_000_000;

fn benches(criterion: &mut Criterion) {
    let template = spans::RequestTemplate::new(SPANS, START_NS);
    let mut request = template.body.clone();
    template.number(&mut request, 1, 0);
    let checked = check(&request).expect("the generator's request is valid");
    assert_eq!(checked.summary.spans as usize, SPANS);
    let mut group = criterion.benchmark_group("check");
    group.throughput(Throughput::Elements(SPANS as u64));
    group.bench_function("512 spans", |bencher| bencher.iter(|| check(black_box(&request)).is_ok()));
    group.finish();
}

criterion_group! {
    name = requests;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(requests);
