//! The files of templates, inside of the binary.
//!
//! They are files of the project: templates in `plugins/templates`, the examples in `plugins/` for the other worlds, the SDK
//! itself, the interface. Embedded when this binary is compiled, none can grow old; a test holds the list of the SDK's
//! files against its directories.

use super::super::build::WIT;
use super::{LanguageWord, WorldWord};

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Where, below the plugin's directory.
    pub(super) path: String,
    /// What is in it.
    pub(super) text: String,
}

macro_rules! plugins {
    ($path:literal) => {
        include_str!(concat!("../../../../plugins/", $path))
    };
}

macro_rules! vendored {
    ($path:literal) => {
        ($path, plugins!($path))
    };
}

/// The SDK, below `plugins/`.
const SDK: [(&str, &str); 26] = [
    vendored!("sdk-macros/Cargo.toml"),
    vendored!("sdk-macros/src/fields.rs"),
    vendored!("sdk-macros/src/lib.rs"),
    vendored!("sdk-macros/src/plugin.rs"),
    vendored!("sdk-macros/src/world.rs"),
    vendored!("sdk/Cargo.toml"),
    vendored!("sdk/src/bindings.rs"),
    vendored!("sdk/src/cell.rs"),
    vendored!("sdk/src/extra.rs"),
    vendored!("sdk/src/fields.rs"),
    vendored!("sdk/src/host.rs"),
    vendored!("sdk/src/lib.rs"),
    vendored!("sdk/src/number.rs"),
    vendored!("sdk/src/plugin.rs"),
    vendored!("sdk/src/rows.rs"),
    vendored!("sdk/src/search.rs"),
    vendored!("sdk/src/testing.rs"),
    vendored!("sdk/src/testing/columns.rs"),
    vendored!("sdk/src/testing/host.rs"),
    vendored!("sdk/src/wide.rs"),
    vendored!("sdk/src/worlds.rs"),
    vendored!("sdk/src/worlds/decode.rs"),
    vendored!("sdk/src/worlds/encode.rs"),
    vendored!("sdk/src/worlds/enrich.rs"),
    vendored!("sdk/src/worlds/sample.rs"),
    vendored!("sdk/src/worlds/transform.rs"),
];

/// What the templates of all languages have.
const COMMON: [(&str, &str); 2] =
    [("README.md", plugins!("templates/README.md")), (".gitignore", "target\nnode_modules\n.venv\n")];

macro_rules! test {
    ($directory:literal, $($name:literal),+) => {
        &[$((concat!("tests/first/", $name), include_str!(concat!("../../../../plugins/", $directory, "/", $name)))),+]
    };
}

/// The files of a plugin; none if there is no template of that world in that language.
pub(super) fn of(language: LanguageWord, world: WorldWord) -> Option<Vec<File>> {
    let own = match (language, world) {
        (LanguageWord::Rust, world) => rust(world),
        (LanguageWord::C, WorldWord::Transform) => {
            files(&[("plugin.c", plugins!("templates/c/plugin.c")), ("millrace.h", plugins!("c/millrace.h"))])
        }
        // componentize-qjs 0.4.5 keeps the batch that `transform` is lent, which the component model forbids.
        (LanguageWord::Js, WorldWord::Enrich) => {
            let code = plugins!("js-browser/plugin.js").replace("../js/", "./").replace("js-browser", "my-plugin");
            files(&[
                ("plugin.js", &code),
                ("package.json", plugins!("templates/js/package.json")),
                ("millrace.js", plugins!("js/millrace.js")),
            ])
        }
        (LanguageWord::Python, WorldWord::Transform) => {
            files(&[("plugin.py", plugins!("templates/python/plugin.py")), ("millrace.py", plugins!("py/millrace.py"))])
        }
        (LanguageWord::Python, WorldWord::Enrich) => {
            let code = plugins!("py-category/plugin.py").replace("py-category", "my-plugin");
            files(&[("plugin.py", &code), ("millrace.py", plugins!("py/millrace.py"))])
        }
        _ => return None,
    };
    Some(own.into_iter().chain(files(&COMMON)).chain(files(test_of(language, world))).collect())
}

/// The test of a template: that of the example which it is.
fn test_of(language: LanguageWord, world: WorldWord) -> &'static [(&'static str, &'static str)] {
    match (world, language) {
        (WorldWord::Transform, _) => test!("templates/test", "in.json", "expected.json"),
        (WorldWord::Enrich, LanguageWord::Js) => test!("js-browser/tests/first", "in.json", "expected.json"),
        (WorldWord::Enrich, LanguageWord::Python) => test!("py-category/tests/first", "in.json", "expected.json"),
        (WorldWord::Enrich, _) => {
            test!("geo/tests/first", "in.json", "config.json", "networks.csv", "expected.json")
        }
        (WorldWord::Sample, _) => test!("tail-worthy/tests/first", "in.json", "expected.json"),
        (WorldWord::Decode, _) => test!("line-format/tests/first", "in.txt", "expected.json", "rejected.json"),
        (WorldWord::Encode, _) => test!("ndjson/tests/first", "in.json", "expected.txt", "unencodable.json"),
    }
}

/// What a template does.
fn description(world: WorldWord) -> &'static str {
    match world {
        WorldWord::Transform => "Cuts the query off URLs.",
        WorldWord::Sample => "Keeps traces that failed or were slow, and some of the others.",
        WorldWord::Enrich => "Says where a client is.",
        WorldWord::Decode => "Reads spans from lines.",
        WorldWord::Encode => "Writes spans as lines of JSON.",
    }
}

fn files(files: &[(&str, &str)]) -> Vec<File> {
    files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
}

fn rust(world: WorldWord) -> Vec<File> {
    let code = match world {
        WorldWord::Transform => plugins!("templates/rust/src/lib.rs"),
        WorldWord::Sample => plugins!("tail-worthy/src/lib.rs"),
        WorldWord::Enrich => plugins!("geo/src/lib.rs"),
        WorldWord::Decode => plugins!("line-format/src/lib.rs"),
        WorldWord::Encode => plugins!("ndjson/src/lib.rs"),
    };
    let mut made = files(&[
        ("Cargo.toml", plugins!("templates/rust/Cargo.toml")),
        (".cargo/config.toml", plugins!("templates/rust/config.toml")),
        ("src/lib.rs", code),
        ("millrace/plugins/Cargo.toml", plugins!("templates/rust/workspace.toml")),
    ]);
    made[0].text = made[0].text.replace("Cuts the query off URLs.", description(world));
    if world == WorldWord::Encode {
        made[0].text = made[0].text.replace(
            "serde = ",
            "serde_json = { version = \"1\", default-features = false, features = [\"std\"] } # text quoted as JSON\nserde = ",
        );
    }
    // The SDK finds the interface where it is in the project: two directories up.
    let below = |directory: &str, (path, text): &(&str, &str)| File {
        path: format!("millrace/{directory}/{path}"),
        text: (*text).to_owned(),
    };
    made.extend(SDK.iter().map(|file| below("plugins", file)));
    made.extend(WIT.iter().map(|file| below("wit", file)));
    made
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The files below a directory of `plugins/`, without its tests.
    fn found(directory: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
            match entry.is_dir() {
                true if entry.ends_with("tests") || entry.ends_with("target") => {}
                true => found(&entry, into),
                false => into.push(entry.strip_prefix(plugins).unwrap().display().to_string()),
            }
        }
    }

    #[test]
    fn the_whole_sdk_is_inside() {
        let mut files = Vec::new();
        for name in ["sdk", "sdk-macros"] {
            found(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(name), &mut files);
        }
        files.sort();
        let inside: Vec<&str> = SDK.iter().map(|(path, _)| *path).collect();
        assert_eq!(files, inside);
    }
}
