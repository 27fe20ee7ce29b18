//! The tap of a running appliance, by the commands that authors use: what it shows, to whom, and that no lane waits for it.
//!
//! Each test ends with balances of exactly zero: whoever looks changes nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use millrace::config::{Config, Tapping};
use millrace::telemetry::metrics::Imbalances;

use super::feeder::Feeder;
use super::kit::{component, plugin, post_spans, with};
use super::rig::{LIMIT, Rig, config, until};
use super::sink::Sink;

/// What the redactor removes.
const SECRET: &str = "card=4711";

/// A command of the binary with the appliance's address.
fn millrace(rig: &Rig, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(arguments).arg("--url").arg(format!("http://{}", rig.management()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().expect("it starts")
}

fn output(child: Child) -> (bool, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    (status.success(), String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"))
}

fn metric(rig: &Rig, name: &str) -> u64 {
    let page = rig.metrics.render();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("there is no {name}"))
}

fn listening(rig: &Rig, listeners: u64) {
    until("a listener", || metric(rig, "millrace_tap_listeners") == listeners);
}

/// An appliance with a redactor that shows so much.
fn redacting(directory: &std::path::Path, sink: &Sink, tapping: Tapping) -> Config {
    let redact = plugin(&component("redact.wasm"), "");
    Config { management_tap: tapping, ..with(&config(directory), sink, &[redact]) }
}

#[test]
fn what_passes_is_shown_after_the_plugins_and_before_them_only_where_the_operator_allows_it() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let mut settings = redacting(directory.path(), &sink, Tapping::Stored);
    let rig = Rig::start(&settings);
    let (good, _, error) = output(millrace(&rig, &["tap", "--received"]));
    assert!(!good && error.contains("403") && error.contains("management.tap is `stored`"), "{error}");

    let stored = millrace(&rig, &["tap", "--rows", "7", "--source", "otlp"]);
    listening(&rig, 1);
    assert_eq!(post_spans(&rig, 5), 200);
    assert_eq!(post_spans(&rig, 5), 200);
    let (good, lines, error) = output(stored);
    assert!(good, "{error}");
    assert_eq!((lines.matches("checkout").count(), lines.matches("REDACTED").count()), (7, 7), "{lines}");
    assert!(!lines.contains(SECRET));
    listening(&rig, 0);

    settings.management_tap = Tapping::Received;
    rig.reload(&settings).unwrap();
    let received = millrace(&rig, &["tap", "--received", "--rows", "5"]);
    // What the filter does not mean is not counted either.
    let others = millrace(&rig, &["tap", "--service", "somebody else", "--rows", "1"]);
    listening(&rig, 2);
    assert_eq!(post_spans(&rig, 5), 200);
    let (good, lines, _) = output(received);
    assert!(good && lines.matches(SECRET).count() == 5, "{lines}");

    settings.management_tap = Tapping::Off;
    rig.reload(&settings).unwrap();
    let (good, lines, error) = output(others);
    assert!(!good && lines.is_empty() && error.contains("management.tap is `off`"), "{error}");
    rig.rest();
    assert_eq!(rig.imbalances(), Imbalances::default());
    rig.stop();
}

#[test]
fn a_plugin_is_tried_on_what_passes() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let settings = Config { management_tap: Tapping::Stored, ..with(&config(directory.path()), &sink, &[]) };
    let rig = Rig::start(&settings);
    let file = component("redact.wasm").display().to_string();
    let tried = millrace(&rig, &["plugin", "run", &file, "--tap", "--rows", "3"]);
    listening(&rig, 1);
    assert_eq!(post_spans(&rig, 9), 200);
    let (good, lines, error) = output(tried);
    assert!(good && error.contains("1 request: 3 rows shown, 3 edited, 0 dropped"), "{error}");
    assert_eq!((lines.matches("REDACTED").count(), lines.contains(SECRET)), (3, false), "{lines}");
    until("delivery", || sink.spans() == 9);
    assert!(!sink.has(b"REDACTED"), "what is tried is not done");
    rig.stop();
}

#[test]
fn one_who_listens_and_never_reads_holds_nobody_up_and_loses_alone() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[]));
    let mut silent = TcpStream::connect(rig.management()).unwrap();
    silent.write_all(b"GET /api/v1/tap?stage=stored HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    listening(&rig, 1);
    let feeder = Feeder::start(rig.receiver("uberagent"), 30_000);
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    rig.rest();
    until("delivery", || sink.spans() == rig.appended());
    assert!(metric(&rig, "millrace_tap_lost_blocks_total") > 0, "{} taken", metric(&rig, "millrace_tap_blocks_total"));
    assert_eq!(rig.imbalances(), Imbalances::default());
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    let mut head = [0; 15];
    silent.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    drop(silent);
    listening(&rig, 0);
    rig.stop();
}
