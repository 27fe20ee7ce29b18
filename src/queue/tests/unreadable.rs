//! Files that cannot be opened, synced or moved: none of them refuses a start, and what was in them is counted to the span.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{meta, small_options};
use crate::queue::{Appender, Budget, Entry, Log, OpenError, Recovered, Storage, StoredFile};
use crate::sim::disk::SimDisk;

/// What is wrong with the file of this name.
#[derive(Clone, Debug)]
struct Fault {
    name: String,
    opens: Option<i32>,
    /// Only the first opening fails.
    opens_again: bool,
    /// Writes that fail, before others succeed.
    failing_writes: Arc<AtomicU32>,
    moves: bool,
}

/// A disk with one bad file.
#[derive(Debug)]
struct Bad {
    disk: SimDisk,
    fault: Mutex<Option<Fault>>,
    /// Times that it was not opened.
    refused: AtomicU32,
}

impl Bad {
    fn fault(&self, path: &Path) -> Option<Fault> {
        let name = path.file_name()?.to_str()?;
        self.fault.lock().unwrap().clone().filter(|fault| fault.name == name)
    }
}

impl Storage for Bad {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        self.disk.create(path, bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let file = self.disk.open(path)?;
        match self.fault(path) {
            Some(Fault { opens: Some(code), opens_again, .. })
                if !opens_again || self.refused.load(Ordering::Relaxed) == 0 =>
            {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::from_raw_os_error(code))
            }
            Some(Fault { failing_writes, .. }) => Ok(Arc::new(BadFile { file, failing_writes })),
            None => Ok(file),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.fault(from) {
            Some(Fault { moves: false, .. }) => Err(io::Error::from_raw_os_error(libc::EACCES)),
            _ => self.disk.rename(from, to),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.fault(path) {
            Some(Fault { moves: false, .. }) => Err(io::Error::from_raw_os_error(libc::EACCES)),
            _ => self.disk.remove(path),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
}

#[derive(Debug)]
struct BadFile {
    file: Arc<dyn StoredFile>,
    failing_writes: Arc<AtomicU32>,
}

impl StoredFile for BadFile {
    fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fails = self.failing_writes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if fails.is_ok() { Err(io::Error::from_raw_os_error(libc::EIO)) } else { self.file.write_at(offset, bytes) }
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes> {
        Arc::clone(&self.file).view(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn forget(&self, bytes: u64) -> io::Result<()> {
        self.file.forget(bytes)
    }
}

fn open(bad: &Arc<Bad>) -> Result<(Arc<Log>, Appender, Recovered), OpenError> {
    let options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
    Log::open(Arc::<Bad>::clone(bad), options)
}

/// A log of some segments, all durable, two files in the pool, and the spans in it.
fn filled() -> (Arc<Bad>, u64) {
    let bad = Arc::new(Bad { disk: SimDisk::new(1), fault: Mutex::new(None), refused: AtomicU32::new(0) });
    let (log, mut appender, _) = open(&bad).unwrap();
    for block in 0..60 {
        appender.append(&meta(3), &[block; 1000]).unwrap();
        if block == 30 {
            log.sync().unwrap();
            log.release(&log.tail());
            log.tend(1).unwrap();
        }
    }
    appender.commit_mark(appender.totals(), 1).unwrap();
    log.sync().unwrap();
    log.tend(1).unwrap();
    log.release(&log.segments()[1].start);
    log.tend(1).unwrap();
    let spans = appender.totals().appended - log.oldest().spans;
    (bad, spans)
}

/// Spans that a reader gets and spans that it is told are gone.
fn read(log: &Arc<Log>) -> (u64, u64) {
    let (mut reader, mut read, mut lost) = (log.reader(log.oldest()), 0, 0);
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { meta, .. } => read += u64::from(meta.spans),
            Entry::Gap { spans, .. } => lost += spans,
        }
    }
    (read, lost)
}

fn names(bad: &Bad, directory: &str) -> Vec<String> {
    let mut names = bad.disk.list(Path::new(directory)).unwrap();
    names.retain(|name| name.starts_with("seg-") || name.starts_with("free-"));
    names.sort();
    names
}

#[test]
fn a_segment_that_cannot_be_opened_refuses_no_start_and_is_counted() {
    for (code, moves) in [(libc::EIO, true), (libc::EIO, false), (libc::EACCES, true), (libc::EACCES, false)] {
        let (bad, spans) = filled();
        let segments = names(&bad, "state/log/lane-00");
        let victim = segments[1].clone();
        let before = bad.disk.contents(&Path::new("state/log/lane-00").join(&victim)).unwrap();
        let fault = Fault {
            name: victim.clone(),
            opens: Some(code),
            opens_again: false,
            failing_writes: Arc::default(),
            moves,
        };
        *bad.fault.lock().unwrap() = Some(fault);
        for start in 0..2 {
            let (log, mut appender, found) = open(&bad).expect("one bad file refuses no start");
            assert_eq!(found.quarantined, u64::from(start == 0 || !moves));
            let (intact, lost) = read(&log);
            assert_eq!(intact + lost, spans + 3 * start, "to the span");
            assert_eq!(lost, 3 * 7, "a segment holds seven blocks");
            appender.append(&meta(3), b"goes on").unwrap();
            log.sync().unwrap();
        }
        let stays = Path::new("state/log/lane-00").join(&victim);
        let aside = bad.disk.list(Path::new("state/log/quarantine")).unwrap();
        let path = if moves { Path::new("state/log/quarantine").join(&aside[0]) } else { stays };
        assert!(bad.disk.contents(&path) == Some(before), "the file is kept as it was");
    }
}

#[test]
fn a_segment_that_cannot_be_opened_once_keeps_its_place() {
    let (bad, spans) = filled();
    let name = names(&bad, "state/log/lane-00")[1].clone();
    let fault = Fault { name, opens: Some(libc::EIO), opens_again: true, failing_writes: Arc::default(), moves: true };
    *bad.fault.lock().unwrap() = Some(fault);
    let (log, _appender, found) = open(&bad).unwrap();
    assert_eq!((found.quarantined, bad.refused.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(read(&log), (spans, 0));
}

#[test]
fn the_newest_segment_that_cannot_be_opened_is_never_overwritten_even_when_the_state_is_lost() {
    let (bad, _) = filled();
    let victim = names(&bad, "state/log/lane-00").pop().unwrap();
    let path = Path::new("state/log/lane-00").join(&victim);
    let before = bad.disk.contents(&path).unwrap();
    bad.disk.remove(Path::new("state/log/lane-00/state")).unwrap();
    bad.disk.remove(Path::new("state/log/lane-00/index")).ok();
    let fault = Fault {
        name: victim,
        opens: Some(libc::EIO),
        opens_again: false,
        failing_writes: Arc::default(),
        moves: false,
    };
    *bad.fault.lock().unwrap() = Some(fault);
    let (log, mut appender, _) = open(&bad).unwrap();
    for _ in 0..40 {
        appender.append(&meta(1), &[1; 1000]).unwrap();
    }
    log.sync().unwrap();
    assert!(bad.disk.contents(&path) == Some(before), "its name was given again");
}

#[test]
fn a_segment_that_takes_no_verdict_is_tried_again_and_then_put_aside() {
    for (failures, put_aside) in [(1, 0), (u32::MAX, 1)] {
        // The newest but one is without a footer: behind it stands the spare.
        let (bad, spans) = filled();
        let name = names(&bad, "state/log/lane-00").into_iter().rev().nth(1).unwrap();
        let failing_writes = Arc::new(AtomicU32::new(failures));
        let fault =
            Fault { name, opens: None, opens_again: false, failing_writes: Arc::clone(&failing_writes), moves: true };
        *bad.fault.lock().unwrap() = Some(fault);
        let (log, _appender, found) = open(&bad).expect("one bad file refuses no start");
        assert!(failing_writes.load(Ordering::Relaxed) < failures, "it was written to");
        let (intact, lost) = read(&log);
        assert_eq!((intact + lost, found.quarantined, found.lost_blocks > 0), (spans, put_aside, put_aside > 0));
        assert_eq!(lost, 3 * found.lost_blocks);
    }
}

#[test]
fn too_many_open_files_are_no_damage() {
    let (bad, _) = filled();
    let name = names(&bad, "state/log/lane-00")[1].clone();
    let fault =
        Fault { name, opens: Some(libc::EMFILE), opens_again: false, failing_writes: Arc::default(), moves: true };
    *bad.fault.lock().unwrap() = Some(fault);
    assert!(matches!(open(&bad), Err(OpenError::Storage { .. })), "the next start may have them");
    assert_eq!(bad.disk.list(Path::new("state/log/quarantine")).unwrap().len(), 0);
}

#[test]
fn a_pool_file_that_cannot_be_opened_goes_or_stays_and_its_name_is_not_given_again() {
    for moves in [true, false] {
        let (bad, spans) = filled();
        let pool = names(&bad, "state/log/lane-00/free");
        let victim = pool.last().expect("something was recycled").clone();
        let path = Path::new("state/log/lane-00/free").join(&victim);
        let fault =
            Fault { name: victim, opens: Some(libc::EIO), opens_again: false, failing_writes: Arc::default(), moves };
        *bad.fault.lock().unwrap() = Some(fault);
        let (log, mut appender, found) = open(&bad).expect("one bad file refuses no start");
        assert_eq!((read(&log), found.quarantined), ((spans, 0), 0));
        assert_eq!(bad.disk.contents(&path).is_some(), !moves);
        for _ in 0..60 {
            appender.append(&meta(1), &[1; 1000]).unwrap();
            log.sync().unwrap();
            log.release(&log.tail());
            log.tend(1).unwrap();
        }
        assert_eq!(bad.disk.contents(&path).is_some(), !moves);
    }
}

#[test]
fn an_index_that_cannot_be_opened_is_tried_once_a_start() {
    let (bad, spans) = filled();
    let fault = Fault {
        name: "index".to_owned(),
        opens: Some(libc::EIO),
        opens_again: false,
        failing_writes: Arc::default(),
        moves: true,
    };
    *bad.fault.lock().unwrap() = Some(fault);
    bad.refused.store(0, Ordering::Relaxed);
    let (log, mut appender, _) = open(&bad).unwrap();
    assert_eq!(read(&log), (spans, 0));
    for _ in 0..60 {
        appender.append(&meta(1), &[1; 1000]).unwrap();
        log.sync().unwrap();
        log.tend(1).unwrap();
    }
    assert_eq!(bad.refused.load(Ordering::Relaxed), 1, "for each segment that was sealed");
}

/// What is missing in a file that blocks were moved from would count as lost without the files behind it.
#[test]
fn a_moved_file_that_cannot_be_removed_keeps_those_behind_it() {
    let bad = Arc::new(Bad { disk: SimDisk::new(1), fault: Mutex::new(None), refused: AtomicU32::new(0) });
    let (log, mut appender, _) = open(&bad).unwrap();
    let mut append = |blocks| {
        for _ in 0..blocks {
            appender.append(&meta(3), &[1; 1000]).unwrap();
        }
    };
    append(3);
    log.sync().unwrap();
    append(3);
    bad.disk.fail_sync_after(0);
    log.sync().unwrap();
    append(30);
    appender.commit_mark(appender.totals(), 1).unwrap();
    log.sync().unwrap();
    log.tend(1).unwrap();
    let before = names(&bad, "state/log/lane-00");
    let name = before[0].clone();
    *bad.fault.lock().unwrap() =
        Some(Fault { name, opens: None, opens_again: false, failing_writes: Arc::default(), moves: false });
    assert!(log.release(&log.durable_tail()) > 3);
    for _ in 0..3 {
        log.tend(1).unwrap_err();
        assert_eq!(names(&bad, "state/log/lane-00"), before, "nothing goes before the first");
    }
    *bad.fault.lock().unwrap() = None;
    log.tend(1).unwrap();
    assert!(names(&bad, "state/log/lane-00").len() < 3, "it was tried again, and then all of them went");
}
