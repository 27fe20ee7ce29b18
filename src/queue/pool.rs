//! Where segments come from and where they go: a spare kept ready, a pool of recycled files, unlinking beyond it.
//!
//! Runs on the sync thread (`Log::tend`), and on the writer only when no spare is ready in time. The order is what
//! crash safety rests on: a file leaves the log by a rename whose directories are synced *before* its header is
//! overwritten, and enters it by a rename after its new header was synced. A file of the pool is never read before that.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::{Bound, Budget};
use super::format::{HEADER_OFFSETS, SegmentHeader, segment_name};
use super::keys::KeyId;
use super::log::Options;
use super::sabotage::{Sabotage, planted};
use super::scan::may_pass;
use super::segment::Segment;
use super::storage::{Storage, StoredFile};
use crate::block::HeaderKey;
use crate::config::BlockCompression;

/// A segment file with a fresh header and no entries, durably named.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn StoredFile>,
}

/// Why there is no spare.
#[derive(Debug)]
pub(super) enum NoSpare {
    /// The disk budget is used up.
    Full,
    /// Storage failed.
    Storage(io::Error),
}

/// A file in `free/`. It stays open, and mapped where the storage maps: its next use meets no page fault.
#[derive(Debug)]
pub(super) struct Free {
    pub(super) name: String,
    pub(super) file: Arc<dyn StoredFile>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Ascending in their ids.
    spares: VecDeque<Spare>,
    free: Vec<Free>,
    next_segment: u64,
    last_free: u64,
}

/// The files in `free/` that the pool has room for, and the highest number that one has; the others, and those of
/// another length or that cannot be opened, go. They hold nothing.
pub(super) fn adopt_free(storage: &dyn Storage, options: &Options) -> io::Result<(Vec<Free>, u64)> {
    let directory = options.directory.join("free");
    // A kill may have come between a rename and its sync, and only after that may a header be written over.
    storage.sync_directory(&options.directory)?;
    storage.sync_directory(&directory)?;
    let (mut free, mut last_free) = (Vec::new(), 0);
    for name in storage.list(&directory)? {
        let path = directory.join(&name);
        last_free = last_free.max(free_number(&name).unwrap_or(0));
        let gone = match storage.open(&path) {
            Ok(file) if file.bytes() == options.segment_bytes && free.len() < options.pool_segments => {
                options.budget.adopt(file.bytes());
                free.push(Free { name, file });
                continue;
            }
            Ok(_) => storage.remove(&path),
            Err(error) if may_pass(&error) => return Err(error),
            Err(error) => storage.remove(&path).map_err(|_| error),
        };
        if let Err(error) = gone {
            let lane = options.lane;
            tracing::error!(lane, file = %path.display(), %error, "a spare file of the log cannot be used or removed");
        }
    }
    Ok((free, last_free))
}

/// The number of a file in `free/`; `None` when that is not a name we give.
fn free_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("free-")?, 16).ok()
}

/// The files of a lane that hold no entries.
#[derive(Debug)]
pub(super) struct Pool {
    directory: PathBuf,
    lane: u32,
    incarnation: u64,
    segment_bytes: u64,
    max_free: usize,
    /// What new segments may hold.
    compressed: bool,
    master: Option<KeyId>,
    budget: Arc<Budget>,
    inner: Mutex<Inner>,
    /// Held while a segment is made, by the sync thread or the writer: two at once would enter the log in either order, and
    /// a reader that has passed the higher id never sees the lower one.
    making: Mutex<()>,
}

impl Pool {
    /// `last_free` is the highest number of a file in `free/`: a name of the pool is never given twice, so a rename never
    /// hits a file that is there.
    pub(super) fn new(
        options: &Options,
        (incarnation, next_segment): (u64, u64),
        (free, last_free): (Vec<Free>, u64),
    ) -> Pool {
        Pool {
            directory: options.directory.clone(),
            lane: options.lane,
            incarnation,
            segment_bytes: options.segment_bytes,
            max_free: options.pool_segments,
            compressed: options.at_rest.compression != BlockCompression::None,
            master: options.at_rest.keys.writing(),
            budget: Arc::clone(&options.budget),
            inner: Mutex::new(Inner { spares: VecDeque::new(), free, next_segment, last_free }),
            making: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id that the next segment gets.
    pub(super) fn next_segment(&self) -> u64 {
        self.lock().next_segment
    }

    /// Files that wait for reuse.
    pub(super) fn free_segments(&self) -> usize {
        let inner = self.lock();
        inner.free.len() + inner.spares.len()
    }

    /// Whether a segment could be had now.
    pub(super) fn has_room(&self, storage: &dyn Storage, bound: Bound) -> bool {
        let inner = self.lock();
        if !inner.spares.is_empty() || !inner.free.is_empty() {
            return true;
        }
        let free_bytes = storage.free_bytes(&self.directory).unwrap_or(u64::MAX);
        self.budget.fits(self.segment_bytes, free_bytes, bound)
    }

    /// Makes sure that `count` spares are ready. Slow: each takes a sync of a file and of two directories.
    pub(super) fn prepare(
        &self,
        storage: &dyn Storage,
        wall_ns: u64,
        (count, bound): (usize, Bound),
    ) -> Result<(), NoSpare> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        while self.lock().spares.len() < count {
            let spare = self.make(storage, wall_ns, bound)?;
            self.lock().spares.push_back(spare);
        }
        Ok(())
    }

    /// A spare, or the one that is being made, or one made now.
    pub(super) fn take(&self, storage: &dyn Storage, wall_ns: u64) -> Result<Spare, NoSpare> {
        if let Some(spare) = self.take_spare() {
            return Ok(spare);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.take_spare() {
            Some(spare) => Ok(spare),
            None => self.make(storage, wall_ns, Bound::Budget),
        }
    }

    fn take_spare(&self) -> Option<Spare> {
        self.lock().spares.pop_front()
    }

    fn make(&self, storage: &dyn Storage, wall_ns: u64, bound: Bound) -> Result<Spare, NoSpare> {
        let key = storage.random().map_err(NoSpare::Storage)?;
        let key = HeaderKey(if planted(Sabotage::OneKeyForAll) { [7; 16] } else { key });
        let recycled = self.lock().free.pop();
        let free_directory = self.directory.join("free");
        let (from, file) = match recycled {
            Some(Free { name, file }) => {
                file.reuse();
                (free_directory.join(name), file)
            }
            None => self.create(storage, &free_directory, bound)?,
        };
        let id = {
            // Only now: a full disk uses up no id, so a hole says that a file was there.
            let mut inner = self.lock();
            inner.next_segment += 1;
            inner.next_segment - 1
        };
        let header = SegmentHeader {
            id,
            lane: self.lane,
            incarnation: self.incarnation,
            file_bytes: self.segment_bytes,
            created_ns: wall_ns,
            key,
            compressed: self.compressed,
            master: self.master,
        };
        let path = self.directory.join(segment_name(id));
        match self.name(storage, &*file, &header, (&from, &path)) {
            Ok(()) => Ok(Spare { header, file }),
            Err(error) => {
                // It is on disk under one of two names; recovery finds it, and the budget goes on counting it.
                Err(NoSpare::Storage(error))
            }
        }
    }

    fn create(
        &self,
        storage: &dyn Storage,
        free: &Path,
        bound: Bound,
    ) -> Result<(PathBuf, Arc<dyn StoredFile>), NoSpare> {
        let free_bytes = storage.free_bytes(&self.directory).map_err(NoSpare::Storage)?;
        if !self.budget.reserve(self.segment_bytes, free_bytes, bound) {
            return Err(NoSpare::Full);
        }
        let path = free.join(self.free_name());
        match storage.create(&path, self.segment_bytes) {
            Ok(file) => Ok((path, file)),
            Err(error) => {
                self.budget.give_back(self.segment_bytes);
                if error.kind() == io::ErrorKind::StorageFull {
                    Err(NoSpare::Full)
                } else {
                    Err(NoSpare::Storage(error))
                }
            }
        }
    }

    fn free_name(&self) -> String {
        let mut inner = self.lock();
        inner.last_free += 1;
        format!("free-{:016x}", inner.last_free)
    }

    fn name(
        &self,
        storage: &dyn Storage,
        file: &dyn StoredFile,
        header: &SegmentHeader,
        (from, to): (&Path, &Path),
    ) -> io::Result<()> {
        let bytes = header.encode();
        for offset in HEADER_OFFSETS {
            file.write_at(offset, &bytes)?;
        }
        file.sync()?;
        storage.rename(from, to)?;
        if planted(Sabotage::DirectoryNotSynced) {
            return Ok(());
        }
        storage.sync_directory(&self.directory)?;
        storage.sync_directory(&self.directory.join("free"))
    }

    /// Takes back the file of a segment that nobody needs: into the pool, or off the disk when the pool is full (with
    /// `renamed` files that are on their way into it) or somebody still views it. The caller syncs the directories
    /// afterwards and then calls [`Pool::add_free`]. A segment whose file cannot be had or removed is given back with the
    /// reason.
    pub(super) fn take_back(
        &self,
        storage: &dyn Storage,
        mut segment: Arc<Segment>,
        renamed: usize,
    ) -> Result<Option<Free>, (Arc<Segment>, io::Error)> {
        let path = segment.path(&self.directory);
        let bytes = segment.header.file_bytes;
        let wanted =
            self.lock().free.len() + renamed < self.max_free && self.budget.used_bytes() <= self.budget.max_bytes();
        // Nobody can get at the file any more but by a view that exists already.
        let fit =
            |segment: &&mut Segment| !segment.extent.is_suspect() && bytes == self.segment_bytes && segment.is_unused();
        if let Some(sole) = Arc::get_mut(&mut segment).filter(fit).filter(|_| wanted) {
            let file = sole.kept().or_else(|| storage.open(&path).ok());
            // Somebody may have cut it off: the pool holds whole files only.
            if let Some(file) = file.filter(|file| file.bytes() == bytes && file.is_whole()) {
                let name = self.free_name();
                return match storage.rename(&path, &self.directory.join("free").join(&name)) {
                    Ok(()) => Ok(Some(Free { name, file })),
                    Err(error) => Err((segment, error)),
                };
            }
        }
        match storage.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err((segment, error)),
            _ => self.budget.give_back(bytes),
        }
        Ok(None)
    }

    /// Files that [`Pool::take_back`] renamed and whose new names are durable now.
    pub(super) fn add_free(&self, files: Vec<Free>) {
        self.lock().free.extend(files);
    }
}
