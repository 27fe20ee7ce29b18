//! An OTLP/HTTP backend in the process: it can be taken down and brought up, and counts the spans that it said yes to.
//!
//! Down, it closes every connection unanswered and counts nothing; so a span is counted exactly when its request was
//! answered with 200. It understands what the appliance sends: `Content-Length`, uncompressed protobuf, kept-alive.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use millrace::otlp::slice;

#[derive(Debug, Default)]
struct Shared {
    up: AtomicBool,
    spans: AtomicU64,
    /// Every body that it said yes to, one behind the other, if somebody wants them.
    bodies: Option<Mutex<Vec<u8>>>,
}

/// A running backend. Its threads end with the process.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Sink {
    /// A backend that is down.
    pub(crate) fn down() -> Sink {
        Sink::start(Shared::default())
    }

    /// A backend that works and keeps what it is sent.
    pub(crate) fn keeping() -> Sink {
        let sink = Sink::start(Shared { bodies: Some(Mutex::default()), ..Shared::default() });
        sink.bring_up();
        sink
    }

    fn start(shared: Shared) -> Sink {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(shared);
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&for_thread);
                // A connection that breaks is the appliance's to notice.
                thread::spawn(move || serve(&stream, &shared).ok());
            }
        });
        Sink { address, shared }
    }

    /// A backend that works.
    pub(crate) fn up() -> Sink {
        let sink = Sink::down();
        sink.bring_up();
        sink
    }

    pub(crate) fn bring_up(&self) {
        self.shared.up.store(true, Ordering::SeqCst);
    }

    /// Whether this is anywhere in what was kept.
    pub(crate) fn has(&self, bytes: &[u8]) -> bool {
        let bodies = self.shared.bodies.as_ref().expect("it keeps them").lock().expect("nobody panics with it");
        memchr::memmem::find(&bodies, bytes).is_some()
    }

    /// Spans in requests that were answered with 200.
    pub(crate) fn spans(&self) -> u64 {
        self.shared.spans.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut body = Vec::new();
    while shared.up.load(Ordering::SeqCst) {
        let Some(length) = head(&mut reader)? else { break };
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        if let Some(bodies) = &shared.bodies {
            bodies.lock().expect("nobody panics with it").extend_from_slice(&body);
        }
        shared.spans.fetch_add(u64::from(slice::count_spans(&body)), Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    }
    Ok(())
}

/// Reads a request's head; the length of its body, or `None` when the peer has closed.
fn head(reader: &mut impl BufRead) -> io::Result<Option<usize>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if text.is_empty() {
            return Ok(Some(length));
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
}
