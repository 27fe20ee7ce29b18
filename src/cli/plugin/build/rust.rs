//! Plugins in Rust: cargo, for wasm32-unknown-unknown.
//!
//! Whether the compiler has that target, and where to get it if not, is the business of `plugins/toolchain`, which is
//! inside of this binary: rustup fetches it; where rustup cannot, Debian's packages of another compiler are unpacked into
//! a cache of the user's and std is built from their source, once, in about three minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::source::Unusable;

const TOOLCHAIN: &str = include_str!("../../../../plugins/toolchain");

/// The variable that names the cache of the other compiler.
const CACHE: &str = "MILLRACE_GUEST_TOOLCHAIN";

const NO_CARGO: &str = "install Rust from https://rustup.rs, then `rustup target add wasm32-unknown-unknown`";

/// Compiles the crate in `directory`.
pub(super) fn module(directory: &Path, scratch: &Path) -> anyhow::Result<Vec<u8>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", "wasm32-unknown-unknown"]);
    cargo.arg("--message-format=json-render-diagnostics").current_dir(directory);
    cargo.envs(toolchain(scratch)?).stderr(Stdio::inherit()).stdin(Stdio::null());
    let output = match cargo.output() {
        Ok(output) => output,
        Err(error) => bail!(Unusable(format!("cargo: {error}; {NO_CARGO}"))),
    };
    if !output.status.success() {
        bail!("cargo failed ({}); what is above says why", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let path = artifact(&text).ok_or_else(|| {
        Unusable("cargo made no module: Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`".to_owned())
    })?;
    fs::read(&path).with_context(|| path.display().to_string())
}

/// The last `.wasm` among the files that cargo says it has made.
fn artifact(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut files = messages.filter(|message| message["reason"] == "compiler-artifact").flat_map(|message| {
        let files = message["filenames"].as_array().cloned().unwrap_or_default();
        files.into_iter().filter_map(|file| Some(PathBuf::from(file.as_str()?)))
    });
    files.rfind(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

/// Variables with which cargo finds the target.
fn toolchain(scratch: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let script = scratch.join("toolchain");
    fs::write(&script, TOOLCHAIN).with_context(|| script.display().to_string())?;
    let mut bash = Command::new("bash");
    bash.arg(&script).stderr(Stdio::inherit()).stdin(Stdio::null());
    if std::env::var_os(CACHE).is_none() {
        bash.env(CACHE, cache());
    }
    let output = bash.output().map_err(|error| Unusable(format!("bash, which prepares the compiler: {error}")))?;
    if !output.status.success() {
        bail!(Unusable(format!(
            "this machine cannot compile Rust for WebAssembly, and what is above says why; {NO_CARGO}"
        )));
    }
    Ok(exports(&String::from_utf8_lossy(&output.stdout)))
}

fn cache() -> PathBuf {
    let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")));
    caches.unwrap_or_else(std::env::temp_dir).join("millrace/guest-toolchain")
}

/// The variables of `export NAME=VALUE` lines.
fn exports(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_toolchain_exports_is_read() {
        assert_eq!(exports(":\n"), []);
        let two = [("A".to_owned(), "/x=y".to_owned()), ("B".to_owned(), String::new())];
        assert_eq!(exports("export A=/x=y\nexport B=\n"), two);
    }

    #[test]
    fn the_module_is_what_cargo_made_last() {
        let messages = r#"{"reason":"compiler-artifact","filenames":["/t/libserde.rlib"]}
{"reason":"compiler-artifact","filenames":["/t/my_plugin.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(artifact(messages), Some(PathBuf::from("/t/my_plugin.wasm")));
        assert_eq!(artifact("no json\n"), None);
    }
}
