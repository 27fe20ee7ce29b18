//! What a component says by its names alone: its world, the version it was built for, what it imports.
//!
//! Read before anything of it is compiled, so that a file that is not wanted costs nothing and is refused with a reason. Only
//! the outermost imports and exports count: what is inside of a component can reach nothing that is not imported there.
//! The names say what a component wants; that the types behind them fit is found when it is linked.

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use super::error::LoadError;
use crate::config::Capability;

/// The package of `wit/`.
const PACKAGE: &str = "millrace:plugin/";

/// The version of `wit/`, major and minor: a plugin of a lower minor version fits too.
const VERSION: (u64, u64) = (1, 0);
const VERSION_TEXT: &str = "1.0";

/// The one job of a plugin: which world it was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Changes or drops spans and log records.
    Transform,
    /// Keeps or drops whole traces.
    Sample,
    /// Adds attributes that follow from a few values.
    Enrich,
    /// Reads an input format of its own.
    Decode,
    /// Writes an output format of its own.
    Encode,
}

impl World {
    /// The world that exports this interface.
    fn of_export(interface: &str) -> Option<World> {
        match interface {
            "transformer" => Some(World::Transform),
            "sampler" => Some(World::Sample),
            "enricher" => Some(World::Enrich),
            "decoder" => Some(World::Decode),
            "encoder" => Some(World::Encode),
            _ => None,
        }
    }

    /// Its name in `wit/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            World::Transform => "transform",
            World::Sample => "sample",
            World::Enrich => "enrich",
            World::Decode => "decode",
            World::Encode => "encode",
        }
    }

    /// Whether a plugin of this world may use an interface: what an enricher says is remembered and what an encoder says is
    /// said again, so neither may hang on the time or on what went before.
    fn has(self, capability: Capability) -> bool {
        let is_pure = matches!(self, World::Enrich | World::Encode);
        !(is_pure && matches!(capability, Capability::Clock | Capability::State))
    }
}

/// What an operator allows by name. The batch that a plugin is called with needs no permission.
const CAPABILITIES: [Capability; 5] =
    [Capability::Log, Capability::Metrics, Capability::Clock, Capability::State, Capability::Lookup];

/// The interface of `wit/` that a capability gives.
pub(super) fn name(capability: Capability) -> &'static str {
    match capability {
        Capability::Log => "log",
        Capability::Metrics => "metrics",
        Capability::Clock => "clock",
        Capability::State => "state",
        Capability::Lookup => "lookup",
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it does.
    pub world: World,
    /// The version of `millrace:plugin` that it was built for.
    pub version: String,
    /// What it imports and needs permission for.
    pub uses: Vec<Capability>,
}

impl Manifest {
    /// Reads the names of a component.
    ///
    /// # Errors
    ///
    /// Everything that keeps it from being a plugin of this host.
    pub fn read(component: &[u8]) -> Result<Manifest, LoadError> {
        let names = names(component)?;
        let mut uses = Vec::new();
        for import in &names.imports {
            let (interface, _) = ours(import)?.ok_or_else(|| LoadError::Import(import.clone()))?;
            match CAPABILITIES.into_iter().find(|capability| name(*capability) == interface) {
                Some(capability) => uses.push(capability),
                // What the exports are described by.
                None if ["types", "rest"].contains(&interface) => {}
                None => return Err(LoadError::Import(import.clone())),
            }
        }
        let mut worlds = Vec::new();
        for export in &names.exports {
            if let Some((interface, version)) = ours(export)?
                && let Some(world) = World::of_export(interface)
            {
                worlds.push((world, version.to_owned()));
            }
        }
        match worlds.as_slice() {
            [(world, version)] => match uses.iter().find(|capability| !world.has(**capability)) {
                Some(capability) => Err(LoadError::NotInWorld { world: world.name(), interface: name(*capability) }),
                None => Ok(Manifest { world: *world, version: version.clone(), uses }),
            },
            [] => Err(LoadError::World("none of them".to_owned())),
            several => {
                let several: Vec<&str> = several.iter().map(|(world, _)| world.name()).collect();
                Err(LoadError::World(format!("the worlds {}", several.join(", "))))
            }
        }
    }
}

/// Interface and version of a name of our package, if it is one that this host knows.
fn ours(name: &str) -> Result<Option<(&str, &str)>, LoadError> {
    let Some((interface, version)) = name.strip_prefix(PACKAGE).and_then(|rest| rest.split_once('@')) else {
        return Ok(None);
    };
    let mut numbers = version.split('.').map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if major == VERSION.0 && minor <= VERSION.1 => {
            Ok(Some((interface, version)))
        }
        _ => Err(LoadError::Version { found: version.to_owned(), host: VERSION_TEXT }),
    }
}

/// The outermost names of a component: of anybody's, whether it can be a plugin or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Interfaces and functions that it wants.
    pub imports: Vec<String>,
    /// Interfaces that it has.
    pub exports: Vec<String>,
}

/// Reads the outermost names.
///
/// # Errors
///
/// When the bytes are no component.
pub fn names(component: &[u8]) -> Result<Names, LoadError> {
    let broken = |error: wasmparser::BinaryReaderError| LoadError::NotAComponent(error.message().to_owned());
    if !component.starts_with(b"\0asm") {
        return Err(LoadError::NotAComponent("the file does not begin as WebAssembly does".to_owned()));
    }
    let mut names = Names::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                let what = "it is a core module; `millrace plugin build` makes a component of it";
                return Err(LoadError::NotAComponent(what.to_owned()));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    names.imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    let export = export.map_err(broken)?;
                    if export.kind == ComponentExternalKind::Instance {
                        names.exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a component with these imports and exports.
    fn read(imports: &[&str], exports: &[&str]) -> Result<Manifest, String> {
        let imports: String = imports.iter().map(|name| format!("(import {name:?} (instance))")).collect();
        let exports: String = exports.iter().map(|name| format!("(export {name:?} (instance $i))")).collect();
        let text = format!("(component {imports} (instance $i) {exports})");
        Manifest::read(&wat::parse_str(text).unwrap()).map_err(|error| error.to_string())
    }

    const LIFECYCLE: &str = "millrace:plugin/lifecycle@1.0.0";

    #[test]
    fn worlds_and_what_they_use_are_read_off_the_names() {
        for (interface, world) in [
            ("transformer", World::Transform),
            ("sampler", World::Sample),
            ("enricher", World::Enrich),
            ("decoder", World::Decode),
            ("encoder", World::Encode),
        ] {
            let export = format!("millrace:plugin/{interface}@1.0.3");
            let manifest =
                read(&["millrace:plugin/types@1.0.0"], &[LIFECYCLE, &export, "someone:else/thing@0.1.0"]).unwrap();
            assert_eq!(manifest, Manifest { world, version: "1.0.3".to_owned(), uses: Vec::new() });
        }
        let imports = ["lookup", "types", "log", "rest", "state"].map(|name| format!("millrace:plugin/{name}@1.0.0"));
        let imports: Vec<&str> = imports.iter().map(String::as_str).collect();
        let manifest = read(&imports, &["millrace:plugin/transformer@1.0.0"]).unwrap();
        assert_eq!(manifest.uses, [Capability::Lookup, Capability::Log, Capability::State]);
    }

    #[test]
    fn what_cannot_be_a_plugin_is_refused_by_name() {
        let transformer = "millrace:plugin/transformer@1.0.0";
        let cases: [(&[&str], &[&str], &str); 10] = [
            (
                &["millrace:plugin/state@1.0.0"],
                &["millrace:plugin/enricher@1.0.0"],
                "imports `state`, which the world `enrich` has not",
            ),
            (&["wasi:cli/environment@0.2.0"], &[transformer], "the plugin imports `wasi:cli/environment@0.2.0`; only"),
            (&["millrace:other/log@1.0.0"], &[transformer], "the plugin imports `millrace:other/log@1.0.0`; only"),
            (&["millrace:plugin/network@1.0.0"], &[transformer], "the plugin imports `millrace:plugin/network@1.0.0`;"),
            (&["anything"], &[transformer], "the plugin imports `anything`; only"),
            (&["millrace:plugin/log@2.0.0"], &[transformer], "built for millrace:plugin@2.0.0, this host has 1.0"),
            (&[], &["millrace:plugin/transformer@1.1.0"], "built for millrace:plugin@1.1.0, this host has 1.0"),
            (&[], &["millrace:plugin/transformer@0.9.0"], "built for millrace:plugin@0.9.0, this host has 1.0"),
            (&[], &[LIFECYCLE], "this one exports none of them"),
            (&[], &[transformer, "millrace:plugin/encoder@1.0.0"], "exports the worlds transform, encode"),
        ];
        for (imports, exports, expected) in cases {
            let refusal = read(imports, exports).unwrap_err();
            assert!(refusal.contains(expected), "{refusal:?} instead of {expected:?}");
        }
    }

    #[test]
    fn names_inside_of_a_component_do_not_count() {
        let inner = "(component (import \"wasi:cli/run@0.2.0\" (instance)))";
        let text =
            format!("(component {inner} (instance $i) (export \"millrace:plugin/transformer@1.0.0\" (instance $i)))");
        assert!(Manifest::read(&wat::parse_str(text).unwrap()).is_ok());
    }

    #[test]
    fn bytes_that_are_no_component_are_an_error() {
        for bytes in [&b""[..], b"\0", b"\0asm", b"#!/bin/sh", b"\0asm\x0d\0\x01\0\x07\xff\xff\xff\xff\xff"] {
            assert!(Manifest::read(bytes).is_err(), "{bytes:?}");
        }
    }
}
