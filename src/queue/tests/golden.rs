//! Logs that a released version has written are read for ever, and what is written today is what was written then.
//!
//! `tests/data/queue/NAME.zst` is a lane's directory; `packed` says how. Each is read, appended to and read again. Each
//! segment is also taken apart and put together again by today's code, byte for byte: a change of the format that nobody
//! meant fails here. With `MILLRACE_WRITE_GOLDEN=1` files that are missing are made; one that is there is never replaced, a
//! new format gets a new name.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::packed::{is_wanted, pack, unpack};
use super::{at_rest, meta, small_options};
use crate::block::{HEADER_BYTES, Header, Kind};
use crate::config::BlockCompression;
use crate::queue::crc32c;
use crate::queue::format::{FIRST_ENTRY, FOOTER_OFFSETS, Footer, HEADER_OFFSETS, HeaderFound, SegmentHeader};
use crate::queue::keys::{Sealer, witness};
use crate::queue::mark::Mark;
use crate::queue::packing::Unpacker;
use crate::queue::segment::vouched;
use crate::queue::{Appender, AtRest, Budget, Entry, FileStorage, Log, MmapStorage, Position, Recovered, Storage};

const BLOCKS: u32 = 24;

/// The first with three copies of each header.
const THREE_COPIES: &str = "v1-three-copies";

fn goldens() -> [(&'static str, AtRest); 5] {
    [
        (THREE_COPIES, AtRest::default()),
        ("v1-plain", AtRest::default()),
        ("v1-lz4", at_rest(BlockCompression::Lz4, &[])),
        ("v1-zstd", at_rest(BlockCompression::Zstd { level: 1 }, &[])),
        ("v1-encrypted", at_rest(BlockCompression::Zstd { level: 1 }, &[1])),
    ]
}

fn payload(block: u32) -> Vec<u8> {
    format!("block {block} of a log that lives long; ").repeat(5 + block as usize % 40).into_bytes()
}

fn open(storage: Arc<dyn Storage>, root: &Path, at_rest: &AtRest) -> (Arc<Log>, Appender, Recovered) {
    let mut options = small_options(&root.to_string_lossy(), &Arc::new(Budget::new(8 << 20, 0)));
    options.at_rest = at_rest.clone();
    Log::open(storage, options).expect("a golden log opens")
}

fn append(log: &Log, appender: &mut Appender, blocks: std::ops::Range<u32>) {
    for block in blocks {
        appender.append(&meta(1 + block % 5), &payload(block)).unwrap();
        log.sync().unwrap();
        log.tend(1).unwrap();
    }
}

fn expect(log: &Arc<Log>, blocks: u32) {
    let mut reader = log.reader(Position::default());
    for block in 0..blocks {
        match reader.next() {
            Some(Entry::Block { meta: found, payload: bytes, .. }) => {
                assert_eq!((found, &bytes[..]), (meta(1 + block % 5), &payload(block)[..]), "block {block}");
            }
            other => panic!("block {block}: {other:?}"),
        }
    }
    assert_eq!(reader.next(), None);
}

#[test]
fn what_was_written_once_is_read_appended_to_and_read_again() {
    for (name, at_rest) in goldens() {
        if is_wanted(name) {
            let root = tempfile::tempdir().unwrap();
            let (log, mut appender, _) = open(Arc::new(FileStorage), root.path(), &at_rest);
            append(&log, &mut appender, 0..BLOCKS);
            pack(name, root.path());
        }
        for storage in [Arc::new(FileStorage) as Arc<dyn Storage>, Arc::new(MmapStorage)] {
            let root = tempfile::tempdir().unwrap();
            unpack(name, root.path());
            let (log, mut appender, found) = open(Arc::clone(&storage), root.path(), &at_rest);
            let losses = (found.lost_blocks, found.tail_blocks, found.quarantined, found.unreadable_segments);
            assert_eq!((found.blocks, losses), (u64::from(BLOCKS), (0, 0, 0, 0)), "{name}");
            expect(&log, BLOCKS);
            append(&log, &mut appender, BLOCKS..2 * BLOCKS);
            drop((log, appender));
            let (log, _appender, _) = open(storage, root.path(), &at_rest);
            expect(&log, 2 * BLOCKS);
        }
    }
}

#[test]
fn what_is_written_today_is_what_was_written_then() {
    for (name, at_rest) in goldens() {
        let root = tempfile::tempdir().unwrap();
        unpack(name, root.path());
        let lane = root.path().join("log/lane-00");
        let names = FileStorage.list(&lane).unwrap();
        let segments: Vec<&String> = names.iter().filter(|name| name.starts_with("seg-")).collect();
        let blocks: u32 = segments
            .iter()
            .map(|file| rebuild(&fs::read(lane.join(file)).unwrap(), &at_rest, name != THREE_COPIES))
            .sum();
        assert_eq!(blocks, BLOCKS, "{name}");
    }
}

/// Takes a segment apart and puts it together again: every byte that means something has to be the same. Returns the blocks.
fn rebuild(bytes: &[u8], at_rest: &AtRest, is_first: bool) -> u32 {
    witness::forget();
    let HeaderFound::Valid(of) = SegmentHeader::decode(bytes.first_chunk().unwrap()) else { panic!("a header") };
    let [first, second, last] = HEADER_OFFSETS.map(|offset| &bytes[usize::try_from(offset).unwrap()..][..512]);
    assert_eq!((first, second), (&of.encode()[..], &of.encode()[..]));
    // The first versions wrote no third copy.
    assert!(last == of.encode() || (is_first && last.iter().all(|byte| *byte == 0)));
    for offset in FOOTER_OFFSETS.map(|offset| usize::try_from(offset).unwrap()) {
        let page: &[u8; Footer::BYTES] = bytes[offset..].first_chunk().unwrap();
        if let Some(footer) = Footer::decode(page, of.key, of.id) {
            assert_eq!(footer.encode(of.key, of.id), *page);
        }
    }
    let cipher = || of.master.map(|master| at_rest.keys.cipher(master, &of).expect("the key of the golden log"));
    let (opener, mut sealer) = (cipher(), cipher().map(Sealer::new));
    let (mut at, mut blocks) = (usize::try_from(FIRST_ENTRY).unwrap(), 0);
    while let Some(page) = bytes[at..].first_chunk::<HEADER_BYTES>() {
        let Some(header) = Header::decode(page, of.key, of.id, at as u64) else { break };
        assert_eq!(header.encode(of.key, of.id, at as u64), *page);
        let stored = &bytes[at + HEADER_BYTES..][..header.stored_bytes as usize];
        assert_eq!(crc32c::crc32c(stored), header.crc);
        match header.kind {
            Kind::CommitMark { .. } => assert_eq!(Mark::decode(stored).unwrap().encode(), stored),
            Kind::Block(_) => {
                let clear = seal_again(stored, (&header, at as u64, of.id), (&opener, &mut sealer));
                let payload_now = match header.packing {
                    crate::block::Packing::None => clear,
                    packing => Unpacker::default().unpack(packing, &clear).unwrap(),
                };
                assert!(payload_now.starts_with(b"block "));
                blocks += 1;
            }
        }
        at += (HEADER_BYTES + stored.len()).next_multiple_of(HEADER_BYTES);
    }
    blocks
}

/// Opens a block and seals it again.
fn seal_again(
    stored: &[u8],
    (header, offset, segment): (&Header, u64, u64),
    (opener, sealer): (&Option<crate::queue::keys::Cipher>, &mut Option<Sealer>),
) -> Vec<u8> {
    let (Some(opener), Some(sealer)) = (opener, sealer) else { return stored.to_vec() };
    let vouched = vouched(header, segment, offset);
    let clear = opener.open(header.sequence, &vouched, stored.to_vec()).expect("what was sealed opens");
    let mut again = clear.clone();
    sealer.seal(header.sequence, &vouched, &mut again);
    assert_eq!(again, stored);
    clear
}

#[test]
fn a_segment_of_a_version_that_is_to_come_is_put_aside_and_kept() {
    let root = tempfile::tempdir().unwrap();
    unpack("v1-plain", root.path());
    let lane = root.path().join("log/lane-00");
    let mut names = FileStorage.list(&lane).unwrap();
    names.sort();
    let newest = lane.join(names.iter().rfind(|name| name.starts_with("seg-")).unwrap());
    let mut bytes = fs::read(&newest).unwrap();
    for copy in [0, 512] {
        bytes[copy + 15] |= 0x80;
        let crc = crc32c::crc32c(&bytes[copy..copy + 72]);
        bytes[copy + 72..copy + 76].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&newest, &bytes).unwrap();
    let (_log, _appender, found) = open(Arc::new(FileStorage), root.path(), &AtRest::default());
    assert_eq!(found.quarantined, 1);
    let quarantine = root.path().join("log/quarantine");
    let kept = FileStorage.list(&quarantine).unwrap();
    assert_eq!(fs::read(quarantine.join(&kept[0])).unwrap(), bytes);
}
