//! One block through the rings between a producer and its lane's writer: push, pop, buffer back, verdict.
//!
//! Both ends are on one thread, so this is the work alone, without the passing of cache lines between cores and without
//! waking anybody. A round fills the ring and answers it with one verdict, as a writer's turn does.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::sync::Parker;
use millrace::block::{Block, Made, Meta, Outlet, Signal, SourceId, VerdictOutcome};
use millrace::pipeline::outlet::pair;
use millrace::sys::doorbell::Doorbell;

const BLOCKS: usize = 64;

fn benches(criterion: &mut Criterion) {
    let parker = Parker::new();
    let doorbell = Doorbell::new().expect("a doorbell");
    let (mut outlet, mut writer, _waiting) = pair(BLOCKS, u64::MAX, doorbell, parker.unparker().clone());
    let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 1);
    meta.spans = 150;
    let mut round = || {
        let mut tickets = None;
        for _ in 0..BLOCKS {
            let block = Block::open(meta, outlet.spare());
            let ticket = outlet.push(block);
            tickets = Some((tickets.map_or(ticket, |(first, _)| first), ticket));
        }
        while let Some(block) = writer.pop() {
            writer.recycle(black_box(block).payload);
        }
        let (first, last) = tickets.expect("a round pushes");
        writer.answer(first, last, VerdictOutcome::Durable);
        outlet.verdict()
    };
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(BLOCKS as u64));
    group.bench_function("push, pop, answer", |bencher| bencher.iter(|| black_box(round())));
    group.finish();
}

criterion_group! {
    name = rings;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(rings);
