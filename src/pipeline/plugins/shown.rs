//! What is shown of plugins: on `/metrics` by plugin (and lane, where each lane has one), and in health while one does badly.
//!
//! A plugin's name comes from the configuration, so labels are few; its own counters are named by the plugin, of which its
//! host lets it make a few only. Reading makes a list of counters for every number: a scrape is rare.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::formats::Counted;
use crate::plugin::counters::{Counters, OwnCounter};
use crate::telemetry::health::{Component, State};
use crate::telemetry::ledger::Counter;
use crate::telemetry::metrics::{Extra, ExtraKind, ExtraRead, Metrics, PluginFigures, PluginPlace, PluginSource};
use crate::transform::plugin::StepCounters;

/// Name, help, where.
type Shown<C> = (&'static str, &'static str, fn(&C) -> &Counter);

/// Of every plugin, whatever it does.
const COUNTERS: [Shown<Counters>; 8] = [
    ("millrace_plugin_calls_total", "Calls of a plugin.", |of| &of.calls),
    ("millrace_plugin_rows_total", "Rows shown to a plugin; those that a decoder made.", |of| &of.rows),
    ("millrace_plugin_rows_remembered_total", "Rows with values that a plugin was asked about before.", |of| {
        &of.rows_remembered
    }),
    ("millrace_plugin_rows_edited_total", "Rows that a plugin changed.", |of| &of.rows_edited),
    ("millrace_plugin_rows_dropped_total", "Rows that a plugin dropped.", |of| &of.rows_dropped),
    ("millrace_plugin_cpu_nanoseconds_total", "Processor time of a plugin's calls.", |of| &of.cpu_ns),
    ("millrace_plugin_starts_total", "Instances made of a plugin.", |of| &of.starts),
    ("millrace_plugin_log_lines_suppressed_total", "Log lines over the rate.", |of| &of.lines_suppressed),
];

/// Of one that changes blocks.
const STEP_COUNTERS: [Shown<StepCounters>; 4] = [
    ("millrace_plugin_retries_total", "Calls made again after a trap.", |of| &of.retries),
    ("millrace_plugin_shadow_rows_total", "Rows shown to a plugin's shadow too.", |of| &of.shadow_rows),
    ("millrace_plugin_shadow_differences_total", "Rows of which plugin and shadow say otherwise.", |of| {
        &of.shadow_differences
    }),
    ("millrace_plugin_shadow_cpu_nanoseconds_total", "Processor time of a shadow's calls.", |of| &of.shadow.cpu_ns),
];

const CIRCUITS: [Shown<StepCounters>; 2] = [
    ("millrace_plugin_circuit", "0 closed, 1 half open, 2 open: the plugin is given a rest.", |of| &of.circuit),
    ("millrace_plugin_shadow_circuit", "As millrace_plugin_circuit, of its shadow.", |of| &of.shadow_circuit),
];

/// Failures by word, and what became of the blocks by policy.
type Word<C> = (&'static str, fn(&C) -> &Counter);

const FAILURES: [Word<Counters>; 6] = [
    ("trap", |of| &of.traps),
    ("time_out", |of| &of.time_outs),
    ("out_of_memory", |of| &of.out_of_memory),
    ("refused", |of| &of.refused),
    ("bad_patch", |of| &of.bad_patches),
    ("start", |of| &of.failed_starts),
];

const POLICY: [Word<StepCounters>; 3] =
    [("pass", |of| &of.passed_blocks), ("drop", |of| &of.dropped_blocks), ("quarantine", |of| &of.quarantined_blocks)];

/// The counters of the threads that run a plugin, now.
pub(super) type Threads = Arc<dyn Fn() -> Counted + Send + Sync>;

/// Labels of a plugin's series.
type Labels = Vec<(&'static str, String)>;

/// Shows a plugin that changes blocks, lane by lane, for as long as the process runs.
pub(super) fn register(metrics: &Metrics, plugin: &str, lanes: &[Arc<StepCounters>]) {
    for (lane, counters) in lanes.iter().enumerate() {
        let labels = vec![("plugin", plugin.to_owned()), ("lane", lane.to_string())];
        let of = Arc::clone(&counters.plugin);
        register_plugin(metrics, &labels, &(Arc::new(move || vec![Arc::clone(&of)]) as Threads));
        let one = |of: fn(&StepCounters) -> &Counter| {
            let counters = Arc::clone(counters);
            ExtraRead::One(Box::new(move || of(&counters).get()))
        };
        for (name, help, of) in STEP_COUNTERS {
            metrics.add_extra(Extra { name, help, kind: ExtraKind::Counter, labels: labels.clone(), read: one(of) });
        }
        for (name, help, of) in CIRCUITS {
            metrics.add_extra(Extra { name, help, kind: ExtraKind::Gauge, labels: labels.clone(), read: one(of) });
        }
        for (word, of) in FAILURES {
            let name = "millrace_plugin_shadow_failures_total";
            let (shadow, labels) = (Arc::clone(&counters.shadow), because(&labels, word));
            let read = ExtraRead::One(Box::new(move || of(&shadow).get()));
            let help = "Batches that a shadow failed on.";
            metrics.add_extra(Extra { name, help, kind: ExtraKind::Counter, labels, read });
        }
        for (word, of) in POLICY {
            let name = "millrace_plugin_blocks_not_done_total";
            let help = "Blocks that a plugin did not do, by what became of them.";
            let labels = because(&labels, word);
            metrics.add_extra(Extra { name, help, kind: ExtraKind::Counter, labels, read: one(of) });
        }
    }
}

/// Shows what is counted of every plugin, the sum over its threads.
pub(super) fn register_plugin(metrics: &Metrics, labels: &Labels, threads: &Threads) {
    let add = |name, help, kind, labels: Labels, read| metrics.add_extra(Extra { name, help, kind, labels, read });
    let total = |of: fn(&Counters) -> &Counter| {
        let threads = Arc::clone(threads);
        ExtraRead::One(Box::new(move || sum(&threads(), of)))
    };
    for (name, help, of) in COUNTERS {
        add(name, help, ExtraKind::Counter, labels.clone(), total(of));
    }
    let memory = total(|of| &of.memory_bytes);
    add("millrace_plugin_memory_bytes", "Memory of a plugin's instances.", ExtraKind::Gauge, labels.clone(), memory);
    let of = Arc::clone(threads);
    let newest = ExtraRead::One(Box::new(move || generation(&of())));
    let help = "Which generation of a plugin runs.";
    add("millrace_plugin_generation", help, ExtraKind::Gauge, labels.clone(), newest);
    for (word, of) in FAILURES {
        let labels = because(labels, word);
        add("millrace_plugin_failures_total", "Batches failed.", ExtraKind::Counter, labels, total(of));
    }
    let of = Arc::clone(threads);
    let own = ExtraRead::ByName("counter", Box::new(move || own(&of())));
    add("millrace_plugin_own_total", "Counters of the plugin's own.", ExtraKind::Counter, labels.clone(), own);
}

fn because(labels: &Labels, word: &str) -> Labels {
    labels.iter().cloned().chain([("reason", word.to_owned())]).collect()
}

fn sum(threads: &[Arc<Counters>], of: fn(&Counters) -> &Counter) -> u64 {
    threads.iter().map(|counters| of(counters).get()).sum()
}

fn generation(threads: &[Arc<Counters>]) -> u64 {
    threads.iter().map(|counters| counters.generation.get()).max().unwrap_or(0)
}

/// What a plugin counts for itself, by name.
fn own(threads: &[Arc<Counters>]) -> Vec<(String, u64)> {
    let mut totals = BTreeMap::<String, u64>::new();
    for OwnCounter { name, value } in threads.iter().flat_map(|counters| counters.own()) {
        *totals.entry(name).or_default() += value.get();
    }
    totals.into_iter().collect()
}

/// Shows the plugins that are in force in the status.
pub(super) fn show(metrics: &Metrics, plugins: &[(&str, &[Arc<StepCounters>])]) {
    let source = |(name, lanes): &(&str, &[Arc<StepCounters>])| {
        let lanes = lanes.to_vec();
        PluginSource { name: (*name).to_owned(), read: Box::new(move || figures(&lanes)) }
    };
    metrics.show_plugins(PluginPlace::Processors, plugins.iter().map(source).collect());
}

fn figures(lanes: &[Arc<StepCounters>]) -> PluginFigures {
    let plugin: Counted = lanes.iter().map(|lane| Arc::clone(&lane.plugin)).collect();
    PluginFigures {
        quarantined_blocks: lanes.iter().map(|lane| lane.quarantined_blocks.get()).sum(),
        last_failure: lanes.iter().find_map(|lane| lane.last_failure()),
        resting_lanes: lanes.iter().map(|lane| u64::from(lane.circuit.get() == RESTS)).sum(),
        ..figures_of_plugin(&plugin, lanes.iter().any(|lane| lane.fails.get() == 1))
    }
}

/// What the status says of every plugin.
pub(super) fn figures_of_plugin(threads: &[Arc<Counters>], is_failing: bool) -> PluginFigures {
    PluginFigures {
        generation: generation(threads),
        calls: sum(threads, |of| &of.calls),
        rows: sum(threads, |of| &of.rows),
        rows_edited: sum(threads, |of| &of.rows_edited),
        rows_dropped: sum(threads, |of| &of.rows_dropped),
        cpu_ns: sum(threads, |of| &of.cpu_ns),
        failures: FAILURES.iter().map(|(_, of)| sum(threads, *of)).sum(),
        memory_bytes: sum(threads, |of| &of.memory_bytes),
        is_failing,
        ..PluginFigures::default()
    }
}

/// What [`StepCounters::circuit`] says of an open circuit.
const RESTS: u64 = 2;

/// Degraded while a plugin is given a rest on any lane or fails on many of its blocks there, or one of a format fails again
/// and again.
pub(super) fn set_health(component: &Component, plugins: &[(&str, &[Arc<StepCounters>])], failing: &[String]) {
    let rests = |lanes: &[Arc<StepCounters>]| lanes.iter().any(|counters| counters.circuit.get() == RESTS);
    let resting: Vec<&str> = plugins.iter().filter(|(_, lanes)| rests(lanes)).map(|(name, _)| *name).collect();
    let mut problems = Vec::new();
    if !resting.is_empty() {
        problems.push(format!("given a rest after too many failures: {}", resting.join(", ")));
    }
    for (name, lanes) in plugins {
        if let Some(lane) = lanes.iter().find(|lane| lane.fails.get() == 1 && lane.circuit.get() != RESTS) {
            problems.push(format!("{name} fails on many blocks: {}", lane.last_failure().unwrap_or_default()));
        }
    }
    if !failing.is_empty() {
        problems.push(format!("fails again and again: {}", failing.join(", ")));
    }
    component.set(match problems.is_empty() {
        true => State::Ready,
        false => State::Degraded(problems.join("; ")),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::Health;

    #[test]
    fn one_that_fails_on_many_blocks_is_named_with_the_reason() {
        let health = Health::new();
        let component = health.component("plugins");
        let lanes = [Arc::new(StepCounters::default()), Arc::new(StepCounters::default())];
        let says = || {
            set_health(&component, &[("plugin/a", &lanes)], &[]);
            health.summary()
        };
        assert_eq!(says(), "ready");
        lanes[1].fails.set(1);
        assert_eq!(says(), "ready; plugins: plugin/a fails on many blocks: ");
        assert!(figures(&lanes).is_failing);
        lanes[1].circuit.set(RESTS);
        assert_eq!(says(), "ready; plugins: given a rest after too many failures: plugin/a");
    }
}
