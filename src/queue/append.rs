//! The writing end of a lane's log; owned by the lane's writer thread, which copies a block once and syncs never.
//!
//! An entry is stored payload first, header last, and then published: readers of this process go by the published end,
//! and what a crash leaves half-written fails its checks. No allocation and no lock for a block; a segment switch takes a
//! spare that the sync thread has prepared. Marks are written here on their own when a sync has succeeded, at the end of
//! a segment and after a second of silence, so that the balance is never far from what is durable.

mod moving;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::sync::Unparker;

use super::budget::Bound;
use super::crc32c;
use super::format::{FIRST_ENTRY, Footer, entry_bytes};
use super::keys::Sealer;
use super::log::{Log, MarkPoint};
use super::mark::{MARK_BYTES, Mark};
use super::packing::Packer;
use super::pool::{NoSpare, Spare};
use super::position::Position;
use super::segment::{Segment, vouched};
use super::storage::StoredFile;
use crate::block::{Header, Kind, Meta, Packing};
use crate::telemetry::ledger::LaneTotals;

/// Silence after which a mark says how much there is.
const IDLE_MARK: Duration = Duration::from_secs(1);

/// Why a block was not appended. Nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk budget is used up: wait until [`Appender::has_room`] or drop, as the source's admission says.
    #[error("the log's disk budget is used up")]
    Full,
    /// Storage failed, in another file too; the next append tries a third.
    #[error("storage failed: {0}")]
    Storage(#[source] io::Error),
    /// Storage has failed for good.
    #[error("storage has failed for good")]
    Failed,
}

/// The segment that is being written.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn StoredFile>,
    /// Encrypts the blocks, if they are to be.
    sealer: Option<Sealer>,
    end: u64,
    footer: Footer,
}

/// The writing end of a log.
#[derive(Debug)]
pub struct Appender {
    pub(super) log: Arc<Log>,
    active: Option<Active>,
    packer: Packer,
    totals: LaneTotals,
    sequence: u64,
    wall_ns: u64,
    last_append: Duration,
    appended_since_turn: bool,
    blocks_since_mark: u64,
    marked_durable: u64,
    /// Blocks have to be moved, and there is no room for them.
    stuck: bool,
    wakers: Vec<Unparker>,
    wakers_seen: u64,
}

impl Appender {
    pub(super) fn new(log: Arc<Log>, totals: LaneTotals, sequence: u64) -> Appender {
        let wall_ns = log.options.wall_ns;
        let packer = Packer::new(log.options.at_rest.compression);
        Appender {
            log,
            active: None,
            packer,
            totals,
            sequence,
            wall_ns,
            last_append: Duration::ZERO,
            appended_since_turn: false,
            blocks_since_mark: 0,
            marked_durable: 0,
            stuck: false,
            wakers: Vec::new(),
            wakers_seen: 0,
        }
    }

    /// As `new`, with a first segment when there is room for one. Its mark, and with it the balance, is made durable
    /// before the segments that it replaces may go.
    pub(super) fn start(log: Arc<Log>, totals: LaneTotals, sequence: u64) -> Appender {
        let wall_ns = log.options.wall_ns;
        let mut appender = Appender::new(log, totals, sequence);
        // Full or failing storage is no reason not to open: what is there can be delivered, and appends say what is wrong.
        if appender.switch().is_ok() && appender.log.sync().is_ok() && appender.log.tend(wall_ns).is_ok() {
            appender.marked_durable = appender.log.durable_sequence();
        }
        appender
    }

    /// Appends a block and publishes it; its sequence is durable once [`Log::durable_sequence`] has reached it.
    /// Readers are woken by [`Appender::wake_readers`], once a batch.
    pub fn append(&mut self, meta: &Meta, payload: &[u8]) -> Result<u64, AppendError> {
        assert!(payload.len() <= self.log.options.max_payload_bytes, "a block of {} bytes", payload.len());
        if self.log.has_failed() {
            return Err(AppendError::Failed);
        }
        if self.log.progress.wants_rewrite() {
            self.move_unsynced()?;
        }
        match self.append_as(self.sequence + 1, meta, payload) {
            // That file is given up; nobody who cannot be told loses a block to it while another file takes it.
            Err(AppendError::Storage(_)) => self.append_as(self.sequence + 1, meta, payload)?,
            outcome => outcome?,
        }
        Ok(self.sequence)
    }

    fn append_as(&mut self, sequence: u64, meta: &Meta, payload: &[u8]) -> Result<(), AppendError> {
        let packing = self.packer.pack(payload);
        let packed = if packing == Packing::None { payload } else { &self.packer.buffer[..] };
        let tag_bytes = self.log.tag_bytes();
        let stored_bytes = packed.len() + tag_bytes;
        self.reach(entry_bytes(stored_bytes))?;
        let mut header = Header {
            stored_bytes: u32::try_from(stored_bytes).expect("at most MAX_BYTES and a tag"),
            sequence,
            crc: 0,
            kind: Kind::Block(*meta),
            packing,
        };
        self.write(&mut header, payload)?;
        add_block(&mut self.totals, meta);
        self.sequence = sequence;
        self.blocks_since_mark += 1;
        self.appended_since_turn = true;
        let active = self.active.as_mut().expect("reach leaves a segment");
        active.footer.blocks += 1;
        active.footer.records += u64::from(meta.records);
        active.footer.stored_bytes += stored_bytes as u64;
        active.footer.rolling_crc = crc32c::crc32c_append(active.footer.rolling_crc, &header.crc.to_le_bytes());
        if active.footer.newest_ns < meta.received_ns {
            active.footer.newest_ns = meta.received_ns;
            active.segment.extent.note_received(meta.received_ns);
        }
        active.segment.extent.publish(active.end);
        self.log.progress.publish(sequence, entry_bytes(stored_bytes));
        Ok(())
    }

    /// Whether a block of any size could be appended now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let largest = entry_bytes(self.log.options.max_payload_bytes + self.log.tag_bytes()) + entry_bytes(MARK_BYTES);
        // While blocks have to be moved, nothing is appended to where they are.
        let moves = self.log.progress.wants_rewrite();
        let fits = |active: &Active| !moves && active.end + largest <= active.file.bytes();
        self.active.as_ref().is_some_and(fits) || self.log.pool.has_room(&*self.log.storage, Bound::Budget)
    }

    /// Whether blocks stand where no sync can make them durable, with no room to move them to: until there is some, nobody
    /// knows whether they will last.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Where the next entry would go: segment and offset.
    #[cfg(test)]
    pub(super) fn place(&self) -> Option<(u64, u64)> {
        self.active.as_ref().map(|active| (active.segment.id(), active.end))
    }

    /// The lane balance of everything appended so far.
    #[must_use]
    pub fn totals(&self) -> LaneTotals {
        self.totals
    }

    /// Takes the lane's counters over (`appended` is the log's own) and writes a commit-mark with them: at drain, and
    /// whenever counters moved that no block shows.
    pub fn commit_mark(&mut self, totals: LaneTotals, wall_ns: u64) -> Result<(), AppendError> {
        debug_assert_eq!(totals.appended, self.totals.appended, "the ledger and the log count differently");
        self.totals = LaneTotals { appended: self.totals.appended, ..totals };
        self.wall_ns = wall_ns;
        self.reach(entry_bytes(MARK_BYTES))?;
        self.write_mark()
    }

    /// Once a turn of the writer: moves blocks after a failed sync, and writes a mark when one is due.
    pub fn maintain(&mut self, now: Duration, wall_ns: u64) -> Result<(), AppendError> {
        self.wall_ns = wall_ns;
        if self.log.has_failed() {
            return Err(AppendError::Failed);
        }
        if self.log.progress.wants_rewrite() {
            self.move_unsynced()?;
        }
        if std::mem::take(&mut self.appended_since_turn) {
            self.last_append = now;
        }
        let idle = now.saturating_sub(self.last_append) >= IDLE_MARK;
        if self.blocks_since_mark > 0 && (idle || self.log.durable_sequence() > self.marked_durable) {
            self.reach(entry_bytes(MARK_BYTES))?;
            self.write_mark()?;
        }
        Ok(())
    }

    /// Wakes every subscriber; once a batch, not once a block.
    pub fn wake_readers(&mut self) {
        if let Some(wakers) = self.log.subscribers_since(&mut self.wakers_seen) {
            self.wakers = wakers;
        }
        for waker in &self.wakers {
            waker.unpark();
        }
    }

    /// Makes sure that an entry of `bytes` fits the active segment, with a mark behind it.
    fn reach(&mut self, bytes: u64) -> Result<(), AppendError> {
        let with_mark = bytes + entry_bytes(MARK_BYTES);
        if let Some(active) = &self.active
            && active.end + with_mark <= active.file.bytes()
        {
            return Ok(());
        }
        self.switch()?;
        let active = self.active.as_ref().expect("switch leaves a segment");
        assert!(active.end + with_mark <= active.file.bytes(), "an entry of {bytes} bytes fits no segment");
        Ok(())
    }

    /// Goes over to a new segment. The old one stays active when there is none.
    pub(super) fn switch(&mut self) -> Result<(), AppendError> {
        let spare = self.log.pool.take(&*self.log.storage, self.wall_ns).map_err(|reason| match reason {
            NoSpare::Full => AppendError::Full,
            NoSpare::Storage(error) => AppendError::Storage(error),
        })?;
        let before = self.log.newest_segment();
        let id = spare.header.id;
        debug_assert!(before.is_none_or(|before| before < id), "segment {id} behind {before:?}");
        let mut next = self.open(spare);
        if let Err(error) = self.write_mark_to(&mut next) {
            next.segment.extent.suspect();
            next.segment.extent.seal(FIRST_ENTRY);
            self.log.retire(next.segment);
            return Err(AppendError::Storage(error));
        }
        // A reader that finds the sealed end before the next segment is listed waits, and is woken after this turn.
        self.seal();
        self.log.list(Arc::clone(&next.segment));
        self.publish_mark(&next);
        self.active = Some(next);
        Ok(())
    }

    fn open(&self, spare: Spare) -> Active {
        let Spare { header, file } = spare;
        let segment = Arc::new(Segment::writing(header, &file, (self.sequence, self.totals.appended)));
        let cipher = |master| self.log.options.at_rest.keys.cipher(master, &header).expect("the writing key is there");
        let sealer = header.master.map(cipher).map(Sealer::new);
        let footer = Footer {
            before_sequence: self.sequence,
            spans_before: self.totals.appended,
            trusted: u64::MAX,
            ..Footer::default()
        };
        Active { segment, file, sealer, end: FIRST_ENTRY, footer }
    }

    /// Ends the active segment with a mark and a footer for the sync thread to write.
    fn seal(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        // `reach` keeps room for the mark. If it cannot be written, the next segment begins with the same one.
        if self.write_mark_to(&mut active).is_ok() {
            self.publish_mark(&active);
        }
        self.finish(active);
    }

    fn finish(&self, active: Active) {
        let footer = Footer { end: active.end, last_sequence: self.sequence, totals: self.totals, ..active.footer };
        // The footer is set before the seal is stored, and once: an active segment is finished once.
        active.segment.footer.get_or_init(|| Box::new(footer));
        active.segment.extent.seal(active.end);
    }

    /// Writes a block: as it is, or what the packer has made of it, encrypted where the segment is.
    fn write(&mut self, header: &mut Header, payload: &[u8]) -> Result<(), AppendError> {
        let active = self.active.as_mut().expect("reach leaves a segment");
        let buffer = &mut self.packer.buffer;
        if let Some(sealer) = &mut active.sealer {
            if header.packing == Packing::None {
                buffer.clear();
                buffer.extend_from_slice(payload);
            }
            sealer.seal(header.sequence, &vouched(header, active.segment.id(), active.end), buffer);
        }
        let as_it_is = header.packing == Packing::None && active.sealer.is_none();
        let stored = if as_it_is { payload } else { &buffer[..] };
        header.crc = crc32c::crc32c(stored);
        match write_entry(active, header, stored) {
            Ok(()) => Ok(()),
            Err(error) => {
                // Nothing was published: this file is given up where it stands, the next append opens another.
                if let Some(active) = self.active.take() {
                    self.finish(active);
                }
                Err(AppendError::Storage(error))
            }
        }
    }

    fn write_mark(&mut self) -> Result<(), AppendError> {
        let mut active = self.active.take().expect("reach leaves a segment");
        let written = self.write_mark_to(&mut active);
        if let Err(error) = written {
            self.finish(active);
            return Err(AppendError::Storage(error));
        }
        self.publish_mark(&active);
        self.active = Some(active);
        Ok(())
    }

    fn write_mark_to(&mut self, active: &mut Active) -> io::Result<()> {
        let durable = self.log.durable_sequence();
        let stored = Mark { durable, totals: self.totals }.encode();
        let header = Header {
            stored_bytes: u32::try_from(stored.len()).expect("56"),
            sequence: self.sequence,
            crc: crc32c::crc32c(&stored),
            kind: Kind::CommitMark { written_ns: self.wall_ns },
            packing: Packing::None,
        };
        write_entry(active, &header, &stored)?;
        self.marked_durable = durable;
        self.blocks_since_mark = 0;
        Ok(())
    }

    fn publish_mark(&self, active: &Active) {
        active.segment.extent.publish(active.end);
        self.log.progress.publish(self.sequence, entry_bytes(MARK_BYTES));
        let position = Position {
            segment: active.segment.id(),
            offset: active.end,
            sequence: self.sequence,
            spans: self.totals.appended,
        };
        self.log.set_mark(MarkPoint { position, mark: Mark { durable: self.marked_durable, totals: self.totals } });
    }
}

fn write_entry(active: &mut Active, header: &Header, stored: &[u8]) -> io::Result<()> {
    let bytes = header.encode(active.segment.header.key, active.segment.id(), active.end);
    active.file.write_entry_at(active.end, &bytes, stored)?;
    active.end += entry_bytes(stored.len());
    Ok(())
}

pub(super) fn add_block(totals: &mut LaneTotals, meta: &Meta) {
    let spans = u64::from(meta.spans);
    let (passed, synthesised) = (u64::from(meta.passed()), u64::from(meta.synthesised()));
    totals.passed += passed;
    totals.synthesised += synthesised;
    totals.encoded += spans - passed - synthesised;
    totals.appended += spans;
}
