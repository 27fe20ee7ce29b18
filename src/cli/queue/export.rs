//! `millrace queue export`: blocks of the log as OTLP, for another tool or another day.
//!
//! JSON lines are one `ExportTraceServiceRequest` (or logs) a line, as the Collector's file exporter writes and its
//! `otlpjsonfile` receiver reads. Protobuf is the same file exporter's framing: each request behind its length in four
//! bytes, big-endian. A block is exported whole when it was received in the time asked for. What is damaged is left out,
//! counted, and ends the command with 1.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::inspect::signal;
use crate::block::Signal;
use crate::cli::human;
use crate::cli::source::Unusable;
use crate::cli::state::StateArgs;
use crate::otlp::json;
use crate::queue::inspect::{self, Lane};
use crate::queue::{Entry, LaneCursor};
use crate::sys::clock;

/// What to export, and how.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// This lane only.
    #[arg(long)]
    lane: Option<u32>,
    /// Only blocks received since: 2026-01-31T12:00:00, or 15m.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only blocks received before.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only what this destination has not got yet: from its cursor on.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// This signal only.
    #[arg(long)]
    signal: Option<SignalWord>,
    /// How requests are written.
    #[arg(long, default_value = "json")]
    format: Format,
    /// A directory to write a file for each signal to, or - for stdout.
    #[arg(long, value_name = "DIRECTORY", default_value = "-")]
    out: PathBuf,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SignalWord {
    Traces,
    Metrics,
    Logs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A request a line.
    Json,
    /// Each request behind its length: four bytes, big-endian.
    Protobuf,
}

#[derive(Default)]
struct Counts {
    blocks: u64,
    spans: u64,
    lost_spans: u64,
    /// Spans whose key is missing, and that key.
    locked: Option<(u64, String)>,
    not_in_json: u64,
}

impl Counts {
    /// Spans of a lane that could not be had: damage, as far as it is not what has no key.
    fn gaps(&mut self, spans: u64, lane: &Lane) {
        let locked = spans.min(lane.recovered.unreadable_spans);
        self.lost_spans += spans - locked;
        if let Some(key) = lane.recovered.missing_key.filter(|_| locked > 0) {
            let known = self.locked.take().map_or(0, |(spans, _)| spans);
            self.locked = Some((known + locked, key.to_string()));
        }
    }
}

/// Writes blocks out; what was written is said on stderr.
pub(super) fn export(arguments: &ExportArgs) -> anyhow::Result<()> {
    let state = arguments.state.open()?;
    let now_ns = clock::wall_ns();
    let moment = |text: &Option<String>, none| match text {
        Some(text) => human::parse_time(text, now_ns).map_err(Unusable),
        None => Ok(none),
    };
    let times = moment(&arguments.from, 0)?..moment(&arguments.to, u64::MAX)?;
    let places = state.lanes_or(arguments.lane)?;
    let lanes = places.into_iter().map(|place| Lane::open(place, now_ns)).collect::<Result<Vec<Lane>, _>>()?;
    // Read after the logs: what was released before they were opened is behind it.
    let cursor = match &arguments.destination {
        Some(name) => Some(cursor(&state.directory, name)?),
        None => None,
    };
    let mut sink = Sink::open(&arguments.out, arguments.format)?;
    let mut counts = Counts::default();
    for lane in &lanes {
        let from = match &cursor {
            Some(cursor) => lane.position(cursor).map_or(lane.oldest(), |place| place.position),
            None => lane.oldest(),
        };
        let mut gaps = 0;
        let mut reader = lane.reader(from);
        while let Some(entry) = reader.next() {
            match entry {
                Entry::Block { meta, payload, .. } => {
                    let wanted = arguments.signal.is_none_or(|wanted| wanted.is(meta.signal));
                    if !wanted || !times.contains(&meta.received_ns) {
                        continue;
                    }
                    if arguments.format == Format::Json && !json::knows(meta.signal) {
                        counts.not_in_json += 1;
                        continue;
                    }
                    sink.write(meta.signal, &payload)?;
                    counts.blocks += 1;
                    counts.spans += u64::from(meta.spans);
                }
                Entry::Gap { spans, .. } => gaps += spans,
            }
        }
        counts.gaps(gaps, lane);
    }
    sink.finish()?;
    say(&counts)
}

fn say(counts: &Counts) -> anyhow::Result<()> {
    eprintln!("{} in {}", human::counted(counts.spans, "span"), human::counted(counts.blocks, "request"));
    if counts.not_in_json > 0 {
        eprintln!("{} requests have no JSON here: export them with --format protobuf", counts.not_in_json);
    }
    if let Some((spans, key)) = &counts.locked {
        let spans = human::counted(*spans, "span");
        let message = format!("left out for want of key {key}: {spans}; name its file with --key-file");
        anyhow::ensure!(counts.lost_spans == 0, "{message}; {} more are damaged", counts.lost_spans);
        anyhow::bail!(message);
    }
    if counts.lost_spans > 0 {
        let spans = human::counted(counts.lost_spans, "span");
        anyhow::bail!("left out for damage: {spans}; see `millrace queue verify`");
    }
    Ok(())
}

fn cursor(directory: &Path, name: &str) -> anyhow::Result<Vec<LaneCursor>> {
    let cursors = inspect::cursors(directory)?;
    let known: Vec<&str> = cursors.iter().map(|cursor| cursor.destination.as_str()).collect();
    let message = format!("there is no destination {name:?}; known here: {}", known.join(", "));
    let found = cursors.into_iter().find(|cursor| cursor.destination == name);
    Ok(found.ok_or(Unusable(message))?.lanes)
}

impl SignalWord {
    fn is(self, other: Signal) -> bool {
        matches!(
            (self, other),
            (SignalWord::Traces, Signal::Traces)
                | (SignalWord::Metrics, Signal::Metrics)
                | (SignalWord::Logs, Signal::Logs)
        )
    }
}

/// Where requests go: stdout, or a file a signal, made when the first one comes.
struct Sink {
    directory: Option<PathBuf>,
    format: Format,
    open: Vec<(Signal, BufWriter<Box<dyn Write>>)>,
    scratch: Vec<u8>,
}

impl Sink {
    fn open(out: &Path, format: Format) -> anyhow::Result<Sink> {
        let directory = (out != Path::new("-")).then(|| out.to_owned());
        if let Some(directory) = &directory {
            fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        }
        Ok(Sink { directory, format, open: Vec::new(), scratch: Vec::new() })
    }

    fn write(&mut self, signal: Signal, payload: &[u8]) -> anyhow::Result<()> {
        self.scratch.clear();
        match self.format {
            Format::Json => {
                json::encode(signal, &[payload], &mut self.scratch);
                self.scratch.push(b'\n');
            }
            Format::Protobuf => {
                let length = u32::try_from(payload.len()).context("a request of more than 4 GiB")?;
                self.scratch.extend_from_slice(&length.to_be_bytes());
                self.scratch.extend_from_slice(payload);
            }
        }
        let index = match self.open.iter().position(|(open, _)| *open == signal || self.directory.is_none()) {
            Some(index) => index,
            None => {
                self.open.push((signal, BufWriter::new(self.start(signal)?)));
                self.open.len() - 1
            }
        };
        Ok(self.open[index].1.write_all(&self.scratch)?)
    }

    fn start(&self, of: Signal) -> anyhow::Result<Box<dyn Write>> {
        let Some(directory) = &self.directory else { return Ok(Box::new(io::stdout().lock())) };
        let ending = match self.format {
            Format::Json => "jsonl",
            Format::Protobuf => "pb",
        };
        let path = directory.join(format!("{}.{ending}", signal(of)));
        // What was encrypted in the log is plain here.
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Ok(Box::new(
            created.with_context(|| format!("{} cannot be made: export to an empty directory", path.display()))?,
        ))
    }

    fn finish(self) -> io::Result<()> {
        self.open.into_iter().try_for_each(|(_, mut writer)| writer.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::state::tests::{encrypted, keys, without_keys};
    use crate::queue::inspect::Place;

    #[test]
    fn what_is_written_is_for_its_owner_alone() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(directory.path(), Format::Protobuf).unwrap();
        sink.write(Signal::Traces, &[7; 9]).unwrap();
        sink.finish().unwrap();
        assert_eq!(fs::metadata(directory.path().join("traces.pb")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_lane_that_is_not_there_cannot_be_exported() {
        let directory = tempfile::tempdir().unwrap();
        encrypted(&Place::of_lane(directory.path(), 0), 1);
        let state = without_keys(directory.path());
        assert_eq!((state.lanes_or(None).unwrap().len(), state.lanes_or(Some(0)).unwrap().len()), (1, 1));
        assert!(state.lanes_or(Some(9)).unwrap_err().to_string().starts_with("there is no lane 9"));
    }

    #[test]
    fn what_has_no_key_is_not_called_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let place = || Place::of_lane(directory.path(), 0);
        encrypted(&place(), 5);
        let lane = Lane::open(place(), 77).unwrap();
        let mut counts = Counts::default();
        counts.gaps(15, &lane);
        let said = say(&counts).unwrap_err().to_string();
        let key = keys().ids().next().unwrap();
        assert_eq!(said, format!("left out for want of key {key}: 15 spans; name its file with --key-file"));
        counts.gaps(18, &lane);
        assert!(say(&counts).unwrap_err().to_string().ends_with("; 3 more are damaged"));
    }
}
