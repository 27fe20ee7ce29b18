//! What is counted of a plugin on one lane, beside what its host counts.
//!
//! Written by the thread of the lane that makes the calls, read by whoever shows it. They belong to the plugin's name and
//! outlive its programs.

use std::sync::{Arc, Mutex, PoisonError};

use crate::plugin::counters::Counters;
use crate::telemetry::ledger::Counter;

/// See the module.
#[derive(Debug, Default)]
pub struct StepCounters {
    /// Of the plugin.
    pub plugin: Arc<Counters>,
    /// Of the one that runs in its shadow.
    pub shadow: Arc<Counters>,
    /// Calls made again after a trap.
    pub retries: Counter,
    /// Blocks, or the rows of them that are the plugin's, that it failed on and that went on as they were.
    pub passed_blocks: Counter,
    /// Of those, that were dropped.
    pub dropped_blocks: Counter,
    /// Of those, that were to be kept aside.
    pub quarantined_blocks: Counter,
    /// 0 closed, 1 half open, 2 open.
    pub circuit: Counter,
    /// 1 while it fails on many of the blocks that it is shown.
    pub fails: Counter,
    /// As `circuit`, of the shadow.
    pub shadow_circuit: Counter,
    /// Rows that were shown to the shadow too.
    pub shadow_rows: Counter,
    /// Rows that the two would not have changed in the same way.
    pub shadow_differences: Counter,
    last_failure: Mutex<Option<String>>,
}

impl StepCounters {
    /// Why it failed on a block last, in words.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        // What it guards is whole at every moment.
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_last_failure(&self, text: String) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}
