//! Plugins in C: one source, `millrace.h`, clang and its linker.
//!
//! No libc and nothing to configure. The header lays out what the canonical ABI wants, so the module has no types of its
//! own: they are put in when it becomes a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};

use crate::cli::source::Unusable;

const INSTALL: &str = "install clang and lld (Debian: apt-get install clang lld)";

/// What is passed to clang besides the source.
const FLAGS: [&str; 8] = [
    "--target=wasm32",
    "-Wall",
    "-Wextra",
    "-O3",
    "-mbulk-memory",
    "-nostdlib",
    "-Wl,--no-entry,--strip-all,-z,stack-size=65536",
    "-o",
];

/// The plugin's source: `plugin.c`, or the only one that is no test.
pub(super) fn source(directory: &Path) -> Option<PathBuf> {
    let plugin = directory.join("plugin.c");
    if plugin.is_file() {
        return Some(plugin);
    }
    let files = fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_source = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "c")
            && path.file_stem().is_some_and(|stem| stem != "test")
    };
    let mut sources = files.filter(is_source);
    sources.next().filter(|_| sources.next().is_none())
}

/// Compiles the source in `directory`.
pub(super) fn module(directory: &Path, scratch: &Path) -> anyhow::Result<Vec<u8>> {
    let source = source(directory).ok_or_else(|| anyhow!("{} has no source in C", directory.display()))?;
    let module = scratch.join("module.wasm");
    // clang's own words for this are not helpful.
    if Command::new("wasm-ld").arg("--version").output().is_err() {
        bail!(Unusable(format!("wasm-ld is not there; {INSTALL}")));
    }
    super::run(Command::new("clang").args(FLAGS).arg(&module).arg(&source), INSTALL)?;
    fs::read(&module).with_context(|| module.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_the_one_that_is_no_test() {
        let directory = tempfile::tempdir().unwrap();
        let touch = |name: &str| fs::write(directory.path().join(name), "").unwrap();
        touch("test.c");
        assert_eq!(source(directory.path()), None);
        touch("redact.c");
        assert_eq!(source(directory.path()), Some(directory.path().join("redact.c")));
        touch("more.c");
        assert_eq!(source(directory.path()), None, "which one is not known");
        touch("plugin.c");
        assert_eq!(source(directory.path()), Some(directory.path().join("plugin.c")));
    }
}
