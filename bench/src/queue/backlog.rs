//! How long a log with a large backlog takes to open.
//!
//! It is left as a kill leaves it: the last segment has no footer, the others have. Its blocks are in the page cache as far
//! as that has room, and what was found is compared with what was written.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use millrace::queue::{AtRest, Log, MmapStorage};
use millrace::sys::clock;

use super::lane::{block, options};

/// Unsynced bytes after which the backlog is synced and tended while it is made.
const SYNC_BYTES: u64 = 64 << 20;

/// A backlog and its recovery.
pub(super) struct Backlog {
    /// Bytes of payload in it.
    pub(super) bytes: u64,
    /// Wall time of opening it.
    pub(super) seconds: f64,
}

/// Writes at least `bytes` below `parent`, opens them again, and removes them.
pub(super) fn recovery(parent: &Path, bytes: u64) -> Result<Backlog> {
    let directory = tempfile::Builder::new().prefix("millrace-bench-backlog-").tempdir_in(parent)?;
    let (payload, meta) = block();
    let blocks = bytes.div_ceil(payload.len() as u64);
    let (log, mut appender, _) = Log::open(Arc::new(MmapStorage), options(directory.path(), AtRest::default()))?;
    for _ in 0..blocks {
        appender.append(&meta, &payload)?;
        if log.unsynced_bytes() >= SYNC_BYTES {
            log.sync()?;
            log.tend(clock::wall_ns())?;
        }
    }
    log.sync()?;
    drop((log, appender));
    let began = clock::monotonic();
    let (_log, appender, _) = Log::open(Arc::new(MmapStorage), options(directory.path(), AtRest::default()))?;
    let seconds = (clock::monotonic() - began).as_secs_f64();
    let found = appender.totals().appended;
    ensure!(found == blocks * u64::from(meta.spans), "{found} spans of {blocks} blocks were found");
    Ok(Backlog { bytes: blocks * payload.len() as u64, seconds })
}
