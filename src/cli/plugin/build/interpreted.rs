//! Plugins in JavaScript and Python: the tools that put an interpreter and the sources into one component.
//!
//! componentize-qjs (QuickJS, npm) and componentize-py (CPython, PyPI) are looked for in the plugin's own directory first:
//! `node_modules` and `.venv`. Both are told to leave WASI out, for a plugin that imports it is refused.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::component::WORLDS;
use crate::cli::source::Unusable;

const NO_QJS: &str = "run `npm install` in the plugin's directory (Debian: apt-get install nodejs npm)";
const NO_NODE: &str = "node is not there; install nodejs (Debian: apt-get install nodejs npm)";
const NO_PY: &str =
    "run `python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1` in the plugin's directory";

/// Wraps `plugin.js`.
pub(super) fn javascript(directory: &Path, scratch: &Path) -> anyhow::Result<Vec<u8>> {
    let world = world(&directory.join("plugin.js"), |interface| format!("export const {interface} "))?;
    // componentize-qjs is a script of node's: without it the system says that the script is not there.
    anyhow::ensure!(is_there("node", std::env::var_os("PATH").as_deref()), Unusable(NO_NODE.to_owned()));
    let (scratch, wit) = prepare(scratch)?;
    let out = scratch.join("component.wasm");
    let mut command = tool(directory, "node_modules/.bin/componentize-qjs", "componentize-qjs");
    command.args(["--sync", "--stub-wasi", "--opt-size", "--world", world, "--module-root", "."]);
    command.args(["--js", "plugin.js"]).arg("--wit").arg(wit).arg("--output").arg(&out);
    super::run(command.current_dir(directory), NO_QJS)?;
    fs::read(&out).with_context(|| out.display().to_string())
}

/// Wraps `plugin.py`.
pub(super) fn python(directory: &Path, scratch: &Path) -> anyhow::Result<Vec<u8>> {
    let world = world(&directory.join("plugin.py"), |interface| format!("(exports.{}):", capital(interface)))?;
    let (scratch, wit) = prepare(scratch)?;
    let out = scratch.join("component.wasm");
    let mut command = tool(directory, ".venv/bin/componentize-py", "componentize-py");
    command.arg("-d").arg(wit).args(["-w", world, "componentize", "--stub-wasi", "-p", ".", "plugin", "-o"]).arg(&out);
    super::run(command.current_dir(directory), NO_PY)?;
    fs::read(&out).with_context(|| out.display().to_string())
}

/// The scratch directory as a whole path, and the interface in it.
fn prepare(scratch: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let scratch = scratch.canonicalize().with_context(|| scratch.display().to_string())?;
    let wit = scratch.join("wit");
    super::write_wit(&wit)?;
    Ok((scratch, wit))
}

/// The directory's own tool, else the one on the path.
fn tool(directory: &Path, own: &str, name: &str) -> Command {
    match directory.join(own).canonicalize() {
        Ok(own) => Command::new(own),
        Err(_) => Command::new(name),
    }
}

/// Whether a program is in one of the directories of a `PATH`.
fn is_there(program: &str, path: Option<&OsStr>) -> bool {
    path.is_some_and(|path| std::env::split_paths(path).any(|directory| directory.join(program).is_file()))
}

/// The world whose interface a source exports, `export` says how it does that.
fn world(source: &Path, export: impl Fn(&str) -> String) -> anyhow::Result<&'static str> {
    let text = fs::read_to_string(source).with_context(|| source.display().to_string())?;
    let mut worlds = WORLDS.into_iter().filter(|(interface, _)| text.contains(&export(interface)));
    match (worlds.next(), worlds.next()) {
        (Some((_, world)), None) => Ok(world),
        (None, _) => {
            let exports = WORLDS.map(|(interface, _)| format!("`{}`", export(interface).trim_end()));
            bail!(Unusable(format!("{} exports no world: it has none of {}", source.display(), exports.join(", "))))
        }
        _ => bail!(Unusable(format!("{} exports several worlds, a plugin has one", source.display()))),
    }
}

/// With a capital letter, as Python names classes.
fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_say_their_world() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
        let js = examples.join("js-browser/plugin.js");
        assert_eq!(world(&js, |interface| format!("export const {interface} ")).unwrap(), "enrich");
        let py = examples.join("py-category/plugin.py");
        assert_eq!(world(&py, |interface| format!("(exports.{}):", capital(interface))).unwrap(), "enrich");
        let error = world(&py, |interface| format!("export const {interface} ")).unwrap_err().to_string();
        assert!(error.contains("`export const transformer`, `export const sampler`,"), "{error}");
    }

    #[test]
    fn a_program_is_looked_for_where_the_system_would() {
        let directory = tempfile::tempdir().unwrap();
        let path = format!("/no/such:{}", directory.path().display());
        assert!(!is_there("node", Some(path.as_ref())) && !is_there("node", None));
        fs::write(directory.path().join("node"), "").unwrap();
        assert!(is_there("node", Some(path.as_ref())));
    }
}
