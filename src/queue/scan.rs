//! What recovery finds in the files of a lane, before it decides anything.
//!
//! A segment with a valid footer is taken at its word (its entries are verified when they are read); any other is scanned
//! from end to end, over damage. Nothing is changed here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{FIRST_ENTRY, Footer, HEADER_OFFSETS, HeaderFound, SegmentHeader, entry_bytes};
use super::mark::Mark;
use super::sabotage::{Sabotage, planted};
use super::segment::Segment;
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
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) header: SegmentHeader,
    pub(super) footer: Option<Footer>,
    /// Empty when there is a footer.
    pub(super) entries: Vec<Scanned>,
}

/// A file of the lane's directory, judged by its header.
#[derive(Debug)]
pub(super) enum Judged {
    Segment(Box<Found>),
    /// Not to be read: damaged, or of a version that we do not know.
    Foreign,
}

/// Opens a segment file and reads what it says of itself.
pub(super) fn open_segment(storage: &dyn Storage, path: &Path, lane: u32) -> io::Result<Judged> {
    let file = storage.open(path)?;
    // What stands in the page cache only (after a kill) is synced before it counts as durable, and read from the disk:
    // after a failed sync the cache would show what is not there.
    if !planted(Sabotage::RecoveredNotSynced) {
        file.sync()?;
        file.forget(FIRST_ENTRY)?;
    }
    let mut header = None;
    for offset in HEADER_OFFSETS {
        let mut bytes = [0u8; 512];
        if file.read_at(offset, &mut bytes).is_err() {
            continue;
        }
        match SegmentHeader::decode(&bytes) {
            HeaderFound::Valid(found) if found.lane == lane => header = Some(found),
            HeaderFound::Valid(_) | HeaderFound::Unsupported => return Ok(Judged::Foreign),
            HeaderFound::Damaged => continue,
        }
        break;
    }
    let Some(header) = header else { return Ok(Judged::Foreign) };
    let footer = Footer::read(&*file, header.key, header.id);
    Ok(Judged::Segment(Box::new(Found { path: path.to_owned(), file, header, footer, entries: Vec::new() })))
}

/// Every entry of a segment without a footer, from end to end.
pub(super) fn scan(segment: &Segment) -> Vec<Scanned> {
    let end = segment.file.bytes() - segment.file.bytes() % HEADER_BYTES as u64;
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
