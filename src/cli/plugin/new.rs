//! `millrace plugin new`: a directory with a plugin that builds, and a test of it.
//!
//! Everything comes out of this binary: the template, the interface, and for Rust a copy of the SDK, which then belongs to the
//! plugin. Who has nothing but `millrace` and a compiler needs no registry of ours and no clone, and the plugin builds the
//! same in a year. A directory that is there already is left alone.

mod files;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::cli::source::Unusable;
use files::File;

/// What to make.
#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// Name of the plugin, and of its directory.
    name: String,
    /// The language.
    #[arg(long)]
    lang: LanguageWord,
    /// What it does with the data [default: transform; enrich in JavaScript]
    #[arg(long)]
    world: Option<WorldWord>,
    /// Where the directory is made.
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

/// A language that there are templates in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LanguageWord {
    /// Compiled; the best supported.
    Rust,
    /// Compiled; one header, no library.
    C,
    /// Interpreted by QuickJS, which comes with the plugin.
    Js,
    /// Interpreted by CPython, which comes with the plugin.
    Python,
}

/// A world of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum WorldWord {
    /// Changes or drops spans and log records.
    Transform,
    /// Keeps or drops traces.
    Sample,
    /// Adds attributes that follow from a few values.
    Enrich,
    /// Reads an input format.
    Decode,
    /// Writes an output format.
    Encode,
}

impl NewArgs {
    /// What nobody said is what most plugins are, of what there is in the language.
    fn world(&self) -> WorldWord {
        self.world.unwrap_or(match self.lang {
            LanguageWord::Js => WorldWord::Enrich,
            LanguageWord::Rust | LanguageWord::C | LanguageWord::Python => WorldWord::Transform,
        })
    }
}

impl WorldWord {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Makes a plugin's directory.
pub(super) fn new(arguments: &NewArgs) -> anyhow::Result<()> {
    let name = &arguments.name;
    check(name)?;
    let world = arguments.world();
    let files = files::of(arguments.lang, world).ok_or_else(|| {
        let there =
            "Rust has templates of all worlds, C of transform, Python of transform and enrich, JavaScript of enrich";
        let lang = arguments.lang.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        Unusable(format!(
            "there is no template of the world {world} in this language ({there}): \
             `millrace plugin new {name} --lang {lang}` makes one that there is, \
             `millrace plugin new {name} --lang rust --world {world}` one of this world",
            world = world.name(),
        ))
    })?;
    let directory = arguments.into.join(name);
    match fs::create_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(Unusable(format!("{} is there already", directory.display())))
        }
        made => made.with_context(|| directory.display().to_string())?,
    }
    for File { path, text } in &files {
        write(&directory.join(path), &fill(text, name, arguments))?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "made {} with {} files; next:", directory.display(), files.len())?;
    writeln!(out, "  cd {}", directory.display())?;
    if let Some(command) = prepare(arguments.lang) {
        writeln!(out, "  {command}")?;
    }
    writeln!(out, "  millrace plugin build && millrace plugin test")?;
    Ok(())
}

/// What the template says of the plugin, said of this one.
fn fill(text: &str, name: &str, arguments: &NewArgs) -> String {
    let prepare = prepare(arguments.lang).map(|command| format!("{command}\n")).unwrap_or_default();
    let world = arguments.world();
    let notes = match (arguments.lang, world) {
        (LanguageWord::Rust, _) => {
            "\n`cargo test` runs the code natively. `millrace/` is a copy of the SDK; `cargo doc --open -p millrace-plugin` \
             shows it.\n"
        }
        (LanguageWord::C, _) => "\nNeeds clang and lld (Debian: `apt-get install clang lld`).\n",
        _ => "\nIt brings its interpreter with it: in the configuration it needs `class: heavy`.\n",
    };
    let (like, input) = match (world, arguments.lang) {
        // It has a table, and is told its name.
        (WorldWord::Enrich, LanguageWord::Rust) => (" --like tests/first", ""),
        (WorldWord::Decode, _) => ("", " --in tests/first/in.txt"),
        _ => ("", ""),
    };
    let text = text.replace("my-plugin", name).replace("@world@", &world.name());
    let text = text.replace("@prepare@", &prepare).replace("@notes@", notes);
    text.replace("@like@", like).replace("@input@", input).replace("@kept@", kept(world))
}

/// What a test of a world keeps.
fn kept(world: WorldWord) -> &'static str {
    match world {
        WorldWord::Transform | WorldWord::Sample | WorldWord::Enrich => "in.json against expected.json",
        WorldWord::Decode => "in.txt against expected.json",
        WorldWord::Encode => "in.json against expected.txt",
    }
}

/// What has to be done once before the first build.
fn prepare(language: LanguageWord) -> Option<&'static str> {
    match language {
        LanguageWord::Rust | LanguageWord::C => None,
        LanguageWord::Js => Some("npm install"),
        LanguageWord::Python => Some("python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1"),
    }
}

/// Names that are good for a crate, a package, a file and a metric's label.
fn check(name: &str) -> Result<(), Unusable> {
    let is_good = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    match is_good {
        true => Ok(()),
        false => Err(Unusable(format!(
            "{name:?} is no name for a plugin: lower-case letters, digits and hyphens, a letter first, at most 64"
        ))),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(into: &Path, lang: LanguageWord, world: WorldWord) -> NewArgs {
        NewArgs { name: "try-it".to_owned(), lang, world: Some(world), into: into.to_owned() }
    }

    #[test]
    fn names_are_such_that_everything_can_be_called_so() {
        for name in ["a", "my-plugin2"] {
            check(name).unwrap();
        }
        for name in ["", "2a", "A", "a_b", "../a", "a b", "-a", "ä"] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn every_language_has_a_plugin_that_says_its_name_and_a_test() {
        for lang in [LanguageWord::Rust, LanguageWord::C, LanguageWord::Python] {
            let directory = tempfile::tempdir().unwrap();
            new(&arguments(directory.path(), lang, WorldWord::Transform)).unwrap();
            let made = directory.path().join("try-it");
            assert!(super::super::build::Language::of(&made).is_ok());
            assert!(made.join("tests/first/in.json").is_file() && made.join("tests/first/expected.json").is_file());
            let readme = fs::read_to_string(made.join("README.md")).unwrap();
            assert!(
                readme.starts_with("# try-it\n") && readme.contains("plugin test") && !readme.contains('@'),
                "{readme}"
            );
            let error = new(&arguments(directory.path(), lang, WorldWord::Transform)).unwrap_err();
            assert!(error.to_string().ends_with("is there already"), "{error}");
        }
    }

    #[test]
    fn javascript_has_an_enricher_that_finds_its_helper_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let error = new(&arguments(directory.path(), LanguageWord::Js, WorldWord::Transform)).unwrap_err().to_string();
        assert!(error.contains("JavaScript of enrich"), "{error}");
        assert!(error.contains("`millrace plugin new try-it --lang js` makes one"), "{error}");
        assert!(error.contains("`millrace plugin new try-it --lang rust --world transform`"), "{error}");
        // Nobody has to know that.
        let unsaid = NewArgs { world: None, ..arguments(directory.path(), LanguageWord::Js, WorldWord::Enrich) };
        new(&unsaid).unwrap();
        let made = directory.path().join("try-it");
        let read = |name: &str| fs::read_to_string(made.join(name)).unwrap();
        assert!(read("plugin.js").contains("from \"./millrace.js\"") && read("plugin.js").contains("name: \"try-it\""));
        assert!(made.join("tests/first/expected.json").is_file());
    }

    #[test]
    fn other_worlds_are_there_in_rust() {
        for world in WorldWord::value_variants() {
            let directory = tempfile::tempdir().unwrap();
            new(&arguments(directory.path(), LanguageWord::Rust, *world)).unwrap();
            let code = fs::read_to_string(directory.path().join("try-it/src/lib.rs")).unwrap();
            assert!(code.contains(&format!("#[{}]", world.name())), "{world:?}");
            let test = directory.path().join("try-it/tests/first");
            assert!(["expected.json", "expected.txt"].iter().any(|name| test.join(name).is_file()), "{world:?}");
            let readme = fs::read_to_string(directory.path().join("try-it/README.md")).unwrap();
            assert!(!readme.contains('@'), "{readme}");
        }
    }
}
