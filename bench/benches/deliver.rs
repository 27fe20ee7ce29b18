//! The decisions of one destination, a request at a time: two blocks offered, one request sent, its answer settled.
//!
//! The clock is virtual and the peer takes everything after a millisecond, so this is the state machine alone: no
//! sockets, no payloads, and the breaker stays closed.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace::block::{Signal, TARGET_BYTES};
use millrace::config::{Batch, Compression, Retry};
use millrace::deliver::{Action, BlockOffer, Delivery, Outcome};

const BLOCKS_A_REQUEST: u64 = 2;
const SPANS_A_BLOCK: u32 = 256;
const BATCH: Batch =
    Batch { send_spans: 512, timeout: Duration::from_millis(200), max_spans: None, max_request_bytes: 1 << 20 };
const RETRY: Retry = Retry { initial: Duration::from_millis(500), max: Duration::from_secs(60), max_concurrency: 4 };

/// Offers what makes one request and sees it through; `now` is when it is sent.
fn cycle(delivery: &mut Delivery, now: Duration) {
    for _ in 0..BLOCKS_A_REQUEST {
        delivery.offer(BlockOffer { signal: Signal::Traces, spans: SPANS_A_BLOCK, bytes: TARGET_BYTES }, now);
    }
    while let Action::Send(request) = delivery.poll(now) {
        black_box(delivery.answer(request.id, Outcome::Accepted, now + Duration::from_millis(1)));
    }
}

fn benches(criterion: &mut Criterion) {
    let mut delivery = Delivery::new(RETRY, BATCH, Compression::None, 1);
    let mut now = Duration::from_secs(1);
    let mut cycles = 0;
    let mut group = criterion.benchmark_group("deliver");
    group.throughput(Throughput::Elements(1));
    group.bench_function("offer, poll, answer", |bencher| {
        bencher.iter(|| {
            now += Duration::from_millis(2);
            cycles += 1;
            cycle(&mut delivery, now);
        });
    });
    group.finish();
    assert_eq!(delivery.frontier(), cycles * BLOCKS_A_REQUEST, "a cycle settles what it offers");
}

criterion_group! {
    name = requests;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(requests);
