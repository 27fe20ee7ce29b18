//! What a disk may hand back: the targets whose bytes are files of the state directory.

use std::path::Path;
use std::sync::Arc;

use millrace::block::{Made, Meta, Signal, SourceId};
use millrace::queue::{Budget, Cursor, Entry, Log, Options, Position, Storage};
use millrace::sim::disk::SimDisk;
use millrace::telemetry::ledger::DestinationTotals;

/// A log on a disk that rots: bits of any file flip. Opened and read, it gives what was written or says what is gone.
pub(super) fn log_files(data: &[u8]) {
    let disk = SimDisk::new(7);
    let written = write_log(&disk);
    let files: Vec<_> = disk.files().into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    for patch in data.as_chunks::<4>().0.iter().take(64) {
        let (path, bytes) = &files[usize::from(patch[0]) % files.len()];
        let bit = u32::from_le_bytes([patch[1], patch[2], patch[3], 0]) as usize;
        disk.flip_bit(path, bit % (bytes * 8));
    }
    let (log, _appender, recovered) = Log::open(Arc::new(disk.clone()), options()).expect("rot never refuses a start");
    let cursor = Cursor::open(&disk, Path::new("/state/destination")).expect("rot never refuses a cursor");
    let from = cursor.lane(&log).map_or(Position::default(), |lane| lane.position);
    for from in [Position::default(), from] {
        let mut reader = log.reader(from);
        let (mut last, mut spans) = (0, 0);
        while let Some(entry) = reader.next() {
            match entry {
                Entry::Block { sequence, payload, .. } => {
                    assert!(sequence > last, "out of order");
                    last = sequence;
                    let index = written.iter().position(|(known, _)| *known == sequence);
                    let (_, known) = &written[index.expect("nothing is returned that was not written")];
                    assert_eq!(known[..], payload[..]);
                    spans += 3;
                }
                Entry::Gap { spans: lost, .. } => spans += lost,
            }
        }
        assert!(from != Position::default() || spans == recovered.totals.appended, "read and lost do not add up");
    }
}

fn options() -> Options {
    Options {
        directory: "/state/log/lane-00".into(),
        quarantine: "/state/log/quarantine".into(),
        lane: 0,
        segment_bytes: 16 * 1024,
        max_payload_bytes: 2048,
        pool_segments: 1,
        opened_at_start: 1,
        budget: Arc::new(Budget::new(1 << 20, 0)),
        wall_ns: 1,
        at_rest: Default::default(),
    }
}

/// A log of a few segments with a cursor in the middle; what is in it by sequence.
fn write_log(disk: &SimDisk) -> Vec<(u64, Vec<u8>)> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (log, mut appender, _) = Log::open(storage, options()).expect("the disk is empty");
    let mut cursor = Cursor::open(disk, Path::new("/state/destination")).expect("the disk is empty");
    let mut meta = Meta::empty(Signal::Traces, Made::Encoded, SourceId(1), 7);
    (meta.records, meta.spans) = (2, 3);
    let mut written = Vec::new();
    for number in 0..30u8 {
        let payload = vec![number; 700];
        written.push((appender.append(&meta, &payload).expect("there is room"), payload));
        if number % 10 == 9 {
            log.sync().expect("the disk is well");
            log.tend(1).expect("the disk is well");
        }
    }
    let mut reader = log.reader(Position::default());
    for delivered in 1..=10 {
        let Some(Entry::Block { end, .. }) = reader.next() else { panic!("ten blocks are there") };
        let totals = DestinationTotals { delivered: delivered * 3, ..DestinationTotals::default() };
        cursor.commit(&[(&log, end, totals)]).expect("the disk is well");
    }
    written
}
