//! A plugin on trial: loaded, configured and called as a lane would, with the time that each part takes.
//!
//! The settings that are not given are those of the configuration file, read by the same code: there is no second list of
//! defaults. What the component imports is granted, except that tables have to be named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::block::Signal;
use crate::cli::source::Unusable;
use crate::config::{self, File, Host, Inputs, Plugin};
use crate::otlp::columns::Columns;
use crate::otlp::edit::{self, Applied};
use crate::otlp::slice;
use crate::plugin::counters::Counters;
use crate::plugin::load::{self, Source};
use crate::plugin::{Answer, Call, Engine, Generation, Instance, Pool, World};
use crate::sys::clock;

/// When every batch of a trial was received, Unix nanoseconds: a trial says the same tomorrow.
const RECEIVED_NS: u64 = 1_767_225_600_000_000_000;

/// Bytes of a component at which it is taken for one with an interpreter inside. QuickJS has twice as much.
const INTERPRETER_BYTES: u64 = 512 << 10;

/// A component, and what it is told.
#[derive(Clone, Debug, Args)]
pub(super) struct ComponentArgs {
    /// The component, as `millrace plugin build` makes it.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) told: ToldArgs,
}

/// What a plugin is told, and given.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ToldArgs {
    /// What stands under `config` in the configuration, as JSON; @FILE reads it from a file.
    #[arg(long, value_name = "JSON")]
    pub(super) config: Option<String>,
    /// Where it is to run: heavy gives interpreters (JavaScript, Python) the stack, memory and time that they need; without
    /// this a component of more than 512 KiB is taken for one.
    #[arg(long)]
    pub(super) class: Option<ClassWord>,
    /// A table for `lookup`: NAME=FILE.
    #[arg(long = "lookup", value_name = "NAME=FILE")]
    pub(super) lookups: Vec<String>,
}

/// `class` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClassWord {
    /// On its lane.
    Light,
    /// On a thread of its own.
    Heavy,
}

impl ClassWord {
    /// As the configuration says it.
    pub(super) fn word(self) -> &'static str {
        match self {
            ClassWord::Light => "light",
            ClassWord::Heavy => "heavy",
        }
    }
}

/// The configuration of the plugin in this file, as if these few lines stood in one.
pub(super) fn configured(file: &Path, told: &ToldArgs, source: &Source) -> anyhow::Result<Plugin> {
    let name = format!("plugin/{}", name(file));
    let class = class(file, told).word();
    let text = format!(
        "processors: {{{name}: {{path: x.wasm, class: {class}}}}}\n\
         service: {{pipelines: {{traces: {{processors: [{name}]}}}}}}\n"
    );
    let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
    let file_text = Some(File { name: "these arguments", text: &text });
    let inputs = Inputs { file: file_text, environment: &|_| None, flags: &[], proxytrace: false, host };
    let loaded = config::load(&inputs).map_err(|error| Unusable(error.to_string()))?;
    let mut plugin = loaded.config.plugins.into_iter().next().context("the configuration has lost the plugin")?;
    plugin.component.path = file.to_owned();
    plugin.component.config = config(told.config.as_deref())?;
    plugin.capabilities.clone_from(&source.manifest.uses);
    plugin.lookups = told.lookups.iter().map(|lookup| table(lookup)).collect::<Result<_, _>>()?;
    Ok(plugin)
}

/// Where the plugin is to run.
pub(super) fn class(file: &Path, told: &ToldArgs) -> ClassWord {
    let is_big = || std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > INTERPRETER_BYTES);
    told.class.unwrap_or_else(|| if is_big() { ClassWord::Heavy } else { ClassWord::Light })
}

/// What a plugin is called after its file: letters, digits and hyphens.
pub(super) fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// The JSON that `configure` is given.
fn config(given: Option<&str>) -> Result<String, Unusable> {
    let text = match given.map(|text| (text, text.strip_prefix('@'))) {
        None => return Ok("null".to_owned()),
        Some((_, Some(path))) => {
            std::fs::read_to_string(path).map_err(|error| Unusable(format!("--config: {path}: {error}")))?
        }
        Some((text, None)) => text.to_owned(),
    };
    let checked = serde_json::from_str::<serde_json::Value>(&text);
    checked.map(|json| json.to_string()).map_err(|error| Unusable(format!("--config is no JSON: {error}")))
}

fn table(lookup: &str) -> Result<(String, PathBuf), Unusable> {
    let parts = lookup.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty());
    let (name, path) = parts.ok_or_else(|| Unusable(format!("--lookup {lookup}: write NAME=FILE")))?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// Processor time of the parts of a call, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Fields to columns.
    pub(super) gather_ns: u64,
    /// The plugin, and the way to it and back.
    pub(super) call_ns: u64,
    /// Proof that the answer can be applied.
    pub(super) check_ns: u64,
    /// The payload written anew.
    pub(super) apply_ns: u64,
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.gather_ns += other.gather_ns;
        self.call_ns += other.call_ns;
        self.check_ns += other.check_ns;
        self.apply_ns += other.apply_ns;
    }
}

/// What became of a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What it is now; empty when no row is left.
    pub(super) payload: Vec<u8>,
    /// Rows that were shown.
    pub(super) rows: u32,
    /// Rows that were changed and kept.
    pub(super) edited: u32,
    /// Rows that were dropped.
    pub(super) dropped: u32,
    /// What it took.
    pub(super) cost: Cost,
}

/// A plugin that was loaded and configured.
pub(super) struct Trial {
    // Before the engine, so that it is dropped before it.
    instance: Instance,
    pub(super) generation: Arc<Generation>,
    pub(super) plugin: Plugin,
    world: World,
    columns: Columns,
    /// What it was compiled with.
    pub(super) engine: Engine,
}

impl Trial {
    /// Loads what `source` was read from.
    pub(super) fn load(arguments: &ComponentArgs, source: &Source) -> anyhow::Result<Trial> {
        Trial::start(configured(&arguments.file, &arguments.told, source)?, source)
    }

    /// Loads a plugin that is told nothing.
    pub(super) fn of_bytes(component: &[u8]) -> anyhow::Result<Trial> {
        let source = Source::new(component.to_vec())?;
        Trial::start(configured(Path::new("inside"), &ToldArgs::default(), &source)?, &source)
    }

    fn start(plugin: Plugin, source: &Source) -> anyhow::Result<Trial> {
        let engine = Engine::start(Pool { lanes: 1, plugins: 1 })?;
        let package = load::load_source(&engine, &plugin, &plugin.component, source, None)?;
        let generation = Arc::new(Generation::new(package, &plugin, &plugin.component, 1)?);
        let instance = Instance::new(Arc::clone(&generation), Arc::new(Counters::default()));
        let world = source.manifest.world;
        Ok(Trial { instance, generation, plugin, world, columns: Columns::default(), engine })
    }

    /// Forgets the instance with all that it remembers; the next call gets a new one.
    pub(super) fn renew(&mut self) {
        self.instance = Instance::new(Arc::clone(&self.generation), Arc::new(Counters::default()));
    }

    /// Memory of the instance after the last call, bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.instance.counters().memory_bytes.get()
    }

    /// Whether the plugin is one that records are shown to here, and wants to see these.
    pub(super) fn wants(&self, signal: Signal) -> bool {
        self.world == World::Transform && self.generation.selection(signal).is_some()
    }

    /// Shows a payload to the plugin, in as many calls as it wants, and applies its answers. What it does not want to see
    /// comes back as it was.
    pub(super) fn run(&mut self, signal: Signal, payload: &[u8]) -> anyhow::Result<Outcome> {
        anyhow::ensure!(
            self.world == World::Transform,
            "a plugin of the world {} is not called by hand; only those of the world transform are",
            self.world.name()
        );
        if !self.wants(signal) {
            return Ok(Outcome { payload: payload.to_vec(), ..Outcome::default() });
        }
        let most = self.generation.setup.max_rows;
        let mut outcome = Outcome::default();
        let mut ahead = payload.to_vec();
        loop {
            let mut rest = Vec::new();
            if most > 0 {
                let positions: Vec<u32> = (0..most).collect();
                let mut piece = Vec::new();
                slice::part(signal, &ahead, &positions, &mut piece, &mut rest);
                ahead = piece;
            }
            let one = self.call(signal, &mut ahead);
            match &one {
                Ok(_) if rest.is_empty() => self.instance.accept(),
                Ok(_) => {}
                Err(_) => self.instance.reject(),
            }
            let one = one?;
            outcome.payload.extend_from_slice(&one.payload);
            outcome.rows += one.rows;
            outcome.edited += one.edited;
            outcome.dropped += one.dropped;
            outcome.cost.add(one.cost);
            if rest.is_empty() {
                return Ok(outcome);
            }
            ahead = rest;
        }
    }

    fn call(&mut self, signal: Signal, payload: &mut Vec<u8>) -> anyhow::Result<Outcome> {
        let generation = Arc::clone(&self.generation);
        let selection = generation.selection(signal).context("the plugin does not want such records")?;
        let mut lap = Lap(clock::thread_cpu_ns());
        selection.gather(payload, &mut self.columns);
        let gather_ns = lap.lap();
        let call = Call { signal, columns: &self.columns, received_ns: RECEIVED_NS };
        let Answer { extra, patch } = self.instance.transform(&call, payload)?;
        let call_ns = lap.lap();
        let selection = &*selection.extended(extra).context("its answer brings a field that cannot be")?;
        let most_bytes = usize::try_from(self.plugin.limits.patch_bytes).unwrap_or(usize::MAX);
        let edits = edit::check(selection, &self.columns, patch, most_bytes).context("its answer breaks a rule")?;
        let check_ns = lap.lap();
        let mut out = Vec::new();
        let applied = edit::apply(payload, selection, &self.columns, &edits, &mut out);
        let cost = Cost { gather_ns, call_ns, check_ns, apply_ns: lap.lap() };
        let rows = self.columns.rows();
        Ok(match applied {
            Applied::Unchanged => Outcome { payload: payload.clone(), rows, cost, ..Outcome::default() },
            Applied::Changed { edited, dropped, .. } => Outcome { payload: out, rows, edited, dropped, cost },
        })
    }
}

/// Processor time of this thread since it was last asked.
struct Lap(u64);

impl Lap {
    fn lap(&mut self) -> u64 {
        let now = clock::thread_cpu_ns();
        now.saturating_sub(std::mem::replace(&mut self.0, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_plugins_come_from_their_files() {
        assert_eq!(name(Path::new("/opt/my_redact.v2.wasm")), "my-redact-v2");
        assert_eq!(name(Path::new("/")), "unnamed");
    }

    #[test]
    fn what_a_plugin_is_told_must_be_json() {
        assert_eq!(config(None).unwrap(), "null");
        assert_eq!(config(Some("{\"a\": 1}")).unwrap(), "{\"a\":1}");
        assert!(config(Some("{a: 1}")).unwrap_err().to_string().contains("--config is no JSON"));
        assert!(config(Some("@/no/such")).unwrap_err().to_string().contains("/no/such"));
    }

    #[test]
    fn tables_are_named() {
        assert_eq!(table("sites=/etc/a=b.csv").unwrap(), ("sites".to_owned(), PathBuf::from("/etc/a=b.csv")));
        assert!(table("=x").is_err() && table("sites").is_err());
    }
}
