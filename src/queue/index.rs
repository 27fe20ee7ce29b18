//! A hint for starts with a long backlog: what the sealed segments of a lane say of themselves, in one file.
//!
//! Opening a hundred thousand files takes as many reads of the disk; this is one. Records of 256 bytes, in the order in which
//! footers were written:
//!
//! ```text
//! off size field
//!   0  96  the segment's header, as in its file
//!  96 144  its footer, as in its file
//! 240  16  zero
//! ```
//!
//! A record is written after the footer is durable, so it is true whenever it can be read; it is never synced itself. What is
//! missing, torn or damaged is read from the segment's file; what is about a file that is gone says nothing. It is believed
//! only beside an intact state of the lane: ids are never used twice there. When the file is full, what is still about
//! something goes over to one of twice its size. Owned by the sync thread.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{Footer, HeaderFound, SegmentHeader};
use super::storage::{Storage, StoredFile};

const RECORD_BYTES: usize = 256;
const HEADER_BYTES: usize = 96;
const READ_RECORDS: usize = 4096;
const LEAST_RECORDS: usize = 16;

/// Sealed segments by id.
pub(super) type Records = BTreeMap<u64, (SegmentHeader, Footer)>;

/// The file, as far as it is written.
#[derive(Debug)]
pub(super) struct Index {
    directory: PathBuf,
    /// `None`: there is none yet.
    file: Option<Arc<dyn StoredFile>>,
    records: usize,
    /// It could not be read or written: there is none until the next start.
    has_failed: bool,
}

impl Index {
    /// Reads what there is. No error is one: the segments are all that counts.
    pub(super) fn open(storage: &dyn Storage, directory: &Path) -> (Index, Records) {
        let mut index = Index { directory: directory.to_owned(), file: None, records: 0, has_failed: false };
        let mut found = Records::new();
        let file = match storage.open(&directory.join("index")) {
            Ok(file) => file,
            Err(error) => {
                index.has_failed = error.kind() != io::ErrorKind::NotFound;
                return (index, found);
            }
        };
        let capacity = capacity(&*file);
        for first in (0..capacity).step_by(READ_RECORDS) {
            let count = READ_RECORDS.min(capacity - first);
            let Ok(bytes) = Arc::clone(&file).view((first * RECORD_BYTES) as u64, count * RECORD_BYTES) else {
                continue;
            };
            for (place, record) in bytes.as_chunks::<RECORD_BYTES>().0.iter().enumerate() {
                if record.iter().all(|&byte| byte == 0) {
                    continue;
                }
                index.records = first + place + 1;
                if let Some((header, footer)) = decode(record) {
                    found.insert(header.id, (header, footer));
                }
            }
        }
        index.file = Some(file);
        (index, found)
    }

    /// Writes a record; `lives` says which segments are still there, when the file has to be replaced.
    pub(super) fn record(
        &mut self,
        storage: &dyn Storage,
        (header, footer): (&SegmentHeader, &Footer),
        lives: impl Fn(u64) -> bool,
    ) {
        if self.has_failed {
            return;
        }
        let full = self.file.as_ref().is_none_or(|file| self.records >= capacity(&**file));
        let written = if full { self.replace(storage, lives) } else { Ok(()) };
        if written.and_then(|()| self.write(&encode(header, footer))).is_err() {
            // Without it the next start is slower. It is not tried again for each segment.
            (self.file, self.has_failed) = (None, true);
        }
    }

    fn write(&mut self, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.write_at((self.records * RECORD_BYTES) as u64, record)?;
        self.records += 1;
        Ok(())
    }

    /// Takes what is still about something over to a file with as much room again.
    fn replace(&mut self, storage: &dyn Storage, lives: impl Fn(u64) -> bool) -> io::Result<()> {
        let (_, mut records) = Index::open(storage, &self.directory);
        records.retain(|id, _| lives(*id));
        let (path, new) = (self.directory.join("index"), self.directory.join("index-new"));
        if storage.open(&new).is_ok() {
            storage.remove(&new)?;
        }
        let capacity = (2 * records.len()).max(LEAST_RECORDS);
        let file = storage.create(&new, (capacity * RECORD_BYTES) as u64)?;
        let encoded: Vec<u8> = records.values().flat_map(|(header, footer)| encode(header, footer)).collect();
        file.write_at(0, &encoded)?;
        storage.rename(&new, &path)?;
        self.file = Some(file);
        self.records = records.len();
        Ok(())
    }
}

fn capacity(file: &dyn StoredFile) -> usize {
    usize::try_from(file.bytes()).unwrap_or(0) / RECORD_BYTES
}

fn encode(header: &SegmentHeader, footer: &Footer) -> [u8; RECORD_BYTES] {
    let mut record = [0u8; RECORD_BYTES];
    record[..HEADER_BYTES].copy_from_slice(&header.encode()[..HEADER_BYTES]);
    record[HEADER_BYTES..HEADER_BYTES + Footer::BYTES].copy_from_slice(&footer.encode(header.key, header.id));
    record
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<(SegmentHeader, Footer)> {
    let mut page = [0u8; 512];
    page[..HEADER_BYTES].copy_from_slice(&record[..HEADER_BYTES]);
    let HeaderFound::Valid(header) = SegmentHeader::decode(&page) else { return None };
    let footer = record[HEADER_BYTES..].first_chunk().expect("the record has room for a footer");
    let footer = Footer::decode(footer, header.key, header.id).filter(|footer| footer.end <= header.file_bytes)?;
    Some((header, footer))
}
