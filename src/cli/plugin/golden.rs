//! `millrace plugin test`: a plugin's own tests, as files.
//!
//! Each directory under `tests/` is one: `in.json` is a request of spans, `expected.json` what the plugin makes of it (the text
//! `"dropped"` if nothing is left), `config.json` what it is told, if anything. Both sides are read as OTLP and written in one
//! form, so order and spelling of JSON do not matter. The component is built first, unless it is named. `--bless` writes
//! what comes out, to be read and kept.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::build;
use super::diff::diff;
use super::otlp;
use super::trial::{ComponentArgs, ToldArgs, Trial};
use crate::block::Signal;
use crate::cli::source::Unusable;
use crate::plugin::load::Source;

/// What stands for a payload of which nothing is left.
const DROPPED: &str = "\"dropped\"\n";

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
        let fault = match run(case, &file, &arguments.told) {
            Ok(found) if arguments.bless => {
                fs::write(case.join("expected.json"), found)?;
                None
            }
            Ok(found) => compare(case, &found)?,
            Err(error) => Some(format!("{error:#}\n")),
        };
        match fault {
            None => writeln!(out, "ok    {name}")?,
            Some(fault) => {
                write!(out, "FAIL  {name}\n{fault}")?;
                failed += 1;
            }
        }
    }
    writeln!(out, "{} passed, {failed} failed", cases.len() - failed)?;
    if failed > 0 { bail!("{failed} of {} tests failed", cases.len()) } else { Ok(()) }
}

/// The directories with an `in.json`, in the order of their names.
fn cases(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let tests = directory.join("tests");
    let entries = fs::read_dir(&tests).map_err(|error| Unusable(format!("{}: {error}", tests.display())))?;
    let mut cases: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    cases.retain(|case| case.join("in.json").is_file());
    cases.sort();
    match cases.is_empty() {
        true => bail!(Unusable(format!("{} has no directory with an in.json", tests.display()))),
        false => Ok(cases),
    }
}

/// What the plugin makes of a test's request.
fn run(case: &Path, component: &Path, told: &ToldArgs) -> anyhow::Result<String> {
    let mut told = told.clone();
    let config = case.join("config.json");
    if config.is_file() {
        told.config = Some(fs::read_to_string(&config)?);
    }
    let source = Source::read(component)?;
    let mut trial = Trial::load(&ComponentArgs { file: component.to_owned(), told }, &source)?;
    let mut found = Vec::new();
    for request in read(&case.join("in.json"))? {
        found.extend_from_slice(&trial.run(Signal::Traces, &request)?.payload);
    }
    if found.is_empty() { Ok(DROPPED.to_owned()) } else { otlp::pretty(&found) }
}

fn read(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read(path).with_context(name)?;
    otlp::requests(Signal::Traces, &text).with_context(name)
}

/// The difference to what was expected, if there is one.
fn compare(case: &Path, found: &str) -> anyhow::Result<Option<String>> {
    let path = case.join("expected.json");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(Some("there is no expected.json: `millrace plugin test --bless` writes one\n".to_owned()));
    };
    let expected = match text.trim() == DROPPED.trim() {
        true => DROPPED.to_owned(),
        false => match read(&path) {
            Ok(requests) => otlp::pretty(&requests.concat())?,
            Err(error) => return Ok(Some(format!("{error:#}\n"))),
        },
    };
    let difference = diff(&expected, found);
    Ok((!difference.is_empty()).then_some(difference))
}

#[cfg(test)]
mod tests {
    use super::super::tests::kept;
    use super::*;

    fn arguments(directory: &Path, bless: bool) -> TestArgs {
        let component = Some(kept("transform"));
        TestArgs { directory: directory.to_owned(), component, bless, told: ToldArgs::default() }
    }

    #[test]
    fn tests_pass_after_a_blessing_and_fail_when_what_comes_out_is_something_else() {
        let directory = tempfile::tempdir().unwrap();
        let error = test(&arguments(directory.path(), false)).unwrap_err();
        assert!(error.is::<Unusable>(), "{error}");
        let case = directory.path().join("tests/first");
        fs::create_dir_all(&case).unwrap();
        let input = include_str!("../../../plugins/templates/test/in.json");
        fs::write(case.join("in.json"), input).unwrap();
        assert_eq!(test(&arguments(directory.path(), false)).unwrap_err().to_string(), "1 of 1 tests failed");
        test(&arguments(directory.path(), true)).unwrap();
        test(&arguments(directory.path(), false)).unwrap();
        let blessed = fs::read_to_string(case.join("expected.json")).unwrap();
        fs::write(case.join("expected.json"), blessed.replace("GET /pay", "GET /play")).unwrap();
        assert!(test(&arguments(directory.path(), false)).is_err());
        let found = run(&case, &kept("transform"), &ToldArgs::default()).unwrap();
        let difference = compare(&case, &found).unwrap().unwrap();
        assert!(difference.contains("- ") && difference.contains("GET /play"), "{difference}");
        // The plugin drops the last row: of one there is nothing left.
        let one = sample_of_one();
        fs::write(case.join("in.json"), one).unwrap();
        fs::write(case.join("expected.json"), "\"dropped\"").unwrap();
        test(&arguments(directory.path(), false)).unwrap();
    }

    fn sample_of_one() -> String {
        let one = &super::super::sample::samples()[1].payload;
        otlp::pretty(one).unwrap()
    }
}
