//! A plugin of the transform chain: `processors.plugin/NAME`, and its limits. Several may run one file in different ways.
//!
//! What the operator writes under `config` is handed to the plugin as JSON, where plain YAML words are numbers, true,
//! false or null if they look so, and quoted ones are always text. It may hold secrets, so it is never remembered. The
//! file itself is not touched here. What fails goes to `on_error`, and by default that is `quarantine`: a plugin that was
//! meant to remove something must not let it pass because it stumbled.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Number, Value as Json};

use super::Config;
use super::section::{Reader, Section, hint};
use super::tree::{Data, Origin, Value};
use super::words::{AT_LEAST_ONE, BYTES, PATH, SHA256, SWITCH, TIMEOUT};

const MIB: u64 = 1 << 20;

/// One configured plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// `plugin/NAME`: a label of its metrics.
    pub name: String,
    /// The component that runs.
    pub component: PluginComponent,
    /// Another one that runs beside it: its answers are compared and counted, never applied.
    pub shadow: Option<PluginComponent>,
    /// What becomes of a batch that the plugin fails on.
    pub on_error: OnError,
    /// How long an instance lives.
    pub isolation: Isolation,
    /// Where it runs.
    pub class: PluginClass,
    /// Which blocks it is given.
    pub filter: PluginFilter,
    /// What it may import.
    pub capabilities: Vec<Capability>,
    /// Tables that it may look things up in, by name.
    pub lookups: Vec<(String, PathBuf)>,
    /// What it may use.
    pub limits: PluginLimits,
    /// When it is given a rest.
    pub circuit: Circuit,
    /// Whether what it edits gets an attribute that names it, its generation and its component.
    pub record: bool,
}

/// A file with a component, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginComponent {
    /// A component of `millrace:plugin`.
    pub path: PathBuf,
    /// The SHA-256 that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// JSON for `configure`.
    pub config: String,
}

/// What becomes of a batch that a plugin fails on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It goes on as it was before the plugin.
    Pass,
    /// It is dropped, counted.
    Drop,
    /// It is kept aside as a dead letter, with the reason.
    Quarantine,
}

/// How long an instance lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// As long as its lane and generation: memory of one batch can be seen in the next.
    Lane,
    /// One batch.
    Batch,
}

/// Where a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginClass {
    /// On its lane.
    Light,
    /// On a thread of its own, with the memory and the stack that an interpreter needs.
    Heavy,
}

/// Which blocks a plugin is given: those that match every list that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginFilter {
    /// Names of receivers: others' blocks pass it by.
    pub sources: Vec<String>,
    /// Values of `service.name`: rows of other resources are not shown to it.
    pub services: Vec<String>,
    /// uberAgent's sourcetypes: other rows are not shown to it.
    pub sourcetypes: Vec<String>,
}

/// An interface of the host that a plugin may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Log lines.
    Log,
    /// Counters.
    Metrics,
    /// The time of the batch.
    Clock,
    /// A small store on each lane.
    State,
    /// The tables of `lookups`.
    Lookup,
}

/// What one instance may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// CPU time of a call at least.
    pub cpu: Duration,
    /// CPU time of a row, and of each KiB of the batch: see [`PluginLimits::call_budget`].
    pub cpu_per_row: Duration,
    /// Bytes of a patch.
    pub patch_bytes: u64,
    /// Bytes of its `state`, keys and values.
    pub state_bytes: u64,
    /// Log lines a second.
    pub log_lines_per_second: usize,
}

impl PluginLimits {
    /// CPU time of a call with so many rows and bytes. A row of a plugin's typical work is some hundred bytes; one with a
    /// stack trace in it is that work many times over.
    #[must_use]
    pub fn call_budget(&self, rows: u32, bytes: usize) -> Duration {
        let kibibytes = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        self.cpu_per_row.saturating_mul(rows.saturating_add(kibibytes)).max(self.cpu)
    }
}

/// When a plugin that fails is given a rest: its batches then go to `on_error` without a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Failures of one lane within `window` that open the circuit.
    pub failures: usize,
    /// See `failures`.
    pub window: Duration,
    /// The first rest; doubled, with jitter, each time that the try after it fails.
    pub backoff: Duration,
    /// The longest.
    pub max_backoff: Duration,
}

/// Reads one `processors.plugin/NAME`.
pub(super) fn read(name: &str, mut section: Section<'_>) -> Plugin {
    let on_error = [("pass", OnError::Pass), ("drop", OnError::Drop), ("quarantine", OnError::Quarantine)];
    let mut plugin = read_plain(name, &mut section);
    plugin.shadow = section.has("shadow").is_some().then(|| {
        let mut shadow = section.section("shadow");
        let component = read_component(&mut shadow);
        shadow.finish();
        component
    });
    let mut filter = section.section("filter");
    plugin.on_error = section.choice("on_error", &on_error, "quarantine").value;
    plugin.filter = PluginFilter {
        sources: words(&mut filter, "sources"),
        services: words(&mut filter, "services"),
        sourcetypes: words(&mut filter, "sourcetypes"),
    };
    plugin.circuit = read_circuit(section.section("circuit"));
    plugin.record = section.read("record", &SWITCH, false).value;
    filter.finish();
    section.finish();
    plugin
}

/// Warns of filters on receivers that there are not: a plugin that is to remove something would see nothing of it.
pub(super) fn check_sources(config: &Config, reader: &Reader) {
    for plugin in &config.plugins {
        for source in &plugin.filter.sources {
            if !config.receivers.iter().any(|receiver| receiver.name == *source) {
                let key = format!("processors.{}.filter.sources", plugin.name);
                let why = "no receiver of that name runs, and nothing of it is shown to the plugin";
                reader.warning(&Origin::Default, &format!("{key}: {source:?}: {why}"));
            }
        }
    }
}

/// Reads what every plugin has, wherever it stands.
pub(super) fn read_plain(name: &str, section: &mut Section<'_>) -> Plugin {
    let isolation = [("lane", Isolation::Lane), ("batch", Isolation::Batch)];
    let class = [("light", PluginClass::Light), ("heavy", PluginClass::Heavy)];
    let class = section.choice("class", &class, "light").value;
    let lookups = read_lookups(section.section("lookups"));
    Plugin {
        name: name.to_owned(),
        component: read_component(section),
        shadow: None,
        on_error: OnError::Quarantine,
        isolation: section.choice("isolation", &isolation, "lane").value,
        class,
        filter: PluginFilter::default(),
        capabilities: read_capabilities(section, !lookups.is_empty()),
        lookups,
        limits: read_limits(section.section("limits"), class),
        circuit: Circuit {
            failures: usize::MAX,
            window: Duration::ZERO,
            backoff: Duration::ZERO,
            max_backoff: Duration::ZERO,
        },
        record: false,
    }
}

/// The path is empty when none is named, which is a problem.
fn read_component(section: &mut Section<'_>) -> PluginComponent {
    let path = section.read_optional("path", &PATH);
    let sha256 = section.read_optional("sha256", &SHA256).map(|digest| digest.value);
    let config = section.hidden("config").map_or(Json::Null, json).to_string();
    if path.is_none() {
        let key = section.key("path");
        section.reader().problem(section.at(), format!("{key} must name a component, a file *.wasm"));
    }
    PluginComponent { path: path.map(|path| path.value).unwrap_or_default(), sha256, config }
}

/// The JSON of a node.
fn json(value: &Value) -> Json {
    match &value.data {
        Data::Null => Json::Null,
        Data::Text(text) if value.quoted => Json::String(text.clone()),
        Data::Text(text) => match (text.as_str(), serde_json::from_str::<Number>(text)) {
            ("true", _) => Json::Bool(true),
            ("false", _) => Json::Bool(false),
            (_, Ok(number)) => Json::Number(number),
            _ => Json::String(text.clone()),
        },
        Data::List(items) => Json::Array(items.iter().map(json).collect()),
        Data::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect())
        }
    }
}

fn words<'t>(section: &mut Section<'t>, key: &'t str) -> Vec<String> {
    section.list(key).unwrap_or_default().into_iter().map(|(word, _)| word.to_owned()).collect()
}

fn read_lookups(mut section: Section<'_>) -> Vec<(String, PathBuf)> {
    let names: Vec<&str> = section.names().into_iter().map(|(name, _)| name).collect();
    let path = |name| section.read_optional(name, &PATH).map(|path| (name.to_owned(), path.value));
    let lookups = names.into_iter().filter_map(path).collect();
    section.finish();
    lookups
}

/// What nobody can do harm with is granted unless the operator says what is.
fn read_capabilities(section: &mut Section<'_>, has_lookups: bool) -> Vec<Capability> {
    let known = [
        ("log", Capability::Log),
        ("metrics", Capability::Metrics),
        ("clock", Capability::Clock),
        ("state", Capability::State),
        ("lookup", Capability::Lookup),
    ];
    let reader = section.reader();
    let Some(listed) = section.list("capabilities") else {
        let usual = [Capability::Log, Capability::Metrics, Capability::Clock];
        return usual.into_iter().chain(has_lookups.then_some(Capability::Lookup)).collect();
    };
    let mut capabilities = Vec::new();
    for (word, at) in listed {
        match known.iter().find(|(name, _)| *name == word) {
            Some((_, capability)) => capabilities.push(*capability),
            None => {
                let names = known.map(|(name, _)| name);
                let hint = hint(word, &names);
                reader.problem(at, format!("{}: {word:?} is no capability{hint}", section.key("capabilities")));
            }
        }
    }
    capabilities
}

fn read_limits(mut section: Section<'_>, class: PluginClass) -> PluginLimits {
    // Interpreters bring their own world: CPython needs a quarter of a GiB, and milliseconds to begin with.
    let (memory, cpu, per_row) = match class {
        PluginClass::Light => (64 * MIB, Duration::from_millis(5), Duration::from_micros(20)),
        PluginClass::Heavy => (512 * MIB, Duration::from_millis(100), Duration::from_micros(200)),
    };
    let limits = PluginLimits {
        memory_bytes: section.read("memory", &BYTES, memory).value,
        cpu: section.read("cpu", &TIMEOUT, cpu).value,
        cpu_per_row: section.read("cpu_per_row", &TIMEOUT, per_row).value,
        patch_bytes: section.read("patch", &BYTES, 4 * MIB).value,
        state_bytes: section.read("state", &BYTES, MIB).value,
        log_lines_per_second: section.read("log_lines_per_second", &AT_LEAST_ONE, 10).value,
    };
    section.finish();
    limits
}

fn read_circuit(mut section: Section<'_>) -> Circuit {
    let circuit = Circuit {
        failures: section.read("failures", &AT_LEAST_ONE, 5).value,
        window: section.read("window", &TIMEOUT, Duration::from_secs(10)).value,
        backoff: section.read("backoff", &TIMEOUT, Duration::from_secs(1)).value,
        max_backoff: section.read("max_backoff", &TIMEOUT, Duration::from_secs(60)).value,
    };
    section.finish();
    circuit
}

#[cfg(test)]
mod tests {
    use super::super::budget::budget;
    use super::super::{Admission, Backend, Compression, File, Host, Inputs, Loaded, Protocol, Requirement, load};
    use super::*;

    fn loaded(text: &str) -> Result<Loaded, String> {
        let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
        let file = Some(File { name: "m.yaml", text });
        load(&Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host })
            .map_err(|error| error.to_string())
    }

    const TWO: &str = r#"
processors:
  plugin/redact:
    path: /opt/redact.wasm
    sha256: 00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF
    config: {salt: hunter2, keep: [1, 2.5, "3", true, ~, /a b/], deep: {x: no}}
    filter: {sources: [uberagent], sourcetypes: [uberAgent:Process:ProcessStartup]}
    limits: {memory: 8MiB, cpu: 2ms}
    record: true
  plugin/geo: {path: geo.wasm, on_error: pass, class: heavy, lookups: {sites: /etc/sites.csv}, shadow: {path: new.wasm}}
  batch: {}
service: {pipelines: {traces: {processors: [plugin/geo, plugin/redact, batch]}}}
"#;

    #[test]
    fn a_filter_on_a_receiver_that_does_not_run_is_warned_of() {
        assert_eq!(loaded(TWO).unwrap().warnings, Vec::<String>::new());
        let warnings = loaded(&TWO.replace("[uberagent]", "[uberagent, uberagnet]")).unwrap().warnings;
        let expected = "processors.plugin/redact.filter.sources: \"uberagnet\": no receiver of that name runs";
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
    }

    #[test]
    fn plugins_come_in_the_order_of_the_pipeline_with_their_defaults() {
        let loaded = loaded(TWO).unwrap();
        let [geo, redact] = &loaded.config.plugins[..] else { panic!("{:?}", loaded.config.plugins) };
        assert_eq!((geo.name.as_str(), geo.on_error, geo.class), ("plugin/geo", OnError::Pass, PluginClass::Heavy));
        assert_eq!(geo.limits.memory_bytes, 512 * MIB);
        assert_eq!(geo.lookups, [("sites".to_owned(), PathBuf::from("/etc/sites.csv"))]);
        assert!(geo.capabilities.contains(&Capability::Lookup) && !geo.capabilities.contains(&Capability::State));
        assert_eq!(geo.shadow.as_ref().unwrap().path, PathBuf::from("new.wasm"));
        assert_eq!(redact.on_error, OnError::Quarantine);
        assert_eq!(redact.component.sha256.unwrap()[14..18], [0xee, 0xff, 0x00, 0x11]);
        let json = r#"{"deep":{"x":"no"},"keep":[1,2.5,"3",true,null,"/a b/"],"salt":"hunter2"}"#;
        assert_eq!(redact.component.config, json);
        assert_eq!((redact.limits.memory_bytes, redact.limits.cpu), (8 * MIB, Duration::from_millis(2)));
        assert_eq!((geo.record, redact.record), (false, true));
        assert!(loaded.settings.iter().any(|setting| setting.key == "processors.plugin/geo.record"));
        assert!(!format!("{:?}", loaded.settings).contains("hunter2"), "what a plugin is told may be a secret");
    }

    #[test]
    fn a_small_batch_gets_the_least_and_a_big_one_grows_with_its_rows_and_bytes() {
        let limits = loaded(TWO).unwrap().config.plugins[1].limits.clone();
        assert_eq!((limits.cpu, limits.cpu_per_row), (Duration::from_millis(2), Duration::from_micros(20)));
        let budgets = [(0, 0), (1, 0), (100, 0), (101, 0), (4096, 0), (3, 1 << 20), (1, 1023), (100, 1024)];
        let budgets = budgets.map(|(rows, bytes)| limits.call_budget(rows, bytes).as_micros());
        assert_eq!(budgets, [2_000, 2_000, 2_000, 2_020, 81_920, 20_540, 2_000, 2_020]);
    }

    #[test]
    fn a_plugin_that_writes_a_format_is_a_destination_like_any_other() {
        let text = "
exporters:
  plugin/lines:
    path: /opt/lines.wasm
    endpoint: http://db.example:8086/write
    config: {unit: ns}
    compression: gzip
    headers: {authorization: t0ken}
    limits: {memory: 8MiB}
    max_lag: 1MiB
    retry_on_failure: {max_interval: 5s}
";
        let loaded = loaded(text).unwrap();
        let [exporter] = &loaded.config.exporters[..] else { panic!("{:?}", loaded.config.exporters) };
        assert_eq!(exporter.requirement, Requirement::Optional { max_lag_bytes: MIB });
        assert_eq!(exporter.retry.max, Duration::from_secs(5));
        let Backend::Plugin(export) = &exporter.backend else { panic!("{:?}", exporter.backend) };
        assert_eq!(
            (export.url.as_str(), export.plugin.name.as_str()),
            ("http://db.example:8086/write", "plugin/lines")
        );
        assert_eq!(
            (export.plugin.component.config.as_str(), export.plugin.limits.memory_bytes),
            (r#"{"unit":"ns"}"#, 8 * MIB)
        );
        assert_eq!((export.http.compression, export.http.headers.len()), (Compression::Gzip, 1));
        let explained = |key: &str| loaded.settings.iter().any(|setting| setting.key == key);
        assert!(explained("exporters.plugin/lines.path") && explained("exporters.plugin/lines.limits.memory"));
    }

    #[test]
    fn a_plugin_that_reads_a_format_is_a_receiver_with_its_own_bounds() {
        let text = "
receivers:
  plugin/lines: {path: /opt/lines.wasm, endpoint: 127.0.0.1:7000, admission: drop_newest, max_record_bytes: 64KiB}
";
        let loaded = loaded(text).unwrap();
        let [receiver] = &loaded.config.receivers[..] else { panic!("{:?}", loaded.config.receivers) };
        assert_eq!((receiver.listen.port(), receiver.admission), (7000, Admission::DropNewest));
        let Protocol::Plugin(limits) = &receiver.protocol else { panic!("{:?}", receiver.protocol) };
        assert_eq!((limits.max_record_bytes, limits.max_connections), (64 << 10, 256));
        assert_eq!(limits.plugin.component.path, PathBuf::from("/opt/lines.wasm"));
        let explained = |key: &str| loaded.settings.iter().any(|setting| setting.key == key);
        assert!(explained("receivers.plugin/lines.path") && explained("receivers.plugin/lines.max_record_bytes"));
        let budget = budget(&loaded.config, 1).unwrap();
        assert!(budget.lines.iter().any(|line| line.pool == "decoder of plugin/lines" && line.bytes == 104 * MIB));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let text = "
processors:
  plugin: {path: a.wasm, sha256: beef, capabilities: [log, stat]}
  plugin/b: {on_error: ignore}
  plugins/c: {path: c.wasm}
exporters:
  plugin/d: {path: d.wasm, class: heavy, on_error: drop}
receivers:
  plugin/e: {path: e.wasm, isolation: batch, shadow: {path: f.wasm}}
";
        let expected = "\
m.yaml:3:34: processors.plugin.sha256: \"beef\" is not a SHA-256 as 64 hexadecimal digits
m.yaml:3:60: processors.plugin.capabilities: \"stat\" is no capability; did you mean \"state\"?
m.yaml:4:13: processors.plugin/b.path must name a component, a file *.wasm
m.yaml:4:24: processors.plugin/b.on_error: \"ignore\" is none of pass, drop, quarantine; known here: pass, drop, quarantine
m.yaml:5:3: unknown processor \"plugins/c\"; did you mean \"plugin\"?
m.yaml:7:3: exporters.plugin/d.endpoint is missing
m.yaml:7:13: exporters.plugin/d.class: the threads of an exporter have no room for a heavy plugin
m.yaml:7:42: unknown key \"exporters.plugin/d.on_error\"
m.yaml:9:3: receivers.plugin/e.endpoint is missing
m.yaml:9:13: receivers.plugin/e.isolation: a decoder lives as long as its connections
m.yaml:9:46: unknown key \"receivers.plugin/e.shadow\"; did you mean \"sha256\"?";
        assert_eq!(loaded(text).unwrap_err(), expected);
    }
}
