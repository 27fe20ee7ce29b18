//! One instance of a component in its store: calls under a budget, and what their end means.
//!
//! Whatever a call does, it ends: by itself, at its budget of processor time (looked at when the epoch advances, so at most
//! some milliseconds late), at the end of its stack, or by a trap. After anything but an answer the sandbox is spent: wasmtime
//! lets nobody enter it again, and its owner drops it. What was lent for the call comes back in every case.

mod convert;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Resource;
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};

use super::answers::{Answer, Batch, Call, Decoded, Encoded, Verdicts};
use super::bindings::millrace::plugin::types;
use super::epoch::Guest;
use super::error::{CallError, MESSAGE_BYTES, clean};
use super::exports::{Exports, Linked, Work};
use super::generation::{Info, Setup};
use super::host::{Current, Environment, Host, Kept, memory_limit};
use super::imports::rest::Rows;
use crate::config::PluginClass;
use crate::otlp::columns::Column;
use crate::sys::clock;

/// Handles that a plugin may hold: to tables, and to the batch.
const HANDLES: usize = 1024;

/// Bytes that `save` may give.
const SAVED_BYTES: usize = 1 << 20;

/// Bytes that a plugin may hand over at once while it is started or saved.
const START_BYTES: usize = 4 << 20;

/// Bytes of a chunk that a record of it has at least, as far as the time for decoding it goes.
const RECORD_BYTES: usize = 64;

/// See the module.
pub(super) struct Sandbox {
    store: Store<Host>,
    exports: Exports,
}

/// Raised by the epoch callback.
#[derive(Debug, thiserror::Error)]
#[error("the processor time is used up")]
struct Spent;

impl Sandbox {
    /// A new instance, not yet configured. Modules may run code when they are instantiated.
    pub(super) fn new(linked: &Linked, environment: &Arc<Environment>) -> Result<Sandbox, CallError> {
        let mut store = Store::new(linked.engine(), Host::new(Arc::clone(environment)));
        store.limiter(|host| &mut host.memory);
        store.set_max_component_handles(HANDLES);
        store.epoch_deadline_callback(|store| match clock::thread_cpu_ns() < store.data().cpu_end_ns {
            true => Ok(UpdateDeadline::Continue(1)),
            false => Err(Spent.into()),
        });
        let budget = start_budget(environment.class);
        let running = begin(&mut store, budget);
        let instantiated = linked.instantiate(&mut store);
        drop(running);
        match instantiated {
            Ok(exports) => Ok(Sandbox { store, exports }),
            Err(error) => Err(failure(&store, &error, budget)),
        }
    }

    /// Linear memory, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().memory.bytes
    }

    /// Asks the plugin who it is.
    pub(super) fn describe(&mut self) -> Result<Info, CallError> {
        self.start_call(&mut Kept::default(), |exports, store| exports.lifecycle.call_describe(store))
            .map(convert::info)
    }

    /// Tells the plugin its configuration, once; it says what it wants.
    pub(super) fn configure(&mut self, kept: &mut Kept, config: &str) -> Result<Setup, CallError> {
        self.store.data_mut().configures = true;
        let setup = self.start_call(kept, |exports, store| exports.lifecycle.call_configure(store, config));
        self.store.data_mut().configures = false;
        convert::setup(setup?.map_err(refused)?).map_err(CallError::Refused)
    }

    /// What the plugin wants to hand to the next instance.
    pub(super) fn save(&mut self, kept: &mut Kept) -> Result<Vec<u8>, CallError> {
        let saved = self.start_call(kept, |exports, store| exports.lifecycle.call_save(store))?;
        match saved.len() {
            0..=SAVED_BYTES => Ok(saved),
            bytes => Err(CallError::Refused(format!("it saves {bytes} bytes, more than {SAVED_BYTES}"))),
        }
    }

    /// Gives the plugin what the instance before it saved.
    pub(super) fn restore(&mut self, kept: &mut Kept, saved: &[u8]) -> Result<(), CallError> {
        self.start_call(kept, |exports, store| exports.lifecycle.call_restore(store, saved))?.map_err(refused)
    }

    /// One batch. The payload is lent to the imports and is back when this returns.
    pub(super) fn transform(
        &mut self,
        kept: &mut Kept,
        call: &Call<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, CallError> {
        let ((columns, groups, signal), payload_bytes) = (arguments(call), payload.len());
        self.lend(call, payload);
        let answer = self.work(kept, Given::batch(call, payload_bytes), |work, store| {
            let Work::Transform(guest) = work else { unreachable!("{OTHER_WORLD}") };
            let all = Resource::<Rows>::new_borrow(0);
            guest.call_transform(store, signal, call.columns.rows(), groups, &columns, all)
        });
        self.take_back(payload);
        convert::answer(answer?).map_err(CallError::Refused)
    }

    /// What a batch is in the plugin's format. As `transform`.
    pub(super) fn encode(
        &mut self,
        kept: &mut Kept,
        call: &Call<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Encoded, CallError> {
        let ((columns, groups, signal), payload_bytes) = (arguments(call), payload.len());
        self.lend(call, payload);
        let encoded = self.work(kept, Given::batch(call, payload_bytes), |work, store| {
            let Work::Encode(guest) = work else { unreachable!("{OTHER_WORLD}") };
            let all = Resource::<Rows>::new_borrow(0);
            guest.call_encode(store, signal, call.columns.rows(), groups, &columns, all)
        });
        self.take_back(payload);
        encoded.map(convert::encoded)
    }

    /// What follows from each of some combinations of values.
    pub(super) fn enrich(&mut self, kept: &mut Kept, batch: &Batch<'_>) -> Result<Answer, CallError> {
        let columns: Vec<types::ColumnParam<'_>> = batch.columns.iter().map(convert::column).collect();
        let additions = self.work(kept, Given::rows(batch), |work, store| {
            let Work::Enrich(guest) = work else { unreachable!("{OTHER_WORLD}") };
            guest.call_enrich(store, convert::signal(batch.signal), batch.rows, &columns)
        })?;
        convert::additions(additions).map_err(CallError::Refused)
    }

    /// What becomes of some traces.
    pub(super) fn decide(&mut self, kept: &mut Kept, batch: &Batch<'_>) -> Result<Verdicts, CallError> {
        let columns: Vec<types::ColumnParam<'_>> = batch.columns.iter().map(convert::column).collect();
        let verdicts = self.work(kept, Given::rows(batch), |work, store| {
            let Work::Sample(guest) = work else { unreachable!("{OTHER_WORLD}") };
            guest.call_decide(store, batch.rows, true, &columns)
        })?;
        convert::verdicts(verdicts, batch.rows).map_err(CallError::Refused)
    }

    /// Tells a decoder of a peer.
    pub(super) fn opened(
        &mut self,
        kept: &mut Kept,
        connection: u64,
        about: &[(String, String)],
    ) -> Result<(), CallError> {
        let about: Vec<(&str, &str)> = about.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        self.work(kept, Given::NOTICE, |work, store| {
            let Work::Decode(guest) = work else { unreachable!("{OTHER_WORLD}") };
            guest.call_opened(store, connection, &about)
        })
    }

    /// Records from bytes of a peer, received at `received_ns`.
    pub(super) fn decode(
        &mut self,
        kept: &mut Kept,
        (connection, received_ns): (u64, u64),
        chunk: &[u8],
        last: bool,
    ) -> Result<Decoded, CallError> {
        let rows = u32::try_from(chunk.len() / RECORD_BYTES).unwrap_or(u32::MAX);
        let decoded = self.work(kept, Given { rows, bytes: 0, received_ns }, |work, store| {
            let Work::Decode(guest) = work else { unreachable!("{OTHER_WORLD}") };
            guest.call_decode(store, connection, chunk, last)
        })?;
        convert::decoded(decoded, chunk.len()).map_err(CallError::Refused)
    }

    /// Tells a decoder that a peer has gone.
    pub(super) fn closed(&mut self, kept: &mut Kept, connection: u64) -> Result<(), CallError> {
        self.work(kept, Given::NOTICE, |work, store| {
            let Work::Decode(guest) = work else { unreachable!("{OTHER_WORLD}") };
            guest.call_closed(store, connection).map(Ok)
        })
    }

    fn lend(&mut self, call: &Call<'_>, payload: &mut Vec<u8>) {
        self.store.data_mut().current = Some(Current { payload: std::mem::take(payload), signal: call.signal });
    }

    fn take_back(&mut self, payload: &mut Vec<u8>) {
        *payload = self.store.data_mut().current.take().map(|current| current.payload).unwrap_or_default();
    }

    /// Makes a call of the plugin's work, with the budget of what it is given.
    fn work<R>(
        &mut self,
        kept: &mut Kept,
        given: Given,
        call: impl FnOnce(&Work, &mut Store<Host>) -> wasmtime::Result<Result<R, String>>,
    ) -> Result<R, CallError> {
        let host = self.store.data_mut();
        host.received_ns = given.received_ns;
        let limits = &host.environment.limits;
        let (budget, patch_bytes) = (limits.call_budget(given.rows, given.bytes), limits.patch_bytes);
        self.store.set_hostcall_fuel(usize::try_from(patch_bytes).unwrap_or(usize::MAX));
        let answer = self.call(kept, budget, |exports, store| call(&exports.work, store));
        self.store.data_mut().received_ns = 0;
        answer?.map_err(refused)
    }

    fn start_call<R>(
        &mut self,
        kept: &mut Kept,
        call: impl FnOnce(&Exports, &mut Store<Host>) -> wasmtime::Result<R>,
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
        call: impl FnOnce(&Exports, &mut Store<Host>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        std::mem::swap(&mut self.store.data_mut().kept, kept);
        let running = begin(&mut self.store, budget);
        let answer = call(&self.exports, &mut self.store);
        drop(running);
        std::mem::swap(&mut self.store.data_mut().kept, kept);
        answer.map_err(|error| failure(&self.store, &error, budget))
    }
}

/// What a call of the work is about.
#[derive(Clone, Copy)]
struct Given {
    /// What its processor time is measured by.
    rows: u32,
    bytes: usize,
    /// When it was received, Unix nanoseconds.
    received_ns: u64,
}

impl Given {
    /// Of nothing but that something has happened.
    const NOTICE: Given = Given { rows: 1, bytes: 0, received_ns: 0 };

    /// All of a payload can be read, whatever the columns are.
    fn batch(call: &Call<'_>, payload_bytes: usize) -> Given {
        Given { rows: call.columns.rows(), bytes: payload_bytes, received_ns: call.received_ns }
    }

    fn rows(batch: &Batch<'_>) -> Given {
        let bytes = |column: &Column| match column {
            Column::Text(text) => text.bytes.len(),
            Column::Num(num) => num.values.len() * size_of::<i64>(),
        };
        Given { rows: batch.rows, bytes: batch.columns.iter().map(bytes).sum(), received_ns: batch.received_ns }
    }
}

/// An instance is only asked for what its generation's world is.
const OTHER_WORLD: &str = "the plugin is of another world";

/// Columns, groups and signal as the contract has them.
fn arguments<'a>(call: &Call<'a>) -> (Vec<types::ColumnParam<'a>>, types::Groups<'a>, u8) {
    let columns = call.columns.columns().iter().map(convert::column).collect();
    let groups = types::Groups { resources: call.columns.resources(), scopes: call.columns.scopes() };
    (columns, groups, convert::signal(call.signal))
}

/// Processor time of each call but that of the work. A light plugin is started and saved on its lane, between two blocks; one
/// that fails, or grows, again and again at every block. A heavy one has a thread, and an interpreter starts the user's
/// program in it.
fn start_budget(class: PluginClass) -> Duration {
    match class {
        PluginClass::Light => Duration::from_millis(50),
        PluginClass::Heavy => Duration::from_secs(10),
    }
}

/// Lets the guest enter, for as long as what is returned lives, with this much processor time.
fn begin(store: &mut Store<Host>, budget: Duration) -> Guest {
    let budget_ns = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
    let host = store.data_mut();
    host.cpu_end_ns = clock::thread_cpu_ns().saturating_add(budget_ns);
    host.memory.was_denied = false;
    host.last_error = None;
    let running = host.environment.ticker.enter();
    store.set_epoch_deadline(1);
    running
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
        _ => CallError::Trap(clean(&trap(error, store.data().last_error.as_deref()), MESSAGE_BYTES)),
    }
}

/// Why, what the plugin said of it, and where, in one line: what a panic says is in the log line before its trap, which says
/// nothing itself.
fn trap(error: &wasmtime::Error, said: Option<&str>) -> String {
    let trace = error.downcast_ref::<WasmBacktrace>();
    let place = trace.map(ToString::to_string);
    let causes = error.chain().map(ToString::to_string).filter(|cause| Some(cause) != place.as_ref());
    let mut text = causes.collect::<Vec<_>>().join(": ").replace("wasm trap: ", "");
    if let Some(said) = said {
        text.push_str("; it said: ");
        text.push_str(said);
    }
    for (index, frame) in trace.iter().flat_map(|trace| trace.frames()).enumerate() {
        text.push_str(if index == 0 { "; in " } else { "; " });
        match frame.func_name() {
            // Without the hash that the compiler adds.
            Some(name) => text.push_str(&format!("{:#}", rustc_demangle::demangle(name))),
            None => text.push_str(&format!("function {}", frame.func_index())),
        }
    }
    text
}
