//! Reloads of a running appliance: destinations that come, change, go, return and are forgotten, all or nothing.

use std::net::TcpListener;
use std::process::Command;
use std::thread;

use millrace::config::{Config, StartAt};
use millrace::pipeline::parking::PARKED_FOR;
use millrace::sys::clock;
use millrace::sys::systemd::Inherited;
use millrace::telemetry::ledger::DropReason;
use millrace::telemetry::metrics::Imbalances;
use serde_json::Value;

use super::feeder::{Feeder, post_span};
use super::rig::{Rig, config, dropped, exporter, until};
use super::sink::Sink;

fn feed(rig: &Rig, rows: u64) {
    let before = rig.received();
    let feeder = Feeder::start(rig.receiver("uberagent"), rows);
    until("the feeder's end", || feeder.is_done() && rig.received() - before == feeder.rows());
    rig.rest();
}

fn with(config: &Config, names: &[(&str, &Sink)]) -> Config {
    let exporters = names.iter().map(|(name, sink)| exporter(config, name, sink.address)).collect();
    Config { exporters, ..config.clone() }
}

/// What the API says of everything.
fn status(rig: &Rig) -> Value {
    let url = format!("http://{}/api/v1/status", rig.management());
    let text = ureq::get(url).call().expect("this host may ask").body_mut().read_to_string().expect("a document");
    serde_json::from_str(&text).expect("JSON")
}

/// What it says of a destination.
fn destination(rig: &Rig, name: &str) -> Value {
    let status = status(rig);
    let all = status["destinations"].as_array().expect("a list");
    all.iter().find(|one| one["name"] == name).expect("one of them").clone()
}

#[test]
fn a_destination_that_is_parked_goes_on_where_it_was_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (stays, leaves) = (Sink::up(), Sink::up());
    let template = config(directory.path());
    let (both, one) =
        (with(&template, &[("stays", &stays), ("leaves", &leaves)]), with(&template, &[("stays", &stays)]));
    let rig = Rig::start(&both);
    feed(&rig, 500);
    until("delivery", || leaves.spans() == rig.appended());
    let before = leaves.spans();
    rig.reload(&one).unwrap();
    feed(&rig, 500);
    until("delivery", || stays.spans() == rig.appended());
    assert_eq!(leaves.spans(), before, "a parked destination gets nothing");
    rig.stop();

    let rig = Rig::start(&one);
    assert_eq!(rig.metrics.destinations().len(), 2, "still parked after a restart");
    until("what waits has an age", || destination(&rig, "leaves")["lag_seconds"].as_u64() > Some(0));
    assert_eq!(destination(&rig, "leaves")["state"], "parked");
    let problems = status(&rig)["problems"].to_string();
    assert!(problems.contains("leaves: parked: not configured any more; its place is kept until 2"), "{problems}");
    rig.reload(&both).unwrap();
    until("the rest", || leaves.spans() == rig.appended());
    rig.rest();
    assert!(leaves.spans() > before);
    until("it delivers", || destination(&rig, "leaves")["state"] == "delivering");

    rig.reload(&one).unwrap();
    feed(&rig, 500);
    let parked = rig.metrics.destinations()[1].clone();
    until("it is forgotten when its day is over", || {
        rig.look(clock::monotonic() + PARKED_FOR);
        rig.metrics.destinations().len() == 1
    });
    let last = parked.snapshot();
    assert!(dropped(&last, DropReason::Age) > 0, "what it had not got is counted: {last:?}");
    assert_eq!(last.settled(), rig.appended());
    rig.reload(&both).unwrap();
    until("a new one starts with the oldest that is there", || rig.imbalances() == Imbalances::default());
    rig.rest();
    rig.stop();
}

#[test]
fn a_change_of_a_destination_that_is_down_sends_what_waits_to_the_new_address_once() {
    let directory = tempfile::tempdir().unwrap();
    let (down, up) = (Sink::down(), Sink::up());
    let template = config(directory.path());
    let rig = Rig::start(&with(&template, &[("moves", &down)]));
    feed(&rig, 1000);
    rig.reload(&with(&template, &[("moves", &up)])).unwrap();
    until("delivery", || up.spans() == rig.appended());
    rig.rest();
    feed(&rig, 500);
    until("delivery of what is new", || up.spans() == rig.appended());
    rig.rest();
    assert_eq!((rig.destination(0).delivered, down.spans()), (up.spans(), 0));
    rig.stop();
}

#[test]
fn a_destination_whose_cursor_is_damaged_skips_nothing_wherever_new_ones_start() {
    let directory = tempfile::tempdir().unwrap();
    let (down, up) = (Sink::down(), Sink::up());
    let template = config(directory.path());
    let at_tail = |sink| {
        let mut config = with(&template, &[("a", sink)]);
        config.exporters[0].start_at = StartAt::Tail;
        config
    };
    let rig = Rig::start(&at_tail(&down));
    feed(&rig, 500);
    let appended = rig.appended();
    rig.stop();
    let cursor = directory.path().join("destinations/a/cursor");
    let length = std::fs::metadata(&cursor).unwrap().len();
    std::fs::write(&cursor, vec![7; usize::try_from(length).unwrap()]).unwrap();
    let rig = Rig::start(&at_tail(&up));
    until("delivery", || up.spans() == appended);
    rig.rest();
    assert_eq!(rig.destination(0).skipped_at_start, 0);
    rig.stop();
}

#[test]
fn destinations_come_after_none_and_go_again() {
    let directory = tempfile::tempdir().unwrap();
    let (oldest, tail) = (Sink::up(), Sink::up());
    let template = config(directory.path());
    let none = with(&template, &[]);
    let rig = Rig::start(&none);
    feed(&rig, 500);
    let before = rig.appended();
    let mut two = with(&template, &[("oldest", &oldest), ("tail", &tail)]);
    two.exporters[1].start_at = StartAt::Tail;
    rig.reload(&two).unwrap();
    feed(&rig, 500);
    until("delivery", || oldest.spans() == rig.appended() && tail.spans() >= rig.appended() - before);
    rig.rest();
    assert_eq!(rig.destination(1).skipped_at_start + tail.spans(), rig.appended());
    rig.reload(&none).unwrap();
    feed(&rig, 500);
    assert_eq!(rig.metrics.destinations().len(), 3, "two that are parked, and the retention");
    assert_eq!(destination(&rig, "none")["state"], "retaining");
    rig.stop();
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (sink, other) = (Sink::up(), Sink::up());
    let template = config(directory.path());
    let good = with(&template, &[("a", &sink)]);
    let rig = Rig::start(&good);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bad = with(&template, &[("a", &other), ("b", &other)]);
    bad.receivers[0].listen = taken.local_addr().unwrap();
    let error = rig.reload(&bad).unwrap_err();
    assert!(error.contains("cannot listen on"), "{error}");
    assert_eq!(post_span(rig.receiver("otlp")).status, 200);
    feed(&rig, 500);
    until("delivery", || sink.spans() == rig.appended());
    assert_eq!((other.spans(), rig.metrics.destinations().len()), (0, 1));
    rig.rest();
    rig.stop();
}

#[test]
fn a_receiver_that_returns_has_the_socket_that_was_passed_in_for_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let with = config(directory.path());
    let mut without = with.clone();
    without.receivers.retain(|receiver| receiver.name != "uberagent");
    assert_eq!(without.receivers.len() + 1, with.receivers.len());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rig = Rig::start_inheriting(&with, vec![Inherited { name: "uberagent".to_owned(), listener }]);
    rig.reload(&without).unwrap();
    let meanwhile = Feeder::start(address, 100);
    rig.reload(&with).unwrap();
    assert_eq!(rig.receiver("uberagent"), address);
    until("who came meanwhile is served", || meanwhile.is_done() && rig.received() == meanwhile.rows());
    rig.stop();
}

#[test]
fn receivers_change_places_names_and_addresses_of_one_port() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    let rig = Rig::start(&config);
    for receiver in &mut config.receivers {
        receiver.listen = rig.receiver(&receiver.name);
    }
    let works = |config: &Config| {
        rig.reload(config).unwrap();
        for receiver in &config.receivers {
            assert_eq!(rig.receiver(&receiver.name), receiver.listen);
        }
        assert_eq!(post_span(rig.receiver("otlp")).status, 200);
        feed(&rig, 100);
    };
    works(&config);
    let places: Vec<_> = config.receivers.iter().map(|receiver| receiver.listen).collect();
    // Each takes the place of the next: one of the reactor, two of the gateway.
    assert_eq!(places.len(), 3);
    for (receiver, place) in config.receivers.iter_mut().zip(places.iter().cycle().skip(1)) {
        receiver.listen = *place;
    }
    works(&config);
    config.receivers.iter_mut().for_each(|receiver| receiver.listen.set_ip([0, 0, 0, 0].into()));
    works(&config);
    let uberagent = config.receivers.iter_mut().find(|receiver| receiver.name == "uberagent").unwrap();
    uberagent.name = "uberagent/renamed".to_owned();
    works(&config);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    config.receivers[0].listen = taken.local_addr().unwrap();
    assert!(rig.reload(&config).unwrap_err().contains("cannot listen on"), "another process has it");
    rig.stop();
}

/// Set for the process that gets no thread.
const STARVED: &str = "MILLRACE_TEST_OF_THREADS";

#[test]
fn a_destination_that_gets_no_thread_holds_nothing_of_the_log() {
    if std::env::var_os(STARVED).is_none() {
        // The limit would hold for every test of this process.
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "reload::a_destination_that_gets_no_thread_holds_nothing_of_the_log", "--nocapture"]);
        let output = child.env(STARVED, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (stays, comes) = (Sink::up(), Sink::up());
    let template = config(directory.path());
    let (one, two) = (with(&template, &[("stays", &stays)]), with(&template, &[("stays", &stays), ("comes", &comes)]));
    let rig = Rig::start(&one);
    feed(&rig, 500);
    // Room for some buffers and for no stack, but for those that threads which have ended left behind: others take these.
    limit_address_space(Some(address_space_bytes() + (1 << 20)));
    let idle: Vec<_> = std::iter::from_fn(|| thread::Builder::new().spawn(thread::park).ok()).collect();
    let error = rig.reload(&two).unwrap_err();
    limit_address_space(None);
    idle.iter().for_each(|idle| idle.thread().unpark());
    assert!(error.contains("destination comes cannot be opened"), "{error}");
    assert_eq!(rig.metrics.destinations().len(), 1);
    // More than the log holds: what the destination does not hold goes on.
    while rig.appended() < 50_000 {
        feed(&rig, 5000);
    }
    rig.reload(&two).unwrap();
    rig.rest();
    rig.stop();
}

fn address_space_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a line of it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn limit_address_space(bytes: Option<u64>) {
    let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let mut prlimit = Command::new("prlimit");
    prlimit.arg("--pid").arg(std::process::id().to_string()).arg(format!("--as={limit}:unlimited"));
    assert!(prlimit.status().expect("util-linux").success());
}
