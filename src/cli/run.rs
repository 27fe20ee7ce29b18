//! `millrace run`: load, say what is odd, and hand over to the pipeline until it has drained.
//!
//! Everything that can be wrong with the configuration is found before anything is opened. What happens between start and
//! drain belongs to the pipeline; this file only joins the two.

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
    if loaded.config.exporters.is_empty() {
        tracing::info!("no destination is configured: the log keeps what comes for {:?}", loaded.config.queue.retain);
    }
    appliance(loaded.config)
}

/// The one place where the command line meets the pipeline.
fn appliance(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
