//! From a module of WebAssembly to a component: its world's types put in where they are missing, then the wrapping.
//!
//! The SDK of Rust puts the types into the module. A module that has none, such as those in C, is of the world whose
//! functions it exports: the names of the exports say it. Nothing is added: what the module imports must be the world's.

use anyhow::{Context, anyhow, bail};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use super::WIT;

/// What a world exports, and the world.
pub(super) const WORLDS: [(&str, &str); 5] = [
    ("transformer", "transform"),
    ("sampler", "sample"),
    ("enricher", "enrich"),
    ("decoder", "decode"),
    ("encoder", "encode"),
];

/// Makes a component of a module.
pub(super) fn of_module(mut module: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let names = names(&module).map_err(|error| anyhow!("not a module of WebAssembly: {error}"))?;
    if !names.has_types {
        let world = world(&names.exports)?;
        let mut files = SourceMap::new();
        for (name, text) in WIT {
            files.push_str(name, text);
        }
        let group = files.parse().map_err(|(_, error)| anyhow!("wit/: {error}"))?;
        let mut resolve = Resolve::default();
        let package = resolve.push_group(group).map_err(|error| anyhow!("wit/: {error}"))?;
        let world = resolve.select_world(&[package], Some(world))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let encoded = ComponentEncoder::default().validate(true).module(&module).and_then(|mut encoder| encoder.encode());
    encoded.context("no component can be made of the module")
}

#[derive(Default)]
struct Names {
    exports: Vec<String>,
    has_types: bool,
}

fn names(module: &[u8]) -> wasmparser::Result<Names> {
    let mut names = Names::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ExportSection(exports) => {
                for export in exports {
                    names.exports.push(export?.name.to_owned());
                }
            }
            Payload::CustomSection(section) => names.has_types |= section.name().starts_with("component-type"),
            _ => {}
        }
    }
    Ok(names)
}

/// The world whose functions are exported.
fn world(exports: &[String]) -> anyhow::Result<&'static str> {
    let is_of = |interface: &str| {
        let start = format!("millrace:plugin/{interface}@");
        exports.iter().any(|export| export.starts_with(&start))
    };
    let mut worlds = WORLDS.into_iter().filter(|(interface, _)| is_of(interface));
    match (worlds.next(), worlds.next()) {
        (Some((_, world)), None) => Ok(world),
        (None, _) => bail!(
            "the module exports no function of a world, such as \"millrace:plugin/transformer@1.0.0#transform\"; \
             in Rust `#[transform]` before `impl Transform for` does that, or the attribute of another world, in C millrace.h"
        ),
        (Some((_, one)), Some((_, other))) => bail!("the module exports the functions of {one} and of {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Manifest, World};

    #[test]
    fn a_module_without_types_is_of_the_world_whose_functions_it_has() {
        let module = |text: &str| wat::parse_str(text).unwrap();
        let error = of_module(module("(module)")).unwrap_err().to_string();
        assert!(error.contains("exports no function of a world") && error.contains("`#[transform]`"), "{error}");
        let both = r#"(module (func $f) (export "millrace:plugin/sampler@1.0.0#decide" (func $f))
            (export "millrace:plugin/encoder@1.0.0#encode" (func $f)))"#;
        assert!(of_module(module(both)).unwrap_err().to_string().contains("of sample and of encode"));
        // A function of the wrong type is refused, with its name.
        let wrong = r#"(module (func $f) (export "millrace:plugin/transformer@1.0.0#transform" (func $f)))"#;
        let error = format!("{:#}", of_module(module(wrong)).unwrap_err());
        assert!(error.contains("transform"), "{error}");
        assert!(of_module(b"no".to_vec()).unwrap_err().to_string().contains("not a module"));
    }

    #[test]
    fn what_comes_out_is_a_plugin() {
        // Imports come first, as they do here.
        let world = include_str!("../../../../tests/guests/worlds/transform.wat");
        let base = include_str!("../../../../tests/guests/base.wat");
        let echo = include_str!("../../../../tests/guests/echo.wat");
        let rest = "(func $behave) (func $misbehave)
            (func $configure (param i32 i32) (result i32) (i32.const 128))
            (func $save (result i32) (i32.const 240)) (func $restore (param i32 i32) (result i32) (i32.const 248))";
        let module = wat::parse_str(format!("(module {world} {base} {echo} {rest})")).unwrap();
        let manifest = Manifest::read(&of_module(module).unwrap()).unwrap();
        assert_eq!((manifest.world, manifest.version.as_str()), (World::Transform, "1.0.0"));
    }
}
