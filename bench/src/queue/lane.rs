//! A log in a directory of its own, filled with blocks of numbered spans.
//!
//! Sizes are the product's defaults. The directory goes with the value.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use millrace::block::{MAX_BYTES, Made, Meta, Signal, SourceId, TARGET_BYTES};
use millrace::config::BlockCompression;
use millrace::queue::{Appender, AtRest, Budget, Keys, Log, MmapStorage, Options};
use millrace::sys::clock;

use crate::spans::RequestTemplate;

/// Bytes of a segment: the product's default.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Segments that the pool keeps: the product's default.
const POOL_SEGMENTS: usize = 4;

/// A log and what is appended to it.
pub(super) struct Lane {
    pub(super) log: Arc<Log>,
    pub(super) appender: Appender,
    /// Of every block.
    pub(super) meta: Meta,
    /// One block's payload.
    pub(super) payload: Vec<u8>,
    pub(super) _directory: tempfile::TempDir,
}

impl Lane {
    /// An empty log below `parent`, with blocks that lie on the disk as `at_rest` says.
    pub(super) fn open(parent: &Path, at_rest: AtRest) -> Result<Lane> {
        let directory = tempfile::Builder::new().prefix("millrace-bench-queue-").tempdir_in(parent)?;
        let (log, appender, _) = Log::open(Arc::new(MmapStorage), options(directory.path(), at_rest))?;
        let (payload, meta) = block();
        Ok(Lane { log, appender, meta, payload, _directory: directory })
    }

    /// Appends one block.
    pub(super) fn append(&mut self) -> Result<()> {
        self.appender.append(&self.meta, &self.payload)?;
        Ok(())
    }

    /// Syncs, and gives every sealed segment back to the pool.
    pub(super) fn start_over(&mut self) -> Result<()> {
        self.log.sync()?;
        self.appender.maintain(clock::monotonic(), clock::wall_ns())?;
        self.log.release(&self.log.tail());
        self.log.tend(clock::wall_ns())?;
        Ok(())
    }
}

/// How a log below `directory` is laid out: a budget that nothing here uses up.
pub(super) fn options(directory: &Path, at_rest: AtRest) -> Options {
    Options {
        directory: directory.join("log/lane-00"),
        quarantine: directory.join("log/quarantine"),
        lane: 0,
        segment_bytes: SEGMENT_BYTES,
        max_payload_bytes: MAX_BYTES,
        pool_segments: POOL_SEGMENTS,
        opened_at_start: 1024,
        budget: Arc::new(Budget::new(1 << 40, 0)),
        wall_ns: clock::wall_ns(),
        at_rest,
    }
}

/// How blocks lie on the disk.
pub(super) fn at_rest(compression: BlockCompression, encrypted: bool) -> Result<AtRest> {
    let keys = if encrypted { Keys::parse(&"5a".repeat(32))? } else { Keys::default() };
    Ok(AtRest { compression, keys, ..AtRest::default() })
}

/// A block as large as the product closes them, and what is in it.
pub(super) fn block() -> (Vec<u8>, Meta) {
    let spans = TARGET_BYTES / (RequestTemplate::new(512, 1).body.len() / 512);
    let payload = RequestTemplate::new(spans, clock::wall_ns()).body;
    let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), clock::wall_ns());
    meta.spans = u32::try_from(spans).expect("a block has few spans");
    (payload, meta)
}
