//! Files that somebody else cuts off: what is gone is counted, what is there is read, and nothing short is used again.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{at_rest, meta, small_options};
use crate::config::BlockCompression;
use crate::queue::{Appender, Budget, Cursor, Entry, FileStorage, Log, MmapStorage, Options, Reader, Storage, inspect};
use crate::telemetry::ledger::DestinationTotals;

fn options(root: &Path) -> Options {
    small_options(&root.to_string_lossy(), &Arc::new(Budget::new(1 << 30, 0)))
}

fn storages() -> [Arc<dyn Storage>; 2] {
    [Arc::new(FileStorage), Arc::new(MmapStorage)]
}

fn append(log: &Log, appender: &mut Appender, blocks: usize) {
    for _ in 0..blocks {
        appender.append(&meta(2), &[7; 1000]).unwrap();
    }
    log.sync().unwrap();
    log.tend(1).unwrap();
}

fn segment_files(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("log/lane-00")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().contains("seg-")).collect();
    files.sort();
    files
}

fn cut(path: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn a_file_that_was_cut_off_is_not_used_again() {
    for (storage, opened_at_start) in
        storages().into_iter().flat_map(|storage| [(Arc::clone(&storage), 0), (storage, 9)])
    {
        for reopens in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let options = || Options { opened_at_start, ..options(root.path()) };
            let (mut log, mut appender, _) = Log::open(Arc::clone(&storage), options()).unwrap();
            append(&log, &mut appender, 30);
            if reopens {
                drop((log, appender));
                (log, appender, _) = Log::open(Arc::clone(&storage), options()).unwrap();
                append(&log, &mut appender, 1);
            }
            let files = segment_files(root.path());
            for (file, bytes) in files.iter().zip([0, 4096, 9000]) {
                cut(file, bytes);
            }
            assert!(log.release(&log.tail()) >= 3);
            log.tend(1).unwrap();
            let pool = fs::read_dir(root.path().join("log/lane-00/free")).unwrap();
            for path in pool.map(|entry| entry.unwrap().path()) {
                assert_eq!(fs::metadata(&path).unwrap().len(), 16 * 1024, "{} is in the pool", path.display());
            }
            // What is written next goes through the pool.
            append(&log, &mut appender, 60);
        }
    }
}

/// A payload of which a part packs well.
fn payload(block: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(block));
    (0..1800).map(|place| if place < 900 { 5 } else { random.u8(..) }).collect()
}

#[test]
fn packed_blocks_that_were_cut_off_are_counted_and_the_others_are_what_was_appended() {
    let forms = [BlockCompression::None, BlockCompression::Lz4, BlockCompression::Zstd { level: 1 }];
    let keys: [&[u8]; 2] = [&[], &[1]];
    for case in 0..12 {
        let (storage, form, keys) = (&storages()[case % 2], forms[case / 2 % 3], keys[case / 6]);
        for bytes in [0, 4096, 8192, 9000, 12_288, 15_000] {
            let root = tempfile::tempdir().unwrap();
            let options = Options { at_rest: at_rest(form, keys), ..options(root.path()) };
            let (log, mut appender, _) = Log::open(Arc::clone(storage), options).unwrap();
            let mut append = |blocks: std::ops::Range<u32>| {
                for block in blocks {
                    appender.append(&meta(block + 1), &payload(block)).unwrap();
                }
                appender.commit_mark(appender.totals(), 1).unwrap();
                log.sync().unwrap();
            };
            append(0..30);
            // One reader has the file open and its pages mapped, the other has not.
            let mut readers = [log.reader(log.oldest()), log.reader(log.oldest())];
            assert!(readers[0].next().is_some());
            let (mut spans, mut held) = ([1, 0], Vec::new());
            cut(&segment_files(root.path())[0], bytes);
            append(30..40);
            for (reader, spans) in readers.iter_mut().zip(&mut spans) {
                while let Some(entry) = reader.next() {
                    match entry {
                        Entry::Block { payload: found, meta, .. } => {
                            assert_eq!(found, payload(meta.spans - 1), "{form:?} cut to {bytes}");
                            *spans += u64::from(meta.spans);
                            held.push(found);
                        }
                        Entry::Gap { spans: lost, .. } => *spans += lost,
                    }
                }
            }
            assert_eq!(spans, [(1..=40).sum::<u64>(); 2], "{form:?} cut to {bytes}: lost and read do not add up");
        }
    }
}

/// What a destination has got of the log: spans it got, spans it was told are gone.
fn read(reader: &mut Reader) -> (u64, u64) {
    let (mut read, mut lost) = (0, 0);
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { meta, .. } => read += u64::from(meta.spans),
            Entry::Gap { spans, .. } => lost += spans,
        }
    }
    (read, lost)
}

/// The newest segment is cut off and the process killed: the marks that counted what a destination has committed are gone.
#[test]
fn what_a_cursor_has_passed_stays_in_the_balance_when_its_blocks_and_marks_are_gone() {
    for (storage, bytes) in storages().iter().flat_map(|storage| [0, 4096, 8192, 9000].map(|bytes| (storage, bytes))) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("destinations/a");
        let (log, mut appender, _) = Log::open(Arc::clone(storage), options(root.path())).unwrap();
        append(&log, &mut appender, 12);
        let mut cursor = Cursor::open(&**storage, &directory).unwrap();
        let mut reader = log.reader(log.oldest());
        let (delivered, _) = read(&mut reader);
        let behind = log.oldest();
        let totals = DestinationTotals { delivered, ..DestinationTotals::default() };
        cursor.commit(&[(&log, reader.position(), totals)]).unwrap();
        let newest = appender.place().unwrap().0;
        drop((log, appender, reader));
        for path in segment_files(root.path()).into_iter().filter(|path| segment_of(path) >= newest) {
            cut(&path, bytes);
        }
        // What the next start begins with is what every later one goes by, also when a tool has looked or repaired between.
        let place = inspect::Place::of_lane(root.path(), 0);
        let seen = inspect::Lane::open(place.clone(), 5).unwrap().recovered.totals;
        if bytes == 4096 {
            inspect::repair(&place, 6).unwrap();
        }
        for start in 0..3 {
            let cursor = Cursor::open(&**storage, &directory).unwrap();
            let opened = Log::open_with_cursors(Arc::clone(storage), options(root.path()), cursor.lanes());
            let (log, mut appender, found) = opened.unwrap();
            let at = cursor.lane(&log).unwrap().position;
            assert!(found.totals.appended >= delivered, "start {start}, cut to {bytes}: {:?}", found.totals);
            assert!(start > 0 || found.totals == seen);
            assert_eq!(found.totals.imbalance(), 0);
            append(&log, &mut appender, 1);
            appender.commit_mark(appender.totals(), 1).unwrap();
            // Who has got all of it is told of no loss, and who has not is told of every span.
            let appended = appender.totals().appended;
            assert_eq!(read(&mut log.reader(at)), (appended - delivered, 0), "start {start}, cut to {bytes}");
            let (intact, lost) = read(&mut log.reader(behind));
            assert_eq!(intact + lost, appended, "start {start}, cut to {bytes}");
        }
    }
}

fn segment_of(path: &Path) -> u64 {
    crate::queue::format::segment_id(path.file_name().unwrap().to_str().unwrap()).unwrap()
}
