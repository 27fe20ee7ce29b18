//! Senders: a thread that writes real rows to the TCP receiver until told to stop, and one OTLP/HTTP request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millrace::fleet::{Fleet, FleetOptions, Wire};
use millrace::sys::clock;

/// Bursts that are sent over and over: some thousands of rows.
const BURSTS: usize = 40;

/// Where rows do not fit, a span with such a name does not.
const NAME_BYTES: usize = 300 << 10;

/// A burst as lines, and how many.
type Lines = (Vec<u8>, u64);

fn bursts() -> &'static [Lines] {
    static LINES: OnceLock<Vec<Lines>> = OnceLock::new();
    LINES.get_or_init(|| {
        let options = FleetOptions::storm(2 * BURSTS, Duration::from_secs(60), clock::wall_ns());
        let render = |burst: millrace::fleet::Burst| {
            let mut lines = Vec::new();
            burst.rows.iter().for_each(|row| Wire::FluentBit.render(row, &mut lines));
            (lines, burst.rows.len() as u64)
        };
        Fleet::new(7, options).take(BURSTS).map(render).collect()
    })
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    rows: AtomicU64,
}

/// A connection on which rows come as fast as they are taken.
#[derive(Debug)]
pub(crate) struct Feeder {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Feeder {
    /// Sends until told to stop, or until about `max_rows` rows.
    pub(crate) fn start(target: SocketAddr, max_rows: u64) -> Feeder {
        let mut stream = TcpStream::connect(target).expect("the receiver listens");
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for (lines, rows) in bursts().iter().cycle() {
                let sent = for_thread.rows.load(Ordering::SeqCst);
                if for_thread.stop.load(Ordering::SeqCst) || sent >= max_rows || stream.write_all(lines).is_err() {
                    return;
                }
                for_thread.rows.fetch_add(*rows, Ordering::SeqCst);
            }
        });
        Feeder { shared, thread }
    }

    /// Rows written whole.
    pub(crate) fn rows(&self) -> u64 {
        self.shared.rows.load(Ordering::SeqCst)
    }

    /// Nothing more is sent: it was told to stop, has sent everything, or the connection broke.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// No further burst after the one under way.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// What the OTLP/HTTP receiver said to one span.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// 0 when there was no answer in time.
    pub(crate) status: u16,
    /// Whether it said when to come again.
    pub(crate) retry_after: bool,
}

/// Posts a request of one span, longer than any block of rows.
pub(crate) fn post_span(target: SocketAddr) -> Reply {
    post(target, "/v1/traces", &one_span(NAME_BYTES))
}

/// Posts a request on a connection of its own; waits at most 5 s.
pub(crate) fn post(target: SocketAddr, path: &str, payload: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(target).expect("the receiver listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout above zero");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        payload.len()
    );
    stream.write_all(&[head.as_bytes(), payload].concat()).expect("the receiver reads");
    let mut answer = Vec::new();
    if stream.read_to_end(&mut answer).is_err() {
        return Reply { status: 0, retry_after: false };
    }
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Reply { status, retry_after: answer.contains("\r\nretry-after:") }
}

/// A request of one resource of one scope of one span, whose name has so many bytes.
pub(crate) fn one_span(name_bytes: usize) -> Vec<u8> {
    let mut span = [&[10, 16][..], &[5; 16], &[18, 8], &[7; 8]].concat();
    span.extend(wrap(42, &vec![b'x'; name_bytes]));
    wrap(10, &wrap(18, &wrap(18, &span)))
}

/// One length-delimited protobuf field.
fn wrap(tag: u8, inner: &[u8]) -> Vec<u8> {
    let mut field = vec![tag];
    let mut length = inner.len();
    while length > 0x7f {
        field.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).expect("seven bits"));
    field.extend_from_slice(inner);
    field
}
