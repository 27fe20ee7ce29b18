//! A plugin on trial: what it is told on the command line, and the plugin loaded and configured so.
//!
//! Calls are made by [`crate::pipeline::trial`]. The settings that are not given are those of the configuration file, read by
//! the same code: there is no second list of defaults. What the component imports is granted, except that tables have to
//! be named; where a configuration would have to grant it by name, the line that does so is known.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::block::Signal;
use crate::cli::source::Unusable;
use crate::config::{self, File, Host, Inputs, Plugin};
use crate::pipeline::trial;
use crate::plugin::load::{self, Source};
use crate::plugin::{Engine, Generation, LoadError, Pool, World};

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
    /// As a test is told: its config.json, and each of its NAME.csv as a table; goes before the others.
    #[arg(long, value_name = "TEST")]
    pub(super) like: Option<PathBuf>,
}

impl ToldArgs {
    /// With what `like` says.
    fn whole(&self) -> anyhow::Result<ToldArgs> {
        let mut told = self.clone();
        let Some(test) = told.like.take() else { return Ok(told) };
        let entries = std::fs::read_dir(&test).map_err(|error| Unusable(format!("{}: {error}", test.display())))?;
        for entry in entries {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "config.json") {
                told.config = Some(format!("@{}", path.display()));
            } else if path.extension().is_some_and(|extension| extension == "csv") {
                let table = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                told.lookups.push(format!("{table}={}", path.display()));
            }
        }
        Ok(told)
    }
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

/// The configuration of the plugin in this file, as if these few lines stood in one. It may use what a configuration
/// grants that says nothing of it.
fn configured(file: &Path, told: &ToldArgs) -> anyhow::Result<Plugin> {
    let told = told.whole()?;
    let name = format!("plugin/{}", name(file));
    let class = class(file, &told).word();
    let lookups = if told.lookups.is_empty() { "" } else { ", lookups: {a-table: x.csv}" };
    let text = format!(
        "processors: {{{name}: {{path: x.wasm, class: {class}{lookups}}}}}\n\
         service: {{pipelines: {{traces: {{processors: [{name}]}}}}}}\n"
    );
    let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
    let file_text = Some(File { name: "these arguments", text: &text });
    let inputs = Inputs { file: file_text, environment: &|_| None, flags: &[], proxytrace: false, host };
    let loaded = config::load(&inputs).map_err(|error| Unusable(error.to_string()))?;
    let mut plugin = loaded.config.plugins.into_iter().next().context("the configuration has lost the plugin")?;
    plugin.component.path = file.to_owned();
    plugin.component.config = config(told.config.as_deref())?;
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

/// Stands before the reason when a plugin without a configuration does not start.
const TOLD_NOTHING: &str = "it was told nothing (--config JSON, or --like TEST for what a test of it says)";

/// A plugin that was loaded and configured.
pub(super) struct Trial {
    // Before the engine, so that it is dropped before it.
    pub(super) hand: trial::Trial,
    pub(super) plugin: Plugin,
    /// The line of a configuration that grants what it imports, where that is more than is granted without one.
    pub(super) capabilities_line: Option<String>,
    /// What it was compiled with.
    pub(super) engine: Engine,
}

impl Trial {
    /// Loads what `source` was read from.
    pub(super) fn load(arguments: &ComponentArgs, source: &Source) -> anyhow::Result<Trial> {
        Trial::start(configured(&arguments.file, &arguments.told)?, source)
    }

    /// Loads a plugin that is told nothing.
    pub(super) fn of_bytes(component: &[u8]) -> anyhow::Result<Trial> {
        let source = Source::new(component.to_vec())?;
        Trial::start(configured(Path::new("inside"), &ToldArgs::default())?, &source)
    }

    fn start(mut plugin: Plugin, source: &Source) -> anyhow::Result<Trial> {
        let uses = &source.manifest.uses;
        let needs_more = uses.iter().any(|capability| !plugin.capabilities.contains(capability));
        let capabilities_line = needs_more.then(|| load::capabilities_line(&plugin.capabilities, uses));
        plugin.capabilities.clone_from(uses);
        let engine = Engine::start(Pool { lanes: 1, plugins: 1 })?;
        let package = load::load_source(&engine, &plugin, &plugin.component, source, None)?;
        let generation = Generation::new(package, &plugin, &plugin.component, 1);
        let generation = Arc::new(match generation {
            Err(error @ LoadError::Configure(_)) if plugin.component.config == "null" => {
                return Err(anyhow::Error::from(error).context(TOLD_NOTHING));
            }
            generation => generation?,
        });
        Ok(Trial { hand: trial::Trial::new(&plugin, generation), plugin, capabilities_line, engine })
    }

    /// What it does.
    pub(super) fn world(&self) -> World {
        self.generation().world
    }

    /// What is known of it.
    pub(super) fn generation(&self) -> &Generation {
        self.hand.generation()
    }

    /// What it is shown, or makes: spans if it may be spans.
    pub(super) fn signal(&self) -> Signal {
        let signals = &self.generation().setup.signals;
        if signals.contains(&Signal::Traces) { Signal::Traces } else { signals[0] }
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
    fn a_plugin_can_be_told_what_a_test_of_it_is_told() {
        let test = tempfile::tempdir().unwrap();
        let file = |name: &str| test.path().join(name).display().to_string();
        std::fs::write(file("config.json"), "{}").unwrap();
        std::fs::write(file("sites.csv"), "a\n").unwrap();
        let (config, like) = (Some("1".to_owned()), Some(test.path().to_owned()));
        let told = ToldArgs { config, like, ..ToldArgs::default() }.whole().unwrap();
        assert_eq!(told.config, Some(format!("@{}", file("config.json"))));
        assert_eq!(told.lookups, [format!("sites={}", file("sites.csv"))]);
        let like = Some(PathBuf::from("/no/such"));
        assert!(ToldArgs { like, ..ToldArgs::default() }.whole().unwrap_err().is::<Unusable>());
    }

    #[test]
    fn tables_are_named() {
        assert_eq!(table("sites=/etc/a=b.csv").unwrap(), ("sites".to_owned(), PathBuf::from("/etc/a=b.csv")));
        assert!(table("=x").is_err() && table("sites").is_err());
    }
}
