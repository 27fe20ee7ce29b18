//! What the host offers: log, counters, the time of the batch, state, tables.
//!
//! Nothing else can be reached: no file, no network, no clock, no randomness. Natively, under `cargo test`, the stand-ins of
//! [`crate::testing`] answer. Worlds differ in what they offer: state in `transform` and `sample`, tables in those and
//! `enrich`; a plugin that uses what its world has not is refused when it is loaded.

#[cfg(target_arch = "wasm32")]
use crate::bindings::{clock, log, lookup, metrics, state as kept};
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::{clock, log, lookup, metrics, state as kept};
use serde::de::DeserializeOwned;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// For whoever follows every step.
    Trace = 0,
    /// For whoever looks for a fault.
    Debug = 1,
    /// Worth knowing.
    Info = 2,
    /// Worth a look.
    Warning = 3,
    /// Something is lost or refused.
    Error = 4,
}

/// Writes a line to the host's log, which limits their rate and length.
pub fn log(severity: Severity, message: &str) {
    log::log(severity as u8, message);
}

/// Whether [`log()`] would write; ask before building a costly message.
#[must_use]
pub fn log_enabled(severity: Severity) -> bool {
    log::enabled(severity as u8)
}

/// A counter among the host's metrics.
#[derive(Debug, Clone, Copy)]
pub struct Counter(u32);

impl Counter {
    /// The counter of this name. Only in [`Plugin::new`](crate::Plugin::new).
    ///
    /// # Errors
    /// When the plugin has 64 already, or it is too late.
    pub fn new(name: &str) -> Result<Self, String> {
        metrics::counter(name).map(Self)
    }

    /// Counts. A call to the host: add up within a batch, and add once.
    pub fn add(self, by: u64) {
        metrics::add(self.0, by);
    }
}

/// When the host received the batch, Unix nanoseconds: the same when it is run again.
#[must_use]
pub fn batch_time_ns() -> u64 {
    clock::batch_time()
}

/// The small store of the plugin on this lane, lost with the process.
pub mod state {
    use super::kept;

    /// What is under a key.
    #[must_use]
    pub fn get(key: &str) -> Option<Vec<u8>> {
        kept::get(key)
    }

    /// Keeps a value; for `ttl_ms` milliseconds, or with 0 until it is deleted.
    ///
    /// # Errors
    /// Says which limit is reached.
    pub fn set(key: &str, value: &[u8], ttl_ms: u64) -> Result<(), String> {
        kept::set(key, value, ttl_ms)
    }

    /// Deletes what is under a key.
    pub fn delete(key: &str) {
        kept::delete(key);
    }
}

/// A table that the operator gives.
#[derive(Debug)]
pub struct Table(lookup::Table);

impl Table {
    /// The table of this name.
    ///
    /// # Errors
    /// Names the tables that there are.
    pub fn open(name: &str) -> Result<Self, String> {
        lookup::Table::open(name).map(Self)
    }

    /// The rows under these keys, in order: ask for a whole batch at once. `None` where there is none, or none that is a `T`.
    pub fn get<T: DeserializeOwned>(&self, keys: &[String]) -> Vec<Option<T>> {
        let rows = self.0.get_many(keys);
        rows.into_iter().map(|row| serde_json::from_str(&row?).ok()).collect()
    }
}
