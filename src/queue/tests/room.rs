//! What gives room back and what needs it: moves with a full budget, releases a few at a time, files that are put aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{at_rest, meta, small_options};
use crate::config::{BlockCompression, MissingKey};
use crate::queue::format::{HeaderFound, SegmentHeader, segment_id};
use crate::queue::{
    AppendError, Appender, AtRest, Budget, Cursor, Entry, FileStorage, Log, MmapStorage, Options, Reader, Storage,
};
use crate::sim::disk::SimDisk;
use crate::telemetry::ledger::DestinationTotals;

const SEGMENT_BYTES: u64 = 16 * 1024;

fn options(segments: u64) -> Options {
    small_options("state", &Arc::new(Budget::new(segments * SEGMENT_BYTES, 0)))
}

fn append_blocks(appender: &mut Appender, blocks: usize) -> usize {
    (0..blocks).take_while(|_| appender.append(&meta(2), &[7; 1000]).is_ok()).count()
}

fn read_blocks(reader: &mut Reader, blocks: usize) -> usize {
    let entries = std::iter::from_fn(|| reader.next()).take(blocks);
    entries.inspect(|entry| assert!(matches!(entry, Entry::Block { .. }), "{entry:?}")).count()
}

#[test]
fn a_move_that_finds_no_room_is_tried_again_when_there_is_some() {
    let disk = SimDisk::new(1);
    let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options(4)).unwrap();
    let durable_blocks = append_blocks(&mut appender, 24);
    log.sync().unwrap();
    let durable = log.durable_sequence();
    // The rest of the budget, some of it in a segment of its own, and then the sync fails on a full disk.
    let blocks = durable_blocks + append_blocks(&mut appender, usize::MAX);
    disk.fail_sync_after(0);
    disk.set_free_bytes(0);
    assert_eq!(log.sync().unwrap(), durable);
    for _ in 0..3 {
        assert!(matches!(appender.maintain(Duration::ZERO, 1), Err(AppendError::Full)));
        assert!(matches!(appender.append(&meta(2), b"no room"), Err(AppendError::Full)));
        assert!(appender.is_stuck() && !appender.has_room() && !log.has_failed());
    }
    // What is durable is delivered and released, and that gives room, though the sync still fails.
    let mut reader = log.reader(log.oldest());
    assert_eq!(read_blocks(&mut reader, durable_blocks), durable_blocks);
    assert!(log.release(&reader.position()) >= 1);
    log.tend(1).unwrap();
    appender.maintain(Duration::ZERO, 1).unwrap();
    assert!(!appender.is_stuck());
    assert_eq!(log.sync().unwrap(), log.published_sequence());
    assert_eq!(read_blocks(&mut reader, usize::MAX), blocks - durable_blocks, "every block is there, once");
    drop((log, appender));
    let (log, _appender, found) = Log::open(Arc::new(disk.after_power_cut()), options(8)).unwrap();
    assert_eq!((found.lost_blocks, found.totals.appended), (0, 2 * blocks as u64));
    assert!(read_blocks(&mut log.reader(log.oldest()), usize::MAX) >= blocks - durable_blocks);
}

#[test]
fn a_move_of_several_segments_begins_when_there_is_room_for_all_of_them() {
    let disk = SimDisk::new(2);
    let budget = Arc::new(Budget::new(20 * SEGMENT_BYTES, 0));
    let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), small_options("state", &budget)).unwrap();
    let blocks = append_blocks(&mut appender, 40);
    disk.fail_sync_after(0);
    log.sync().unwrap();
    // There is one spare.
    disk.set_free_bytes(0);
    let before = log.stats().segments;
    for _ in 0..2 {
        assert!(matches!(appender.maintain(Duration::ZERO, 1), Err(AppendError::Full)));
        assert_eq!((log.stats().segments, log.has_failed()), (before, false), "nothing was moved");
    }
    disk.set_free_bytes(u64::MAX);
    appender.maintain(Duration::ZERO, 1).unwrap();
    assert_eq!(log.sync().unwrap(), log.published_sequence());
    assert_eq!(read_blocks(&mut log.reader(log.oldest()), usize::MAX), blocks);
}

#[test]
fn blocks_that_fill_the_budget_are_moved_beyond_it() {
    let disk = SimDisk::new(4);
    let budget = Arc::new(Budget::new(4 * SEGMENT_BYTES, 0));
    let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), small_options("state", &budget)).unwrap();
    let blocks = append_blocks(&mut appender, usize::MAX);
    disk.fail_sync_after(0);
    log.sync().unwrap();
    appender.maintain(Duration::ZERO, 1).unwrap();
    assert_eq!(log.sync().unwrap(), log.published_sequence());
    // Their old files go, and with those that are delivered the log is within its budget again.
    let mut reader = log.reader(log.oldest());
    assert_eq!(read_blocks(&mut reader, usize::MAX), blocks);
    log.release(&reader.position());
    log.tend(1).unwrap();
    assert!(budget.used_bytes() <= budget.max_bytes(), "{} bytes", budget.used_bytes());
}

/// A destination may commit behind the last mark of a segment that no sync has covered yet.
#[test]
fn a_segment_goes_only_when_the_totals_that_speak_for_it_are_durable() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options(20)).unwrap();
        let first = appender.place().unwrap().0;
        let mut blocks = 0;
        while appender.place().unwrap().1 + 1200 < SEGMENT_BYTES {
            blocks += append_blocks(&mut appender, 1);
        }
        log.sync().unwrap();
        // Into the next segment: the marks at the end of the first and the beginning of the second are not synced.
        append_blocks(&mut appender, 1);
        assert!(appender.place().unwrap().0 > first);
        let mut reader = log.reader(log.oldest());
        let mut cursor = Cursor::open(&disk, std::path::Path::new("state/destination")).unwrap();
        assert_eq!(read_blocks(&mut reader, blocks), blocks);
        let end =
            crate::queue::Position { segment: first, offset: log.segments()[0].extent.load().0, ..reader.position() };
        let delivered = DestinationTotals { delivered: end.spans, ..DestinationTotals::default() };
        cursor.commit(&[(&log, end, delivered)]).unwrap();
        assert_eq!(log.release(&end), 1);
        log.tend(1).unwrap();
        let (_log, _appender, found) = Log::open(Arc::new(disk.after_power_cut()), options(20)).unwrap();
        assert!(
            found.totals.appended >= delivered.delivered,
            "seed {seed}: the balance has forgotten what was delivered"
        );
    }
}

#[test]
fn a_released_backlog_goes_a_few_segments_a_call() {
    let disk = SimDisk::new(3);
    let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options(400)).unwrap();
    append_blocks(&mut appender, 300 * 7);
    appender.maintain(Duration::from_secs(5), 1).unwrap();
    log.sync().unwrap();
    let mut released = log.release(&log.tail());
    assert!(released > 200, "{released}");
    let mut before = disk.files().len();
    while log.wants_tending() {
        log.tend(1).unwrap();
        let after = disk.files().len();
        assert!(before - after <= 64, "{} files went in one call", before - after);
        assert!(released > 0, "it does not end");
        released = released.saturating_sub(64);
        before = after;
    }
    assert!(before < 12, "{before} files stay");
}

#[test]
fn a_file_that_is_put_aside_takes_no_other_ones_place() {
    let root = tempfile::tempdir().unwrap();
    let options = |at_rest: AtRest| Options {
        at_rest,
        ..small_options(&root.path().to_string_lossy(), &Arc::new(Budget::new(1 << 20, 0)))
    };
    let (log, mut appender, _) =
        Log::open(Arc::new(FileStorage), options(at_rest(BlockCompression::None, &[1]))).unwrap();
    append_blocks(&mut appender, 4);
    log.sync().unwrap();
    drop((log, appender));
    let quarantine = root.path().join("log/quarantine");
    let earlier = quarantine.join("lane-00-seg-0000000000000001.log");
    fs::write(&earlier, b"from before").unwrap();
    let skip = AtRest { missing_key: MissingKey::Skip, ..AtRest::default() };
    let (log, mut appender, _) = Log::open(Arc::new(FileStorage), options(skip)).unwrap();
    appender.append(&meta(1), b"new").unwrap();
    log.sync().unwrap();
    let mut reader = log.reader(log.oldest());
    while reader.next().is_some() {}
    assert_eq!(log.release(&reader.position()), 1);
    log.tend(1).unwrap();
    assert!(fs::read(&earlier).unwrap() == b"from before", "another file has taken its name");
    assert!(quarantine.join("lane-00-seg-0000000000000001.log.1").exists());
}

/// A kill between the rename of a released file and its sync: without that sync a power cut would bring its old name back,
/// with another segment's header behind it.
#[test]
fn a_file_that_a_kill_left_in_the_pool_is_written_over_only_when_its_name_is_durable() {
    for (fuse, fuse_at_start) in (1..12).flat_map(|fuse| (1..50).map(move |at_start| (fuse, at_start))) {
        let disk = SimDisk::new(fuse * 50 + fuse_at_start);
        let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options(20)).unwrap();
        append_blocks(&mut appender, 20);
        log.sync().unwrap();
        appender.maintain(Duration::ZERO, 1).unwrap();
        log.sync().unwrap();
        log.tend(1).unwrap();
        assert!(log.release(&log.durable_tail()) >= 2);
        disk.light_fuse(fuse);
        log.tend(1).ok();
        disk.remove_fuse();
        drop((log, appender));
        disk.light_fuse(fuse_at_start);
        drop(Log::open(Arc::new(disk.clone()), options(20)));
        let disk = disk.after_power_cut();
        let segments =
            disk.files().into_iter().filter_map(|(path, _)| Some((segment_id(path.file_name()?.to_str()?)?, path)));
        for (named, path) in segments {
            let bytes = disk.contents(&path).unwrap();
            let HeaderFound::Valid(header) = SegmentHeader::decode(bytes.first_chunk().unwrap()) else { continue };
            assert_eq!(header.id, named, "fuses {fuse} and {fuse_at_start}");
        }
    }
}

#[test]
fn starts_in_a_row_leave_no_room_behind_that_nobody_uses() {
    for storage in [Arc::new(FileStorage) as Arc<dyn Storage>, Arc::new(MmapStorage), Arc::new(SimDisk::new(9))] {
        let root = tempfile::tempdir().unwrap();
        let open = || {
            let budget = Arc::new(Budget::new(4 * 256 * 1024, 0));
            let options = small_options(&root.path().to_string_lossy(), &budget);
            let (log, appender, found) =
                Log::open(Arc::clone(&storage), Options { segment_bytes: 256 * 1024, ..options }).unwrap();
            (log, appender, found, budget)
        };
        for life in 0..20 {
            let (log, mut appender, found, budget) = open();
            assert_eq!((found.blocks, found.lost_blocks), (life, 0));
            assert_eq!(append_blocks(&mut appender, 1), 1, "life {life}: {} bytes are in use", budget.used_bytes());
            log.sync().unwrap();
        }
        let (log, mut appender, _, budget) = open();
        assert_eq!(read_blocks(&mut log.reader(log.oldest()), usize::MAX), 20);
        let far = 512 * 1024;
        assert_eq!(log.position_at_lag(far), log.oldest(), "a destination that may lag {far} bytes loses nothing");
        // What is released is given back to the byte.
        append_blocks(&mut appender, 1);
        log.sync().unwrap();
        log.release(&log.tail());
        log.tend(1).unwrap();
        let files = segments_and_spares(&*storage, root.path());
        assert_eq!(budget.used_bytes(), files);
    }
}

/// Bytes of all files of a lane.
fn segments_and_spares(storage: &dyn Storage, root: &Path) -> u64 {
    let bytes = |directory: PathBuf| -> u64 {
        let names = storage.list(&directory).unwrap().into_iter();
        let files = names.filter(|name| name.starts_with("seg-") || name.starts_with("free-"));
        files.map(|name| storage.open(&directory.join(name)).unwrap().bytes()).sum()
    };
    bytes(root.join("log/lane-00")) + bytes(root.join("log/lane-00/free"))
}
