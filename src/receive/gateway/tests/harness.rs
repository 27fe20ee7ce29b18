//! A gateway in a thread of its own, in front of an outlet that is a vector, and a client that writes requests by hand.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread::JoinHandle;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::super::*;
use crate::block::{Block, MAX_BYTES, Refusal, Ticket, Verdict, VerdictOutcome};
use crate::config::{Mapping, OtherSourcetypes};
use crate::otlp::messages::Status;
use crate::telemetry::health::Health;

/// What the writer of the test does with blocks.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Policy {
    Answer(VerdictOutcome),
    Hold,
}

pub(super) struct Ring {
    pub(super) policy: Policy,
    pub(super) capacity: usize,
    pub(super) blocks: Vec<Block>,
    pub(super) answered: u64,
    pub(super) verdicts: VecDeque<Verdict>,
    pub(super) taken: u64,
}

#[derive(Clone)]
pub(super) struct TestOutlet {
    pub(super) ring: Arc<Mutex<Ring>>,
    pub(super) doorbell: Doorbell,
}

impl TestOutlet {
    pub(super) fn answer_all(&self, outcome: VerdictOutcome) {
        let mut ring = self.ring.lock().unwrap();
        let pushed = ring.blocks.len() as u64;
        if pushed > ring.answered {
            let verdict = Verdict { first: Ticket(ring.answered), last: Ticket(pushed - 1), outcome };
            ring.verdicts.push_back(verdict);
            ring.answered = pushed;
        }
        drop(ring);
        self.doorbell.ring();
    }

    pub(super) fn blocks(&self) -> Vec<Block> {
        self.ring.lock().unwrap().blocks.clone()
    }
}

impl Outlet for TestOutlet {
    fn room(&self) -> usize {
        let ring = self.ring.lock().unwrap();
        ring.capacity - (ring.blocks.len() - usize::try_from(ring.taken).unwrap())
    }

    fn push(&mut self, block: Block) -> Ticket {
        assert!(self.room() > 0, "pushed without room");
        assert!(block.payload.len() <= MAX_BYTES && block.awaited);
        let mut ring = self.ring.lock().unwrap();
        ring.blocks.push(block);
        let ticket = Ticket(ring.blocks.len() as u64 - 1);
        let policy = ring.policy;
        drop(ring);
        if let Policy::Answer(outcome) = policy {
            self.answer_all(outcome);
        }
        ticket
    }

    fn spare(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn verdict(&mut self) -> Option<Verdict> {
        let mut ring = self.ring.lock().unwrap();
        let verdict = ring.verdicts.pop_front()?;
        ring.taken = verdict.last.0 + 1;
        Some(verdict)
    }

    fn park(&mut self) {}
}

pub(super) struct Rig {
    pub(super) otlp: SocketAddr,
    pub(super) bulk: SocketAddr,
    pub(super) outlet: TestOutlet,
    pub(super) fronts: [Arc<Front>; 2],
    pub(super) counters: [Arc<HttpCounters>; 2],
    pub(super) health: Health,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) thread: Option<JoinHandle<io::Result<()>>>,
    pub(super) changer: mpsc::UnboundedSender<DoorChanges<Listener>>,
}

pub(super) fn limits() -> HttpLimits {
    HttpLimits {
        max_body_bytes: 8 << 20,
        max_inflated_bytes: 32 << 20,
        max_connections: 100,
        max_connections_per_ip: 100,
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        min_body_bytes_per_second: 32 << 10,
    }
}

impl Rig {
    pub(super) fn start(policy: Policy, capacity: usize) -> Rig {
        Rig::with_limits(policy, capacity, limits())
    }

    pub(super) fn with_limits(policy: Policy, capacity: usize, limits: HttpLimits) -> Rig {
        let body_bytes = limits.max_body_bytes + limits.max_inflated_bytes;
        Rig::with_body_bytes(policy, capacity, limits, body_bytes)
    }

    pub(super) fn with_body_bytes(policy: Policy, capacity: usize, limits: HttpLimits, body_bytes: usize) -> Rig {
        let ring = Ring { policy, capacity, blocks: Vec::new(), answered: 0, verdicts: VecDeque::new(), taken: 0 };
        let doorbell = Doorbell::new().unwrap();
        let outlet = TestOutlet { ring: Arc::new(Mutex::new(ring)), doorbell: doorbell.clone() };
        let fronts = [Arc::new(Front::default()), Arc::new(Front::default())];
        let counters = [Arc::new(HttpCounters::default()), Arc::new(HttpCounters::default())];
        let uberagent = config::Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };
        let listener = |source: u16, kind| {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let (front, counters) = (fronts[usize::from(source)].clone(), counters[usize::from(source)].clone());
            let table = ConnectionTable::new(limits.max_connections, limits.max_connections_per_ip);
            Listener {
                socket,
                source: SourceId(source),
                kind,
                limits: limits.clone(),
                front,
                table,
                counters,
                uberagent,
            }
        };
        let listeners = vec![listener(0, DoorKind::OtlpHttp), listener(1, DoorKind::Elasticsearch)];
        let [otlp, bulk] = [0, 1].map(|index: usize| listeners[index].socket.local_addr().unwrap());
        let (stop, health) = (Arc::new(AtomicBool::new(false)), Health::new());
        let (changer, changes) = mpsc::unbounded_channel();
        let options = GatewayOptions {
            listeners,
            outlet: outlet.clone(),
            doorbell,
            body_bytes,
            tick: health.thread("gateway", Duration::from_secs(3), clock::monotonic()),
            stop: stop.clone(),
            drain_timeout: Duration::from_secs(5),
            changes,
        };
        let thread = Some(std::thread::spawn(move || Gateway::new(options).run()));
        Rig { otlp, bulk, outlet, fronts, counters, health, stop, thread, changer }
    }

    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.outlet.doorbell.ring();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    /// Waits until a connection of the door was closed for `reason`.
    pub(super) fn until_closed(&self, door: usize, reason: &str) {
        while !self.counters[door].connections.closed.iter().any(|(found, _)| found == reason) {
            std::thread::yield_now();
        }
    }

    pub(super) fn traces(&self, body: &[u8]) -> Reply {
        post(self.otlp, "/v1/traces", &["content-type: application/x-protobuf"], body)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn message(&self) -> String {
        Status::decode(self.body.as_slice()).unwrap().message
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

pub(super) fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let reply = Reply { status, head, body: Vec::new() };
    let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(Reply { body, ..reply })
}

pub(super) fn send(stream: &mut TcpStream, method: &str, path: &str, headers: &[&str], body: &[u8]) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
    for header in headers {
        request += header;
        request += "\r\n";
    }
    request += "\r\n";
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    // A server that refuses by the head alone may close before the body is out.
    drop(stream.write_all(&bytes));
}

pub(super) fn post(address: SocketAddr, path: &str, headers: &[&str], body: &[u8]) -> Reply {
    let mut stream = connect(address);
    send(&mut stream, "POST", path, headers, body);
    read_reply(&mut stream).unwrap()
}

pub(super) fn span(id: u8, name_bytes: usize) -> Span {
    Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: "n".repeat(name_bytes),
        start_time_unix_nano: 5,
        end_time_unix_nano: 9,
        ..Span::default()
    }
}

pub(super) fn request(spans: Vec<Span>) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

pub(super) const DURABLE: Policy = Policy::Answer(VerdictOutcome::Durable);
pub(super) const REFUSED: Policy = Policy::Answer(VerdictOutcome::Refused(Refusal::Full));
pub(super) const PROTOBUF: &str = "content-type: application/x-protobuf";
