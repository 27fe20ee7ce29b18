//! What the disk does alone with the log's pattern of writes and syncs: the limit beside which the log's figures stand.
//!
//! Files lie where the log's would, allocated as its are. One whose bytes have been written before is like a recycled
//! segment, one that is only allocated like a new one: there a sync also writes where the bytes are now.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use millrace::queue::{MmapStorage, Storage, StoredFile};
use millrace::sys::clock;

use super::lane::block;

const FILE_BYTES: u64 = 256 << 20;

/// Files start like segments with a header that is written by then.
const HEADER: [u8; 4096] = [0; 4096];

/// A file that is allocated and was never written.
pub(super) fn allocated(directory: &Path) -> Result<Arc<dyn StoredFile>> {
    let path = directory.join(format!("millrace-bench-{}.disk", std::process::id()));
    let file = MmapStorage.create(&path, FILE_BYTES)?;
    // Without a name it goes when it is closed, whatever happens.
    MmapStorage.remove(&path)?;
    file.write_at(0, &HEADER)?;
    file.sync()?;
    Ok(file)
}

/// A file whose bytes have all been written before.
pub(super) fn written(directory: &Path) -> Result<Arc<dyn StoredFile>> {
    let file = allocated(directory)?;
    let zeros = vec![0; 1 << 20];
    (0..FILE_BYTES).step_by(zeros.len()).try_for_each(|offset| file.write_at(offset, &zeros))?;
    file.sync()?;
    Ok(file)
}

/// Where blocks go, one behind the other, and from the start again.
pub(super) struct Places {
    stride: u64,
    next: u64,
}

impl Places {
    /// For blocks of so many bytes.
    pub(super) fn new(block_bytes: usize) -> Places {
        Places { stride: block_bytes.next_multiple_of(4096) as u64, next: HEADER.len() as u64 }
    }

    /// The next place.
    pub(super) fn next(&mut self) -> u64 {
        let place = if self.next + self.stride > FILE_BYTES { HEADER.len() as u64 } else { self.next };
        self.next = place + self.stride;
        place
    }
}

/// Writes `blocks` blocks beside a thread that syncs without a pause, never more than `unsynced_bytes` ahead of it. Returns
/// 10^9 bytes a second of wall time, from the first write until the last byte is durable.
pub(super) fn group_committed(file: &dyn StoredFile, blocks: usize, unsynced_bytes: u64) -> Result<f64> {
    let (payload, _) = block();
    let mut places = Places::new(payload.len());
    let all = (blocks * payload.len()) as u64;
    let (written, synced) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = clock::monotonic();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| -> Result<()> {
            while synced.load(Ordering::Acquire) < all {
                let covered = written.load(Ordering::Acquire);
                file.sync()?;
                synced.store(covered, Ordering::Release);
                std::thread::yield_now();
            }
            Ok(())
        });
        for block in 0..blocks {
            let before = (block * payload.len()) as u64;
            while before - synced.load(Ordering::Acquire) >= unsynced_bytes && !syncing.is_finished() {
                std::thread::yield_now();
            }
            file.write_at(places.next(), &payload)?;
            written.store(before + payload.len() as u64, Ordering::Release);
        }
        syncing.join().expect("the syncing thread does not panic")
    })?;
    Ok(all as f64 / 1e9 / (clock::monotonic() - began).as_secs_f64())
}
