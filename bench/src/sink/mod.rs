//! The sink: a backend that takes everything, counts it, and can be told to misbehave.
//!
//! It speaks OTLP/HTTP protobuf (gzip too) on `/v1/traces` and InfluxDB's `/write` and `/api/v2/write`. One blocking
//! thread a connection: with the few kept-alive connections of an exporter nothing is cheaper. Counting walks the bytes
//! without decoding them; with verification each span's ids are kept, 24 bytes a span.
//!
//! What a sink counts was answered with success, and nothing else.

mod verify;

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use millrace::sys::clock;
use serde_json::json;

use crate::http::{Head, Messages};
use crate::spans::{self, SpanId};

pub(crate) use verify::{Expectation, verify};

const NO_PANIC: &str = "no connection panics while it holds the lock";

/// How the sink behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinkOptions {
    /// Keep every span's ids.
    pub(crate) keep_ids: bool,
    /// Keep when each trace was last heard of.
    pub(crate) keep_times: bool,
    /// Answer every n-th request with [`Self::failure_status`].
    pub(crate) fail_every: Option<u64>,
    /// Status of those answers.
    pub(crate) failure_status: u16,
    /// `Retry-After` of those answers, seconds.
    pub(crate) retry_after: Option<u64>,
    /// Since the start: when connections are closed without an answer.
    pub(crate) down: Vec<Range<Duration>>,
    /// Wait this long before each answer.
    pub(crate) delay: Duration,
}

/// What was counted. Every counter is added to by connection threads and read by anybody.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    spans: AtomicU64,
    payload_bytes: AtomicU64,
    wire_bytes: AtomicU64,
    influx_requests: AtomicU64,
    influx_lines: AtomicU64,
    malformed: AtomicU64,
    failed_on_purpose: AtomicU64,
    attempts: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// Trace requests accepted.
    pub(crate) requests: u64,
    /// Spans in them.
    pub(crate) spans: u64,
    /// Bytes of their bodies, inflated.
    pub(crate) payload_bytes: u64,
    /// Bytes of their bodies as sent.
    pub(crate) wire_bytes: u64,
    /// InfluxDB writes accepted.
    pub(crate) influx_requests: u64,
    /// Lines in them.
    pub(crate) influx_lines: u64,
    /// Requests that were not what their path promises, answered 400.
    pub(crate) malformed: u64,
    /// Requests answered with a failure as told.
    pub(crate) failed_on_purpose: u64,
}

impl Snapshot {
    /// For a report.
    pub(crate) fn to_json(self) -> serde_json::Value {
        json!({
            "requests": self.requests, "spans": self.spans, "payload_bytes": self.payload_bytes,
            "wire_bytes": self.wire_bytes, "influx_requests": self.influx_requests,
            "influx_lines": self.influx_lines, "malformed": self.malformed,
            "failed_on_purpose": self.failed_on_purpose,
        })
    }
}

/// A span's trace, and when it was heard of.
type Heard = (u128, Duration);

#[derive(Debug)]
struct Shared {
    options: SinkOptions,
    started: Duration,
    counts: Counts,
    ids: Mutex<Vec<SpanId>>,
    times: Mutex<Vec<Heard>>,
    stopping: AtomicBool,
    /// Handles by which open connections can be closed, by number.
    connections: Mutex<HashMap<u64, TcpStream>>,
}

/// A running sink.
#[derive(Debug)]
pub(crate) struct Sink {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on `address`, port 0 for any.
    pub(crate) fn start(address: SocketAddr, options: SinkOptions) -> Result<Sink> {
        let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            options,
            started: clock::monotonic(),
            counts: Counts::default(),
            ids: Mutex::default(),
            times: Mutex::default(),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor =
            std::thread::Builder::new().name("sink".into()).spawn(move || accept(&listener, &for_acceptor))?;
        Ok(Sink { address, shared, acceptor: Some(acceptor) })
    }

    /// The counts now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let counts = &self.shared.counts;
        // Relaxed: statistics; nothing is published through them.
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            requests: get(&counts.requests),
            spans: get(&counts.spans),
            payload_bytes: get(&counts.payload_bytes),
            wire_bytes: get(&counts.wire_bytes),
            influx_requests: get(&counts.influx_requests),
            influx_lines: get(&counts.influx_lines),
            malformed: get(&counts.malformed),
            failed_on_purpose: get(&counts.failed_on_purpose),
        }
    }

    /// The ids kept so far, in no order.
    pub(crate) fn take_ids(&self) -> Vec<SpanId> {
        std::mem::take(&mut *self.shared.ids.lock().expect(NO_PANIC))
    }

    /// Which trace was heard of when, monotonic, in order of arrival on each connection.
    pub(crate) fn take_times(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.shared.times.lock().expect(NO_PANIC))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // SeqCst: stands before the connect that wakes the acceptor; cost is of no interest here.
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        for connection in self.shared.connections.lock().expect(NO_PANIC).values() {
            // A connection that the peer has closed already is as good.
            connection.shutdown(Shutdown::Both).ok();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, connection) in (0..).zip(listener.incoming()) {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = connection else { continue };
        if is_down(shared) {
            continue;
        }
        let Ok(handle) = stream.try_clone() else { continue };
        shared.connections.lock().expect(NO_PANIC).insert(number, handle);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // An error here is the peer's: it shows as what the peer failed to deliver.
            serve(&stream, &shared).ok();
            shared.connections.lock().expect(NO_PANIC).remove(&number);
        });
    }
}

fn is_down(shared: &Shared) -> bool {
    let since_start = clock::monotonic().saturating_sub(shared.started);
    shared.options.down.iter().any(|window| window.contains(&since_start))
}

fn serve(mut stream: &TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut messages = Messages::new();
    let mut inflated = Vec::new();
    while let Some(head) = messages.head(&mut stream)? {
        if head.expects_continue {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = messages.body(&head, &mut stream)?;
        if is_down(shared) {
            stream.shutdown(Shutdown::Both)?;
            return Ok(());
        }
        if !shared.options.delay.is_zero() {
            std::thread::park_timeout(shared.options.delay);
        }
        // Relaxed: a ticket, unique is enough.
        let attempt = shared.counts.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let status = match shared.options.fail_every {
            Some(every) if attempt.is_multiple_of(every) => {
                shared.counts.failed_on_purpose.fetch_add(1, Ordering::Relaxed);
                shared.options.failure_status
            }
            _ => take(&head, body, &mut inflated, shared),
        };
        respond(stream, status, shared.options.retry_after)?;
    }
    Ok(())
}

/// Counts a request. Returns the status of the answer.
fn take(head: &Head, body: &[u8], inflated: &mut Vec<u8>, shared: &Shared) -> u16 {
    let counts = &shared.counts;
    let payload = if head.gzip {
        inflated.clear();
        if std::io::Read::read_to_end(&mut GzDecoder::new(body), inflated).is_err() {
            counts.malformed.fetch_add(1, Ordering::Relaxed);
            return 400;
        }
        inflated.as_slice()
    } else {
        body
    };
    if head.target.starts_with("/write") || head.target.starts_with("/api/v2/write") {
        counts.influx_requests.fetch_add(1, Ordering::Relaxed);
        let lines = payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        counts.influx_lines.fetch_add(lines as u64, Ordering::Relaxed);
        return 204;
    }
    if !head.target.starts_with("/v1/traces") || head.json {
        counts.malformed.fetch_add(1, Ordering::Relaxed);
        return 404;
    }
    let Ok(spans) = count_spans(payload, shared) else {
        counts.malformed.fetch_add(1, Ordering::Relaxed);
        return 400;
    };
    counts.requests.fetch_add(1, Ordering::Relaxed);
    counts.payload_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
    counts.wire_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    counts.spans.fetch_add(spans, Ordering::Relaxed);
    200
}

fn count_spans(payload: &[u8], shared: &Shared) -> Result<u64> {
    let mut count = 0u64;
    if !shared.options.keep_ids && !shared.options.keep_times {
        spans::walk(payload, |_| {
            count += 1;
            Ok(())
        })?;
        return Ok(count);
    }
    let mut ids = Vec::new();
    spans::walk(payload, |span| {
        ids.push(SpanId::of(span)?);
        Ok(())
    })?;
    count += ids.len() as u64;
    if shared.options.keep_times {
        let now = clock::monotonic();
        let mut traces: Vec<u128> = ids.iter().map(|id| id.trace).collect();
        traces.dedup();
        let mut times = shared.times.lock().expect(NO_PANIC);
        times.extend(traces.into_iter().map(|trace| (trace, now)));
    }
    if shared.options.keep_ids {
        shared.ids.lock().expect(NO_PANIC).append(&mut ids);
    }
    Ok(count)
}

fn respond(mut stream: &TcpStream, status: u16, retry_after: Option<u64>) -> Result<()> {
    let answer = match (status, retry_after) {
        (200, _) => "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n".to_owned(),
        (204, _) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        (status, None) => format!("HTTP/1.1 {status} Failure\r\ncontent-length: 0\r\n\r\n"),
        (status, Some(seconds)) => {
            format!("HTTP/1.1 {status} Failure\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\r\n")
        }
    };
    stream.write_all(answer.as_bytes())?;
    Ok(())
}
