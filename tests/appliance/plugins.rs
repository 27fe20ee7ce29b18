//! Plugins of a running appliance: what they hide is nowhere, what they drop is counted, what they fail on is kept.
//!
//! The redactor and the one that drops are components of `tests/data/plugins`, built from C; the hostile ones are written
//! in WebAssembly's text format. Every test ends with balances of exactly zero.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use millrace::config::{Config, OnError, Plugin, PluginLimits};
use millrace::sys::clock;
use serde_json::json;

use super::feeder::{Feeder, post};
use super::kit::{
    SECRET, component, dead_letters, dropped_and_refused, guest, is_on_disk, plugin, post_spans, spans, with,
};
use super::rig::{Rig, config, until};
use super::sink::Sink;

/// A guest that traps whenever the number of rows is odd.
fn hostile(directory: &Path) -> PathBuf {
    guest(directory, include_str!("../guests/hostile/traps.wat"))
}

#[test]
fn what_is_hidden_is_neither_on_the_disk_nor_at_a_destination() {
    for class in ["light", "heavy"] {
        let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
        let redact = plugin(&component("redact.wasm"), &format!(", class: {class}"));
        let rig = Rig::start(&with(&config(directory.path()), &sink, &[redact]));
        assert_eq!(post_spans(&rig, 40), 200);
        until("delivery", || sink.spans() == 40);
        rig.rest();
        assert!(sink.has(b"http://shop/?REDACTED") && !sink.has(SECRET.as_bytes()));
        assert!(is_on_disk(directory.path(), b"?REDACTED") && !is_on_disk(directory.path(), SECRET.as_bytes()));
        assert_eq!((rig.appended(), dropped_and_refused(&rig)), (40, (0, 0)));
        rig.stop();
        assert!(!is_on_disk(directory.path(), SECRET.as_bytes()), "nor afterwards");
    }
}

/// A request is begun, and its receiver and the plugin go: the rest of it is still accepted, under the old configuration.
#[test]
fn what_a_receiver_that_goes_with_its_redactor_had_begun_to_take_is_redacted() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let redact = plugin(&component("redact.wasm"), ", filter: {sources: [otlp]}");
    let both = with(&config(directory.path()), &sink, &[redact]);
    let mut neither = Config { plugins: Vec::new(), ..both.clone() };
    neither.receivers.retain(|receiver| !receiver.name.starts_with("otlp"));
    let rig = Rig::start(&both);
    let body = spans(40);
    let mut sender = TcpStream::connect(rig.receiver("otlp")).unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\nexpect: 100-continue";
    sender.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
    let mut answer = [0; 1024];
    let read = sender.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 100"), "the request is in flight");
    rig.reload(&neither).unwrap();
    for seconds in 0..3 {
        rig.look(clock::monotonic() + Duration::from_secs(seconds));
    }
    sender.write_all(&body).unwrap();
    let read = sender.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
    until("delivery", || sink.spans() == 40);
    assert!(sink.has(b"http://shop/?REDACTED") && !sink.has(SECRET.as_bytes()));
    assert!(!is_on_disk(directory.path(), SECRET.as_bytes()));
    let runs = || {
        let text = rig.metrics.render();
        text.lines().any(|line| line.starts_with("millrace_plugin_memory_bytes") && !line.ends_with(" 0"))
    };
    assert!(runs());
    drop(sender);
    until("the plugin's leave", || {
        rig.look(clock::monotonic());
        !runs()
    });
    rig.rest();
    rig.stop();
}

#[test]
fn what_a_plugin_edits_says_so_and_what_it_counts_is_shown() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let redact = plugin(&component("redact.wasm"), ", record: true");
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[redact]));
    assert_eq!(post_spans(&rig, 3), 200);
    until("delivery", || sink.spans() == 3);
    assert!(sink.has(b"millrace.plugin.tried") && sink.has(b"1@01d85cb467a2"), "as tests/data/plugins/SOURCES says");
    rig.rest();
    rig.stop();

    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let counts = guest(directory.path(), include_str!("../guests/hostile/counts.wat"));
    let counts = plugin(&counts, ", capabilities: [metrics, state]");
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[counts]));
    for count in 1..=2 {
        assert_eq!(post_spans(&rig, 2), 200);
        let line =
            format!("millrace_plugin_own_total{{plugin=\"plugin/tried\",lane=\"0\",counter=\"guest\"}} {count}\n");
        assert!(rig.metrics.render().contains(&line), "{line}");
    }
    rig.rest();
    rig.stop();
}

#[test]
fn a_heavy_plugin_that_takes_its_time_holds_up_neither_other_senders_nor_a_stop() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let loops = guest(directory.path(), include_str!("../guests/hostile/loops.wat"));
    // It is stopped after two seconds and tried no second time: what it is given stays away that long.
    let slow = plugin(&loops, ", class: heavy, on_error: pass, filter: {sources: [otlp]}");
    let slow = Plugin { limits: PluginLimits { cpu: Duration::from_secs(20), ..slow.limits.clone() }, ..slow };
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[slow]));
    let otlp = rig.receiver("otlp");
    let waits = thread::spawn(move || post(otlp, "/v1/traces", &spans(3)).status);
    let feeder = Feeder::start(rig.receiver("uberagent"), 2000);
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    let took = rig.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_ne!(waits.join().unwrap(), 200, "nobody knows what would have become of it");
}

#[test]
fn without_the_plugin_the_same_is_found() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[]));
    assert_eq!(post_spans(&rig, 40), 200);
    until("delivery", || sink.spans() == 40);
    assert!(sink.has(SECRET.as_bytes()) && is_on_disk(directory.path(), SECRET.as_bytes()));
    rig.stop();
}

#[test]
fn what_a_plugin_drops_is_acknowledged_and_counted() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    // It drops the last row of each batch and writes an attribute of its own.
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[plugin(&component("transform.wasm"), "")]));
    assert_eq!(post_spans(&rig, 1), 200, "all of it is dropped, and that is an answer");
    assert_eq!((rig.appended(), dropped_and_refused(&rig)), (0, (1, 0)));
    assert_eq!(post_spans(&rig, 9), 200);
    until("delivery", || sink.spans() == 8);
    rig.rest();
    assert!(sink.has(b"abi"));
    assert_eq!((rig.appended(), dropped_and_refused(&rig)), (8, (2, 0)));
    rig.stop();
}

#[test]
fn a_batch_that_a_plugin_traps_on_is_a_letter_that_goes_through_another_plugin() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let template = config(directory.path());
    let rig = Rig::start(&with(&template, &sink, &[plugin(&hostile(directory.path()), "")]));
    assert_eq!(post_spans(&rig, 4), 200, "it does even ones");
    assert_eq!(post_spans(&rig, 3), 200, "it is kept durably");
    let letters = dead_letters(&rig, "");
    assert_eq!(
        (&letters["letters"][0]["reason"], letters["letters"].as_array().map(Vec::len)),
        (&json!("trap"), Some(1)),
        "{letters}"
    );
    assert_eq!((rig.appended(), dropped_and_refused(&rig)), (4, (3, 0)));
    rig.reload(&with(&template, &sink, &[plugin(&component("redact.wasm"), "")])).unwrap();
    assert_eq!(dead_letters(&rig, "replay")["replayed"], 1);
    until("delivery", || sink.spans() == 7);
    rig.rest();
    assert!(sink.has(b"?REDACTED"), "it went through the plugin of now");
    rig.stop();
}

#[test]
fn what_must_not_be_kept_is_not_kept_as_a_letter_either() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    // The setup of the guest says that what it fails on may not pass.
    let traps = format!("{}\n(data (i32.const 152) \"\\01\")", include_str!("../guests/hostile/traps.wat"));
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[plugin(&guest(directory.path(), &traps), "")]));
    assert_eq!(post_spans(&rig, 3), 503, "its sender has it and can send it again");
    assert_eq!((dropped_and_refused(&rig), dead_letters(&rig, "")["letters"].clone()), ((0, 3), json!([])));
    let row = format!(
        "{{\"SessionGUID\":\"{SECRET}\",\"SessionID\":1,\"host\":\"h\",\"LogonProcType\":\"Session setup\",\
        \"ProcName\":\"p.exe\",\"ProcID\":8,\"ProcParentID\":4,\"ProcStartTimeRelativeMs\":5,\"ProcLifetimeMs\":9,\
        \"TotalLogonDurationMs\":40000,\"ProcUser\":\"u\",\"SortOrder2\":2}}\n"
    );
    let mut rows = TcpStream::connect(rig.receiver("uberagent")).unwrap();
    rows.write_all(row.as_bytes()).unwrap();
    until("a letter", || dead_letters(&rig, "")["letters"][0]["withheld"] == json!(true));
    assert!(!is_on_disk(directory.path(), SECRET.as_bytes()));
    assert_eq!(dead_letters(&rig, "replay")["failed"][0]["why"], "its bytes may not be kept, and were not");
    rig.stop();
}

#[test]
fn the_policy_decides_what_becomes_of_a_batch_that_fails() {
    for (on_error, appended, dropped) in [(OnError::Pass, 3, 0), (OnError::Drop, 0, 3)] {
        let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
        let plugin = Plugin { on_error, ..plugin(&hostile(directory.path()), "") };
        let rig = Rig::start(&with(&config(directory.path()), &sink, &[plugin]));
        assert_eq!(post_spans(&rig, 3), 200);
        rig.rest();
        assert_eq!((rig.appended(), dropped_and_refused(&rig)), (appended, (dropped, 0)), "{on_error:?}");
        rig.stop();
    }
}

#[test]
fn a_plugin_that_cannot_be_used_keeps_the_appliance_from_starting_and_a_reload_from_happening() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let (template, good) = (config(directory.path()), plugin(&component("redact.wasm"), ""));
    let none = plugin(&directory.path().join("none.wasm"), "");
    let may_not = Plugin { on_error: OnError::Pass, ..good.clone() };
    let decodes = plugin(&component("decode.wasm"), "");
    let rig = Rig::start(&with(&template, &sink, &[good]));
    for (bad, expected) in [(none, "none.wasm"), (may_not, "may not pass"), (decodes, "decode")] {
        let error = rig.reload(&with(&template, &sink, std::slice::from_ref(&bad))).unwrap_err();
        assert!(error.contains("plugin/tried") && error.contains(expected), "{error}");
        let other = tempfile::tempdir().unwrap();
        let bad = Config { state_directory: other.path().to_owned(), ..with(&template, &sink, &[bad]) };
        assert!(millrace::pipeline::appliance::Appliance::start(&bad, Vec::new()).is_err());
    }
    assert_eq!(post_spans(&rig, 2), 200, "the one that was there goes on");
    until("delivery", || sink.spans() == 2);
    assert!(!is_on_disk(directory.path(), SECRET.as_bytes()));
    rig.stop();
}
