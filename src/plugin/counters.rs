//! What is counted of one plugin on one lane.
//!
//! Plain counters with one writing thread, the one that makes the calls: the lane's writer, or the worker of a heavy
//! plugin. They outlive instances and generations. Rows that were edited or dropped, and answers that broke a rule, are
//! counted by whoever checks and applies them; so are the failures of plugins that change blocks, once a block.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::CallError;
use crate::telemetry::ledger::Counter;

/// See the module.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches given to the plugin.
    pub calls: Counter,
    /// Rows in them.
    pub rows: Counter,
    /// Rows that the plugin needed not be asked about, for it has said what follows from their values.
    pub rows_remembered: Counter,
    /// Rows that were changed and kept.
    pub rows_edited: Counter,
    /// Rows that were dropped.
    pub rows_dropped: Counter,
    /// Processor time of the calls, nanoseconds.
    pub cpu_ns: Counter,
    /// Calls that ended in a trap, beside those below.
    pub traps: Counter,
    /// Calls that used up their processor time.
    pub time_outs: Counter,
    /// Calls that failed for want of memory.
    pub out_of_memory: Counter,
    /// Calls that the plugin answered with an error.
    pub refused: Counter,
    /// Patches that broke a rule.
    pub bad_patches: Counter,
    /// Instances made.
    pub starts: Counter,
    /// Starts that failed.
    pub failed_starts: Counter,
    /// Log lines that were over the rate.
    pub lines_suppressed: Counter,
    /// Linear memory now, bytes; where each call has an instance of its own, that of the last call.
    pub memory_bytes: Counter,
    /// The generation that is live.
    pub generation: Counter,
    /// Counters of the plugin itself.
    own: Mutex<Vec<OwnCounter>>,
}

/// A counter that a plugin made for itself.
#[derive(Clone, Debug)]
pub struct OwnCounter {
    /// Lower-case letters, digits and underscores.
    pub name: String,
    /// Its value.
    pub value: Arc<Counter>,
}

impl Counters {
    /// The plugin's own counters, in the order in which it made them.
    #[must_use]
    pub fn own(&self) -> Vec<OwnCounter> {
        self.lock().clone()
    }

    /// Calls and answers that failed by the plugin's own fault: not what it refused.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let failures = [&self.traps, &self.time_outs, &self.out_of_memory, &self.bad_patches, &self.failed_starts];
        failures.iter().map(|counter| counter.get()).sum()
    }

    /// Adds what another has counted, which counts no more; not what was true of it: memory and generation.
    pub fn absorb(&self, ended: &Counters) {
        let totals: [fn(&Counters) -> &Counter; 14] = [
            |of| &of.calls,
            |of| &of.rows,
            |of| &of.rows_remembered,
            |of| &of.rows_edited,
            |of| &of.rows_dropped,
            |of| &of.cpu_ns,
            |of| &of.traps,
            |of| &of.time_outs,
            |of| &of.out_of_memory,
            |of| &of.refused,
            |of| &of.bad_patches,
            |of| &of.starts,
            |of| &of.failed_starts,
            |of| &of.lines_suppressed,
        ];
        totals.iter().for_each(|of| of(self).add(of(ended).get()));
        for OwnCounter { name, value } in ended.own() {
            self.own_counter(&name, usize::MAX).into_iter().for_each(|own| own.add(value.get()));
        }
    }

    /// The plugin's own counter of this name, made if there are fewer than `most`.
    pub(super) fn own_counter(&self, name: &str, most: usize) -> Option<Arc<Counter>> {
        let mut own = self.lock();
        if let Some(counter) = own.iter().find(|counter| counter.name == name) {
            return Some(Arc::clone(&counter.value));
        }
        if own.len() >= most {
            return None;
        }
        let value = Arc::new(Counter::default());
        own.push(OwnCounter { name: name.to_owned(), value: Arc::clone(&value) });
        Some(value)
    }

    /// Counts a failure, by its kind.
    pub fn failed(&self, error: &CallError) {
        let counter = match error {
            CallError::Trap(_) | CallError::StackOverflow => &self.traps,
            CallError::TimeOut { .. } => &self.time_outs,
            CallError::OutOfMemory { .. } => &self.out_of_memory,
            CallError::Refused(_) => &self.refused,
            CallError::Start(_) => &self.failed_starts,
        };
        counter.add(1);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnCounter>> {
        // The list is whole at every moment.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
