//! One segment in memory: what is known of it, and its file while somebody reads or writes it.
//!
//! Shared by the lane's writer, the sync thread and any number of readers; who moves what of its extent is said there. A
//! backlog has many segments, so one that nobody uses is no open file, no mapping and few bytes: the file is kept open
//! until its footer is written, and after that as long as a reader stands in it. Nothing is believed that did not pass: a
//! header its keyed check, stored bytes their CRC, an encrypted block its tag (when another reader may answer for the CRC
//! is in `passed`); an I/O error while reading counts as damage of what could not be read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::crc32c;
use super::extent::Extent;
use super::fields::MAX_COUNT;
use super::format::{FIRST_ENTRY, Footer, SegmentHeader, entry_bytes, segment_name};
use super::keys::{Cipher, Keys};
use super::packing::Unpacker;
use super::passed::Passed;
use super::position::Position;
use super::sabotage::{Sabotage, planted};
use super::storage::{Storage, StoredFile};
use crate::block::{HEADER_BYTES, Header, Kind, Packing, VOUCHED_BYTES};

/// Bytes looked at together when a header is searched after damage.
const SEARCH_BYTES: u64 = 64 * 1024;

/// A segment that readers may see.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    /// Before the first entry.
    pub(super) start: Position,
    /// Marks beyond this sequence say nothing: they count blocks that a crash took (recovery judged so).
    pub(super) trusted: u64,
    pub(super) extent: Extent,
    /// Set by the writer when it seals, read by the sync thread, which writes it.
    pub(super) footer: OnceLock<Box<Footer>>,
    pub(super) footer_written: AtomicBool,
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    /// The name of the file, when it is not that of its id.
    name: Option<Box<str>>,
    /// Kept open: its writing is not over, or just over.
    kept: Option<Arc<dyn StoredFile>>,
    /// Open as long as somebody has it.
    shared: Option<Weak<dyn StoredFile>>,
    /// What its readers have in common, as long as there are some.
    read: Weak<Readable>,
}

/// An open file, and what was found in it since some reader has had it.
#[derive(Debug)]
struct Readable {
    file: Arc<dyn StoredFile>,
    passed: Passed,
}

impl Readable {
    fn new(file: Arc<dyn StoredFile>) -> Arc<Readable> {
        Arc::new(Readable { file, passed: Passed::none() })
    }
}

impl Segment {
    /// A new segment that is being written.
    pub(super) fn writing(header: SegmentHeader, file: &Arc<dyn StoredFile>, (sequence, spans): (u64, u64)) -> Segment {
        Segment {
            header,
            start: Position { segment: header.id, offset: FIRST_ENTRY, sequence, spans },
            trusted: u64::MAX,
            extent: Extent::open(FIRST_ENTRY),
            footer: OnceLock::new(),
            footer_written: AtomicBool::new(false),
            files: Mutex::new(Files {
                name: None,
                kept: Some(Arc::clone(file)),
                shared: Some(Arc::downgrade(file)),
                read: Weak::new(),
            }),
        }
    }

    /// A segment of an earlier process, ended as the footer says.
    pub(super) fn sealed(header: SegmentHeader, footer: &Footer, name: Option<Box<str>>) -> Segment {
        Segment {
            header,
            start: Position {
                segment: header.id,
                offset: FIRST_ENTRY,
                sequence: footer.before_sequence,
                spans: footer.spans_before,
            },
            trusted: footer.trusted,
            extent: Extent::sealed(footer.end, footer.newest_ns),
            footer: OnceLock::new(),
            footer_written: AtomicBool::new(true),
            files: Mutex::new(Files { name, kept: None, shared: None, read: Weak::new() }),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.header.id
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its file is.
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        match &self.files().name {
            Some(name) => directory.join(&**name),
            None => directory.join(segment_name(self.id())),
        }
    }

    /// The file, as long as it is kept open.
    pub(super) fn kept(&self) -> Option<Arc<dyn StoredFile>> {
        self.files().kept.clone()
    }

    /// Its writing is over, and it will not be reused soon: the file is closed when nobody reads it.
    pub(super) fn let_go(&self) {
        self.files().kept = None;
    }

    /// Whether nobody has the file open but this.
    pub(super) fn is_unused(&self) -> bool {
        let files = self.files();
        let others = files.shared.as_ref().map_or(0, Weak::strong_count);
        // Acquire: pairs with the Release by which an `Arc` is given up, as in `Arc::get_mut`; a count alone is Relaxed. What
        // the last reader read is read before the file is written again. (No model: these are the counts of `Arc`.)
        fence(Ordering::Acquire);
        others == usize::from(files.kept.is_some())
    }

    fn readable(&self, storage: &dyn Storage, directory: &Path) -> io::Result<Arc<Readable>> {
        let path = self.path(directory);
        let mut files = self.files();
        if let Some(read) = files.read.upgrade() {
            return Ok(read);
        }
        let file = match files.shared.as_ref().and_then(Weak::upgrade) {
            Some(open) => open,
            None => storage.open(&path)?,
        };
        files.shared = Some(Arc::downgrade(&file));
        let read = Readable::new(file);
        files.read = Arc::downgrade(&read);
        Ok(read)
    }

    /// Whether every entry is consumed by one who stands at `position`.
    pub(super) fn consumed_at(&self, position: &Position) -> bool {
        let (end, sealed) = self.extent.load();
        sealed && (self.id() < position.segment || (self.id() == position.segment && position.offset >= end))
    }

    /// Bytes of entries.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.extent.load().0 - FIRST_ENTRY
    }
}

/// What an encrypted block's tag vouches for.
pub(super) fn vouched(header: &Header, segment: u64, offset: u64) -> [u8; VOUCHED_BYTES] {
    match () {
        () if planted(Sabotage::FieldsNotVouched) => {
            Header { kind: Kind::CommitMark { written_ns: 0 }, ..*header }.vouched(segment, offset)
        }
        () if planted(Sabotage::PlaceNotVouched) => header.vouched(0, 0),
        () => header.vouched(segment, offset),
    }
}

/// A segment with its file, for one reader or writer.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: Arc<Segment>,
    /// `None`: it is not to be had; a reader finds nothing here, and the next mark says how much that was.
    read: Option<Arc<Readable>>,
    cipher: Option<Cipher>,
}

impl OpenSegment {
    /// Opens the file, unless somebody else has it open already.
    pub(super) fn open(
        segment: &Arc<Segment>,
        storage: &dyn Storage,
        (directory, keys): (&Path, &Keys),
    ) -> io::Result<OpenSegment> {
        let read = segment.readable(storage, directory)?;
        let header = &segment.header;
        let cipher = header.master.and_then(|master| keys.cipher(master, header));
        Ok(OpenSegment { segment: Arc::clone(segment), read: Some(read), cipher })
    }

    /// A segment whose file is not to be had.
    pub(super) fn lost(segment: &Arc<Segment>) -> OpenSegment {
        OpenSegment { segment: Arc::clone(segment), read: None, cipher: None }
    }

    /// A segment whose blocks are not read here, only judged.
    pub(super) fn judged(segment: Segment, file: &Arc<dyn StoredFile>) -> OpenSegment {
        OpenSegment { segment: Arc::new(segment), read: Some(Readable::new(Arc::clone(file))), cipher: None }
    }

    /// Whether blocks can be read: the key is there, or none is needed. What has no file is not held back for a key.
    pub(super) fn is_readable(&self) -> bool {
        self.read.is_none() || self.segment.header.master.is_none() || self.cipher.is_some()
    }

    fn file(&self) -> Option<&Arc<dyn StoredFile>> {
        self.read.as_ref().map(|read| &read.file)
    }

    /// What the file says of itself at its end.
    pub(super) fn footer(&self) -> Option<Footer> {
        Footer::read(&**self.file()?, self.segment.header.key, self.segment.id())
    }

    /// The header of the entry at `offset`, if one stands there and fits before `end`.
    pub(super) fn header_at(&self, offset: u64, end: u64) -> Option<Header> {
        if offset + HEADER_BYTES as u64 > end {
            return None;
        }
        let mut bytes = [0u8; HEADER_BYTES];
        self.file()?.read_at(offset, &mut bytes).ok()?;
        self.decode(&bytes, offset, end)
    }

    fn decode(&self, bytes: &[u8; HEADER_BYTES], offset: u64, end: u64) -> Option<Header> {
        let of = &self.segment.header;
        let header = Header::decode(bytes, of.key, of.id, offset)?;
        // Marks stand behind the block that they are numbered after, and before the first there is none.
        let first = u64::from(matches!(header.kind, Kind::Block(_)));
        if !(first..=MAX_COUNT).contains(&header.sequence) {
            return None;
        }
        let may_be_packed = of.compressed || header.packing == Packing::None;
        (may_be_packed && offset + entry_bytes(header.stored_bytes as usize) <= end).then_some(header)
    }

    /// The stored bytes of the entry at `offset`, as they lie on the disk, if they pass their CRC.
    pub(super) fn stored(&self, offset: u64, header: &Header) -> Option<Bytes> {
        let bytes = self.view(offset, header)?;
        let noted = |read: &Arc<Readable>| read.passed.has(header.sequence, Duration::ZERO);
        let unsummed = planted(Sabotage::PayloadUnchecked)
            || (planted(Sabotage::SumsSharedWithMoves) && self.read.as_ref().is_some_and(noted));
        (unsummed || crc32c::crc32c(&bytes) == header.crc).then_some(bytes)
    }

    fn view(&self, offset: u64, header: &Header) -> Option<Bytes> {
        let start = offset + HEADER_BYTES as u64;
        Arc::clone(self.file()?).view(start, header.stored_bytes as usize).ok()
    }

    /// As `payload`, for one of several readers that send: what another has summed a moment before `now` is not summed
    /// again. `passed` has the conditions; that no sync has failed is the caller's.
    pub(super) fn payload_to_send(
        &self,
        offset: u64,
        header: &Header,
        unpacker: &mut Unpacker,
        now: Duration,
    ) -> Option<(Bytes, u32)> {
        let is_plain = header.packing == Packing::None && self.segment.header.master.is_none();
        let read = self.read.as_ref().filter(|read| is_plain && read.file.views_share_memory());
        if read.is_some_and(|read| read.passed.has(header.sequence, now)) {
            return Some((self.view(offset, header)?, header.crc));
        }
        let payload = self.payload(offset, header, unpacker)?;
        if let Some(read) = read {
            read.passed.note(header.sequence, now);
        }
        Some(payload)
    }

    /// The payload of the block at `offset`, with its CRC-32C: stored bytes that passed, decrypted and unpacked.
    pub(super) fn payload(&self, offset: u64, header: &Header, unpacker: &mut Unpacker) -> Option<(Bytes, u32)> {
        let stored = self.stored(offset, header)?;
        let is_encrypted = self.segment.header.master.is_some();
        let opened = if is_encrypted {
            let vouched = vouched(header, self.segment.id(), offset);
            let opened = self.cipher.as_ref()?.open(header.sequence, &vouched, stored.to_vec());
            match opened {
                None if planted(Sabotage::TagUnchecked) => stored,
                opened => Bytes::from(opened?),
            }
        } else {
            stored
        };
        let payload = match header.packing {
            Packing::None if !is_encrypted => return Some((opened, header.crc)),
            Packing::None => opened,
            packing if is_encrypted => Bytes::from(unpacker.unpack(packing, &opened)?),
            packing => Bytes::from(unpacker.unpack_in_place(packing, &opened, header.crc)?),
        };
        let crc = crc32c::crc32c(&payload);
        Some((payload, crc))
    }

    /// The first entry at or after `from` whose header passes, with its offset.
    pub(super) fn find_header(&self, from: u64, end: u64) -> Option<(u64, Header)> {
        let file = self.file()?;
        let from = from.next_multiple_of(HEADER_BYTES as u64);
        // Without damage there is one here.
        if let Some(header) = self.header_at(from, end) {
            return Some((from, header));
        }
        let mut chunk_start = from + HEADER_BYTES as u64;
        while chunk_start + HEADER_BYTES as u64 <= end {
            let chunk_bytes = SEARCH_BYTES.min(end - chunk_start);
            let len = usize::try_from(chunk_bytes).expect("a chunk is small");
            // What cannot be read is damaged like what does not pass.
            if let Ok(chunk) = Arc::clone(file).view(chunk_start, len) {
                let (places, _rest) = chunk.as_chunks::<HEADER_BYTES>();
                for (place, bytes) in places.iter().enumerate() {
                    let offset = chunk_start + (place * HEADER_BYTES) as u64;
                    if let Some(header) = self.decode(bytes, offset, end) {
                        return Some((offset, header));
                    }
                }
            }
            chunk_start += SEARCH_BYTES;
        }
        None
    }
}
