//! Small cases: budget, pool, views, jumps, retention, moved blocks, cursors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{meta, small_options};
use crate::block::HEADER_BYTES;
use crate::queue::format::{FIRST_ENTRY, segment_name};
use crate::queue::{
    AppendError, Appender, Budget, Cursor, Entry, Log, MmapStorage, OpenError, Options, Position, Storage, SyncError,
};
use crate::sim::disk::SimDisk;
use crate::telemetry::ledger::DestinationTotals;

const SEGMENT_BYTES: u64 = 16 * 1024;

fn open_sim(disk: &SimDisk, segments: u64) -> (Arc<Log>, Appender) {
    let options = small_options("state", &Arc::new(Budget::new(segments * SEGMENT_BYTES, 0)));
    let (log, appender, _) = Log::open(Arc::new(disk.clone()), options).unwrap();
    (log, appender)
}

fn fill(appender: &mut Appender) -> u64 {
    let mut blocks = 0;
    while appender.append(&meta(2), &[7; 1000]).is_ok() {
        blocks += 1;
    }
    blocks
}

#[test]
fn a_used_up_budget_says_full_and_takes_blocks_again_after_a_release() {
    let disk = SimDisk::new(1);
    let (log, mut appender) = open_sim(&disk, 4);
    let before = fill(&mut appender);
    assert!(before >= 4 * 7, "{before} blocks in four segments");
    assert!(matches!(appender.append(&meta(2), &[7; 1000]), Err(AppendError::Full)));
    assert!(!appender.has_room());
    assert_eq!(appender.totals().appended, 2 * before, "what was refused is not in the balance");
    let (newest, _) = appender.place().unwrap();
    assert_eq!(log.pool.next_segment(), newest + 1, "what there was no room for has taken no id");
    let mut reader = log.reader(log.oldest());
    for _ in 0..before / 2 {
        assert!(matches!(reader.next(), Some(Entry::Block { .. })));
    }
    log.sync().unwrap();
    assert!(log.release(&reader.position()) >= 1);
    log.tend(1).unwrap();
    assert!(appender.has_room());
    appender.append(&meta(2), &[7; 1000]).unwrap();
    assert!(log.options.budget.used_bytes() <= 4 * SEGMENT_BYTES);
}

#[test]
fn a_start_with_a_full_budget_and_a_release_keep_the_balance() {
    let disk = SimDisk::new(1);
    let (log, mut appender) = open_sim(&disk, 4);
    let spans = 2 * fill(&mut appender);
    log.sync().unwrap();
    drop((log, appender));
    let (log, _appender) = open_sim(&disk, 4);
    assert_eq!(log.tail().spans, spans, "a destination that starts at the tail skips what is there");
    let mut reader = log.reader(log.oldest());
    while reader.next().is_some() {}
    assert_eq!(log.release(&reader.position()), 4);
    log.tend(1).unwrap();
    drop(log);
    let options = small_options("state", &Arc::new(Budget::new(4 * SEGMENT_BYTES, 0)));
    let (_, appender, recovered) = Log::open(Arc::new(disk.clone()), options).unwrap();
    assert_eq!((recovered.totals.appended, appender.totals().appended), (spans, spans));
}

#[test]
fn a_log_without_room_for_a_first_mark_tells_what_was_freed_under_a_reader() {
    let disk = SimDisk::new(13);
    let (log, mut appender) = open_sim(&disk, 4);
    let spans = 2 * fill(&mut appender);
    log.sync().unwrap();
    drop((log, appender));
    let (log, appender) = open_sim(&disk, 4);
    let from = log.oldest();
    let mut reader = log.reader(from);
    while reader.next().is_some() {}
    log.release(&reader.position());
    assert!(appender.place().is_none() && log.stats().segments == 0, "the case that this is about");
    assert!(reader.next().is_none(), "who has read everything misses nothing");
    let mut late = log.reader(from);
    assert!(matches!(late.next(), Some(Entry::Gap { spans: gap, .. }) if gap == spans));
    assert_eq!((late.next(), late.position().spans), (None, spans));
    let mut cursor = Cursor::open(&disk, Path::new("state/destinations/late")).unwrap();
    cursor.commit(&[(&log, late.position(), DestinationTotals::default())]).unwrap();
}

#[test]
fn reserved_space_stays_free() {
    let disk = SimDisk::new(1);
    let mut options = small_options("state", &Arc::new(Budget::new(u64::MAX, 10_000_000)));
    options.pool_segments = 0;
    let (_log, mut appender, _) = Log::open(Arc::new(disk.clone()), options).unwrap();
    appender.append(&meta(1), b"fits").unwrap();
    disk.set_free_bytes(10_000_000);
    assert!(fill(&mut appender) < 40, "only what was there already");
}

#[test]
fn a_view_outlives_the_release_of_its_segment() {
    let root = tempfile::tempdir().unwrap();
    let options = small_options(&root.path().to_string_lossy(), &Arc::new(Budget::new(1 << 20, 0)));
    let (log, mut appender, _) = Log::open(Arc::new(MmapStorage), options).unwrap();
    appender.append(&meta(1), &[42; 900]).unwrap();
    for _ in 0..40 {
        appender.append(&meta(1), &[1; 1000]).unwrap();
    }
    log.sync().unwrap();
    let mut reader = log.reader(log.oldest());
    let Some(Entry::Block { payload, .. }) = reader.next() else { panic!("a block") };
    while reader.next().is_some() {}
    assert!(log.release(&reader.position()) >= 2);
    log.tend(1).unwrap();
    for _ in 0..60 {
        appender.append(&meta(1), &[9; 1000]).unwrap();
    }
    assert!(payload.iter().all(|&byte| byte == 42), "the file was recycled under a view");
}

#[test]
fn jumps_say_how_many_spans_they_pass() {
    let disk = SimDisk::new(3);
    let (log, mut appender) = open_sim(&disk, 20);
    for _ in 0..100 {
        appender.append(&meta(5), &[1; 1000]).unwrap();
    }
    let mut reader = log.reader(log.oldest());
    reader.next();
    let to = log.position_at_lag(3 * SEGMENT_BYTES);
    let skipped = reader.skip_to(to);
    let mut read = 5;
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { meta, .. } => read += u64::from(meta.spans),
            Entry::Gap { .. } => panic!("a jump is no gap"),
        }
    }
    assert!(skipped > 0 && skipped.is_multiple_of(5));
    assert_eq!(read + skipped, 500);
    assert_eq!(reader.skip_to(Position::default()), 0, "backward is no move");
    assert_eq!(log.position_at_age(8).segment, log.tail().segment, "only the open segment is fresh");
    assert_eq!(log.position_at_age(0), log.oldest());
}

#[test]
fn the_balance_outlives_every_segment() {
    let disk = SimDisk::new(4);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (log, mut appender) = open_sim(&disk, 20);
    for _ in 0..50 {
        appender.append(&meta(3), &[1; 1000]).unwrap();
    }
    let mut totals = appender.totals();
    totals.refused = 7;
    totals.passed += 7;
    appender.commit_mark(totals, 1).unwrap();
    log.sync().unwrap();
    log.release(&log.tail());
    log.tend(1).unwrap();
    let incarnation = log.incarnation();
    drop((log, appender));
    for path in disk.files().into_iter().map(|(path, _)| path).filter(|path| path.to_string_lossy().contains("seg-")) {
        storage.remove(&path).unwrap();
    }
    let options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
    let (log, mut appender, recovered) = Log::open(storage, options).unwrap();
    assert_eq!(recovered.totals, totals);
    assert_eq!(log.incarnation(), incarnation);
    assert!(appender.append(&meta(1), b"next").unwrap() > 50 + (1 << 20) - 1);
}

#[test]
fn a_failed_sync_moves_the_blocks_and_a_second_failure_is_for_good() {
    let disk = SimDisk::new(5);
    let (log, mut appender) = open_sim(&disk, 20);
    for block in 0..5u8 {
        appender.append(&meta(1), &[block; 100]).unwrap();
    }
    let mut reader = log.reader(log.oldest());
    for _ in 0..3 {
        reader.next();
    }
    let before = log.durable_sequence();
    disk.fail_sync_after(0);
    assert_eq!(log.sync().unwrap(), before, "nothing became durable");
    assert_eq!(log.sync().unwrap(), before, "the file is not synced again");
    appender.maintain(Duration::ZERO, 1).unwrap();
    let after = log.sync().unwrap();
    assert_eq!(after, log.published_sequence());
    let rest: Vec<u8> = std::iter::from_fn(|| reader.next())
        .map(|entry| match entry {
            Entry::Block { payload, .. } => payload[0],
            Entry::Gap { spans, .. } => panic!("{spans} spans lost"),
        })
        .collect();
    assert_eq!(rest, [3, 4], "a reader goes on by sequence, and reads no block twice");
    appender.append(&meta(1), b"more").unwrap();
    disk.fail_sync_after(0);
    log.sync().unwrap();
    appender.maintain(Duration::ZERO, 1).unwrap();
    disk.fail_sync_after(0);
    assert!(matches!(log.sync(), Err(SyncError::Failed(_))));
    assert!(matches!(appender.append(&meta(1), b"no"), Err(AppendError::Failed)));
    assert!(log.has_failed());
}

#[test]
fn a_cursor_keeps_vanished_lanes_and_forgets_other_incarnations() {
    let disk = SimDisk::new(6);
    let (log, mut appender) = open_sim(&disk, 20);
    let mut cursor = Cursor::open(&disk, Path::new("state/destinations/a")).unwrap();
    assert!(!cursor.was_damaged() && cursor.lane(&log).is_none());
    appender.append(&meta(4), b"block").unwrap();
    log.sync().unwrap();
    let mut reader = log.reader(log.oldest());
    reader.next();
    let mut totals = DestinationTotals { delivered: 3, ..DestinationTotals::default() };
    totals.dropped[6] = 1;
    cursor.commit(&[(&log, reader.position(), totals)]).unwrap();
    let disk = disk.after_power_cut();
    let cursor = Cursor::open(&disk, Path::new("state/destinations/a")).unwrap();
    let entry = cursor.lanes()[0];
    assert_eq!((entry.lane, entry.position, entry.totals), (0, reader.position(), totals));
    let (other, _) = open_sim(&SimDisk::new(7), 20);
    assert!(cursor.lane(&other).is_none(), "another log has other positions");
}

#[test]
#[should_panic(expected = "a cursor at")]
fn a_cursor_never_passes_what_is_durable() {
    let disk = SimDisk::new(8);
    let (log, mut appender) = open_sim(&disk, 20);
    appender.append(&meta(4), b"block").unwrap();
    let mut reader = log.reader(log.oldest());
    reader.next();
    let mut cursor = Cursor::open(&disk, Path::new("state/destinations/a")).unwrap();
    cursor.commit(&[(&log, reader.position(), DestinationTotals::default())]).ok();
}

#[test]
fn a_segment_that_cannot_hold_a_block_is_refused() {
    let options = Options {
        max_payload_bytes: 1 << 20,
        directory: PathBuf::from("state/log"),
        ..small_options("state", &Arc::new(Budget::new(1 << 30, 0)))
    };
    let opened = Log::open(Arc::new(SimDisk::new(9)), options);
    assert!(matches!(opened, Err(OpenError::SegmentTooSmall(SEGMENT_BYTES))));
}

#[test]
fn three_segments_are_enough_to_go_on() {
    let disk = SimDisk::new(10);
    let (log, mut appender) = open_sim(&disk, crate::config::SEGMENTS_A_LANE);
    let mut reader = log.reader(log.oldest());
    for round in 0..50 {
        assert!(fill(&mut appender) > 0, "stuck in round {round}");
        log.sync().unwrap();
        appender.maintain(Duration::from_secs(round), 1).ok();
        log.sync().unwrap();
        while reader.next().is_some() {}
        log.release(&reader.position());
        log.tend(1).unwrap();
    }
}

#[test]
fn a_pool_that_became_smaller_gives_its_files_back_at_start() {
    let disk = SimDisk::new(12);
    let (budget, pooled) = (Arc::new(Budget::new(1 << 20, 0)), |disk: &SimDisk| {
        disk.files().iter().filter(|(path, _)| path.to_string_lossy().contains("free/")).count()
    });
    let options = |pool_segments| Options { pool_segments, ..small_options("state", &budget) };
    let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options(8)).unwrap();
    for _ in 0..200 {
        appender.append(&meta(1), &[1; 1000]).unwrap();
    }
    log.sync().unwrap();
    log.release(&log.tail());
    log.tend(1).unwrap();
    assert!((2..=8).contains(&pooled(&disk)), "{} files in the pool", pooled(&disk));
    drop((log, appender));
    let opened = Log::open(Arc::new(disk.clone()), options(1)).unwrap();
    assert!(pooled(&disk) <= 1, "{} files in the pool", pooled(&disk));
    drop(opened);
}

#[test]
fn a_destination_that_begins_between_two_syncs_begins_where_it_may_be_committed() {
    let disk = SimDisk::new(1);
    let (log, mut appender) = open_sim(&disk, 8);
    appender.append(&meta(2), &[7; 1000]).unwrap();
    appender.maintain(Duration::from_secs(1), 1).unwrap();
    log.sync().unwrap();
    // Into another segment, whose first mark is newer than the sync.
    for _ in 0..20 {
        appender.append(&meta(2), &[7; 1000]).unwrap();
    }
    assert!(log.tail().sequence > log.durable_sequence(), "the case that this is about");
    let from = log.durable_tail();
    assert!(from.sequence <= log.durable_sequence());
    let mut cursor = Cursor::open(&disk, Path::new("state/destinations/new")).unwrap();
    let totals = DestinationTotals { skipped_at_start: from.spans, ..DestinationTotals::default() };
    cursor.commit(&[(&log, from, totals)]).unwrap();
    let mut reader = log.reader(from);
    let mut spans = from.spans;
    while let Some(entry) = reader.next() {
        let Entry::Block { meta, .. } = entry else { panic!("nothing is missing: {entry:?}") };
        spans += u64::from(meta.spans);
    }
    assert_eq!(spans, appender.totals().appended);
}

/// What was moved has a second copy, of which a crash leaves a part: only the new file tells which counts.
#[test]
fn a_rotten_first_mark_of_moved_blocks_costs_none_of_them() {
    for damaged in [FIRST_ENTRY + 8, FIRST_ENTRY + HEADER_BYTES as u64 + 8] {
        let disk = SimDisk::new(7);
        let options = || small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
        let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options()).unwrap();
        let mut blocks = 0;
        let mut append = |appender: &mut Appender, count| {
            blocks += count;
            for _ in 0..count {
                appender.append(&meta(1), &[9; 1000]).unwrap();
            }
        };
        append(&mut appender, 3);
        log.sync().unwrap();
        // On into another segment, whose bytes a kill leaves in the cache; those of the first are gone with its sync.
        append(&mut appender, 6);
        disk.fail_sync_after(0);
        log.sync().unwrap();
        append(&mut appender, 1);
        let moved_to = appender.place().unwrap().0;
        log.sync().unwrap();
        assert_eq!(log.durable_sequence(), log.published_sequence());
        drop((log, appender));
        let path = Path::new("state/log/lane-00").join(segment_name(moved_to));
        disk.flip_bit(&path, usize::try_from(damaged * 8).unwrap());
        let (log, _appender, found) = Log::open(Arc::new(disk), options()).unwrap();
        assert_eq!((found.lost_blocks, found.tail_blocks), (0, 0), "damaged at {damaged}");
        let mut reader = log.reader(log.oldest());
        let read = std::iter::from_fn(|| reader.next()).filter(|entry| matches!(entry, Entry::Block { .. })).count();
        assert_eq!(read, blocks, "damaged at {damaged}");
    }
}

/// A consumed file may come back after a power cut, and the one behind it have been judged meanwhile, wherever that start
/// was cut off.
#[test]
fn a_file_without_entries_cuts_nothing_off_the_one_before() {
    let (directory, away) = (PathBuf::from("state/log/lane-00"), Path::new("state/away"));
    let (first, second) = (directory.join(segment_name(1)), directory.join(segment_name(2)));
    let [start, end] = [FIRST_ENTRY, SEGMENT_BYTES].map(|offset| usize::try_from(offset).unwrap());
    for operations in 1.. {
        let disk = SimDisk::new(7);
        let (log, mut appender) = open_sim(&disk, 8);
        for _ in 0..9 {
            appender.append(&meta(2), &[7; 1000]).unwrap();
        }
        log.sync().unwrap();
        let mut cursor = Cursor::open(&disk, Path::new("state/destination")).unwrap();
        let totals = DestinationTotals { delivered: 18, ..DestinationTotals::default() };
        let mut reader = log.reader(log.oldest());
        while reader.next().is_some() {}
        cursor.commit(&[(&log, reader.position(), totals)]).unwrap();
        drop((reader, log, appender));
        disk.overwrite(&second, start, &vec![0; end - start]);
        disk.rename(&first, away).unwrap();
        let open = || {
            let options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
            Log::open_with_cursors(Arc::new(disk.clone()), options, cursor.lanes()).map(|(_, _, recovered)| recovered)
        };
        disk.light_fuse(operations);
        open().ok();
        disk.remove_fuse();
        if disk.contents(&second).is_none() {
            assert!(operations > 3, "its footer was written before it went: {operations}");
            break;
        }
        disk.rename(away, &first).unwrap();
        let recovered = open().unwrap();
        assert_eq!(recovered.blocks, 7, "cut off after {operations} operations");
        assert!(recovered.lost_blocks <= 2, "those of the second file: {}", recovered.lost_blocks);
    }
}
