//! Letters through the thread that keeps them, the stores' bounds, and records on their way back into the front.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::block::{Block, Made, Meta, Refusal, Ticket, VerdictOutcome};
use crate::config::{Mapping, OtherSourcetypes, Uberagent};
use crate::pipeline::outlet::{self, WriterEnd};
use crate::pipeline::sources::RowRules;
use crate::queue::MmapStorage;
use crate::sim::disk::SimDisk;
use crate::sys::doorbell::Doorbell;
use crate::sys::handshake::Done;

const WEEK_NS: u64 = store::KEEP.as_secs() * 1_000_000_000;

fn stores(directory: &Path) -> DeadLetterStores {
    let storage: Arc<dyn Storage> = Arc::new(MmapStorage);
    let names = SourceNames::default();
    names.add(SourceId(4), "uberagent");
    start(&storage, directory, &AtRest::default(), names, &Health::new()).unwrap()
}

fn end(stores: DeadLetterStores) {
    let DeadLetterStores { front, aside, delivery, logs, thread, .. } = stores;
    drop((front, aside, delivery, logs));
    thread.join().unwrap();
}

fn record(stores: &DeadLetterStores, bytes: &[u8]) {
    let (detail, received_ns) = ("no row has this".to_owned(), clock::wall_ns());
    let letter = FrontDeadLetter { source: SourceId(4), reason: "guid", detail, received_ns, bytes: bytes.to_vec() };
    stores.front.send(letter).unwrap();
}

fn refused(destination: &str, payload: &[u8]) -> DeliveryLetter {
    let (reason, reply) = ("refused_by_peer", "400 bad request: ä".repeat(40));
    let payload = Bytes::copy_from_slice(payload);
    DeliveryLetter { destination: destination.to_owned(), reason, reply, signal: Signal::Logs, payload }
}

fn found(store: StoreName, log: &Arc<Log>, selection: &Selection) -> Vec<Letter> {
    let scan = Scan { store, open: &|| log.reader(log.oldest()), pulse: &|| ControlFlow::Continue(()) };
    select(&scan, selection, &mut Room { letters: usize::MAX, bytes: usize::MAX, more: false })
}

fn all(stores: &DeadLetterStores, selection: &Selection) -> Vec<Letter> {
    stores.logs.iter().flat_map(|(store, log)| found(*store, log, selection)).collect()
}

#[test]
fn letters_survive_a_restart_and_what_is_gone_stays_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = stores(directory.path());
    record(&first, b"no row");
    for destination in ["a", "b", "a"] {
        assert!(first.delivery.keep(refused(destination, destination.as_bytes()), &|| ()));
    }
    // The thread takes both doors in turn: once one more letter is durable there, the record may still be on its way.
    while all(&first, &Selection::default()).len() < 4 {
        thread::yield_now();
    }
    let found = all(&first, &Selection::default());
    assert_eq!(
        (found[0].origin.as_str(), found[0].reply.as_str(), &found[0].bytes[..], found[0].source),
        ("uberagent", "no row has this", &b"no row"[..], SourceId(4))
    );
    assert_eq!(
        (found[1].signal, found[1].reply.len()),
        (Signal::Logs, 256),
        "the beginning of the reply, whole characters"
    );
    let of_a = Selection { origin: Some("a".to_owned()), ..Selection::default() };
    let numbers: Vec<u64> = all(&first, &of_a).iter().map(|letter| letter.number).collect();
    assert_eq!(numbers.len(), 2);
    assert!(first.delivery.go(StoreName::Delivery, numbers, GoneBy::Replay, &|| ()));
    assert_eq!(first.counters[1].1.replayed.get(), 2);
    let left: Vec<String> = all(&first, &Selection::default()).iter().map(Letter::id).collect();
    end(first);
    let second = stores(directory.path());
    assert_eq!(all(&second, &Selection::default()).iter().map(Letter::id).collect::<Vec<_>>(), left);
    end(second);
    assert_eq!(purge(directory.path(), &AtRest::default(), &Selection::default()).unwrap(), 2);
    let third = stores(directory.path());
    assert_eq!(all(&third, &Selection::default()), []);
    end(third);
}

#[test]
fn a_store_is_bounded_in_age_and_counts_what_goes() {
    let directory = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(MmapStorage);
    let mut store =
        Store::open(&storage, directory.path(), StoreName::Front, &AtRest::default(), StoreWatch::nobody()).unwrap();
    let now = 2 * WEEK_NS;
    // Three letters fill a segment: six old ones, then three of today.
    for number in 0..9 {
        let received_ns = if number < 6 { now - WEEK_NS - 1 } else { now };
        assert!(store.keep(
            (Signal::Traces, SourceId(0)),
            received_ns,
            &letter::encode("r", "o", "", &vec![7; 1_000_000])
        ));
    }
    assert!(store.sync());
    let there = |store: &Store| found(StoreName::Front, &store.log, &Selection::default());
    // One of the old ones is gone already: it does not expire too.
    let first = there(&store)[0].number;
    assert!(store.go(&[first], GoneBy::Purge));
    let before = there(&store).len();
    store.expire_by_age(Duration::ZERO, now);
    let after = there(&store).len();
    assert_eq!((before, store.counters.expired.get()), (8, (before - after) as u64));
    assert!(after < 8 && there(&store).iter().filter(|letter| letter.time_ns == now).count() == 3);
    // With the last letter its segment goes.
    let numbers: Vec<u64> = there(&store).iter().map(|letter| letter.number).collect();
    assert!(store.go(&numbers, GoneBy::Purge));
    assert!(store.log.stats().segments <= 1, "{:?}", store.log.stats());
}

#[test]
fn a_store_of_very_many_letters_is_read_a_few_times_whatever_is_asked_and_with_pulses() {
    const LETTERS: u64 = 100_000;
    let directory = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(MmapStorage);
    let pulses = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&pulses);
    let pulse = Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let watch = StoreWatch { pulse, ..StoreWatch::nobody() };
    let mut store = Store::open(&storage, directory.path(), StoreName::Front, &AtRest::default(), watch).unwrap();
    for number in 0..LETTERS {
        let encoded = letter::encode(["even", "odd"][usize::from(number % 2 == 1)], "o", "", b"x");
        assert!(store.keep((Signal::Traces, SourceId(0)), clock::wall_ns(), &encoded));
    }
    assert!(store.sync() && store.log.stats().segments > 2);
    let log = Arc::clone(&store.log);
    let scan_pulse = || {
        pulses.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let scan = Scan { store: StoreName::Front, open: &|| log.reader(log.oldest()), pulse: &scan_pulse };
    // How often the whole store was read since the last call, rounded.
    let readings = || {
        let entries = pulses.swap(0, Ordering::Relaxed) * u64::from(letter::PULSE_ENTRIES);
        (entries + LETTERS / 2) / LETTERS
    };
    let listed = desk::list(&[scan], &Selection::default(), 3);
    assert_eq!(
        (&listed["groups"][1]["letters"], listed["letters"].as_array().unwrap().len()),
        (&(LETTERS / 2).into(), 3)
    );
    for time in [&listed["letters"][0]["time"], &listed["groups"][1]["oldest"], &listed["groups"][1]["newest"]] {
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time} is not ISO 8601");
    }
    assert_eq!(readings(), 2);
    let scan = Scan { store: StoreName::Front, open: &|| log.reader(log.oldest()), pulse: &scan_pulse };
    let mut purge = |selection| purge_all(&scan, &log, &selection, &mut |numbers| store.go(&numbers, GoneBy::Purge));
    let odd = Selection { reason: Some("odd".to_owned()), ..Selection::default() };
    assert_eq!((purge(odd.clone()), purge(odd)), (Some(LETTERS / 2), Some(0)));
    assert_eq!(readings(), 5, "two for each purge, and one for what was gone before");
    assert_eq!(purge(Selection::default()), Some(LETTERS / 2));
    assert_eq!(readings(), 3, "two, and one for what goes from the disk");
    assert!(log.stats().segments <= 2, "{:?}", log.stats());
}

#[test]
fn a_store_that_cannot_keep_letters_says_so_until_it_can() {
    let (disk, health) = (SimDisk::new(1), Health::new());
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let watch = StoreWatch { component: health.component(store::component(StoreName::Front)), ..StoreWatch::nobody() };
    let mut store = Store::open(&storage, Path::new("/state"), StoreName::Front, &AtRest::default(), watch).unwrap();
    let large = letter::encode("r", "o", "", &vec![7; 1_000_000]);
    let log = Arc::clone(&store.log);
    let append = |store: &mut Store| store.keep((Signal::Traces, SourceId(0)), 5, &large);
    let keep = |store: &mut Store| append(store) && store.sync();
    assert!(keep(&mut store) && health.degraded().is_empty());
    // One sync that fails is met with another file: what is said to be kept is durable.
    disk.fail_sync_after(0);
    assert!(keep(&mut store) && health.degraded().is_empty());
    assert_eq!(log.durable_sequence(), log.published_sequence());
    disk.light_fuse(0);
    assert!((0..9).any(|_| !append(&mut store)), "there is no room without another segment");
    assert_eq!(health.degraded().len(), 1);
    disk.remove_fuse();
    assert!(keep(&mut store) && health.degraded().is_empty());
    disk.light_fuse(0);
    assert!(!keep(&mut store));
    let degraded = health.degraded();
    assert!(degraded.len() == 1 && degraded[0].0 == "dead letters front", "{degraded:?}");
    assert!(health.ready().yes, "records and spans are taken all the same");
}

#[test]
fn whoever_waits_for_the_stores_ticks_for_itself() {
    let (orders, taken) = channel::bounded(1);
    let letters = DeadLetters { orders, exporters: Arc::default(), sent: Arc::new(Done::new(true)) };
    let (ticked, ticks) = channel::bounded(1);
    // The stores' thread is busy until the one that waits has ticked.
    let busy = thread::spawn(move || {
        let Ok(Order::Keep(_, done)) = taken.recv() else { panic!("a letter was given") };
        ticks.recv_timeout(Duration::from_secs(20)).unwrap();
        done.send(()).unwrap();
    });
    assert!(letters.keep(refused("a", b"a"), &|| _ = ticked.try_send(())));
    busy.join().unwrap();
}

#[test]
fn a_selection_comes_back_from_json_and_an_empty_one_must_say_all() {
    let selection = Selection {
        ids: [(StoreName::Front, 12)].into(),
        store: Some(StoreName::Front),
        reason: Some("guid".to_owned()),
        origin: None,
        after: [(StoreName::Delivery, 7)].into(),
    };
    assert_eq!(Selection::from_json(&selection.to_json()), Ok(selection));
    assert_eq!(Selection::from_json(&Selection::default().to_json()), Ok(Selection::default()));
    // What is not understood would leave the whole store meant.
    for body in [
        "{}",
        "[]",
        "null",
        "{\"ids\":[\"front\"]}",
        "{\"store\":\"back\"}",
        "{\"ids\":[7]}",
        "{\"store\":\"front\",\"ids\":\"front-12\"}",
        "{\"store\":\"front\",\"id\":[\"front-12\"]}",
        "{\"store\":\"front\",\"reason\":7}",
        "{\"all\":\"no\"}",
        "{\"after\":[\"front-12\"]}",
    ] {
        assert!(Selection::from_json(&serde_json::from_str(body).unwrap()).is_err(), "{body}");
    }
}

/// A row that uberAgent would send.
const ROW: &str = r#"{"SessionGUID":"00000001-4b1e-93a7-0775-d390bc3db001","SessionID":1,"host":"h","LogonProcType":
    "Session setup","ProcName":"p.exe","ProcID":8,"ProcParentID":4,"ProcStartTimeRelativeMs":5,"ProcLifetimeMs":9,
    "TotalLogonDurationMs":40000,"ProcUser":"u","SortOrder2":2}"#;

const SESSION: Uberagent = Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };

fn undecoded(number: u64, bytes: &str) -> Letter {
    Letter {
        store: StoreName::Front,
        number,
        reason: "overload".to_owned(),
        origin: "uberagent".to_owned(),
        reply: String::new(),
        time_ns: 5,
        signal: Signal::Traces,
        source: SourceId(4),
        block: None,
        is_withheld: false,
        bytes: Bytes::copy_from_slice(bytes.replace('\n', "").as_bytes()),
    }
}

/// A producer, its writer, and the writer's next ticket.
type Joined = (FrontReplay, WriterEnd, u64);

fn front(rules: &RowRules, metrics: &Arc<Metrics>) -> Joined {
    let (doorbell, parker) = (Doorbell::new().unwrap(), crossbeam::sync::Parker::new());
    let (outlet, writer, _) = outlet::pair(RING_BLOCKS, u64::MAX, doorbell, parker.unparker().clone());
    (FrontReplay::new(outlet, rules.clone(), Arc::clone(metrics)), writer, 0)
}

/// Replays letters to a writer that answers every block so; the blocks.
fn replayed(joined: &mut Joined, letters: &[Letter], outcome: VerdictOutcome) -> (replay::Replayed, Vec<Block>) {
    replayed_each(joined, letters, &|_| outcome)
}

/// The same with an answer by ticket.
fn replayed_each(
    (front, writer, ticket): &mut Joined,
    letters: &[Letter],
    outcome: &(dyn Fn(u64) -> VerdictOutcome + Sync),
) -> (replay::Replayed, Vec<Block>) {
    thread::scope(|scope| {
        let replaying = scope.spawn(|| front.replay(letters, &AtomicBool::new(false), &|| ()));
        let mut blocks = Vec::new();
        while !replaying.is_finished() {
            if let Some(block) = writer.pop() {
                writer.answer(Ticket(*ticket), Ticket(*ticket), outcome(*ticket));
                *ticket += 1;
                blocks.push(block);
            }
            thread::yield_now();
        }
        (replaying.join().unwrap(), blocks)
    })
}

#[test]
fn a_record_is_replayed_once_the_log_has_it_and_a_bad_one_stays() {
    let letters = [undecoded(1, ROW), undecoded(2, "no row at all"), undecoded(3, ROW)];
    let metrics = Arc::new(Metrics::new());
    for outcome in [VerdictOutcome::Refused(Refusal::Full), VerdictOutcome::Unknown, VerdictOutcome::Durable] {
        let (replayed, blocks) = replayed(&mut front(&RowRules::new(SESSION), &metrics), &letters, outcome);
        assert!(blocks.iter().all(|block| block.awaited && block.meta.source == SourceId(4)));
        let (is_durable, records) =
            (outcome == VerdictOutcome::Durable, blocks.iter().map(|block| block.meta.records).sum::<u32>());
        assert_eq!(
            (records, replayed.gone.clone()),
            (2, if is_durable { vec![1, 3] } else { Vec::new() }),
            "{outcome:?}"
        );
        assert_eq!(replayed.stopped.is_none(), is_durable);
        assert_eq!(replayed.to_json(false)["failed"][0]["id"], "front-2");
    }
    assert_eq!(metrics.imbalances().front, 0);
}

#[test]
fn each_letter_has_its_own_fate_and_what_a_plugin_took_in_is_no_row() {
    let mut letters: Vec<Letter> = (1..=4).map(|number| undecoded(number, ROW)).collect();
    letters[3].origin = "plugin/syslog".to_owned();
    let metrics = Arc::new(Metrics::new());
    let again = |ticket| match ticket {
        1 => VerdictOutcome::Refused(Refusal::Transforms),
        _ => VerdictOutcome::Durable,
    };
    let (replayed, blocks) = replayed_each(&mut front(&RowRules::new(SESSION), &metrics), &letters, &again);
    assert_eq!((replayed.gone.clone(), replayed.stopped.clone(), blocks.len()), (vec![1, 3], None, 3));
    let failed = replayed.to_json(false)["failed"].clone();
    let of_plugin =
        "a plugin reads what comes by this receiver: send it there again (millrace dlq show ID --format raw)";
    let expected = serde_json::json!([
        { "id": "front-4", "why": of_plugin }, { "id": "front-2", "why": "a plugin fails on it again" }
    ]);
    assert_eq!((failed, metrics.imbalances().front), (expected, 0));
}

#[test]
fn a_record_is_replayed_under_the_rules_that_a_reload_has_brought() {
    let (metrics, letters) = (Arc::new(Metrics::new()), [undecoded(1, ROW)]);
    let (rules, original) = (RowRules::new(SESSION), Uberagent { mapping: Mapping::Original, ..SESSION });
    let payload = |front: &mut _| replayed(front, &letters, VerdictOutcome::Durable).1.remove(0).payload;
    let mut changed = front(&rules, &metrics);
    let before = payload(&mut changed);
    rules.set(original);
    let after = payload(&mut changed);
    assert_eq!(after, payload(&mut front(&RowRules::new(original), &metrics)));
    assert_ne!(after, before);
    assert_eq!(metrics.imbalances().front, 0);
}

fn opened(directory: &Path, at_rest: &AtRest) -> Store {
    let storage: Arc<dyn Storage> = Arc::new(MmapStorage);
    Store::open(&storage, directory, StoreName::Front, at_rest, StoreWatch::nobody()).unwrap()
}

fn numbers(store: &Store) -> Vec<u64> {
    found(StoreName::Front, &store.log, &Selection::default()).iter().map(|letter| letter.number).collect()
}

/// Three of them fill a segment.
fn keep(store: &mut Store, encoded: &[u8]) {
    assert!(store.keep((Signal::Traces, SourceId(0)), clock::wall_ns(), encoded) && store.sync());
}

#[test]
fn letters_of_every_kind_hold_their_segments() {
    let (large, meta) = (vec![7; 1_000_000], Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 5));
    let block = letter::of_block(("plugin_trap", "otlp", "p"), &meta, &large).remove(0);
    let mut of_a_later_version = letter::encode("r", "o", "", &large);
    of_a_later_version[0] = 9;
    for kept in [block, of_a_later_version] {
        let directory = tempfile::tempdir().unwrap();
        let mut store = opened(directory.path(), &AtRest::default());
        (0..4).for_each(|_| keep(&mut store, &kept));
        let (held, shown) = (store.log.stats().segments, numbers(&store).len());
        (0..4).for_each(|_| keep(&mut store, &letter::encode("r", "o", "", &large)));
        let plain = numbers(&store).split_off(shown);
        assert!(store.go(&plain, GoneBy::Purge));
        assert_eq!((plain.len(), numbers(&store).len()), (4, shown));
        assert!(store.log.stats().segments >= held, "{:?}", store.log.stats());
    }
}

#[test]
fn a_block_of_more_records_than_spans_is_no_letter() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = opened(directory.path(), &AtRest::default());
    let meta = |records, spans| Meta { records, spans, ..Meta::empty(Signal::Traces, Made::Encoded, SourceId(0), 5) };
    for (records, spans) in [(2, 2), (3, 2), (0, 0), (1, 0)] {
        keep(&mut store, &letter::of_block(("plugin_trap", "otlp", "p"), &meta(records, spans), b"spans").remove(0));
    }
    let letters = found(StoreName::Front, &store.log, &Selection::default());
    let blocks: Vec<_> = letters.iter().map(|letter| letter.block.map(|meta| (meta.records, meta.spans))).collect();
    assert_eq!(blocks, [Some((2, 2)), Some((0, 0))]);
}

#[test]
fn what_cannot_be_read_for_want_of_a_key_is_there_when_the_key_is_back() {
    use crate::config::MissingKey::{Hold, Skip};
    let keys = crate::queue::Keys::parse(&"17".repeat(32)).unwrap();
    let encrypted = AtRest { keys, ..AtRest::default() };
    let (directory, large) = (tempfile::tempdir().unwrap(), letter::encode("r", "o", "", &vec![7; 1_000_000]));
    let mut store = opened(directory.path(), &encrypted);
    (0..7).for_each(|_| keep(&mut store, &large));
    let kept = numbers(&store);
    drop(store);
    for missing_key in [Hold, Skip] {
        let keyless = AtRest { missing_key, ..AtRest::default() };
        assert_eq!(purge(directory.path(), &keyless, &Selection::default()).unwrap(), 0, "{missing_key:?}");
        let mut store = opened(directory.path(), &keyless);
        (0..4).for_each(|_| keep(&mut store, &large));
        let all: Vec<u64> = (1..=store.log.published_sequence()).filter(|number| !kept.contains(number)).collect();
        assert!(store.go(&all, GoneBy::Replay));
        drop(store);
        let store = opened(directory.path(), &encrypted);
        assert_eq!(numbers(&store), kept, "{missing_key:?}");
        drop(store);
    }
}

#[test]
fn what_is_taken_out_at_once_is_bounded_in_letters_and_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = opened(directory.path(), &AtRest::default());
    (0..3).for_each(|_| keep(&mut store, &letter::encode("r", "o", "", &[7; 1000])));
    let log = &store.log;
    let scan =
        Scan { store: StoreName::Front, open: &|| log.reader(log.oldest()), pulse: &|| ControlFlow::Continue(()) };
    for (letters, bytes, taken) in [(3, 3000, 3), (9, 2001, 3), (9, 1500, 2), (1, 9000, 1), (9, 1, 1)] {
        let mut room = Room { letters, bytes, more: false };
        let found = select(&scan, &Selection::default(), &mut room);
        assert_eq!((found.len(), room.more), (taken, taken < 3), "{letters} letters, {bytes} bytes");
    }
}
