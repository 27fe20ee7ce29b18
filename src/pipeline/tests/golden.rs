//! A state directory that a released version has written is opened for ever: log, cursors, dead letters and tables.
//!
//! `tests/data/queue/state-v1.zst` is one, packed (`queue::tests::packed` says how): a lane with a full segment and an open
//! one, a destination half-way, a parked one, both stores of dead letters with an index each, and letters of every kind,
//! some of them gone. It is opened by what opens it in the product, everything in it is held against what was written, and
//! work goes on in it. With `MILLRACE_WRITE_GOLDEN=1` it is made when it is missing; a new format gets a new name.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel;
use crossbeam::sync::Parker;

use crate::block::{Block, FrontDeadLetter, Made, Meta, Signal, SourceId};
use crate::config::{self, File, Host, Inputs};
use crate::pipeline::dead_letters::{self, DeadLetterStores, DeliveryLetter, Letter, Scan, Selection, StoreName};
use crate::pipeline::logs::{self, OpenLog};
use crate::pipeline::parking;
use crate::pipeline::sources::{self, SourceNames};
use crate::pipeline::writer::Quarantined;
use crate::queue::inspect::Lane;
use crate::queue::tests::packed::{files, is_wanted, pack, unpack};
use crate::queue::{AtRest, Cursor, Entry, MmapStorage, Position, StateLock, Storage};
use crate::telemetry::health::Health;
use crate::telemetry::ledger::{DestinationTotals, LaneTotals};
use crate::transform::Cause;

const NAME: &str = "state-v1";
const BLOCKS: u32 = 8;
const RECEIVED_NS: u64 = 1_747_033_166_563_000_000;
const PARKED_AT: Duration = Duration::from_secs(1_747_033_166);
const HELD: &str = "otlphttp";
const PARKED: &str = "influx/second";

/// Every file of it.
const FILES: [&str; 20] = [
    "LOCK",
    "dead-letters/delivery/index",
    "dead-letters/delivery/seg-0000000000000001.log",
    "dead-letters/delivery/seg-0000000000000003.log",
    "dead-letters/delivery/seg-0000000000000004.log",
    "dead-letters/delivery/state",
    "dead-letters/front/index",
    "dead-letters/front/seg-0000000000000001.log",
    "dead-letters/front/seg-0000000000000003.log",
    "dead-letters/front/seg-0000000000000004.log",
    "dead-letters/front/state",
    "destinations/influx~second/cursor",
    "destinations/influx~second/parked",
    "destinations/otlphttp/cursor",
    "log/lane-00/index",
    "log/lane-00/seg-0000000000000001.log",
    "log/lane-00/seg-0000000000000002.log",
    "log/lane-00/seg-0000000000000003.log",
    "log/lane-00/state",
    "sources",
];

fn storage() -> Arc<dyn Storage> {
    Arc::new(MmapStorage)
}

fn destination(root: &Path, name: &str) -> PathBuf {
    parking::directory(&root.join("destinations"), name)
}

/// Opens the log as a start does.
fn open_log(root: &Path) -> OpenLog {
    let text = "queue: {segment_bytes: 4MiB, max_bytes: 64MiB, reserve_bytes: 0, pool_segments: 1}";
    let inputs = Inputs {
        file: Some(File { name: "millrace.yaml", text }),
        environment: &|_| None,
        flags: &[],
        proxytrace: false,
        host: Host { resolve: &|_| Vec::new(), is_local: &|_| false },
    };
    let settings = config::load(&inputs).unwrap().config.queue;
    let at_rest = logs::at_rest(&settings).unwrap();
    let (mut opened, _) = logs::open(&storage(), &root.join("log"), &settings, &at_rest, 1).unwrap();
    assert_eq!(opened.len(), 1);
    opened.remove(0)
}

fn meta(block: u32) -> Meta {
    let signal = if block == 6 { Signal::Logs } else { Signal::Traces };
    let made = if block.is_multiple_of(2) { Made::Encoded } else { Made::Passed };
    let mut meta = Meta::empty(signal, made, SourceId(u16::from(block % 2 == 1)), RECEIVED_NS + u64::from(block));
    meta.spans = 3 + block;
    meta.records = if made == Made::Encoded { 1 + block } else { 0 };
    meta.cover(RECEIVED_NS - 1000, RECEIVED_NS - 500 + u64::from(block));
    meta
}

/// Five of them fill a segment.
fn payload(block: u32) -> Vec<u8> {
    let bytes = if block < 6 { 800_000 } else { 500 };
    format!("block {block} of a log that lives long; ").into_bytes().into_iter().cycle().take(bytes).collect()
}

fn append(open: &mut OpenLog, blocks: std::ops::Range<u32>) {
    for block in blocks {
        open.appender.append(&meta(block), &payload(block)).unwrap();
        open.appender.maintain(Duration::from_secs(block.into()), RECEIVED_NS).unwrap();
        open.log.sync().unwrap();
        open.log.tend(RECEIVED_NS).unwrap();
    }
}

/// A number of its own for each.
fn totals(first: u64) -> DestinationTotals {
    DestinationTotals {
        delivered: first,
        refused_by_peer: first + 1,
        dead_lettered: first + 2,
        dropped: std::array::from_fn(|reason| first + 3 + reason as u64),
        lost: first + 11,
        skipped_at_start: first + 12,
        redelivered: first + 13,
    }
}

/// Reads so many blocks and commits after each.
fn deliver(open: &OpenLog, root: &Path, (name, blocks, first): (&str, u32, u64)) {
    let mut cursor = Cursor::open(&*storage(), &destination(root, name)).unwrap();
    let mut reader = open.log.reader(Position::default());
    for block in 0..blocks {
        let Some(Entry::Block { end, .. }) = reader.next() else { panic!("block {block} is there") };
        cursor.commit(&[(&open.log, end, totals(first + u64::from(block)))]).unwrap();
    }
}

/// A letter, as far as it does not depend on when it was written.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    id: String,
    texts: [String; 3],
    signal: Signal,
    source: SourceId,
    block: Option<Meta>,
    is_withheld: bool,
    bytes: Vec<u8>,
}

fn row(number: u8) -> Vec<u8> {
    format!("{{\"row\":{number}}}").into_bytes()
}

/// Five of them fill a segment.
fn large(number: u8) -> Vec<u8> {
    format!("letter {number} of a store that lives long; ").into_bytes().into_iter().cycle().take(800_000).collect()
}

fn block_aside() -> Meta {
    Meta { records: 2, ..meta(4) }
}

/// The letters that are there, front first.
fn kept() -> Vec<Kept> {
    let letter = |id: &str, texts: [&str; 3], bytes| Kept {
        id: id.to_owned(),
        texts: texts.map(str::to_owned),
        signal: Signal::Traces,
        source: SourceId(0),
        block: None,
        is_withheld: false,
        bytes,
    };
    let mut kept = vec![letter("front-1", ["guid", "uberagent", "no row has this"], row(1))];
    kept.extend(
        [3, 4, 5, 6]
            .map(|number| letter(&format!("front-{number}"), ["json", "uberagent", "it ends early"], large(number))),
    );
    let aside =
        letter("front-7", ["plugin_trap", "uberagent", "redact: unreachable"], b"the spans of a block".to_vec());
    kept.push(Kept { block: Some(block_aside()), ..aside });
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let withheld = letter("front-8", ["csv", "otlphttp", ""], format!("6 bytes, sha256 {digest}").into_bytes());
    kept.push(Kept { is_withheld: true, source: SourceId(1), ..withheld });
    let refused = |number: u8, signal| {
        let texts = ["refused_by_peer", [HELD, PARKED][usize::from(number % 2)], "400 bad request"];
        let bytes = if number < 6 { large(number) } else { row(number) };
        Kept { signal, source: SourceId::MIXED, ..letter(&format!("delivery-{number}"), texts, bytes) }
    };
    let signals =
        [(1, Signal::Traces), (2, Signal::Logs), (4, Signal::Metrics), (5, Signal::Traces), (6, Signal::Logs)];
    kept.extend(signals.map(|(number, signal)| refused(number, signal)));
    kept
}

fn write_letters(root: &Path) {
    let names = SourceNames::default();
    names.add(SourceId(0), "uberagent");
    names.add(SourceId(1), "otlphttp");
    let stores = dead_letters::start(&storage(), root, &AtRest::default(), names, &Health::new()).unwrap();
    let front = |source, reason, detail: &str, bytes| {
        let letter = FrontDeadLetter {
            source: SourceId(source),
            reason,
            detail: detail.to_owned(),
            received_ns: RECEIVED_NS,
            bytes,
        };
        stores.front.send(letter).unwrap();
    };
    front(0, "guid", "no row has this", row(1));
    (2..7).for_each(|number| front(0, "json", "it ends early", large(number)));
    // The thread takes what waits in no order.
    while letters(root, StoreName::Front).len() < 6 {
        std::thread::yield_now();
    }
    let (kept, is_kept) = channel::bounded(1);
    let cause = Cause { step: "redact".to_owned(), reason: "plugin_trap", message: "unreachable".to_owned() };
    let block = Block { meta: block_aside(), payload: b"the spans of a block".to_vec(), awaited: false };
    stores.aside.send(Quarantined { block, cause, kept, writer: Parker::new().unparker().clone() }).unwrap();
    is_kept.recv().unwrap();
    stores.withhold(true);
    front(1, "csv", "what is not kept either", b"secret".to_vec());
    for (number, signal) in (1..).zip([1, 3, 2, 2, 1, 3]) {
        let letter = DeliveryLetter {
            destination: [HELD, PARKED][usize::from(number % 2u8 == 1)].to_owned(),
            reason: "refused_by_peer",
            reply: "400 bad request".to_owned(),
            signal: Signal::from_u8(signal).unwrap(),
            payload: if number < 6 { large(number) } else { row(number) }.into(),
        };
        assert!(stores.delivery.keep(letter, &|| ()));
    }
    let DeadLetterStores { front, aside, delivery, logs, thread, .. } = stores;
    drop((front, aside, delivery, logs));
    thread.join().unwrap();
    let gone = Selection { ids: [(StoreName::Front, 2), (StoreName::Delivery, 3)].into(), ..Selection::default() };
    assert_eq!(dead_letters::purge(root, &AtRest::default(), &gone).unwrap(), 2);
}

fn letters(root: &Path, store: StoreName) -> Vec<Letter> {
    let lane = Lane::open(dead_letters::place(root, store), RECEIVED_NS).unwrap();
    assert_eq!((lane.recovered.lost_blocks, lane.parked.len()), (0, 0), "{store:?}");
    let mut found = Vec::new();
    let scan = Scan { store, open: &|| lane.reader(lane.oldest()), pulse: &|| ControlFlow::Continue(()) };
    scan.letters(&mut |letter, _| {
        found.push(letter);
        ControlFlow::Continue(())
    });
    found
}

/// Writes what the state directory holds, as the product does.
fn write(root: &Path) {
    let _lock = StateLock::take(root).unwrap();
    for names in [&["uberagent", "otlphttp"][..], &["elasticsearch", "otlphttp"]] {
        sources::assign(root, names).unwrap().keep().unwrap();
    }
    let mut open = open_log(root);
    append(&mut open, 0..BLOCKS);
    deliver(&open, root, (HELD, 4, 1000));
    deliver(&open, root, (PARKED, 1, 2000));
    parking::park(&destination(root, PARKED), PARKED_AT).unwrap();
    drop(open);
    write_letters(root);
}

#[test]
fn a_state_directory_of_a_released_version_is_opened_with_everything_in_it_and_goes_on() {
    if is_wanted(NAME) {
        let root = tempfile::tempdir().unwrap();
        write(root.path());
        pack(NAME, root.path());
    }
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    unpack(NAME, root);
    assert_eq!(files(root), FILES);
    let _lock = StateLock::take(root).unwrap();
    tables(root);
    let mut open = open_log(root);
    log(&open, root, BLOCKS);
    all_letters(root, &kept());

    append(&mut open, BLOCKS..BLOCKS + 1);
    drop(open);
    log(&open_log(root), root, BLOCKS + 1);
    let gone = Selection { ids: [(StoreName::Front, 4), (StoreName::Delivery, 6)].into(), ..Selection::default() };
    assert_eq!(dead_letters::purge(root, &AtRest::default(), &gone).unwrap(), 2);
    let mut left = kept();
    left.retain(|letter| !["front-4", "delivery-6"].contains(&letter.id.as_str()));
    all_letters(root, &left);
}

/// The sources keep their numbers, the parked destination its time.
fn tables(root: &Path) {
    assert_eq!(fs::read_to_string(root.join("sources")).unwrap(), "uberagent\notlphttp\nelasticsearch\n");
    let assigned = sources::assign(root, &["elasticsearch", "new", "uberagent", "otlphttp"]).unwrap();
    assert_eq!(assigned.ids, [2, 3, 0, 1].map(SourceId));
    assert_eq!(parking::known(&root.join("destinations")).unwrap(), [PARKED, HELD]);
    let left = parking::park(&destination(root, PARKED), PARKED_AT + Duration::from_hours(5)).unwrap();
    assert_eq!(left, Duration::from_hours(19));
}

/// Every block and its figures, and both destinations where they were.
fn log(open: &OpenLog, root: &Path, blocks: u32) {
    let mut reader = open.log.reader(Position::default());
    for block in 0..blocks {
        match reader.next() {
            Some(Entry::Block { meta: found, sequence, payload: bytes, .. }) => {
                assert_eq!(found, meta(block));
                // Behind a start sequences go on with a gap.
                let expected = u64::from(block) + 1;
                assert!(sequence == expected || (block >= BLOCKS && sequence > expected), "block {block}: {sequence}");
                assert!(bytes[..] == payload(block)[..], "block {block}");
            }
            other => panic!("block {block}: {other:?}"),
        }
    }
    assert_eq!(reader.next(), None);
    let sum = |of: fn(&Meta) -> u32| (0..blocks).map(|block| u64::from(of(&meta(block)))).sum::<u64>();
    let expected = LaneTotals {
        encoded: sum(|meta| meta.records),
        passed: sum(Meta::passed),
        synthesised: sum(Meta::synthesised),
        appended: sum(|meta| meta.spans),
        ..LaneTotals::default()
    };
    assert_eq!(open.ledger.snapshot(), expected);
    for (name, delivered, first, offset) in [(HELD, 4, 1000, 3_208_832), (PARKED, 1, 2000, 808_384)] {
        let cursor = Cursor::open(&*storage(), &destination(root, name)).unwrap();
        let lane = cursor.lane(&open.log).expect("a cursor of this log");
        let spans = (0..delivered).map(|block| u64::from(meta(block).spans)).sum();
        let position = Position { segment: 1, offset, sequence: delivered.into(), spans };
        assert_eq!((lane.position, lane.totals), (position, totals(first + u64::from(delivered) - 1)), "{name}");
        let Some(Entry::Block { sequence, .. }) = open.log.reader(lane.position).next() else { panic!("{name}") };
        assert_eq!(sequence, u64::from(delivered) + 1, "{name} goes on where it was");
    }
}

fn all_letters(root: &Path, expected: &[Kept]) {
    let letters: Vec<Letter> = StoreName::ALL.into_iter().flat_map(|store| letters(root, store)).collect();
    let (found, wanted): (Vec<String>, Vec<&str>) =
        (letters.iter().map(Letter::id).collect(), expected.iter().map(|letter| letter.id.as_str()).collect());
    assert_eq!(found, wanted);
    for (letter, expected) in letters.into_iter().zip(expected) {
        match letter.store {
            StoreName::Front => {
                let received_ns = letter.block.map_or(RECEIVED_NS, |_| block_aside().received_ns);
                assert_eq!(letter.time_ns, received_ns, "{}", expected.id);
            }
            // When it was refused: in the year in which the directory was made.
            StoreName::Delivery => assert_eq!(&letter.summary()["time"].as_str().unwrap()[..5], "2026-"),
        }
        let found = Kept {
            id: letter.id(),
            texts: [letter.reason, letter.origin, letter.reply],
            signal: letter.signal,
            source: letter.source,
            block: letter.block,
            is_withheld: letter.is_withheld,
            bytes: letter.bytes.to_vec(),
        };
        assert!(found == *expected, "{} {:?} {:?}", found.id, found.texts, found.block);
    }
}
