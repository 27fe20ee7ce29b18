//! Guests against the host: a good one, and many that are not.

mod cache;
pub(crate) mod configured;
pub(crate) mod guest;
mod hostile;
mod life;
mod worlds;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;

use super::answers::{Answer, Call};
use super::counters::Counters;
use super::engine::{Engine, Pool};
use super::error::CallError;
use super::generation::Generation;
use super::instance::Instance;
use super::load;
use crate::block::Signal;
use crate::config::{Capability, Isolation, Plugin, PluginClass};
use crate::otlp::columns::{Columns, TextColumn};
use crate::otlp::edit::{Patch, TextEdits};
use guest::Guest;

/// An engine, and a directory with one plugin.
struct Bench {
    engine: Engine,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let engine = Engine::start(Pool { lanes: 2, plugins: 2 }).unwrap();
        Bench { engine, directory: tempfile::tempdir().unwrap() }
    }

    fn plugin(&self, guest: &Guest) -> Plugin {
        let path = self.directory.path().join("guest.wasm");
        std::fs::write(&path, guest.component()).unwrap();
        configured::plugin(path)
    }

    fn generation(&self, plugin: &Plugin) -> Arc<Generation> {
        let package = load::load(&self.engine, plugin, &plugin.component).unwrap();
        Arc::new(Generation::new(package, plugin, &plugin.component, 1).unwrap())
    }

    fn instance(&self, guest: &Guest) -> Instance {
        Instance::new(self.generation(&self.plugin(guest)), Arc::new(Counters::default()))
    }
}

/// So many spans, of which all but the second have a URL.
fn payload(spans: usize) -> Vec<u8> {
    let span = |url: Option<&str>| {
        let value = |url: &str| Some(AnyValue { value: Some(Value::StringValue(url.to_owned())) });
        let attribute = |url| KeyValue { key: "url.full".to_owned(), value: value(url) };
        Span { attributes: url.map(attribute).into_iter().collect(), ..Span::default() }
    };
    let spans = (0..spans).map(|row| span((row != 1).then_some("abc"))).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec()
}

/// A call on so many rows; hostile guests misbehave when they are odd.
fn call(instance: &mut Instance, rows: usize) -> Result<Answer, CallError> {
    call_on(instance, payload(rows))
}

fn call_on(instance: &mut Instance, mut payload: Vec<u8>) -> Result<Answer, CallError> {
    let mut columns = Columns::default();
    instance.generation().selection(Signal::Traces).unwrap().gather(&payload, &mut columns);
    let before = payload.clone();
    let call = Call { signal: Signal::Traces, columns: &columns, received_ns: 1_747_033_200_000_000_000 };
    let answer = instance.transform(&call, &mut payload);
    // As whoever has the block does.
    if let Err(error) = &answer {
        instance.counters().failed(error);
    }
    assert_eq!(payload, before, "the payload comes back whatever happens");
    answer
}

fn echo() -> Guest {
    Guest::new(include_str!("../../tests/guests/echo.wat"))
}

/// What `echo` says to three rows.
fn echoed() -> Answer {
    let cells = TextColumn { rows: vec![0, 2], ends: vec![3, 6], bytes: b"abcabc".to_vec() };
    let patch = Patch { text: vec![TextEdits { field: 0, cells }], ..Patch::default() };
    Answer { extra: Vec::new(), patch }
}

#[test]
fn a_column_crosses_over_and_comes_back() {
    let bench = Bench::new();
    let mut instance = bench.instance(&echo());
    let generation = Arc::clone(instance.generation());
    assert_eq!((generation.info.name.as_str(), generation.info.version.as_str()), ("guest", "1.0.0"));
    assert_eq!(
        (generation.setup.fields[0].key.as_str(), &generation.setup.signals[..]),
        ("url.full", &[Signal::Traces][..])
    );
    for _ in 0..3 {
        assert_eq!(call(&mut instance, 3), Ok(echoed()));
    }
    let counters = instance.counters();
    assert_eq!((counters.calls.get(), counters.rows.get(), counters.starts.get()), (3, 9, 1));
}
