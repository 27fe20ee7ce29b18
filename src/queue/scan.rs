//! What recovery finds in the files of a lane, before it decides anything.
//!
//! A segment with a valid footer is taken at its word (its entries are verified when they are read); any other is scanned
//! from end to end, over damage. Nothing is changed here.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::format::{FIRST_ENTRY, Footer, HeaderFound, SegmentHeader, entry_bytes, segment_id};
use super::mark::Mark;
use super::read::is_shortage;
use super::sabotage::{Sabotage, planted};
use super::segment::{OpenSegment, Segment};
use super::storage::{Storage, StoredFile};
use crate::block::{HEADER_BYTES, Header, Kind};

/// An entry whose header passed.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) offset: u64,
    pub(super) header: Header,
    /// The stored bytes passed too.
    pub(super) intact: bool,
    /// What it says, for an intact commit-mark.
    pub(super) mark: Option<Mark>,
}

impl Scanned {
    pub(super) fn end(&self) -> u64 {
        self.offset + entry_bytes(self.header.stored_bytes as usize)
    }
}

/// A segment file with a readable header.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// What it says of itself, with the length that the file has.
    pub(super) header: SegmentHeader,
    /// What it says of its entries, or the file to be scanned.
    pub(super) end: End,
    /// Empty when there is a footer.
    pub(super) entries: Vec<Scanned>,
    /// The file has another length than it should, and must not be used again.
    pub(super) misshapen: bool,
}

impl Found {
    /// A segment as the index tells of it.
    pub(super) fn believed(name: String, header: SegmentHeader, footer: Footer) -> Found {
        Found { name, header, end: End::Sealed(footer), entries: Vec::new(), misshapen: false }
    }
}

/// How a segment ends.
#[derive(Debug)]
pub(super) enum End {
    Sealed(Footer),
    /// A crash has ended it.
    Torn(Arc<dyn StoredFile>),
}

/// A file of the lane's directory, judged by its header.
#[derive(Debug)]
pub(super) enum Judged {
    Segment(Box<Found>),
    /// Not to be read: damaged, or of a version that we do not know.
    Foreign,
}

/// Opens a segment file and reads what it says of itself. An error is one of this file alone.
pub(super) fn open_segment(storage: &dyn Storage, directory: &Path, (name, lane): (&str, u32)) -> io::Result<Judged> {
    let file = storage.open(&directory.join(name))?;
    // What stands in the page cache only (after a kill) is synced before it counts as durable, and read from the disk:
    // after a failed sync, of an earlier process or here, the cache would show what is not there.
    if !planted(Sabotage::RecoveredNotSynced) {
        file.sync().ok();
        file.forget(FIRST_ENTRY)?;
    }
    let mut header = match SegmentHeader::read(&*file, segment_id(name)) {
        HeaderFound::Valid(header) if header.lane == lane => header,
        _ => return Ok(Judged::Foreign),
    };
    let misshapen = file.bytes() != header.file_bytes;
    header.file_bytes = file.bytes();
    let end = match Footer::read(&*file, header.key, header.id) {
        Some(footer) => End::Sealed(footer),
        None => {
            if !planted(Sabotage::RecoveredNotSynced) {
                file.forget(file.bytes())?;
            }
            End::Torn(file)
        }
    };
    Ok(Judged::Segment(Box::new(Found { name: name.to_owned(), header, end, entries: Vec::new(), misshapen })))
}

/// Whether the next start may find it otherwise: too many files are open, or one went while a tool looked on.
pub(super) fn may_pass(error: &io::Error) -> bool {
    is_shortage(error) || error.kind() == io::ErrorKind::NotFound
}

/// Every entry of a segment without a footer, from end to end.
pub(super) fn scan(header: SegmentHeader, file: &Arc<dyn StoredFile>) -> Vec<Scanned> {
    let end = file.bytes() - file.bytes() % HEADER_BYTES as u64;
    let segment = OpenSegment::judged(Segment::writing(header, file, (0, 0)), file);
    let mut entries = Vec::new();
    let mut from = FIRST_ENTRY;
    let mut last = 0;
    while let Some((offset, header)) = segment.find_header(from, end) {
        if planted(Sabotage::StopAtFirstDamage) && offset != from {
            break;
        }
        from = offset + entry_bytes(header.stored_bytes as usize);
        if header.sequence < last {
            continue;
        }
        last = header.sequence;
        let stored = segment.stored(offset, &header);
        let mark = match header.kind {
            Kind::CommitMark { .. } => stored.as_deref().and_then(Mark::decode),
            Kind::Block(_) => None,
        };
        entries.push(Scanned { offset, header, intact: stored.is_some(), mark });
    }
    entries
}
