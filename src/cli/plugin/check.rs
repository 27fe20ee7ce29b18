//! `millrace plugin check`: would this component run here, and would it go well?
//!
//! In the order in which a start would find out: the names, the configuration, then batches of spans ([`sample`]), each
//! given twice to fresh instances, for an answer that differs is one that a restart would not repeat. A decoder is sent
//! what strangers send, at once and in small pieces: it may refuse all of it, but not fail. The first thing that is wrong
//! ends the check; it is named and the command ends with 1. What has to be written into the configuration for it to start
//! is a note and no fault.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::inspect::signal_word;
use super::product;
use super::sample::{self, Sample};
use super::trial::{ComponentArgs, Trial};
use crate::block::Signal;
use crate::cli::human;
use crate::otlp::check as otlp_check;
use crate::pipeline::trial::{Block, Spent};
use crate::plugin::World;
use crate::plugin::load::Source;

/// Calls before the one that counts: memory has grown and caches are warm.
const WARM_UP: usize = 4;

/// What to check.
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// What was found, line by line.
#[derive(Default)]
struct Report {
    json: bool,
    steps: Vec<serde_json::Value>,
}

impl Report {
    fn say(&mut self, is_good: bool, step: &str, text: String) -> std::io::Result<()> {
        self.show(if is_good { "ok  " } else { "FAIL" }, step, &text)?;
        self.steps.push(json!({ "step": step, "ok": is_good, "text": text }));
        Ok(())
    }

    /// Says what has to be known and is no fault.
    fn note(&mut self, step: &str, text: String) -> std::io::Result<()> {
        self.show("note", step, &text)?;
        self.steps.push(json!({ "step": step, "ok": true, "note": text }));
        Ok(())
    }

    fn show(&self, word: &str, step: &str, text: &str) -> std::io::Result<()> {
        match self.json {
            true => Ok(()),
            false => writeln!(std::io::stdout(), "{word}  {step:<15} {}", human::harmless(text)),
        }
    }

    /// Passes a result on; an error is said.
    fn need<T>(&mut self, step: &str, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if let Err(error) = &result {
            self.say(false, step, format!("{error:#}"))?;
        }
        result.map_err(|error| error.context(format!("{step} failed")))
    }
}

/// Checks a component.
pub(super) fn check(arguments: &CheckArgs) -> anyhow::Result<()> {
    let mut report = Report { json: arguments.json, ..Report::default() };
    let outcome = steps(&arguments.component, &mut report);
    if arguments.json {
        let report = json!({ "ok": outcome.is_ok(), "steps": report.steps });
        writeln!(std::io::stdout(), "{report:#}")?;
    }
    outcome
}

fn steps(component: &ComponentArgs, report: &mut Report) -> anyhow::Result<()> {
    let source = report.need("component", Source::read(&component.file).map_err(Into::into))?;
    let manifest = &source.manifest;
    report.say(true, "component", format!("world {}, millrace:plugin@{}", manifest.world.name(), manifest.version))?;
    let mut trial = report.need("configure", Trial::load(component, &source))?;
    if let Some(line) = &trial.capabilities_line {
        let why = "it imports what is granted by name only; its configuration needs";
        report.note("capabilities", format!("{why} `{line}`"))?;
    }
    let (info, setup) = (&trial.generation().info, &trial.generation().setup);
    let signals: Vec<&str> = setup.signals.iter().map(|signal| signal_word(*signal)).collect();
    let fields = human::counted(setup.fields.len() as u64, "field");
    report.say(true, "configure", format!("{} {}, {}, {fields}", info.name, info.version, signals.join(" and ")))?;
    match trial.world() {
        World::Decode => {
            for (name, bytes) in sample::connections() {
                let outcome = try_connection(&mut trial, &bytes);
                let outcome = report.need(name, outcome)?;
                report.say(true, name, outcome)?;
            }
        }
        _ if !trial.hand.wants(Signal::Traces) => {
            report.say(true, "batches", "none were tried: it is shown no spans".to_owned())?;
        }
        _ => {
            for Sample { name, payload } in sample::samples() {
                let outcome = try_batch(&mut trial, &payload);
                let outcome = report.need(name, outcome)?;
                report.say(true, name, outcome)?;
            }
        }
    }
    let bytes = trial.hand.counters().memory_bytes.get();
    let limit = trial.plugin.limits.memory_bytes;
    Ok(report.say(true, "memory", format!("{} of {}", human::size(bytes), human::size(limit)))?)
}

/// Gives a batch to two instances, and says what came of it.
fn try_batch(trial: &mut Trial, payload: &[u8]) -> anyhow::Result<String> {
    if trial.world() == World::Encode {
        return try_encode(trial, payload);
    }
    let fresh = |trial: &mut Trial| {
        trial.hand.renew();
        trial.hand.block(Signal::Traces, payload)
    };
    let (first, second) = (fresh(trial)?, fresh(trial)?);
    anyhow::ensure!(first.payload == second.payload, "two instances made something else of the same batch");
    if !first.payload.is_empty() {
        let checked = otlp_check::check(&first.payload);
        let checked = checked.map_err(|fault| anyhow::anyhow!("what it makes is no OTLP: {fault}"))?;
        if let Some(cut_out) = checked.cut_out {
            anyhow::bail!("what it makes has spans that nobody takes: {}", cut_out.first);
        }
    }
    let Block { edited, dropped, mut spent, .. } = second;
    for _ in 0..WARM_UP {
        // What an enricher or a sampler has said is remembered: it costs most when everything is new.
        trial.hand.forget();
        spent = trial.hand.block(Signal::Traces, payload)?.spent;
    }
    let rows = human::counted(u64::from(spent.rows), "row");
    Ok(format!("{rows}: {edited} edited, {dropped} dropped; {}", cost(&spent, trial, payload)))
}

fn try_encode(trial: &mut Trial, payload: &[u8]) -> anyhow::Result<String> {
    let fresh = |trial: &mut Trial| {
        trial.hand.renew();
        trial.hand.batch(Signal::Traces, payload)
    };
    let (first, second) = (fresh(trial)?, fresh(trial)?);
    anyhow::ensure!(first.messages == second.messages, "two instances wrote something else of the same batch");
    let mut spent = second.spent;
    for _ in 0..WARM_UP {
        spent = trial.hand.batch(Signal::Traces, payload)?.spent;
    }
    let rows = human::counted(u64::from(spent.rows), "row");
    let bytes: usize = first.messages.iter().map(Vec::len).sum();
    let messages = human::counted(first.messages.len() as u64, "message");
    let unencodable = first.unencodable.len();
    let said = format!("{rows}: {messages}, {}; {unencodable} cannot be said", human::size(bytes as u64));
    Ok(format!("{said}; {}", cost(&spent, trial, payload)))
}

/// Has a connection send these bytes, at once and in pieces, to fresh instances.
fn try_connection(trial: &mut Trial, bytes: &[u8]) -> anyhow::Result<String> {
    let received = product::whole_and_in_pieces(trial, bytes)?;
    let payload = received.blocks.concat();
    if trial.signal() == Signal::Traces && !payload.is_empty() {
        let checked =
            otlp_check::check(&payload).map_err(|fault| anyhow::anyhow!("its records are no OTLP: {fault}"))?;
        if let Some(cut_out) = checked.cut_out {
            anyhow::bail!("it makes spans that nobody takes: {}", cut_out.first);
        }
    }
    let records = human::counted(u64::from(received.spent.rows), "record");
    let (size, rejected) = (human::size(bytes.len() as u64), received.rejected.len());
    Ok(format!("{size}: {records}, {} not wanted, {rejected} rejected", received.filtered))
}

/// What a call cost, beside what it may.
fn cost(spent: &Spent, trial: &Trial, payload: &[u8]) -> String {
    // Enrichers and samplers have time for the bytes of their columns, which are few.
    let bytes = if matches!(trial.world(), World::Transform | World::Encode) { payload.len() } else { 0 };
    let budget = trial.plugin.limits.call_budget(spent.rows, bytes);
    let a_row = spent.call_ns / u64::from(spent.rows).max(1);
    let used = Duration::from_nanos(spent.call_ns).as_secs_f64() / budget.as_secs_f64() * 100.0;
    format!("{a_row} ns a row, {used:.1} % of the time it may take")
}
