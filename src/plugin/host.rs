//! What a sandbox can reach of the host: the data behind the imports, and the meter on memory.
//!
//! One a sandbox, owned by its store. What outlives sandboxes ([`Kept`]) is lent to it for the time of one call, and so is
//! the payload of the batch: a sandbox that is thrown away takes nothing with it.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use super::counters::Counters;
use super::epoch::Ticker;
use super::imports::log::Lines;
use super::imports::lookup::Tables;
use super::imports::state::State;
use crate::block::Signal;
use crate::config::{PluginClass, PluginLimits};
use crate::telemetry::ledger::Counter;

/// What is the same in all instances of a generation.
#[derive(Debug)]
pub(super) struct Environment {
    /// The plugin's name in the configuration.
    pub(super) name: String,
    pub(super) class: PluginClass,
    pub(super) limits: PluginLimits,
    pub(super) tables: Tables,
    /// Where it enters while it runs.
    pub(super) ticker: Arc<Ticker>,
}

/// What a plugin keeps on one lane, over sandboxes and generations.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) state: State,
    pub(super) lines: Lines,
    pub(super) counters: Arc<Counters>,
    /// What calls whose answer was not yet accepted added to the plugin's own counters.
    pub(super) added: Vec<(Arc<Counter>, u64)>,
}

impl Kept {
    /// The answers since the last time were accepted: what the calls wrote counts.
    pub(super) fn accept(&mut self) {
        self.state.commit();
        for (counter, by) in self.added.drain(..) {
            counter.set(counter.get().wrapping_add(by));
        }
    }

    /// They were not: everything is as it was.
    pub(super) fn reject(&mut self) {
        self.state.roll_back();
        self.added.clear();
    }
}

/// The batch that a call is about; there is none outside of `transform`.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) payload: Vec<u8>,
    pub(super) signal: Signal,
}

/// The data of a store.
pub(super) struct Host {
    pub(super) environment: Arc<Environment>,
    pub(super) memory: Memory,
    pub(super) kept: Kept,
    pub(super) current: Option<Current>,
    /// When the batch was received, Unix nanoseconds; 0 outside of `transform`.
    pub(super) received_ns: u64,
    /// The plugin's own counters, by the number that it was given.
    pub(super) own_counters: Vec<Arc<Counter>>,
    /// Counters may be made: `configure` is running.
    pub(super) configures: bool,
    /// The last line that the running call logged as an error, cut and cleaned.
    pub(super) last_error: Option<String>,
    /// Processor time of the thread at which the running call is over, nanoseconds.
    pub(super) cpu_end_ns: u64,
}

impl Host {
    pub(super) fn new(environment: Arc<Environment>) -> Host {
        let memory = Memory { limit_bytes: memory_limit(&environment.limits), bytes: 0, was_denied: false };
        Host {
            environment,
            memory,
            kept: Kept::default(),
            current: None,
            received_ns: 0,
            own_counters: Vec::new(),
            configures: false,
            last_error: None,
            cpu_end_ns: 0,
        }
    }
}

/// Bytes of memory that a sandbox may have.
pub(super) fn memory_limit(limits: &PluginLimits) -> usize {
    usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX)
}

/// Elements of a table at most; interpreters have some ten thousand functions.
const TABLE_ELEMENTS: usize = 100_000;

/// The meter on a sandbox's memories, all of them together.
#[derive(Debug)]
pub(super) struct Memory {
    limit_bytes: usize,
    /// What they have now.
    pub(super) bytes: usize,
    /// Something was denied since this was last set to false: a trap that follows is for want of memory.
    pub(super) was_denied: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.bytes.saturating_sub(current).saturating_add(desired);
        // The plugin is told that there is no more. An allocator that cannot go on traps; an interpreter collects garbage.
        if after > self.limit_bytes {
            self.was_denied = true;
            return Ok(false);
        }
        self.bytes = after;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.was_denied = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.was_denied |= desired > TABLE_ELEMENTS;
        Ok(desired <= TABLE_ELEMENTS)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    /// A host without a sandbox.
    pub(in crate::plugin) fn host(tables: Tables) -> Host {
        let limits = PluginLimits {
            memory_bytes: 1 << 20,
            cpu: Duration::from_millis(5),
            cpu_per_row: Duration::ZERO,
            patch_bytes: 1 << 20,
            state_bytes: 1 << 20,
            log_lines_per_second: 10,
        };
        let (name, class) = ("plugin/tried".to_owned(), PluginClass::Light);
        let ticker = Arc::new(Ticker::start(|| ()).unwrap());
        Host::new(Arc::new(Environment { name, class, limits, tables, ticker }))
    }

    #[test]
    fn memories_are_metered_together_and_what_is_denied_is_known() {
        let mut memory = host(Tables::new()).memory;
        assert!(memory.memory_growing(0, 600 << 10, None).unwrap());
        assert!(memory.memory_growing(0, 400 << 10, None).unwrap());
        assert!(!memory.was_denied);
        assert!(!memory.memory_growing(400 << 10, 500 << 10, None).unwrap());
        assert_eq!((memory.bytes, memory.was_denied), (1000 << 10, true));
        assert!(!memory.table_growing(0, 100_001, None).unwrap());
    }
}
