//! The demo's backend: an OTLP/HTTP receiver on a few threads that keeps what it got.
//!
//! It understands what the appliance sends: `POST` with a `Content-Length`, uncompressed protobuf, kept-alive. Spans of
//! one watched trace are kept with names and times, of all others only the ids. A request is counted before it is
//! answered with 200, so what the appliance calls delivered is here.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};

use crate::otlp::ids::{SpanId, TraceId};
use crate::otlp::view;

/// A head or a body may not be longer.
const MAX_HEAD_BYTES: u64 = 16 * 1024;
const MAX_BODY_BYTES: usize = 16 << 20;

/// A span of the watched trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchedSpan {
    /// Itself.
    pub(super) id: SpanId,
    /// Its parent, unless it is the root.
    pub(super) parent: Option<SpanId>,
    /// Its name.
    pub(super) name: String,
    /// Start, Unix nanoseconds.
    pub(super) start_ns: u64,
    /// End, Unix nanoseconds.
    pub(super) end_ns: u64,
}

/// What the receiver has got.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    /// Spans, each as often as it came.
    pub(super) spans: u64,
    /// Requests that held them.
    pub(super) requests: u64,
    /// Different spans.
    pub(super) different: usize,
    /// The watched trace, each span once, by start.
    pub(super) watched: Vec<WatchedSpan>,
}

#[derive(Debug)]
struct Shared {
    watched: Option<TraceId>,
    spans: AtomicU64,
    requests: AtomicU64,
    ids: Mutex<HashSet<(TraceId, SpanId)>>,
    kept: Mutex<HashMap<SpanId, WatchedSpan>>,
}

/// A running receiver. Its threads end with the process.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Where it listens.
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

const NO_PANIC: &str = "no thread panics while it holds the lock";

impl Receiver {
    /// Listens on any free loopback port and keeps the spans of `watched` whole.
    pub(super) fn start(watched: Option<TraceId>) -> Result<Receiver> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("starting the demo's backend")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            watched,
            spans: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            ids: Mutex::default(),
            kept: Mutex::default(),
        });
        let for_threads = Arc::clone(&shared);
        std::thread::Builder::new().name("demo-backend".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&for_threads);
                std::thread::spawn(move || {
                    // A connection that breaks is the appliance's to notice and repeat.
                    serve(&stream, &shared).ok();
                });
            }
        })?;
        Ok(Receiver { address, shared })
    }

    /// Spans so far.
    pub(super) fn spans(&self) -> u64 {
        // Relaxed: a statistic.
        self.shared.spans.load(Ordering::Relaxed)
    }

    /// What has come so far.
    pub(super) fn received(&self) -> Received {
        let mut watched: Vec<WatchedSpan> = self.shared.kept.lock().expect(NO_PANIC).values().cloned().collect();
        watched.sort_by_key(|span| (span.start_ns, span.id));
        Received {
            spans: self.spans(),
            requests: self.shared.requests.load(Ordering::Relaxed),
            different: self.shared.ids.lock().expect(NO_PANIC).len(),
            watched,
        }
    }
}

fn serve(mut stream: &TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let mut body = Vec::new();
    while let Some(length) = head(&mut reader)? {
        ensure!(length <= MAX_BODY_BYTES, "a body of {length} bytes");
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        keep(&body, shared);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    }
    Ok(())
}

/// Reads a request's head. Returns the length of its body, or `None` when the peer has closed.
fn head(reader: &mut impl BufRead) -> Result<Option<usize>> {
    let mut head = reader.take(MAX_HEAD_BYTES);
    let (mut line, mut length, mut first) = (String::new(), 0, true);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            ensure!(first, "a head that does not end");
            return Ok(None);
        }
        first = false;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(length));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().context("content-length")?;
        }
    }
}

/// Takes one request: the only place that looks into OTLP.
fn keep(payload: &[u8], shared: &Shared) {
    let mut spans = 0;
    let mut ids = shared.ids.lock().expect(NO_PANIC);
    for (_, _, span) in view::spans(payload) {
        spans += 1;
        let fields = span.read();
        let (Some(trace), Some(id)) = (fields.trace_id, fields.span_id) else { continue };
        ids.insert((trace, id));
        if Some(trace) == shared.watched {
            let span = WatchedSpan {
                id,
                parent: fields.parent_span_id,
                name: fields.name.to_owned(),
                start_ns: fields.start_ns,
                end_ns: fields.end_ns,
            };
            shared.kept.lock().expect(NO_PANIC).insert(id, span);
        }
    }
    drop(ids);
    shared.spans.fetch_add(spans, Ordering::Relaxed);
    shared.requests.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_and_the_watched_trace_is_kept() {
        let watched = TraceId::from_bytes(&[1; 16]);
        let receiver = Receiver::start(watched).unwrap();
        // One resource, one scope, two spans: one of the watched trace with a name, one of another.
        let mut scope = Vec::new();
        for trace in [1u8, 2] {
            let mut span = vec![10, 16];
            span.extend([trace; 16]);
            span.extend([18, 8, 7, 7, 7, 7, 7, 7, 7, trace, 42, 2, b'o', b'k']);
            scope.extend([18, u8::try_from(span.len()).unwrap()]);
            scope.extend(span);
        }
        let mut resource = vec![18, u8::try_from(scope.len()).unwrap()];
        resource.extend(scope);
        let mut payload = vec![10, u8::try_from(resource.len()).unwrap()];
        payload.extend(resource);

        let mut stream = TcpStream::connect(receiver.address).unwrap();
        for _ in 0..2 {
            write!(stream, "POST /v1/traces HTTP/1.1\r\nContent-Length: {}\r\n\r\n", payload.len()).unwrap();
            stream.write_all(&payload).unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            let mut rest = [0; 512];
            assert!(stream.read(&mut rest).unwrap() > 0);
        }
        let received = receiver.received();
        assert_eq!((received.spans, received.requests, received.different), (4, 2, 2));
        assert_eq!(received.watched.len(), 1);
        assert_eq!(received.watched[0].name, "ok");
    }
}
