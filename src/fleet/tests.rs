//! The fleet has the shapes of real data: every number here was measured on real logons or follows from a sizing guide.

use std::collections::{HashMap, HashSet};

use super::*;

const NINE_O_CLOCK_NS: u64 = 1_747_033_200_000_000_000;

fn storm(logons: usize) -> FleetOptions {
    FleetOptions::storm(logons, Duration::from_secs(3600), NINE_O_CLOCK_NS)
}

fn logons(count: usize) -> Vec<Burst> {
    let options = FleetOptions { duplicate_permille: 0, stale_host_permille: 0, ..storm(count) };
    Fleet::new(1, options).filter(|burst| burst.kind == BurstKind::Logon).collect()
}

fn processes(burst: &Burst) -> Vec<&Row> {
    burst.rows.iter().filter(|row| row.sourcetype.is_process()).collect()
}

fn percent(part: usize, whole: usize) -> usize {
    part * 100 / whole
}

#[test]
fn one_seed_gives_one_fleet() {
    let render = |seed| {
        let mut out = Vec::new();
        for row in Fleet::new(seed, storm(20)).flat_map(|burst| burst.rows) {
            Wire::FluentBit.render(&row, &mut out);
        }
        out
    };
    assert_eq!(render(7), render(7));
    assert_ne!(render(7), render(8));
}

#[test]
fn a_logon_has_about_72_process_rows_one_detail_and_6_to_10_extensions() {
    let bursts = logons(400);
    let counts: Vec<usize> = bursts.iter().map(|burst| processes(burst).len()).collect();
    let mean = counts.iter().sum::<usize>() / counts.len();
    assert!((71..=73).contains(&mean), "mean {mean}");
    assert!(*counts.iter().min().unwrap() >= 44);
    let variance = counts.iter().map(|count| count.abs_diff(mean).pow(2)).sum::<usize>() / counts.len();
    assert!((50..=80).contains(&variance), "variance {variance}");
    for burst in &bursts {
        let of = |sourcetype| burst.rows.iter().filter(|row| row.sourcetype == sourcetype).count();
        assert_eq!(of(Sourcetype::LogonDetail), 1);
        assert!((6..=10).contains(&of(Sourcetype::GroupPolicyCse)));
    }
}

#[test]
fn process_trees_are_as_incomplete_and_ambiguous_as_real_ones() {
    let bursts = logons(400);
    let (mut rows, mut unresolved, mut empty_users, mut clashes) = (0, 0, 0, 0);
    for burst in &bursts {
        let processes = processes(burst);
        let pids: Vec<u64> = processes.iter().filter_map(|row| row.integer("ProcID")).collect();
        let unique: HashSet<u64> = pids.iter().copied().collect();
        assert_eq!(processes.len() - pids.len(), 2, "two phase rows have no PID");
        assert!(pids.iter().all(|pid| pid % 4 == 0 && *pid > 0));
        clashes += usize::from(unique.len() < pids.len());
        rows += processes.len();
        unresolved +=
            processes.iter().filter(|row| row.integer("ProcParentID").is_none_or(|pid| !unique.contains(&pid))).count();
        empty_users += processes.iter().filter(|row| row.text("ProcUser").is_none_or(str::is_empty)).count();
    }
    assert!((43..=47).contains(&percent(unresolved, rows)), "{} % unresolved", percent(unresolved, rows));
    assert!((17..=23).contains(&percent(empty_users, rows)), "{} % without user", percent(empty_users, rows));
    assert!((10..=36).contains(&clashes), "{clashes} of 400 logons reuse a PID, expected 22");
}

#[test]
fn a_parent_lives_when_its_child_starts_and_sort_order_is_a_pre_order() {
    for burst in logons(100) {
        let mut by_order: Vec<&Row> =
            processes(&burst).into_iter().filter(|row| row.integer("ProcID").is_some()).collect();
        by_order.sort_by_key(|row| row.integer("SortOrder2"));
        let orders: Vec<u64> = by_order.iter().filter_map(|row| row.integer("SortOrder2")).collect();
        assert_eq!(orders, (2..2 + by_order.len() as u64).collect::<Vec<_>>());
        for (at, row) in by_order.iter().enumerate() {
            let start = row.integer("ProcStartTimeRelativeMs").unwrap();
            // The nearest row before it with the parent's PID is the parent: what SortOrder2 is good for.
            let parent =
                by_order[..at].iter().rev().find(|other| other.integer("ProcID") == row.integer("ProcParentID"));
            if let Some(parent) = parent {
                let began = parent.integer("ProcStartTimeRelativeMs").unwrap();
                let ended = began + parent.integer("ProcLifetimeMs").unwrap();
                assert!(
                    began <= start && start <= ended,
                    "a child starts at {start}, its parent lives {began}..{ended}"
                );
                assert_eq!(parent.text("ProcName"), row.text("ProcParentName"));
            }
        }
    }
}

#[test]
fn the_guid_holds_session_and_creation_and_logoff_repeats_it_hours_later() {
    let options = FleetOptions { duplicate_permille: 0, stale_host_permille: 0, ..storm(200) };
    let (mut opened, mut closed_again, mut late) = (HashMap::new(), 0, 0);
    for burst in Fleet::new(3, options) {
        let digits: String = burst.guid.chars().filter(|character| *character != '-').collect();
        let row = &burst.rows[0];
        assert_eq!(u64::from_str_radix(&digits[0..8], 16).ok(), row.integer("SessionID"));
        let filetime = u64::from_str_radix(&digits[16..32], 16).unwrap().swap_bytes();
        let created_ms = (filetime - 116_444_736_000_000_000) / 10_000;
        match burst.kind {
            BurstKind::Logon => {
                let lateness = row.event_ms - created_ms - row.integer("TotalLogonDurationMs").unwrap();
                late += usize::from(lateness > 0);
                assert_eq!(opened.insert(burst.guid, burst.at), None, "a GUID is opened once");
            }
            BurstKind::Logoff => {
                assert!(row.event_ms - created_ms >= 4 * 3_600_000);
                if let Some(opened_at) = opened.get(&burst.guid) {
                    assert!(burst.at - *opened_at >= Duration::from_secs(4 * 3600));
                    closed_again += 1;
                }
                assert!((10..=30).contains(&processes(&burst).len()));
            }
        }
    }
    assert_eq!(closed_again, 200);
    assert!((10..=32).contains(&late), "{late} of 200 logons are late, expected 20");
}

#[test]
fn arrivals_form_a_bell_and_come_in_order() {
    let bursts = logons(3000);
    assert!(bursts.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let middle = Duration::from_secs(1500)..Duration::from_secs(2100);
    let in_middle = bursts.iter().filter(|burst| middle.contains(&burst.at)).count();
    assert!((36..=44).contains(&percent(in_middle, bursts.len())), "{in_middle} of 3000 in the middle sixth");
}

#[test]
fn rows_are_sent_twice_and_old_data_is_flushed_at_once() {
    let mut rows = 0;
    let mut duplicates = 0;
    let mut stale: HashMap<std::sync::Arc<str>, HashSet<Duration>> = HashMap::new();
    for burst in Fleet::new(5, storm(1000)).filter(|burst| burst.at < Duration::from_secs(3600)) {
        rows += burst.rows.len();
        duplicates += burst.duplicates;
        let arrived_ms = NINE_O_CLOCK_NS / 1_000_000 + u64::try_from(burst.at.as_millis()).unwrap();
        if arrived_ms - burst.rows[0].event_ms > 3_600_000 {
            stale.entry(burst.rows[0].host.clone()).or_default().insert(burst.at);
        }
    }
    assert!((10..=30).contains(&(duplicates * 1000 / rows)), "{duplicates} of {rows} rows are copies");
    assert!(!stale.is_empty());
    assert!(stale.values().all(|moments| moments.len() == 1), "a cut-off host flushes at one moment");
}

#[test]
fn every_form_is_what_its_reader_expects_and_as_long_as_real_rows() {
    let bursts = logons(200);
    let rows: Vec<&Row> = bursts.iter().flat_map(processes).collect();
    let mean = |wire: Wire| {
        let mut out = Vec::new();
        rows.iter().for_each(|row| wire.render(row, &mut out));
        out.len() / rows.len()
    };
    let (json, bulk, csv) = (mean(Wire::FluentBit), mean(Wire::Bulk), mean(Wire::SplunkTcp));
    assert!((690..=730).contains(&json), "a Fluent Bit line has {json} bytes, real ones 711");
    assert!((730..=790).contains(&bulk), "a _bulk document has {bulk} bytes, real ones 756");
    assert!((350..=430).contains(&csv), "header and CSV have {csv} bytes, real ones 297 and a header of about 105");
}

#[test]
fn json_forms_hold_the_same_values_under_shuffled_keys() {
    let mut orders = HashSet::new();
    for row in logons(30).iter().flat_map(|burst| &burst.rows) {
        let (mut line, mut documents) = (Vec::new(), Vec::new());
        Wire::FluentBit.render(row, &mut line);
        Wire::Bulk.render(row, &mut documents);
        let documents = String::from_utf8(documents).unwrap();
        let (action, document) = documents.split_once('\n').unwrap();
        assert_eq!(action, r#"{"create":{}}"#);
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with(r#"{"date":"#) && line.ends_with("}\n") && line.is_ascii());
        let line_values: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
        let document_values: serde_json::Map<String, serde_json::Value> = serde_json::from_str(document).unwrap();
        let keys: Vec<String> = line.split("\",\"").map(|part| part.split('"').next().unwrap().to_owned()).collect();
        orders.insert(keys);
        for (key, value) in document_values {
            match line_values.get(&key) {
                Some(serde_json::Value::String(text)) => {
                    assert_eq!(text.as_str(), value.as_str().unwrap().replace('\\', "/"));
                }
                Some(number) => assert!((number.as_f64().unwrap() - value.as_f64().unwrap()).abs() < 1e-6),
                None => assert!(key == "@timestamp" || (key == "Sourcetype" && row.sourcetype.is_process())),
            }
        }
    }
    assert!(orders.len() > 100, "{} orders of keys", orders.len());
}

#[test]
fn csv_has_a_value_for_every_column() {
    let row = &logons(1)[0].rows[1];
    let mut out = Vec::new();
    Wire::SplunkTcp.render(row, &mut out);
    let text = String::from_utf8(out).unwrap();
    let (header, line) = text.trim_end().split_once('\n').unwrap();
    assert!(
        header.starts_with("***SPLUNK*** host=") && header.ends_with("sourcetype=uberAgent:Process:LogonProcesses")
    );
    let mut columns = 0;
    let mut quoted = false;
    let mut previous = ' ';
    for character in line.chars() {
        quoted ^= character == '"' && previous != '\\';
        columns += usize::from(character == ',' && !quoted);
        previous = character;
    }
    assert_eq!(columns, 26, "the timestamp and 26 columns: {line}");
    assert!(line.starts_with(&row.event_ms.to_string()));
}
