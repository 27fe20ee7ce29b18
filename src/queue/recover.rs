//! Opening a log after anything that may have happened to its files.
//!
//! Recovery never refuses because of damage: it opens what it can, counts what it cannot, and puts files that it cannot read
//! into quarantine, or leaves them where they are when even that fails. What a crash left half-written is judged once, here,
//! and the verdict is written to the footer of the segment; readers go by that. It changes no entry, appends to no old segment
//! and reuses no sequence, so a crash in the middle changes nothing. Only I/O errors that leave no place to write are errors.
//!
//! The verdict. Let D be the greatest sequence that is known to have been durable: of the lane's state, of every mark, footer
//! and cursor. A block that is missing or damaged at or below D was durable and is lost; its spans stay in the lane
//! balance, and readers report them as a gap. Beyond D it is the tail of a crash: it was never acknowledged, its spans never
//! enter the balance, and marks behind the first such block are not believed, because they count it. The state is told of D
//! at every tending and at the end of the process; a mark tells of a sync only once the next one has covered it. So of a power
//! cut *and* rot in the same blocks this is the bound: what the last sync before the cut made durable, at most
//! `queue.sync_bytes` and what came while it ran, counts as tail and not as lost.

mod files;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::append::{Appender, add_block};
use super::crc32c;
use super::cursor::LaneCursor;
use super::format::{FIRST_ENTRY, Footer, entry_bytes, segment_name};
use super::index::{Index, Records};
use super::keys::{KeyId, TAG_BYTES};
use super::log::{Log, MarkPoint, Options};
use super::mark::{MARK_BYTES, Mark};
use super::pool::{Pool, adopt_free};
use super::position::Position;
use super::sabotage::{Sabotage, planted};
use super::scan::{End, Found, Scanned, scan};
use super::segment::Segment;
use super::state::{State, StateFile};
use super::storage::Storage;
use crate::block::Kind;
use crate::telemetry::ledger::LaneTotals;

/// Sequences go on this far beyond any that may have been used.
const SEQUENCE_JUMP: u64 = 1 << 20;

/// What was found when a log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments that hold entries.
    pub segments: u64,
    /// Blocks in them: found intact, or in a sealed segment, where they are verified when they are read.
    pub blocks: u64,
    /// Durable blocks that are missing or damaged in the segments that were scanned.
    pub lost_blocks: u64,
    /// Blocks of the crash's tail that are missing or damaged: never acknowledged as durable.
    pub tail_blocks: u64,
    /// Files put into quarantine.
    pub quarantined: u64,
    /// Segments whose key is missing. They stay, and nothing of them counts as lost as long as nobody passes them.
    pub unreadable_segments: u64,
    /// Spans in them.
    pub unreadable_spans: u64,
    /// The missing key, of the oldest of them.
    pub missing_key: Option<KeyId>,
    /// The lane's state could not be read, and was derived from the segments.
    pub state_lost: bool,
    /// The lane balance: the last mark that is believed, and the blocks behind it.
    pub totals: LaneTotals,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory or file could not be used at all.
    #[error("cannot open the log in {directory}: {source}")]
    Storage {
        /// The lane's directory.
        directory: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configured segment cannot hold one block of the largest size with its marks.
    #[error("segments of {0} bytes are too small: a block must fit")]
    SegmentTooSmall(u64),
}

/// Opens the log in `options.directory`, which is created when it is not there.
pub(super) fn open(
    storage: Arc<dyn Storage>,
    options: Options,
    cursors: &[LaneCursor],
) -> Result<(Arc<Log>, Appender, Recovered), OpenError> {
    // A segment holds at least its first mark, one block and its last mark.
    let least = FIRST_ENTRY + 2 * entry_bytes(MARK_BYTES) + entry_bytes(options.max_payload_bytes + TAG_BYTES);
    if options.segment_bytes < least {
        return Err(OpenError::SegmentTooSmall(options.segment_bytes));
    }
    let directory = options.directory.display().to_string();
    Recovery::run(storage, options, cursors).map_err(|source| OpenError::Storage { directory, source })
}

struct Recovery {
    storage: Arc<dyn Storage>,
    options: Options,
    recovered: Recovered,
    durable: u64,
    /// Marks beyond this sequence count blocks that the crash took.
    trusted: u64,
    last_sequence: u64,
    /// The highest id that a file is named after, also one that cannot be read.
    highest_name: u64,
}

impl Recovery {
    fn run(
        storage: Arc<dyn Storage>,
        options: Options,
        cursors: &[LaneCursor],
    ) -> io::Result<(Arc<Log>, Appender, Recovered)> {
        let free_directory = options.directory.join("free");
        for path in [&options.directory, &free_directory, &options.quarantine] {
            storage.create_directory(path)?;
        }
        let (mut state_file, state) = StateFile::open(&*storage, &options.directory.join("state"))?;
        let mut recovery = Recovery {
            storage,
            options,
            recovered: Recovered::default(),
            durable: 0,
            trusted: u64::MAX,
            last_sequence: 0,
            highest_name: 0,
        };
        let (index, mut records) = Index::open(&*recovery.storage, &recovery.options.directory);
        let last_known = records.last_key_value().map_or(0, |(id, _)| *id);
        // Without the state, or beside another one, nobody knows whether the ids in it were used again.
        let incarnation = state.as_ref().map(|state| state.incarnation);
        records.retain(|_, (header, _)| Some(header.incarnation) == incarnation);
        let mut found = recovery.find_segments(&records)?;
        recovery.recovered.state_lost = state.is_none() && !found.is_empty();
        let state = recovery.state_or_derived(state, &found)?;
        let here =
            |cursor: &&LaneCursor| cursor.lane == recovery.options.lane && cursor.incarnation == state.incarnation;
        let passed = || cursors.iter().filter(here).map(|cursor| cursor.position);
        let passed_spans = passed().map(|position| position.spans).max().unwrap_or(0);
        recovery.durable = passed().map(|position| position.sequence).fold(state.mark.durable, u64::max);
        recovery.scan_all(&mut found, state.incarnation);
        recovery.judge(&found);
        let (footers, mut ended) = recovery.total_up(&found, &state);
        // Of what is gone together with every mark that counted it, nobody knows any more how it was made.
        let forgotten = passed_spans.saturating_sub(ended.appended);
        (ended.appended, ended.encoded) = (ended.appended + forgotten, ended.encoded + forgotten);
        let seen = found.iter().flat_map(|found| &found.entries).map(|entry| entry.header.sequence);
        recovery.last_sequence = seen.fold(recovery.last_sequence, u64::max).max(state.sequence_floor);
        let was_used = recovery.last_sequence > 0 || !found.is_empty();
        if was_used && !planted(Sabotage::SequenceReused) {
            recovery.last_sequence += SEQUENCE_JUMP;
        }
        let newest = found.last().map_or(0, |found| found.header.id);
        let sealed = recovery.write_verdicts(found.into_iter().zip(footers))?;
        let index = recovery.complete(index, &records, &sealed);
        let next_segment = newest.max(last_known).max(recovery.highest_name) + 1;
        let next_segment = next_segment.max(state.next_segment);
        // Written before anything is appended: the incarnation never changes, and the sequences that follow count as used
        // even if not one of their blocks reaches the disk.
        state_file.write(&State { next_segment, sequence_floor: recovery.last_sequence, ..state })?;
        recovery.finish(sealed, ended, (state.incarnation, next_segment), (state_file, index))
    }

    /// Adds to the index what was read from files.
    fn complete(&self, mut index: Index, records: &Records, sealed: &[(Found, Footer)]) -> Index {
        let living: BTreeSet<u64> = sealed.iter().map(|(found, _)| found.header.id).collect();
        for (found, footer) in sealed.iter().filter(|(found, _)| !records.contains_key(&found.header.id)) {
            index.record(&*self.storage, (&found.header, footer), |id| living.contains(&id));
        }
        index
    }

    fn state_or_derived(&self, state: Option<State>, found: &[Found]) -> io::Result<State> {
        if let Some(state) = state {
            return Ok(state);
        }
        let incarnation = match found.last() {
            Some(newest) => newest.header.incarnation,
            None => {
                let random = self.storage.random()?;
                u64::from_le_bytes(*random.first_chunk::<8>().expect("sixteen bytes"))
            }
        };
        Ok(State { incarnation, next_segment: 1, ..State::default() })
    }

    fn scan_all(&mut self, found: &mut Vec<Found>, incarnation: u64) {
        found.retain(|found| found.header.incarnation == incarnation);
        let mut limit = u64::MAX;
        for found in found.iter_mut().rev() {
            match &found.end {
                End::Sealed(footer) => {
                    self.durable = self.durable.max(footer.last_sequence);
                    if !footer.is_empty() {
                        limit = limit.min(footer.before_sequence);
                    }
                }
                End::Torn(file) => {
                    found.entries = scan(found.header, file);
                    cut(&mut found.entries, limit);
                    if let Some(before) = before_first(&found.entries) {
                        limit = limit.min(before);
                    }
                }
            }
        }
        let marks = found.iter().flat_map(|found| &found.entries).filter_map(|entry| entry.mark);
        self.durable = marks.map(|mark| mark.durable).fold(self.durable, u64::max);
    }

    /// Finds what is missing or damaged, tells loss from the crash's tail, and with it how far marks are believed.
    fn judge(&mut self, found: &[Found]) {
        let (mut last, mut last_id, mut verdict) = (None, 0, &Footer { trusted: u64::MAX, ..Footer::default() });
        for found in found {
            if found.header.id != last_id + 1
                && let Some(before) = before_first(&found.entries)
            {
                // What was durable between was consumed, or its file is gone: the next mark tells those who miss it.
                self.missing(last.max(Some(self.durable)), before);
                last = Some(before);
            }
            last_id = found.header.id;
            if let End::Sealed(footer) = &found.end {
                if footer.blocks > 0 {
                    last = Some(footer.last_sequence);
                }
                self.recovered.blocks = self.recovered.blocks.saturating_add(footer.blocks);
                verdict = footer;
                continue;
            }
            self.keep_verdict(verdict, &found.entries);
            for entry in &found.entries {
                let sequence = entry.header.sequence;
                match entry.header.kind {
                    Kind::CommitMark { .. } if entry.mark.is_some() => {
                        self.missing(last, sequence);
                        last = last.max(Some(sequence));
                    }
                    Kind::CommitMark { .. } => {}
                    // The second copy of a block that was moved.
                    Kind::Block(_) if last >= Some(sequence) => {}
                    Kind::Block(_) => {
                        self.missing(last, sequence - 1);
                        last = Some(sequence);
                        if entry.intact {
                            self.recovered.blocks += 1;
                        } else {
                            self.missing(Some(sequence - 1), sequence);
                        }
                    }
                }
            }
        }
        self.missing(last, self.durable);
        self.last_sequence = last.unwrap_or(0).max(self.durable);
    }

    /// A recovery that was cut off has judged the segment before, and this one is of the same run: the verdict holds.
    fn keep_verdict(&mut self, verdict: &Footer, entries: &[Scanned]) {
        let same_run = |first: &Scanned| first.header.sequence.saturating_sub(verdict.last_sequence) < SEQUENCE_JUMP;
        if verdict.trusted < u64::MAX && entries.first().is_some_and(same_run) {
            self.trusted = self.trusted.min(verdict.trusted);
        }
    }

    /// Books the blocks behind `after` up to `to` as not there. What was durable before the first entry was consumed.
    fn missing(&mut self, after: Option<u64>, to: u64) {
        let after = after.unwrap_or(self.durable);
        // Every start leaves a hole of a known size; of the run that begins behind it, what was durable was consumed.
        let after = if to.saturating_sub(after) >= SEQUENCE_JUMP { after.max(self.durable) } else { after };
        if to <= after || to - after >= SEQUENCE_JUMP {
            return;
        }
        let durable_to = to.min(self.durable);
        self.recovered.lost_blocks += durable_to.saturating_sub(after);
        if to > self.durable {
            let first = after.max(self.durable) + 1;
            self.recovered.tail_blocks += to - first + 1;
            self.trusted = self.trusted.min(first - 1);
        }
    }

    /// The footer of each segment, and the balance at the end.
    fn total_up(&mut self, found: &[Found], state: &State) -> (Vec<Footer>, LaneTotals) {
        let mut totals = LaneTotals::default();
        let mut sequence = 0;
        let mut footers = Vec::with_capacity(found.len());
        for found in found {
            footers.push(match &found.end {
                End::Sealed(footer) => {
                    // One without entries may be behind: it was judged when the files before it could not be seen.
                    if footer.last_sequence >= sequence {
                        (totals, sequence) = (footer.totals, footer.last_sequence);
                    }
                    *footer
                }
                End::Torn(_) => self.footer_of(&found.entries, &mut totals, &mut sequence),
            });
        }
        // The log wins; the state counts where the log has nothing newer to say.
        (footers, if state.mark.totals.appended > totals.appended { state.mark.totals } else { totals })
    }

    /// Adds up as a reader will: a block once, whichever of two copies comes first, and a mark that is not behind.
    fn footer_of(&self, entries: &[Scanned], totals: &mut LaneTotals, sequence: &mut u64) -> Footer {
        let mut footer = Footer { end: FIRST_ENTRY, trusted: self.trusted, ..Footer::default() };
        let mut before = (*sequence, totals.appended);
        for entry in entries {
            footer.end = entry.end();
            let this = entry.header.sequence;
            match (entry.header.kind, &entry.mark) {
                (Kind::CommitMark { .. }, Some(mark)) => {
                    if this >= *sequence && this <= self.trusted {
                        *totals = mark.totals;
                        *sequence = this;
                    }
                    if entry.offset == FIRST_ENTRY {
                        before = (this, totals.appended);
                    }
                }
                (Kind::CommitMark { .. }, None) => {}
                (Kind::Block(meta), _) => {
                    // A damaged block that was durable stays in the balance; the next mark makes a gap of it.
                    let counts = entry.intact || this <= self.durable;
                    if counts && (this > *sequence || planted(Sabotage::BothCopies)) {
                        add_block(totals, &meta);
                        *sequence = this;
                    }
                    footer.blocks += 1;
                    footer.records += u64::from(meta.records);
                    footer.stored_bytes += u64::from(entry.header.stored_bytes);
                    footer.newest_ns = footer.newest_ns.max(meta.received_ns);
                    let crc = entry.header.crc.to_le_bytes();
                    footer.rolling_crc = crc32c::crc32c_append(footer.rolling_crc, &crc);
                }
            }
        }
        let (before_sequence, spans_before) = before;
        Footer { before_sequence, spans_before, last_sequence: *sequence, totals: *totals, ..footer }
    }

    /// Writes the verdict on what was scanned; that was synced before it was read. A file that was cut off before its first
    /// entry has no room for one, and nothing to be judged. What takes no verdict would be judged anew at every start, by
    /// what later ones have added: it is put aside.
    fn write_verdicts(&mut self, judged: impl Iterator<Item = (Found, Footer)>) -> io::Result<Vec<(Found, Footer)>> {
        let mut sealed = Vec::new();
        for (mut found, footer) in judged {
            if let End::Torn(file) = &found.end
                && file.bytes() >= FIRST_ENTRY
            {
                let write = || footer.write(&**file, found.header.key, found.header.id);
                // Once more: what is written again is dirty again, so the second sync does not lie.
                match write().or_else(|_| write()) {
                    Ok(()) => {}
                    Err(error) if is_full(&error) => return Err(error),
                    Err(error) => {
                        self.recovered.blocks = self.recovered.blocks.saturating_sub(footer.blocks);
                        self.recovered.lost_blocks += footer.blocks;
                        self.set_aside(&found.name, &error);
                        continue;
                    }
                }
                self.give_back_rest(&mut found, footer.end);
            }
            sealed.push((found, footer));
        }
        Ok(sealed)
    }

    fn finish(
        mut self,
        sealed: Vec<(Found, Footer)>,
        totals: LaneTotals,
        (incarnation, next_segment): (u64, u64),
        sync_side: (StateFile, Index),
    ) -> io::Result<(Arc<Log>, Appender, Recovered)> {
        let free = adopt_free(&*self.storage, &self.options)?;
        self.recovered.totals = totals;
        let pool = Pool::new(&self.options, (incarnation, next_segment), free);
        let log = Log::new(self.storage, self.options, (incarnation, pool), sync_side, self.last_sequence);
        let end = sealed.last().map(|(found, footer)| (found.header.id, footer.end));
        let (segment, offset) = end.unwrap_or((next_segment, FIRST_ENTRY));
        log.begin_at(MarkPoint {
            position: Position { segment, offset, sequence: self.last_sequence, spans: totals.appended },
            mark: Mark { durable: self.last_sequence, totals },
        });
        for (found, footer) in sealed {
            log.options.budget.adopt(found.header.file_bytes);
            let name = (found.name != segment_name(found.header.id)).then(|| found.name.into_boxed_str());
            let segment = Segment::sealed(found.header, &footer, name);
            if found.misshapen {
                segment.extent.suspect();
            }
            if footer.blocks == 0 && footer.totals.appended == footer.spans_before {
                log.retire(Arc::new(segment));
                continue;
            }
            self.recovered.segments += 1;
            if !log.is_readable(&segment) {
                self.recovered.unreadable_segments += 1;
                let spans = footer.totals.appended.saturating_sub(footer.spans_before);
                self.recovered.unreadable_spans = self.recovered.unreadable_spans.saturating_add(spans);
                self.recovered.missing_key = self.recovered.missing_key.or(segment.header.master);
            }
            log.list(Arc::new(segment));
        }
        let log = Arc::new(log);
        let appender = Appender::start(Arc::clone(&log), totals, self.last_sequence);
        Ok((log, appender, self.recovered))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A later segment that begins before the end of this one holds the blocks behind its beginning: they were moved after a
/// failed sync.
fn cut(entries: &mut Vec<Scanned>, limit: u64) {
    if planted(Sabotage::BothCopies) {
        return;
    }
    if let Some(first) = entries.iter().position(|entry| entry.header.sequence > limit) {
        entries.truncate(first);
    }
}

/// The sequence before the first block that is there, also when the mark at the beginning is not.
fn before_first(entries: &[Scanned]) -> Option<u64> {
    let first = &entries.first()?.header;
    Some(first.sequence - u64::from(matches!(first.kind, Kind::Block(_))))
}
