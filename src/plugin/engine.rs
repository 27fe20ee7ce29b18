//! The one engine of the process: compiles components, holds the memory that instances live in, lets time pass for them.
//!
//! There are two settings of it, by class. Light plugins live in slots that are reserved once, so that an instance is made in
//! microseconds; heavy ones are few and big and take their memory from the system. What no plugin needs is switched off:
//! WASI is not even compiled in, nor are threads, 64-bit memories, garbage collection, exceptions or asynchrony.
//!
//! There is one only where plugins are configured, and with it the thread that lets time pass (`epoch`).

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::epoch::Ticker;
use crate::config::PluginClass;
use crate::sys::executable;

/// Bytes of stack that WebAssembly may use on the caller's thread. The lanes' threads have 2 MiB.
const LIGHT_STACK_BYTES: usize = 256 << 10;
/// Bytes of stack of interpreters: QuickJS and CPython need 2 MiB; their threads have more.
const HEAVY_STACK_BYTES: usize = 4 << 20;

/// Plugins that there is always room for, for a reload may bring any: as many as a configuration may have, and those of the one
/// before it, which leave when their last blocks are through. A slot that is not used costs half a KiB, and addresses.
const LEAST_PLUGINS: u32 = 2 * 32;

/// Slots at most: half of the addresses of a process, for hundreds of lanes.
const MOST_INSTANCES: u32 = 16_384;

/// Instances of a generation that is being tried: one takes over from another.
const TRIED: u32 = 2;

/// Parts of one component: `millrace plugin build` makes three core instances and two tables.
const LIGHT_CORE_INSTANCES: u32 = 16;
const LIGHT_TABLES: u32 = 8;

/// Addresses set aside for the memory of one instance: all that 32 bits can name.
const SLOT_BYTES: usize = 4 << 30;

/// Frames of a trap's backtrace: the first few say where.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(8).expect("it is not zero");

/// How many instances to have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Lanes of the process.
    pub lanes: u32,
    /// Light plugins in the configuration.
    pub plugins: u32,
}

impl Pool {
    /// Each plugin and its shadow on each lane, and one there that takes over from another: a lane is one thread.
    fn instances(self) -> u32 {
        let of_lane = self.plugins.max(LEAST_PLUGINS).saturating_mul(2).saturating_add(1);
        self.lanes.saturating_mul(of_lane).saturating_add(TRIED).min(MOST_INSTANCES)
    }
}

/// What there is room for outside of lanes: some ten destinations with all their senders.
const OUTSIDE: Pool = Pool { lanes: 4, plugins: LEAST_PLUGINS };

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel refuses to run machine code that the process makes.
    #[error(
        "plugins need memory that can be made executable, and this process may not have any ({0}); under systemd \
         install the drop-in systemd/millrace.service.d/plugins.conf"
    )]
    NotExecutable(std::io::Error),
    /// The memory for instances cannot be reserved, or the processor is not one that code can be made for.
    #[error("the engine of plugins cannot be started: {0}")]
    Unusable(String),
}

/// See the module.
pub struct Engine {
    light: wasmtime::Engine,
    heavy: wasmtime::Engine,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// The engine of this process, with its ticking thread.
    ///
    /// # Errors
    ///
    /// See [`EngineError`].
    pub fn start(pool: Pool) -> Result<Engine, EngineError> {
        executable::may_be_made().map_err(EngineError::NotExecutable)?;
        let unusable = |error: wasmtime::Error| EngineError::Unusable(format!("{error:#}"));
        let light = wasmtime::Engine::new(&light(pool)).map_err(unusable)?;
        let heavy = wasmtime::Engine::new(&heavy()).map_err(unusable)?;
        let ticked = [light.clone(), heavy.clone()];
        let ticker = Ticker::start(move || ticked.iter().for_each(wasmtime::Engine::increment_epoch))
            .map_err(|error| EngineError::Unusable(error.to_string()))?;
        Ok(Engine { light, heavy, ticker: Arc::new(ticker) })
    }

    /// The engine of plugins that are not in a lane, encoders and decoders: one for all of them, for as long as there are any.
    ///
    /// # Errors
    ///
    /// See [`EngineError`].
    pub fn outside_lanes() -> Result<Arc<Engine>, EngineError> {
        static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());
        // What it guards is whole at every moment.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = shared.upgrade() {
            return Ok(engine);
        }
        let engine = Arc::new(Engine::start(OUTSIDE)?);
        *shared = Arc::downgrade(&engine);
        Ok(engine)
    }

    pub(super) fn of(&self, class: PluginClass) -> &wasmtime::Engine {
        match class {
            PluginClass::Light => &self.light,
            PluginClass::Heavy => &self.heavy,
        }
    }

    /// Where guests enter while they run.
    pub(super) fn ticker(&self) -> Arc<Ticker> {
        Arc::clone(&self.ticker)
    }
}

fn light(pool: Pool) -> Config {
    let instances = pool.instances();
    let mut slots = PoolingAllocationConfig::new();
    slots
        .total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(LIGHT_CORE_INSTANCES))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(LIGHT_TABLES))
        .max_core_instances_per_component(LIGHT_CORE_INSTANCES)
        .max_memories_per_component(1)
        .max_tables_per_component(LIGHT_TABLES)
        // As much as a slot reserves so that accesses need no check: what a plugin may have is metered in its store.
        .max_memory_size(SLOT_BYTES)
        // Clearing this much is cheaper than giving it back to the kernel and faulting it in again: it holds the stack, the
        // data and the heap of a small guest.
        .linear_memory_keep_resident(256 << 10);
    let mut config = common();
    config
        // Milliseconds of work for the loader's thread, which gives way to the lanes; threads of the compiler take more from
        // them than they save it.
        .parallel_compilation(false)
        .wasm_tail_call(false)
        .max_wasm_stack(LIGHT_STACK_BYTES)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(slots));
    config
}

fn heavy() -> Config {
    let mut config = common();
    // QuickJS is built with tail calls.
    config.wasm_tail_call(true);
    config.max_wasm_stack(HEAVY_STACK_BYTES).async_stack_size(2 * HEAVY_STACK_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    config
}

fn common() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        // Images of memories would be made by memfd_create, which the service's filter of system calls refuses.
        .memory_init_cow(false)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES))
        // The same floats on every machine: a plugin that is run again says the same.
        .relaxed_simd_deterministic(true)
        // What joins the parts of a component copies between two memories, and without this panics where it is compiled.
        // How many there are is limited by the pool, how big they are together by the meter of the store.
        .wasm_multi_memory(true)
        .wasm_memory64(false);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let after = lock.split_once("name = \"wasmtime\"\nversion = \"").unwrap().1;
        let version = format!("(wasmtime {})", after.split_once('"').unwrap().0);
        assert!(crate::plugin::VERSION.ends_with(&version), "the lock file has {version}");
    }

    #[test]
    fn there_is_room_for_all_plugins_of_two_configurations_with_their_shadows_on_every_lane() {
        assert_eq!(Pool { lanes: 4, plugins: 2 }.instances(), 4 * (2 * 64 + 1) + 2);
        assert_eq!(Pool { lanes: 4, plugins: 100 }.instances(), 4 * (2 * 100 + 1) + 2);
        assert_eq!(Pool { lanes: 512, plugins: 2 }.instances(), 16_384);
        assert!(include_str!("../config/processors.rs").contains("const MAX_PLUGINS: usize = 32;"));
    }
}
