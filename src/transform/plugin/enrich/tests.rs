//! Enrichers as steps of a chain: real components, blocks in, blocks out.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as AnyOf};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;

use crate::block::{Made as BlockMade, Meta, Signal, SourceId};
use crate::config::{OnError, Plugin};
use crate::plugin::tests::configured::plugin;
use crate::plugin::tests::guest::Guest;
use crate::plugin::{Engine, Pool};
use crate::transform::plugin::{PluginStep, Program, ProgramError, StepCounters};
use crate::transform::{Given, Made};

/// An engine and a directory for components.
pub(in crate::transform::plugin) struct Bench {
    engine: Engine,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(in crate::transform::plugin) fn new() -> Bench {
        let engine = Engine::start(Pool { lanes: 1, plugins: 1 }).unwrap();
        Bench { engine, directory: tempfile::tempdir().unwrap() }
    }

    pub(in crate::transform::plugin) fn plugin(&self, component: &[u8]) -> Plugin {
        let path = self.directory.path().join("tried.wasm");
        std::fs::write(&path, component).unwrap();
        plugin(path)
    }

    pub(in crate::transform::plugin) fn load(
        &self,
        plugin: &Plugin,
        number: u64,
    ) -> Result<Arc<Program>, ProgramError> {
        Program::load(&self.engine, plugin, number)
    }

    pub(in crate::transform::plugin) fn step(&self, component: &[u8]) -> Tried {
        let program = self.load(&self.plugin(component), 1).unwrap();
        let counters = Arc::new(StepCounters::default());
        Tried { step: PluginStep::new(program, None, Arc::clone(&counters)), counters }
    }
}

/// A step, and what is counted of it.
pub(in crate::transform::plugin) struct Tried {
    pub(in crate::transform::plugin) step: PluginStep,
    pub(in crate::transform::plugin) counters: Arc<StepCounters>,
}

impl Tried {
    /// What the step makes of a block; `None` if it stays as it is.
    pub(in crate::transform::plugin) fn run(&mut self, block: &TracesData) -> Result<Option<TracesData>, &'static str> {
        let mut payload = block.encode_to_vec();
        let mut meta = Meta::empty(Signal::Traces, BlockMade::Passed, SourceId(0), 1);
        meta.spans = 1;
        let mut out = Vec::new();
        let made = self.step.run(Given { meta: &meta, payload: &mut payload, now: Duration::ZERO }, &mut out);
        assert_eq!(payload, block.encode_to_vec(), "the block stays as it came");
        match made {
            Made::Same => Ok(None),
            Made::Other(_) => Ok(Some(TracesData::decode(&out[..]).unwrap())),
            Made::Aside(cause) => Err(cause.reason),
        }
    }
}

/// An attribute.
pub(in crate::transform::plugin) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(AnyOf::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value }
}

/// A resource of this name with these spans.
pub(in crate::transform::plugin) fn resource(name: &str, spans: Vec<Span>) -> ResourceSpans {
    let resource = Resource { attributes: vec![text("service.name", name)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }
}

/// A component that was built once and is kept.
pub(in crate::transform::plugin) fn kept(world: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/plugins/{world}.wasm", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn urls(urls: &[Option<&str>]) -> Vec<Span> {
    let span = |url: &Option<&str>| Span {
        attributes: url.iter().map(|url| text("url.full", url)).collect(),
        ..Span::default()
    };
    urls.iter().map(span).collect()
}

/// The spans of a block in order, each with the values of `abi`.
fn answers(block: &TracesData) -> Vec<Vec<String>> {
    let spans = block.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
    let values = |span: &Span| {
        let abi = span.attributes.iter().filter(|attribute| attribute.key == "abi");
        abi.map(|attribute| format!("{:?}", attribute.value)).collect()
    };
    spans.map(values).collect()
}

#[test]
fn every_row_gets_what_follows_from_its_values_and_each_value_is_asked_about_once() {
    let bench = Bench::new();
    let mut tried = bench.step(&kept("enrich"));
    let block = TracesData {
        resource_spans: vec![
            resource("a", urls(&[Some("x"), None, Some("y"), Some("x")])),
            resource("b", urls(&[Some("y"), Some("")])),
        ],
    };
    for round in 0..3 {
        let out = tried.run(&block).unwrap().unwrap();
        let answers = answers(&out);
        assert!(
            answers.len() == 6 && answers.iter().all(|abi| abi.len() == 1 && abi[0].contains("yes")),
            "{answers:?}"
        );
        let counters = &tried.counters.plugin;
        assert_eq!((counters.calls.get(), counters.rows.get()), (1, 4), "x, y, none and empty, once");
        assert_eq!((counters.rows_remembered.get(), counters.rows_edited.get()), (2 + 6 * round, 6 * (round + 1)));
    }
    let more = TracesData { resource_spans: vec![resource("a", urls(&[Some("z"), Some("x")]))] };
    assert_eq!(answers(&tried.run(&more).unwrap().unwrap()).len(), 2);
    assert_eq!((tried.counters.plugin.calls.get(), tried.counters.plugin.rows.get()), (2, 5), "only z is new");
}

#[test]
fn another_generation_is_asked_anew() {
    let bench = Bench::new();
    let mut tried = bench.step(&kept("enrich"));
    let block = TracesData { resource_spans: vec![resource("a", urls(&[Some("x")]))] };
    tried.run(&block).unwrap();
    let next = bench.load(&bench.plugin(&kept("enrich")), 2).unwrap();
    tried.step.swap(next, None).unwrap();
    tried.run(&block).unwrap();
    assert_eq!(tried.counters.plugin.calls.get(), 2, "what the old one said is nothing to the new one");
}

#[test]
fn what_an_enricher_fails_on_goes_aside_and_is_not_remembered() {
    let bench = Bench::new();
    for (code, reason) in [
        (include_str!("../../../../tests/guests/hostile/traps.wat"), "trap"),
        (include_str!("../../../../tests/guests/hostile/loops.wat"), "time_out"),
        (include_str!("../../../../tests/guests/hostile/hoards.wat"), "out_of_memory"),
        (include_str!("../../../../tests/guests/hostile/refuses.wat"), "refused"),
        // An edit of field 9: the second list of the answer is one of 28 zero bytes, but for the number.
        (
            "(func $misbehave (i32.store (i32.const 188) (i32.const 600)) (i32.store (i32.const 192) (i32.const 1))
                (i32.store16 (i32.const 600) (i32.const 9)))",
            "bad_patch",
        ),
    ] {
        // It behaves when it is tried, with one combination.
        let code = format!(
            "{code}
            (func $transform (param $rows i32) (param i32 i32) (result i32)
                (if (i32.gt_u (local.get $rows) (i32.const 1)) (then (call $misbehave)) (else (call $behave)))
                (i32.const 176))"
        );
        let mut tried = bench.step(&Guest::of_world("enrich", &code).component());
        let two = TracesData { resource_spans: vec![resource("a", urls(&[Some("x"), None]))] };
        assert_eq!(tried.run(&two), Err(reason));
        let calls = tried.counters.plugin.calls.get();
        assert_eq!(tried.run(&two), Err(reason), "asked again, not answered from memory");
        assert!(tried.counters.plugin.calls.get() > calls);
    }
}

#[test]
fn a_plugin_that_changes_no_blocks_is_no_processor() {
    let bench = Bench::new();
    for world in ["decode", "encode"] {
        let error = bench.load(&bench.plugin(&kept(world)), 1).map(drop).unwrap_err().to_string();
        let expected = format!("a plugin of the world {world}; processors take transform, enrich and sample");
        assert!(error.starts_with("processors.plugin/tried: ") && error.ends_with(&expected), "{error}");
    }
    let passes = Plugin { on_error: OnError::Pass, ..bench.plugin(&kept("enrich")) };
    assert!(bench.load(&passes, 1).is_ok());
}
