//! The command line: one subcommand each for generating, receiving, measuring and reporting.
//!
//! Only here are arguments read and reports printed: everything below gets plain structs and gives back results. Every
//! load has a count and a limit of time, so that no command runs for ever; targets are resolved once, before the start.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use millrace::fleet::Wire;
use millrace::sys::clock;

use crate::compare::{self, Scenario, Setup};
use crate::limits::Limits;
use crate::load::Pace;
use crate::load::otlp::{self, OtlpLoad};
use crate::load::rows::{self, RowLoad};
use crate::sink::{Expectation, Sink, SinkOptions, verify};
use crate::{plugins, queue, report};

/// Load, sink, limits, comparison and report for Millrace.
#[derive(Debug, Parser)]
#[command(name = "millrace-bench", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send uberAgent rows of a synthetic fleet.
    Fleet(FleetArguments),
    /// Send OTLP/HTTP requests with numbered spans.
    Otlp(OtlpArguments),
    /// Take OTLP/HTTP and InfluxDB writes, count and verify.
    Sink(SinkArguments),
    /// Measure what this machine can do at best.
    Limits(LimitsArguments),
    /// Measure the log alone beside the limits it has to keep.
    Queue(QueueArguments),
    /// Measure what plugins cost a span, beside the limits that each figure has to keep.
    Plugins(PluginArguments),
    /// Measure Millrace and its peers beside the machine's limits.
    Compare(CompareArguments),
    /// Write the results of `compare` as Markdown and SVG.
    Report(ReportArguments),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// JSON lines as Fluent Bit writes them.
    Jsonl,
    /// Elasticsearch `_bulk` over HTTP.
    Bulk,
    /// Splunk's header and CSV.
    Csv,
}

#[derive(Debug, clap::Args)]
struct PaceArguments {
    /// Rows or spans in all.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Seconds after which the run ends in any case.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Rows or spans a second; as fast as the peer takes them when absent.
    #[arg(long)]
    rate: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct FleetArguments {
    /// Where to, on loopback.
    #[arg(default_value = "127.0.0.1:5000")]
    target: String,
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Logons rendered before the start; they are sent again under new GUIDs until the count is reached.
    #[arg(long, default_value_t = 500)]
    logons: usize,
    #[command(flatten)]
    pace: PaceArguments,
}

#[derive(Debug, clap::Args)]
struct OtlpArguments {
    /// Where to, on loopback.
    #[arg(default_value = "127.0.0.1:4318")]
    target: String,
    /// Spans of a request.
    #[arg(long, default_value_t = 512)]
    spans: usize,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// High half of the trace ids; different for runs that one sink tells apart.
    #[arg(long, default_value_t = 1)]
    run: u64,
    /// Write what was acknowledged to this file, for `sink --expect`.
    #[arg(long)]
    acknowledged: Option<PathBuf>,
    #[command(flatten)]
    pace: PaceArguments,
}

#[derive(Debug, clap::Args)]
struct SinkArguments {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:4319")]
    listen: String,
    /// Keep every span's ids and say which came twice. Takes 24 bytes a span.
    #[arg(long)]
    verify: bool,
    /// At the end, say which of the spans in this file are missing. Implies --verify.
    #[arg(long)]
    expect: Option<PathBuf>,
    /// End after this many spans.
    #[arg(long)]
    until_spans: Option<u64>,
    /// End when nothing has come for this many seconds after the first span.
    #[arg(long)]
    until_idle: Option<u64>,
    /// Seconds after which it ends in any case.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Answer every n-th request with --failure-status.
    #[arg(long)]
    fail_every: Option<u64>,
    #[arg(long, default_value_t = 503)]
    failure_status: u16,
    /// `Retry-After` of failures, seconds.
    #[arg(long)]
    retry_after: Option<u64>,
    /// Close connections without an answer from second A to second B: `A..B`. May be repeated.
    #[arg(long, value_parser = window)]
    down: Vec<Range<Duration>>,
    /// Milliseconds before each answer.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

#[derive(Debug, clap::Args)]
struct LimitsArguments {
    /// On the file system that the log would be on.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
}

#[derive(Debug, clap::Args)]
struct QueueArguments {
    /// On the file system that the log would be on.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// MB of the backlog whose recovery is measured: so much is written there, and removed.
    #[arg(long, default_value_t = 10_000)]
    backlog_mb: u64,
}

#[derive(Debug, clap::Args)]
struct PluginArguments {
    /// Where `redact.wasm` and `nop.wasm` are: `tests/guests/run` builds them there.
    #[arg(default_value = "target/guests/components")]
    components: PathBuf,
}

#[derive(Debug, clap::Args)]
struct CompareArguments {
    /// The `millrace` binary, built in release.
    millrace: PathBuf,
    /// rotel's agent, from its Python wheel (`rotel/rotel-agent` in it).
    #[arg(long)]
    rotel: Option<PathBuf>,
    /// A component that redacts, such as `target/guests/components/redact.wasm`: the rows' way is measured with it too.
    #[arg(long)]
    redactor: Option<PathBuf>,
    /// What to measure; everything when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Runs of each case; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Rows or spans of a run.
    #[arg(long, default_value_t = 1_000_000)]
    items: u64,
    /// Where logs and states go: the file system under the log.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Where the results go, for `report`.
    #[arg(long, default_value = "bench-results.json")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ReportArguments {
    /// What `compare` wrote.
    #[arg(default_value = "bench-results.json")]
    results: PathBuf,
    /// Where the picture goes; the table goes to standard output.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// Does what the command line says.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Fleet(fleet) => run_fleet(&fleet),
        Command::Otlp(otlp) => run_otlp(&otlp),
        Command::Sink(sink) => run_sink(sink),
        Command::Limits(limits) => print(&Limits::measure(&limits.directory)?.to_json()),
        Command::Queue(queue) => {
            let table = queue::measure(&queue.directory, queue.backlog_mb * 1_000_000)?;
            write!(io::stdout(), "{table}").context("writing the table")
        }
        Command::Plugins(arguments) => {
            write!(io::stdout(), "{}", plugins::measure(&arguments.components)?).context("writing the table")
        }
        Command::Compare(compare) => run_compare(compare),
        Command::Report(report) => run_report(&report),
    }
}

fn run_fleet(arguments: &FleetArguments) -> Result<()> {
    let wire = match arguments.format {
        Format::Jsonl => Wire::FluentBit,
        Format::Bulk => Wire::Bulk,
        Format::Csv => Wire::SplunkTcp,
    };
    let sent = rows::send(&RowLoad {
        target: resolve(&arguments.target)?,
        wire,
        connections: arguments.connections,
        seed: arguments.seed,
        logons: arguments.logons,
        pace: arguments.pace.pace(),
        note_bursts: false,
    })?;
    print(&sent.to_json())
}

fn run_otlp(arguments: &OtlpArguments) -> Result<()> {
    let sent = otlp::send(&OtlpLoad {
        target: resolve(&arguments.target)?,
        spans: arguments.spans,
        connections: arguments.connections,
        run: arguments.run,
        pace: arguments.pace.pace(),
    })?;
    let report = sent.to_json();
    if let Some(path) = &arguments.acknowledged {
        Expectation { ranges: sent.acknowledged }.write(path)?;
    }
    print(&report)
}

fn run_sink(arguments: SinkArguments) -> Result<()> {
    let options = SinkOptions {
        keep_ids: arguments.verify || arguments.expect.is_some(),
        keep_times: false,
        fail_every: arguments.fail_every,
        failure_status: arguments.failure_status,
        retry_after: arguments.retry_after,
        down: arguments.down,
        delay: Duration::from_millis(arguments.delay_ms),
    };
    let keeps_ids = options.keep_ids;
    let sink = Sink::start(resolve(&arguments.listen)?, options)?;
    writeln!(io::stderr(), "sink on {}", sink.address)?;
    let ends = clock::monotonic() + Duration::from_secs(arguments.seconds);
    let mut last = (sink.snapshot().spans, clock::monotonic());
    loop {
        std::thread::park_timeout(Duration::from_millis(50));
        let (spans, now) = (sink.snapshot().spans, clock::monotonic());
        if spans != last.0 {
            last = (spans, now);
        }
        let idle = arguments.until_idle.is_some_and(|idle| spans > 0 && now - last.1 >= Duration::from_secs(idle));
        if idle || now >= ends || arguments.until_spans.is_some_and(|until| spans >= until) {
            break;
        }
    }
    let mut report = sink.snapshot().to_json();
    if keeps_ids {
        let expectation = arguments.expect.as_deref().map(Expectation::read).transpose()?.unwrap_or_default();
        report["verdict"] = verify(sink.take_ids(), &expectation).to_json();
    }
    print(&report)
}

fn run_compare(arguments: CompareArguments) -> Result<()> {
    let scenarios = if arguments.only.is_empty() { Scenario::value_variants().to_vec() } else { arguments.only };
    let setup = Setup {
        millrace: arguments.millrace,
        rotel: arguments.rotel,
        redactor: arguments.redactor,
        directory: arguments.directory,
        items: arguments.items,
    };
    let results = compare::compare(&setup, &scenarios, arguments.runs.max(1))?;
    std::fs::write(&arguments.out, serde_json::to_vec_pretty(&results)?)
        .with_context(|| format!("writing {}", arguments.out.display()))?;
    write!(io::stdout(), "{}", report::markdown(&results)?).context("writing the table")
}

fn run_report(arguments: &ReportArguments) -> Result<()> {
    let bytes =
        std::fs::read(&arguments.results).with_context(|| format!("reading {}", arguments.results.display()))?;
    let results = serde_json::from_slice(&bytes)?;
    if let Some(path) = &arguments.svg {
        std::fs::write(path, report::svg(&results)?).with_context(|| format!("writing {}", path.display()))?;
    }
    write!(io::stdout(), "{}", report::markdown(&results)?).context("writing the table")
}

impl PaceArguments {
    fn pace(&self) -> Pace {
        Pace { count: self.count, limit: Duration::from_secs(self.seconds), rate: self.rate }
    }
}

fn resolve(target: &str) -> Result<SocketAddr> {
    let mut addresses = target.to_socket_addrs().with_context(|| format!("address {target:?}"))?;
    addresses.next().with_context(|| format!("{target:?} has no address"))
}

fn window(text: &str) -> Result<Range<Duration>> {
    let (from, to) = text.split_once("..").context("a window is written A..B")?;
    Ok(Duration::try_from_secs_f64(from.parse()?)?..Duration::try_from_secs_f64(to.parse()?)?)
}

fn print(report: &serde_json::Value) -> Result<()> {
    writeln!(io::stdout(), "{report}").context("writing the report")
}
