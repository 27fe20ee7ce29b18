//! A plugin that is ready to go live on any lane: loaded, configured, tried.
//!
//! Made by the control thread. Trying it means a batch of made-up rows with a value in every field that the plugin reads:
//! one that traps, runs out of its budget or answers against the rules there never meets a sender's rows. Nor does a light one
//! that cannot be restarted within the time that its lane has for that.

use std::sync::Arc;

use super::ask::Ask;
use super::live::Live;
use crate::block::{Made, Meta, Signal, SourceId};
use crate::config::{OnError, Plugin, PluginClass, PluginComponent};
use crate::otlp::columns::Level;
use crate::otlp::writer::{close_message, open_message, push_bytes_field};
use crate::plugin::counters::Counters;
use crate::plugin::{CallError, Engine, Generation, LoadError};

/// Rows of the batch that a plugin is tried with.
const TRIED_ROWS: u64 = 8;

/// Why a plugin cannot go live.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be loaded.
    #[error("processors.{plugin}: {path}")]
    Load {
        /// Its name in the configuration.
        plugin: String,
        /// The component.
        path: String,
        /// Why not.
        source: LoadError,
    },
    /// It does not change blocks.
    #[error("processors.{plugin}: {path}: a plugin of the world {world}; processors take transform, enrich and sample")]
    World {
        /// Its name in the configuration.
        plugin: String,
        /// The component.
        path: String,
        /// What it does.
        world: &'static str,
    },
    /// It says that what it fails on may not pass, and the operator says that it does.
    #[error(
        "processors.{plugin}.on_error: the plugin removes what must not be kept, so a batch that it fails on may not \
         pass; use quarantine or drop"
    )]
    MayNotPass {
        /// Its name in the configuration.
        plugin: String,
    },
    /// It failed on a batch of made-up rows.
    #[error("processors.{plugin}: {path}: the plugin failed on a batch of made-up rows: {why}")]
    Tried {
        /// Its name in the configuration.
        plugin: String,
        /// The component.
        path: String,
        /// How.
        why: String,
    },
    /// It cannot be replaced by another instance of itself, as one that has grown is.
    #[error("processors.{plugin}: {path}: the plugin cannot be restarted with what it saves: {why}")]
    Restart {
        /// Its name in the configuration.
        plugin: String,
        /// The component.
        path: String,
        /// Why not.
        why: CallError,
    },
}

/// See the module.
pub struct Program {
    /// As it was configured.
    pub plugin: Plugin,
    /// What runs.
    pub generation: Arc<Generation>,
    /// What runs beside it.
    pub shadow: Option<Arc<Generation>>,
}

impl Program {
    /// Loads a plugin and its shadow and tries both. `number` is that of the generation.
    ///
    /// # Errors
    ///
    /// See [`ProgramError`].
    pub fn load(engine: &Engine, plugin: &Plugin, number: u64) -> Result<Arc<Program>, ProgramError> {
        let generation = |component: &PluginComponent| {
            let loaded = Generation::load(engine, plugin, component, number);
            let (plugin, path) = (plugin.name.clone(), component.path.display().to_string());
            let generation = match loaded {
                Ok(generation) => generation,
                Err(source) => return Err(ProgramError::Load { plugin, path, source }),
            };
            match Ask::of(generation.world) {
                Some(_) => Ok(Arc::new(generation)),
                None => Err(ProgramError::World { plugin, path, world: generation.world.name() }),
            }
        };
        let (live, shadow) = (generation(&plugin.component)?, plugin.shadow.as_ref().map(generation).transpose()?);
        if live.setup.fail_closed && plugin.on_error == OnError::Pass {
            return Err(ProgramError::MayNotPass { plugin: plugin.name.clone() });
        }
        let alone = |generation: &Arc<Generation>| {
            Arc::new(Program { plugin: plugin.clone(), generation: Arc::clone(generation), shadow: None })
        };
        try_out(&alone(&live), &plugin.component)?;
        if let (Some(shadow), Some(component)) = (&shadow, &plugin.shadow) {
            try_out(&alone(shadow), component)?;
        }
        Ok(Arc::new(Program { plugin: plugin.clone(), generation: live, shadow }))
    }

    /// What it does may be needed to keep what is secret from the disk.
    #[must_use]
    pub fn is_fail_closed(&self) -> bool {
        self.generation.setup.fail_closed
    }
}

fn try_out(program: &Arc<Program>, component: &PluginComponent) -> Result<(), ProgramError> {
    let mut live = Live::new(program, Arc::new(Counters::default()));
    for signal in program.generation.setup.signals.clone() {
        let (meta, mut payload) = made_up(program, signal);
        live.transform(&meta, &mut payload, &mut Vec::new()).map_err(|failure| ProgramError::Tried {
            plugin: program.plugin.name.clone(),
            path: component.path.display().to_string(),
            why: failure.to_string(),
        })?;
    }
    // A heavy one has a thread for that, and its start may take seconds.
    if program.plugin.class == PluginClass::Heavy {
        return Ok(());
    }
    live.restart().map_err(|why| ProgramError::Restart {
        plugin: program.plugin.name.clone(),
        path: component.path.display().to_string(),
        why,
    })
}

/// Rows with a text under every key that the plugin reads.
fn made_up(program: &Program, signal: Signal) -> (Meta, Vec<u8>) {
    let fields = &program.generation.setup.fields;
    let push_attributes = |level, key, out: &mut Vec<u8>| {
        for field in fields.iter().filter(|field| field.read && field.level == level) {
            let attribute = open_message(out, key);
            push_bytes_field(out, 0x0a, field.key.as_bytes());
            let value = open_message(out, 0x12);
            push_bytes_field(out, 0x0a, b"made up");
            close_message(out, value);
            close_message(out, attribute);
        }
    };
    let mut out = Vec::new();
    let around = open_message(&mut out, 0x0a);
    let resource = open_message(&mut out, 0x0a);
    push_attributes(Level::Resource, 0x0a, &mut out);
    close_message(&mut out, resource);
    let scopes = open_message(&mut out, 0x12);
    for id in 1..=TRIED_ROWS {
        let row = open_message(&mut out, 0x12);
        if signal == Signal::Traces {
            push_bytes_field(&mut out, 0x0a, &u128::from(id).to_be_bytes());
            push_bytes_field(&mut out, 0x12, &id.to_be_bytes());
            push_bytes_field(&mut out, 0x2a, b"made up");
        }
        push_attributes(Level::Record, if signal == Signal::Traces { 0x4a } else { 0x32 }, &mut out);
        close_message(&mut out, row);
    }
    close_message(&mut out, scopes);
    close_message(&mut out, around);
    let mut meta = Meta::empty(signal, Made::Passed, SourceId::MIXED, 1);
    meta.spans = u32::try_from(TRIED_ROWS).expect("a few");
    (meta, out)
}
