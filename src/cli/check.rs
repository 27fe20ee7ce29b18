//! `millrace check`: validate everything that can be validated without starting, and print what would run.
//!
//! Nothing is bound, opened or sent. Problems, all of them, go to stderr with exit code 2; the plan with its memory budget
//! goes to stdout.

use std::io::Write;
use std::thread;

use crate::config::budget::{Budget, budget};
use crate::config::{Backend, Config, Exporter, Protocol, Receiver, Requirement};

use super::source::{Source, Unusable};

/// Checks the configuration and its memory budget.
pub(super) fn check(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    let config = &loaded.config;
    for warning in loaded.warnings.iter().chain(&loaded.unresolved) {
        eprintln!("warning: {warning}");
    }
    let (lanes, budget) = fit(config)?;
    let mut out = std::io::stdout().lock();
    for receiver in &config.receivers {
        writeln!(out, "receive   {}", describe_receiver(receiver))?;
    }
    writeln!(out, "log       {} lanes under {}", lanes, config.state_directory.display())?;
    if config.exporters.is_empty() {
        writeln!(out, "export    nowhere: the log keeps {:?}", config.queue.retain)?;
    }
    for exporter in &config.exporters {
        writeln!(out, "export    {}", describe_exporter(exporter))?;
    }
    writeln!(out, "manage    http://{}/", config.management)?;
    writeln!(out, "memory\n{budget}")?;
    Ok(())
}

fn describe_receiver(receiver: &Receiver) -> String {
    let what = match &receiver.protocol {
        Protocol::UberagentTcp(_) => "uberAgent lines over TCP",
        Protocol::OtlpHttp(_) => "OTLP over HTTP",
        Protocol::Elasticsearch(_) => "Elasticsearch _bulk",
    };
    format!("{}: {what} on {}", receiver.name, receiver.listen)
}

fn describe_exporter(exporter: &Exporter) -> String {
    let (what, url) = match &exporter.backend {
        Backend::OtlpHttp(otlp) => ("OTLP over HTTP", &otlp.traces_url),
        Backend::Influx(influx) => ("session map in line protocol", &influx.url),
    };
    let requirement = match exporter.requirement {
        Requirement::Required => "required".to_owned(),
        Requirement::Optional { max_lag_bytes } => format!("optional, may lag {} MiB", max_lag_bytes >> 20),
    };
    format!("{}: {what} to {url} ({requirement})", exporter.name)
}

/// The number of lanes that would run, and what they take; fails when that is too much.
pub(super) fn fit(config: &Config) -> Result<(usize, Budget), Unusable> {
    let lanes = config.lanes.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let budget = budget(config, lanes).map_err(|over| Unusable(over.to_string()))?;
    Ok((lanes, budget))
}
