//! What tools see of a log, compared with what was appended to it, on the real file system.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use super::*;
use crate::block::{Made, Meta, Signal, SourceId};
use crate::queue::{Entry, MmapStorage};
use crate::telemetry::ledger::DestinationTotals;

const SEGMENT: u64 = 4 << 20;

struct Rig {
    directory: tempfile::TempDir,
    log: Arc<Log>,
    appender: Appender,
}

fn options(state: &Path) -> Options {
    let Place { directory, quarantine, lane, at_rest } = Place::of_lane(state, 0);
    let budget = Arc::new(Budget::new(1 << 30, 0));
    let max_payload_bytes = MAX_BYTES;
    Options {
        directory,
        quarantine,
        lane,
        segment_bytes: SEGMENT,
        max_payload_bytes,
        pool_segments: 2,
        opened_at_start: 1024,
        at_rest,
        budget,
        wall_ns: 1,
    }
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let (log, appender, _) = Log::open(Arc::new(MmapStorage), options(directory.path())).unwrap();
    Rig { directory, log, appender }
}

impl Rig {
    /// Appends blocks of `bytes`, of 1 + its number spans each, and makes them durable.
    fn append(&mut self, blocks: std::ops::Range<u32>, bytes: usize) {
        for number in blocks {
            let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(3), u64::from(number) + 100);
            meta.spans = number + 1;
            self.appender.append(&meta, &vec![u8::try_from(number % 251).unwrap(); bytes]).unwrap();
        }
        self.log.sync().unwrap();
        self.appender.maintain(Duration::ZERO, 9).unwrap();
        self.log.sync().unwrap();
        self.log.tend(9).unwrap();
    }

    fn lane(&self) -> Lane {
        Lane::open(Place::of_lane(self.directory.path(), 0), 77).unwrap()
    }
}

/// Everything that a lane gives: the numbers of its blocks, and the spans of its gaps.
fn read(lane: &Lane) -> (Vec<u32>, u64) {
    let (mut blocks, mut lost) = (Vec::new(), 0);
    let mut reader = lane.reader(lane.oldest());
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { meta, .. } => blocks.push(meta.spans - 1),
            Entry::Gap { spans, .. } => lost += spans,
        }
    }
    (blocks, lost)
}

/// Every file under a directory with its bytes and the time of its last change.
fn files(directory: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
        }
    }
    found
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn what_was_appended_is_seen_beside_the_writer_and_nothing_is_written() {
    let mut rig = rig();
    rig.append(0..100, 100_000);
    // Not synced, and without a mark behind it: a reader of the process sees it, so does a tool.
    let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(3), 900);
    meta.spans = 101;
    rig.appender.append(&meta, b"newest").unwrap();
    let before = files(rig.directory.path());
    let lane = rig.lane();
    assert_eq!(read(&lane), ((0..=100).collect(), 0));
    let segments = lane.segments();
    assert_eq!(segments.len(), 3, "ten megabytes in segments of four");
    assert_eq!(segments.iter().map(|segment| segment.blocks).sum::<u64>(), 101);
    assert_eq!(segments.iter().map(|segment| segment.spans).sum::<u64>(), (1..=101).sum::<u64>());
    let times: Vec<_> = segments.iter().map(|segment| (segment.oldest_ns, segment.newest_ns)).collect();
    assert_eq!((times[0].0, times[2].1), (100, 900));
    assert_eq!(segments.iter().map(|segment| segment.sealed).collect::<Vec<_>>(), [true, true, false]);
    let entries: Vec<EntryInfo> = segments.iter().flat_map(|segment| lane.entries(segment.id).unwrap()).collect();
    let is_block =
        |entry: &&EntryInfo| matches!(entry.found, EntryFound::Entry { kind: Kind::Block(_), intact: true, .. });
    assert_eq!(entries.iter().filter(is_block).count(), 101);
    assert!(entries.iter().all(|entry| entry.found != EntryFound::Unreadable));
    assert_eq!(lane.entries(99), None);
    // What the writer may be in the middle of is not looked at.
    let growing = Shadow::default().open(&segments[2].path).unwrap();
    assert_eq!(growing.bytes(), lane.entries(segments[2].id).unwrap().last().unwrap().end);
    drop(lane);
    assert_eq!(files(rig.directory.path()), before, "a tool that looks has changed something");
}

#[test]
fn damage_is_told_to_the_block_and_the_span() {
    let mut rig = rig();
    rig.append(0..100, 100_000);
    let lane = rig.lane();
    let first = lane.segments()[0].clone();
    let entries = lane.entries(first.id).unwrap();
    let blocks: Vec<&EntryInfo> =
        entries.iter().filter(|entry| matches!(entry.found, EntryFound::Entry { kind: Kind::Block(_), .. })).collect();
    // A bit of the third block's payload, and one of the sixth block's header: 3 and 6 spans.
    flip(&first.path, blocks[2].offset + 64 + 5000);
    flip(&first.path, blocks[5].offset + 9);
    let lane = rig.lane();
    let (intact, lost) = read(&lane);
    assert_eq!((intact.len(), lost), (98, 9));
    let seen = lane.entries(first.id).unwrap();
    let bad: Vec<(u64, bool)> = seen
        .iter()
        .filter_map(|entry| match entry.found {
            EntryFound::Entry { intact: false, .. } => Some((entry.offset, true)),
            EntryFound::Unreadable => Some((entry.offset, false)),
            EntryFound::Entry { .. } => None,
        })
        .collect();
    assert_eq!(bad, [(blocks[2].offset, true), (blocks[5].offset, false)]);
}

#[test]
fn a_segment_without_a_header_is_parked_by_repair_and_only_by_repair() {
    let mut rig = rig();
    rig.append(0..100, 100_000);
    let segments = rig.lane().segments();
    let Rig { directory, log, appender } = rig;
    drop((log, appender));
    for offset in [20, 512 + 20, 5120 + 20] {
        flip(&segments[1].path, offset);
    }
    let place = Place::of_lane(directory.path(), 0);
    let lane = Lane::open(place.clone(), 77).unwrap();
    assert_eq!((lane.parked.len(), read(&lane).1), (1, segments[1].spans));
    drop(lane);
    assert!(segments[1].path.exists());
    let before = fs::read(&segments[1].path).unwrap();
    assert_eq!(repair(&place, 78).unwrap().quarantined, 1);
    assert!(!segments[1].path.exists());
    let parked: Vec<_> = fs::read_dir(&place.quarantine).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(fs::read(&parked[0]).unwrap(), before, "what was parked is what was there");
    let lane = Lane::open(place, 79).unwrap();
    assert_eq!((lane.parked.len(), read(&lane).1), (0, segments[1].spans), "the loss is still told after the repair");
}

#[test]
fn cursors_are_read_with_their_places() {
    let mut rig = rig();
    rig.append(0..10, 1000);
    let storage = MmapStorage;
    let directory = rig.directory.path().join("destinations/otlphttp~b");
    let mut cursor = Cursor::open(&storage, &directory).unwrap();
    let mut reader = rig.log.reader(rig.log.oldest());
    let Some(Entry::Block { end, .. }) = reader.next() else { panic!("a block") };
    cursor.commit(&[(&rig.log, end, DestinationTotals { delivered: 1, ..DestinationTotals::default() })]).unwrap();
    let found = cursors(rig.directory.path()).unwrap();
    assert_eq!((found.len(), found[0].destination.as_str(), found[0].is_damaged), (1, "otlphttp/b", false));
    let lane = rig.lane();
    let place = lane.position(&found[0].lanes).unwrap();
    assert_eq!(lane.tail().spans - place.position.spans, (2..=10).sum::<u64>());
    assert_eq!(lane.bytes_behind(&lane.oldest()) - lane.bytes_behind(&place.position), end.offset - FIRST_ENTRY);
    for offset in [30, 16 * 1024 + 30] {
        flip(&directory.join("cursor"), offset);
    }
    assert!(cursors(rig.directory.path()).unwrap()[0].is_damaged);
    let parked = park(&directory.join("cursor"), &rig.directory.path().join("log/quarantine"), 5).unwrap();
    assert_eq!(parked, "otlphttp~b-cursor-5");
}

#[test]
fn a_log_that_moves_is_never_taken_for_a_damaged_one() {
    let mut rig = rig();
    rig.append(0..1, 100);
    let state = rig.directory.path().to_owned();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A writer at full speed, and a destination that keeps two segments: files are reused all the time.
        let writer = scope.spawn(|| {
            let mut number = 1;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                rig.append(number..number + 200, 3000 + 17 * number as usize % 5000);
                rig.log.release(&rig.log.position_at_lag(2 * SEGMENT));
                rig.log.tend(9).unwrap();
                number += 200;
            }
            number
        });
        for _ in 0..40 {
            let lane = Lane::open(Place::of_lane(&state, 0), 77).unwrap();
            let segments = lane.segments();
            let unreadable: Vec<_> = segments
                .iter()
                .flat_map(|segment| lane.entries(segment.id).unwrap_or_default())
                .filter(|entry| entry.found == EntryFound::Unreadable)
                .collect();
            let (blocks, lost) = read(&lane);
            let gone = segments.iter().any(|segment| !segment.path.exists());
            assert!(gone || (unreadable.is_empty() && lost == 0), "{unreadable:?}, {lost} spans of {}", blocks.len());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(writer.join().unwrap() > 400, "the log did not move");
    });
}
