//! Every peer's queue has lost data in a crash that its tests did not try. This one tries states by the ten thousand.
//!
//! A run is a lane on a simulated disk with a destination: it appends (hostile payloads among them), syncs, tends, reads,
//! commits and releases, and is cut off at any call, also in the middle of recovery, also after failed syncs and with
//! rotten bits. After each cut the log is opened again and read to its end, and must keep these promises:
//!
//! 1. a durable block that no rot touched is there, once, byte for byte, in order;
//! 2. nothing is there that was not written, and what was once missing stays missing;
//! 3. without rot nothing is reported lost, and with it the spans read and lost add up to the lane's balance;
//! 4. no sequence is used twice, and the destination's totals are those of its position.
//!
//! 5. no nonce is used twice, and what an attacker with the disk altered or moved in an encrypted segment is not delivered.
//!
//! A part of the runs compresses, a part encrypts, with keys that rotate. The planted bugs at the end say whether the
//! explorer could see a breach.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{at_rest, meta, small_options};
use crate::block::{HEADER_BYTES, Header, HeaderKey, Kind, Packing};
use crate::config::BlockCompression;
use crate::queue::crc32c;
use crate::queue::format::{HeaderFound, SegmentHeader, entry_bytes};
use crate::queue::keys::witness;
use crate::queue::sabotage::{Sabotage, plant, planted};
use crate::queue::{Appender, AtRest, Budget, Cursor, Entry, Log, Position, Reader, Storage};
use crate::sim::campaign::{Campaign, in_threads};
use crate::sim::disk::SimDisk;
use crate::telemetry::ledger::DestinationTotals;

const CUTS_PER_RUN: u64 = 8;

/// A block that was appended.
struct Written {
    payload: Vec<u8>,
    spans: u32,
    /// Somebody was told that it is durable.
    acknowledged: bool,
    /// A recovery did not find it.
    gone: bool,
}

/// The destination.
struct Destination {
    cursor: Cursor,
    reader: Reader,
    totals: DestinationTotals,
    /// Settled and not yet committed.
    waiting: Vec<(Position, DestinationTotals)>,
}

struct Run {
    disk: SimDisk,
    random: fastrand::Rng,
    written: BTreeMap<u64, Written>,
    rot: bool,
    /// Bits that rotted and have not yet been seen to cost a block.
    rotten_bits: u64,
    has_rotted: bool,
    flipped: HashSet<(PathBuf, usize)>,
    /// Starts in a row that were cut off before the log was open, and the most of them.
    cut_starts: u32,
    most_cut_starts: u32,
    /// What an attacker has touched: segment, and offset behind the block.
    forbidden: HashSet<(u64, u64)>,
    encrypted: bool,
    compression: BlockCompression,
}

struct Process {
    log: Arc<Log>,
    appender: Appender,
    destination: Destination,
    now: Duration,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = fastrand::Rng::with_seed(seed);
        witness::forget();
        let rot = random.u8(..) < 64;
        let compressions = [BlockCompression::None, BlockCompression::Lz4, BlockCompression::Zstd { level: 1 }];
        Run {
            disk: SimDisk::new(random.u64(..)),
            written: BTreeMap::new(),
            rot,
            rotten_bits: 0,
            has_rotted: false,
            flipped: HashSet::new(),
            cut_starts: 0,
            most_cut_starts: 0,
            forbidden: HashSet::new(),
            encrypted: random.u8(..) < 96,
            compression: if random.bool() {
                BlockCompression::None
            } else {
                random.choice(compressions).expect("some")
            },
            random,
        }
    }

    fn explore(&mut self) {
        for _ in 0..CUTS_PER_RUN {
            self.cut_starts += 1;
            self.most_cut_starts = self.most_cut_starts.max(self.cut_starts - 1);
            if let Some(mut process) = self.start() {
                self.cut_starts = 0;
                let mut fuse = self.random.u64(1..400);
                if self.random.bool() {
                    fuse /= 8;
                }
                self.disk.light_fuse(fuse + 1);
                while !self.disk.is_off() {
                    self.step(&mut process);
                }
            }
            self.cut();
        }
        self.disk.remove_fuse();
        if let Some(mut process) = self.start() {
            assert!(self.append(&mut process), "after all that a block is taken");
        }
    }

    /// Opens the log and checks what it holds. `None` when the power went in the middle.
    fn start(&mut self) -> Option<Process> {
        if self.random.u8(..) < 96 {
            let fuse = self.random.u64(1..60);
            self.disk.light_fuse(fuse);
        }
        let storage: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let mut options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
        options.at_rest = self.at_rest();
        options.opened_at_start = if self.random.bool() { 1024 } else { self.random.usize(0..3) };
        let cursor = Cursor::open(&*storage, Path::new("state/destination"));
        let cursor = cursor
            .map_err(|source| crate::queue::OpenError::Storage { directory: "state/destination".to_owned(), source });
        let opened = cursor.and_then(|cursor| {
            let (log, appender, recovered) = Log::open_with_cursors(storage, options, cursor.lanes())?;
            Ok((log, appender, recovered, cursor))
        });
        let (log, mut appender, recovered, cursor) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // A failed sync ends this start; the next one must not believe what the cache still shows.
                let failed_sync = matches!(&error, crate::queue::OpenError::Storage { source, .. }
                    if source.raw_os_error() == Some(libc::EIO));
                assert!(self.disk.is_off() || failed_sync, "recovery refused: {error}");
                return None;
            }
        };
        let (from, totals) = match cursor.lane(&log) {
            Some(lane) => (lane.position, lane.totals),
            None => (Position::default(), DestinationTotals::default()),
        };
        let as_of_position =
            if self.has_rotted { totals.settled() >= from.spans } else { totals.settled() == from.spans };
        assert!(as_of_position, "the slot's totals are not as of its position");
        assert_eq!(recovered.totals.imbalance(), 0, "the lane balance does not open in balance");
        if !self.has_rotted {
            assert_eq!(recovered.lost_blocks, 0, "a crash alone has lost durable blocks");
            assert_eq!(recovered.quarantined, 0, "a crash alone has sent files into quarantine");
        }
        // The power went, or a sync failed, while the first segment was made.
        appender.place()?;
        appender.commit_mark(recovered.totals, 1).ok()?;
        self.verify(&log, from, recovered.totals.appended);
        self.disk.remove_fuse();
        let reader = log.reader(from);
        let destination = Destination { cursor, reader, totals, waiting: Vec::new() };
        Some(Process { log, appender, destination, now: Duration::ZERO })
    }

    fn at_rest(&mut self) -> AtRest {
        let order: &[u8] = match (self.encrypted, self.random.bool()) {
            (false, _) => &[],
            (true, true) => &[1, 2],
            (true, false) => &[2, 1],
        };
        at_rest(self.compression, order)
    }

    fn verify(&mut self, log: &Arc<Log>, from: Position, appended: u64) {
        let mut reader = log.reader(from);
        let (mut read, mut lost, mut last) = (0, 0, from.sequence);
        while let Some(entry) = reader.next() {
            match entry {
                Entry::Block { sequence, payload, meta, end, .. } => {
                    assert!(sequence > last, "block {sequence} after {last}");
                    let touched = self.forbidden.contains(&(end.segment, end.offset));
                    assert!(!touched, "block {sequence} was touched and believed");
                    // What is between was not found; it must never come back.
                    self.not_found(last, sequence);
                    last = sequence;
                    let written = self.written.get(&sequence);
                    let written = written.unwrap_or_else(|| panic!("block {sequence} was never written"));
                    assert!(!written.gone, "block {sequence} came back");
                    assert_eq!(written.payload, payload, "block {sequence} is not what was written");
                    assert_eq!(written.spans, meta.spans);
                    read += u64::from(meta.spans);
                }
                Entry::Gap { spans, .. } => lost += spans,
            }
        }
        self.not_found(last, u64::MAX);
        assert_eq!(reader.position().spans, appended, "the last mark is not the balance");
        if self.has_rotted {
            // Rot in durable blocks that no mark knew to be durable: readers may count what the log then forgets. The cursor
            // is never ahead.
            assert!(from.spans <= appended, "the balance has forgotten what was settled: {from:?} of {appended}");
            assert!(from.spans + read + lost >= appended, "read {read} and lost {lost} from {from:?} of {appended}");
        } else {
            assert_eq!(from.spans + read, appended, "read {read} from {from:?}");
            assert_eq!(lost, 0, "a crash alone has lost spans");
        }
    }

    fn not_found(&mut self, after: u64, before: u64) {
        if after + 1 >= before {
            return;
        }
        for (sequence, written) in self.written.range_mut(after + 1..before) {
            if written.gone {
                continue;
            }
            written.gone = true;
            if written.acknowledged {
                assert!(self.rotten_bits > 0, "block {sequence} was durable and is gone");
                self.rotten_bits -= 1;
            }
        }
    }

    fn step(&mut self, process: &mut Process) {
        match self.random.u8(..) {
            0..=119 => {
                self.append(process);
            }
            120..=159 => self.sync(process),
            160..=174 => {
                // A power cut in the middle is found by the next operation.
                process.log.tend(1).ok();
            }
            175..=194 => {
                process.now += Duration::from_millis(self.random.u64(0..700));
                process.appender.maintain(process.now, 1).ok();
            }
            195..=224 => self.deliver(process),
            225..=249 => self.commit(process),
            250..=252 => {
                let syncs = self.random.u64(0..4);
                self.disk.fail_sync_after(syncs);
            }
            _ => {
                process.appender.commit_mark(process.appender.totals(), 1).ok();
            }
        }
        if process.log.has_failed() {
            // The process ends; what it leaves in the cache is the next one's.
            self.disk.light_fuse(0);
        }
    }

    fn append(&mut self, process: &mut Process) -> bool {
        let mut payload = vec![0; self.random.usize(0..1500)];
        self.random.fill(&mut payload);
        if self.random.bool() {
            payload.iter_mut().for_each(|byte| *byte &= 3);
        }
        if self.random.bool() {
            forge(&mut payload, process.appender.place());
        }
        let spans = self.random.u32(1..9);
        let Ok(sequence) = process.appender.append(&meta(spans), &payload) else { return false };
        let written = Written { payload, spans, acknowledged: false, gone: false };
        assert!(self.written.insert(sequence, written).is_none(), "sequence {sequence} was used before");
        true
    }

    fn sync(&mut self, process: &Process) {
        let before = process.log.durable_sequence();
        if let Ok(durable) = process.log.sync()
            && durable > before
        {
            for (_, written) in self.written.range_mut(before + 1..=durable) {
                written.acknowledged = true;
            }
        }
    }

    fn deliver(&mut self, process: &mut Process) {
        let destination = &mut process.destination;
        for _ in 0..self.random.u8(1..20) {
            match destination.reader.next() {
                Some(Entry::Block { sequence, payload, meta, end, .. }) => {
                    let written = &self.written[&sequence];
                    assert!(!written.gone, "block {sequence} came back");
                    assert_eq!(written.payload, payload, "block {sequence} is not what was written");
                    destination.totals.delivered += u64::from(meta.spans);
                    destination.waiting.push((end, destination.totals));
                }
                Some(Entry::Gap { spans, end }) => {
                    destination.totals.lost += spans;
                    destination.waiting.push((end, destination.totals));
                }
                None => break,
            }
        }
    }

    fn commit(&mut self, process: &mut Process) {
        let destination = &mut process.destination;
        let durable = process.log.durable_sequence();
        let ahead = planted(Sabotage::CursorAhead);
        let settled = destination.waiting.iter().take_while(|(end, _)| ahead || end.sequence <= durable).count();
        let Some(&(end, totals)) = settled.checked_sub(1).and_then(|last| destination.waiting.get(last)) else {
            return;
        };
        if planted(Sabotage::EarlyRelease) {
            process.log.release(&end);
            process.log.tend(1).ok();
        }
        if destination.cursor.commit(&[(&process.log, end, totals)]).is_ok() {
            destination.waiting.drain(..settled);
            process.log.release(&end);
        }
    }

    /// Cuts the power, or only kills the process; perhaps bits rot.
    fn cut(&mut self) {
        if self.random.u8(..) < 40 {
            self.disk.remove_fuse();
        } else {
            self.disk = self.disk.after_power_cut();
        }
        if self.rot && self.random.bool() {
            for _ in 0..self.random.u8(1..4) {
                if self.encrypted && self.random.bool() { self.attack() } else { self.flip() }
            }
        }
    }

    fn flip(&mut self) {
        let is_segment = |(path, bytes): &(PathBuf, usize)| path.to_string_lossy().contains("seg-") && *bytes > 8192;
        let files: Vec<(PathBuf, usize)> = self.disk.files().into_iter().filter(is_segment).collect();
        let Some((path, bytes)) = self.random.choice(files) else { return };
        // Behind the header pages: what they tell stands more than once, and a test of its own damages them.
        let bit = self.random.usize(8192 * 8..bytes * 8);
        if !self.flipped.insert((path.clone(), bit)) {
            // A second time would heal it, and what was missing would be there again.
            return;
        }
        self.disk.flip_bit(&path, bit);
        self.rotten_bits = self.rotten_bits.saturating_add(1);
        self.has_rotted = true;
    }
}

/// An attacker who has the disk, and with it every header key, but no master key.
impl Run {
    fn attack(&mut self) {
        let paths = self.disk.files().into_iter().map(|(path, _)| path);
        let paths: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().contains("seg-")).collect();
        let Some(path) = self.random.choice(paths) else { return };
        let bytes = self.disk.contents(&path).expect("it was listed");
        let HeaderFound::Valid(of) = SegmentHeader::decode(bytes.first_chunk().expect("a header")) else { return };
        let blocks = blocks(&bytes, &of);
        let (Some(victim), Some(target)) = (self.random.choice(&blocks), self.random.choice(&blocks)) else { return };
        if victim.0 != target.0 && victim.1.stored_bytes <= target.1.stored_bytes {
            self.move_block(&path, &of, (*victim, *target));
        } else {
            self.alter(&path, &of, *victim);
        }
        self.has_rotted = true;
        // Who writes to the disk can destroy what he likes; that he can make nobody believe anything is the promise.
        self.rotten_bits = u64::MAX;
    }

    /// Changes what a header says.
    fn alter(&mut self, path: &Path, of: &SegmentHeader, (offset, header): (u64, Header)) {
        let Kind::Block(mut meta) = header.kind else { return };
        match self.random.u8(0..3) {
            0 => meta.spans += 1,
            1 => meta.source.0 += 1,
            _ => meta.received_ns += 1,
        }
        let altered = Header { kind: Kind::Block(meta), ..header }.encode(of.key, of.id, offset);
        self.disk.overwrite(path, usize::try_from(offset).unwrap(), &altered);
        self.forbidden.insert((of.id, offset + entry_bytes(header.stored_bytes as usize)));
    }

    /// Puts a block in the place of another one, and destroys it where it was.
    fn move_block(&mut self, path: &Path, of: &SegmentHeader, (victim, target): ((u64, Header), (u64, Header))) {
        let (from, to) = (usize::try_from(victim.0).unwrap(), usize::try_from(target.0).unwrap());
        let bytes = self.disk.contents(path).expect("it was listed");
        let length = victim.1.stored_bytes as usize;
        if from.max(to) + HEADER_BYTES + length > bytes.len() {
            return;
        }
        self.disk.overwrite(path, to, &victim.1.encode(of.key, of.id, target.0));
        self.disk.overwrite(path, to + HEADER_BYTES, &bytes[from + HEADER_BYTES..from + HEADER_BYTES + length]);
        self.disk.overwrite(path, from, &[0; HEADER_BYTES]);
        self.forbidden.insert((of.id, target.0 + entry_bytes(length)));
    }
}

/// Every block of an encrypted segment, with its place.
fn blocks(bytes: &[u8], of: &SegmentHeader) -> Vec<(u64, Header)> {
    let (places, _) = bytes.as_chunks::<HEADER_BYTES>();
    let header = |(place, bytes)| {
        let offset = (place * HEADER_BYTES) as u64;
        Some((offset, Header::decode(bytes, of.key, of.id, offset)?))
    };
    let found = places.iter().enumerate().filter_map(header);
    found.filter(|(_, header)| of.master.is_some() && matches!(header.kind, Kind::Block(_))).collect()
}

/// Puts a header into the payload that would be believed if headers were not keyed.
fn forge(payload: &mut [u8], place: Option<(u64, u64)>) {
    let Some((segment, end)) = place else { return };
    let header = |sequence| {
        let body = b"forged";
        let kind = Kind::Block(meta(1));
        Header { stored_bytes: 6, sequence, crc: crc32c::crc32c(body), kind, packing: Packing::None }
    };
    let mut at = 0;
    while at + HEADER_BYTES + 6 <= payload.len() {
        let offset = end + (HEADER_BYTES + at) as u64;
        let forged = header(1 << 40).encode(HeaderKey([7; 16]), segment, offset);
        payload[at..at + HEADER_BYTES].copy_from_slice(&forged);
        payload[at + HEADER_BYTES..at + HEADER_BYTES + 6].copy_from_slice(b"forged");
        at += 4 * HEADER_BYTES;
    }
}

#[test]
fn every_promise_holds_in_every_crash_state() {
    let variables = ("MILLRACE_CRASH_SEED", "MILLRACE_CRASH_STATES");
    let campaign = Campaign::asked_for("crash states", variables, CUTS_PER_RUN, 20_000);
    let explore = |seed| {
        let mut run = Run::new(seed);
        run.explore();
        (run.most_cut_starts, run.written.len())
    };
    let runs = campaign
        .run(explore, |runs| format!("{} blocks, 0 lost", runs.iter().map(|(_, blocks)| blocks).sum::<usize>()));
    let deepest = runs.into_iter().map(|(cut_starts, _)| cut_starts).max();
    assert!(campaign.units() < 20_000 || deepest >= Some(3), "no crash in the third recovery in a row");
}

/// Whether a planted bug is found, and after how many states.
fn states_until_found(bug: Sabotage, limit: u64) -> Option<u64> {
    plant(Some(bug));
    let found = (1..=limit / CUTS_PER_RUN).find(|&seed| {
        let mut run = Run::new(seed);
        catch_unwind(AssertUnwindSafe(|| run.explore())).is_err()
    });
    plant(None);
    found.map(|runs| runs * CUTS_PER_RUN)
}

#[test]
fn every_planted_bug_is_found() {
    let bugs = [
        Sabotage::AckBeforeSync,
        Sabotage::DirectoryNotSynced,
        Sabotage::OneKeyForAll,
        Sabotage::PayloadUnchecked,
        Sabotage::StopAtFirstDamage,
        Sabotage::SequenceReused,
        Sabotage::SyncRetried,
        Sabotage::BothCopies,
        Sabotage::SlotUnchecked,
        Sabotage::OlderSlot,
        Sabotage::SameSlot,
        Sabotage::SlotNotSynced,
        Sabotage::TornMarksBelieved,
        Sabotage::EarlyFooter,
        Sabotage::RecoveredNotSynced,
        Sabotage::EarlyRelease,
        Sabotage::CursorAhead,
        Sabotage::OneCipherForAll,
        Sabotage::OneNonceForAll,
        Sabotage::TagUnchecked,
        Sabotage::FooterUnchecked,
        Sabotage::IndexEarly,
        Sabotage::FieldsNotVouched,
        Sabotage::PlaceNotVouched,
    ];
    let found: Vec<(Sabotage, Option<u64>)> = in_threads(bugs, |bug| (bug, states_until_found(bug, 20_000)));
    for (bug, states) in &found {
        eprintln!("{bug:?}: {states:?}");
    }
    let missed: Vec<_> = found.iter().filter(|(_, states)| states.is_none()).collect();
    assert!(missed.is_empty(), "not found within 20,000 states: {missed:?}");
}
