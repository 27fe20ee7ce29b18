//! What a run is like: drawn from its seed, fixed for the run.
//!
//! Sizes are small enough to meet every boundary in minutes; one run in eight has the sizes of production instead.

use std::time::Duration;

use fastrand::Rng;

use crate::block::{MAX_BYTES, TARGET_BYTES};
use crate::config::{AckPolicy, Admission, Batch, BlockCompression, Compression, Requirement, Retry, StartAt};
use crate::transform::scripted::Scripted;

/// Destinations that a run knows; each start has some of them.
pub(super) const MOST_DESTINATIONS: usize = 3;

/// Of so many runs one has a disk that is weak.
const WEAK_DISKS: u64 = 16;

/// What a run is like.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) most_lanes: usize,
    pub(super) segment_bytes: u64,
    pub(super) max_payload_bytes: usize,
    pub(super) pool_segments: usize,
    /// A few, so that segments are opened and closed while they are read.
    pub(super) opened_at_start: usize,
    pub(super) compression: BlockCompression,
    pub(super) budget_bytes: u64,
    pub(super) ack: AckPolicy,
    pub(super) admission: Admission,
    pub(super) sync_interval: Duration,
    pub(super) sync_bytes: u64,
    pub(super) ring_blocks: usize,
    pub(super) ring_spans: u64,
    pub(super) destinations: Vec<DestinationPlan>,
    /// No start has any destination: the log is a retention.
    pub(super) without_destinations: bool,
    /// One span in so many is refused by every backend; 0 is none.
    pub(super) poison_every: u64,
    /// What the lanes' transforms do at first, and the bytes of the pieces that they leave.
    pub(super) transform: Scripted,
    pub(super) piece_bytes: usize,
    /// They are plugins that have a thread of their own, and need up to this for a block.
    pub(super) plugins_need: Option<Duration>,
    /// Reloads bring others as it runs.
    pub(super) exchanges: bool,
    /// Mean time between requests of one gateway.
    pub(super) pace: Duration,
    /// Mean time between two troubles.
    pub(super) trouble: Duration,
    /// It is that of a disk alone whose syncs fail and that is often full.
    pub(super) weak_disk: bool,
    /// How long there is trouble.
    pub(super) troubled_for: Duration,
    /// Of 256 wake-ups, those that come to nothing.
    pub(super) lost_wakes: u8,
}

/// A destination as every start configures it.
#[derive(Clone, Debug)]
pub(super) struct DestinationPlan {
    pub(super) name: String,
    pub(super) requirement: Requirement,
    pub(super) start_at: StartAt,
    pub(super) encoded_only: bool,
    pub(super) batch: Batch,
    pub(super) retry: Retry,
    pub(super) compression: Compression,
}

impl Scenario {
    /// The scenario of a seed.
    pub(super) fn new(seed: u64) -> Scenario {
        let mut random = Rng::with_seed(seed);
        let as_in_production = random.u8(..) < 32;
        let most_lanes = random.usize(1..=2);
        let max_payload_bytes = if as_in_production { MAX_BYTES } else { TARGET_BYTES + 8 * 1024 };
        let segment_bytes = if as_in_production { 4 << 20 } else { 4096 * random.u64(24..48) };
        let pool_segments = random.usize(1..=3);
        // Fewer than the pool, a spare, the active one and one to be drained would be refused by the configuration.
        let segments = pool_segments as u64 + random.u64(4..10);
        let budget_bytes = segment_bytes * segments * most_lanes as u64;
        let (transform, plugins_need, exchanges) = transform(seed);
        let weak_disk = seed % WEAK_DISKS == WEAK_DISKS - 1;
        let milliseconds = |range: std::ops::Range<u64>, random: &mut Rng| Duration::from_millis(random.u64(range));
        Scenario {
            most_lanes,
            segment_bytes,
            max_payload_bytes,
            pool_segments,
            opened_at_start: random.usize(1..8),
            compression: if random.u8(..) < 64 { BlockCompression::Lz4 } else { BlockCompression::None },
            budget_bytes,
            ack: if random.u8(..) < 48 { AckPolicy::Appended } else { AckPolicy::Durable },
            admission: if random.bool() { Admission::Block } else { Admission::DropNewest },
            sync_interval: milliseconds(50..300, &mut random),
            sync_bytes: random.u64(20_000..400_000),
            ring_blocks: random.usize(3..20),
            ring_spans: random.u64(100..3_000),
            destinations: (0..MOST_DESTINATIONS).map(|index| plan(index, budget_bytes, &mut random)).collect(),
            without_destinations: random.u8(..) < 16,
            transform,
            plugins_need,
            exchanges,
            piece_bytes: if as_in_production { MAX_BYTES } else { 24 * 1024 },
            poison_every: if random.u8(..) < 80 { random.u64(300..1_500) } else { 0 },
            pace: milliseconds(80..1_200, &mut random),
            trouble: milliseconds(1_000..20_000, &mut random) / if weak_disk { 4 } else { 1 },
            weak_disk,
            troubled_for: milliseconds(240_000..480_000, &mut random),
            lost_wakes: if random.bool() { 0 } else { random.u8(1..60) },
        }
    }
}

/// One run in three has transforms, every other of those on a thread of their own, which needs from a moment to a second
/// for a block, every other exchanges them; drawn apart, so that the others go as they would without.
fn transform(seed: u64) -> (Scripted, Option<Duration>, bool) {
    let mut random = Rng::with_seed(!seed);
    if random.u8(..) >= 85 {
        return (Scripted::default(), None, false);
    }
    let transform = scripted(&mut random);
    let plugins_need = random.bool().then(|| Duration::from_millis(1 << random.u8(0..11)));
    (transform, plugins_need, random.u8(..) < 128)
}

/// What transforms do that do something.
pub(super) fn scripted(random: &mut Rng) -> Scripted {
    Scripted { drop_every: random.u64(2..300), aside_every: random.u64(300..5_000), rewrite_every: random.u64(0..100) }
}

fn plan(index: usize, budget_bytes: u64, random: &mut Rng) -> DestinationPlan {
    // The first is what a run is about; the others may lag, or not take everything.
    let required = index == 0 || random.u8(..) < 90;
    let optional = Requirement::Optional { max_lag_bytes: budget_bytes / random.u64(2..6) };
    let send_spans = random.usize(1..200);
    let max_request_bytes = random.usize(6_000..300_000);
    DestinationPlan {
        name: format!("backend-{index}"),
        requirement: if required { Requirement::Required } else { optional },
        start_at: if random.bool() { StartAt::Oldest } else { StartAt::Tail },
        encoded_only: index == 2 && random.bool(),
        batch: Batch {
            send_spans,
            timeout: Duration::from_millis(random.u64(1..500)),
            max_spans: (random.u8(..) < 64).then_some(send_spans),
            max_request_bytes,
        },
        retry: Retry {
            initial: Duration::from_millis(random.u64(50..1_000)),
            max: Duration::from_secs(random.u64(5..60)),
            max_concurrency: random.usize(1..=4),
        },
        compression: if random.bool() { Compression::Gzip } else { Compression::None },
    }
}
