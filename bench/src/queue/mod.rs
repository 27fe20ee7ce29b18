//! `queue`: what the log itself does, beside the limit that each figure has to keep.
//!
//! Real storage, real threads, the log's own pool; nothing of sockets and decoding but where sending is the measure. Blocks
//! are 64 KiB of numbered spans. Rates are per second of the appending thread's CPU time, times to wait are wall time,
//! beside what the disk itself needs in the same run. A figure that misses its limit is marked, not hidden.

mod acknowledge;
mod append;
mod backlog;
mod disk;
mod fan_out;
mod lane;

use std::path::Path;

use anyhow::Result;
use millrace::config::BlockCompression;

use lane::{Lane, at_rest};

use crate::figures::{Limit, Row, row, table};

/// Measures everything and returns the table. `directory` is on the file system that the log would be on;
/// `backlog_bytes` are written there for the recovery, and removed.
pub(crate) fn measure(directory: &Path, backlog_bytes: u64) -> Result<String> {
    let mut rows = Vec::new();
    let plain = append::unsynced(&mut Lane::open(directory, at_rest(BlockCompression::None, false)?)?)?;
    rows.extend([
        row("append without a sync", plain.gigabytes, "GB/s", Some(Limit::AtLeast(1.0))),
        row("append without a sync", plain.spans / 1e6, "M spans/s", Some(Limit::AtLeast(2.0))),
    ]);
    for (what, compression, encrypted) in [
        ("append, compressed by lz4", BlockCompression::Lz4, false),
        ("append, compressed by zstd 1", BlockCompression::Zstd { level: 1 }, false),
        ("append, encrypted", BlockCompression::None, true),
        ("append, lz4 and encrypted", BlockCompression::Lz4, true),
    ] {
        let packed = append::unsynced(&mut Lane::open(directory, at_rest(compression, encrypted)?)?)?;
        rows.push(row(what, packed.gigabytes, "GB/s", None));
    }
    rows.extend(group_commit(directory)?);
    rows.extend(acknowledgement(directory)?);
    let shares = fan_out::measure(&mut Lane::open(directory, at_rest(BlockCompression::None, false)?)?)?;
    rows.extend([
        row(
            "two more destinations, beyond their sends",
            shares.together * 100.0,
            "% of the sends",
            Some(Limit::AtMost(15.0)),
        ),
        row("the same, seconds after the others", shares.later * 100.0, "% of the sends", None),
    ]);
    let backlog = backlog::recovery(directory, backlog_bytes)?;
    rows.extend([
        row("backlog", backlog.bytes as f64 / 1e9, "GB", None),
        row("its recovery", backlog.seconds, "s", Some(Limit::AtMost(2.0))),
    ]);
    Ok(table(&rows))
}

/// Group commit by turns with what the disk does with the same writes and syncs: on a disk that others load it is that, and not
/// the log, that keeps it below half a gigabyte a second.
fn group_commit(directory: &Path) -> Result<[Row; 2]> {
    let (blocks, unsynced_bytes) = (append::GROUP_COMMITTED_BLOCKS, append::UNSYNCED_BYTES);
    let file = disk::written(directory)?;
    let mut lane = Lane::open(directory, at_rest(BlockCompression::None, false)?)?;
    append::unsynced(&mut lane)?;
    let (mut of_disk, mut of_log) = ([0.0; 3], [0.0; 3]);
    for round in 0..of_disk.len() {
        of_disk[round] = disk::group_committed(&*file, blocks, unsynced_bytes)?;
        of_log[round] = append::group_committed(&mut lane)?;
    }
    of_disk.sort_by(f64::total_cmp);
    of_log.sort_by(f64::total_cmp);
    let limit = Limit::AtLeast(f64::min(0.5, 0.8 * of_disk[1]));
    Ok([
        row("the disk's own writes with the same syncs", of_disk[1], "GB/s of wall", None),
        row("append with group commit, until durable", of_log[1], "GB/s of wall", Some(limit)),
    ])
}

/// Acknowledgement in recycled segments, and in ones that were never used, each by turns with the disk and such a file.
fn acknowledgement(directory: &Path) -> Result<[Row; 8]> {
    let mut recycled = Lane::open(directory, at_rest(BlockCompression::None, false)?)?;
    append::unsynced(&mut recycled)?;
    let [disk, log] = acknowledge::beside_disk(&*disk::written(directory)?, recycled)?;
    let new = Lane::open(directory, at_rest(BlockCompression::None, false)?)?;
    let [new_disk, new_log] = acknowledge::beside_disk(&*disk::allocated(directory)?, new)?;
    let at_most = |times, disk_ms| Some(Limit::AtMost(times * disk_ms));
    Ok([
        row("the disk's own write and fdatasync, p50", disk.p50_ms, "ms", None),
        row("durable acknowledgement, p50", log.p50_ms, "ms", at_most(2.0, disk.p50_ms)),
        row("the disk's own write and fdatasync, p99", disk.p99_ms, "ms", None),
        row("durable acknowledgement, p99", log.p99_ms, "ms", at_most(3.0, disk.p99_ms)),
        row("the disk's own in a new file, p50", new_disk.p50_ms, "ms", None),
        row("durable acknowledgement in new segments, p50", new_log.p50_ms, "ms", at_most(2.0, new_disk.p50_ms)),
        row("the disk's own in a new file, p99", new_disk.p99_ms, "ms", None),
        row("durable acknowledgement in new segments, p99", new_log.p99_ms, "ms", at_most(3.0, new_disk.p99_ms)),
    ])
}
