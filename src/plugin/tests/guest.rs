//! Makes components of guests that are written in WebAssembly's text format, as `millrace plugin build` does of others.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The answers of a guest that misbehaves elsewhere.
const ANSWERS: [(&str, &str); 6] = [
    ("$behave", "(func $behave)"),
    ("$misbehave", "(func $misbehave)"),
    ("$configure", "(func $configure (param i32 i32) (result i32) (i32.const 128))"),
    ("$save", "(func $save (result i32) (i32.const 240))"),
    ("$restore", "(func $restore (param i32 i32) (result i32) (i32.const 248))"),
    // Misbehaves when the number of rows is odd. An answer that it has made is not undone.
    (
        "$transform",
        "(func $transform (param $rows i32) (param i32 i32) (result i32)
            (if (i32.and (local.get $rows) (i32.const 1)) (then (call $misbehave)) (else (call $behave)))
            (i32.const 176))",
    ),
];

/// A guest: what it does otherwise than `tests/guests/base.wat`.
pub(crate) struct Guest {
    code: String,
    base: String,
    world: &'static str,
}

/// What each world exports beside what all do.
const WORLDS: [(&str, &str); 5] = [
    ("transform", include_str!("../../../tests/guests/worlds/transform.wat")),
    ("enrich", include_str!("../../../tests/guests/worlds/enrich.wat")),
    ("sample", include_str!("../../../tests/guests/worlds/sample.wat")),
    ("decode", include_str!("../../../tests/guests/worlds/decode.wat")),
    ("encode", include_str!("../../../tests/guests/worlds/encode.wat")),
];

impl Guest {
    pub(super) fn new(code: &str) -> Guest {
        Guest::of_world("transform", code)
    }

    /// A guest of a world. Its field is written only where the world allows it.
    pub(crate) fn of_world(world: &'static str, code: &str) -> Guest {
        let exports = WORLDS.iter().find(|(name, _)| *name == world).unwrap().1;
        let mut base = format!("{}{exports}", include_str!("../../../tests/guests/base.wat"));
        if world == "sample" {
            base = base.replace("\\00\\01\\01\\00\")", "\\00\\01\\00\\00\")");
        }
        Guest { code: code.to_owned(), base, world }
    }

    /// Changes the guest's own code in one place.
    pub(super) fn replace(&mut self, from: &str, to: &str) {
        assert!(self.code.contains(from));
        self.code = self.code.replace(from, to);
    }

    /// A guest whose base is another in one place.
    pub(super) fn with_base(from: &str, to: &str) -> Guest {
        let mut guest = Guest::new("");
        guest.replace_in_base(from, to);
        guest
    }

    /// Changes what all guests have in one place.
    pub(super) fn replace_in_base(&mut self, from: &str, to: &str) {
        assert!(self.base.contains(from));
        self.base = self.base.replace(from, to);
    }

    /// The guest's component.
    pub(crate) fn component(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("wit")).unwrap().0;
        let world = resolve.select_world(&[package], Some(self.world)).unwrap();
        let mut module = wat::parse_str(self.module()).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    /// The core module's text: imports come first.
    fn module(&self) -> String {
        let answers = ANSWERS
            .iter()
            .filter(|(name, _)| ![" ", ")", "\n"].iter().any(|end| self.code.contains(&format!("(func {name}{end}"))));
        let answers: String = answers.map(|(_, answer)| *answer).collect();
        let (imports, code): (Vec<&str>, Vec<&str>) =
            self.base.lines().chain(self.code.lines()).partition(|line| line.starts_with("(import"));
        format!("(module\n{}\n{}\n{answers})", imports.join("\n"), code.join("\n"))
    }
}
