//! One uberAgent row, from a line of JSON to bytes of OTLP, under both mappings.
//!
//! The rows are those of 40 logons of the synthetic fleet, decoded a logon at a time as a read brings them.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace::block::SourceId;
use millrace::config::{Mapping, OtherSourcetypes, Uberagent};
use millrace::fleet::{Fleet, FleetOptions, Row, Wire};
use millrace::uberagent::{Encoder, Origin};

const SEED: u64 = 1;
const LOGONS: usize = 40;
/// When the storm begins, Unix nanoseconds: a fixed time, so that every run decodes the same bytes.
const OPENS_NS: u64 = 1_747_033_200_000_000_000;

/// The lines of each burst.
type Corpus = Vec<Vec<Vec<u8>>>;

fn corpus() -> Corpus {
    let options = FleetOptions::storm(LOGONS, Duration::from_secs(1800), OPENS_NS);
    let line = |row: &Row| {
        let mut line = Vec::new();
        Wire::FluentBit.render(row, &mut line);
        line
    };
    Fleet::new(SEED, options).take(LOGONS).map(|burst| burst.rows.iter().map(line).collect()).collect()
}

fn decode(encoder: &mut Encoder, corpus: &Corpus) {
    for burst in corpus {
        for line in burst {
            black_box(encoder.json(line, Origin::default(), OPENS_NS));
        }
        encoder.end_together();
        while let Some(block) = encoder.pop_closed() {
            let mut buffer = block.payload;
            buffer.clear();
            encoder.recycle(buffer);
        }
    }
}

fn benches(criterion: &mut Criterion) {
    let corpus = corpus();
    let rows: usize = corpus.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(rows as u64));
    for (name, mapping) in [("session", Mapping::Session), ("original", Mapping::Original)] {
        let settings = Uberagent { mapping, other_sourcetypes: OtherSourcetypes::Filter };
        let mut encoder = Encoder::new(settings, SourceId(0));
        group.bench_function(name, |bencher| bencher.iter(|| decode(&mut encoder, &corpus)));
    }
    group.finish();
}

criterion_group! {
    name = rows;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(rows);
