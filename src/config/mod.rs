//! The configuration: from flags, environment and file to checked types that cannot be wrong.
//!
//! Precedence: flag > environment > file > default. Each layer becomes a tree of words that know where they came from;
//! the trees are laid over each other, and one reading of the result makes the types, names every problem at once with
//! file, line and column, and remembers for `config explain` what each setting is and who said so.
//! Every variable of the ProxyTrace service works without any file; the file speaks the OpenTelemetry Collector's
//! language. Unknown keys are errors that name the nearest known key. Limits are checked together, in [`budget`].
//!
//! Nothing here touches the outside: variables, file text and name resolution are arguments ([`Inputs`]).

pub mod budget;
mod document;
mod exporters;
mod loops;
mod pipelines;
mod plugins;
mod processors;
mod queue;
mod receivers;
mod section;
mod settings;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod words;

use std::net::IpAddr;

pub use plugins::{
    Capability, Circuit, Isolation, OnError, Plugin, PluginClass, PluginComponent, PluginFilter, PluginLimits,
};
pub use queue::{SEGMENTS_A_LANE, too_small};
pub use receivers::is_of_plugin;
pub use section::{ConfigError, Explained, Problem};
pub use settings::{SETTINGS, Setting};
pub use tree::Origin;
pub use types::*;

use section::{Reader, Section};

/// Everything that a configuration is made from.
pub struct Inputs<'a> {
    /// The file, if there is one.
    pub file: Option<File<'a>>,
    /// The value of an environment variable; an empty one counts as unset.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Flags that were given: name as in [`SETTINGS`], and value.
    pub flags: &'a [(&'static str, String)],
    /// `--proxytrace`: the endpoint defaults of the ProxyTrace service apply.
    pub proxytrace: bool,
    /// What is asked of the host to tell whether a destination is one of our own listeners.
    pub host: Host<'a>,
}

/// A configuration file that was read.
#[derive(Clone, Copy)]
pub struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// What the configuration asks of the host that it runs on.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The addresses of a name; none when it cannot be told in reasonable time.
    pub resolve: &'a dyn Fn(&str) -> Vec<IpAddr>,
    /// Whether an address belongs to this host.
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
}

/// A configuration that can be run.
#[derive(Debug)]
pub struct Loaded {
    /// The checked types.
    pub config: Config,
    /// Things that are legal and probably not meant; one line each.
    pub warnings: Vec<String>,
    /// Destinations whose name has no address now: legal, for a backend may come later; one line each.
    pub unresolved: Vec<String>,
    /// Every setting with its value and where that came from, in the order of the file's language.
    pub settings: Vec<Explained>,
}

/// Reads a configuration. The error holds every problem that was found, not only the first.
pub fn load(inputs: &Inputs<'_>) -> Result<Loaded, ConfigError> {
    let reader = Reader::new(inputs.file.map(|file| file.name));
    let mut tree = match inputs.file {
        Some(file) => document::parse(file.text, inputs.environment, &reader),
        None => tree::Value::empty_map(),
    };
    let pipeline = pipelines::select(&mut tree, &reader);
    if inputs.proxytrace {
        settings::lay_proxytrace_defaults(&mut tree);
    }
    settings::lay_environment(&mut tree, inputs.environment, &pipeline, &reader);
    settings::lay_flags(&mut tree, inputs.flags, &pipeline, &reader);

    let mut root = Section::root(&tree, &reader);
    let config = pipelines::read(&mut root, &pipeline, &reader);
    root.finish();
    plugins::check_sources(&config, &reader);
    let unresolved = loops::check(&config, inputs.host, &reader);
    reader.finish(config).map(|loaded| Loaded { unresolved, ..loaded })
}
