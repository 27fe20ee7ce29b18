//! From a file to compiled code that may be linked: read, compared with its pin, judged by its names, compiled.
//!
//! All on a thread that serves nobody: compiling takes from a tenth of a second to half a minute. The sha256 of the file
//! names what runs, in logs, metrics and the cache.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::Component;

use super::cache::{Cache, CacheError};
use super::engine::Engine;
use super::epoch::Ticker;
use super::error::{LoadError, MESSAGE_BYTES, clean};
use super::manifest::{Manifest, World, name};
use crate::config::{Capability, Plugin, PluginClass, PluginComponent};
use crate::sys::digest::{hex, sha256};

/// Bytes of a component at most. The biggest, a Python interpreter, has 18 MB.
const COMPONENT_BYTES: u64 = 64 << 20;

/// A component that was read and judged.
#[derive(Debug)]
pub struct Source {
    bytes: Vec<u8>,
    /// Of the file.
    pub sha256: [u8; 32],
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Source {
    /// Reads a component.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is too big, or cannot be a plugin of this host.
    pub fn read(path: &Path) -> Result<Source, LoadError> {
        let read = |why| LoadError::Read { path: path.to_owned(), why };
        let mut bytes = Vec::new();
        File::open(path).map_err(read)?.take(COMPONENT_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
        Source::new(bytes)
    }

    /// Judges the bytes of a component.
    ///
    /// # Errors
    ///
    /// When it is too big, or cannot be a plugin of this host.
    pub fn new(bytes: Vec<u8>) -> Result<Source, LoadError> {
        if bytes.len() as u64 > COMPONENT_BYTES {
            return Err(LoadError::TooBig { limit: COMPONENT_BYTES });
        }
        let manifest = Manifest::read(&bytes)?;
        Ok(Source { sha256: sha256(&bytes), bytes, manifest })
    }

    /// Whether the operator wants this file and allows what it uses.
    fn check(&self, plugin: &Plugin, component: &PluginComponent) -> Result<(), LoadError> {
        if let Some(wanted) = component.sha256
            && wanted != self.sha256
        {
            return Err(LoadError::Pin { wanted: hex(&wanted), found: hex(&self.sha256) });
        }
        match self.manifest.uses.iter().find(|capability| !plugin.capabilities.contains(capability)) {
            Some(capability) => {
                let line = capabilities_line(&plugin.capabilities, &self.manifest.uses);
                Err(LoadError::NotAllowed { interface: name(*capability), line })
            }
            None => Ok(()),
        }
    }
}

/// The line of a configuration that adds what a plugin imports to what it may use already.
#[must_use]
pub fn capabilities_line(allowed: &[Capability], uses: &[Capability]) -> String {
    let more = uses.iter().filter(|capability| !allowed.contains(capability));
    let words: Vec<&str> = allowed.iter().chain(more).map(|capability| name(*capability)).collect();
    format!("capabilities: [{}]", words.join(", "))
}

/// A component that was compiled.
pub struct Package {
    /// What it does.
    pub world: World,
    /// Of the file.
    pub sha256: [u8; 32],
    pub(super) component: Component,
    pub(super) ticker: Arc<Ticker>,
}

/// Loads a component of a plugin (its own or its shadow's): from the cache beside it if it is there, else by compiling it.
///
/// # Errors
///
/// See [`LoadError`]. A cache that cannot be trusted is said in the log and not used.
pub fn load(engine: &Engine, plugin: &Plugin, component: &PluginComponent) -> Result<Package, LoadError> {
    let cache = Cache::beside(&component.path);
    load_source(engine, plugin, component, &Source::read(&component.path)?, Some(&cache))
}

/// Loads a component that was read already.
///
/// # Errors
///
/// See [`load`].
pub fn load_source(
    engine: &Engine,
    plugin: &Plugin,
    component: &PluginComponent,
    source: &Source,
    cache: Option<&Cache>,
) -> Result<Package, LoadError> {
    source.check(plugin, component)?;
    let (ticker, engine) = (engine.ticker(), engine.of(plugin.class));
    let stored = cache.and_then(|cache| match cache.read(engine, &source.sha256) {
        Ok(component) => component,
        Err(error) => {
            tracing::warn!(plugin = plugin.name, %error, "the cache of compiled plugins is not used");
            None
        }
    });
    let component = match stored {
        Some(component) => component,
        None => Component::from_binary(engine, &source.bytes).map_err(|error| unfit(&error, plugin.class))?,
    };
    Ok(Package { world: source.manifest.world, sha256: source.sha256, component, ticker })
}

/// Light plugins live in slots that are reserved at the start, of so many parts each, and interpreters need what only heavy
/// ones have.
fn unfit(error: &wasmtime::Error, class: PluginClass) -> LoadError {
    let message = clean(&format!("{error:#}"), MESSAGE_BYTES);
    let advice = match class {
        PluginClass::Light if message.contains("pooling allocator") => " (`class: heavy` sets no such limit)",
        PluginClass::Light if message.contains("tail calls") => " (`class: heavy` runs it)",
        PluginClass::Light | PluginClass::Heavy => "",
    };
    LoadError::Unfit(format!("{message}{advice}"))
}

/// Compiles a component for a cache; what `millrace plugin install` does.
///
/// # Errors
///
/// When it cannot be a plugin of this host, does not compile, or cannot be stored.
pub fn install(engine: &Engine, class: PluginClass, source: &Source, cache: &Cache) -> Result<PathBuf, CacheError> {
    cache.install(engine.of(class), &source.bytes)
}
