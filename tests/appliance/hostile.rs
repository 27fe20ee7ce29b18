//! Plugins that misbehave inside of a running appliance: what each of them costs is its own blocks, to the span.
//!
//! The guests misbehave whenever the number of rows is odd. Rows of uberAgent come in beside them where a plugin is given
//! one source only: whatever it does, they arrive. Every test ends with balances of exactly zero.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use millrace::config::{Circuit, OnError, OtherSourcetypes, Plugin, PluginLimits};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use super::feeder::Feeder;
use super::kit::{SECRET, component, dead_letters, dropped_and_refused, guest, is_on_disk, plugin, post_spans, with};
use super::rig::{Rig, config, until};
use super::sink::Sink;

macro_rules! hostile {
    ($name:literal) => {
        include_str!(concat!("../guests/hostile/", $name, ".wat"))
    };
}

/// Rows beside what a plugin is given.
const ROWS: u64 = 500;

/// A guest that is given the spans of OTLP only.
fn of_otlp(directory: &Path, code: &str) -> Plugin {
    plugin(&guest(directory, code), ", filter: {sources: [otlp]}")
}

/// What `/metrics` says, all lanes together.
fn figure(rig: &Rig, name: &str, label: &str) -> u64 {
    let page = rig.metrics.render();
    let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a number")).sum()
}

fn failures(rig: &Rig, word: &str) -> u64 {
    figure(rig, "millrace_plugin_failures_total", &format!("reason=\"{word}\""))
}

/// Spans of rows, whatever became of them.
fn of_rows(rig: &Rig) -> u64 {
    rig.metrics.lanes().iter().map(|lane| lane.encoded.get() + lane.synthesised.get()).sum()
}

/// Reasons of the dead letters.
fn reasons(rig: &Rig) -> Vec<String> {
    let letters = dead_letters(rig, "");
    let letters = letters["letters"].as_array().expect("a list").iter();
    letters.map(|letter| letter["reason"].as_str().expect("a word").to_owned()).collect()
}

/// All rows arrive, so many other spans, and nothing else.
fn arrives(rig: &Rig, sink: &Sink, feeder: &Feeder, others: u64) {
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    rig.rest();
    assert!(of_rows(rig) >= ROWS);
    assert_eq!(rig.appended(), of_rows(rig) + others);
    until("delivery", || sink.spans() == rig.appended());
    rig.rest();
}

#[test]
fn a_loop_costs_the_blocks_that_it_was_given_and_no_other_source_anything() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[of_otlp(directory.path(), hostile!("loops"))]));
    let feeder = Feeder::start(rig.receiver("uberagent"), ROWS);
    for count in [3, 4, 5, 2, 1] {
        assert_eq!(post_spans(&rig, count), 200, "done, or kept durably");
    }
    arrives(&rig, &sink, &feeder, 4 + 2);
    assert_eq!(dropped_and_refused(&rig), (3 + 5 + 1, 0));
    assert_eq!((failures(&rig, "time_out"), figure(&rig, "millrace_plugin_retries_total", "")), (3, 0));
    assert_eq!(reasons(&rig), ["time_out"; 3]);
    rig.stop();
}

#[test]
fn a_plugin_that_takes_too_much_memory_has_little_again_for_the_next_block() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let memory = |rig: &Rig| figure(rig, "millrace_plugin_memory_bytes", "");
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[of_otlp(directory.path(), hostile!("hoards"))]));
    let feeder = Feeder::start(rig.receiver("uberagent"), ROWS);
    for count in [2, 3, 4] {
        assert_eq!(post_spans(&rig, count), 200);
        assert!(memory(&rig) <= 1 << 20, "{}", memory(&rig));
    }
    arrives(&rig, &sink, &feeder, 2 + 4);
    // A fresh instance might have done better: it was asked too.
    assert_eq!((failures(&rig, "out_of_memory"), figure(&rig, "millrace_plugin_retries_total", "")), (1, 1));
    assert_eq!((dropped_and_refused(&rig), reasons(&rig)), ((3, 0), vec!["out_of_memory".to_owned()]));
    rig.stop();

    // One that grows within its limit fails on nothing, and is made anew each time.
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[of_otlp(directory.path(), hostile!("swells"))]));
    let feeder = Feeder::start(rig.receiver("uberagent"), ROWS);
    (0..6).for_each(|_| assert_eq!(post_spans(&rig, 3), 200));
    assert!(memory(&rig) > 33 << 20, "it has just grown");
    assert_eq!((post_spans(&rig, 2), figure(&rig, "millrace_plugin_starts_total", "")), (200, 7));
    assert!(memory(&rig) <= 1 << 20);
    arrives(&rig, &sink, &feeder, 6 * 3 + 2);
    assert_eq!((dropped_and_refused(&rig), reasons(&rig)), ((0, 0), Vec::new()));
    rig.stop();
}

/// A plugin traps until it is given a rest, which meets good and bad blocks alike, and is back after it.
fn rests(on_error: OnError) {
    let (directory, sink) = (tempfile::tempdir().expect("a temporary directory"), Sink::up());
    // A rest is half of the back-off or more: long beside the requests that are to meet it.
    let rest = Duration::from_secs(3);
    let circuit = Circuit { failures: 3, window: 20 * rest, backoff: rest, max_backoff: rest };
    let traps = Plugin { on_error, circuit, ..of_otlp(directory.path(), hostile!("traps")) };
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[traps]));
    let feeder = Feeder::start(rig.receiver("uberagent"), ROWS);
    let circuit = |rig: &Rig| figure(rig, "millrace_plugin_circuit", "");
    assert_eq!((post_spans(&rig, 2), circuit(&rig)), (200, 0));
    (0..3).for_each(|_| assert_eq!(post_spans(&rig, 3), 200));
    assert_eq!((circuit(&rig), failures(&rig, "trap")), (2, 3), "each is tried again once, and is one failure");
    assert_eq!((post_spans(&rig, 3), failures(&rig, "trap")), (200, 3), "no call is made");
    let mut met = 0_u64;
    until("the end of the rest", || {
        assert_eq!(post_spans(&rig, 4), 200);
        met += u64::from(circuit(&rig) == 2);
        circuit(&rig) == 0
    });
    assert!(met > 0, "what it would have done well meets the rest too");
    assert_eq!(post_spans(&rig, 6), 200);
    let (done, not_done) = (2 + 4 + 6, 4 * 3 + 4 * met);
    let word = format!("{on_error:?}").to_lowercase();
    assert_eq!(figure(&rig, "millrace_plugin_blocks_not_done_total", &word), 4 + met);
    let passed = if on_error == OnError::Pass { not_done } else { 0 };
    arrives(&rig, &sink, &feeder, done + passed);
    assert_eq!(dropped_and_refused(&rig), (not_done - passed, 0));
    let letters = reasons(&rig);
    let of = |reason| letters.iter().filter(|letter| *letter == reason).count() as u64;
    let kept = if on_error == OnError::Quarantine { (3, 1 + met) } else { (0, 0) };
    assert_eq!((of("trap"), of("circuit_open")), kept);
    rig.stop();
}

#[test]
fn what_meets_a_rest_is_kept_aside() {
    rests(OnError::Quarantine);
}

#[test]
fn what_meets_a_rest_passes() {
    rests(OnError::Pass);
}

#[test]
fn what_meets_a_rest_is_dropped() {
    rests(OnError::Drop);
}

/// Where the process's log goes while it is listened to.
#[derive(Clone, Copy)]
struct Heard;

fn heard() -> &'static Mutex<Vec<u8>> {
    static HEARD: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    HEARD.get_or_init(Mutex::default)
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        heard().lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Heard {
    type Writer = Heard;

    fn make_writer(&'a self) -> Heard {
        Heard
    }
}

#[test]
fn a_flood_of_log_lines_comes_to_a_few_cut_ones_and_a_count() {
    // Of the whole process: lanes have threads of their own. Lines of other tests name other plugins.
    let log = tracing_subscriber::fmt().with_writer(Heard).with_ansi(false).with_max_level(tracing::Level::INFO);
    log.init();
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let shouts = of_otlp(directory.path(), hostile!("shouts"));
    let patient = PluginLimits { cpu: Duration::from_secs(20), ..shouts.limits.clone() };
    let shouts = Plugin { name: "plugin/shouts".to_owned(), limits: patient, ..shouts };
    let rig = Rig::start(&with(&config(directory.path()), &sink, &[shouts]));
    let feeder = Feeder::start(rig.receiver("uberagent"), ROWS);
    assert_eq!((post_spans(&rig, 3), post_spans(&rig, 5)), (200, 200), "it is no failure");
    arrives(&rig, &sink, &feeder, 3 + 5);
    assert_eq!(dropped_and_refused(&rig), (0, 0));
    rig.stop();
    let heard = String::from_utf8(heard().lock().unwrap().clone()).unwrap();
    let is_its_own = |line: &&str| line.contains("plugin=\"plugin/shouts\"") && !line.contains("a plugin is live");
    let lines: Vec<&str> = heard.lines().filter(is_its_own).collect();
    let (told, shouted): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.contains("over its rate"));
    let suppressed = told.iter().map(|line| line.rsplit_once("suppressed=").unwrap().1.parse::<usize>().unwrap());
    let suppressed: usize = suppressed.sum();
    // The burst of ten seconds, and ten for each second until the second request, which a busy machine makes some.
    assert!((100..600).contains(&shouted.len()), "{} lines of 2000", shouted.len());
    assert!(shouted.len() + suppressed <= 2000 && shouted.iter().all(|line| line.len() < 4500 && line.contains('…')));
}

#[test]
fn log_records_go_through_plugins_as_spans_do() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let mut template = config(directory.path());
    template.uberagent.other_sourcetypes = OtherSourcetypes::Logs;
    let plugins = [plugin(&guest(directory.path(), hostile!("traps_on_logs")), "")];
    let rig = Rig::start(&with(&template, &sink, &plugins));
    let mut rows = TcpStream::connect(rig.receiver("uberagent")).unwrap();
    let mut send = |names: &[&str]| {
        let row = |name: &&str| {
            format!("{{\"Sourcetype\":\"uberAgent:Application:UIDelay\",\"host\":\"h\",\"App\":\"{name}\"}}\n")
        };
        rows.write_all(names.iter().map(row).collect::<String>().as_bytes()).unwrap();
    };
    send(&["one", "two", "three", "four"]);
    until("three of them", || rig.appended() == 3);
    send(&["five", "six", "seven"]);
    until("a letter", || reasons(&rig) == ["trap"]);
    assert_eq!(post_spans(&rig, 3), 200, "it is given no spans");
    rig.rest();
    assert_eq!((rig.received(), rig.appended(), dropped_and_refused(&rig)), (7, 3 + 3, (1 + 3, 0)));
    rig.reload(&with(&template, &sink, &[])).unwrap();
    assert_eq!(dead_letters(&rig, "replay")["replayed"], 1);
    until("delivery", || sink.spans() == 3 + 3 + 3);
    rig.rest();
    assert!(!sink.has(b"\"one\"") && ["two", "four", "five", "seven"].iter().all(|app| sink.has(app.as_bytes())));
    rig.stop();
}

/// The last row goes, and whatever then is odd traps; who of the two comes third, and what it costs, is told.
fn chain(directory: &Path, on_error: OnError, third: &str) -> Vec<Plugin> {
    let drops = Plugin { name: "plugin/first".to_owned(), ..plugin(&component("transform.wasm"), "") };
    let traps = plugin(&guest(directory, hostile!("traps")), "");
    let middle = Plugin { name: "plugin/middle".to_owned(), on_error, ..traps };
    vec![drops, middle, Plugin { name: "plugin/third".to_owned(), ..plugin(&component(third), "") }]
}

#[test]
fn when_the_middle_one_of_three_fails_its_policy_decides_over_the_work_of_all() {
    for (on_error, appended, dropped) in [(OnError::Pass, 4 + 3, 1 + 1), (OnError::Drop, 4, 1 + 4)] {
        let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
        let plugins = chain(directory.path(), on_error, "redact.wasm");
        let rig = Rig::start(&with(&config(directory.path()), &sink, &plugins));
        assert_eq!((post_spans(&rig, 5), post_spans(&rig, 4)), (200, 200));
        until("delivery", || sink.spans() == appended);
        rig.rest();
        assert_eq!((rig.appended(), dropped_and_refused(&rig)), (appended, (dropped, 0)), "{on_error:?}");
        assert!(sink.has(b"abi") && sink.has(b"?REDACTED"), "the first and the third did theirs");
        assert!(!sink.has(SECRET.as_bytes()) && !is_on_disk(directory.path(), SECRET.as_bytes()));
        rig.stop();
    }
}

#[test]
fn what_the_middle_one_fails_on_is_kept_as_it_came_and_goes_through_all_of_them_again() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let template = config(directory.path());
    let mut plugins = chain(directory.path(), OnError::Quarantine, "enrich.wasm");
    let rig = Rig::start(&with(&template, &sink, &plugins));
    assert_eq!((post_spans(&rig, 5), post_spans(&rig, 4)), (200, 200));
    assert_eq!((rig.appended(), dropped_and_refused(&rig), reasons(&rig).len()), (4, (1 + 4, 0), 1));
    plugins.remove(1);
    rig.reload(&with(&template, &sink, &plugins)).unwrap();
    assert_eq!(dead_letters(&rig, "replay")["replayed"], 1);
    until("delivery", || sink.spans() == 4 + 3);
    rig.rest();
    assert_eq!((rig.appended(), dropped_and_refused(&rig)), (4 + 3, (1 + 4 + 1, 0)), "the first one drops of it too");
    rig.stop();
}

#[test]
fn in_front_of_one_that_hides_secrets_nothing_is_kept_that_a_sender_still_has() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::keeping());
    let plugins = chain(directory.path(), OnError::Quarantine, "redact.wasm");
    let rig = Rig::start(&with(&config(directory.path()), &sink, &plugins));
    assert_eq!((post_spans(&rig, 5), post_spans(&rig, 4)), (200, 503));
    assert_eq!((rig.appended(), dropped_and_refused(&rig)), (4, (1, 4)), "of what comes again nothing was dropped");
    until("delivery", || sink.spans() == 4);
    rig.rest();
    assert_eq!(dead_letters(&rig, "")["letters"], json!([]));
    assert!(!is_on_disk(directory.path(), SECRET.as_bytes()));
    rig.stop();
}
