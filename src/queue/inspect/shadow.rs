//! A storage that shows what is on the disk and changes nothing there: what is written, renamed, created or removed stays
//! in memory.
//!
//! So a tool can run the log's own recovery, and read what a destination would read, beside the process that the files
//! belong to. A segment without a footer may still grow; it is shown up to its last entry when it was opened. That entry
//! is looked for from the end backwards, against the direction of the writer: what comes before it was complete when it
//! was found, so nothing half-written is ever taken for damage. Files of at most a few pages are ever written by recovery.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::block::{HEADER_BYTES, Header};
use crate::queue::format::{FIRST_ENTRY, Footer, HeaderFound, SegmentHeader, entry_bytes, segment_id};
use crate::queue::storage::{FileStorage, Storage, StoredFile};

const PAGE: usize = 4096;
const PAGE_BYTES: u64 = PAGE as u64;

/// The storage.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    changes: Arc<Mutex<Changes>>,
}

#[derive(Debug, Default)]
struct Changes {
    /// What a name stands for; one that is not here stands for what is on disk.
    names: HashMap<PathBuf, Option<Identity>>,
    /// Pages that were written.
    written: HashMap<Identity, BTreeMap<u64, Vec<u8>>>,
    made: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    OnDisk(PathBuf),
    Made { number: u64, bytes: u64 },
}

fn lock(changes: &Mutex<Changes>) -> MutexGuard<'_, Changes> {
    // Each change is one call: a panic elsewhere leaves them whole.
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shadow {
    fn identity(&self, path: &Path) -> io::Result<Identity> {
        match lock(&self.changes).names.get(path) {
            None => Ok(Identity::OnDisk(path.to_owned())),
            Some(Some(identity)) => Ok(identity.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, identity: Identity) -> io::Result<ShadowFile> {
        let (real, bytes) = match &identity {
            Identity::OnDisk(path) => {
                let real = File::open(path)?;
                let bytes = real.metadata()?.len();
                (Some(real), bytes)
            }
            Identity::Made { bytes, .. } => (None, *bytes),
        };
        Ok(ShadowFile { identity, real, bytes, changes: Arc::clone(&self.changes) })
    }
}

impl Storage for Shadow {
    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let on_disk = match FileStorage.list(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let changes = lock(&self.changes);
        let mut names: Vec<String> = on_disk;
        names.retain(|name| !changes.names.contains_key(&directory.join(name)));
        let here = changes.names.iter().filter(|(path, file)| path.parent() == Some(directory) && file.is_some());
        names.extend(here.filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned())));
        Ok(names)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        let mut changes = lock(&self.changes);
        changes.made += 1;
        let identity = Identity::Made { number: changes.made, bytes };
        changes.names.insert(path.to_owned(), Some(identity.clone()));
        drop(changes);
        Ok(Arc::new(self.file(identity)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let mut file = self.file(self.identity(path)?)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("seg-") {
            file.bytes = file.shown_bytes(segment_id(name));
        }
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let identity = self.identity(from)?;
        let mut changes = lock(&self.changes);
        changes.names.insert(from.to_owned(), None);
        changes.names.insert(to.to_owned(), Some(identity));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.changes).names.insert(path.to_owned(), None);
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        FileStorage.random()
    }
}

#[derive(Debug)]
struct ShadowFile {
    identity: Identity,
    /// `None` for a file that exists in memory only; its unwritten bytes are 0.
    real: Option<File>,
    bytes: u64,
    changes: Arc<Mutex<Changes>>,
}

impl ShadowFile {
    /// How much of a segment there is to see: all of it once it has a footer, else up to its last entry.
    fn shown_bytes(&self, id: Option<u64>) -> u64 {
        let header = match SegmentHeader::read(self, id) {
            HeaderFound::Valid(header) => Some(header),
            HeaderFound::Unsupported | HeaderFound::Damaged => None,
        };
        match header {
            Some(header) if Footer::read(self, header.key, header.id).is_none() => {
                self.last_entry_end(&header).unwrap_or(FIRST_ENTRY).min(self.bytes)
            }
            _ => self.bytes,
        }
    }

    fn last_entry_end(&self, header: &SegmentHeader) -> Option<u64> {
        let pages = self.bytes / PAGE_BYTES;
        let mut page = [0u8; PAGE];
        (FIRST_ENTRY / PAGE_BYTES..pages).rev().find_map(|number| {
            let start = number * PAGE_BYTES;
            // What cannot be read holds no entry.
            self.read_at(start, &mut page).ok()?;
            let (places, _rest) = page.as_chunks::<HEADER_BYTES>();
            places.iter().enumerate().rev().find_map(|(place, bytes)| {
                let offset = start + (place * HEADER_BYTES) as u64;
                let entry = Header::decode(bytes, header.key, header.id, offset)?;
                Some(offset + entry_bytes(entry.stored_bytes as usize))
            })
        })
    }

    /// The bytes on disk, without what was written since.
    fn read_under(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.real {
            Some(file) => file.read_exact_at(buffer, offset),
            None => {
                buffer.fill(0);
                Ok(())
            }
        }
    }
}

impl StoredFile for ShadowFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        if end > self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_under(offset, buffer)?;
        let changes = lock(&self.changes);
        let Some(pages) = changes.written.get(&self.identity) else { return Ok(()) };
        for (number, page) in pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let page_start = number * PAGE_BYTES;
            let (from, to) = (offset.max(page_start), end.min(page_start + PAGE_BYTES));
            buffer[index(from - offset)..index(to - offset)]
                .copy_from_slice(&page[index(from - page_start)..index(to - page_start)]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        for number in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let page_start = number * PAGE_BYTES;
            let (from, to) = (offset.max(page_start), end.min(page_start + PAGE_BYTES));
            let mut page = vec![0; index(PAGE_BYTES)];
            let there = self.bytes.saturating_sub(page_start).min(PAGE_BYTES);
            self.read_at(page_start, &mut page[..index(there)])?;
            page[index(from - page_start)..index(to - page_start)]
                .copy_from_slice(&bytes[index(from - offset)..index(to - offset)]);
            lock(&self.changes).written.entry(self.identity.clone()).or_default().insert(number, page);
        }
        Ok(())
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0u8; len];
        self.read_at(offset, &mut buffer)?;
        Ok(Bytes::from(buffer))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// An offset within a buffer.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset into a buffer in memory")
}
