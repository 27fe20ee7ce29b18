//! The receivers: `uberagent` (TCP lines), `otlp` (HTTP), `elasticsearch` (`_bulk`), plain or named (`otlp/second`), and
//! `plugin/NAME` (TCP, whose format a plugin reads).
//!
//! A receiver's place in the result is its source id. Receivers of the Collector's language that this version lacks are
//! refused by name. Default addresses: uberAgent on every interface as ProxyTrace, everything else on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use super::plugins;
use super::section::{Reader, Section, hint};
use super::tree::Origin;
use super::words::{ADDRESS, AT_LEAST_ONE, BYTES, HOST, PORT, TIMEOUT};
use super::{Admission, HttpLimits, Isolation, PluginReceive, Protocol, Receiver, TcpLimits};

/// The kinds that exist.
const KINDS: [&str; 4] = ["uberagent", "otlp", "elasticsearch", "plugin"];

/// Kinds that other programs of this language have, and that are planned or asked for.
const LATER: [&str; 6] = ["zipkin", "jaeger", "splunk_hec", "kafka", "kafka_rest", "opencensus"];

/// Receivers that a configuration may have: a source id has two bytes, a process has far fewer doors.
const MAX_RECEIVERS: usize = 64;

pub(super) fn read(mut section: Section<'_>, reader: &Reader) -> Vec<Receiver> {
    let mut receivers = Vec::new();
    let children = section.children();
    if children.is_empty() {
        let message = "receivers: there must be one, or no such key for the usual ones".to_owned();
        reader.problem(section.at(), message);
    }
    for (name, at, settings) in children {
        if let Err(message) = check_name(name) {
            reader.problem(at, message);
            continue;
        }
        match kind(name) {
            "uberagent" => receivers.extend(read_uberagent(name, settings)),
            "otlp" => receivers.extend(read_otlp(name, settings)),
            "elasticsearch" => receivers.push(read_elasticsearch(name, settings)),
            "plugin" => receivers.push(read_plugin(name, settings, at)),
            later if LATER.contains(&later) => {
                reader.problem(at, format!("the receiver {later:?} is not available in this version"));
            }
            other => reader.problem(at, format!("unknown receiver {other:?}{}", hint(other, &KINDS))),
        }
        if receivers.len() > MAX_RECEIVERS {
            reader.problem(at, format!("more than {MAX_RECEIVERS} receivers"));
            break;
        }
    }
    section.finish();
    receivers
}

/// What stands before the slash of a component's name.
pub(super) fn kind(name: &str) -> &str {
    name.split_once('/').map_or(name, |(kind, _)| kind)
}

/// Whether what comes by the receiver of this name is read by a plugin.
#[must_use]
pub fn is_of_plugin(name: &str) -> bool {
    kind(name) == "plugin"
}

/// Names become metric labels and directories: few characters, and no way out of a directory.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let word = |word: &str| {
        !word.is_empty()
            && word.len() <= 64
            && !word.starts_with('.')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (kind, instance) = name.split_once('/').unwrap_or((name, "x"));
    if word(kind) && word(instance) {
        Ok(())
    } else {
        Err(format!("the name {name:?} is not KIND or KIND/NAME of letters, digits, '.', '_' and '-'"))
    }
}

fn read_uberagent(name: &str, mut section: Section<'_>) -> Option<Receiver> {
    let admission = read_admission(&mut section);
    let mut protocols = section.section("protocols");
    let is_on = protocols.has("tcp").is_some();
    let mut tcp = protocols.section("tcp");
    let listen = read_listen(&mut tcp, "endpoint", "0.0.0.0:5000");
    let limits = TcpLimits {
        max_line_bytes: count_of_bytes(&mut tcp, "max_line_bytes", 1 << 20),
        max_connections: tcp.read("max_connections", &AT_LEAST_ONE, 10_000).value,
        max_connections_per_ip: tcp.read("max_connections_per_ip", &AT_LEAST_ONE, 256).value,
        idle_timeout: tcp.read("idle_timeout", &TIMEOUT, Duration::from_secs(300)).value,
        partial_line_timeout: tcp.read("partial_line_timeout", &TIMEOUT, Duration::from_secs(30)).value,
        pause_limit: tcp.read("pause_limit", &TIMEOUT, Duration::from_secs(10)).value,
    };
    tcp.finish();
    protocols.finish();
    needs_protocol(is_on, &section, "tcp");
    section.finish();
    is_on.then(|| Receiver { name: name.to_owned(), listen, admission, protocol: Protocol::UberagentTcp(limits) })
}

fn read_otlp(name: &str, mut section: Section<'_>) -> Option<Receiver> {
    let admission = read_admission_of_requests(&mut section);
    let mut protocols = section.section("protocols");
    protocols.refuse("grpc", "senders can use OTLP/HTTP (protocols.http); remove it");
    let is_on = protocols.has("http").is_some();
    let mut http = protocols.section("http");
    let listen = read_listen(&mut http, "endpoint", "127.0.0.1:4318");
    let limits = read_http_limits(&mut http);
    http.finish();
    protocols.finish();
    needs_protocol(is_on, &section, "http");
    section.finish();
    is_on.then(|| Receiver { name: name.to_owned(), listen, admission, protocol: Protocol::OtlpHttp(limits) })
}

fn read_elasticsearch(name: &str, mut section: Section<'_>) -> Receiver {
    let admission = read_admission_of_requests(&mut section);
    let listen = read_listen(&mut section, "endpoint", "127.0.0.1:9200");
    let limits = read_http_limits(&mut section);
    section.finish();
    Receiver { name: name.to_owned(), listen, admission, protocol: Protocol::Elasticsearch(limits) }
}

/// A port has no usual number here, so the endpoint must be named.
fn read_plugin(name: &str, mut section: Section<'_>, at: &Origin) -> Receiver {
    let admission = read_admission(&mut section);
    if section.has("endpoint").is_none() {
        section.reader().problem(at, format!("{} is missing", section.key("endpoint")));
    }
    let listen = read_listen(&mut section, "endpoint", "127.0.0.1:0");
    let limits = PluginReceive {
        plugin: plugins::read_plain(name, &mut section),
        max_record_bytes: count_of_bytes(&mut section, "max_record_bytes", 1 << 20),
        max_connections: section.read("max_connections", &AT_LEAST_ONE, 256).value,
        max_connections_per_ip: section.read("max_connections_per_ip", &AT_LEAST_ONE, 64).value,
        idle_timeout: section.read("idle_timeout", &TIMEOUT, Duration::from_secs(300)).value,
    };
    if limits.plugin.isolation == Isolation::Batch {
        let message = format!("{}: a decoder lives as long as its connections", section.key("isolation"));
        section.reader().problem(section.at(), message);
    }
    section.finish();
    Receiver { name: name.to_owned(), listen, admission, protocol: Protocol::Plugin(Box::new(limits)) }
}

fn needs_protocol(is_on: bool, section: &Section<'_>, protocol: &str) {
    if !is_on {
        let key = section.key("protocols");
        section.reader().problem(section.at(), format!("{key} must name a protocol: {protocol}"));
    }
}

fn read_admission(section: &mut Section<'_>) -> Admission {
    let words = [("block", Admission::Block), ("drop_newest", Admission::DropNewest)];
    section.choice("admission", &words, "block").value
}

/// As [`read_admission`], where every request gets an answer: a full log refuses each whatever this says.
fn read_admission_of_requests(section: &mut Section<'_>) -> Admission {
    let admission = read_admission(section);
    if admission == Admission::DropNewest {
        let key = section.key("admission");
        let message = format!(
            "{key}: drop_newest is as block here: when the queue is full, requests are told to come again, and nothing is dropped"
        );
        section.reader().warning(section.at(), &message);
    }
    admission
}

/// An address to listen on: whole under `key`, or its parts under `host` and `port`, which win when they come from the
/// same layer or a stronger one.
pub(super) fn read_listen<'t>(section: &mut Section<'t>, key: &'t str, default: &str) -> SocketAddr {
    let default = default.parse().expect("default addresses are well formed");
    let whole = section.read(key, &ADDRESS, default);
    let stronger = |rank: u8| rank >= whole.origin.rank();
    let host = section.read_optional("host", &HOST).filter(|host| stronger(host.origin.rank()));
    let port = section.read_optional("port", &PORT).filter(|port| stronger(port.origin.rank()));
    let ip = host.map_or(whole.value.ip(), |host| host.value);
    SocketAddr::new(ip, port.map_or(whole.value.port(), |port| port.value))
}

fn read_http_limits(section: &mut Section<'_>) -> HttpLimits {
    section.refuse("tls", "listen on loopback or behind a proxy that ends TLS");
    section.refuse("auth", "listen on loopback or behind a proxy that asks for credentials");
    section.refuse("cors", "browsers cannot send here yet");
    HttpLimits {
        max_body_bytes: count_of_bytes(section, "max_request_body_size", 8 << 20),
        max_inflated_bytes: count_of_bytes(section, "max_inflated_bytes", 32 << 20),
        max_connections: section.read("max_connections", &AT_LEAST_ONE, 1024).value,
        max_connections_per_ip: section.read("max_connections_per_ip", &AT_LEAST_ONE, 256).value,
        header_timeout: section.read("read_header_timeout", &TIMEOUT, Duration::from_secs(10)).value,
        body_timeout: section.read("read_timeout", &TIMEOUT, Duration::from_secs(30)).value,
        min_body_bytes_per_second: count_of_bytes(section, "min_body_bytes_per_second", 32 << 10),
    }
}

/// A size that must fit memory: from 1 KiB to 1 GiB.
fn count_of_bytes<'t>(section: &mut Section<'t>, key: &'t str, default: u64) -> usize {
    let size = section.read(key, &BYTES, default);
    if !(1 << 10..=1 << 30).contains(&size.value) {
        let message = format!("{} must be from 1KiB to 1GiB", section.key(key));
        section.reader().problem(&size.origin, message);
    }
    usize::try_from(size.value).unwrap_or(usize::MAX)
}
