//! Sessions over several turns, links between traces, blocks as they close, rows as log records.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

use super::*;
use crate::block::{Signal, TARGET_BYTES};

const GUID: &str = "00000011-4b1e-93a7-f077-5d390bc3db01";

fn process(pid: u32, parent: u32, start_ms: u32) -> Vec<u8> {
    let times = format!(r#""date":1747033129.443,"ProcStartTimeRelativeMs":{start_ms},"ProcLifetimeMs":5"#);
    let ids = format!(r#""SessionGUID":"{GUID}","ProcID":{pid},"ProcParentID":{parent},"host":"H""#);
    format!(r#"{{"LogonProcType":"Other","ProcName":"p{pid}",{times},{ids},"TotalLogonDurationMs":900}}"#).into_bytes()
}

fn find<'a>(decoded: &'a [Decoded], name: &str) -> &'a Span {
    &decoded.iter().find(|decoded| decoded.span.name == name).unwrap().span
}

#[test]
fn a_parent_is_found_together_then_in_the_table_then_never() {
    let mut encoder = Encoder::new(SESSION, SourceId(0));
    // The child comes first; the parent of 3 came a turn earlier; nobody ever sent 77.
    for turn in [vec![process(2, 1, 20), process(1, 77, 10)], vec![process(3, 1, 30)]] {
        for line in turn {
            encoder.json(&line, Origin::default(), RECEIVED_NS);
        }
        encoder.end_together();
    }
    let decoded = drain(&mut encoder);
    let (root, parent) = (find(&decoded, "Logon"), find(&decoded, "p1"));
    let resolution = |name| attribute(find(&decoded, name), "uberagent.parent.resolution").unwrap();
    assert_eq!([resolution("p2"), resolution("p3"), resolution("p1")], ["together", "table", "root"]);
    assert_eq!(find(&decoded, "p2").parent_span_id, parent.span_id);
    assert_eq!(find(&decoded, "p3").parent_span_id, parent.span_id);
    assert_eq!(parent.parent_span_id, root.span_id);
    assert_eq!(decoded.len(), 4, "the root is written once");
    assert_eq!(root.end_time_unix_nano - root.start_time_unix_nano, 900_000_000);
    assert!(root.parent_span_id.is_empty());
}

#[test]
fn a_root_is_a_function_of_its_row_and_of_the_host() {
    let root = |line: &[u8]| {
        let (_, decoded) = encode(SESSION, &[line.to_vec()]);
        find(&decoded, "Logon").clone()
    };
    let (one, again) = (root(&process(2, 1, 20)), root(&process(7, 3, 500)));
    assert_eq!(one, again);
    let elsewhere = String::from_utf8(process(2, 1, 20)).unwrap().replace(r#""H""#, r#""I""#);
    assert_ne!(root(elsewhere.as_bytes()).span_id, one.span_id);
}

#[test]
fn a_logoff_and_a_process_are_linked_to_the_logon_of_their_session() {
    let logoff = String::from_utf8(process(2, 1, 20)).unwrap().replace("Logon", "Logoff");
    let startup = format!(
        r#"{{"Sourcetype":"uberAgent:Process:ProcessStartup","date":1747033129,"host":"H","ProcName":"x","SessionGUID":"{GUID}"}}"#
    );
    let (_, decoded) = encode(SESSION, &[process(2, 1, 20), logoff.into_bytes(), startup.into_bytes()]);
    let logon = find(&decoded, "Logon");
    for name in ["Logoff", "x"] {
        let link = &find(&decoded, name).links[0];
        assert_eq!((&link.trace_id, &link.span_id), (&logon.trace_id, &logon.span_id), "{name}");
        assert_ne!(find(&decoded, name).trace_id, logon.trace_id);
    }
}

#[test]
fn a_process_is_linked_to_the_start_of_its_parent() {
    let row = |name: &str, guid: &str, parent: &str, second: u32| {
        let ids = format!(r#""ProcName":"{name}","ProcGUID":"{guid}","ProcParentGUID":"{parent}""#);
        let sourcetype = r#""Sourcetype":"uberAgent:Process:ProcessStartup""#;
        format!(r#"{{{sourcetype},"date":174703312{second},"host":"H",{ids}}}"#).into_bytes()
    };
    let nobody = "00000000-0000-0000-0000-000000000000";
    let rows = [row("parent", "aa", nobody, 1), row("child", "bb", "aa", 5), row("stray", "cc", "", 6)];
    let (_, decoded) = encode(SESSION, &rows);
    let (parent, child) = (find(&decoded, "parent"), find(&decoded, "child"));
    assert_eq!(child.links.len(), 1);
    assert_eq!((&child.links[0].trace_id, &child.links[0].span_id), (&parent.trace_id, &parent.span_id));
    assert_ne!(child.trace_id, parent.trace_id);
    assert!(parent.links.is_empty() && find(&decoded, "stray").links.is_empty());
    // Sent again with another event time it is still the same span.
    let (_, again) = encode(SESSION, &[row("parent", "aa", nobody, 9)]);
    assert_eq!(find(&again, "parent").span_id, parent.span_id);
}

#[test]
fn blocks_leave_when_they_are_final_and_none_is_lost() {
    let mut encoder = Encoder::new(SESSION, SourceId(3));
    assert_eq!(encoder.open_since_ns(), None);
    for pid in 1..=800 {
        encoder.json(&process(pid, pid / 2, pid), Origin::default(), RECEIVED_NS + u64::from(pid));
        assert!(encoder.pop_closed().is_none(), "a block left before its rows were final");
    }
    assert_eq!(encoder.open_since_ns(), Some(RECEIVED_NS + 1));
    encoder.end_together();
    let mut blocks: Vec<Block> = std::iter::from_fn(|| encoder.pop_closed()).collect();
    assert!(blocks.len() > 1 && blocks.iter().all(|block| block.payload.len() > TARGET_BYTES / 2));
    assert!(encoder.open_since_ns().is_some_and(|since| since > RECEIVED_NS + 100));
    blocks.extend(std::iter::from_fn(|| encoder.close()));
    assert_eq!(encoder.open_since_ns(), None);
    let count = |of: fn(&Block) -> u32| blocks.iter().map(of).sum::<u32>();
    assert_eq!((count(|block| block.meta.records), count(|block| block.meta.spans)), (800, 801));
    assert_eq!(count(|block| block.meta.synthesised()), 1);
    for block in &blocks {
        assert_eq!((block.meta.source, block.meta.signal), (SourceId(3), Signal::Traces));
        let spans = decode(block);
        let first = spans.iter().map(|decoded| decoded.span.start_time_unix_nano).min();
        let last = spans.iter().map(|decoded| decoded.span.end_time_unix_nano).max();
        assert_eq!((first, last), (Some(block.meta.first_span_ns), Some(block.meta.last_span_ns)));
    }
}

#[test]
fn other_rows_become_log_records_when_asked_for() {
    let settings = Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Logs };
    let mut encoder = Encoder::new(settings, SourceId(0));
    let line = r#"{"@timestamp":1747037700120,"Sourcetype":"uberAgent:Application:UIDelay","host":"H","User":"a\\b"}"#;
    for sent in [line.to_owned(), format!("{line} \r")] {
        let outcome = encoder.json(sent.as_bytes(), Origin::default(), RECEIVED_NS);
        assert_eq!(outcome, Outcome::Encoded { fields_dropped: 0 });
    }
    let block = encoder.close().unwrap();
    assert_eq!((block.meta.signal, block.meta.records, block.meta.spans), (Signal::Logs, 2, 2));
    let request = ExportLogsServiceRequest::decode(&block.payload[..]).unwrap();
    let logs = &request.resource_logs[0].scope_logs[0].log_records;
    for log in logs {
        assert_eq!(text(&log.body), line);
        assert_eq!((log.time_unix_nano, log.observed_time_unix_nano), (1_747_037_700_120_000_000, RECEIVED_NS));
        assert_eq!(text(&log.attributes[0].value), "uberAgent:Application:UIDelay");
    }
    assert!(encoder.close().is_none());
}

#[test]
fn rows_that_are_no_processes_get_their_own_times_and_traces() {
    let (_, decoded) = encode(SESSION, &lines(&data("samples.ndjson")));
    let boot = find(&decoded, "Boot");
    let tree: Vec<&Decoded> = decoded.iter().filter(|one| one.span.trace_id == boot.trace_id).collect();
    assert_eq!(tree.len(), 28, "a root, 25 processes, a summary and a detail");
    assert_eq!(boot.end_time_unix_nano, 1_747_028_524_204_000_000);
    assert_eq!(boot.end_time_unix_nano - boot.start_time_unix_nano, 61_204_000_000);
    let standby = find(&decoded, "Standby");
    assert_eq!(attribute(standby, "uberagent.time.base"), None, "what is usual is not said");
    assert_eq!(standby.end_time_unix_nano - standby.start_time_unix_nano, 1_760_852_000_000);
    let shutdown = find(&decoded, "Shutdown");
    assert_eq!(shutdown.end_time_unix_nano - shutdown.start_time_unix_nano, 14_210_000_000);
    // The start and the end of one process share a trace, under different ids.
    let outlook: Vec<&Decoded> =
        decoded.iter().filter(|one| one.service == "uberagent.process" && one.span.name == "OUTLOOK.EXE").collect();
    assert!(outlook.iter().any(|one| {
        outlook.iter().any(|other| one.span.trace_id == other.span.trace_id && one.span.span_id != other.span.span_id)
    }));
}

#[test]
fn no_text_is_long_enough_to_break_a_block() {
    let long = "x".repeat(3 << 20);
    let texts = ["LogonProcType", "ProcName", "ProcUser", "ProcCmdline", "ProcPath", "host", "AppId", "Sourcetype"];
    for text in texts {
        let row = format!(r#"{{"LogonProcType":"Other","SessionGUID":"{GUID}","ProcID":4,"{text}":"{long}"}}"#);
        for mapping in [Mapping::Session, Mapping::Original] {
            let settings = Uberagent { mapping, other_sourcetypes: OtherSourcetypes::Logs };
            let mut encoder = Encoder::new(settings, SourceId(0));
            let outcome = encoder.json(row.as_bytes(), Origin::default(), RECEIVED_NS);
            assert!(matches!(outcome, Outcome::Encoded { .. }), "{text}: {outcome:?}");
            let block = encoder.close().unwrap();
            assert!(block.payload.len() < MAX_BYTES / 2, "{text}: {} bytes", block.payload.len());
        }
    }
}

#[test]
fn an_encoder_moves_to_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<Encoder>();
}

/// Every byte of a span is checked, written, synced, read and sent, so what says nothing new is left out.
#[test]
fn a_span_is_smaller_than_its_row() {
    let rows = lines(&data("proxytrace_wire.ndjson"));
    let mut encoder = Encoder::new(SESSION, SourceId(0));
    for row in &rows {
        encoder.json(row, Origin::default(), RECEIVED_NS);
    }
    let span_bytes: usize = std::iter::from_fn(|| encoder.close()).map(|block| block.payload.len()).sum();
    let row_bytes: usize = rows.iter().map(Vec::len).sum();
    let (span, row) = (span_bytes / rows.len(), row_bytes / rows.len());
    assert!(span <= 680, "a row of {row} bytes becomes {span} bytes");
}
