//! An appliance whose input, change and output are plugins, from the socket of a sender to the body that a backend gets.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use millrace::config::{
    self, Admission, Backend, Circuit, Config, Isolation, OnError, Plugin, PluginClass, PluginComponent, PluginExport,
    PluginFilter, PluginLimits, PluginReceive, Protocol,
};
use millrace::telemetry::health::Health;
use millrace::telemetry::metrics::Imbalances;
use millrace::telemetry::moment::Moment;

use super::rig::{LIMIT, Rig, config, exporter, until};
use super::sink::Sink;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A component of a world that was built once and is kept.
fn component(world: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/plugins/{world}.wasm"))
}

fn plugin(name: &str, path: PathBuf) -> Plugin {
    Plugin {
        name: name.to_owned(),
        component: PluginComponent { path, sha256: None, config: "{}".to_owned() },
        shadow: None,
        on_error: OnError::Quarantine,
        isolation: Isolation::Lane,
        class: PluginClass::Light,
        filter: PluginFilter::default(),
        capabilities: Vec::new(),
        lookups: Vec::new(),
        limits: PluginLimits {
            memory_bytes: 64 << 20,
            cpu: Duration::from_millis(200),
            cpu_per_row: Duration::from_micros(20),
            patch_bytes: 4 << 20,
            state_bytes: 1 << 20,
            log_lines_per_second: 10,
        },
        circuit: Circuit {
            failures: 5,
            window: Duration::from_secs(10),
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
        },
        record: false,
    }
}

fn decoder(path: PathBuf) -> config::Receiver {
    let limits = PluginReceive {
        plugin: plugin("plugin/chunks", path),
        max_record_bytes: 1 << 20,
        max_connections: 4,
        max_connections_per_ip: 4,
        idle_timeout: 10 * LIMIT,
    };
    let (name, admission) = ("plugin/chunks".to_owned(), Admission::Block);
    config::Receiver { name, listen: ANY, admission, protocol: Protocol::Plugin(Box::new(limits)) }
}

/// A destination whose format a plugin writes.
fn encoder(config: &Config, backend: SocketAddr, path: PathBuf) -> config::Exporter {
    let mut exporter = exporter(config, "plugin/names", backend);
    let http = exporter.backend.http().clone();
    let (url, plugin) = (format!("http://{backend}/names"), plugin("plugin/names", path));
    exporter.backend = Backend::Plugin(Box::new(PluginExport { url, plugin, http }));
    exporter
}

/// A backend that says yes, and what it was sent: heads with their bodies.
fn listener() -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind(ANY).expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || serve(stream, &sender));
        }
    });
    (address, requests)
}

fn serve(mut stream: TcpStream, sender: &mpsc::Sender<(String, Vec<u8>)>) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        sender.send((head, body)).ok()?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
    }
}

#[test]
fn bytes_of_a_sender_become_spans_that_are_enriched_and_arrive_in_a_format_of_the_users_own() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, requests) = listener();
    let sink = Sink::up();
    let mut config = config(directory.path());
    config.receivers.push(decoder(component("decode")));
    config.plugins.push(plugin("plugin/abi", component("enrich")));
    config.exporters =
        vec![exporter(&config, "otlphttp", sink.address), encoder(&config, backend, component("encode"))];
    let rig = Rig::start(&config);
    let mut sender = TcpStream::connect(rig.receiver("plugin/chunks")).unwrap();
    sender.set_read_timeout(Some(LIMIT)).unwrap();
    for (count, name) in (1..).zip(["GET /", "PUT /x", "DELETE /y"]) {
        sender.write_all(name.as_bytes()).unwrap();
        let mut reply = [0; 2];
        sender.read_exact(&mut reply).unwrap();
        assert_eq!((&reply, rig.appended()), (b"ok", count), "the reply comes once the span is in the log");
        let (head, body) = requests.recv_timeout(LIMIT).unwrap();
        assert!(
            head.starts_with("post /names http/1.1\r\n") && head.contains("content-type: text/plain\r\n"),
            "{head}"
        );
        assert_eq!(String::from_utf8(body).unwrap(), name);
    }
    until("both destinations", || sink.spans() == 3 && rig.destination(1).delivered == 3);
    let page = rig.metrics.render();
    for (plugin, rows) in [
        ("plugin=\"receivers.plugin/chunks\"", 3),
        ("plugin=\"plugin/abi\",lane=\"0\"", 1),
        ("plugin=\"exporters.plugin/names\"", 3),
    ] {
        let line = format!("millrace_plugin_rows_total{{{plugin}}} {rows}\n");
        assert!(page.contains(&line), "{line} is not in\n{page}");
        assert!(page.contains(&format!("millrace_plugin_generation{{{plugin}}} 1\n")));
    }
    let undocumented = page.lines().filter(|line| line.starts_with("millrace_plugin_")).find(|line| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        !page.contains(&format!("# HELP {name} "))
    });
    assert_eq!(undocumented, None);
    let (health, at) = (Health::new(), Moment { now: Duration::ZERO, wall_ns: 0 });
    let status = rig.metrics.status(&health, at);
    let plugins = status["plugins"].as_array().unwrap();
    let shown: Vec<&str> = plugins.iter().filter_map(|plugin| plugin["name"].as_str()).collect();
    assert_eq!(shown, ["receivers.plugin/chunks", "plugin/abi", "exporters.plugin/names"]);
    assert!(plugins.iter().all(|plugin| plugin["state"] == "running" && plugin["memory_bytes"] != 0));
    let without = Config { exporters: vec![config.exporters[0].clone()], ..config.clone() };
    rig.reload(&without).unwrap();
    let status = rig.metrics.status(&health, at);
    assert_eq!(status["plugins"].as_array().unwrap().len(), 2, "the encoder does not run any more");
    assert_eq!(rig.received(), 3);
    rig.rest();
    let metrics = rig.metrics.clone();
    rig.stop();
    assert_eq!(metrics.imbalances(), Imbalances::default());
}

#[test]
fn an_encoder_that_fails_again_and_again_is_said_to_and_its_spans_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, requests) = listener();
    let mut config = config(directory.path());
    config.receivers.push(decoder(component("decode")));
    let mut failing = encoder(&config, backend, component("encode"));
    if let Backend::Plugin(export) = &mut failing.backend {
        // No answer crosses.
        export.plugin.limits.patch_bytes = 1;
    }
    config.exporters = vec![failing];
    let rig = Rig::start(&config);
    let mut sender = TcpStream::connect(rig.receiver("plugin/chunks")).unwrap();
    sender.set_read_timeout(Some(LIMIT)).unwrap();
    let state = |now: u64| {
        rig.look(Duration::from_secs(now));
        let status = rig.metrics.status(&Health::new(), Moment { now: Duration::ZERO, wall_ns: 0 });
        status["plugins"][1]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(1_000_000), "running");
    for count in 1..=6 {
        sender.write_all(b"GET /").unwrap();
        sender.read_exact(&mut [0; 2]).unwrap();
        until("the span is put aside", || rig.destination(0).dead_lettered == count);
    }
    assert_eq!(state(1_000_005), "failing");
    assert_eq!(state(1_000_020), "running", "nothing has failed since");
    assert!(requests.try_recv().is_err(), "nothing was sent");
    rig.rest();
    rig.stop();
}

#[test]
fn what_a_process_stops_over_is_safe_and_its_sender_knows_what_is() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::down();
    let mut config = config(directory.path());
    config.receivers.push(decoder(component("decode")));
    config.exporters = vec![exporter(&config, "otlphttp", sink.address)];
    let rig = Rig::start(&config);
    let mut sender = TcpStream::connect(rig.receiver("plugin/chunks")).unwrap();
    sender.set_read_timeout(Some(LIMIT)).unwrap();
    sender.write_all(b"GET /").unwrap();
    sender.shutdown(std::net::Shutdown::Write).unwrap();
    let mut replies = Vec::new();
    sender.read_to_end(&mut replies).unwrap();
    // The end of the bytes is a call of its own, which the plugin answers too.
    assert_eq!(replies, b"okok", "told although it has closed its side");
    rig.stop();
    sink.bring_up();
    let again = Rig::start(&config);
    until("what was told to be safe", || sink.spans() == 1);
    again.rest();
    again.stop();
}

#[test]
fn a_plugin_in_the_wrong_place_keeps_the_appliance_from_starting_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let base = config(directory.path());
    let mut wrong_receiver = Config { exporters: Vec::new(), ..base.clone() };
    wrong_receiver.receivers.push(decoder(component("encode")));
    let mut wrong_exporter = base.clone();
    wrong_exporter.exporters = vec![encoder(&base, ANY, component("decode"))];
    let mut wrong_processor = Config { exporters: Vec::new(), ..base };
    wrong_processor.plugins.push(plugin("plugin/abi", component("encode")));
    for (config, expected) in [
        (wrong_receiver, "receivers.plugin/chunks: "),
        (wrong_exporter, "exporter plugin/names cannot work as configured: "),
        (wrong_processor, "processors.plugin/abi: "),
    ] {
        let error = Rig::refusal(&config);
        assert!(error.contains(expected) && error.contains("world"), "{error:?} instead of {expected:?}");
    }
}
