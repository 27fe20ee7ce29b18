//! `plugins`: what a plugin costs a span, beside the limit that each figure has to keep.
//!
//! Blocks are 512 spans of 12 attributes. The redactor is the example in `plugins/redact`: it hides a user in every span and
//! a token in the URL of one in eight. *All in* is the whole step of the chain: gather, call, check, apply. Figures a span
//! are CPU time of the one thread that does it, the fastest of several rounds; a swap is wall time, its median.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace::block::{Made, Meta, Signal, SourceId};
use millrace::config::{self, File, Host, Inputs, Plugin};
use millrace::otlp::columns::{Columns, Field, Kind, Level, Selection, TextColumn};
use millrace::otlp::edit::{self, Patch, TextEdits, Unset};
use millrace::plugin::counters::Counters;
use millrace::plugin::{Call, Engine, Instance, Pool};
use millrace::sys::clock;
use millrace::transform::plugin::{Program, StepCounters, Wanted};
use millrace::transform::{Chain, Outcome};

use crate::figures::{Limit, Row, row, table};
use crate::spans::RequestTemplate;
use crate::usage;

const SPANS: usize = 512;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(60);
const SWAPS: usize = 101;
const CHAIN: usize = 10;

/// Measures everything and returns the table.
pub(crate) fn measure(components: &Path) -> Result<String> {
    let engine = Engine::start(Pool { lanes: 1, plugins: 16 })?;
    let load = |name: &str, more: &str| load(&engine, &components.join(name), more);
    let (began, block) = (clock::monotonic(), block()?);
    let redact = load("redact.wasm", "")?;
    let loaded = clock::monotonic() - began;
    let (nop, renewed) = (load("nop.wasm", "")?, load("nop.wasm", ", isolation: batch")?);
    let recording = load("redact.wasm", ", record: true")?;
    let at_most = |limit| Some(Limit::AtMost(limit));
    let one = all_in(&[Arc::clone(&nop)], &block)?;
    let ten = all_in(&vec![Arc::clone(&nop); CHAIN], &block)?;
    let again = all_in(&[renewed], &block)?;
    let rows: Vec<Row> = vec![
        row("copying the block", copy(&block), "ns a span", None),
        row("redactor: gather, check and apply alone", around_the_call(&redact, &block)?, "ns a span", None),
        row("redactor: the call alone", call_alone(&redact, &block)?, "ns a span", at_most(80.0)),
        row("redactor, all in", all_in(&[Arc::clone(&redact)], &block)?, "ns a span", at_most(350.0)),
        row("redactor that records what it edited, all in", all_in(&[recording], &block)?, "ns a span", None),
        row("a plugin that does nothing: the call alone", call_alone(&nop, &block)?, "ns a span", None),
        row("a plugin that does nothing, all in", one, "ns a span", at_most(100.0)),
        row("ten of them in a chain, beside one", ten / one, "times", at_most(12.0)),
        row("a new instance, configured", (again - one) * SPANS as f64 / 1e3, "us", at_most(30.0)),
        row("a swap on a lane", swap(&engine, components)?, "ms", at_most(5.0)),
        row("redactor: load, compile, configure, try", loaded.as_secs_f64() * 1e3, "ms", None),
    ];
    Ok(table(&rows))
}

fn load(engine: &Engine, path: &Path, more: &str) -> Result<Arc<Program>> {
    let text = format!(
        "processors: {{plugin/p: {{path: {}{more}}}}}\nservice: {{pipelines: {{traces: {{processors: [plugin/p]}}}}}}",
        path.display()
    );
    let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
    let file = Some(File { name: "bench", text: &text });
    let loaded = config::load(&Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host })?;
    let plugin: &Plugin = loaded.config.plugins.first().context("the configuration has a plugin")?;
    Ok(Program::load(engine, plugin, 1)?)
}

/// A block of the load generator's spans, with a user and some URLs in the place of two other attributes.
fn block() -> Result<Vec<u8>> {
    let template = RequestTemplate::new(SPANS, clock::wall_ns());
    let mut payload = template.body.clone();
    template.number(&mut payload, 1, 0);
    let field =
        |key: &str, read| Field { level: Level::Record, key: key.to_owned(), kind: Kind::Text, read, write: true };
    let fields = ["thread.name", "cloud.zone"].map(|key| field(key, true));
    let selection = Selection::new(
        Signal::Traces,
        fields.into_iter().chain([field("user.name", false), field("url.full", false)]).collect(),
    )?;
    let mut columns = Columns::default();
    selection.gather(&payload, &mut columns);
    let all: Vec<u32> = (0..columns.rows()).collect();
    let some = all.iter().copied().step_by(8).collect();
    let text = |field, rows: Vec<u32>, value: &str| {
        let ends = (1..=rows.len()).map(|cell| u32::try_from(cell * value.len()).expect("a block is small")).collect();
        let bytes = value.as_bytes().repeat(rows.len());
        TextEdits { field, cells: TextColumn { rows, ends, bytes } }
    };
    let patch = Patch {
        text: vec![
            text(2, all.clone(), "CORP\\jane.doe"),
            text(3, some, "https://shop.example/carts/4711?lang=en&token=c2VjcmV0LXRva2Vu&page=2"),
        ],
        unset: [0, 1].map(|field| Unset { field, rows: all.clone() }).into(),
        ..Patch::default()
    };
    let edits = edit::check(&selection, &columns, patch, 1 << 20)?;
    let mut out = Vec::new();
    edit::apply(&payload, &selection, &columns, &edits, &mut out);
    Ok(out)
}

/// Nanoseconds a span of the fastest round.
fn best(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (began, before, mut blocks) = (clock::monotonic(), usage::thread_cpu(), 0u32);
        while clock::monotonic() - began < ROUND {
            work()?;
            blocks += 1;
        }
        let spent = usage::thread_cpu() - before;
        best = best.min(spent.as_secs_f64() * 1e9 / f64::from(blocks) / SPANS as f64);
    }
    Ok(best)
}

fn copy(block: &[u8]) -> f64 {
    let mut out = Vec::with_capacity(block.len());
    let copied = best(|| {
        out.clear();
        out.extend_from_slice(black_box(block));
        black_box(&out);
        Ok(())
    });
    copied.expect("copying does not fail")
}

fn meta() -> Meta {
    let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId::MIXED, clock::wall_ns());
    meta.spans = u32::try_from(SPANS).expect("a block is small");
    meta
}

fn wanted(programs: &[Arc<Program>]) -> Vec<Wanted> {
    let one = |program: &Arc<Program>| Wanted {
        program: Arc::clone(program),
        sources: None,
        counters: Arc::new(StepCounters::default()),
    };
    programs.iter().map(one).collect()
}

/// The whole chain on a block.
fn all_in(programs: &[Arc<Program>], block: &[u8]) -> Result<f64> {
    let mut chain = Chain::of_plugins(wanted(programs));
    let (meta, mut payload, now) = (meta(), block.to_vec(), clock::monotonic());
    best(|| {
        match chain.run(&meta, &mut payload, now) {
            Outcome::Aside(cause) => anyhow::bail!("{}: {}", cause.step, cause.message),
            Outcome::Changed(pieces) => pieces.into_iter().for_each(|piece| chain.recycle(black_box(piece).payload)),
            Outcome::Untouched => {}
        }
        Ok(())
    })
}

/// The call on columns that are there.
fn call_alone(program: &Program, block: &[u8]) -> Result<f64> {
    let generation = &program.generation;
    let selection = generation.selection(Signal::Traces).context("it wants spans")?;
    let (mut columns, mut payload) = (Columns::default(), block.to_vec());
    selection.gather(&payload, &mut columns);
    let mut instance = Instance::new(Arc::clone(generation), Arc::new(Counters::default()));
    best(|| {
        let call = Call { signal: Signal::Traces, columns: &columns, received_ns: 1 };
        black_box(instance.transform(&call, &mut payload)?);
        instance.accept();
        Ok(())
    })
}

/// What is around the call, with its answer there.
fn around_the_call(program: &Program, block: &[u8]) -> Result<f64> {
    let generation = &program.generation;
    let selection = generation.selection(Signal::Traces).context("it wants spans")?;
    let (mut columns, mut payload, mut out) = (Columns::default(), block.to_vec(), Vec::new());
    selection.gather(&payload, &mut columns);
    let mut instance = Instance::new(Arc::clone(generation), Arc::new(Counters::default()));
    let call = Call { signal: Signal::Traces, columns: &columns, received_ns: 1 };
    let answer = instance.transform(&call, &mut payload)?;
    ensure!(!answer.patch.text.is_empty(), "there is something to redact");
    best(|| {
        selection.gather(black_box(&payload), &mut columns);
        let edits = edit::check(selection, &columns, answer.patch.clone(), 4 << 20)?;
        black_box(edit::apply(&payload, selection, &columns, &edits, &mut out));
        Ok(())
    })
}

/// Milliseconds in which a lane goes over to another generation, the state handed over.
fn swap(engine: &Engine, components: &Path) -> Result<f64> {
    let programs =
        [load(engine, &components.join("redact.wasm"), "")?, load(engine, &components.join("redact.wasm"), "")?];
    let counters = Arc::new(StepCounters::default());
    let wanted = |program: &Arc<Program>| {
        vec![Wanted { program: Arc::clone(program), sources: None, counters: Arc::clone(&counters) }]
    };
    let mut chain = Chain::of_plugins(wanted(&programs[0]));
    let (meta, mut payload) = (meta(), block()?);
    let mut took = Vec::new();
    for program in programs.iter().cycle().skip(1).take(SWAPS) {
        chain.run(&meta, &mut payload, clock::monotonic());
        let began = clock::monotonic();
        chain.adopt(wanted(program)).map_err(anyhow::Error::msg)?;
        took.push((clock::monotonic() - began).as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[SWAPS / 2])
}
