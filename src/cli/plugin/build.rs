//! `millrace plugin build`: from a plugin's directory, in whatever language, to one component.
//!
//! The directory says by its files which language it is in, and the sources (or the module's exports) which world they are
//! for: nothing has to be written down twice. The compilers are the user's; what is missing is named with the command that
//! installs it. The interface is inside of this binary, and so is the maker of components. What comes out is judged as
//! a start would before it is kept. Everything on the way is left in `target/` of the directory.

mod c;
mod component;
mod interpreted;
mod rust;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::human;
use crate::cli::source::Unusable;
use crate::plugin::load::Source;
use crate::sys::digest::{hex, sha256};

/// The interface, file by file.
pub(super) const WIT: [(&str, &str); 3] = [
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// What to build.
#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// The plugin's directory; or a module of WebAssembly, which is only made a component.
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Where the component goes [default: DIR/target/NAME.wasm]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A language that plugins are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// `Cargo.toml`.
    Rust,
    /// `plugin.c`, or one `.c` that has no `main`.
    C,
    /// `plugin.js`.
    JavaScript,
    /// `plugin.py`.
    Python,
}

impl Language {
    /// The language of a plugin's directory.
    pub(super) fn of(directory: &Path) -> anyhow::Result<Language> {
        let has = |name: &str| directory.join(name).is_file();
        match () {
            () if has("Cargo.toml") => Ok(Language::Rust),
            () if has("plugin.js") => Ok(Language::JavaScript),
            () if has("plugin.py") => Ok(Language::Python),
            () if c::source(directory).is_some() => Ok(Language::C),
            () => bail!(Unusable(format!(
                "{} has no plugin: there is no Cargo.toml, plugin.js, plugin.py or plugin.c; \
                 `millrace plugin new` makes one",
                directory.display()
            ))),
        }
    }
}

/// Builds a plugin and says what came of it.
pub(super) fn build(arguments: &BuildArgs) -> anyhow::Result<()> {
    let path = &arguments.path;
    let file = match path.is_dir() {
        true => directory(path, arguments.out.as_deref())?,
        false => {
            let out = arguments.out.clone().unwrap_or_else(|| path.with_extension("component.wasm"));
            let module = fs::read(path).map_err(|error| Unusable(format!("{}: {error}", path.display())))?;
            keep(&component::of_module(module)?, &out)?
        }
    };
    let source = Source::read(&file)?;
    let bytes = fs::metadata(&file)?.len();
    let world = source.manifest.world.name();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: world {world}, {}", file.display(), human::size(bytes))?;
    writeln!(out, "sha256 {}", hex(&sha256(&fs::read(&file)?)))?;
    Ok(())
}

/// Where the component of a directory is, unless somebody said otherwise.
pub(super) fn built(directory: &Path) -> anyhow::Result<PathBuf> {
    let whole = directory.canonicalize().with_context(|| directory.display().to_string())?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(directory.join("target").join(format!("{name}.wasm")))
}

/// Builds what is in a directory; where the component is.
pub(super) fn directory(directory: &Path, out: Option<&Path>) -> anyhow::Result<PathBuf> {
    let language = Language::of(directory)?;
    let out = match out {
        Some(out) => std::path::absolute(out)?,
        None => built(directory)?,
    };
    let scratch = directory.join("target");
    fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let component = match language {
        Language::Rust => component::of_module(rust::module(directory, &scratch)?)?,
        Language::C => component::of_module(c::module(directory, &scratch)?)?,
        Language::JavaScript => interpreted::javascript(directory, &scratch)?,
        Language::Python => interpreted::python(directory, &scratch)?,
    };
    keep(&component, &out)
}

/// Writes a component under its name, whole or not at all, once it is good.
fn keep(component: &[u8], out: &Path) -> anyhow::Result<PathBuf> {
    let partial = out.with_extension("partial");
    fs::write(&partial, component).with_context(|| partial.display().to_string())?;
    let judged = Source::read(&partial);
    if judged.is_err() {
        fs::remove_file(&partial)?;
    }
    judged.context("what was built cannot be a plugin")?;
    fs::rename(&partial, out).with_context(|| out.display().to_string())?;
    Ok(out.to_owned())
}

/// Writes the interface to a directory, for tools that want files.
pub(super) fn write_wit(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for (name, text) in WIT {
        fs::write(directory.join(name), text).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// Runs a compiler, whose words go to the user. `install` says how to get it.
fn run(command: &mut Command, install: &str) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Data goes to stdout, and a compiler's words are none.
    command.stdout(std::io::stderr());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{program} failed ({status}); what is above says why"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(Unusable(format!("{program} is not there; {install}")))
        }
        Err(error) => bail!("{program}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_says_its_language_by_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let error = Language::of(directory.path()).unwrap_err().to_string();
        assert!(error.contains("millrace plugin new"), "{error}");
        for (file, language) in [
            ("plugin.c", Language::C),
            ("plugin.py", Language::Python),
            ("plugin.js", Language::JavaScript),
            ("Cargo.toml", Language::Rust),
        ] {
            fs::write(directory.path().join(file), "").unwrap();
            assert_eq!(Language::of(directory.path()).unwrap(), language);
        }
    }

    /// The interface 1.0.0, byte by byte. What was built against it has to load for ever: a change makes a new version with
    /// new interfaces beside these, never other hashes here.
    const FROZEN: [(&str, &str); 3] = [
        ("host.wit", "561bac47c39a617509eedd871ddf8db9d3949c91bbe6017639b07218e956bf79"),
        ("types.wit", "6fe698be469f4b7b50ef505c18cabaebd1acbaa4ac5de995df40d625665c0aba"),
        ("worlds.wit", "8d9742df8a4b5ad3273273c87be11590ea086f7f705a800a007f859b93eaab7c"),
    ];

    #[test]
    fn the_interface_is_frozen() {
        let sums = WIT.map(|(name, text)| (name, hex(&sha256(text.as_bytes()))));
        assert_eq!(sums.each_ref().map(|(name, sum)| (*name, sum.as_str())), FROZEN);
    }

    #[test]
    fn what_cannot_be_a_plugin_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("x.wasm");
        fs::write(&out, "the one before").unwrap();
        let error = format!("{:#}", keep(&wat::parse_str("(component)").unwrap(), &out).unwrap_err());
        assert!(error.contains("transformer"), "{error}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "the one before");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
