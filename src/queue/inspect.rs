//! A log as a tool sees it: read beside the process that owns it, or after it has ended, and never written.
//!
//! [`Lane::open`] runs the log's own recovery over a shadow of the files, so what is said here is what the next start will
//! find, and what a [`Reader`] gives is what a destination would get, damage included. Only [`repair`] touches the
//! disk, under the state directory's lock: it runs the same recovery on the files themselves, and moves what cannot be
//! believed into quarantine first. Nothing is ever deleted.

mod shadow;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shadow::Shadow;

use super::format::{FIRST_ENTRY, Footer, HeaderFound, SegmentHeader, entry_bytes, segment_id};
use super::mark::Mark;
use super::segment::{OpenSegment, Segment};
use super::storage::Storage;
use super::{
    Appender, AtRest, Budget, Cursor, FileStorage, KeyId, LaneCursor, Log, OpenError, Options, Position, Reader,
    Recovered,
};
use crate::block::{Kind, MAX_BYTES};

/// Sealed segments that are opened to look at a log; the index tells of the others.
const OPENED_AT_START: usize = 1024;

/// Bytes of a segment when a log has none to learn it from.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Where the files of a log are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The lane's own directory.
    pub directory: PathBuf,
    /// Where files go that cannot be believed.
    pub quarantine: PathBuf,
    /// The lane.
    pub lane: u32,
    /// The keys that its blocks are read with.
    pub at_rest: AtRest,
}

impl Place {
    /// A lane of the log under a state directory.
    #[must_use]
    pub fn of_lane(state_directory: &Path, lane: u32) -> Place {
        let log = state_directory.join("log");
        Place {
            directory: log.join(format!("lane-{lane:02}")),
            quarantine: log.join("quarantine"),
            lane,
            at_rest: AtRest::default(),
        }
    }

    /// Every lane that has a directory, ascending. Fails when there is no log.
    pub fn lanes(state_directory: &Path) -> io::Result<Vec<Place>> {
        let mut lanes = Vec::new();
        for entry in fs::read_dir(state_directory.join("log"))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("lane-"));
            lanes.extend(number.and_then(|lane| lane.parse::<u32>().ok()));
        }
        lanes.sort_unstable();
        Ok(lanes.into_iter().map(|lane| Place::of_lane(state_directory, lane)).collect())
    }

    /// The lane's log over the storage, opened as a start would.
    fn open(&self, storage: Arc<dyn Storage>, wall_ns: u64) -> Result<(Arc<Log>, Appender, Recovered), OpenError> {
        let options = Options {
            directory: self.directory.clone(),
            quarantine: self.quarantine.clone(),
            lane: self.lane,
            segment_bytes: self.segment_bytes(),
            max_payload_bytes: MAX_BYTES,
            pool_segments: 1,
            budget: Arc::new(Budget::new(u64::MAX, 0)),
            opened_at_start: OPENED_AT_START,
            at_rest: self.at_rest.clone(),
            wall_ns,
        };
        // Without cursors it is no log that destinations read, as that of dead letters.
        let state_directory = self.directory.ancestors().nth(2).unwrap_or(&self.directory);
        let cursors = lane_cursors(state_directory);
        Log::open_with_cursors(storage, options, &cursors)
    }

    /// As the segments that are there have.
    fn segment_bytes(&self) -> u64 {
        let names = FileStorage.list(&self.directory).unwrap_or_default();
        let sizes = names.iter().filter(|name| name.starts_with("seg-"));
        let sizes = sizes.filter_map(|name| fs::metadata(self.directory.join(name)).ok()).map(|file| file.len());
        sizes.filter(|bytes| *bytes >= SEGMENT_BYTES >> 4).max().unwrap_or(SEGMENT_BYTES)
    }
}

/// What is known of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its id.
    pub id: u64,
    /// Its file.
    pub path: PathBuf,
    /// It has a footer on disk: nothing will be appended to it.
    pub sealed: bool,
    /// When this use of the file began, Unix nanoseconds.
    pub created_ns: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of entries.
    pub entry_bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Records that spans in it stand for.
    pub records: u64,
    /// Spans.
    pub spans: u64,
    /// Bytes of blocks as they are stored.
    pub stored_bytes: u64,
    /// The key that encrypts them, if one does.
    pub key: Option<KeyId>,
    /// Sequence before the first block.
    pub before_sequence: u64,
    /// Sequence of the last block.
    pub last_sequence: u64,
    /// Receive time of the first block, Unix nanoseconds; 0 when it has none.
    pub oldest_ns: u64,
    /// Newest receive time, Unix nanoseconds; 0 when it has no block.
    pub newest_ns: u64,
}

/// One entry, or bytes where one should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryInfo {
    /// Where it starts, bytes.
    pub offset: u64,
    /// Where it ends, padding included.
    pub end: u64,
    /// What stands there.
    pub found: EntryFound,
}

/// What an entry turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFound {
    /// A header that passes its keyed check.
    Entry {
        /// Its sequence.
        sequence: u64,
        /// Block or commit-mark.
        kind: Kind,
        /// Bytes after the header.
        stored_bytes: u32,
        /// The stored bytes pass their CRC.
        intact: bool,
        /// Of an intact commit-mark: the sequence up to which it knew that everything was durable.
        durable: Option<u64>,
    },
    /// No header that can be believed.
    Unreadable,
}

/// A lane's log, open to be read.
#[derive(Debug)]
pub struct Lane {
    /// Where it is.
    pub place: Place,
    /// What recovery found, or would do.
    pub recovered: Recovered,
    /// Files that recovery would put into quarantine, by the names that they would get.
    pub parked: Vec<String>,
    log: Arc<Log>,
    /// The end that nobody writes with: recovery begins a segment whose first mark says how much there is.
    _appender: Appender,
}

impl Lane {
    /// Opens a lane without writing anything. Fails when its files cannot be read at all.
    pub fn open(place: Place, wall_ns: u64) -> Result<Lane, OpenError> {
        let shadow = Arc::new(Shadow::default());
        let before = shadow.list(&place.quarantine).unwrap_or_default();
        let storage: Arc<dyn Storage> = shadow;
        let mut opened = place.open(Arc::clone(&storage), wall_ns);
        // Beside a running process a file may go between listing and opening it: then the list is made anew.
        for _ in 0..3 {
            if opened.is_ok() {
                break;
            }
            opened = place.open(Arc::clone(&storage), wall_ns);
        }
        let (log, appender, recovered) = opened?;
        let mut parked = storage.list(&place.quarantine).unwrap_or_default();
        // What has no key and holds nothing is only put aside, under the name that it had.
        let this_time = format!("-{wall_ns}");
        parked.retain(|name| name.ends_with(&this_time) && !before.contains(name));
        Ok(Lane { place, recovered, parked, log, _appender: appender })
    }

    /// Tells this log from every other that the directory ever held.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.log.incarnation()
    }

    /// Before the oldest entry.
    #[must_use]
    pub fn oldest(&self) -> Position {
        self.log.oldest()
    }

    /// Behind the newest entry.
    #[must_use]
    pub fn tail(&self) -> Position {
        self.log.tail()
    }

    /// Reads as a destination at `from` would.
    #[must_use]
    pub fn reader(&self, from: Position) -> Reader {
        self.log.reader(from)
    }

    /// The place of a destination in this log; `None` when it was never in it.
    #[must_use]
    pub fn position(&self, cursor: &[LaneCursor]) -> Option<LaneCursor> {
        let here = |entry: &&LaneCursor| entry.lane == self.place.lane && entry.incarnation == self.incarnation();
        cursor.iter().find(here).copied()
    }

    /// Bytes of entries behind a position.
    #[must_use]
    pub fn bytes_behind(&self, position: &Position) -> u64 {
        self.log.bytes_behind(position)
    }

    /// Segments that wait for reuse: how many, and their bytes.
    pub fn pool(&self) -> io::Result<(u64, u64)> {
        let directory = self.place.directory.join("free");
        let names = match FileStorage.list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let sizes = names.iter().filter_map(|name| fs::metadata(directory.join(name)).ok()).map(|file| file.len());
        Ok(sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size)))
    }

    /// Every segment that holds entries, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.on_disk().map(|segment| self.describe(&self.open_segment(&segment))).collect()
    }

    /// What stands in a segment, from its first entry to its end; `None` when there is no such segment.
    #[must_use]
    pub fn entries(&self, id: u64) -> Option<Vec<EntryInfo>> {
        self.on_disk().find(|segment| segment.id() == id).map(|segment| entries(&self.open_segment(&segment)))
    }

    /// The segments of the files, without the one that opening began.
    fn on_disk(&self) -> impl Iterator<Item = Arc<Segment>> {
        self.log.segments().into_iter().filter(|segment| segment.extent.load().1)
    }

    fn open_segment(&self, segment: &Arc<Segment>) -> OpenSegment {
        self.log.open_segment(segment).unwrap_or_else(|_| OpenSegment::lost(segment))
    }

    fn describe(&self, open: &OpenSegment) -> SegmentInfo {
        let segment = &open.segment;
        let path = segment.path(&self.place.directory);
        let (header, sealed) = on_disk(&path);
        let footer = open.footer().unwrap_or_default();
        SegmentInfo {
            id: segment.id(),
            path,
            sealed,
            created_ns: segment.header.created_ns,
            file_bytes: header.map_or(segment.header.file_bytes, |header| header.file_bytes),
            entry_bytes: segment.entry_bytes(),
            blocks: footer.blocks,
            records: footer.records,
            spans: footer.totals.appended.saturating_sub(footer.spans_before),
            stored_bytes: footer.stored_bytes,
            key: segment.header.master,
            before_sequence: footer.before_sequence,
            last_sequence: footer.last_sequence,
            oldest_ns: first_received_ns(open),
            newest_ns: footer.newest_ns,
        }
    }
}

/// What stands in a segment, whatever was damaged.
fn entries(open: &OpenSegment) -> Vec<EntryInfo> {
    let (end, _sealed) = open.segment.extent.load();
    let mut found = Vec::new();
    let mut from = FIRST_ENTRY;
    while from < end {
        let next = open.find_header(from, end);
        let offset = next.map_or(end, |(offset, _)| offset);
        if offset > from {
            found.push(EntryInfo { offset: from, end: offset, found: EntryFound::Unreadable });
        }
        let Some((offset, header)) = next else { break };
        from = offset + entry_bytes(header.stored_bytes as usize);
        let stored = open.stored(offset, &header);
        let mark = match header.kind {
            Kind::CommitMark { .. } => stored.as_deref().and_then(Mark::decode),
            Kind::Block(_) => None,
        };
        let entry = EntryFound::Entry {
            sequence: header.sequence,
            kind: header.kind,
            stored_bytes: header.stored_bytes,
            intact: stored.is_some(),
            durable: mark.map(|mark| mark.durable),
        };
        found.push(EntryInfo { offset, end: from, found: entry });
    }
    found
}

/// Receive time of the first block; 0 when there is none.
fn first_received_ns(open: &OpenSegment) -> u64 {
    let (end, _sealed) = open.segment.extent.load();
    let mut from = FIRST_ENTRY;
    while let Some((offset, header)) = open.find_header(from, end) {
        if let Kind::Block(meta) = header.kind {
            return meta.received_ns;
        }
        from = offset + entry_bytes(header.stored_bytes as usize);
    }
    0
}

/// What the file itself says: its header, and whether it has a footer.
fn on_disk(path: &Path) -> (Option<SegmentHeader>, bool) {
    let fresh = Shadow::default();
    let Ok(file) = fresh.open(path) else { return (None, false) };
    let id = path.file_name().and_then(|name| segment_id(name.to_str()?));
    let header = match SegmentHeader::read(&*file, id) {
        // As long as the file is: what it has no use for is given back.
        HeaderFound::Valid(header) => {
            Some(SegmentHeader { file_bytes: fs::metadata(path).map_or(0, |file| file.len()), ..header })
        }
        HeaderFound::Unsupported | HeaderFound::Damaged => None,
    };
    let sealed = header.is_some_and(|header| Footer::read(&*file, header.key, header.id).is_some());
    (header, sealed)
}

/// A destination's cursor as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorInfo {
    /// The destination; `none` is the retention without any.
    pub destination: String,
    /// Its directory.
    pub directory: PathBuf,
    /// The file is there, and neither of its slots can be believed.
    pub is_damaged: bool,
    /// Its place in every lane that it ever was in.
    pub lanes: Vec<LaneCursor>,
}

/// Every cursor under a state directory, by name; nothing is written. Fails when a directory cannot be read.
pub fn cursors(state_directory: &Path) -> io::Result<Vec<CursorInfo>> {
    let parent = state_directory.join("destinations");
    let entries = match fs::read_dir(&parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let cursor = Cursor::open(&Shadow::default(), &entry.path())?;
        found.push(CursorInfo {
            // A named instance is `type/name`; a file name has no slash.
            destination: name.replace('~', "/"),
            directory: entry.path(),
            is_damaged: cursor.was_damaged(),
            lanes: cursor.lanes().to_vec(),
        });
    }
    found.sort_by(|a, b| a.destination.cmp(&b.destination));
    Ok(found)
}

/// Where the destinations under a state directory stand, in all lanes, as far as their cursors can be read: what
/// [`Log::open_with_cursors`] asks for.
#[must_use]
pub fn lane_cursors(state_directory: &Path) -> Vec<LaneCursor> {
    let known = cursors(state_directory).unwrap_or_default();
    known.into_iter().flat_map(|cursor| cursor.lanes).collect()
}

/// Runs recovery on the files of a lane, as the next start would. The caller holds the state directory's lock.
pub fn repair(place: &Place, wall_ns: u64) -> Result<Recovered, OpenError> {
    let (log, appender, recovered) = place.open(Arc::new(FileStorage), wall_ns)?;
    drop((log, appender));
    Ok(recovered)
}

/// Moves a file that cannot be believed into quarantine, durably; returns its new name. The caller holds the state
/// directory's lock.
pub fn park(file: &Path, quarantine: &Path, wall_ns: u64) -> io::Result<String> {
    FileStorage.create_directory(quarantine)?;
    let words: Vec<_> = file.components().rev().take(2).map(|word| word.as_os_str().to_string_lossy()).collect();
    let name = format!("{}-{wall_ns}", words.into_iter().rev().collect::<Vec<_>>().join("-"));
    fs::rename(file, quarantine.join(&name))?;
    for directory in [Some(quarantine), file.parent()].into_iter().flatten() {
        File::open(directory)?.sync_all()?;
    }
    Ok(name)
}
