//! The logs of all lanes: opened, recovered, and said what was found.
//!
//! There are at least as many as lanes run. A lane that an earlier configuration ran keeps its log until every destination
//! is past it; nobody appends to it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::block::MAX_BYTES;
use crate::config;
use crate::queue::{Appender, Budget, FileStorage, Log, MmapStorage, OpenError, Options, Storage};
use crate::sys::clock;
use crate::telemetry::ledger;

/// One lane's log, open.
pub struct OpenLog {
    /// What everybody sees.
    pub log: Arc<Log>,
    /// The writing end; unused for a lane that no longer runs.
    pub appender: Appender,
    /// The lane's balance, opened from what was durable.
    pub ledger: Arc<ledger::Lane>,
}

/// The storage that the configuration asks for.
#[must_use]
pub fn storage(kind: config::StorageKind) -> Arc<dyn Storage> {
    match kind {
        config::StorageKind::Mmap => Arc::new(MmapStorage),
        config::StorageKind::File => Arc::new(FileStorage),
    }
}

/// Opens the logs of `lanes` lanes and of every other that `directory` has.
pub fn open(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    settings: &config::Queue,
    lanes: usize,
) -> Result<(Vec<OpenLog>, Arc<Budget>), OpenError> {
    let budget = Arc::new(Budget::new(settings.max_bytes, settings.reserve_bytes));
    let count = lanes.max(lanes_on_disk(directory));
    let mut logs = Vec::with_capacity(count);
    for lane in 0..u32::try_from(count).expect("lanes are counted in hundreds at most") {
        let options = Options {
            directory: directory.join(format!("lane-{lane:02}")),
            quarantine: directory.join("quarantine"),
            lane,
            segment_bytes: settings.segment_bytes,
            max_payload_bytes: MAX_BYTES,
            pool_segments: settings.pool_segments,
            budget: Arc::clone(&budget),
            wall_ns: clock::wall_ns(),
        };
        let (log, appender, found) = Log::open(Arc::clone(storage), options)?;
        if found.segments > 0 {
            tracing::info!(
                lane,
                segments = found.segments,
                blocks = found.blocks,
                tail_blocks = found.tail_blocks,
                "the log was recovered"
            );
        }
        if found.lost_blocks > 0 || found.quarantined > 0 || found.state_lost {
            tracing::error!(
                lane,
                lost_blocks = found.lost_blocks,
                quarantined = found.quarantined,
                state_lost = found.state_lost,
                "parts of the log were damaged"
            );
        }
        let ledger = ledger::Lane::default();
        ledger.open_from(found.totals);
        logs.push(OpenLog { log, appender, ledger: Arc::new(ledger) });
    }
    Ok((logs, budget))
}

/// One more than the highest lane that has a directory; 0 when there is none.
fn lanes_on_disk(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let numbers = entries.filter_map(|entry: io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix("lane-")?.parse::<usize>().ok()
    });
    numbers.map(|lane| lane + 1).max().unwrap_or(0)
}
