//! `millrace plugin test`: a plugin's own tests, as files.
//!
//! Each directory under `tests/` is one. `in.json` is a request of spans, or `in.txt` or `in.bin` what a peer sends to a
//! decoder; `config.json` is what the plugin is told, if anything, and each `NAME.csv` a table for `lookup`. What comes out is
//! kept in files too, see [`super::product`]. Both sides are read as OTLP and written in one form, so order and spelling of
//! JSON do not matter. The component is built first, unless it is named. `--bless` writes what comes out, to be read
//! and kept.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use super::build;
use super::diff::diff;
use super::product::{self, File};
use super::trial::{ComponentArgs, ToldArgs, Trial};
use crate::block::Signal;
use crate::cli::source::Unusable;
use crate::plugin::load::Source;

/// What to test.
#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    /// The plugin's directory.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Test this component, and build nothing.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Write what comes out as what is expected.
    #[arg(long)]
    bless: bool,
    #[command(flatten)]
    told: ToldArgs,
}

/// Runs the tests of a plugin.
pub(super) fn test(arguments: &TestArgs) -> anyhow::Result<()> {
    let cases = cases(&arguments.directory)?;
    let file = match &arguments.component {
        Some(file) => file.clone(),
        None => build::directory(&arguments.directory, None)?,
    };
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        match run(case, &file, arguments) {
            Ok(fault) if fault.is_empty() && arguments.bless => writeln!(out, "wrote {name}")?,
            Ok(fault) if fault.is_empty() => writeln!(out, "ok    {name}")?,
            Ok(fault) => {
                write!(out, "FAIL  {name}\n{fault}")?;
                failed += 1;
            }
            Err(error) => {
                writeln!(out, "FAIL  {name}\n  {error:#}")?;
                failed += 1;
            }
        }
    }
    let word = if arguments.bless { "written, to be read and kept" } else { "passed" };
    writeln!(out, "{} {word}; {failed} failed", cases.len() - failed)?;
    if failed > 0 { bail!("{failed} of {} tests failed", cases.len()) } else { Ok(()) }
}

/// The directories with an input, in the order of their names.
fn cases(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let tests = directory.join("tests");
    let entries = fs::read_dir(&tests).map_err(|error| Unusable(format!("{}: {error}", tests.display())))?;
    let mut cases: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    cases.retain(|case| product::INPUTS.iter().any(|name| case.join(name).is_file()));
    cases.sort();
    match cases.is_empty() {
        true => {
            let inputs = product::INPUTS.join(", ");
            bail!(Unusable(format!("{} has no directory with one of {inputs}", tests.display())))
        }
        false => Ok(cases),
    }
}

/// What is wrong with what comes out, line by line; when it is blessed, nothing is.
fn run(case: &Path, component: &Path, arguments: &TestArgs) -> anyhow::Result<String> {
    let told = ToldArgs { like: Some(case.to_owned()), ..arguments.told.clone() };
    let source = Source::read(component)?;
    let mut trial = Trial::load(&ComponentArgs { file: component.to_owned(), told }, &source)?;
    let found = product::of_test(&mut trial, case)?;
    let kept = kept(case)?;
    if arguments.bless {
        kept.iter().try_for_each(|name| fs::remove_file(case.join(name)))?;
        found.iter().try_for_each(|file| fs::write(case.join(&file.name), &file.bytes))?;
        return Ok(String::new());
    }
    let mut faults = String::new();
    for file in &found {
        match fs::read(case.join(&file.name)) {
            Ok(expected) => faults += &difference(trial.signal(), &expected, file),
            Err(_) => {
                faults += &format!("there is no {}: `millrace plugin test --bless` writes one\n", file.name);
                faults += &difference(trial.signal(), b"", file);
            }
        }
    }
    for name in kept.iter().filter(|name| !found.iter().any(|file| file.name == **name)) {
        faults += &format!("{name} is there, and nothing of the kind came out\n");
    }
    Ok(faults)
}

/// The files of a test in which it is kept what came out.
fn kept(case: &Path) -> std::io::Result<Vec<String>> {
    let names = fs::read_dir(case)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<std::io::Result<_>>()?;
    names.retain(|name| product::OUTPUTS.iter().any(|start| name.starts_with(start)));
    names.sort();
    Ok(names)
}

/// The difference to what was expected; empty if there is none.
fn difference(signal: Signal, expected: &[u8], found: &File) -> String {
    let expected = match found.name.ends_with(".json") && !expected.is_empty() {
        true => match product::canonical(signal, expected) {
            Ok(expected) => expected.into_bytes(),
            Err(error) => return format!("{}: {error:#}\n", found.name),
        },
        false => expected.to_vec(),
    };
    if expected == found.bytes {
        return String::new();
    }
    let lines = match (std::str::from_utf8(&expected), std::str::from_utf8(&found.bytes)) {
        (Ok(expected), Ok(found)) => diff(expected, found),
        _ => {
            let same = expected.iter().zip(&found.bytes).take_while(|(a, b)| a == b).count();
            format!("  {} bytes instead of {}; they differ from byte {same} on\n", found.bytes.len(), expected.len())
        }
    };
    // What no line shows is at the end of one, or of the last.
    let lines = if lines.is_empty() { "  line ends differ\n".to_owned() } else { lines };
    format!("{} (- expected, + found)\n{lines}", found.name)
}

#[cfg(test)]
mod tests;
