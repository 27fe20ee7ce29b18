//! Makes a component of a module: `componentize MODULE COMPONENT [WORLD]`.
//!
//! A module made with the Rust SDK says which world it is for. For others, such as those in C, the world is named and its
//! types, from `wit/`, are put into the module first. Nothing else is added: what the module imports must be the world's.

use std::path::Path;
use std::process::ExitCode;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let made = match &arguments[..] {
        [module, component] => make(module, component, None),
        [module, component, world] => make(module, component, Some(world)),
        _ => Err("componentize MODULE COMPONENT [WORLD]".to_owned()),
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("componentize: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(module: &str, component: &str, world: Option<&String>) -> Result<(), String> {
    let mut bytes = std::fs::read(module).map_err(|error| format!("{module}: {error}"))?;
    if let Some(world) = world {
        embed(&mut bytes, world).map_err(|error| format!("{module}: {error:#}"))?;
    }
    let encoded = ComponentEncoder::default().module(&bytes).and_then(|encoder| encoder.validate(true).encode());
    let encoded = encoded.map_err(|error| format!("{module}: {error:#}"))?;
    std::fs::write(component, encoded).map_err(|error| format!("{component}: {error}"))
}

fn embed(module: &mut Vec<u8>, world: &str) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")))?;
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
}
