//! One block of 64 KiB into the log, on both real storages, when segments are recycled from the pool.
//!
//! Only the appends are on the clock. Between rounds the log is synced, everything is released and the pool tended,
//! which in the product is the sync thread's work; a first pass over the pool, before any clock starts, sees to it that
//! the segments have been written once. The directory is temporary: its file system is part of the result.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace::block::{MAX_BYTES, Made, Meta, Signal, SourceId, TARGET_BYTES};
use millrace::queue::{Appender, AtRest, Budget, FileStorage, Log, MmapStorage, Options, Storage};
use millrace::sys::clock;

const SEGMENT_BYTES: u64 = 16 << 20;
const POOL_SEGMENTS: usize = 4;
/// Appended between two releases: less than the pool holds, so that no segment is made anew.
const BLOCKS_A_ROUND: u64 = 256;

/// A log in a directory of its own, and the one block that is appended again and again.
struct Lane {
    log: Arc<Log>,
    appender: Appender,
    meta: Meta,
    payload: Vec<u8>,
    _directory: tempfile::TempDir,
}

impl Lane {
    fn open(storage: Arc<dyn Storage>) -> Lane {
        let directory = tempfile::tempdir().expect("a directory for the log");
        let options = Options {
            directory: directory.path().join("log/lane-00"),
            quarantine: directory.path().join("log/quarantine"),
            lane: 0,
            segment_bytes: SEGMENT_BYTES,
            max_payload_bytes: MAX_BYTES,
            pool_segments: POOL_SEGMENTS,
            opened_at_start: 1024,
            budget: Arc::new(Budget::new(16 * SEGMENT_BYTES, 0)),
            wall_ns: 1,
            at_rest: AtRest::default(),
        };
        let (log, appender, _) = Log::open(storage, options).expect("an empty log opens");
        let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 1);
        meta.spans = 150;
        let payload = vec![0x5a; TARGET_BYTES];
        let mut lane = Lane { log, appender, meta, payload, _directory: directory };
        lane.append(4 * BLOCKS_A_ROUND);
        lane
    }

    /// Appends `blocks`, and says how long the appends took.
    fn append(&mut self, mut blocks: u64) -> Duration {
        let mut took = Duration::ZERO;
        while blocks > 0 {
            let round = blocks.min(BLOCKS_A_ROUND);
            let began = clock::monotonic();
            for _ in 0..round {
                black_box(self.appender.append(&self.meta, black_box(&self.payload)).expect("room for a round"));
            }
            took += clock::monotonic() - began;
            blocks -= round;
            self.log.sync().expect("a sync");
            self.log.release(&self.log.tail());
            self.log.tend(1).expect("segments go back to the pool");
        }
        took
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    let storages: [(&str, Arc<dyn Storage>); 2] = [("mmap", Arc::new(MmapStorage)), ("file", Arc::new(FileStorage))];
    for (name, storage) in storages {
        let mut lane = Lane::open(storage);
        group.bench_function(name, |bencher| bencher.iter_custom(|blocks| lane.append(blocks)));
    }
    group.finish();
}

criterion_group! {
    name = blocks;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(blocks);
