//! The log of a lane: queue, buffer, spill and write-ahead log in one.
//!
//! Append-only segments on a [`Storage`] (mapped, `pread`/`pwrite`, or simulated), written by one thread, made durable by
//! another, read by any number. It knows blocks and positions; of sockets, backends and policies it knows nothing: who may
//! wait, drop or jump is decided in `pipeline`. The formats are in `format` (segment), `crate::block` (entry header), `mark`,
//! `slots`, `state` and `cursor`.
//!
//! ```text
//! STATE/log/lane-00/seg-0000000000000001.log   entries        STATE/log/lane-00/free/   files to be reused
//! STATE/log/lane-00/state                      lane state     STATE/log/quarantine/     files that are not ours
//! STATE/log/lane-00/index                      a hint
//! STATE/destinations/NAME/cursor               a cursor         STATE/LOCK                one process
//! ```

mod append;
mod budget;
mod crc32c;
mod cursor;
mod extent;
mod fields;
mod format;
mod index;
pub mod inspect;
mod keys;
mod list;
mod lock;
mod log;
mod mark;
mod packing;
mod passed;
mod pool;
mod position;
mod progress;
mod quota;
mod read;
mod recover;
mod sabotage;
mod scan;
mod segment;
mod slots;
mod state;
mod storage;
mod tend;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use append::{AppendError, Appender};
pub use budget::Budget;
pub use crc32c::crc32c;
pub use cursor::{Cursor, LaneCursor, MAX_LANES};
pub use keys::{KeyError, KeyId, Keys};
pub use lock::StateLock;
pub use log::{AtRest, Log, LogStats, Options, SyncError};
pub use position::Position;
pub use read::{Ahead, Entry, Reader};
pub use recover::{OpenError, Recovered};
pub use storage::{FileStorage, MmapStorage, Storage, StoredFile};

impl Log {
    /// Opens the log of a lane, whatever happened to its files, with its writing end and what was found.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use millrace::block::{Made, Meta, Signal, SourceId};
    /// # use millrace::queue::{AtRest, Budget, Cursor, Entry, Log, MmapStorage, Options, Storage};
    /// # use millrace::telemetry::ledger::DestinationTotals;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let state = directory.path();
    /// let storage: Arc<dyn Storage> = Arc::new(MmapStorage);
    /// let budget = Arc::new(Budget::new(1 << 30, 0));
    /// let options = Options {
    ///     directory: state.join("log/lane-00"),
    ///     quarantine: state.join("log/quarantine"),
    ///     lane: 0,
    ///     segment_bytes: 4 << 20,
    ///     max_payload_bytes: millrace::block::MAX_BYTES,
    ///     pool_segments: 2,
    ///     budget,
    ///     wall_ns: 1,
    ///     opened_at_start: 1024,
    ///     at_rest: AtRest::default(),
    /// };
    /// let (log, mut appender, recovered) = Log::open(Arc::clone(&storage), options)?;
    /// assert_eq!(recovered.blocks, 0);
    ///
    /// // The lane's writer: append, then once a turn maintain, which also wakes the readers.
    /// let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 1);
    /// meta.spans = 3;
    /// let sequence = appender.append(&meta, b"payload")?;
    /// appender.maintain(Duration::ZERO, 1)?;
    ///
    /// // The sync thread: sync, tell those who wait, then tend.
    /// assert!(log.sync()? >= sequence);
    /// log.tend(1)?;
    ///
    /// // A destination: read, send, commit, release what every destination is past.
    /// let mut cursor = Cursor::open(&*storage, &state.join("destinations/otlp"))?;
    /// let from = cursor.lane(&log).map_or(log.oldest(), |lane| lane.position);
    /// let mut reader = log.reader(from);
    /// let Some(Entry::Block { payload, end, .. }) = reader.next() else { panic!() };
    /// assert_eq!(&payload[..], b"payload");
    /// let totals = DestinationTotals { delivered: 3, ..Default::default() };
    /// cursor.commit(&[(&log, end, totals)])?;
    /// log.release(&end);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<(Arc<Log>, Appender, Recovered), OpenError> {
        recover::open(storage, options, &[])
    }

    /// As [`Log::open`], of a log that destinations have read. What their cursors have passed was durable, also when nothing
    /// in the log says so any more: it counts as appended, and what is missing of it as lost.
    pub fn open_with_cursors(
        storage: Arc<dyn Storage>,
        options: Options,
        cursors: &[LaneCursor],
    ) -> Result<(Arc<Log>, Appender, Recovered), OpenError> {
        recover::open(storage, options, cursors)
    }
}
