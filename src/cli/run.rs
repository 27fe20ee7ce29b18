//! `millrace run`: load, say what is odd, and hand over to the pipeline until it has drained.

use crate::config::Config;
use crate::telemetry::log;

use super::source::Source;

/// Runs the appliance until it is told to stop.
pub(super) fn run(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    log::init(loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    super::check::fit(&loaded.config)?;
    appliance(&loaded.config)
}

/// The one place where the command line meets the pipeline.
fn appliance(config: &Config) -> anyhow::Result<()> {
    Ok(crate::pipeline::run::run(config)?)
}
