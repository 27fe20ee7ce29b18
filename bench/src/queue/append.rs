//! How fast the log takes blocks.
//!
//! Without a sync in CPU time of the appending thread, with group commit in wall time until they are durable. Segments
//! come from the pool, as in a process that has run for a while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use millrace::sys::clock;

use super::lane::Lane;
use crate::usage;

/// Blocks of a round: 64 MiB, so that a round meets a change of segments.
const BLOCKS: usize = 1024;
const ROUNDS: usize = 5;

/// Blocks that are appended with group commit.
pub(super) const GROUP_COMMITTED_BLOCKS: usize = ROUNDS * BLOCKS;

/// Bytes that may be unsynced, as in the product.
pub(super) const UNSYNCED_BYTES: u64 = 8 << 20;

/// What one CPU-second of the appending thread takes.
pub(super) struct Rate {
    /// 10^9 bytes of payload.
    pub(super) gigabytes: f64,
    pub(super) spans: f64,
}

/// Appends without a sync to recycled segments; the best of several rounds.
pub(super) fn unsynced(lane: &mut Lane) -> Result<Rate> {
    let mut best = Duration::MAX;
    // The first round makes the segments of the pool, and does not count.
    for round in 0..=ROUNDS {
        let before = usage::thread_cpu();
        for _ in 0..BLOCKS {
            lane.append()?;
        }
        let took = usage::thread_cpu() - before;
        if round > 0 {
            best = best.min(took);
        }
        lane.start_over()?;
    }
    let blocks_a_second = BLOCKS as f64 / best.as_secs_f64();
    Ok(Rate {
        gigabytes: blocks_a_second * lane.payload.len() as f64 / 1e9,
        spans: blocks_a_second * f64::from(lane.meta.spans),
    })
}

/// Appends beside a thread that syncs without a pause. Returns 10^9 bytes a second of wall time, from the first append
/// until the last block is durable.
pub(super) fn group_committed(lane: &mut Lane) -> Result<f64> {
    let stop = AtomicBool::new(false);
    let log = lane.log.clone();
    let began = clock::monotonic();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Acquire) {
                log.sync()?;
                log.release(&log.tail());
                if log.wants_tending() {
                    log.tend(clock::wall_ns())?;
                }
                std::thread::yield_now();
            }
            Ok(())
        });
        let appended = append_all(lane);
        stop.store(true, Ordering::Release);
        syncing.join().expect("the syncing thread does not panic").and(appended)
    })?;
    lane.log.sync()?;
    let seconds = (clock::monotonic() - began).as_secs_f64();
    lane.start_over()?;
    Ok((GROUP_COMMITTED_BLOCKS * lane.payload.len()) as f64 / 1e9 / seconds)
}

fn append_all(lane: &mut Lane) -> Result<()> {
    for _ in 0..GROUP_COMMITTED_BLOCKS {
        while lane.log.unsynced_bytes() >= UNSYNCED_BYTES {
            std::thread::yield_now();
        }
        lane.append()?;
        lane.appender.maintain(clock::monotonic(), clock::wall_ns())?;
    }
    Ok(())
}
