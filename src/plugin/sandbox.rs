//! One instance of a component in its store: calls under a budget, and what their end means.
//!
//! Whatever a call does, it ends: by itself, at its budget of processor time (looked at when the epoch advances, so at most
//! some milliseconds late), at the end of its stack, or by a trap. After anything but an answer the sandbox is spent: wasmtime
//! lets nobody enter it again, and its owner drops it. What was lent for the call comes back in every case.

mod convert;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Resource;
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::millrace::plugin::types;
use super::bindings::{Transform, TransformPre};
use super::error::{CallError, MESSAGE_BYTES, clean};
use super::generation::{Info, Setup};
use super::host::{Current, Environment, Host, Kept, memory_limit};
use super::imports::rest::Rows;
use super::instance::{Answer, Call};
use crate::config::{PluginClass, PluginLimits};
use crate::sys::clock;

/// Handles that a plugin may hold: to tables, and to the batch.
const HANDLES: usize = 1024;

/// Bytes that `save` may give.
const SAVED_BYTES: usize = 1 << 20;

/// Bytes that a plugin may hand over at once while it is started or saved.
const START_BYTES: usize = 4 << 20;

/// See the module.
pub(super) struct Sandbox {
    store: Store<Host>,
    plugin: Transform,
}

/// Raised by the epoch callback.
#[derive(Debug, thiserror::Error)]
#[error("the processor time is used up")]
struct Spent;

impl Sandbox {
    /// A new instance, not yet configured.
    pub(super) fn new(pre: &TransformPre<Host>, environment: &Arc<Environment>) -> Result<Sandbox, CallError> {
        let mut store = Store::new(pre.engine(), Host::new(Arc::clone(environment)));
        store.limiter(|host| &mut host.memory);
        store.set_max_component_handles(HANDLES);
        store.epoch_deadline_callback(|store| match clock::thread_cpu_ns() < store.data().cpu_end_ns {
            true => Ok(UpdateDeadline::Continue(1)),
            false => Err(Spent.into()),
        });
        let budget = start_budget(environment.class);
        // Modules may run code when they are instantiated.
        begin(&mut store, budget);
        match pre.instantiate(&mut store) {
            Ok(plugin) => Ok(Sandbox { store, plugin }),
            Err(error) => Err(CallError::Start(failure(&store, &error, budget).to_string())),
        }
    }

    /// Linear memory, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().memory.bytes
    }

    /// Asks the plugin who it is.
    pub(super) fn describe(&mut self) -> Result<Info, CallError> {
        self.start_call(&mut Kept::default(), |plugin, store| plugin.millrace_plugin_lifecycle().call_describe(store))
            .map(convert::info)
    }

    /// Tells the plugin its configuration, once; it says what it wants.
    pub(super) fn configure(&mut self, kept: &mut Kept, config: &str) -> Result<Setup, CallError> {
        self.store.data_mut().configures = true;
        let setup =
            self.start_call(kept, |plugin, store| plugin.millrace_plugin_lifecycle().call_configure(store, config));
        self.store.data_mut().configures = false;
        convert::setup(setup?.map_err(refused)?).map_err(CallError::Refused)
    }

    /// What the plugin wants to hand to the next instance.
    pub(super) fn save(&mut self, kept: &mut Kept) -> Result<Vec<u8>, CallError> {
        let saved = self.start_call(kept, |plugin, store| plugin.millrace_plugin_lifecycle().call_save(store))?;
        match saved.len() {
            0..=SAVED_BYTES => Ok(saved),
            bytes => Err(CallError::Refused(format!("it saves {bytes} bytes, more than {SAVED_BYTES}"))),
        }
    }

    /// Gives the plugin what the instance before it saved.
    pub(super) fn restore(&mut self, kept: &mut Kept, saved: &[u8]) -> Result<(), CallError> {
        self.start_call(kept, |plugin, store| plugin.millrace_plugin_lifecycle().call_restore(store, saved))?
            .map_err(refused)
    }

    /// One batch. The payload is lent to the imports and is back when this returns.
    pub(super) fn transform(
        &mut self,
        kept: &mut Kept,
        call: &Call<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, CallError> {
        let rows = call.columns.rows();
        let columns: Vec<types::ColumnParam<'_>> = call.columns.columns().iter().map(convert::column).collect();
        let groups = types::Groups { resources: call.columns.resources(), scopes: call.columns.scopes() };
        let signal = convert::signal(call.signal);
        let host = self.store.data_mut();
        host.current = Some(Current { payload: std::mem::take(payload), signal: call.signal });
        host.received_ns = call.received_ns;
        let limits = &host.environment.limits;
        let (budget, patch_bytes) = (call_budget(limits, rows), limits.patch_bytes);
        self.store.set_hostcall_fuel(usize::try_from(patch_bytes).unwrap_or(usize::MAX));
        let answer = self.call(kept, budget, |plugin, store| {
            let all = Resource::<Rows>::new_borrow(0);
            plugin.millrace_plugin_transformer().call_transform(store, signal, rows, groups, &columns, all)
        });
        let host = self.store.data_mut();
        *payload = host.current.take().map(|current| current.payload).unwrap_or_default();
        host.received_ns = 0;
        convert::answer(answer?.map_err(refused)?).map_err(CallError::Refused)
    }

    fn start_call<R>(
        &mut self,
        kept: &mut Kept,
        call: impl FnOnce(&Transform, &mut Store<Host>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        let budget = start_budget(self.store.data().environment.class);
        self.store.set_hostcall_fuel(START_BYTES);
        self.call(kept, budget, call)
    }

    /// Makes a call under a budget, with what outlives sandboxes lent to the store.
    fn call<R>(
        &mut self,
        kept: &mut Kept,
        budget: Duration,
        call: impl FnOnce(&Transform, &mut Store<Host>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        std::mem::swap(&mut self.store.data_mut().kept, kept);
        begin(&mut self.store, budget);
        let answer = call(&self.plugin, &mut self.store);
        std::mem::swap(&mut self.store.data_mut().kept, kept);
        answer.map_err(|error| failure(&self.store, &error, budget))
    }
}

/// Processor time of each call but `transform`: an interpreter starts the user's program in it.
fn start_budget(class: PluginClass) -> Duration {
    match class {
        PluginClass::Light => Duration::from_secs(1),
        PluginClass::Heavy => Duration::from_secs(10),
    }
}

/// Processor time of `transform`.
fn call_budget(limits: &PluginLimits, rows: u32) -> Duration {
    limits.cpu_per_row.saturating_mul(rows).max(limits.cpu)
}

fn begin(store: &mut Store<Host>, budget: Duration) {
    let budget_ns = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
    let host = store.data_mut();
    host.cpu_end_ns = clock::thread_cpu_ns().saturating_add(budget_ns);
    host.memory.was_denied = false;
    store.set_epoch_deadline(1);
}

fn refused(message: String) -> CallError {
    CallError::Refused(clean(&message, MESSAGE_BYTES))
}

/// What an error of wasmtime means.
fn failure(store: &Store<Host>, error: &wasmtime::Error, budget: Duration) -> CallError {
    if error.is::<Spent>() {
        return CallError::TimeOut { budget };
    }
    if store.data().memory.was_denied {
        return CallError::OutOfMemory { limit_bytes: memory_limit(&store.data().environment.limits) };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => CallError::StackOverflow,
        _ => CallError::Trap(clean(&format!("{error:#}"), MESSAGE_BYTES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_batch_gets_the_least_and_a_big_one_grows_with_its_rows() {
        let limits = PluginLimits {
            memory_bytes: 0,
            cpu: Duration::from_millis(5),
            cpu_per_row: Duration::from_micros(20),
            patch_bytes: 0,
            state_bytes: 0,
            log_lines_per_second: 1,
        };
        let budgets = [0, 1, 250, 251, 4096].map(|rows| call_budget(&limits, rows).as_micros());
        assert_eq!(budgets, [5_000, 5_000, 5_000, 5_020, 81_920]);
    }
}
