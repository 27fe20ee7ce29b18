//! Attribute keys are unique in every span, whatever fields a row brings together.

use std::collections::BTreeSet;

use super::*;
use crate::uberagent::fields::{FIELDS, Kind, Role};
use crate::uberagent::sourcetypes::{Csv, RULES};
use serde_json::{Map, Value as Json, json};

/// Every two fields that become the same attribute, in the table's order.
fn pairs() -> Vec<(usize, usize)> {
    let share = |a: usize, b: usize| {
        FIELDS[a].key == FIELDS[b].key && [a, b].iter().all(|field| FIELDS[*field].role == Role::Attribute)
    };
    let count = FIELDS.len();
    (0..count).flat_map(|b| (0..b).filter(move |a| share(*a, b)).map(move |a| (a, b))).collect()
}

fn value(field: usize, number: u32) -> Json {
    match FIELDS[field].kind {
        Kind::Int | Kind::Count => json!(number),
        Kind::Double | Kind::Amount => json!(f64::from(number) + 0.5),
        Kind::Bool => json!(number.is_multiple_of(2)),
        _ => json!(format!("text {number}")),
    }
}

/// A row of a sourcetype that becomes a span.
fn base(sourcetype: &str) -> Map<String, Json> {
    let guid = "0000002a-dead-beef-0102-030405c3db01";
    let row =
        json!({ "Sourcetype": sourcetype, "SessionGUID": guid, "host": "h", "@timestamp": 1_747_033_126_563_u64 });
    row.as_object().unwrap().clone()
}

/// The fields dropped and the row's span; all spans that came with it have unique keys.
fn only(settings: Uberagent, row: &Map<String, Json>) -> (Outcome, Option<Span>) {
    let line = serde_json::to_vec(row).unwrap();
    let (outcomes, spans) = encode(settings, std::slice::from_ref(&line));
    for decoded in &spans {
        let keys: BTreeSet<&str> = decoded.span.attributes.iter().map(|pair| pair.key.as_str()).collect();
        let shown = String::from_utf8_lossy(&line);
        assert_eq!(keys.len(), decoded.span.attributes.len(), "a key twice: {:?} of {shown}", decoded.span.attributes);
    }
    (outcomes[0], spans.into_iter().map(|decoded| decoded.span).next_back())
}

#[test]
fn of_two_fields_that_share_a_key_the_sourcetypes_own_is_written() {
    let pairs = pairs();
    let named =
        |first: &str, second: &str| pairs.iter().any(|(a, b)| (FIELDS[*a].name, FIELDS[*b].name) == (first, second));
    assert!(named("LogonProcType", "LogoffProcType") && named("ProcName", "ProcessName") && named("ProcUser", "User"));
    for rule in &RULES {
        let is_column =
            |field: usize| matches!(rule.csv, Csv::Columns(columns) if columns.contains(&FIELDS[field].name));
        for &(first, second) in &pairs {
            assert!(!is_column(first) || !is_column(second), "{} has both of a pair as columns", rule.name);
            let (winner, loser) = if is_column(second) { (second, first) } else { (first, second) };
            let mut row = base(rule.name);
            let (_, alone) = only(SESSION, &{
                let mut row = row.clone();
                row.insert(FIELDS[winner].name.into(), value(winner, 7));
                row
            });
            row.insert(FIELDS[loser].name.into(), value(loser, 9));
            row.insert(FIELDS[winner].name.into(), value(winner, 7));
            let (outcome, both) = only(SESSION, &row);
            assert_eq!(outcome, Outcome::Encoded { fields_dropped: 1 }, "{row:?}");
            let key = FIELDS[winner].key;
            let written = both.and_then(|span| attribute(&span, key));
            assert_eq!(written, alone.and_then(|span| attribute(&span, key)), "{row:?}");
            assert!(written.is_some());
            row.insert(FIELDS[winner].name.into(), json!(""));
            let (outcome, span) = only(SESSION, &row);
            assert_eq!(outcome, Outcome::Encoded { fields_dropped: 0 }, "an empty value hides none: {row:?}");
            assert!(span.and_then(|span| attribute(&span, key)).is_some(), "{row:?}");
        }
    }
}

#[test]
fn no_generated_row_has_a_key_twice() {
    let original = Uberagent { mapping: Mapping::Original, ..SESSION };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..2_600 {
        let mut row = base(RULES[round % RULES.len()].name);
        let share = 1 + next(4);
        for field in (0..FIELDS.len()).filter(|field| FIELDS[*field].role == Role::Attribute) {
            if next(4) < share {
                let odd = [json!(""), json!(null), json!("no number"), json!(true), json!([1])];
                let number = u32::try_from(next(1000)).unwrap();
                let odd = odd.get(usize::try_from(next(40)).unwrap()).cloned();
                row.insert(FIELDS[field].name.into(), odd.unwrap_or_else(|| value(field, number)));
            }
        }
        for settings in [SESSION, original] {
            let (outcome, _) = only(settings, &row);
            assert!(!matches!(outcome, Outcome::DeadLetter(_) | Outcome::Blank), "{outcome:?}");
        }
    }
}

#[test]
fn the_hostile_row_of_both_phases_has_one() {
    let lines = lines(&data("hostile.ndjson"));
    let row: Map<String, Json> = serde_json::from_slice(&lines[20]).unwrap();
    assert!(row.contains_key("LogonProcType") && row.contains_key("LogoffProcType"));
    let (outcome, span) = only(SESSION, &row);
    assert_eq!(outcome, Outcome::Encoded { fields_dropped: 1 });
    assert_eq!(attribute(&span.unwrap(), "uberagent.phase").as_deref(), Some("Other"));
}
