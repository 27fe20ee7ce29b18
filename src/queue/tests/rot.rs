//! Rot on real files: what is damaged is lost, what is not is read, and the spans of both add up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{meta, small_options};
use crate::queue::{Budget, Entry, FileStorage, Log, MmapStorage, Position, Storage};

const BLOCK_BYTES: usize = 500;

/// A log of some sealed segments and one that is open, as files, and what is in it by sequence.
fn write_log(root: &Path, storage: &Arc<dyn Storage>) -> BTreeMap<u64, Vec<u8>> {
    let options = small_options(&root.to_string_lossy(), &Arc::new(Budget::new(8 << 20, 0)));
    let (log, mut appender, _) = Log::open(Arc::clone(storage), options).unwrap();
    let mut written = BTreeMap::new();
    for block in 0..60u8 {
        let payload = vec![block; BLOCK_BYTES];
        let sequence = appender.append(&meta(3), &payload).unwrap();
        written.insert(sequence, payload);
        if block % 10 == 9 {
            log.sync().unwrap();
            log.tend(1).unwrap();
        }
    }
    log.sync().unwrap();
    appender.maintain(std::time::Duration::ZERO, 1).unwrap();
    log.sync().unwrap();
    log.tend(1).unwrap();
    written
}

fn segment_files(root: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("log/lane-00"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("seg-"))
        .collect();
    files.sort();
    files
}

/// Loses a page of a file, from `offset`.
fn zero(file: &Path, offset: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[offset..offset + 4096].fill(0);
    fs::write(file, bytes).unwrap();
}

/// Opens and reads everything; returns (blocks lost, spans reported lost).
fn read_back(root: &Path, storage: &Arc<dyn Storage>, written: &BTreeMap<u64, Vec<u8>>) -> (usize, u64) {
    let options = small_options(&root.to_string_lossy(), &Arc::new(Budget::new(8 << 20, 0)));
    let (log, _appender, recovered) = Log::open(Arc::clone(storage), options).expect("damage never refuses a start");
    let mut reader = log.reader(Position::default());
    let (mut found, mut gap, mut last) = (0usize, 0, 0);
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { sequence, payload, .. } => {
                assert!(sequence > last, "out of order");
                last = sequence;
                assert_eq!(written.get(&sequence).map(Vec::as_slice), Some(&payload[..]), "not what was written");
                found += 1;
            }
            Entry::Gap { spans, .. } => gap += spans,
        }
    }
    assert_eq!(3 * found as u64 + gap, recovered.totals.appended, "read and lost do not add up");
    assert_eq!(recovered.totals.appended, 3 * written.len() as u64, "what is lost is forgotten");
    (written.len() - found, gap)
}

#[test]
fn a_flipped_bit_costs_at_most_its_block_and_is_counted() {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    let original = tempfile::tempdir().unwrap();
    let written = write_log(original.path(), &storage);
    let mut random = fastrand::Rng::with_seed(7);
    for image in 0..60 {
        let root = tempfile::tempdir().unwrap();
        copy_tree(original.path(), root.path());
        let flips = random.usize(1..6);
        for _ in 0..flips {
            let path = random.choice(segment_files(root.path())).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let bit = random.usize(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
        }
        let (blocks, spans) = read_back(root.path(), &storage, &written);
        assert!(blocks <= flips, "image {image}: {flips} bits cost {blocks} blocks");
        assert_eq!(spans, 3 * blocks as u64, "image {image}: lost blocks are not counted to the span");
    }
}

#[test]
fn a_lost_page_a_lost_end_and_a_lost_file_cost_what_was_in_them() {
    for storage in [Arc::new(FileStorage) as Arc<dyn Storage>, Arc::new(MmapStorage)] {
        let root = tempfile::tempdir().unwrap();
        let written = write_log(root.path(), &storage);
        let files = segment_files(root.path());
        // All that the first page of a file tells stands in the next one too.
        files.iter().for_each(|file| zero(file, 0));
        // A page in the middle of the first segment holds parts of at most nine blocks of 576 bytes.
        zero(&files[0], 8192 + 1024);
        let (blocks, spans) = read_back(root.path(), &storage, &written);
        assert!((1..=9).contains(&blocks), "{blocks}");
        assert_eq!(spans, 3 * blocks as u64);
        // The second half of the second segment's entries.
        let end = fs::metadata(&files[1]).unwrap().len();
        fs::OpenOptions::new().write(true).open(&files[1]).unwrap().set_len(end - 4096).unwrap();
        let (more, spans) = read_back(root.path(), &storage, &written);
        assert!(more > blocks && more <= blocks + 9, "{more} after {blocks}");
        assert_eq!(spans, 3 * more as u64);
        // A whole segment in the middle.
        fs::remove_file(&files[2]).unwrap();
        let (most, spans) = read_back(root.path(), &storage, &written);
        assert!(most > more && most <= more + 14, "{most} after {more}");
        assert_eq!(spans, 3 * most as u64);
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_no_reason_not_to_start() {
    for storage in [Arc::new(FileStorage) as Arc<dyn Storage>, Arc::new(MmapStorage)] {
        for bytes in [12_000, 8192, 8191, 4700, 4096, 600, 100, 0] {
            let root = tempfile::tempdir().unwrap();
            let written = write_log(root.path(), &storage);
            let newest = segment_files(root.path()).pop().unwrap();
            fs::OpenOptions::new().write(true).open(&newest).unwrap().set_len(bytes).unwrap();
            read_back(root.path(), &storage, &written);
        }
    }
}

#[test]
fn what_is_lost_at_the_end_is_counted_as_well() {
    for storage in [Arc::new(FileStorage) as Arc<dyn Storage>, Arc::new(MmapStorage)] {
        // The last pages of the newest segment with entries, all of its entries, the file, and every file.
        for (what, lost) in [("pages", 1..=14), ("entries", 1..=20), ("file", 1..=20), ("files", 60..=60)] {
            let root = tempfile::tempdir().unwrap();
            let written = write_log(root.path(), &storage);
            let mut files = segment_files(root.path());
            let holds = |file: &PathBuf| fs::read(file).unwrap()[8192 + 256..].iter().rposition(|byte| *byte != 0);
            let end = loop {
                match holds(files.last().unwrap()) {
                    Some(end) => break 8192 + 256 + end,
                    None => fs::remove_file(files.pop().unwrap()).unwrap(),
                }
            };
            let newest = files.last().unwrap();
            let mut bytes = fs::read(newest).unwrap();
            match what {
                "pages" => bytes[end - end % 4096 - 4096..].fill(0),
                "entries" => bytes[8192..].fill(0xa5),
                _ => bytes.fill(0),
            }
            fs::write(newest, bytes).unwrap();
            if what == "files" {
                files.iter().for_each(|file| fs::remove_file(file).unwrap());
            }
            let (blocks, spans) = read_back(root.path(), &storage, &written);
            assert!(lost.contains(&blocks), "{what}: {blocks}");
            assert_eq!(spans, 3 * blocks as u64, "{what}");
        }
    }
}

#[test]
fn swapped_and_duplicated_files_lose_nothing() {
    let storage: Arc<dyn Storage> = Arc::new(MmapStorage);
    let root = tempfile::tempdir().unwrap();
    let written = write_log(root.path(), &storage);
    let files = segment_files(root.path());
    let (first, second) = (fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
    fs::write(&files[0], &second).unwrap();
    fs::write(&files[1], &first).unwrap();
    fs::write(root.path().join("log/lane-00/seg-00000000000000ff.log"), &first).unwrap();
    fs::write(root.path().join("log/lane-00/seg-00000000000000fe.log"), b"not a segment").unwrap();
    assert_eq!(read_back(root.path(), &storage, &written), (0, 0));
    let quarantined = fs::read_dir(root.path().join("log/quarantine")).unwrap().count();
    assert_eq!(quarantined, 2, "the duplicate and the stranger");
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
