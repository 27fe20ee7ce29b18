//! The processors: `batch`, which sets when exporters send, and `plugin/NAME`, the steps of the transform chain in the
//! order of the pipeline.
//!
//! Processors of the Collector's language that this version lacks are refused by name.

use std::time::Duration;

use super::pipelines::Pipeline;
use super::plugins::{self, Plugin};
use super::receivers::{check_name, kind};
use super::section::{Section, Sourced, hint};
use super::words::{AT_LEAST_ONE, COUNT, DURATION};

/// Processors that this version lacks, each with what to do instead.
const LATER: [(&str, &str); 9] = [
    ("airdig", "remove it"),
    ("memory_limiter", "memory is fixed at start and checked against `memory_limit`; remove it"),
    ("attributes", "remove it, or use a plugin"),
    ("resource", "remove it, or use a plugin"),
    ("filter", "remove it, or use a plugin"),
    ("transform", "remove it, or use a plugin"),
    ("redaction", "remove it, or use a plugin"),
    ("probabilistic_sampler", "remove it, or use a plugin"),
    ("tail_sampling", "remove it"),
];

/// Plugins that a configuration may have.
const MAX_PLUGINS: usize = 32;

/// When batches are sent, as `processors.batch` says it for every exporter.
pub(super) struct BatchDefaults {
    pub(super) send_spans: Sourced<usize>,
    pub(super) timeout: Sourced<Duration>,
    pub(super) max_spans: Sourced<usize>,
}

/// Reads `processors`.
pub(super) fn read(mut section: Section<'_>, pipeline: &Pipeline) -> (BatchDefaults, Vec<Plugin>) {
    let reader = section.reader();
    let mut children = section.children();
    children.sort_by_key(|(name, ..)| pipeline.order("processors", name));
    let mut plugins = Vec::new();
    for (name, at, settings) in children {
        if let Err(message) = check_name(name) {
            reader.problem(at, message);
            continue;
        }
        match LATER.iter().find(|(later, _)| *later == kind(name)) {
            _ if name == "batch" => {}
            _ if kind(name) == "plugin" => plugins.push(plugins::read(name, settings)),
            Some((later, instead)) => {
                reader.problem(at, format!("the processor {later:?} is not available in this version: {instead}"));
            }
            None => {
                let hint = hint(kind(name), &["batch", "plugin"]);
                reader.problem(at, format!("unknown processor {name:?}{hint}"));
            }
        }
        if plugins.len() > MAX_PLUGINS {
            reader.problem(at, format!("more than {MAX_PLUGINS} plugins"));
            break;
        }
    }
    let mut batch = section.section("batch");
    let defaults = BatchDefaults {
        send_spans: batch.read("send_batch_size", &AT_LEAST_ONE, 200),
        timeout: batch.read("timeout", &DURATION, Duration::from_millis(200)),
        max_spans: batch.read("send_batch_max_size", &COUNT, 0),
    };
    batch.finish();
    section.finish();
    (defaults, plugins)
}
