//! Plugins for a running appliance: kept components, guests in text, requests with a secret, and what became of them.

use std::fs;
use std::path::{Path, PathBuf};

use millrace::config::{self, Config, File, Host, Inputs, Plugin};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;
use serde_json::{Value, json};

use super::feeder::post;
use super::rig::{LIMIT, Rig, exporter};
use super::sink::Sink;

#[path = "../../src/plugin/tests/guest.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "it is a helper of the host's tests, which use more of it")]
mod guest;

/// What nobody may see.
pub(crate) const SECRET: &str = "card=4711";

pub(crate) fn component(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/plugins").join(name)
}

pub(crate) fn guest(directory: &Path, code: &str) -> PathBuf {
    let path = directory.join("guest.wasm");
    fs::write(&path, guest::Guest::new(code).component()).expect("the directory is there");
    path
}

/// A plugin, with more time than usual: nothing here is optimised.
pub(crate) fn plugin(path: &Path, more: &str) -> Plugin {
    let path = path.display();
    let text = format!(
        "processors: {{plugin/tried: {{path: {path}, limits: {{cpu: 200ms}}{more}}}}}\n\
         service: {{pipelines: {{traces: {{processors: [plugin/tried]}}}}}}"
    );
    let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
    let file = Some(File { name: "m.yaml", text: &text });
    let loaded = config::load(&Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host });
    loaded.expect("a good configuration").config.plugins.remove(0)
}

/// One destination and these plugins.
pub(crate) fn with(config: &Config, sink: &Sink, plugins: &[Plugin]) -> Config {
    Config { exporters: vec![exporter(config, "a", sink.address)], plugins: plugins.to_vec(), ..config.clone() }
}

fn secrets() -> Vec<KeyValue> {
    let value = Some(AnyValue { value: Some(Any::StringValue(format!("http://shop/?{SECRET}"))) });
    vec![KeyValue { key: "url.full".to_owned(), value }]
}

/// So many spans with a secret in their URL.
pub(crate) fn spans(count: u8) -> Vec<u8> {
    let span = |id| Span {
        trace_id: vec![7; 16],
        span_id: vec![id; 8],
        name: "checkout".to_owned(),
        attributes: secrets(),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (1..=count).map(span).collect(), ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec()
}

pub(crate) fn post_spans(rig: &Rig, count: u8) -> u16 {
    post(rig.receiver("otlp"), "/v1/traces", &spans(count)).status
}

/// Spans dropped by plugins, and refused, of all lanes.
pub(crate) fn dropped_and_refused(rig: &Rig) -> (u64, u64) {
    let lanes = rig.metrics.lanes();
    let sum = |of: fn(&millrace::telemetry::ledger::Lane) -> u64| lanes.iter().map(|lane| of(lane)).sum();
    (sum(|lane| lane.transform_dropped.get()), sum(|lane| lane.refused.get()))
}

/// Whether any file under a directory has these bytes in it.
pub(crate) fn is_on_disk(directory: &Path, bytes: &[u8]) -> bool {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let mut paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths.any(|path| match path.is_dir() {
        true => is_on_disk(&path, bytes),
        // A segment may go at any time.
        false => fs::read(path).is_ok_and(|file| memchr::memmem::find(&file, bytes).is_some()),
    })
}

pub(crate) fn dead_letters(rig: &Rig, call: &str) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).build().into();
    let url = format!("http://{}/api/v1/dlq", rig.management());
    let answer = match call {
        "" => agent.get(url).call(),
        call => agent.post(format!("{url}/{call}")).send(json!({ "all": true }).to_string()),
    };
    let text = answer.expect("this host may ask").body_mut().read_to_string().expect("an answer");
    serde_json::from_str(&text).expect("it is JSON")
}
