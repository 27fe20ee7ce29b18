//! Encrypted segments whose key is missing: held, or passed and counted, and never destroyed.

use std::sync::Arc;

use super::{at_rest, meta, small_options};
use crate::config::{BlockCompression, MissingKey};
use crate::queue::{Appender, AtRest, Budget, Entry, Log, Position, Reader, Recovered};
use crate::sim::disk::SimDisk;

const LAST: u8 = 40;
const BLOCKS: u64 = LAST as u64;

fn open(disk: &SimDisk, at_rest: AtRest) -> (Arc<Log>, Appender, Recovered) {
    let mut options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
    options.at_rest = at_rest;
    Log::open(Arc::new(disk.clone()), options).unwrap()
}

fn keys(keys: &[u8]) -> AtRest {
    at_rest(BlockCompression::None, keys)
}

/// Some segments under key 1.
fn encrypted() -> SimDisk {
    let disk = SimDisk::new(11);
    let (log, mut appender, _) = open(&disk, keys(&[1]));
    for block in 1..=LAST {
        appender.append(&meta(2), &[block; 1000]).unwrap();
    }
    log.sync().unwrap();
    disk
}

/// Blocks read, and spans reported missing.
fn read_all(reader: &mut Reader) -> (u64, u64) {
    let (mut blocks, mut lost) = (0, 0);
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { .. } => blocks += 1,
            Entry::Gap { spans, .. } => lost += spans,
        }
    }
    (blocks, lost)
}

fn segment_files(disk: &SimDisk, directory: &str) -> usize {
    let inside = |path: &std::path::Path| path.to_string_lossy().contains(directory);
    disk.files().iter().filter(|(path, _)| inside(path) && path.to_string_lossy().contains("seg-")).count()
}

#[test]
fn what_is_on_the_disk_does_not_show_what_was_appended() {
    let disk = encrypted();
    for (path, _) in disk.files() {
        let bytes = disk.contents(&path).unwrap();
        for block in 1..=LAST {
            assert!(
                !bytes.windows(64).any(|window| window == [block; 64]),
                "block {block} stands in {}",
                path.display()
            );
        }
    }
}

#[test]
fn without_their_key_segments_are_held_and_with_it_they_are_delivered() {
    let disk = encrypted();
    for without in [keys(&[]), keys(&[2])] {
        let (log, mut appender, found) = open(&disk, without);
        assert_eq!((found.unreadable_spans, found.lost_blocks, found.quarantined), (2 * BLOCKS, 0, 0));
        assert!(found.unreadable_segments >= 3 && found.missing_key.is_some());
        let mut reader = log.reader(Position::default());
        assert_eq!(reader.next(), None, "held");
        appender.append(&meta(2), b"new").unwrap();
        log.sync().unwrap();
        assert_eq!(reader.next(), None, "what comes later waits behind");
        assert_eq!(log.release(&reader.position()), 0);
    }
    let (log, _appender, found) = open(&disk, keys(&[2, 1]));
    assert_eq!((found.unreadable_segments, found.missing_key), (0, None));
    assert_eq!(read_all(&mut log.reader(Position::default())), (BLOCKS + 2, 0));
}

#[test]
fn skipped_segments_are_counted_to_the_span_and_their_files_are_kept() {
    let disk = encrypted();
    let before = segment_files(&disk, "lane-00");
    let skip = AtRest { missing_key: MissingKey::Skip, ..keys(&[2]) };
    let (log, mut appender, found) = open(&disk, skip);
    appender.append(&meta(2), b"new").unwrap();
    log.sync().unwrap();
    let mut reader = log.reader(Position::default());
    assert_eq!(read_all(&mut reader), (1, 2 * BLOCKS));
    assert_eq!(log.release(&reader.position()) as u64, found.unreadable_segments);
    log.tend(1).unwrap();
    assert_eq!(segment_files(&disk, "quarantine") as u64, found.unreadable_segments);
    assert!(before as u64 >= found.unreadable_segments);
}

#[test]
fn a_key_that_rotates_takes_effect_with_the_next_segment() {
    let disk = encrypted();
    let (log, mut appender, _) = open(&disk, keys(&[2, 1]));
    appender.append(&meta(2), b"under the new key").unwrap();
    log.sync().unwrap();
    drop((log, appender));
    let (log, _appender, found) = open(&disk, keys(&[2]));
    assert_eq!(found.unreadable_spans, 2 * BLOCKS, "what the new key has written needs only that");
    drop(log);
    let (log, _appender, _) = open(&disk, keys(&[1, 2]));
    assert_eq!(read_all(&mut log.reader(Position::default())), (BLOCKS + 1, 0));
}
