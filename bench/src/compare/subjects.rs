//! The programs that are compared, and how each is configured: Millrace, and rotel's agent from its Python wheel.
//!
//! What a scenario may vary is in `Settings`. The rest is the program's default, so that a result is what a user gets, but
//! for compression, which is off for all. Each subject listens on free ports of loopback and is ended when it is dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{Scratch, Subject, free_address};
use super::scenario::Setup;

/// How Millrace is run in a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// `WORKER_COUNT`.
    pub(super) lanes: usize,
    /// Spans at which a batch is sent.
    pub(super) batch: Batch,
    /// Write the session map as well.
    pub(super) influx: bool,
    /// Every block goes through the redactor.
    pub(super) redacts: bool,
}

/// When a batch is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Batch {
    /// At so many spans or more.
    AtLeast(usize),
    /// `BATCH_SIZE`: a hard cap.
    AtMost(usize),
}

/// A running Millrace and its addresses.
#[derive(Debug)]
pub(super) struct Millrace {
    /// The process.
    pub(super) subject: Subject,
    /// Rows over TCP.
    pub(super) rows: SocketAddr,
    /// OTLP/HTTP.
    pub(super) otlp: SocketAddr,
    management: SocketAddr,
    _state: Scratch,
}

impl Millrace {
    /// Starts the program, exporting to `backend`.
    pub(super) fn start(setup: &Setup, backend: SocketAddr, settings: Settings) -> Result<Millrace> {
        let directory = &setup.directory;
        let state = Scratch::new(directory, "state")?;
        let (rows, otlp, management) = (free_address()?, free_address()?, free_address()?);
        let file = state.0.join("millrace.yaml");
        let redactor = setup.redactor.as_deref().filter(|_| settings.redacts);
        std::fs::write(&file, configuration((rows, otlp), backend, settings, redactor))?;
        let mut command = Command::new(&setup.millrace);
        command
            .args(["run", "--config"])
            .arg(&file)
            .env("STATE_DIRECTORY", state.0.join("data"))
            .env("WORKER_COUNT", settings.lanes.to_string())
            .env("METRICS_PORT", management.port().to_string());
        if let Batch::AtMost(spans) = settings.batch {
            command.env("BATCH_SIZE", spans.to_string());
        }
        std::fs::create_dir_all(state.0.join("data"))?;
        let log = directory.join("millrace-bench-millrace.log");
        let subject = Subject::start(&mut command, &log, otlp)?;
        Ok(Millrace { subject, rows, otlp, management, _state: state })
    }

    /// Bytes that each lane has appended to its log.
    pub(super) fn lane_bytes(&self) -> Result<Vec<f64>> {
        let mut stream = TcpStream::connect(self.management).context("asking for the metrics")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let lines = text.lines().filter(|line| line.starts_with("millrace_lane_appended_bytes_total{"));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect())
    }
}

fn configuration(
    (rows, otlp): (SocketAddr, SocketAddr),
    backend: SocketAddr,
    settings: Settings,
    redactor: Option<&Path>,
) -> String {
    let (plugin, processors) = match redactor {
        Some(path) => (format!("  plugin/redact:\n    path: {}\n", path.display()), "[plugin/redact, batch]"),
        None => (String::new(), "[batch]"),
    };
    let send_at = match settings.batch {
        Batch::AtLeast(spans) => format!("processors:\n  batch:\n    send_batch_size: {spans}\n"),
        Batch::AtMost(_) => "processors:\n  batch: {}\n".to_owned(),
    };
    let (influx, exporters) = if settings.influx {
        (format!("  influxdb:\n    endpoint: http://{backend}\n"), "[otlphttp, influxdb]")
    } else {
        (String::new(), "[otlphttp]")
    };
    format!(
        "receivers:\n  uberagent:\n    protocols:\n      tcp:\n        endpoint: {rows}\n  \
           otlp:\n    protocols:\n      http:\n        endpoint: {otlp}\n\
         {send_at}{plugin}\
         exporters:\n  otlphttp:\n    endpoint: http://{backend}\n    compression: none\n{influx}\
         service:\n  telemetry:\n    metrics:\n      host: 127.0.0.1\n  pipelines:\n    traces:\n      \
           receivers: [uberagent, otlp]\n      processors: {processors}\n      exporters: {exporters}\n"
    )
}

/// Starts rotel's agent: OTLP/HTTP in and out, uncompressed, batches of at least 512 spans as Millrace's.
pub(super) fn start_rotel(program: &Path, directory: &Path, backend: SocketAddr) -> Result<(Subject, SocketAddr)> {
    let (http, grpc) = (free_address()?, free_address()?);
    let mut command = Command::new(program);
    command
        .arg("start")
        .args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()])
        .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-compression", "none"])
        .args(["--otlp-exporter-endpoint", &format!("http://{backend}")])
        .arg("--pid-file")
        .arg(directory.join("millrace-bench-rotel.pid"))
        .arg("--log-file")
        .arg(directory.join("millrace-bench-rotel-agent.log"));
    let subject = Subject::start(&mut command, &directory.join("millrace-bench-rotel.log"), http)?;
    Ok((subject, http))
}
