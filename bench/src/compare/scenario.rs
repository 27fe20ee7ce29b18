//! The measurements: each starts a subject and a sink, sends, waits until everything has arrived, and reads the cost.
//!
//! CPU time is that of the whole process under measurement between the end of a warm-up and the arrival of the last
//! span; generator and sink cost nothing here, though they take wall time from the same cores.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace::fleet::Wire;
use millrace::sys::clock;

use super::process::{Subject, free_address};
use super::subjects::{Batch, Millrace, Settings, start_rotel};
use crate::load::Pace;
use crate::load::otlp::{self, OtlpLoad};
use crate::load::rows::{self, RowLoad};
use crate::sink::{Sink, SinkOptions};
use crate::usage::Memory;

/// Nothing new for so long means that everything has arrived.
const QUIET: Duration = Duration::from_millis(800);

/// A run that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(180);

/// Share of the items that is sent before the measurement: pools are touched, connections opened.
const WARM_UP_SHARE: u64 = 10;

const LOGONS: usize = 400;

/// What a scenario needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The `millrace` binary.
    pub(crate) millrace: PathBuf,
    /// rotel's agent, if it is to be compared.
    pub(crate) rotel: Option<PathBuf>,
    /// A plugin that redacts, if the rows' way is to be measured with it too.
    pub(crate) redactor: Option<PathBuf>,
    /// Where logs and states go.
    pub(crate) directory: PathBuf,
    /// Rows or spans of a run.
    pub(crate) items: u64,
}

/// What one run has shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measurement {
    /// Rows or spans.
    pub(crate) items: u64,
    /// CPU time of the subject.
    pub(crate) cpu: Duration,
    /// From the first byte sent until the last span arrived.
    pub(crate) wall: Duration,
    /// Spans of a request to the backend, on average.
    pub(crate) spans_a_request: f64,
    /// The subject's most memory.
    pub(crate) memory: Memory,
    /// What else the scenario has found, by name.
    pub(crate) more: Vec<(&'static str, f64)>,
}

impl Measurement {
    /// CPU microseconds an item.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.items as f64
    }
}

/// Rows over TCP to OTLP, session map on, one lane.
pub(super) fn rows_to_otlp(setup: &Setup, batch: Batch) -> Result<Measurement> {
    rows(setup, Settings { lanes: 1, batch, influx: true, redacts: false })
}

/// The same through a plugin that hides what must not be stored.
pub(super) fn rows_redacted(setup: &Setup, batch: Batch) -> Result<Measurement> {
    rows(setup, Settings { lanes: 1, batch, influx: true, redacts: true })
}

fn rows(setup: &Setup, settings: Settings) -> Result<Measurement> {
    let sink = sink(SinkOptions::default(), None)?;
    let millrace = Millrace::start(setup, sink.address, settings)?;
    let send = |items, seed| rows::send(&row_load(millrace.rows, items, seed, 4));
    measure(setup, &millrace.subject, &sink, send)
}

/// OTLP/HTTP in and out, one lane.
pub(super) fn otlp_to_otlp(setup: &Setup, spans: usize) -> Result<Measurement> {
    let sink = sink(SinkOptions { keep_ids: true, ..SinkOptions::default() }, None)?;
    let settings = Settings { lanes: 1, batch: Batch::AtLeast(512), influx: false, redacts: false };
    let millrace = Millrace::start(setup, sink.address, settings)?;
    let send = |items, run| otlp::send(&otlp_load(millrace.otlp, spans, items, run));
    let measurement = measure(setup, &millrace.subject, &sink, send)?;
    let ids = sink.take_ids();
    let came = ids.len();
    let verdict = crate::sink::verify(ids, &crate::sink::Expectation::default());
    ensure!(verdict.doubled == 0, "{} of {came} spans came twice", verdict.doubled);
    Ok(measurement)
}

/// The same through rotel.
pub(super) fn otlp_through_rotel(setup: &Setup, rotel: &std::path::Path, spans: usize) -> Result<Measurement> {
    let sink = sink(SinkOptions::default(), None)?;
    let (subject, address) = start_rotel(rotel, &setup.directory, sink.address)?;
    measure(setup, &subject, &sink, |items, run| otlp::send(&otlp_load(address, spans, items, run)))
}

/// Everything is sent while the backend is down; then it comes up and the log drains.
pub(super) fn spill(setup: &Setup) -> Result<Measurement> {
    let backend = free_address()?;
    let settings = Settings { lanes: 1, batch: Batch::AtLeast(512), influx: false, redacts: false };
    let millrace = Millrace::start(setup, backend, settings)?;
    let before = millrace.subject.cpu()?;
    let began = clock::monotonic();
    let sent = rows::send(&row_load(millrace.rows, setup.items, 1, 4))?;
    let cpu_in = millrace.subject.cpu()? - before;
    let up_at = clock::monotonic();
    let sink = sink(SinkOptions::default(), Some(backend))?;
    let arrived = wait(&millrace.subject, &sink, sent.items)?;
    let snapshot = sink.snapshot();
    let memory = millrace.subject.peak();
    let stopped_after = millrace.subject.stop()?;
    Ok(Measurement {
        items: sent.items,
        cpu: arrived.cpu - before,
        wall: arrived.at - began,
        spans_a_request: snapshot.spans as f64 / snapshot.requests.max(1) as f64,
        memory,
        more: vec![
            ("cpu us a row until sent", cpu_in.as_secs_f64() * 1e6 / sent.items as f64),
            ("seconds until drained", (arrived.at - up_at).as_secs_f64()),
            ("seconds to stop", stopped_after.as_secs_f64()),
        ],
    })
}

/// From a burst's last byte to its spans at the sink, at `rate` rows a second.
pub(super) fn latency(setup: &Setup, rate: u64) -> Result<Measurement> {
    let sink = sink(SinkOptions { keep_times: true, ..SinkOptions::default() }, None)?;
    let settings = Settings { lanes: 1, batch: Batch::AtLeast(200), influx: false, redacts: false };
    let millrace = Millrace::start(setup, sink.address, settings)?;
    let before = millrace.subject.cpu()?;
    let began = clock::monotonic();
    let load = RowLoad { note_bursts: true, ..at_rate(row_load(millrace.rows, rate * 10, 1, 4), rate) };
    let sent = rows::send(&load)?;
    let arrived = wait(&millrace.subject, &sink, sent.items)?;
    // A trace id is 1 or 2 and 31 digits of the GUID, so what follows the first digit names the session.
    let mut heard: HashMap<u128, Duration> = HashMap::new();
    for (trace, at) in sink.take_times() {
        let last = heard.entry(trace & (u128::MAX >> 4)).or_default();
        *last = at.max(*last);
    }
    let mut waits_ms = Vec::with_capacity(sent.bursts.len());
    for (guid, written) in &sent.bursts {
        let digits: String = guid.chars().filter(|character| *character != '-').take(31).collect();
        let at = heard.get(&u128::from_str_radix(&digits, 16)?);
        let Some(at) = at else { anyhow::bail!("the burst of session {guid} did not arrive") };
        waits_ms.push(at.saturating_sub(*written).as_secs_f64() * 1e3);
    }
    waits_ms.sort_by(f64::total_cmp);
    let at = |permille: usize| waits_ms[(waits_ms.len() - 1) * permille / 1000];
    let snapshot = sink.snapshot();
    Ok(Measurement {
        items: sent.items,
        cpu: arrived.cpu - before,
        wall: arrived.at - began,
        spans_a_request: snapshot.spans as f64 / snapshot.requests.max(1) as f64,
        memory: millrace.subject.peak(),
        more: vec![
            ("rows a second", rate as f64),
            ("burst p50 ms", at(500)),
            ("burst p99 ms", at(990)),
            ("burst max ms", at(1000)),
        ],
    })
}

/// The same open-loop load on 16 connections for any number of lanes.
pub(super) fn lanes(setup: &Setup, lanes: usize, rate: u64) -> Result<Measurement> {
    let sink = sink(SinkOptions::default(), None)?;
    let settings = Settings { lanes, batch: Batch::AtLeast(512), influx: false, redacts: false };
    let millrace = Millrace::start(setup, sink.address, settings)?;
    let send = |items, seed| rows::send(&at_rate(row_load(millrace.rows, items, seed, 16), rate));
    let mut measurement = measure(setup, &millrace.subject, &sink, send)?;
    let bytes = millrace.lane_bytes()?;
    let least = bytes.iter().copied().fold(f64::INFINITY, f64::min);
    measurement.more = vec![
        ("rows a second", rate as f64),
        ("share of the lane with least", if bytes.is_empty() { 0.0 } else { least / bytes.iter().sum::<f64>() }),
    ];
    Ok(measurement)
}

fn sink(options: SinkOptions, address: Option<SocketAddr>) -> Result<Sink> {
    Sink::start(address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))), options)
}

fn row_load(target: SocketAddr, count: u64, seed: u64, connections: usize) -> RowLoad {
    let pace = Pace { count, limit: LIMIT, rate: None };
    RowLoad { target, wire: Wire::FluentBit, connections, seed, logons: LOGONS, pace, note_bursts: false }
}

fn at_rate(mut load: RowLoad, rate: u64) -> RowLoad {
    load.pace.rate = Some(rate);
    load
}

fn otlp_load(target: SocketAddr, spans: usize, count: u64, run: u64) -> OtlpLoad {
    OtlpLoad { target, spans, connections: 8, run, pace: Pace { count, limit: LIMIT, rate: None } }
}

/// Warms up, then measures one closed-loop run of `send(items, number of the run)`.
fn measure(
    setup: &Setup,
    subject: &Subject,
    sink: &Sink,
    send: impl Fn(u64, u64) -> Result<crate::load::Sent>,
) -> Result<Measurement> {
    let warmed = send((setup.items / WARM_UP_SHARE).max(1), 1)?;
    wait(subject, sink, warmed.items)?;
    let (before, sink_before) = (subject.cpu()?, sink.snapshot());
    let began = clock::monotonic();
    let sent = send(setup.items, 2)?;
    let arrived = wait(subject, sink, sink_before.spans + sent.items)?;
    let sink_after = sink.snapshot();
    let requests = (sink_after.requests - sink_before.requests).max(1);
    Ok(Measurement {
        items: sent.items,
        cpu: arrived.cpu - before,
        wall: arrived.at - began,
        spans_a_request: (sink_after.spans - sink_before.spans) as f64 / requests as f64,
        memory: subject.peak(),
        more: Vec::new(),
    })
}

/// The moment of the last arrival.
struct Arrived {
    at: Duration,
    cpu: Duration,
}

/// Waits until the sink has at least `spans` and nothing more comes. Cost is read at the last arrival, so that waiting
/// is not measured.
fn wait(subject: &Subject, sink: &Sink, spans: u64) -> Result<Arrived> {
    let began = clock::monotonic();
    let mut last = (0, Arrived { at: began, cpu: subject.cpu()? });
    loop {
        let now = clock::monotonic();
        let snapshot = sink.snapshot();
        let seen = snapshot.spans + snapshot.influx_requests;
        if seen != last.0 {
            last = (seen, Arrived { at: now, cpu: subject.cpu()? });
        } else if snapshot.spans >= spans && now - last.1.at >= QUIET {
            return Ok(last.1);
        }
        ensure!(now - began < LIMIT, "{} of {spans} spans have arrived after {} s", snapshot.spans, LIMIT.as_secs());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
