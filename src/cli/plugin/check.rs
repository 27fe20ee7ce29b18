//! `millrace plugin check`: would this component run here, and would it go well?
//!
//! In the order in which a start would find out: the names, the configuration, then batches of spans ([`sample`]), each
//! given twice to fresh instances, for an answer that differs is one that a restart would not repeat. The first
//! thing that is wrong ends the check; it is named and the command ends with 1.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::inspect::signal_word;
use super::sample::{self, Sample};
use super::trial::{ComponentArgs, Outcome, Trial};
use crate::block::Signal;
use crate::cli::human;
use crate::otlp::check as otlp_check;
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
        if !self.json {
            let word = if is_good { "ok  " } else { "FAIL" };
            writeln!(std::io::stdout(), "{word}  {step:<14} {}", human::harmless(&text))?;
        }
        self.steps.push(json!({ "step": step, "ok": is_good, "text": text }));
        Ok(())
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
    let (info, setup) = (&trial.generation.info, &trial.generation.setup);
    let signals: Vec<&str> = setup.signals.iter().map(|signal| signal_word(*signal)).collect();
    let said = format!("{} {}, {}, {} fields", info.name, info.version, signals.join(" and "), setup.fields.len());
    report.say(true, "configure", said)?;
    if !trial.wants(Signal::Traces) {
        return Ok(report.say(true, "batches", "none: only transforms of spans are tried".to_owned())?);
    }
    for Sample { name, payload } in sample::samples() {
        let outcome = try_batch(&mut trial, &payload);
        let outcome = report.need(name, outcome)?;
        report.say(true, name, describe(&outcome, &trial))?;
    }
    let bytes = trial.memory_bytes();
    let limit = trial.plugin.limits.memory_bytes;
    Ok(report.say(true, "memory", format!("{} of {}", human::size(bytes), human::size(limit)))?)
}

/// Gives a batch to two instances, and says what came of it.
fn try_batch(trial: &mut Trial, payload: &[u8]) -> anyhow::Result<Outcome> {
    trial.renew();
    let first = trial.run(Signal::Traces, payload)?;
    trial.renew();
    let second = trial.run(Signal::Traces, payload)?;
    anyhow::ensure!(first.payload == second.payload, "two instances made something else of the same batch");
    if !first.payload.is_empty() {
        let checked = otlp_check::check(&first.payload);
        let checked = checked.map_err(|fault| anyhow::anyhow!("what it makes is no OTLP: {fault}"))?;
        if let Some(cut_out) = checked.cut_out {
            anyhow::bail!("what it makes has spans that nobody takes: {}", cut_out.first);
        }
    }
    let mut last = second;
    for _ in 0..WARM_UP {
        last.cost = trial.run(Signal::Traces, payload)?.cost;
    }
    Ok(last)
}

fn describe(outcome: &Outcome, trial: &Trial) -> String {
    let Outcome { rows, edited, dropped, cost, .. } = outcome;
    let limits = &trial.plugin.limits;
    let budget = limits.cpu.max(limits.cpu_per_row.saturating_mul(*rows));
    let a_row = cost.call_ns / u64::from(*rows).max(1);
    let used = Duration::from_nanos(cost.call_ns).as_secs_f64() / budget.as_secs_f64() * 100.0;
    format!("{rows} rows: {edited} edited, {dropped} dropped; {a_row} ns a row, {used:.1} % of the time it may take")
}
