//! What is counted of a plugin on one lane, beside what its host counts.
//!
//! Written by the thread of the lane that makes the calls, read by whoever shows it. They belong to the plugin's name and
//! outlive its programs.

use std::sync::Arc;

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
    /// Rows that were shown to the shadow too.
    pub shadow_rows: Counter,
    /// Rows that the two would not have changed in the same way.
    pub shadow_differences: Counter,
}
