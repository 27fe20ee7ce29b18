//! `millrace plugin run`: what is in a file or a pipe through a plugin.
//!
//! OTLP in JSON comes out, a line for each request of which something is left or for each block of records that a decoder
//! makes; an encoder's messages come out as they are. What became of it all is counted on stderr. What a running
//! appliance has in its log goes through a new plugin by `millrace queue export | millrace plugin run FILE --in -`:
//! nothing of the appliance is touched.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::otlp;
use super::product::READ_BYTES;
use super::trial::{ComponentArgs, Trial};
use crate::block::Signal;
use crate::cli::api::{Api, ApiArgs};
use crate::cli::human;
use crate::cli::source::Source as Config;
use crate::cli::source::Unusable;
use crate::cli::tap::{self, TapChoice};
use crate::pipeline::trial::{Messages, Rejected};
use crate::plugin::World;
use crate::plugin::load::Source;

/// How a line of spans begins, as our own encoder writes it.
const SPANS: &[u8] = b"{\"resourceSpans\"";

/// What to run.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// Requests: OTLP as JSON or protobuf, one or many; for a decoder what a peer would send; - for stdin.
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// What passes the lanes of a running appliance, which notices nothing of it.
    #[arg(long, conflicts_with = "input")]
    tap: bool,
    #[command(flatten)]
    choice: TapChoice,
    #[command(flatten)]
    api: ApiArgs,
    /// What requests hold; log records are read as protobuf only.
    #[arg(long, default_value = "traces")]
    signal: SignalWord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SignalWord {
    Traces,
    Logs,
}

/// Runs what is in a file through a plugin.
pub(super) fn run(arguments: &RunArgs) -> anyhow::Result<()> {
    if arguments.input.is_none() && !arguments.tap {
        let (file, tap) = ("`--in FILE` (- for stdin)", "`--tap` for what passes a running appliance");
        return Err(Unusable(format!("there is nothing to run through the plugin: say {file}, or {tap}")).into());
    }
    let source = Source::read(&arguments.component.file)?;
    let mut trial = Trial::load(&arguments.component, &source)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let Some(input) = &arguments.input else { return tapped(arguments, trial, &mut out) };
    let input = read(input)?;
    if trial.world() == World::Decode {
        return connection(&mut trial, &input, &mut out);
    }
    let signal = match arguments.signal {
        SignalWord::Traces => Signal::Traces,
        SignalWord::Logs => Signal::Logs,
    };
    let mut passage = Passage::new(trial, signal);
    for (number, request) in otlp::requests(signal, &input)?.iter().enumerate() {
        passage.pass(request, &mut out).map_err(|error| error.context(format!("request {}", number + 1)))?;
    }
    out.flush()?;
    eprintln!("{}", passage.said());
    Ok(())
}

/// What passes the lanes of an appliance, until there were enough rows.
fn tapped(arguments: &RunArgs, trial: Trial, out: &mut dyn Write) -> anyhow::Result<()> {
    if trial.world() == World::Decode {
        return Err(
            Unusable("--tap: what passes the lanes is OTLP, and a decoder reads its own format".to_owned()).into()
        );
    }
    if !trial.hand.wants(Signal::Traces) {
        return Err(Unusable(
            "--tap: of what passes only spans can be read back, and this plugin is shown none".to_owned(),
        )
        .into());
    }
    let api = Api::find(&arguments.api, &Config::of_file(None))?;
    let mut passage = Passage::new(trial, Signal::Traces);
    let outcome = tap::listen(&api, &arguments.choice, &mut |line| {
        if !line.starts_with(SPANS) {
            return Ok(());
        }
        for request in otlp::requests(Signal::Traces, line)? {
            passage.pass(&request, out)?;
        }
        // Whoever looks wants to see it now.
        Ok(out.flush()?)
    });
    eprintln!("{}", passage.said());
    outcome
}

/// Bytes of a connection: a line out for each block of records.
fn connection(trial: &mut Trial, input: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
    let received = trial.hand.connection(input, READ_BYTES)?;
    for block in &received.blocks {
        out.write_all(&otlp::line(trial.signal(), block))?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    for Rejected { reason, reply, bytes } in &received.rejected {
        let says = if reply.is_empty() { String::new() } else { format!(": {}", human::harmless(reply)) };
        eprintln!("rejected ({reason}{says}): {}", human::harmless(&String::from_utf8_lossy(bytes)));
    }
    let records = human::counted(u64::from(received.spent.rows), "record");
    let (filtered, rejected) = (received.filtered, received.rejected.len());
    eprintln!("{records}, {filtered} not wanted, {rejected} rejected, {} bytes of reply", received.reply.len());
    Ok(())
}

/// Requests on their way through a plugin, and what became of them.
pub(super) struct Passage {
    trial: Trial,
    signal: Signal,
    requests: u64,
    rows: u64,
    edited: u64,
    dropped: u64,
    messages: u64,
    unencodable: u64,
}

impl Passage {
    /// Through this plugin, which is no decoder.
    pub(super) fn new(trial: Trial, signal: Signal) -> Passage {
        Passage { trial, signal, requests: 0, rows: 0, edited: 0, dropped: 0, messages: 0, unencodable: 0 }
    }

    /// Writes what the plugin makes of a request: a line of JSON if something is left, or the messages.
    pub(super) fn pass(&mut self, request: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
        self.requests += 1;
        if self.trial.world() == World::Encode {
            let Messages { messages, unencodable, spent, .. } = self.trial.hand.batch(self.signal, request)?;
            self.rows += u64::from(spent.rows);
            self.messages += messages.len() as u64;
            self.unencodable += unencodable.len() as u64;
            return Ok(messages.iter().try_for_each(|message| out.write_all(message))?);
        }
        let block = self.trial.hand.block(self.signal, request)?;
        self.rows += u64::from(block.spent.rows);
        self.edited += block.edited;
        self.dropped += block.dropped;
        if !block.payload.is_empty() {
            out.write_all(&otlp::line(self.signal, &block.payload))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// What became of all of them, in words.
    pub(super) fn said(&self) -> String {
        let (requests, rows) = (human::counted(self.requests, "request"), human::counted(self.rows, "row"));
        match self.trial.world() {
            World::Encode => {
                let messages = human::counted(self.messages, "message");
                format!(
                    "{requests}: {rows} shown, {messages}, {} cannot be said",
                    human::counted(self.unencodable, "row")
                )
            }
            _ => {
                let [edited, dropped] = [self.edited, self.dropped].map(human::count);
                format!("{requests}: {rows} shown, {edited} edited, {dropped} dropped")
            }
        }
    }
}

fn read(input: &Path) -> anyhow::Result<Vec<u8>> {
    if input == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    Ok(fs::read(input).map_err(|error| Unusable(format!("{}: {error}", input.display())))?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn whoever_says_nothing_to_run_is_told_of_files_and_of_the_tap() {
        let line = Line::try_parse_from(["run", "first.wasm"]).unwrap();
        let error = run(&line.run).unwrap_err();
        assert!(error.is::<Unusable>() && error.to_string().contains("`--in FILE`"), "{error}");
        assert!(error.to_string().contains("`--tap`"), "{error}");
        assert!(Line::try_parse_from(["run", "first.wasm", "--tap", "--in", "x"]).is_err(), "one of them");
    }
}
