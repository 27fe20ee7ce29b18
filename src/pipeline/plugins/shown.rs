//! What is shown of plugins: on `/metrics` by plugin and lane, and in health while a circuit is not closed.
//!
//! A plugin's name comes from the configuration, so labels are few; its own counters are named by the plugin, of which its
//! host lets it make a few only.

use std::sync::Arc;

use crate::telemetry::health::{Component, State};
use crate::telemetry::ledger::Counter;
use crate::telemetry::metrics::{Extra, ExtraKind, ExtraRead, Metrics, PluginFigures, PluginSource};
use crate::transform::plugin::StepCounters;

/// Name, help, where.
type Shown = (&'static str, &'static str, fn(&StepCounters) -> &Counter);

const COUNTERS: [Shown; 13] = [
    ("millrace_plugin_calls_total", "Calls of a plugin.", |of| &of.plugin.calls),
    ("millrace_plugin_rows_total", "Rows shown to a plugin.", |of| &of.plugin.rows),
    ("millrace_plugin_rows_remembered_total", "Rows with values that a plugin was asked about before.", |of| {
        &of.plugin.rows_remembered
    }),
    ("millrace_plugin_rows_edited_total", "Rows that a plugin changed.", |of| &of.plugin.rows_edited),
    ("millrace_plugin_rows_dropped_total", "Rows that a plugin dropped.", |of| &of.plugin.rows_dropped),
    ("millrace_plugin_cpu_nanoseconds_total", "Processor time of a plugin's calls.", |of| &of.plugin.cpu_ns),
    ("millrace_plugin_starts_total", "Instances made of a plugin.", |of| &of.plugin.starts),
    ("millrace_plugin_retries_total", "Calls made again after a trap.", |of| &of.retries),
    ("millrace_plugin_log_lines_suppressed_total", "Log lines over the rate.", |of| &of.plugin.lines_suppressed),
    ("millrace_plugin_shadow_rows_total", "Rows shown to a plugin's shadow too.", |of| &of.shadow_rows),
    ("millrace_plugin_shadow_differences_total", "Rows of which plugin and shadow say otherwise.", |of| {
        &of.shadow_differences
    }),
    ("millrace_plugin_shadow_cpu_nanoseconds_total", "Processor time of a shadow's calls.", |of| &of.shadow.cpu_ns),
    ("millrace_plugin_shadow_traps_total", "Calls of a shadow that trapped.", |of| &of.shadow.traps),
];

const GAUGES: [Shown; 3] = [
    ("millrace_plugin_circuit", "0 closed, 1 half open, 2 open: the plugin is given a rest.", |of| &of.circuit),
    ("millrace_plugin_memory_bytes", "Memory of a plugin's instance.", |of| &of.plugin.memory_bytes),
    ("millrace_plugin_generation", "Which generation of a plugin runs.", |of| &of.plugin.generation),
];

/// Failures by word, and what became of the blocks by policy.
type Word = (&'static str, fn(&StepCounters) -> &Counter);

const FAILURES: [Word; 6] = [
    ("trap", |of| &of.plugin.traps),
    ("time_out", |of| &of.plugin.time_outs),
    ("out_of_memory", |of| &of.plugin.out_of_memory),
    ("refused", |of| &of.plugin.refused),
    ("bad_patch", |of| &of.plugin.bad_patches),
    ("start", |of| &of.plugin.failed_starts),
];

const POLICY: [Word; 3] =
    [("pass", |of| &of.passed_blocks), ("drop", |of| &of.dropped_blocks), ("quarantine", |of| &of.quarantined_blocks)];

/// Shows a plugin, lane by lane, for as long as the process runs.
pub(in crate::pipeline) fn register(metrics: &Metrics, plugin: &str, lanes: &[Arc<StepCounters>]) {
    for (lane, counters) in lanes.iter().enumerate() {
        let add = |name, help, kind, word: Option<&'static str>, read: ExtraRead| {
            let mut labels = vec![("plugin", plugin.to_owned()), ("lane", lane.to_string())];
            labels.extend(word.map(|word| ("reason", word.to_owned())));
            metrics.add_extra(Extra { name, help, kind, labels, read });
        };
        let one = |of: fn(&StepCounters) -> &Counter| {
            let counters = Arc::clone(counters);
            ExtraRead::One(Box::new(move || of(&counters).get()))
        };
        for (name, help, of) in COUNTERS {
            add(name, help, ExtraKind::Counter, None, one(of));
        }
        for (name, help, of) in GAUGES {
            add(name, help, ExtraKind::Gauge, None, one(of));
        }
        for (word, of) in FAILURES {
            add("millrace_plugin_failures_total", "Batches failed.", ExtraKind::Counter, Some(word), one(of));
        }
        for (word, of) in POLICY {
            let help = "Blocks that a plugin did not do, by what became of them.";
            add("millrace_plugin_blocks_not_done_total", help, ExtraKind::Counter, Some(word), one(of));
        }
    }
}

/// Shows the plugins that are in force in the status.
pub(super) fn show(metrics: &Metrics, plugins: &[(&str, &[Arc<StepCounters>])]) {
    let source = |(name, lanes): &(&str, &[Arc<StepCounters>])| {
        let lanes = lanes.to_vec();
        PluginSource { name: (*name).to_owned(), read: Box::new(move || figures(&lanes)) }
    };
    metrics.show_plugins(plugins.iter().map(source).collect());
}

fn figures(lanes: &[Arc<StepCounters>]) -> PluginFigures {
    let sum = |of: fn(&StepCounters) -> &Counter| lanes.iter().map(|lane| of(lane).get()).sum::<u64>();
    PluginFigures {
        generation: lanes.iter().map(|lane| lane.plugin.generation.get()).max().unwrap_or(0),
        calls: sum(|of| &of.plugin.calls),
        rows: sum(|of| &of.plugin.rows),
        rows_edited: sum(|of| &of.plugin.rows_edited),
        rows_dropped: sum(|of| &of.plugin.rows_dropped),
        cpu_ns: sum(|of| &of.plugin.cpu_ns),
        failures: FAILURES.iter().map(|(_, of)| sum(*of)).sum(),
        quarantined_blocks: sum(|of| &of.quarantined_blocks),
        memory_bytes: sum(|of| &of.plugin.memory_bytes),
        resting_lanes: lanes.iter().map(|lane| u64::from(lane.circuit.get() == RESTS)).sum(),
    }
}

/// What [`StepCounters::circuit`] says of an open circuit.
const RESTS: u64 = 2;

/// Degraded while a plugin is given a rest on any lane.
pub(super) fn set_health(component: &Component, plugins: &[(&str, &[Arc<StepCounters>])]) {
    let rests = |lanes: &[Arc<StepCounters>]| lanes.iter().any(|counters| counters.circuit.get() == RESTS);
    let resting: Vec<&str> = plugins.iter().filter(|(_, lanes)| rests(lanes)).map(|(name, _)| *name).collect();
    component.set(match resting.is_empty() {
        true => State::Ready,
        false => State::Degraded(format!("given a rest after too many failures: {}", resting.join(", "))),
    });
}
