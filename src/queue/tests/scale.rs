//! A long backlog: what a start and a turn cost, counted in files opened and not in seconds. How long the start takes, beside
//! a look at every file, is only printed; `MILLRACE_BACKLOG_SEGMENTS=100000` makes the backlog as long as it is meant for
//! (1.2 GB of files).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{meta, small_options};
use crate::queue::{Appender, Budget, Entry, FileStorage, Log, Options, Storage, StoredFile};
use crate::sys::clock;

/// Real files on which nothing is synced, and which count how often they are opened.
#[derive(Debug, Default)]
struct Counting {
    opened: AtomicUsize,
}

impl Storage for Counting {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        FileStorage.list(directory)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(Unsynced(FileStorage.create(path, bytes)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Unsynced(FileStorage.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileStorage.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FileStorage.remove(path)
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        FileStorage.random()
    }
}

#[derive(Debug)]
struct Unsynced(Arc<dyn StoredFile>);

impl StoredFile for Unsynced {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<bytes::Bytes> {
        Arc::clone(&self.0).view(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

const SEGMENT_BYTES: u64 = 12 * 1024;
const OPENED_AT_START: usize = 16;

fn options(root: &Path) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        max_payload_bytes: 3000,
        opened_at_start: OPENED_AT_START,
        ..small_options(&root.to_string_lossy(), &Arc::new(Budget::new(u64::MAX, 0)))
    }
}

/// Fills `segments` segments with a block each.
fn fill(log: &Log, appender: &mut Appender, segments: usize) {
    for _ in 0..segments {
        appender.append(&meta(2), &[9; 3000]).unwrap();
        log.sync().unwrap();
        log.tend(1).unwrap();
    }
}

fn open_descriptors(root: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.path().read_link().ok());
    links.filter(|path| path.starts_with(root)).count()
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_long_backlog_opens_few_files_at_start_and_one_at_a_time_when_read() {
    let wanted = std::env::var("MILLRACE_BACKLOG_SEGMENTS").ok();
    let segments = wanted.map_or(3000, |wanted| wanted.parse().expect("a number of segments"));
    let root = tempfile::tempdir().unwrap();
    let storage = Arc::new(Counting::default());
    let (log, mut appender, _) = Log::open(Arc::<Counting>::clone(&storage), options(root.path())).unwrap();
    fill(&log, &mut appender, segments);
    assert!(open_descriptors(root.path()) <= 8, "{} files open while written", open_descriptors(root.path()));
    drop((log, appender));

    storage.opened.store(0, Ordering::Relaxed);
    let (before_kib, began) = (anonymous_kib(), clock::monotonic());
    let (log, _appender, found) = Log::open(Arc::<Counting>::clone(&storage), options(root.path())).unwrap();
    let (opened, more_kib) = (clock::monotonic(), anonymous_kib().saturating_sub(before_kib));
    let files = std::fs::read_dir(root.path().join("log/lane-00")).unwrap();
    let bytes: u64 = files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    let looked = clock::monotonic() - opened;
    eprintln!("{segments} segments ({bytes} bytes) open in {:?} and {more_kib} KiB", opened - began);
    eprintln!("readdir and stat of them take {looked:?}");
    let at_start = storage.opened.load(Ordering::Relaxed);
    assert_eq!((found.blocks, found.lost_blocks, found.tail_blocks), (segments as u64, 0, 0));
    assert!(at_start <= OPENED_AT_START + 16, "{at_start} files opened at start");
    assert!(open_descriptors(root.path()) <= 8, "{} files open at start", open_descriptors(root.path()));

    // What is asked once a turn opens nothing.
    let lag = 10 * SEGMENT_BYTES;
    assert!(log.position_at_lag(lag) > log.oldest() && log.position_at_age(1) == log.oldest());
    log.sync().unwrap();
    assert_eq!(storage.opened.load(Ordering::Relaxed), at_start);

    let mut reader = log.reader(log.oldest());
    let mut spans = 0;
    while let Some(entry) = reader.next() {
        let Entry::Block { meta, .. } = entry else { panic!("nothing is missing") };
        spans += u64::from(meta.spans);
        assert!(open_descriptors(root.path()) <= 9 || spans % 100 != 0, "files stay open behind a reader");
    }
    assert_eq!(spans, 2 * segments as u64);
    let released = log.release(&reader.position());
    assert!(released >= segments - 1, "{released}");
    while log.wants_tending() {
        log.tend(1).unwrap();
    }
    let files = |directory: &str| std::fs::read_dir(root.path().join(directory)).unwrap().count();
    assert!(files("log/lane-00") < 8, "the files of a backlog that is gone are given back");
    assert!(files("log/lane-00/free") <= 2, "the pool keeps no more than it may");
}

#[test]
fn an_index_that_is_missing_or_damaged_or_beside_a_lost_state_costs_nothing_but_time() {
    let segments = 100;
    for damage in ["missing", "torn", "state"] {
        let root = tempfile::tempdir().unwrap();
        let storage = Arc::new(Counting::default());
        let (log, mut appender, _) = Log::open(Arc::<Counting>::clone(&storage), options(root.path())).unwrap();
        fill(&log, &mut appender, segments);
        drop((log, appender));
        let lane = root.path().join("log/lane-00");
        match damage {
            "missing" => std::fs::remove_file(lane.join("index")).unwrap(),
            "torn" => {
                let mut bytes = std::fs::read(lane.join("index")).unwrap();
                bytes.iter_mut().step_by(100).for_each(|byte| *byte ^= 1);
                std::fs::write(lane.join("index"), bytes).unwrap();
            }
            _ => std::fs::remove_file(lane.join("state")).unwrap(),
        }
        for start in ["first", "second"] {
            storage.opened.store(0, Ordering::Relaxed);
            let (log, _appender, found) = Log::open(Arc::<Counting>::clone(&storage), options(root.path())).unwrap();
            assert_eq!((found.blocks, found.lost_blocks), (segments as u64, 0), "{damage}, {start} start");
            let all = storage.opened.load(Ordering::Relaxed) >= segments;
            assert_eq!(all, start == "first", "{damage}: the {start} start");
            let mut reader = log.reader(log.oldest());
            let blocks =
                std::iter::from_fn(|| reader.next()).inspect(|entry| assert!(matches!(entry, Entry::Block { .. })));
            assert_eq!(blocks.count(), segments);
        }
    }
}
