//! Who can write to the disk can make every check pass but that of a key he does not have. He can lie about anything and
//! make spans vanish; he must not be able to end the process, to keep it from starting, or to stop the log from taking blocks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{meta, small_options};
use crate::block::{HEADER_BYTES, Header, Kind, Packing};
use crate::queue::fields::MAX_COUNT;
use crate::queue::format::{
    FIRST_ENTRY, FOOTER_OFFSETS, Footer, HEADER_OFFSETS, HeaderFound, SegmentHeader, entry_bytes,
};
use crate::queue::mark::{MARK_BYTES, Mark};
use crate::queue::state::StateFile;
use crate::queue::{Budget, Cursor, Log, Position, crc32c};
use crate::sim::disk::SimDisk;
use crate::telemetry::ledger::LaneTotals;

const LIES: [u64; 9] =
    [0, 1, FIRST_ENTRY - 1, FIRST_ENTRY + 1, 40_000, MAX_COUNT / 2, MAX_COUNT, MAX_COUNT + 1, u64::MAX];

/// A lane of three sealed segments and an open one, with a cursor in the middle.
fn lane() -> SimDisk {
    let disk = SimDisk::new(5);
    let options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
    let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options).unwrap();
    for _ in 0..24 {
        appender.append(&meta(3), &[7; 1000]).unwrap();
        log.sync().unwrap();
        log.tend(1).unwrap();
    }
    let mut cursor = Cursor::open(&disk, Path::new("state/destination")).unwrap();
    let mut reader = log.reader(log.oldest());
    for _ in 0..10 {
        reader.next().unwrap();
    }
    cursor.commit(&[(&log, reader.position(), crate::telemetry::ledger::DestinationTotals::default())]).unwrap();
    disk
}

fn segments(disk: &SimDisk) -> Vec<(PathBuf, SegmentHeader)> {
    let paths = disk.files().into_iter().map(|(path, _)| path);
    let paths = paths.filter(|path| path.to_string_lossy().contains("seg-"));
    paths.filter_map(|path| Some((path.clone(), header(disk, &path)?))).collect()
}

fn header(disk: &SimDisk, path: &Path) -> Option<SegmentHeader> {
    match SegmentHeader::decode(disk.contents(path)?.first_chunk()?) {
        HeaderFound::Valid(header) => Some(header),
        _ => None,
    }
}

/// Opens, reads, appends, releases, and opens again.
fn survives(disk: &SimDisk) {
    for _ in 0..2 {
        let options = small_options("state", &Arc::new(Budget::new(1 << 20, 0)));
        let (log, mut appender, _) = Log::open(Arc::new(disk.clone()), options).expect("a lie refuses no start");
        let cursor = Cursor::open(disk, Path::new("state/destination")).unwrap();
        let from = cursor.lane(&log).map_or(Position::default(), |lane| lane.position);
        for start in [from, Position::default(), log.position_at_lag(30_000), log.position_at_age(1), log.tail()] {
            let mut reader = log.reader(start);
            while reader.next().is_some() {}
        }
        assert!(log.bytes_behind(&from) <= 1 << 42 && log.stats().file_bytes <= 1 << 42);
        for _ in 0..12 {
            appender.append(&meta(2), &[8; 1000]).expect("a block is taken");
        }
        appender.commit_mark(appender.totals(), 1).unwrap();
        log.sync().unwrap();
        log.release(&from);
        log.tend(1).unwrap();
    }
}

#[test]
fn footers_may_lie() {
    type Field = fn(&mut Footer) -> &mut u64;
    let fields: [Field; 11] = [
        |footer| &mut footer.end,
        |footer| &mut footer.before_sequence,
        |footer| &mut footer.last_sequence,
        |footer| &mut footer.blocks,
        |footer| &mut footer.records,
        |footer| &mut footer.stored_bytes,
        |footer| &mut footer.spans_before,
        |footer| &mut footer.trusted,
        |footer| &mut footer.newest_ns,
        |footer| &mut footer.totals.encoded,
        |footer| &mut footer.totals.appended,
    ];
    let original = lane();
    for (lie, field) in LIES.into_iter().flat_map(|lie| fields.map(|field| (lie, field))) {
        let disk = original.after_power_cut();
        original.remove_fuse();
        for (path, of) in segments(&disk) {
            let bytes = disk.contents(&path).unwrap();
            let at = usize::try_from(FOOTER_OFFSETS[0]).unwrap();
            let Some(mut footer) = Footer::decode(bytes[at..].first_chunk().unwrap(), of.key, of.id) else { continue };
            *field(&mut footer) = lie;
            for offset in FOOTER_OFFSETS {
                disk.overwrite(&path, usize::try_from(offset).unwrap(), &footer.encode(of.key, of.id));
            }
        }
        survives(&disk);
    }
}

#[test]
fn the_index_may_lie() {
    let index = Path::new("state/log/lane-00/index");
    for lie in LIES {
        // It is never synced: a power cut would take it.
        let disk = lane();
        let (bytes, mut forged) = (disk.contents(index).unwrap(), 0);
        for (place, record) in bytes.as_chunks::<256>().0.iter().enumerate() {
            let mut page = [0; 512];
            page[..96].copy_from_slice(&record[..96]);
            let HeaderFound::Valid(of) = SegmentHeader::decode(&page) else { continue };
            let footer = Footer::decode(record[96..].first_chunk().unwrap(), of.key, of.id).unwrap();
            let footer = Footer { end: lie, blocks: lie, last_sequence: lie, ..footer };
            disk.overwrite(index, place * 256 + 96, &footer.encode(of.key, of.id));
            let longer = SegmentHeader { file_bytes: lie, ..of };
            disk.overwrite(index, place * 256, &longer.encode()[..96]);
            forged += 1;
        }
        assert!(forged >= 3, "{forged} records");
        let options = || crate::queue::Options {
            opened_at_start: 0,
            ..small_options("state", &Arc::new(Budget::new(1 << 20, 0)))
        };
        let (log, _appender, _) = Log::open(Arc::new(disk.clone()), options()).expect("a lie refuses no start");
        assert!(log.stats().entry_bytes <= 1 << 42);
        let mut reader = log.reader(Position::default());
        while reader.next().is_some() {}
        drop(log);
        survives(&disk);
    }
}

#[test]
fn marks_and_blocks_may_lie_about_their_numbers() {
    let original = lane();
    for (lie, what) in LIES.into_iter().flat_map(|lie| [0, 1, 2, 3].map(|what| (lie, what))) {
        let disk = original.after_power_cut();
        original.remove_fuse();
        for (path, of) in segments(&disk) {
            // Without a footer it is read from end to end.
            for offset in FOOTER_OFFSETS {
                disk.overwrite(&path, usize::try_from(offset).unwrap(), &[0; Footer::BYTES]);
            }
            let totals =
                LaneTotals { encoded: if what == 0 { lie } else { 7 }, appended: lie, ..LaneTotals::default() };
            let mark = Mark { durable: if what == 1 { lie } else { 9 }, totals }.encode();
            let kind = if what == 3 { Kind::Block(meta(4)) } else { Kind::CommitMark { written_ns: 1 } };
            let header = Header {
                stored_bytes: u32::try_from(MARK_BYTES).unwrap(),
                sequence: if what >= 2 { lie } else { 9 },
                crc: crc32c(&mark),
                kind,
                packing: Packing::None,
            };
            // In the place of the third entry: a mark and a block stand before it.
            let at = FIRST_ENTRY + entry_bytes(MARK_BYTES) + entry_bytes(1000);
            let at_index = usize::try_from(at).unwrap();
            disk.overwrite(&path, at_index, &header.encode(of.key, of.id, at));
            disk.overwrite(&path, at_index + HEADER_BYTES, &mark);
        }
        survives(&disk);
    }
}

#[test]
fn headers_and_the_state_may_lie() {
    let original = lane();
    for lie in LIES {
        let disk = original.after_power_cut();
        original.remove_fuse();
        for (path, of) in segments(&disk).into_iter().take(2) {
            for (what, offset) in HEADER_OFFSETS.into_iter().enumerate() {
                let forged =
                    if what == 0 { SegmentHeader { file_bytes: lie, ..of } } else { SegmentHeader { id: lie, ..of } };
                disk.overwrite(&path, usize::try_from(offset).unwrap(), &forged.encode());
            }
        }
        survives(&disk);
        let disk = original.after_power_cut();
        original.remove_fuse();
        let (mut file, state) = StateFile::open(&disk, Path::new("state/log/lane-00/state")).unwrap();
        let mut state = state.unwrap();
        (state.next_segment, state.sequence_floor) = (lie, lie);
        state.mark = Mark { durable: lie, totals: LaneTotals { appended: lie, encoded: lie, ..LaneTotals::default() } };
        file.write(&state).unwrap();
        survives(&disk);
    }
}
