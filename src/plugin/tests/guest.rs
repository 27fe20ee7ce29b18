//! Makes components of guests that are written in WebAssembly's text format, as `millrace plugin build` does of others.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The answers of a guest that misbehaves elsewhere.
const ANSWERS: [(&str, &str); 4] = [
    ("$configure", "(func $configure (param i32 i32) (result i32) (i32.const 128))"),
    ("$save", "(func $save (result i32) (i32.const 240))"),
    ("$restore", "(func $restore (param i32 i32) (result i32) (i32.const 248))"),
    ("$transform", "(func $transform (param i32 i32 i32) (result i32) (i32.const 176))"),
];

/// A guest: what it does otherwise than `tests/guests/base.wat`.
pub(super) struct Guest {
    code: String,
    wit: Option<String>,
    world: &'static str,
}

impl Guest {
    pub(super) fn new(code: &str) -> Guest {
        Guest { code: code.to_owned(), wit: None, world: "transform" }
    }

    /// The guest's component.
    pub(super) fn component(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = match &self.wit {
            Some(wit) => resolve.push_str("other.wit", wit).unwrap(),
            None => resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("wit")).unwrap().0,
        };
        let world = resolve.select_world(&[package], Some(self.world)).unwrap();
        let mut module = wat::parse_str(self.module()).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    /// The core module's text: imports come first.
    fn module(&self) -> String {
        let answers = ANSWERS.iter().filter(|(name, _)| !self.code.contains(&format!("(func {name} ")));
        let answers: String = answers.map(|(_, answer)| *answer).collect();
        let base = include_str!("../../../tests/guests/base.wat");
        let (imports, code): (Vec<&str>, Vec<&str>) =
            base.lines().chain(self.code.lines()).partition(|line| line.starts_with("(import"));
        format!("(module\n{}\n{}\n{answers})", imports.join("\n"), code.join("\n"))
    }
}
