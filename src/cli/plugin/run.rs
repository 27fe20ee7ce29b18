//! `millrace plugin run`: requests through a plugin, from a file or a pipe, as OTLP in JSON.
//!
//! A line out for each request of which something is left; what was changed and dropped is counted on stderr. What a running
//! appliance has in its log goes through a new plugin by `millrace queue export | millrace plugin run FILE --in -`:
//! nothing of the appliance is touched.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::otlp;
use super::trial::{ComponentArgs, Trial};
use crate::block::Signal;
use crate::cli::human;
use crate::cli::source::Unusable;
use crate::plugin::load::Source;

/// What to run.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// Requests: OTLP as JSON or protobuf, one or many; - for stdin.
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// What they hold; log records are read as protobuf only.
    #[arg(long, default_value = "traces")]
    signal: SignalWord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SignalWord {
    Traces,
    Logs,
}

/// Runs requests through a plugin.
pub(super) fn run(arguments: &RunArgs) -> anyhow::Result<()> {
    let source = Source::read(&arguments.component.file)?;
    let mut trial = Trial::load(&arguments.component, &source)?;
    let signal = match arguments.signal {
        SignalWord::Traces => Signal::Traces,
        SignalWord::Logs => Signal::Logs,
    };
    let requests = otlp::requests(signal, &read(&arguments.input)?)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut rows, mut edited, mut dropped) = (0_u64, 0_u64, 0_u64);
    for (number, request) in requests.iter().enumerate() {
        let outcome = trial.run(signal, request).map_err(|error| error.context(format!("request {}", number + 1)))?;
        rows += u64::from(outcome.rows);
        edited += u64::from(outcome.edited);
        dropped += u64::from(outcome.dropped);
        if !outcome.payload.is_empty() {
            out.write_all(&otlp::line(signal, &outcome.payload))?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    let [rows, edited, dropped] = [rows, edited, dropped].map(human::count);
    eprintln!("{} requests: {rows} rows shown, {edited} edited, {dropped} dropped", requests.len());
    Ok(())
}

fn read(input: &Path) -> anyhow::Result<Vec<u8>> {
    if input == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    Ok(fs::read(input).map_err(|error| Unusable(format!("{}: {error}", input.display())))?)
}
