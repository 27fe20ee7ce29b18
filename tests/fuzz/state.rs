//! What a disk may hand back beside the log: dead letters, keys, and the small tables of the state directory.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace::block::{Made, Meta, Signal, SourceId};
use millrace::pipeline::dead_letters::{self, Letter, Scan, Selection, StoreName};
use millrace::pipeline::{logs, parking, sources};
use millrace::queue::{Budget, Keys, Log, Options, Storage};
use millrace::sim::disk::SimDisk;

/// What a letter's payload says: reason, origin, reply, the five fields of a block, whether it is withheld, and its bytes.
type Said<'a> = ([String; 3], Option<(bool, u32, u32, u64, u64)>, bool, &'a [u8]);

/// Any payloads in the two stores, under the checksums of their logs: the letters that are shown are those that another
/// reader of the format finds, less those that are said to be gone. Each entry of the input is a byte for store and signal,
/// the length of its payload in two, and the payload.
pub(super) fn dead_letters(data: &[u8]) {
    let mut payloads: [Vec<(Signal, &[u8])>; 2] = Default::default();
    let mut rest = data;
    while let [choice, low, high, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(after.len()));
        let signal = [Signal::Traces, Signal::Metrics, Signal::Logs][usize::from(choice >> 1) % 3];
        payloads[usize::from(choice & 1)].push((signal, &payload[..payload.len().min(8000)]));
        rest = after;
    }
    let disk = SimDisk::new(7);
    for (store, payloads) in StoreName::ALL.into_iter().zip(&payloads) {
        write_store(&disk, store, payloads);
        let (log, _appender, _) = open_store(&disk, store);
        let scan = Scan { store, open: &|| log.reader(log.oldest()), pulse: &|| ControlFlow::Continue(()) };
        let mut letters = Vec::new();
        scan.letters(&mut |letter, _| {
            letters.push(letter);
            ControlFlow::Continue(())
        });
        let gone: BTreeSet<u64> = payloads.iter().flat_map(|(_, payload)| gone(payload)).collect();
        // Sequences begin with 1.
        let numbered = (1u64..).zip(payloads).filter(|(number, _)| !gone.contains(number));
        let expected: Vec<_> = numbered.filter_map(|(number, (_, payload))| Some((number, said(payload)?))).collect();
        let found: Vec<_> = letters.iter().map(|letter| (letter.number, shown(letter))).collect();
        assert_eq!(found, expected, "{store:?}");
        are_shown(&scan, &letters);
    }
}

fn open_store(disk: &SimDisk, store: StoreName) -> (Arc<Log>, millrace::queue::Appender, u64) {
    let place = dead_letters::place(Path::new("/state"), store);
    let options = Options {
        directory: place.directory,
        quarantine: place.quarantine,
        lane: place.lane,
        segment_bytes: 64 * 1024,
        max_payload_bytes: 8192,
        pool_segments: 1,
        opened_at_start: 1,
        budget: Arc::new(Budget::new(16 << 20, 0)),
        wall_ns: 1,
        at_rest: place.at_rest,
    };
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (log, appender, recovered) = Log::open(storage, options).expect("no letter refuses a start");
    (log, appender, recovered.blocks)
}

fn write_store(disk: &SimDisk, store: StoreName, payloads: &[(Signal, &[u8])]) {
    let (log, mut appender, _) = open_store(disk, store);
    for (number, (signal, payload)) in (1..).zip(payloads) {
        let mut meta = Meta::empty(*signal, Made::Passed, SourceId(3), number);
        meta.spans = 1;
        assert_eq!(appender.append(&meta, payload).expect("there is room"), number);
        log.sync().expect("the disk is well");
        log.tend(1).expect("the disk is well");
    }
}

/// The letters that a payload says are gone.
fn gone(payload: &[u8]) -> Vec<u64> {
    let Some((2, numbers)) = payload.split_first() else { return Vec::new() };
    numbers.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number)).collect()
}

/// What a payload says, if it is a letter's.
fn said(payload: &[u8]) -> Option<Said<'_>> {
    let (version, mut rest) = payload.split_first()?;
    let mut texts: [String; 3] = Default::default();
    for text in &mut texts {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length));
        *text = String::from_utf8_lossy(after.get(..length)?).into_owned();
        rest = &after[length..];
    }
    let mut block = None;
    if *version == 3 {
        let u32_at = |at: usize| Some(u32::from_le_bytes(*rest.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*rest.get(at..)?.first_chunk()?));
        let (records, spans) = (u32_at(1)?, u32_at(5)?);
        // A block that claims more records than spans could not be put into the log again.
        block = (records <= spans).then_some((rest[0] == 1, records, spans, u64_at(9)?, u64_at(17)?));
        block?;
        rest = &rest[25..];
    }
    matches!(version, 1 | 3 | 4).then_some((texts, block, *version == 4, rest))
}

fn shown(letter: &Letter) -> Said<'_> {
    let of_block =
        |meta: &Meta| (meta.made == Made::Encoded, meta.records, meta.spans, meta.first_span_ns, meta.last_span_ns);
    let texts = [&letter.reason, &letter.origin, &letter.reply].map(String::clone);
    (texts, letter.block.as_ref().map(of_block), letter.is_withheld, &letter.bytes)
}

/// Lists them and shows each, and finds it by its id.
fn are_shown(scan: &Scan<'_>, letters: &[Letter]) {
    const MOST: usize = 5;
    let scans = std::slice::from_ref(scan);
    let listed = dead_letters::list(scans, &Selection::default(), MOST);
    let groups = listed["groups"].as_array().expect("groups are listed");
    let sum = |field: &str| groups.iter().map(|group| group[field].as_u64().expect("a number")).sum::<u64>();
    let bytes: usize = letters.iter().map(|letter| letter.bytes.len()).sum();
    assert_eq!((sum("letters"), sum("bytes")), (letters.len() as u64, bytes as u64));
    assert_eq!(listed["letters"].as_array().map(Vec::len), Some(letters.len().min(MOST)));
    for letter in letters {
        let content = letter.content();
        assert!(content.len() <= 64 * letter.bytes.len() + 256, "{} of {}", content.len(), letter.bytes.len());
        assert_eq!((letter.time_ns, letter.source), (letter.number, SourceId(3)));
        assert_eq!(Selection::parse_id(&letter.id()), Ok((letter.store, letter.number)));
    }
    let Some(last) = letters.last() else { return };
    let selection = Selection { ids: [(last.store, last.number)].into(), ..Selection::default() };
    let listed = dead_letters::list(scans, &selection, MOST);
    assert_eq!(listed["letters"][0], last.summary());
}

/// A file of keys: as many as another reader finds, each under the id that it has alone, or the line that is none. It
/// never shows what is in it.
pub(super) fn keys(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory for the file");
    let path = directory.path().join("keys");
    fs::write(&path, data).expect("the disk is well");
    let read = logs::read_keys(&path);
    let Ok(text) = std::str::from_utf8(data) else { return assert!(read.is_err(), "keys that are no text") };
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines: Vec<_> = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
    let is_key = |line: &str| line.len() == 64 && line.chars().all(|digit| digit.is_ascii_hexdigit());
    match (read, lines.iter().find(|(_, line)| !is_key(line))) {
        (Ok(keys), None) if !lines.is_empty() => {
            let alone = lines.iter().map(|(_, line)| Keys::parse(&line.to_lowercase()).expect("it is one"));
            assert!(keys.ids().eq(alone.flat_map(|key| key.ids().collect::<Vec<_>>())));
            let (ids, keys_read): (BTreeSet<_>, BTreeSet<_>) =
                (keys.ids().collect(), lines.iter().map(|(_, line)| line.to_lowercase()).collect());
            assert_eq!(ids.len(), keys_read.len(), "an id is a function of its key");
            let debugged = format!("{keys:?}").to_lowercase();
            assert!(keys_read.iter().all(|key| !debugged.contains(&key[..32])), "{debugged}");
        }
        (Err(reason), Some((number, line))) => {
            assert!(reason.starts_with(&format!("line {number} is not a key")), "{reason}");
            assert!(line.len() < 24 || !reason.contains(line), "{reason}");
        }
        (Err(_), None) if lines.is_empty() => {}
        (read, _) => panic!("{read:?} of {}", data.escape_ascii()),
    }
}

/// Any table of sources: each name has the number of its line, new ones follow, and what is written down says the same. The
/// first byte chooses the receivers, the second how often the table is repeated.
pub(super) fn sources(data: &[u8]) {
    const NAMES: [&str; 6] = ["uberagent", "otlphttp", "elasticsearch", "otlphttp/second", "plugin/syslog", "u"];
    let [choice, repeated, table @ ..] = data else { return };
    let directory = tempfile::tempdir().expect("a directory for the table");
    let path = directory.path().join("sources");
    let table = table.repeat(1 + usize::from(repeated % 32));
    fs::write(&path, &table).expect("the disk is well");
    let text = String::from_utf8_lossy(&table);
    let lines: Vec<&str> = text.lines().collect();
    // No name ends so, and a table that is written again ends its lines without.
    if lines.iter().any(|line| line.ends_with('\r')) {
        return;
    }
    let chosen = (0..).zip(NAMES).filter(|(bit, _)| choice >> bit & 1 == 1).map(|(_, name)| name);
    let names: Vec<&str> = chosen.chain(lines.last().copied()).collect();
    let mut known = lines.clone();
    let wanted: Vec<usize> = names.iter().map(|name| index_of(&mut known, name)).collect();
    let assigned = sources::assign(directory.path(), &names);
    assert_eq!(fs::read(&path).expect("it is there"), table, "nothing is written before it is kept");
    let most = usize::from(SourceId::MIXED.0);
    let Ok(assigned) = assigned else { return assert!(wanted.iter().any(|id| *id >= most), "there is room") };
    assert!(wanted.iter().all(|id| *id < most), "the last number is no source's");
    assert!(assigned.ids.iter().map(|id| usize::from(id.0)).eq(wanted), "{:?}", assigned.ids);
    assigned.keep().expect("the disk is well");
    let again = sources::assign(directory.path(), &names).expect("it was written a moment ago");
    assert_eq!(again.ids, assigned.ids);
    let kept = fs::read(&path).expect("it is there");
    assert!(String::from_utf8_lossy(&kept).lines().eq(known), "lines are never changed");
}

/// The line of a name, which is appended when there is none.
fn index_of<'a>(known: &mut Vec<&'a str>, name: &'a str) -> usize {
    known.iter().position(|line| *line == name).unwrap_or_else(|| {
        known.push(name);
        known.len() - 1
    })
}

/// Any line that says since when a destination is parked, by any clock: it has a day at most, the time runs on, and begins
/// again when the destination comes back. The first eight bytes are the clock, four more the time that passes.
pub(super) fn parked(data: &[u8]) {
    let Some((wall, rest)) = data.split_first_chunk::<8>() else { return };
    let Some((passed, line)) = rest.split_first_chunk::<4>() else { return };
    // The wall clock counts nanoseconds in 64 bits.
    let wall = Duration::from_nanos(u64::from_le_bytes(*wall) >> 1);
    let passed = Duration::from_millis(u32::from_le_bytes(*passed).into());
    let directory = tempfile::tempdir().expect("a directory for the line");
    let directory = directory.path();
    fs::write(directory.join("parked"), line).expect("the disk is well");
    let left = parking::park(directory, wall).expect("the disk is well");
    let said = std::str::from_utf8(line).ok().and_then(|line| line.trim().parse::<u64>().ok()).map(Duration::from_secs);
    let second = Duration::from_secs(wall.as_secs());
    match said.filter(|said| *said <= wall) {
        Some(said) => assert_eq!(left, parking::PARKED_FOR.saturating_sub(wall - said)),
        None => assert_eq!(left, parking::PARKED_FOR, "what is not understood is parked from now on"),
    }
    let since = parking::since(wall, left);
    assert!(since <= wall && wall - since <= parking::PARKED_FOR);
    // The line has whole seconds.
    let written = said.filter(|said| *said <= wall).unwrap_or(second);
    let later = parking::park(directory, wall + passed).expect("the disk is well");
    assert_eq!(later, parking::PARKED_FOR.saturating_sub(wall + passed - written), "{left:?} before");
    parking::unpark(directory).expect("the disk is well");
    assert_eq!(parking::park(directory, wall).expect("the disk is well"), parking::PARKED_FOR);
}
