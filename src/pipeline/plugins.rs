//! The plugins of the process: loaded before anything is received, changed by a reload, whole or not at all.
//!
//! The control thread loads, configures and tries a plugin; only then do lanes hear of it. Each lane goes over to the new
//! ones between two blocks; if one of them cannot, all go back. A plugin whose configuration and file are as they were
//! keeps running untouched. What is counted of a plugin belongs to its name and outlives all that.
//!
//! A plugin that goes together with a receiver stays in the chains for that receiver's last blocks, which were accepted when
//! it was in force: it leaves when nothing is under way ([`Plugins::look`]).

mod formats;
mod shown;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::sync::Unparker;

use super::receivers::of_lanes;
use super::sources;
use super::writer::{Change, Swap, on_a_deep_stack};
use crate::block::SourceId;
use crate::config::{Config, Plugin, PluginClass};
use crate::plugin::{Engine, EngineError, LoadError, Pool, load};
use crate::sys::clock;
use crate::telemetry::health::{Component, Health};
use crate::telemetry::metrics::Metrics;
use crate::transform::Chain;
use crate::transform::plugin::{Program, ProgramError, StepCounters, Wanted};

pub use formats::{Counted, Formats, counted};

/// The longest time that a lane may take to go over to other plugins.
const SWAP_LIMIT: Duration = Duration::from_secs(10);

/// Looks in a row at which nothing may be under way before a plugin leaves.
const LAST_LOOKS: u32 = 2;

/// Why plugins cannot go live.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is no engine to run them.
    #[error("processors: {0}")]
    Engine(#[from] EngineError),
    /// One of them cannot be used.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The file of one of them cannot be looked at.
    #[error("processors.{plugin}: {source}")]
    File {
        /// Its name in the configuration.
        plugin: String,
        /// Why not.
        source: LoadError,
    },
    /// The table of source ids cannot be used.
    #[error("the table of sources cannot be used")]
    Sources(#[from] io::Error),
    /// There is no thread to try them on.
    #[error("processors: plugins cannot be tried: {0}")]
    Thread(io::Error),
    /// A lane could not go over to them.
    #[error("processors: lane {lane} keeps the plugins that it has: {why}")]
    Lane {
        /// Which.
        lane: usize,
        /// Why.
        why: String,
    },
}

/// A plugin that is in force or is to be.
#[derive(Clone)]
struct Loaded {
    program: Arc<Program>,
    sources: Option<Vec<SourceId>>,
}

/// Plugins that were loaded and are not in force.
pub struct Prepared(Vec<Loaded>);

impl Prepared {
    /// Whether one of them removes what must not be kept.
    #[must_use]
    pub fn any_fail_closed(&self) -> bool {
        any_fail_closed(&self.0)
    }
}

/// A lane as the control thread reaches it.
struct LaneDoor {
    swaps: Sender<Swap>,
    writer: Unparker,
}

/// See the module.
pub struct Plugins {
    engine: Option<Engine>,
    /// What the configuration says.
    in_force: Vec<Loaded>,
    /// What the lanes run: that, and what leaves.
    running: Vec<Loaded>,
    /// Looks in a row at which nothing was under way, while something leaves.
    rested: u32,
    lanes: Vec<LaneDoor>,
    /// By lane, of every plugin that there ever was.
    counters: HashMap<String, Vec<Arc<StepCounters>>>,
    formats: Formats,
    metrics: Arc<Metrics>,
    component: Component,
}

/// Loads and tries the plugins of a configuration as a start would, and throws them away.
///
/// # Errors
///
/// As [`Plugins::load`].
pub fn check(config: &Config) -> Result<(), PluginError> {
    if config.plugins.is_empty() {
        return Ok(());
    }
    let engine = Engine::start(Pool { lanes: 1, plugins: 0 })?;
    for plugin in &config.plugins {
        on_a_deep_stack(|| Program::load(&engine, plugin, 1)).map_err(PluginError::Thread)??;
    }
    Ok(())
}

impl Plugins {
    /// Loads the plugins of a configuration. Nothing runs yet: see [`Plugins::chain`].
    ///
    /// # Errors
    ///
    /// Names the plugin, its file, and why it cannot be used.
    pub fn load(
        config: &Config,
        writers: Vec<Unparker>,
        metrics: &Arc<Metrics>,
        health: &Health,
    ) -> Result<(Plugins, Vec<Receiver<Swap>>), PluginError> {
        let (lanes, changes) = writers
            .into_iter()
            .map(|writer| {
                let (swaps, changes) = channel::unbounded();
                (LaneDoor { swaps, writer }, changes)
            })
            .unzip();
        let mut plugins = Plugins {
            engine: None,
            in_force: Vec::new(),
            running: Vec::new(),
            rested: 0,
            lanes,
            counters: HashMap::new(),
            formats: Formats::new(metrics),
            metrics: Arc::clone(metrics),
            component: health.component("plugins"),
        };
        let Prepared(loaded) = plugins.prepare(config)?;
        loaded.iter().for_each(|one| plugins.meet(&one.program.plugin.name));
        plugins.announce(&loaded);
        (plugins.running, plugins.in_force) = (loaded.clone(), loaded);
        plugins.show();
        Ok((plugins, changes))
    }

    /// The plugins of receivers and exporters, which are shown beside these.
    #[must_use]
    pub fn formats(&self) -> Formats {
        self.formats.clone()
    }

    /// The chain with which a lane starts.
    #[must_use]
    pub fn chain(&self, lane: usize) -> Chain {
        Chain::of_plugins(self.wanted(&self.running, lane))
    }

    /// Whether the chains need threads of their own.
    #[must_use]
    pub fn any_heavy(&self) -> bool {
        any_heavy(&self.running)
    }

    /// Whether one that runs removes what must not be kept.
    #[must_use]
    pub fn any_fail_closed(&self) -> bool {
        any_fail_closed(&self.running)
    }

    /// Loads the plugins of another configuration. What is in force stays as it is.
    ///
    /// # Errors
    ///
    /// As [`Plugins::load`].
    pub fn prepare(&mut self, config: &Config) -> Result<Prepared, PluginError> {
        if self.engine.is_none() && !config.plugins.is_empty() {
            let count = |count: usize| u32::try_from(count).expect("lanes and plugins are few");
            let pool = Pool { lanes: count(self.lanes.len()), plugins: count(config.plugins.len()) };
            self.engine = Some(Engine::start(pool)?);
        }
        let Some(engine) = &self.engine else { return Ok(Prepared(Vec::new())) };
        let mut loaded = Vec::new();
        for plugin in &config.plugins {
            let known = self.running.iter().find(|one| one.program.plugin.name == plugin.name);
            let number = known.map_or(0, |one| one.program.generation.number) + 1;
            let program = match known {
                Some(one) if is_as_it_was(&one.program, plugin)? => Arc::clone(&one.program),
                _ => on_a_deep_stack(|| Program::load(engine, plugin, number)).map_err(PluginError::Thread)??,
            };
            loaded.push(Loaded { program, sources: source_ids(config, plugin)? });
        }
        Ok(Prepared(loaded))
    }

    /// The plugins in force whose configuration is as it was and whose file is not.
    #[must_use]
    pub fn renewed(&self, Prepared(loaded): &Prepared) -> Vec<String> {
        let is_renewed = |next: &&Loaded| {
            self.in_force
                .iter()
                .any(|known| known.program.plugin == next.program.plugin && !Arc::ptr_eq(&known.program, &next.program))
        };
        loaded.iter().filter(is_renewed).map(|next| next.program.plugin.name.clone()).collect()
    }

    /// Puts prepared plugins into force on every lane. What ran for a source that is `gone` still does.
    ///
    /// # Errors
    ///
    /// When a lane cannot go over to them: then no lane does.
    pub fn adopt(&mut self, Prepared(loaded): Prepared, gone: &[SourceId]) -> Result<(), PluginError> {
        loaded.iter().for_each(|one| self.meet(&one.program.plugin.name));
        self.run(with_leaving(&self.running, &loaded, gone))?;
        self.announce(&loaded);
        self.in_force = loaded;
        self.show();
        Ok(())
    }

    /// Says what does not do well; to be called about once a second. `rests` says that sources that are gone have no
    /// connections, and that no ring holds anything: what they had decoded by then is in the rings at the next look, and when
    /// those rest too, what leaves is gone.
    pub fn look(&mut self, now: Duration, rests: bool) {
        let leaves = !is_same(&self.running, &self.in_force);
        self.rested = if leaves && rests { self.rested + 1 } else { 0 };
        if self.rested >= LAST_LOOKS {
            self.rested = 0;
            if let Err(error) = self.run(self.in_force.clone()) {
                tracing::warn!(%error, "plugins that are configured no more stay");
            }
        }
        self.set_health(now);
    }

    /// Says which of these were not in force before.
    fn announce(&self, loaded: &[Loaded]) {
        let is_new = |one: &&Loaded| !self.in_force.iter().any(|known| Arc::ptr_eq(&known.program, &one.program));
        for Loaded { program, .. } in loaded.iter().filter(is_new) {
            program.generation.announce(&program.plugin.name, &program.plugin.component.path);
        }
    }

    fn show(&self) {
        shown::show(&self.metrics, &self.in_force_counters());
        self.set_health(clock::monotonic());
    }

    fn set_health(&self, now: Duration) {
        shown::set_health(&self.component, &self.in_force_counters(), &self.formats.failing(now));
    }

    /// Has every lane run these, or none.
    fn run(&mut self, loaded: Vec<Loaded>) -> Result<(), PluginError> {
        let refused = self.tell(&loaded);
        if let Some((lane, why)) = refused {
            if let Some((lane, why)) = self.tell(&self.running) {
                tracing::error!(lane, why, "a lane could not go back to the plugins that it had");
            }
            return Err(PluginError::Lane { lane, why });
        }
        self.running = loaded;
        let runs = |name: &str| self.running.iter().any(|one| one.program.plugin.name == name);
        for (_, lanes) in self.counters.iter().filter(|(name, _)| !runs(name)) {
            // The instances went with the steps, so nobody else writes this.
            lanes.iter().for_each(|counters| counters.plugin.memory_bytes.set(0));
        }
        Ok(())
    }

    /// Tells all lanes, and waits for all; the first that could not.
    fn tell(&self, loaded: &[Loaded]) -> Option<(usize, String)> {
        let mut answers = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            let wanted = self.wanted(loaded, index);
            let change: Change = Box::new(move |chain| chain.adopt(wanted));
            let (answer, answered) = channel::bounded(1);
            // A lane that has ended says so by not answering.
            lane.swaps.send(Swap { change, needs_thread: any_heavy(loaded), answer }).ok();
            lane.writer.unpark();
            answers.push(answered);
        }
        let mut refused = None;
        for (index, answered) in answers.into_iter().enumerate() {
            let why = match answered.recv_timeout(SWAP_LIMIT) {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why,
                Err(_) => "it does not answer".to_owned(),
            };
            refused.get_or_insert((index, why));
        }
        refused
    }

    fn wanted(&self, loaded: &[Loaded], lane: usize) -> Vec<Wanted> {
        let one = |one: &Loaded| Wanted {
            program: Arc::clone(&one.program),
            sources: one.sources.clone(),
            counters: Arc::clone(&self.counters[&one.program.plugin.name][lane]),
        };
        loaded.iter().map(one).collect()
    }

    /// Counters for a plugin of this name on every lane, if there are none.
    fn meet(&mut self, name: &str) {
        if !self.counters.contains_key(name) {
            let counters: Vec<Arc<StepCounters>> = self.lanes.iter().map(|_| Arc::default()).collect();
            shown::register(&self.metrics, name, &counters);
            self.counters.insert(name.to_owned(), counters);
        }
    }

    fn in_force_counters(&self) -> Vec<(&str, &[Arc<StepCounters>])> {
        let names = self.in_force.iter().map(|one| one.program.plugin.name.as_str());
        names.map(|name| (name, &self.counters[name][..])).collect()
    }
}

/// The plugins of `next`, and of those that run so far what the sources that are `gone` had: their last blocks are under way
/// and are to go through as if nothing had changed. What leaves stands behind the nearest one before it that stays.
fn with_leaving(running: &[Loaded], next: &[Loaded], gone: &[SourceId]) -> Vec<Loaded> {
    let mut merged = next.to_vec();
    let mut at = 0;
    for one in running {
        let had = |source: &&SourceId| one.sources.as_ref().is_none_or(|sources| sources.contains(source));
        let had: Vec<SourceId> = gone.iter().filter(had).copied().collect();
        let known = merged.iter().position(|other| other.program.plugin.name == one.program.plugin.name);
        match known {
            Some(index) => {
                if let Some(sources) = &mut merged[index].sources {
                    let more: Vec<SourceId> = had.into_iter().filter(|id| !sources.contains(id)).collect();
                    sources.extend(more);
                }
                at = index + 1;
            }
            None if had.is_empty() => {}
            None => {
                merged.insert(at, Loaded { program: Arc::clone(&one.program), sources: Some(had) });
                at += 1;
            }
        }
    }
    merged
}

fn is_same(running: &[Loaded], in_force: &[Loaded]) -> bool {
    let is_same = |(a, b): (&Loaded, &Loaded)| Arc::ptr_eq(&a.program, &b.program) && a.sources == b.sources;
    running.len() == in_force.len() && running.iter().zip(in_force).all(is_same)
}

fn any_heavy(loaded: &[Loaded]) -> bool {
    loaded.iter().any(|one| one.program.plugin.class == PluginClass::Heavy)
}

fn any_fail_closed(loaded: &[Loaded]) -> bool {
    loaded.iter().any(|one| one.program.is_fail_closed())
}

/// Whether neither configuration nor file of a plugin, nor of its shadow, nor a table of theirs has changed.
fn is_as_it_was(program: &Program, plugin: &Plugin) -> Result<bool, PluginError> {
    if program.plugin != *plugin {
        return Ok(false);
    }
    let unread = |source| PluginError::File { plugin: plugin.name.clone(), source };
    let digest = |path: &Path| load::Source::read(path).map(|source| source.sha256).map_err(unread);
    let live = digest(&plugin.component.path)? == program.generation.sha256;
    let shadow = match (&plugin.shadow, &program.shadow) {
        (Some(component), Some(shadow)) => digest(&component.path)? == shadow.sha256,
        _ => true,
    };
    Ok(live && shadow && program.generation.has_tables_of(&plugin.lookups).map_err(unread)?)
}

/// The ids of the receivers that a plugin's filter names. A reload writes new ids down when nothing else can fail any more:
/// until then they are what [`super::receivers::Receivers::prepare`] makes them, so receivers come first here too.
fn source_ids(config: &Config, plugin: &Plugin) -> Result<Option<Vec<SourceId>>, PluginError> {
    if plugin.filter.sources.is_empty() {
        return Ok(None);
    }
    let mut names: Vec<&str> = of_lanes(config).map(|receiver| receiver.name.as_str()).collect();
    let receivers = names.len();
    names.extend(plugin.filter.sources.iter().map(String::as_str));
    let mut assigned = sources::assign(&config.state_directory, &names)?;
    Ok(Some(assigned.ids.split_off(receivers)))
}

#[cfg(test)]
mod tests {
    use super::super::receivers::Receivers;
    use super::*;
    use crate::config::{File, Host, Inputs};

    /// Two receivers that are new, and a plugin that is to see the second.
    const TEXT: &str = "
receivers:
  otlp/first: {protocols: {http: {endpoint: '127.0.0.1:0'}}}
  otlp/second: {protocols: {http: {endpoint: '127.0.0.1:0'}}}
processors: {plugin/redact: {path: r.wasm, filter: {sources: [otlp/second]}}}
service: {pipelines: {traces: {receivers: [otlp/first, otlp/second], processors: [plugin/redact]}}}
";

    #[test]
    fn a_plugin_that_comes_with_its_receiver_sees_that_one_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
        let file = Some(File { name: "m.yaml", text: TEXT });
        let environment = |name: &str| (name == "STATE_DIRECTORY").then(|| directory.path().display().to_string());
        let inputs = Inputs { file, environment: &environment, flags: &[], proxytrace: false, host };
        let config = crate::config::load(&inputs).unwrap().config;
        let receivers = Receivers::new(&config, 1, Vec::new()).prepare(&config).unwrap();
        let seen = source_ids(&config, &config.plugins[0]).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a dry run writes nothing");
        receivers.open().unwrap();
        let table = std::fs::read_to_string(directory.path().join("sources")).unwrap();
        let second = table.lines().position(|name| name == "otlp/second").and_then(|at| u16::try_from(at).ok());
        assert_eq!(seen, Some(vec![SourceId(second.unwrap())]), "{table}");
    }

    /// Plugins of these names, all of one component, each for these sources.
    fn loaded(engine: &Engine, plugins: &[(&str, Option<&[u16]>)]) -> Vec<Loaded> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/plugins/redact.wasm");
        let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
        let one = |(name, sources): &(&str, Option<&[u16]>)| {
            let text = format!(
                "processors: {{plugin/{name}: {{path: {path}}}}}\n\
                 service: {{pipelines: {{traces: {{processors: [plugin/{name}]}}}}}}"
            );
            let file = Some(File { name: "m.yaml", text: &text });
            let inputs = Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host };
            let config = crate::config::load(&inputs).unwrap().config;
            let program = on_a_deep_stack(|| Program::load(engine, &config.plugins[0], 1)).unwrap().unwrap();
            Loaded { program, sources: sources.map(|ids| ids.iter().copied().map(SourceId).collect()) }
        };
        plugins.iter().map(one).collect()
    }

    fn shown(plugins: &[Loaded]) -> Vec<(&str, Option<Vec<u16>>)> {
        let ids = |one: &Loaded| one.sources.as_ref().map(|ids| ids.iter().map(|id| id.0).collect());
        plugins.iter().map(|one| (one.program.plugin.name.trim_start_matches("plugin/"), ids(one))).collect()
    }

    #[test]
    fn sources_that_are_gone_keep_what_they_had_in_its_place_and_nobody_else_does() {
        let engine = Engine::start(Pool { lanes: 1, plugins: 4 }).unwrap();
        let running = loaded(&engine, &[("a", None), ("b", Some(&[1, 2])), ("c", Some(&[3])), ("d", None)]);
        let next = loaded(&engine, &[("d", Some(&[3])), ("e", None)]);
        let merged = with_leaving(&running, &next, &[SourceId(2)]);
        let expected = [("a", Some(vec![2])), ("b", Some(vec![2])), ("d", Some(vec![3, 2])), ("e", None)];
        assert_eq!(shown(&merged), expected);
        assert!(is_same(&with_leaving(&running, &next, &[]), &next));
    }

    #[test]
    fn a_table_that_has_changed_is_read_again_and_one_that_is_broken_is_refused() {
        let engine = Engine::start(Pool { lanes: 1, plugins: 1 }).unwrap();
        let table = tempfile::Builder::new().suffix(".csv").tempfile().unwrap().into_temp_path();
        let write = |text: &str| std::fs::write(&table, text).unwrap();
        write("key,site\na,Bonn\n");
        let lookups = vec![("sites".to_owned(), table.to_path_buf())];
        let plugin = Plugin { lookups, ..loaded(&engine, &[("a", None)])[0].program.plugin.clone() };
        let load = || on_a_deep_stack(|| Program::load(&engine, &plugin, 1)).unwrap();
        let program = load().unwrap();
        assert!(is_as_it_was(&program, &plugin).unwrap());
        write("key,site\na,Jena\n");
        assert!(!is_as_it_was(&program, &plugin).unwrap());
        assert!(is_as_it_was(&load().unwrap(), &plugin).unwrap());
        write("key,site\na\n");
        assert!(!is_as_it_was(&program, &plugin).unwrap());
        assert!(format!("{:?}", load().err().unwrap()).contains("line 2 has 1 cells"));
        std::fs::remove_file(&table).unwrap();
        assert!(is_as_it_was(&program, &plugin).err().unwrap().to_string().contains("plugin/a"));
    }

    #[test]
    fn what_leaves_runs_until_everything_has_rested_for_two_looks() {
        let directory = tempfile::tempdir().unwrap();
        let environment = |name: &str| (name == "STATE_DIRECTORY").then(|| directory.path().display().to_string());
        let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
        let inputs = Inputs { file: None, environment: &environment, flags: &[], proxytrace: false, host };
        let config = crate::config::load(&inputs).unwrap().config;
        let (mut plugins, _) = Plugins::load(&config, Vec::new(), &Arc::new(Metrics::new()), &Health::new()).unwrap();
        let engine = Engine::start(Pool { lanes: 1, plugins: 1 }).unwrap();
        plugins.adopt(Prepared(loaded(&engine, &[("a", None)])), &[]).unwrap();
        plugins.adopt(Prepared(Vec::new()), &[SourceId(1)]).unwrap();
        for (rests, runs) in [(true, 1), (false, 1), (true, 1), (true, 0)] {
            plugins.look(Duration::ZERO, rests);
            assert_eq!((plugins.running.len(), plugins.in_force.len()), (runs, 0));
        }
    }
}
