//! What stands on the disk before anything runs: the state directory, the logs, both stores of dead letters.
//!
//! Opened before a byte is received, so that what cannot be opened is said while nobody relies on it. Nothing here runs but
//! the thread of the dead letters.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use super::appliance::StartError;
use super::dead_letters::{self, DeadLetterStores};
use super::disk::{Disk, DiskParts};
use super::logs::{self, OpenLog};
use super::shown;
use super::sources::SourceNames;
use crate::config::Config;
use crate::queue::{Budget, Keys, StateLock, Storage};
use crate::telemetry::health::{Health, State};
use crate::telemetry::metrics::Metrics;

/// What is opened before anything runs.
pub(super) struct Ground {
    pub(super) logs: Vec<OpenLog>,
    pub(super) budget: Arc<Budget>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dead_letters: DeadLetterStores,
    /// The keys that are in force: a start reads them, and nothing else does.
    pub(super) keys: Keys,
}

impl Ground {
    /// Opens the logs and both stores of dead letters.
    pub(super) fn open(
        config: &Config,
        lanes: usize,
        names: &SourceNames,
        health: &Health,
    ) -> Result<Ground, StartError> {
        let directory = &config.state_directory;
        let storage = logs::storage(config.queue.storage);
        let at_rest = logs::at_rest(&config.queue)?;
        let (logs, budget) = logs::open(&storage, &directory.join("log"), &config.queue, &at_rest, lanes)?;
        let unreadable: Vec<&str> = logs.iter().filter_map(|open| open.unreadable.as_deref()).collect();
        if !unreadable.is_empty() {
            health.component("log keys").set(State::Degraded(unreadable.join(", ")));
        }
        let dead_letters = dead_letters::start(&storage, directory, &at_rest, names.clone(), health);
        let dead_letters =
            dead_letters.map_err(|source| StartError::State { directory: directory.display().to_string(), source })?;
        Ok(Ground { logs, budget, storage, dead_letters, keys: at_rest.keys })
    }

    /// Shows the disk, and the logs of lanes that no longer run.
    pub(super) fn show(&self, config: &Config, lanes: usize, metrics: &Metrics, health: &Health) -> Disk {
        for gone in self.logs.iter().skip(lanes) {
            shown::register_gone(metrics, gone.log.lane(), &gone.ledger);
        }
        let parts = DiskParts {
            logs: self.logs.iter().map(|open| Arc::clone(&open.log)).collect(),
            ledgers: self.logs.iter().take(lanes).map(|open| Arc::clone(&open.ledger)).collect(),
            budget: Arc::clone(&self.budget),
            storage: Arc::clone(&self.storage),
            directory: config.state_directory.clone(),
            segment_bytes: config.queue.segment_bytes,
            reserve_bytes: config.queue.reserve_bytes,
        };
        Disk::show(parts, metrics, health)
    }
}

/// Takes the state directory: it is ours alone from now on.
pub(super) fn take_state(config: &Config) -> Result<StateLock, StartError> {
    let directory = &config.state_directory;
    let taken = create_state_directory(directory).and_then(|()| StateLock::take(directory));
    taken.map_err(|source| StartError::State { directory: directory.display().to_string(), source })
}

/// Creates the state directory for its owner alone: what is in the log is nobody else's business.
fn create_state_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
