//! What every plugin is: configured once, perhaps saved and restored when it is replaced.
//!
//! An instance belongs to one lane and is called by one thread at a time, so a plugin's struct needs no locks. What it
//! learns is lost with the process, and with the instance unless [`Plugin::save`] gives it.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::host::{self, Severity};

/// What a plugin is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Signal {
    /// Spans.
    Span = 0,
    /// Log records.
    Log = 1,
}

impl From<u8> for Signal {
    // A plugin is only given what it asked for, and it can ask for these alone.
    fn from(number: u8) -> Self {
        if number == Self::Log as u8 { Self::Log } else { Self::Span }
    }
}

/// A plugin, whatever its world. `#[derive(Plugin)]` implements it for a struct that is its own configuration, and for one
/// without fields; signals and size of a batch are then given as `#[plugin(signals(span, log), max_rows = 512, fail_closed)]`.
pub trait Plugin: Sized + 'static {
    /// What the operator may write in the plugin's `config`.
    type Config: DeserializeOwned;

    /// The signals that the plugin wants.
    const SIGNALS: &'static [Signal] = &[Signal::Span];

    /// Rows of the largest batch that it wants; 0 for any.
    const MAX_ROWS: u32 = 0;

    /// The plugin removes what must not be kept: a batch that it fails on is held back, never passed.
    const FAIL_CLOSED: bool = false;

    /// A JSON Schema of the configuration, for whoever edits it; empty for none.
    const CONFIG_SCHEMA: &'static str = "";

    /// Makes the instance, before anything else; counters are made here. There is one on each lane, and another after every
    /// trap.
    ///
    /// # Errors
    /// Says what is wrong with the configuration; the plugin then does not go live, and one that ran before stays.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// What is worth keeping when the instance is replaced, at most 1 MiB.
    fn save(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over what the instance before it saved, perhaps by another version of the plugin.
    ///
    /// # Errors
    /// Keeps this instance from going live.
    fn restore(&mut self, _saved: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// The configuration of a plugin that has none: any key is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(crate = "serde", deny_unknown_fields)]
pub struct NoConfig {}

/// A plugin made from the operator's JSON; nothing written counts as `{}`.
pub(crate) fn make<P: Plugin>(config: &str) -> Result<P, String> {
    let config = match config.trim() {
        "" | "null" => "{}",
        written => written,
    };
    P::new(serde_json::from_str(config).map_err(|error| format!("configuration: {error}"))?)
}

/// The instance of a plugin within its component.
#[derive(Debug)]
pub struct Slot<P>(RefCell<Option<P>>);

impl<P: Plugin> Slot<P> {
    /// No instance yet.
    #[must_use]
    pub const fn empty() -> Self {
        Self(RefCell::new(None))
    }

    /// Makes the instance. A panic is written to the host's log from here on: the trap that it ends in says nothing.
    ///
    /// # Errors
    /// When the configuration is not what the plugin takes.
    pub fn configure(&self, config: &str) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| host::log(Severity::Error, &panic.to_string())));
        *self.0.borrow_mut() = Some(make(config)?);
        Ok(())
    }

    /// Calls into the instance.
    ///
    /// # Errors
    /// What `call` answers, or that there is no instance.
    pub fn with<T>(&self, call: impl FnOnce(&mut P) -> Result<T, String>) -> Result<T, String> {
        call(self.0.borrow_mut().as_mut().ok_or("not configured")?)
    }
}
