//! What a disk may hand back for the log: segments, blocks and cursors.
//!
//! Rot flips bits of files that the product has written. What stands behind a checksum is not reached by that: such bytes
//! are forged, under a checksum that holds.

use std::path::Path;
use std::sync::Arc;

use millrace::block::{HEADER_BYTES, Header, HeaderKey, Kind, MAX_BYTES, Made, Meta, Packing, Signal, SourceId};
use millrace::config::BlockCompression;
use millrace::queue::{AtRest, Budget, Cursor, Entry, Keys, LaneCursor, Log, Options, Position, Storage, crc32c};
use millrace::sim::disk::SimDisk;
use millrace::telemetry::ledger::DestinationTotals;

const LANE: &str = "/state/log/lane-00";

/// A log on a disk that rots: bits of any file flip. Opened and read, it gives what was written or says what is gone.
pub(super) fn log_files(data: &[u8]) {
    rot(&AtRest::default(), |number| vec![number; 700], data);
}

/// The same of a log whose blocks are compressed, encrypted or both, which the first byte chooses.
pub(super) fn log_files_packed(data: &[u8]) {
    let Some((&choice, patches)) = data.split_first() else { return };
    // It shrinks to a half, or to a quarter by a packer that counts letters: a few segments all the same.
    let payload = |number: u8| -> Vec<u8> {
        let half: Vec<u8> = noise(700, number).iter().map(|byte| b'a' + byte % 16).collect();
        half.repeat(2)
    };
    rot(&at_rest(choice), payload, patches);
}

fn rot(at_rest: &AtRest, payload: impl Fn(u8) -> Vec<u8>, patches: &[u8]) {
    let disk = SimDisk::new(7);
    let written = write_log(&disk, at_rest, payload);
    let files: Vec<_> = disk.files().into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    for patch in patches.as_chunks::<4>().0.iter().take(64) {
        let (path, bytes) = &files[usize::from(patch[0]) % files.len()];
        let bit = u32::from_le_bytes([patch[1], patch[2], patch[3], 0]) as usize;
        disk.flip_bit(path, bit % (bytes * 8));
    }
    let (log, _appender, recovered) =
        Log::open(Arc::new(disk.clone()), options(at_rest)).expect("rot never refuses a start");
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

/// How blocks lie on the disk.
fn at_rest(choice: u8) -> AtRest {
    let compression = match choice & 3 {
        0 => BlockCompression::None,
        1 => BlockCompression::Lz4,
        _ => BlockCompression::Zstd { level: 1 },
    };
    let keys = if choice & 4 == 0 { Keys::default() } else { Keys::parse(&"0f".repeat(32)).expect("64 digits") };
    AtRest { compression, keys, ..AtRest::default() }
}

/// Bytes that do not shrink.
fn noise(bytes: usize, seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        // Knuth's MMIX generator; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

fn options(at_rest: &AtRest) -> Options {
    Options {
        directory: LANE.into(),
        quarantine: "/state/log/quarantine".into(),
        lane: 0,
        segment_bytes: 16 * 1024,
        max_payload_bytes: 2048,
        pool_segments: 1,
        opened_at_start: 1,
        budget: Arc::new(Budget::new(1 << 20, 0)),
        wall_ns: 1,
        at_rest: at_rest.clone(),
    }
}

/// A log of a few segments with a cursor in the middle; what is in it by sequence.
fn write_log(disk: &SimDisk, at_rest: &AtRest, payload: impl Fn(u8) -> Vec<u8>) -> Vec<(u64, Vec<u8>)> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (log, mut appender, _) = Log::open(storage, options(at_rest)).expect("the disk is empty");
    let mut cursor = Cursor::open(disk, Path::new("/state/destination")).expect("the disk is empty");
    let mut meta = Meta::empty(Signal::Traces, Made::Encoded, SourceId(1), 7);
    (meta.records, meta.spans) = (2, 3);
    let mut written = Vec::new();
    for number in 0..30u8 {
        let payload = payload(number);
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

/// Any bytes in the place of a block, under checksums that hold: what is read of them is what another decoder says, or
/// what was sealed there, or nothing; and the block behind them is read whatever they are. The first byte chooses how the
/// bytes are said to be packed, and the log.
pub(super) fn log_blocks(data: &[u8]) {
    let Some((&choice, stored)) = data.split_first() else { return };
    let Some(stored) = stored.get(..stored.len().min(6000)).filter(|stored| !stored.is_empty()) else { return };
    let (at_rest, is_encrypted) = (at_rest(choice), choice & 4 != 0);
    let packing = [Packing::None, Packing::Lz4, Packing::Zstd][usize::from(choice >> 3) % 3];
    let tag_bytes = if is_encrypted { 16 } else { 0 };
    let sealed = noise(stored.len().saturating_sub(tag_bytes).max(1), 1);
    let behind = b"the block behind ".repeat(60);
    let disk = SimDisk::new(7);
    let written = write_two(&disk, &at_rest, [&sealed, &behind]);
    let was_there = forge(&disk, packing, stored);
    let (log, _appender, recovered) = Log::open(Arc::new(disk), roomy(&at_rest)).expect("no block refuses a start");
    let (mut blocks, mut spans, mut reader) = (Vec::new(), 0, log.reader(Position::default()));
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { sequence, payload, meta, .. } => {
                spans += u64::from(meta.spans);
                blocks.push((sequence, payload));
            }
            Entry::Gap { spans: lost, .. } => spans += lost,
        }
    }
    assert_eq!((spans, recovered.totals.appended), (6, 6), "read and lost do not add up");
    let (sequence, payload) = blocks.pop().expect("the block behind is there");
    assert_eq!((sequence, &payload[..]), (written[1], &behind[..]));
    let expected = match packing {
        Packing::None if is_encrypted => (stored == was_there).then(|| sealed.clone()),
        Packing::None => Some(stored.to_vec()),
        // What is packed is sealed as such, and these segments say what may be in them.
        _ if is_encrypted || at_rest.compression == BlockCompression::None => None,
        packing => unpacked(packing, stored),
    };
    let expected: Vec<_> = expected.into_iter().map(|payload| (written[0], payload.into())).collect();
    assert_eq!(blocks, expected);
}

/// Segments with room for blocks as long as an input.
fn roomy(at_rest: &AtRest) -> Options {
    Options { segment_bytes: 64 * 1024, max_payload_bytes: 8192, ..options(at_rest) }
}

/// A log of two blocks, three spans each; their sequences.
fn write_two(disk: &SimDisk, at_rest: &AtRest, payloads: [&[u8]; 2]) -> [u64; 2] {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (log, mut appender, _) = Log::open(storage, roomy(at_rest)).expect("the disk is empty");
    let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(1), 7);
    meta.spans = 3;
    let sequences = payloads.map(|payload| appender.append(&meta, payload).expect("there is room"));
    // The mark knows that both are durable: what is gone of them it tells.
    log.sync().expect("the disk is well");
    appender.commit_mark(appender.totals(), 1).expect("there is room");
    log.sync().expect("the disk is well");
    sequences
}

/// Puts bytes in the place of the first block, with a header of theirs; they are not longer than what was there, which is
/// returned.
fn forge(disk: &SimDisk, packing: Packing, stored: &[u8]) -> Vec<u8> {
    let lane = disk.files().into_iter().map(|(path, _)| path).filter(|path| path.parent() == Some(Path::new(LANE)));
    let segments = lane.filter(|path| path.to_string_lossy().contains("seg-"));
    let found =
        segments.filter_map(|path| disk.contents(&path).map(|bytes| (path, bytes))).find_map(|(path, bytes)| {
            let id = u64::from_le_bytes(*bytes[16..].first_chunk()?);
            let key = HeaderKey(*bytes[56..].first_chunk()?);
            (8192..bytes.len()).step_by(HEADER_BYTES).find_map(|at| {
                let header = Header::decode(bytes[at..].first_chunk()?, key, id, at as u64)?;
                matches!(header.kind, Kind::Block(_)).then(|| (path.clone(), bytes.clone(), (key, id, at), header))
            })
        });
    let (path, bytes, (key, id, at), header) = found.expect("the log has a block");
    let there = &bytes[at + HEADER_BYTES..][..header.stored_bytes as usize];
    let stored_bytes = u32::try_from(stored.len()).expect("short");
    let forged = Header { stored_bytes, crc: crc32c(stored), packing, ..header };
    disk.overwrite(&path, at, &forged.encode(key, id, at as u64));
    disk.overwrite(&path, at + HEADER_BYTES, stored);
    there.to_vec()
}

/// What other decoders make of a packed block.
fn unpacked(packing: Packing, packed: &[u8]) -> Option<Vec<u8>> {
    let (length, packed) = packed.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= MAX_BYTES)?;
    let payload = match packing {
        Packing::Lz4 => lz4(packed, length)?,
        _ => zstd::bulk::decompress(packed, length).ok()?,
    };
    (payload.len() == length).then_some(payload)
}

/// An lz4 block as its specification has it, up to so many bytes.
fn lz4(mut packed: &[u8], most: usize) -> Option<Vec<u8>> {
    fn length(first: u8, packed: &mut &[u8]) -> Option<usize> {
        let mut length = usize::from(first);
        let mut more = first == 15;
        while more {
            let (byte, rest) = packed.split_first()?;
            (length, more, *packed) = (length + usize::from(*byte), *byte == 255, rest);
        }
        Some(length)
    }
    let mut out = Vec::new();
    loop {
        let (token, rest) = packed.split_first()?;
        packed = rest;
        let literals = length(token >> 4, &mut packed)?;
        let (literals, rest) = packed.split_at_checked(literals)?;
        packed = rest;
        out.extend_from_slice(literals);
        if packed.is_empty() {
            return (out.len() <= most).then_some(out);
        }
        let (distance, rest) = packed.split_first_chunk::<2>()?;
        packed = rest;
        let start = out.len().checked_sub(usize::from(u16::from_le_bytes(*distance))).filter(|at| *at < out.len())?;
        let matched = 4 + length(token & 15, &mut packed)?;
        if out.len() + matched > most {
            return None;
        }
        (start..start + matched).for_each(|at| out.push(out[at]));
    }
}

/// Any cursor under a checksum that holds: it is read as another reader of the format reads it, no start is refused, and
/// what is read from where it points was written.
pub(super) fn cursor(data: &[u8]) {
    const DESTINATION: &str = "/state/destinations/otlp";
    let disk = SimDisk::new(7);
    let payload = &data[..data.len().min(16_000)];
    let mut slot = b"MRCURS01".to_vec();
    slot.extend_from_slice(&1u64.to_le_bytes());
    slot.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_le_bytes());
    let crc = crc32c(&[&slot[..], payload].concat());
    slot.extend_from_slice(&crc.to_le_bytes());
    slot.extend_from_slice(payload);
    let written = write_log(&disk, &AtRest::default(), |number| vec![number; 700]);
    drop(Cursor::open(&disk, Path::new(DESTINATION)).expect("the disk is well"));
    disk.overwrite(&Path::new(DESTINATION).join("cursor"), 0, &slot);
    let cursor = Cursor::open(&disk, Path::new(DESTINATION)).expect("a lie refuses no cursor");
    let expected = lanes(payload);
    assert_eq!((cursor.lanes(), cursor.was_damaged()), (expected.as_deref().unwrap_or_default(), expected.is_none()));
    let storage: Arc<dyn Storage> = Arc::new(disk);
    let opened = Log::open_with_cursors(storage, options(&AtRest::default()), cursor.lanes());
    let (log, mut appender, _) = opened.expect("a lie refuses no start");
    for lane in cursor.lanes() {
        let mut reader = log.reader(lane.position);
        while let Some(entry) = reader.next() {
            if let Entry::Block { sequence, payload, .. } = entry {
                assert!(written.iter().any(|(known, bytes)| *known == sequence && bytes[..] == payload[..]));
            }
        }
        assert!(log.bytes_behind(&lane.position) <= 1 << 20);
    }
    let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(1), 7);
    meta.spans = 1;
    let sequence = appender.append(&meta, b"one more").expect("a block is taken");
    assert!(log.sync().expect("the disk is well") >= sequence);
    let mut reader = log.reader(Position::default());
    let blocks = std::iter::from_fn(|| reader.next()).filter(|entry| matches!(entry, Entry::Block { .. })).count();
    // Who forges a cursor at the end of all numbers makes the log's next blocks vanish.
    let is_far = cursor.lanes().iter().any(|lane| lane.position.sequence > 1 << 59);
    assert_eq!(blocks, written.len() + usize::from(!is_far || sequence <= 1 << 60));
}

/// The lanes of a cursor's payload: 160 bytes each, of which every number but the lane and its incarnation is a count.
fn lanes(payload: &[u8]) -> Option<Vec<LaneCursor>> {
    let (count, rest) = payload.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let lanes = rest.get(4..)?.get(..count.checked_mul(160)?)?;
    lanes.as_chunks::<160>().0.iter().map(lane).collect()
}

fn lane(bytes: &[u8; 160]) -> Option<LaneCursor> {
    let (numbers, _rest) = bytes.as_chunks::<8>();
    let number = |index: usize| u64::from_le_bytes(numbers[index]);
    if (2..20).any(|index| number(index) > 1 << 60) {
        return None;
    }
    Some(LaneCursor {
        lane: u32::from_le_bytes(*bytes.first_chunk()?),
        incarnation: number(1),
        position: Position { segment: number(2), offset: number(3), sequence: number(4), spans: number(5) },
        totals: DestinationTotals {
            delivered: number(6),
            refused_by_peer: number(7),
            dead_lettered: number(8),
            dropped: std::array::from_fn(|reason| number(9 + reason)),
            lost: number(17),
            skipped_at_start: number(18),
            redelivered: number(19),
        },
    })
}
