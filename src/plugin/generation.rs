//! What the lanes share of a plugin that can go live: code, what it declared, limits, tables.
//!
//! A generation is made on a thread that serves nobody, by trying: the plugin is linked, an instance is made and
//! configured, and what it declares is judged. Only then do lanes see it. It never changes; a new file, configuration or
//! table makes a new generation, with the next number.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};

use super::bindings::Every;
use super::engine::Engine;
use super::error::{CallError, LoadError, MESSAGE_BYTES, clean};
use super::exports::Linked;
use super::host::{Environment, Host, Kept};
use super::imports::lookup::{Table, Tables};
use super::load::{self, Package};
use super::manifest::World;
use super::sandbox::Sandbox;
use super::traces;
use crate::block::Signal;
use crate::config::{Isolation, Plugin, PluginClass, PluginComponent};
use crate::otlp::columns::{Field, Selection};
use crate::sys::digest::hex;

/// Hexadecimal digits of a component's hash that are shown.
const DIGITS: usize = 12;

/// Bytes of a field's key, and of a plugin's name and version, at most.
const KEY_BYTES: usize = 256;

/// Who a plugin says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name for itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// A JSON Schema of its configuration; empty for none.
    pub config_schema: String,
}

/// What a plugin wants, as its configuration made it say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The signals that it is given.
    pub signals: Vec<Signal>,
    /// The columns that it reads and writes.
    pub fields: Vec<Field>,
    /// Rows of the largest batch that it wants; 0 for any.
    pub max_rows: u32,
    /// A batch that it fails on may not pass.
    pub fail_closed: bool,
    /// Keys and values that hosts may know.
    pub hints: Vec<(String, String)>,
}

/// See the module.
pub struct Generation {
    /// Counts the generations of the plugin, from 1.
    pub number: u64,
    /// What it does.
    pub world: World,
    /// The component's file.
    pub sha256: [u8; 32],
    /// Who it says it is.
    pub info: Info,
    /// What it wants.
    pub setup: Setup,
    /// How long its instances live.
    pub(super) isolation: Isolation,
    /// What `configure` is given.
    pub(super) config: String,
    pub(super) environment: Arc<Environment>,
    pub(super) linked: Linked,
    selections: Vec<(Signal, Selection)>,
}

impl Generation {
    /// Loads a component of a plugin and makes a generation of it.
    ///
    /// # Errors
    ///
    /// As [`load::load`] and [`Generation::new`].
    pub fn load(
        engine: &Engine,
        plugin: &Plugin,
        component: &PluginComponent,
        number: u64,
    ) -> Result<Generation, LoadError> {
        Generation::new(load::load(engine, plugin, component)?, plugin, component, number)
    }

    /// Makes a generation of a plugin: links, configures one instance and throws it away. `component` is what `package` was
    /// loaded from.
    ///
    /// # Errors
    ///
    /// When a table cannot be read, the plugin does not fit the interface, refuses its configuration or declares what
    /// cannot be.
    pub fn new(
        package: Package,
        plugin: &Plugin,
        component: &PluginComponent,
        number: u64,
    ) -> Result<Generation, LoadError> {
        let tables = tables(&plugin.lookups)?;
        let environment = Arc::new(Environment {
            name: plugin.name.clone(),
            class: plugin.class,
            limits: plugin.limits.clone(),
            tables,
            ticker: package.ticker,
        });
        let unfit = |error: wasmtime::Error| LoadError::Unfit(clean(&format!("{error:#}"), MESSAGE_BYTES));
        let mut linker = Linker::new(package.component.engine());
        Every::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host).map_err(unfit)?;
        let pre = linker.instantiate_pre(&package.component);
        let linked = pre.and_then(|pre| Linked::new(pre, package.world)).map_err(unfit)?;
        let unstarted = |error| match (plugin.class, &error) {
            (PluginClass::Light, CallError::TimeOut { .. }) => LoadError::Slow(error),
            _ => LoadError::Configure(error),
        };
        let mut scratch = Sandbox::new(&linked, &environment).map_err(unstarted)?;
        let info = scratch.describe().map_err(unstarted)?;
        let setup = scratch.configure(&mut Kept::default(), &component.config).map_err(unstarted)?;
        check(&info, &setup)?;
        let selections = selections(package.world, &setup)?;
        Ok(Generation {
            number,
            world: package.world,
            sha256: package.sha256,
            info,
            selections,
            setup,
            isolation: plugin.isolation,
            config: component.config.clone(),
            environment,
            linked,
        })
    }

    /// The first hexadecimal digits of the component's hash, by which people know it.
    #[must_use]
    pub fn digits(&self) -> String {
        hex(&self.sha256[..DIGITS / 2])
    }

    /// Says in the log that it is live, from this file.
    pub fn announce(&self, plugin: &str, path: &Path) {
        tracing::info!(plugin, generation = self.number, sha256 = self.digits(), path = %path.display(), "a plugin is live");
    }

    /// What to gather for the plugin from a signal; `None` if it does not want the signal. Its fields are the plugin's own, in
    /// its order, but for a sampler's: there those of a trace as a whole are left out, and [`traces::ALWAYS`] comes behind.
    #[must_use]
    pub fn selection(&self, signal: Signal) -> Option<&Selection> {
        self.selections.iter().find(|(wanted, _)| *wanted == signal).map(|(_, selection)| selection)
    }

    /// Bytes of a patch at most.
    #[must_use]
    pub fn patch_bytes(&self) -> u64 {
        self.environment.limits.patch_bytes
    }

    /// A configured sandbox, which declared what the first one did.
    pub(super) fn sandbox(&self, kept: &mut Kept) -> Result<Sandbox, CallError> {
        let failed = |error: CallError| CallError::Start(error.to_string());
        let mut sandbox = Sandbox::new(&self.linked, &self.environment).map_err(failed)?;
        let setup = sandbox.configure(kept, &self.config).map_err(failed)?;
        match setup == self.setup {
            true => Ok(sandbox),
            false => Err(CallError::Start("the same configuration made it declare something else".to_owned())),
        }
    }
}

impl Generation {
    /// Whether the files of its tables hold what they held when it was made.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read.
    pub fn has_tables_of(&self, lookups: &[(String, PathBuf)]) -> Result<bool, LoadError> {
        let mut files = self.environment.tables.iter().zip(lookups);
        files.try_fold(true, |is_so, ((_, table), (_, path))| Ok(is_so && table.is_of(path).map_err(LoadError::Table)?))
    }
}

fn tables(lookups: &[(String, PathBuf)]) -> Result<Tables, LoadError> {
    let load = |(name, path): &(String, PathBuf)| Ok((name.clone(), Arc::new(Table::load(path)?)));
    lookups.iter().map(load).collect::<Result<_, _>>().map_err(LoadError::Table)
}

/// What is gathered for each signal; for a decoder, what it writes.
fn selections(world: World, setup: &Setup) -> Result<Vec<(Signal, Selection)>, LoadError> {
    let fields = match world {
        World::Enrich => check_enrich(&setup.fields).map(|()| setup.fields.clone()),
        World::Sample if setup.signals != [Signal::Traces] => Err("a sampler of anything but spans".to_owned()),
        World::Decode if setup.signals.len() != 1 => Err("a decoder of several signals".to_owned()),
        World::Sample => traces::gathered(&setup.fields),
        World::Transform | World::Decode | World::Encode => Ok(setup.fields.clone()),
    };
    let fields = fields.map_err(LoadError::Setup)?;
    let select = |signal: &Signal| {
        let select = if world == World::Decode { Selection::of_new } else { Selection::new };
        let selection = select(*signal, fields.clone()).map_err(|error| LoadError::Setup(error.to_string()))?;
        Ok((*signal, selection))
    };
    setup.signals.iter().map(select).collect()
}

/// A resource has one value where its spans may differ in what is read: then nothing follows for it.
fn check_enrich(fields: &[Field]) -> Result<(), String> {
    let finest = fields.iter().filter(|field| field.read).map(|field| field.level.fineness()).max().unwrap_or(0);
    match fields.iter().find(|field| field.write && field.level.fineness() < finest) {
        Some(field) => Err(format!("{:?} is of a {:?}, and a field of a finer level is read", field.key, field.level)),
        None => Ok(()),
    }
}

/// What [`Selection`] does not look at.
fn check(info: &Info, setup: &Setup) -> Result<(), LoadError> {
    for text in setup.fields.iter().map(|field| &field.key).chain([&info.name, &info.version]) {
        if text.is_empty() || text.len() > KEY_BYTES {
            let what = format!(
                "{:?} as a name, a version or a key, of which each has 1 to {KEY_BYTES} bytes",
                clean(text, 64)
            );
            return Err(LoadError::Setup(what));
        }
    }
    match setup.signals.is_empty() {
        true => Err(LoadError::Setup("no signal: it would never be called".to_owned())),
        false => Ok(()),
    }
}
