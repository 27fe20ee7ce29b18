//! In the place of plugins in a build without them: a configuration that names one is refused.
//!
//! The rest of the pipeline reads the same in both builds.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver};
use crossbeam::sync::Unparker;

use super::writer::Swap;
use crate::block::SourceId;
use crate::config::Config;
use crate::export::Exporter;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::{Metrics, PluginPlace};
use crate::transform::Chain;

/// Why plugins cannot go live.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Nothing here could run one.
    #[error("processors.{0}: this build of millrace has no plugins")]
    Absent(String),
}

/// None.
pub struct Prepared;

impl Prepared {
    /// Never.
    #[must_use]
    pub fn any_fail_closed(&self) -> bool {
        false
    }
}

/// See the module.
pub struct Plugins;

/// Refuses a configuration with plugins.
pub fn check(config: &Config) -> Result<(), PluginError> {
    Plugins.prepare(config).map(drop)
}

impl Plugins {
    /// Refuses a configuration with plugins.
    pub fn load(
        config: &Config,
        writers: Vec<Unparker>,
        _metrics: &Arc<Metrics>,
        _health: &Health,
    ) -> Result<(Plugins, Vec<Receiver<Swap>>), PluginError> {
        Plugins.prepare(config)?;
        Ok((Plugins, writers.iter().map(|_| channel::never()).collect()))
    }

    /// Nothing to run.
    #[must_use]
    pub fn chain(&self, _lane: usize) -> Chain {
        Chain::new(Vec::new())
    }

    /// Never.
    #[must_use]
    pub fn any_heavy(&self) -> bool {
        false
    }

    /// Never.
    #[must_use]
    pub fn any_fail_closed(&self) -> bool {
        false
    }

    /// Refuses a configuration with plugins.
    pub fn prepare(&mut self, config: &Config) -> Result<Prepared, PluginError> {
        config.plugins.first().map_or(Ok(Prepared), |plugin| Err(PluginError::Absent(plugin.name.clone())))
    }

    /// None.
    #[must_use]
    pub fn renewed(&self, _prepared: &Prepared) -> Vec<String> {
        Vec::new()
    }

    /// Changes nothing.
    pub fn adopt(&mut self, _prepared: Prepared, _gone: &[SourceId]) -> Result<(), PluginError> {
        Ok(())
    }

    /// Has nothing to say.
    pub fn look(&mut self, _now: Duration, _rests: bool) {}

    /// None.
    #[must_use]
    pub fn formats(&self) -> Formats {
        Formats
    }
}

/// Nobody counts anything.
pub struct Counted;

/// Nothing.
pub fn counted<'e>(_exporters: impl IntoIterator<Item = &'e Exporter>) -> Counted {
    Counted
}

/// No plugins of receivers and exporters.
#[derive(Clone)]
pub struct Formats;

impl Formats {
    /// Shows nothing.
    pub fn serve(&self, _place: PluginPlace, _name: &str, _counted: Counted) {}

    /// Changes nothing.
    pub fn end(&self, _place: PluginPlace, _name: &str) {}
}
