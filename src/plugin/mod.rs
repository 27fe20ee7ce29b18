//! The host of plugins: runs components of users in a sandbox and believes nothing that they say.
//!
//! [`Engine`] is one a process; [`load`] reads a file, judges it by its names and compiles it; a [`Generation`] is what all
//! lanes share of a plugin that was loaded and configured; an [`Instance`] is its place on one lane, where calls are made.
//! `wit/` is the contract with the plugin.
//!
//! A call takes columns and gives back a raw answer ([`answers`]), or says why not ([`CallError`]). The batch itself never
//! enters the sandbox: whatever happens there, it is as it was. Whether the patch is good is for
//! [`edit::check`](crate::otlp::edit) to say: this module knows nothing of policies or chains, and no type of wasmtime is
//! seen outside of it.

pub mod answers;
mod bindings;
mod cache;
pub mod circuit;
pub mod counters;
mod engine;
mod epoch;
mod error;
mod exports;
mod generation;
mod host;
mod imports;
mod instance;
pub mod load;
mod manifest;
mod sandbox;
pub mod traces;

pub use answers::{Answer, Call};
pub use cache::{Cache, CacheError};
pub use engine::{Engine, EngineError, Pool};
pub use error::{CallError, LoadError};
pub use generation::{Generation, Info, Setup};
pub use imports::lookup::TableError;
pub use instance::Instance;
pub use manifest::{Manifest, Names, World, names};

/// Our version and that of the sandbox, for `--version`. wasmtime does not say its own: a test compares it with the lock file.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (wasmtime 48.0.8)");

#[cfg(test)]
pub(crate) mod tests;
