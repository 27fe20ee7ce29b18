//! Files that somebody else cuts off: what is gone is counted, what is there is read, and nothing short is used again.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{meta, small_options};
use crate::queue::{Appender, Budget, FileStorage, Log, MmapStorage, Options, Storage};

fn options(root: &Path) -> Options {
    small_options(&root.to_string_lossy(), &Arc::new(Budget::new(8 << 20, 0)))
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
