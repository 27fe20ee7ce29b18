//! A verdict shared between readers was once believed of bytes that nobody had summed: pages that were evicted after a
//! failed sync and read again from a disk that never got them were sent, moved to another file, and acknowledged.
//!
//! Here two destinations read together while exactly that happens between them. Every condition that `passed` names is
//! planted away once, and must be missed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{at_rest, meta, small_options};
use crate::config::BlockCompression;
use crate::queue::keys::witness;
use crate::queue::sabotage::{Sabotage, plant};
use crate::queue::{Appender, AtRest, Budget, Entry, FileStorage, Log, Options, Reader, Storage};
use crate::sim::disk::SimDisk;

/// No more than fit a segment: a reader that has left one takes its verdicts along.
const BLOCKS: u8 = 6;
const BLOCK_BYTES: usize = 1000;
const NOW: Duration = Duration::from_secs(100);

/// What a destination got.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    blocks: usize,
    /// Those that are not what was appended: nobody has summed them as they are.
    damaged: usize,
}

const ALL: Got = Got { blocks: BLOCKS as usize, damaged: 0 };
/// The page that was read again from the disk was not believed.
const ALL_BUT_ONE: Got = Got { blocks: BLOCKS as usize - 1, damaged: 0 };
/// It was.
const ONE_UNSUMMED: Got = Got { blocks: BLOCKS as usize, damaged: 1 };

fn read(reader: &mut Reader) -> Got {
    let mut got = Got { blocks: 0, damaged: 0 };
    while let Some(entry) = reader.next() {
        let Entry::Block { payload, .. } = entry else { continue };
        got.blocks += 1;
        let is_whole = payload.len() == BLOCK_BYTES && payload.iter().all(|byte| *byte == payload[0]);
        got.damaged += usize::from(!is_whole);
    }
    got
}

/// A lane on a disk, and a first destination that has just read everything and stands at its end.
struct Lane {
    disk: SimDisk,
    log: Arc<Log>,
    appender: Appender,
    first: Option<Reader>,
}

impl Lane {
    fn open(at_rest: AtRest) -> Lane {
        witness::forget();
        let disk = SimDisk::new(8);
        let options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
        let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), Options { at_rest, ..options }).unwrap();
        append(&mut appender);
        let mut first = log.reader(log.oldest());
        first.share_sums(NOW);
        assert_eq!(read(&mut first), ALL);
        Lane { disk, log, appender, first: Some(first) }
    }

    /// A page of the third block is evicted, and read again from a disk that has something else there.
    fn lose_a_page(&self) {
        let segments = self.disk.files().into_iter().map(|(path, _)| path).filter(is_segment);
        for path in segments {
            if let Some(at) = third_block(&self.disk.contents(&path).unwrap()) {
                self.disk.overwrite(&path, at + 500, &[0xff; 16]);
            }
        }
    }

    fn second_at(&self, now: Duration) -> Got {
        let mut second = self.log.reader(self.log.oldest());
        second.share_sums(now);
        read(&mut second)
    }
}

fn append(appender: &mut Appender) {
    for block in 1..=BLOCKS {
        appender.append(&meta(1), &[block; BLOCK_BYTES]).unwrap();
    }
}

fn is_segment(path: &impl AsRef<Path>) -> bool {
    path.as_ref().to_string_lossy().contains("seg-")
}

fn third_block(contents: &[u8]) -> Option<usize> {
    contents.windows(BLOCK_BYTES).position(|window| *window == [3; BLOCK_BYTES])
}

/// What a test sees with a bug.
fn planted<T>(bug: Sabotage, test: impl Fn() -> T) -> T {
    plant(Some(bug));
    let seen = test();
    plant(None);
    seen
}

#[test]
fn a_block_is_summed_once_a_second_for_all_who_send_it() {
    let lane = Lane::open(AtRest::default());
    lane.lose_a_page();
    let after = |ms| lane.second_at(NOW + Duration::from_millis(ms));
    assert_eq!(after(1000), ONE_UNSUMMED, "this is how a shared sum shows");
    assert_eq!(after(1001), ALL_BUT_ONE);
    assert_eq!(planted(Sabotage::SumsSharedForever, || after(3_600_000)), ONE_UNSUMMED, "the bug would be seen");
    assert_eq!(read(&mut lane.log.reader(lane.log.oldest())), ALL_BUT_ONE, "who was told no time sums");
}

#[test]
fn a_verdict_goes_with_the_last_reader_of_the_segment() {
    let mut lane = Lane::open(AtRest::default());
    lane.first = None;
    lane.lose_a_page();
    assert_eq!(lane.second_at(NOW), ALL_BUT_ONE);
}

#[test]
fn no_verdict_outlives_a_failed_sync() {
    let lane = Lane::open(AtRest::default());
    lane.disk.fail_sync_after(0);
    lane.log.sync().unwrap();
    lane.lose_a_page();
    assert_eq!(lane.second_at(NOW), ALL_BUT_ONE);
    let with_bug = planted(Sabotage::SumsSharedAfterFailure, || lane.second_at(NOW));
    assert_eq!(with_bug, ONE_UNSUMMED, "the bug would be seen");
}

#[test]
fn what_is_moved_after_a_failed_sync_is_summed_whoever_has_read_it() {
    let moved = || {
        let mut lane = Lane::open(AtRest::default());
        lane.disk.fail_sync_after(0);
        lane.log.sync().unwrap();
        lane.lose_a_page();
        lane.appender.maintain(Duration::ZERO, 1).unwrap();
        lane.log.sync().unwrap();
        assert_eq!(
            lane.log.durable_sequence(),
            lane.log.published_sequence(),
            "all that could be saved is acknowledged"
        );
        (lane.log.stats().unsaved_blocks, read(&mut lane.log.reader(lane.log.oldest())))
    };
    assert_eq!(moved(), (1, ALL_BUT_ONE));
    assert_eq!(planted(Sabotage::SumsSharedWithMoves, moved), (0, ONE_UNSUMMED), "the bug would be seen");
}

#[test]
fn packed_and_encrypted_blocks_are_shared_by_nobody_and_whole() {
    for (compression, keys) in
        [(BlockCompression::Lz4, &[][..]), (BlockCompression::None, &[1]), (BlockCompression::Lz4, &[1])]
    {
        assert_eq!(Lane::open(at_rest(compression, keys)).second_at(NOW), ALL);
    }
}

#[test]
fn files_whose_views_are_copies_share_nothing() {
    let root = tempfile::tempdir().unwrap();
    let options = small_options(&root.path().to_string_lossy(), &Arc::new(Budget::new(1 << 20, 0)));
    let directory = options.directory.clone();
    let (log, mut appender, _) = Log::open(Arc::new(FileStorage), options).unwrap();
    append(&mut appender);
    let read_at = |now| {
        let mut reader = log.reader(log.oldest());
        reader.share_sums(now);
        (read(&mut reader), reader)
    };
    let (got, _first) = read_at(NOW);
    assert_eq!(got, ALL);
    for path in FileStorage.list(&directory).unwrap().iter().map(|name| directory.join(name)).filter(is_segment) {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let at = third_block(&fs::read(&path).unwrap());
        at.into_iter().for_each(|at| file.write_all_at(&[0xff; 16], at as u64 + 500).unwrap());
    }
    assert_eq!(read_at(NOW).0, ALL_BUT_ONE);
}
