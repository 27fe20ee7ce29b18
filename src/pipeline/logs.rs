//! The logs of all lanes: opened, recovered, and said what was found.
//!
//! There are at least as many as lanes run. A lane that an earlier configuration ran keeps its log until every destination
//! is past it; nobody appends to it.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::block::MAX_BYTES;
use crate::config::{self, MissingKey};
use crate::queue::{
    Appender, AtRest, Budget, FileStorage, Keys, Log, MmapStorage, OpenError, Options, Storage, inspect,
};
use crate::sys::{clock, file};
use crate::telemetry::ledger;

/// Sealed segments that are opened at start: what that takes is a tenth of a second.
pub const OPENED_AT_START: usize = 1024;

/// A key file is a few lines.
const MAX_KEY_FILE_BYTES: usize = 64 << 10;

/// Why the logs cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The disk budget cannot carry so many lanes.
    #[error("{0}")]
    BudgetTooSmall(String),
    /// The file system is another machine's: what a sync promises there nobody knows.
    #[error(
        "{directory} is on {kind}: the log needs a local file system (queue.allow_remote: true runs it all the same)"
    )]
    Remote {
        /// Where the logs are kept.
        directory: String,
        /// Which file system that is.
        kind: &'static str,
    },
    /// The key file cannot be read.
    #[error("queue.encryption: cannot read keys from {path}: {reason}")]
    Keys {
        /// The key file.
        path: String,
        /// What is wrong with it; never what is in it.
        reason: String,
    },
    /// The keys are a credential, and this is not the unit that it is handed to.
    #[error(
        "queue.encryption.credential: $CREDENTIALS_DIRECTORY is not set; systemd sets it for units with LoadCredential= or \
         LoadCredentialEncrypted="
    )]
    NoCredentials,
    /// A lane's log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
}

/// One lane's log, open.
pub struct OpenLog {
    /// What everybody sees.
    pub log: Arc<Log>,
    /// The writing end; unused for a lane that no longer runs.
    pub appender: Appender,
    /// The lane's balance, opened from what was durable.
    pub ledger: Arc<ledger::Lane>,
    /// What of it cannot be read for want of a key, in words.
    pub unreadable: Option<String>,
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
    at_rest: &AtRest,
    lanes: usize,
) -> Result<(Vec<OpenLog>, Arc<Budget>), LogsError> {
    if let Some(message) = config::too_small(settings.max_bytes, settings.segment_bytes, lanes) {
        return Err(LogsError::BudgetTooSmall(message));
    }
    // The directory itself may not be there yet; the state directory is.
    let parent = directory.parent().unwrap_or(directory);
    if let Ok(Some(kind)) = file::remote_file_system(parent)
        && !settings.allow_remote
    {
        return Err(LogsError::Remote { directory: directory.display().to_string(), kind });
    }
    let budget = Arc::new(Budget::new(settings.max_bytes, settings.reserve_bytes));
    let count = lanes.max(lanes_on_disk(directory));
    let cursors = inspect::lane_cursors(parent);
    let mut logs = Vec::with_capacity(count);
    for lane in 0..u32::try_from(count).expect("lanes are counted in hundreds at most") {
        let options = Options {
            directory: directory.join(format!("lane-{lane:02}")),
            quarantine: directory.join("quarantine"),
            lane,
            segment_bytes: settings.segment_bytes,
            max_payload_bytes: MAX_BYTES,
            pool_segments: settings.pool_segments,
            opened_at_start: OPENED_AT_START,
            budget: Arc::clone(&budget),
            wall_ns: clock::wall_ns(),
            at_rest: at_rest.clone(),
        };
        let (log, appender, found) = Log::open_with_cursors(Arc::clone(storage), options, &cursors)?;
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
        if let Some(key) = found.missing_key {
            tracing::error!(
                lane,
                segments = found.unreadable_segments,
                spans = found.unreadable_spans,
                %key,
                held = settings.encryption.as_ref().is_none_or(|encryption| encryption.missing_key == MissingKey::Hold),
                "a key of the log is missing: what it encrypts cannot be delivered"
            );
        }
        let ledger = ledger::Lane::default();
        ledger.open_from(found.totals);
        let unreadable = found.missing_key.map(|key| {
            let (segments, spans) = (found.unreadable_segments, found.unreadable_spans);
            format!("lane {lane}: {spans} spans in {segments} segments need the key {key}, which is missing")
        });
        logs.push(OpenLog { log, appender, ledger: Arc::new(ledger), unreadable });
    }
    Ok((logs, budget))
}

/// How blocks lie on the disk, with the keys of the key file.
pub fn at_rest(settings: &config::Queue) -> Result<AtRest, LogsError> {
    let compression = settings.compression;
    let Some(encryption) = &settings.encryption else { return Ok(AtRest { compression, ..AtRest::default() }) };
    let path = encryption.key_file.as_ref().ok_or(LogsError::NoCredentials)?;
    let keys = read_keys(path).map_err(|reason| LogsError::Keys { path: path.display().to_string(), reason })?;
    Ok(AtRest { compression, keys, missing_key: encryption.missing_key })
}

/// Reads a key file, and says so when others than its owner can.
pub fn read_keys(path: &Path) -> Result<Keys, String> {
    let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mode = file.metadata().map_err(|error| error.to_string())?.mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:04o}", mode & 0o7777);
        tracing::warn!(path = %path.display(), mode, "others can read the keys of the log: chmod 0600");
    }
    // Room for the whole file at once: a buffer that grows would leave keys in what it gives back.
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE_BYTES));
    let within = file.by_ref().take(MAX_KEY_FILE_BYTES as u64).read_to_string(&mut text);
    within.map_err(|error| error.to_string())?;
    if text.len() == MAX_KEY_FILE_BYTES {
        return Err(format!("more than {MAX_KEY_FILE_BYTES} bytes"));
    }
    Keys::parse(&text).map_err(|error| error.to_string())
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
