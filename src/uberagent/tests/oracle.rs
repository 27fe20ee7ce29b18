//! The oracle: process rows mapped again, slowly and plainly, from what serde_json reads; and the fast scanner held
//! against simd-json.

use std::collections::BTreeMap;

use super::*;
use crate::uberagent::fields::{FIELDS, id};
use crate::uberagent::marks::Marks;
use crate::uberagent::names::Names;
use crate::uberagent::row::{Row, View};
use crate::uberagent::scan;
use crate::uberagent::tape::{Read, TapeReader};
use serde_json::Value as Json;

type Object = serde_json::Map<String, Json>;

/// What a span must look like, attributes as text in the form of [`text`].
#[derive(Debug, PartialEq)]
struct Expected {
    trace: String,
    id: String,
    parent: String,
    name: String,
    start_ms: u64,
    end_ms: u64,
    service: String,
    host: String,
    attributes: BTreeMap<String, String>,
}

/// Field, key, and kind: `t`ext, `i`nt, `d`ouble; `c`ount and `a`mount, of which 0 is left out.
const KEYS: [(&str, &str, char); 24] = [
    ("ProcID", "process.pid", 'i'),
    ("ProcParentID", "process.parent_pid", 'i'),
    ("ProcName", "process.executable.name", 't'),
    ("ProcPath", "process.executable.path", 't'),
    ("ProcCmdline", "process.command_line", 't'),
    ("ProcParentName", "uberagent.parent.name", 't'),
    ("ProcUser", "user.name", 't'),
    ("LogonProcType", "uberagent.phase", 't'),
    ("LogoffProcType", "uberagent.phase", 't'),
    ("AppId", "uberagent.app.id", 't'),
    ("AppVersion", "uberagent.app.version", 't'),
    ("ProcCPUTimeMs", "uberagent.cpu_ms", 'i'),
    ("ProcIOReadCount", "uberagent.io.reads", 'c'),
    ("ProcIOWriteCount", "uberagent.io.writes", 'c'),
    ("ProcIOReadMB", "uberagent.io.read_mb", 'a'),
    ("ProcIOWriteMB", "uberagent.io.write_mb", 'a'),
    ("ProcIOLatencyReadMs2", "uberagent.io.read_latency_ms", 'd'),
    ("ProcIOLatencyWriteMs2", "uberagent.io.write_latency_ms", 'd'),
    ("ProcWorkingSetMB", "uberagent.memory_mb", 'd'),
    ("ProcNetKBPS", "uberagent.network_kb_s", 'a'),
    ("SessionID", "uberagent.session.number", 'i'),
    ("SessionGUID", "session.id", 't'),
    ("SortOrder2", "uberagent.order2", 'i'),
    ("SortOrder", "uberagent.order", 'i'),
];

fn number(row: &Object, field: &str) -> Option<f64> {
    row.get(field).and_then(Json::as_f64)
}

fn whole(row: &Object, field: &str) -> u64 {
    row.get(field).and_then(Json::as_u64).unwrap_or(0)
}

fn is_logoff(row: &Object) -> bool {
    row.contains_key("LogoffProcType")
}

fn event_ms(row: &Object) -> u64 {
    match number(row, "date") {
        Some(seconds) => format!("{:.0}", seconds * 1000.0).parse().unwrap(),
        None => whole(row, "@timestamp"),
    }
}

/// The base by the rule in words: FILETIME of the GUID for a logon when it is at most a day before the event.
fn base_ns(row: &Object) -> u64 {
    let event_ns = event_ms(row) * 1_000_000;
    let digits = row["SessionGUID"].as_str().unwrap().replace('-', "");
    let filetime = u64::from_str_radix(&digits[16..], 16).unwrap().swap_bytes();
    let created_ns = filetime.saturating_sub(116_444_736_000_000_000) * 100;
    let session = u32::from_str_radix(&digits[..8], 16).unwrap();
    let agrees = number(row, "SessionID").is_none_or(|number| number == f64::from(session));
    if !is_logoff(row) && agrees && created_ns <= event_ns && event_ns - created_ns <= 86_400_000_000_000 {
        return created_ns;
    }
    event_base_ns(row)
}

/// The base where nothing better is known.
fn event_base_ns(row: &Object) -> u64 {
    let total = if is_logoff(row) { "TotalLogoffDurationMs" } else { "TotalLogonDurationMs" };
    (event_ms(row) - whole(row, total)) * 1_000_000
}

fn trace_of(row: &Object) -> String {
    let digits = row["SessionGUID"].as_str().unwrap().replace('-', "");
    format!("{}{}", if is_logoff(row) { 2 } else { 1 }, &digits[..31])
}

fn pid(row: &Object, field: &str) -> u64 {
    whole(row, field)
}

fn start_ms(row: &Object) -> u64 {
    whole(row, "ProcStartTimeRelativeMs")
}

fn sort_order(row: &Object) -> u64 {
    whole(row, "SortOrder2")
}

/// The parent's id by the rule in words, over all rows that came together.
fn parent_of(row: &Object, rows: &[Object]) -> Option<String> {
    let order = |row: &Object| (start_ms(row), sort_order(row), pid(row, "ProcID"));
    let same_session = |other: &&Object| trace_of(other) == trace_of(row) && other["host"] == row["host"];
    let parents = rows.iter().filter(same_session).filter(|other| {
        let precedes = sort_order(other) == 0 || sort_order(row) == 0 || sort_order(other) < sort_order(row);
        pid(other, "ProcID") != 0
            && pid(other, "ProcID") == pid(row, "ProcParentID")
            && order(other) < order(row)
            && precedes
    });
    let parent = parents.max_by_key(|other| order(other))?;
    Some(format!("{:016x}", (start_ms(parent) + 1) << 32 | pid(parent, "ProcID")))
}

fn attributes_of(row: &Object) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for (field, key, kind) in KEYS {
        let value = match (row.get(field), kind) {
            (None, _) => continue,
            (Some(value), 't') => match value.as_str().unwrap() {
                "" => continue,
                "sys" => "NT AUTHORITY\\SYSTEM".to_owned(),
                text => text.to_owned(),
            },
            (Some(value), 'c' | 'a') if value.as_f64() == Some(0.0) => continue,
            (Some(value), 'i' | 'c') => format!("Some(IntValue({}))", value.as_i64().unwrap()),
            (Some(value), _) => format!("Some(DoubleValue({:?}))", value.as_f64().unwrap()),
        };
        attributes.insert(key.to_owned(), value);
    }
    attributes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seen(decoded: &Decoded) -> Expected {
    let span = &decoded.span;
    let unique: BTreeMap<String, String> =
        span.attributes.iter().chain(&decoded.session).map(|pair| (pair.key.clone(), text(&pair.value))).collect();
    assert_eq!(unique.len(), span.attributes.len() + decoded.session.len(), "a key twice");
    Expected {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        start_ms: span.start_time_unix_nano / 1_000_000,
        end_ms: span.end_time_unix_nano / 1_000_000,
        service: decoded.service.clone(),
        host: decoded.host.clone(),
        attributes: unique,
    }
}

fn is_root(decoded: &Decoded) -> bool {
    attribute(&decoded.span, "uberagent.synthesised").is_some()
}

/// The process rows of a file, as lines and as objects.
fn process_rows(name: &str) -> (Vec<Vec<u8>>, Vec<Object>) {
    let all = lines(&data(name));
    let parsed = all.into_iter().filter_map(|line| Some((serde_json::from_slice::<Object>(&line).ok()?, line)));
    let processes = parsed.filter(|(row, _)| row.contains_key("LogonProcType") || row.contains_key("LogoffProcType"));
    processes.map(|(row, line)| (line, row)).unzip()
}

#[test]
fn process_rows_are_mapped_as_the_rules_say_in_words() {
    for file in ["proxytrace_wire.ndjson", "samples.ndjson"] {
        let (lines, rows) = process_rows(file);
        let (_, decoded) = encode(SESSION, &lines);
        let roots: BTreeMap<(String, String), String> = decoded
            .iter()
            .filter(|decoded| is_root(decoded))
            .map(|root| ((hex(&root.span.trace_id), root.host.clone()), hex(&root.span.span_id)))
            .collect();
        let spans: Vec<&Decoded> = decoded.iter().filter(|decoded| !is_root(decoded)).collect();
        assert_eq!(spans.len(), rows.len());
        for (row, span) in rows.iter().zip(spans) {
            let mut seen = seen(span);
            let trace = trace_of(row);
            let host = row["host"].as_str().unwrap().to_owned();
            let parent = parent_of(row, &rows);
            let resolution = if parent.is_some() { "together" } else { "root" };
            let phase = row.get("LogonProcType").or(row.get("LogoffProcType")).unwrap().as_str().unwrap();
            let id = (start_ms(row) + 1) << 32 | pid(row, "ProcID");
            let start_ns = base_ns(row) + start_ms(row) * 1_000_000;
            let lifetime_ns = whole(row, "ProcLifetimeMs") * 1_000_000;
            let taken = |seen: &mut Expected, key: &str| seen.attributes.remove(key);
            assert_eq!(taken(&mut seen, "uberagent.parent.resolution").as_deref(), Some(resolution));
            let unusual = !is_logoff(row) && base_ns(row) == event_base_ns(row);
            assert_eq!(taken(&mut seen, "uberagent.time.base").as_deref(), unusual.then_some("event"));
            let skewed = event_ms(row).abs_diff(RECEIVED_NS / 1_000_000) > 86_400_000;
            assert_eq!(taken(&mut seen, "uberagent.clock.skewed").is_some(), skewed);
            let received = skewed.then(|| "Some(IntValue(1747033200000))".to_owned());
            assert_eq!(taken(&mut seen, "uberagent.received_ms"), received);
            let made_up = pid(row, "ProcID") == 0;
            assert!(!made_up || seen.id.starts_with("00000000") && seen.id != "0000000000000000");
            let expected = Expected {
                id: if made_up { seen.id.clone() } else { format!("{id:016x}") },
                parent: parent.unwrap_or_else(|| roots[&(trace.clone(), host.clone())].clone()),
                trace,
                name: row.get("ProcName").and_then(Json::as_str).unwrap_or(phase).to_owned(),
                start_ms: start_ns / 1_000_000,
                end_ms: (start_ns + lifetime_ns) / 1_000_000,
                service: if is_logoff(row) { "uberagent.logoff" } else { "uberagent.logon" }.to_owned(),
                host,
                attributes: attributes_of(row),
            };
            assert_eq!(seen, expected);
        }
    }
}

#[test]
fn the_original_mapping_is_proxytraces() {
    let original = Uberagent { mapping: Mapping::Original, other_sourcetypes: OtherSourcetypes::Filter };
    let (lines, rows) = process_rows("proxytrace_wire.ndjson");
    let (_, decoded) = encode(original, &lines);
    assert_eq!(decoded.len(), rows.len());
    for (row, span) in rows.iter().zip(&decoded) {
        let seen = seen(span);
        assert_eq!(seen.trace, trace_of(row));
        if pid(row, "ProcID") != 0 {
            assert_eq!(seen.id, format!("{:016x}", pid(row, "ProcID")));
        }
        assert_ne!(seen.id, "0000000000000000");
        let parent = pid(row, "ProcParentID");
        assert_eq!(seen.parent, if parent == 0 { String::new() } else { format!("{parent:016x}") });
        assert_eq!(seen.name, row.get("ProcName").and_then(Json::as_str).unwrap_or("unknown-span"));
        let phase = row.get("LogoffProcType").or(row.get("LogonProcType")).unwrap().as_str().unwrap();
        assert_eq!((seen.service.as_str(), seen.host.as_str()), (phase, ""));
        assert_eq!(seen.start_ms, base_ns(row) / 1_000_000 + start_ms(row));
        let mut expected: BTreeMap<String, String> = BTreeMap::new();
        for (field, _, kind) in KEYS {
            let kept =
                field.starts_with("ProcIO") || matches!(field, "ProcCPUTimeMs" | "ProcWorkingSetMB" | "ProcNetKBPS");
            if let Some(number) = row.get(field).filter(|_| kept) {
                let text = match kind {
                    'i' | 'c' => format!("Some(IntValue({number}))"),
                    _ => format!("Some(DoubleValue({:?}))", number.as_f64().unwrap()),
                };
                expected.insert(field.to_owned(), text);
            }
        }
        expected.insert("ProcLifetimeMs".to_owned(), format!("Some(IntValue({}))", row["ProcLifetimeMs"]));
        let user = row.get("ProcUser").and_then(Json::as_str).unwrap_or("unknown-user");
        expected.insert("ProcUser".to_owned(), user.to_owned());
        expected.insert("event_type".to_owned(), if is_logoff(row) { "logoff" } else { "logon" }.to_owned());
        assert_eq!(seen.attributes, expected);
    }
}

#[test]
fn every_span_is_unique_and_every_tree_has_one_root() {
    let (outcomes, decoded) = encode(SESSION, &lines(&data("samples.ndjson")));
    let records = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Encoded { .. })).count();
    let mut ids = BTreeMap::new();
    for span in &decoded {
        *ids.entry((hex(&span.span.trace_id), hex(&span.span.span_id))).or_insert(0) += 1;
    }
    // The samples hold one exact duplicate of a LogonDetail.
    assert_eq!(ids.len(), decoded.len() - 1);
    assert_eq!(records, decoded.iter().filter(|decoded| !is_root(decoded)).count());
    for child in decoded.iter().filter(|decoded| !decoded.span.parent_span_id.is_empty()) {
        let parent = (hex(&child.span.trace_id), hex(&child.span.parent_span_id));
        assert!(ids.contains_key(&parent), "{} has no parent {parent:?}", child.span.name);
    }
}

/// Lines made by damaging real ones: bytes flipped, cut, doubled, and tokens put where they do not belong.
fn mutants() -> Vec<Vec<u8>> {
    let seeds: Vec<Vec<u8>> =
        ["proxytrace_wire.ndjson", "samples.ndjson"].iter().flat_map(|file| lines(&data(file))).step_by(7).collect();
    let tokens: [&[u8]; 22] = [
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[]",
        b",",
        b":",
        b" ",
        b"null",
        b"true",
        b"-0",
        b"0.0",
        b"1e5",
        b"01",
        b"1.",
        b"-",
        b"12345678901234567890",
        b"0.1234567890123456789",
        b"\\u0000",
        b"\\ud83d\\ude00",
        b"\\ud83d",
        b"\xff",
    ];
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let mut mutants = Vec::new();
    for seed in seeds.iter().cycle().take(20_000) {
        let mut line = seed.clone();
        for _ in 0..random.usize(1..3) {
            let at = random.usize(..line.len());
            match random.u8(..5) {
                0 => line[at] = random.u8(..),
                1 => drop(line.drain(at..(at + random.usize(1..5)).min(line.len()))),
                2 => line.truncate(at.max(1)),
                _ => drop(line.splice(at..at, random.choice(tokens).unwrap().iter().copied())),
            }
            if line.is_empty() {
                line.push(b'{');
            }
        }
        mutants.push(line);
    }
    mutants
}

fn scan(line: &[u8], marks: &mut Marks, names: &Names, row: &mut Row) -> Option<()> {
    row.clear();
    if marks.look(line) { scan::scan(line, marks, names, row) } else { None }
}

/// Rows that the scanner takes must mean to simd-json what they mean to it.
#[test]
fn the_scanner_agrees_with_simd_json() {
    let files = ["proxytrace_wire.ndjson", "samples.ndjson", "wire_es_bulk.ndjson", "hostile.ndjson"];
    let real: Vec<Vec<u8>> = files.iter().flat_map(|file| lines(&data(file))).collect();
    let (names, mut marks, mut tape) = (Names::new(), Marks::default(), TapeReader::new());
    let (mut fast, mut slow) = (Row::new(), Row::new());
    let mut scanned = 0;
    for line in real.iter().chain(&mutants()).filter(|line| std::str::from_utf8(line).is_ok()) {
        if scan(line, &mut marks, &names, &mut fast).is_none() {
            continue;
        }
        scanned += 1;
        slow.clear();
        let shown = String::from_utf8_lossy(line);
        assert_eq!(tape.read(&mut line.clone(), &names, &mut slow), Read::Row, "{shown}");
        let (fast, slow) = (View { row: &fast, line }, View { row: &slow, line: b"" });
        assert_eq!((fast.present(), fast.row.unknown), (slow.present(), slow.row.unknown), "{shown}");
        for field in &FIELDS {
            let (one, other) = (fast.value(id(field.name)), slow.value(id(field.name)));
            let texts = (one.and_then(|value| fast.text_of(value)), other.and_then(|value| slow.text_of(value)));
            assert_eq!(texts.0, texts.1, "{} in {shown}", field.name);
            assert!(texts.0.is_some() || one == other, "{}: {one:?}, {other:?} in {shown}", field.name);
        }
    }
    assert!(scanned > 5000, "only {scanned} lines were taken by the scanner");
    let usual = lines(&data("proxytrace_wire.ndjson"));
    let taken = usual.iter().filter(|line| scan(line, &mut marks, &names, &mut fast).is_some());
    assert_eq!(taken.count(), usual.len(), "the usual rows are the scanner's");
}

/// The value that is overwritten has to be JSON all the same.
#[test]
fn a_field_given_twice_is_left_to_simd_json() {
    let (names, mut marks, mut row) = (Names::new(), Marks::default(), Row::new());
    let guid = r#""SessionGUID":"00000011-4b1e-93a7-f077-5d390bc3db01""#;
    let cases = [("1", "4", true), ("x1", "4", false), ("1", "\"a\"", true), (r#""\q""#, "4", false)];
    for (first, second, is_json) in cases {
        let line = format!(r#"{{"LogonProcType":"Other",{guid},"ProcID":{first},"ProcID":{second}}}"#).into_bytes();
        assert!(scan(&line, &mut marks, &names, &mut row).is_none());
        let (outcomes, _) = encode(SESSION, std::slice::from_ref(&line));
        let encoded = matches!(outcomes[0], Outcome::Encoded { .. });
        assert_eq!((encoded, outcomes[0] == Outcome::DeadLetter(reason::INVALID_JSON)), (is_json, !is_json));
    }
}

/// Every shape of a short number, right or wrong, in front of text that might be taken for more of it.
#[test]
fn short_numbers_are_what_simd_json_and_rust_read() {
    let (names, mut marks, mut tape) = (Names::new(), Marks::default(), TapeReader::new());
    let (mut fast, mut slow) = (Row::new(), Row::new());
    let parts = ["", "0", "7", "00", "05", "10", "99", "205", "4096", "99999", "100000", "7654321", "12345678"];
    let tails = &["", ".", "-", "e1", "E", "x", ".5", " "];
    let mut taken = 0;
    for (whole, fraction, tail) in
        parts.iter().flat_map(|a| parts.iter().flat_map(move |b| tails.iter().map(move |c| (a, b, c))))
    {
        for number in
            [format!("{whole}.{fraction}{tail}"), format!("-{whole}.{fraction}{tail}"), format!("{whole}{tail}")]
        {
            for after in ["", r#","ProcID":12345678,"AppId":"123456789""#] {
                let line = format!(r#"{{"ProcIOReadMB":{number}{after}}}"#).into_bytes();
                if scan(&line, &mut marks, &names, &mut fast).is_none() {
                    continue;
                }
                slow.clear();
                assert_eq!(tape.read(&mut line.clone(), &names, &mut slow), Read::Row, "{number}");
                let value = View { row: &fast, line: &line }.value(id("ProcIOReadMB"));
                assert_eq!(value, View { row: &slow, line: b"" }.value(id("ProcIOReadMB")), "{number}");
                let double = View { row: &fast, line: &line }.double(id("ProcIOReadMB"));
                assert_eq!(double, number.trim().parse().ok(), "{number}");
                taken += 1;
            }
        }
    }
    assert!(taken > 400, "only {taken} were taken by the scanner");
}

/// Nothing that comes in may panic or make a block that does not decode.
#[test]
fn damaged_rows_never_damage_a_block() {
    let mut encoder = Encoder::new(SESSION, SourceId(0));
    let mut records = 0;
    let mut decoded = 0;
    for (number, line) in mutants().iter_mut().enumerate() {
        let outcome = encoder.json(line, Origin::default(), RECEIVED_NS);
        records += usize::from(matches!(outcome, Outcome::Encoded { .. }));
        if number % 50 == 0 {
            encoder.end_together();
            while let Some(block) = encoder.pop_closed() {
                decoded += decode(&block).iter().filter(|decoded| !is_root(decoded)).count();
            }
        }
    }
    decoded += drain(&mut encoder).iter().filter(|decoded| !is_root(decoded)).count();
    assert_eq!(decoded, records);
}
