//! The top of the file: which components take part, and everything that is not a component.
//!
//! [`select`] comes before the environment is laid over the file: it reads `service.pipelines`, drops components that are
//! defined and not used (the Collector's rule), and puts in the receivers that run when the file names none. [`read`]
//! turns the finished tree into a [`Config`]. Only the `traces` pipeline exists in this version.

use std::path::PathBuf;
use std::time::Duration;

use super::section::{Reader, Section, hint};
use super::tree::{Origin, Value};
use super::words::{AT_LEAST_ONE, BYTES, DURATION, PATH, SWITCH, TAPPING};
use super::{Config, LogOutput, Mapping, OtherSourcetypes, Tapping, Uberagent};
use super::{exporters, processors, queue, receivers};

/// The receivers that run when no file names any.
const DEFAULT_RECEIVERS: [&[&str]; 3] = [
    &["receivers", "uberagent", "protocols", "tcp"],
    &["receivers", "otlp", "protocols", "http"],
    &["receivers", "elasticsearch"],
];

/// Which components take part; `None` is all that are defined.
#[derive(Default)]
pub(super) struct Pipeline {
    receivers: Option<Vec<Member>>,
    processors: Option<Vec<Member>>,
    exporters: Option<Vec<Member>>,
}

/// A component's name in a pipeline.
struct Member {
    name: String,
    at: Origin,
}

impl Pipeline {
    fn list(&self, section: &str) -> Option<&[Member]> {
        let list = match section {
            "receivers" => &self.receivers,
            "processors" => &self.processors,
            _ => &self.exporters,
        };
        list.as_deref()
    }

    /// Whether a variable or flag may bring a component into being: not against an explicit list.
    pub(super) fn may_add(&self, section: &str, name: &str) -> bool {
        self.list(section).is_none_or(|list| list.iter().any(|member| member.name == name))
    }

    /// Where a component stands in its pipeline: exporters keep the order in which they are listed.
    pub(super) fn order(&self, section: &str, name: &str) -> usize {
        let position = self.list(section).and_then(|list| list.iter().position(|member| member.name == name));
        position.unwrap_or(usize::MAX)
    }
}

/// Reads `service.pipelines`, drops what is not used, and puts the default receivers in.
pub(super) fn select(tree: &mut Value, reader: &Reader) -> Pipeline {
    let pipeline = {
        let mut root = Section::root(tree, reader);
        let mut service = root.section("service");
        read_pipelines(&mut service.section("pipelines"))
    };
    for section in ["receivers", "processors", "exporters"] {
        let Some(list) = pipeline.list(section) else { continue };
        let known: Vec<&str> =
            tree.get(section).map_or(&[][..], Value::entries).iter().map(|e| e.key.as_str()).collect();
        for member in list.iter().filter(|member| !known.contains(&member.name.as_str())) {
            let hint = hint(&member.name, &known);
            reader.problem(&member.at, format!("{:?} is not defined under {section}{hint}", member.name));
        }
        for entry in tree.get(section).map_or(&[][..], Value::entries) {
            if !list.iter().any(|member| member.name == entry.key) {
                reader.warning(&entry.at, &format!("{section}.{} is defined, but no pipeline uses it", entry.key));
            }
        }
        tree.retain(section, |entry| list.iter().any(|member| member.name == entry.key));
    }
    if tree.get("receivers").is_none() {
        for path in DEFAULT_RECEIVERS {
            tree.ensure(path, &Origin::Default);
        }
    }
    pipeline
}

fn read_pipelines(pipelines: &mut Section<'_>) -> Pipeline {
    let mut selected = Pipeline::default();
    let reader = pipelines.reader();
    for (name, at, mut section) in pipelines.children() {
        if name != "traces" {
            reader.problem(
                at,
                format!("the pipeline {name:?} is not available in this version: there is one, \"traces\""),
            );
            continue;
        }
        selected.receivers = members(&mut section, "receivers");
        selected.processors = members(&mut section, "processors");
        selected.exporters = members(&mut section, "exporters");
        section.finish();
    }
    selected
}

fn members<'t>(section: &mut Section<'t>, key: &'t str) -> Option<Vec<Member>> {
    let reader = section.reader();
    let mut members: Vec<Member> = Vec::new();
    for (name, at) in section.list(key)? {
        if members.iter().any(|member| member.name == name) {
            reader.problem(at, format!("{name:?} is listed twice"));
            continue;
        }
        members.push(Member { name: name.to_owned(), at: at.clone() });
    }
    Some(members)
}

/// Turns the finished tree into the checked types. Problems go to the reader; the result then only fills the place.
pub(super) fn read(root: &mut Section<'_>, pipeline: &Pipeline, reader: &Reader) -> Config {
    let state_directory = root.read("state_directory", &PATH, PathBuf::from("millrace-data")).value;
    let lanes = root.read_optional("lanes", &AT_LEAST_ONE).map(|lanes| lanes.value);
    let memory_limit_bytes = root.read_optional("memory_limit", &BYTES).map(|limit| limit.value);
    let uberagent = read_uberagent(root.section("uberagent"));
    let receivers = receivers::read(root.section("receivers"), reader);
    let queue = queue::read(root.section("queue"), lanes, reader);
    let (batch, plugins) = processors::read(root.section("processors"), pipeline);
    let exporters = exporters::read(root.section("exporters"), pipeline, &batch, queue.max_bytes);
    root.refuse("extensions", "health and metrics are always served on the management port; remove it");
    root.refuse("connectors", "no connector exists");

    let mut management = root.section("management");
    let management_token_file = management.read_optional("token_file", &PATH).map(|path| path.value);
    let management_trust_loopback = management.read("trust_loopback", &SWITCH, true).value;
    let management_tap = management.read("tap", &TAPPING, Tapping::Stored).value;
    management.finish();

    let mut service = root.section("service");
    service.has("pipelines");
    service.refuse("extensions", "health and metrics are always served on the management port; remove it");
    let drain_timeout = service.read("drain_timeout", &DURATION, Duration::from_secs(30)).value;
    let mut telemetry = service.section("telemetry");
    let mut metrics = telemetry.section("metrics");
    metrics.ignore("level", "all metrics are always kept");
    metrics.refuse("readers", "write service.telemetry.metrics.address instead");
    let listen = receivers::read_listen(&mut metrics, "address", "0.0.0.0:8000");
    metrics.finish();
    let log = read_log(telemetry.section("logs"));
    telemetry.finish();
    service.finish();

    Config {
        state_directory,
        lanes,
        receivers,
        uberagent,
        plugins,
        queue,
        exporters,
        management: listen,
        management_token_file,
        management_trust_loopback,
        management_tap,
        log,
        drain_timeout,
        memory_limit_bytes,
    }
}

fn read_uberagent(mut section: Section<'_>) -> Uberagent {
    let mapping = [("session", Mapping::Session), ("original", Mapping::Original)];
    let other = [("filter", OtherSourcetypes::Filter), ("logs", OtherSourcetypes::Logs)];
    let settings = Uberagent {
        mapping: section.choice("mapping", &mapping, "session").value,
        other_sourcetypes: section.choice("other_sourcetypes", &other, "filter").value,
    };
    section.finish();
    settings
}

fn read_log(mut section: Section<'_>) -> LogOutput {
    let level = [("debug", true), ("info", false), ("DEBUG", true), ("INFO", false)];
    let encoding = [("console", false), ("text", false), ("json", true)];
    let log = LogOutput {
        debug: section.choice("level", &level, "info").value,
        json: section.choice("encoding", &encoding, "console").value,
    };
    section.finish();
    log
}
