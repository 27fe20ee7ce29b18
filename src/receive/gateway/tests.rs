//! The gateway over loopback sockets, in front of an outlet that is a vector.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread::JoinHandle;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::*;
use crate::block::{Block, MAX_BYTES, Refusal, Ticket, Verdict, VerdictOutcome};
use crate::config::{Mapping, OtherSourcetypes};
use crate::otlp::messages::{ExportTraceServiceResponse, Status};
use crate::otlp::slice::count_spans;
use crate::telemetry::health::Health;
use crate::uberagent::{Encoder, Origin, Outcome};

/// What the writer of the test does with blocks.
#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Answer(VerdictOutcome),
    Hold,
}

struct Ring {
    policy: Policy,
    capacity: usize,
    blocks: Vec<Block>,
    answered: u64,
    verdicts: VecDeque<Verdict>,
    taken: u64,
}

#[derive(Clone)]
struct TestOutlet {
    ring: Arc<Mutex<Ring>>,
    doorbell: Doorbell,
}

impl TestOutlet {
    fn answer_all(&self, outcome: VerdictOutcome) {
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

    fn blocks(&self) -> Vec<Block> {
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

struct Rig {
    otlp: SocketAddr,
    bulk: SocketAddr,
    outlet: TestOutlet,
    fronts: [Arc<Front>; 2],
    counters: [Arc<HttpCounters>; 2],
    health: Health,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    changer: mpsc::UnboundedSender<DoorChanges<Listener>>,
}

fn limits() -> HttpLimits {
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
    fn start(policy: Policy, capacity: usize) -> Rig {
        Rig::with_limits(policy, capacity, limits())
    }

    fn with_limits(policy: Policy, capacity: usize, limits: HttpLimits) -> Rig {
        let body_bytes = limits.max_body_bytes + limits.max_inflated_bytes;
        Rig::with_body_bytes(policy, capacity, limits, body_bytes)
    }

    fn with_body_bytes(policy: Policy, capacity: usize, limits: HttpLimits, body_bytes: usize) -> Rig {
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

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.outlet.doorbell.ring();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    /// Waits until a connection of the door was closed for `reason`.
    fn until_closed(&self, door: usize, reason: &str) {
        while !self.counters[door].connections.closed.iter().any(|(found, _)| found == reason) {
            std::thread::yield_now();
        }
    }

    fn traces(&self, body: &[u8]) -> Reply {
        post(self.otlp, "/v1/traces", &["content-type: application/x-protobuf"], body)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn message(&self) -> String {
        Status::decode(self.body.as_slice()).unwrap().message
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
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

fn send(stream: &mut TcpStream, method: &str, path: &str, headers: &[&str], body: &[u8]) {
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

fn post(address: SocketAddr, path: &str, headers: &[&str], body: &[u8]) -> Reply {
    let mut stream = connect(address);
    send(&mut stream, "POST", path, headers, body);
    read_reply(&mut stream).unwrap()
}

fn span(id: u8, name_bytes: usize) -> Span {
    Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: "n".repeat(name_bytes),
        start_time_unix_nano: 5,
        end_time_unix_nano: 9,
        ..Span::default()
    }
}

fn request(spans: Vec<Span>) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

const DURABLE: Policy = Policy::Answer(VerdictOutcome::Durable);
const REFUSED: Policy = Policy::Answer(VerdictOutcome::Refused(Refusal::Full));
const PROTOBUF: &str = "content-type: application/x-protobuf";

#[test]
fn a_good_request_is_stored_as_it_came_and_answered_with_an_empty_body() {
    let rig = Rig::start(DURABLE, 100);
    for body in [request(vec![span(1, 10)]), request(vec![span(2, 100_000)])] {
        let reply = rig.traces(&body);
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.header("content-type"), Some("application/x-protobuf"));
        let block = rig.outlet.blocks().pop().unwrap();
        assert_eq!(block.payload, body);
        assert_eq!((block.meta.spans, block.meta.first_span_ns, block.meta.last_span_ns), (1, 5, 9));
        assert_eq!((block.meta.source, block.meta.made), (SourceId(0), crate::block::Made::Passed));
    }
    assert_eq!(rig.fronts[0].spans_passed.get(), 2);
    assert_eq!(rig.traces(b"").status, 200, "an empty request is a success");
    assert_eq!(rig.outlet.blocks().len(), 2);
}

#[test]
fn ureq_is_served_with_gzip_and_zstd() {
    let rig = Rig::start(DURABLE, 100);
    let body = request(vec![span(1, 3000)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&body).unwrap();
    let zstd = zstd::encode_all(body.as_slice(), 1).unwrap();
    for (encoding, packed) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd), ("identity", body.clone())] {
        let url = format!("http://{}/v1/traces", rig.otlp);
        let call =
            ureq::post(url).header("content-type", "application/x-protobuf").header("content-encoding", encoding);
        assert_eq!(call.send(&packed[..]).unwrap().status(), 200, "{encoding}");
    }
    let blocks = rig.outlet.blocks();
    assert_eq!(blocks.iter().map(|block| count_spans(&block.payload)).sum::<u32>(), 3);
    assert!(blocks.iter().all(|block| block.payload == body));
}

#[test]
fn nothing_is_answered_before_the_verdict() {
    let rig = Rig::start(Policy::Hold, 100);
    let mut streams: Vec<_> = (0..20).map(|_| connect(rig.otlp)).collect();
    for (id, stream) in (1u8..).zip(&mut streams) {
        send(stream, "POST", "/v1/traces", &[PROTOBUF], &request(vec![span(id, 10)]));
    }
    let all_in = || rig.outlet.blocks().iter().map(|block| block.meta.spans).sum::<u32>() == 20;
    while !all_in() {
        std::thread::yield_now();
    }
    streams[0].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(streams[0].read(&mut [0]).is_err(), "an answer came before the verdict");
    streams[0].set_read_timeout(None).unwrap();
    rig.outlet.answer_all(VerdictOutcome::Durable);
    for stream in &mut streams {
        assert_eq!(read_reply(stream).unwrap().status, 200);
    }
    assert_eq!(rig.outlet.blocks().iter().map(|block| count_spans(&block.payload)).sum::<u32>(), 20);
}

#[test]
fn a_refused_block_is_503_with_retry_after() {
    for outcome in [VerdictOutcome::Refused(Refusal::Storage), VerdictOutcome::Unknown] {
        let rig = Rig::start(Policy::Answer(outcome), 100);
        let reply = rig.traces(&request(vec![span(1, 10)]));
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert_eq!(rig.fronts[0].requests_refused.get(), 1);
    }
}

#[test]
fn without_room_for_all_of_it_nothing_is_stored() {
    let rig = Rig::start(Policy::Hold, 2);
    let three_blocks = request((1..=6).map(|id| span(id, MAX_BYTES * 2 / 5)).collect());
    assert_eq!(rig.traces(&three_blocks).status, 503);
    assert!(rig.outlet.blocks().is_empty());
    let two_blocks = request((1..=4).map(|id| span(id, MAX_BYTES * 2 / 5)).collect());
    let mut stream = connect(rig.otlp);
    send(&mut stream, "POST", "/v1/traces", &[PROTOBUF], &two_blocks);
    while rig.outlet.blocks().len() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(rig.traces(&request(vec![span(1, 10)])).status, 503, "the ring is full");
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut stream).unwrap().status, 200);
}

#[test]
fn bad_spans_are_reported_and_the_rest_is_stored() {
    let rig = Rig::start(DURABLE, 100);
    let bad = Span { trace_id: vec![0; 16], ..span(2, 10) };
    let too_big = span(3, MAX_BYTES);
    let reply = rig.traces(&request(vec![span(1, 10), bad.clone(), too_big]));
    assert_eq!(reply.status, 200);
    let partial = ExportTraceServiceResponse::decode(reply.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(partial.error_message.contains("trace id"), "{}", partial.error_message);
    assert_eq!(count_spans(&rig.outlet.blocks()[0].payload), 1);
    assert_eq!((rig.fronts[0].spans_passed.get(), rig.fronts[0].spans_rejected.get()), (1, 2));
    let reply = rig.traces(&request(vec![bad]));
    let partial = ExportTraceServiceResponse::decode(reply.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!((reply.status, partial.rejected_spans), (200, 1));
}

#[test]
fn refusals_are_statuses_in_the_encoding_of_the_request() {
    let rig = Rig::with_limits(DURABLE, 100, HttpLimits { max_body_bytes: 10_000, ..limits() });
    let reply = rig.traces(b"not protobuf");
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("byte 0"), "{}", reply.message());
    assert_eq!(rig.traces(&[0; 10_001]).status, 413);
    let json = post(rig.otlp, "/v1/traces", &["content-type: application/json; charset=utf-8"], b"{");
    assert_eq!((json.status, json.json()["code"].as_i64()), (400, Some(3)));
    for path in ["/v1/metrics", "/v1/logs", "/"] {
        let reply = post(rig.otlp, path, &[PROTOBUF], b"");
        assert_eq!((reply.status, Status::decode(reply.body.as_slice()).unwrap().code), (404, 12), "{path}");
    }
    assert_eq!(post(rig.otlp, "/v1/traces", &["content-type: text/plain"], b"").status, 415);
    for encodings in [
        &["content-encoding: gzip, gzip"][..],
        &["content-encoding: br"],
        &["content-encoding: gzip", "content-encoding: gzip"],
    ] {
        let mut headers = vec![PROTOBUF];
        headers.extend_from_slice(encodings);
        assert_eq!(post(rig.otlp, "/v1/traces", &headers, b"x").status, 415, "{encodings:?}");
    }
    assert_eq!(post(rig.otlp, "/v1/traces", &[PROTOBUF, "content-encoding: gzip"], b"x").status, 400);
    let mut stream = connect(rig.otlp);
    send(&mut stream, "PUT", "/v1/traces", &[PROTOBUF], b"");
    let reply = read_reply(&mut stream).unwrap();
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    assert!(rig.outlet.blocks().is_empty());
}

#[test]
fn a_client_that_sends_far_too_much_still_hears_why() {
    let rig = Rig::start(DURABLE, 100);
    let body = vec![0; 12 << 20];
    assert_eq!(rig.traces(&body).status, 413);
    assert_eq!(post(rig.otlp, "/v1/metrics", &[PROTOBUF], &body).status, 404);
    assert_eq!(post(rig.otlp, "/v1/traces", &["content-type: text/plain"], &body).status, 415);
    assert_eq!(post(rig.bulk, "/_bulk", &[], &body).status, 413);
    assert!(rig.outlet.blocks().is_empty());
}

#[test]
fn json_is_taken_and_answered_in_json() {
    let rig = Rig::start(DURABLE, 100);
    let body = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"x"}]}]}]}"#;
    let reply = post(rig.otlp, "/v1/traces", &["content-type: application/json"], body);
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(count_spans(&rig.outlet.blocks()[0].payload), 1);
}

#[test]
fn slow_heads_and_bodies_are_cut_off_and_idle_connections_are_not() {
    let rig = Rig::start(DURABLE, 100);
    let mut idle = connect(rig.otlp);
    let mut slow = connect(rig.otlp);
    slow.write_all(b"POST /v1/tr").unwrap();
    assert!(read_reply(&mut slow).is_none(), "a slow head is not answered");
    rig.until_closed(0, "slow_head");
    let mut slow = connect(rig.otlp);
    slow.write_all(
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\nabc",
    )
    .unwrap();
    assert_eq!(read_reply(&mut slow).unwrap().status, 408);
    for _ in 0..2 {
        send(&mut idle, "POST", "/v1/traces", &[PROTOBUF], &request(vec![span(1, 10)]));
        assert_eq!(read_reply(&mut idle).unwrap().status, 200);
    }
}

#[test]
fn a_peer_that_does_not_read_its_answer_is_cut_off() {
    let rig = Rig::start(DURABLE, 100);
    let mut stream = connect(rig.bulk);
    // An answer of more bytes than the kernel buffers on both sides of a loopback connection.
    send(&mut stream, "POST", "/_bulk", &[], "{\"delete\":{}}\n".repeat(100_000).as_bytes());
    rig.until_closed(1, "slow_reader");
}

#[test]
fn heads_that_are_too_large_or_malformed_are_refused_and_counted() {
    let rig = Rig::start(DURABLE, 100);
    for (head, status, reason) in [
        (format!("POST /v1/traces HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(40_000)), 431, "head_too_large"),
        (format!("POST /v1/traces HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000)), 431, "head_too_large"),
        (
            "POST /v1/traces HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            400,
            "malformed_head",
        ),
        ("POST /v1/traces HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(), 400, "malformed_head"),
        ("POST /v1/traces HTTP/1.1\r\nfolded: a\r\n b\r\n\r\n".to_owned(), 400, "malformed_head"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "malformed_head"),
    ] {
        let mut stream = connect(rig.otlp);
        drop(stream.write_all(head.as_bytes()));
        // A reset that overtakes the answer is an answer too.
        if let Some(reply) = read_reply(&mut stream) {
            assert_eq!(reply.status, status, "{head:.80}");
        }
        rig.until_closed(0, reason);
    }
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let rig = Rig::with_limits(DURABLE, 100, HttpLimits { max_connections: 2, ..limits() });
    let mut kept: Vec<_> = (0..2).map(|_| connect(rig.otlp)).collect();
    for stream in &mut kept {
        send(stream, "POST", "/v1/traces", &[PROTOBUF], b"");
        assert_eq!(read_reply(stream).unwrap().status, 200);
    }
    assert!(read_reply(&mut connect(rig.otlp)).is_none());
    let connections = &rig.counters[0].connections;
    assert_eq!(connections.refused.iter().collect::<Vec<_>>(), [("max_connections", 1)]);
    assert_eq!((connections.accepted.get(), connections.open.get()), (2, 2));
    drop(kept.pop());
    let answered = || {
        let mut stream = connect(rig.otlp);
        send(&mut stream, "POST", "/v1/traces", &[PROTOBUF], b"");
        read_reply(&mut stream).is_some()
    };
    while !answered() {}
}

#[test]
fn a_drain_finishes_what_is_in_flight() {
    let mut rig = Rig::start(Policy::Hold, 100);
    let mut stream = connect(rig.otlp);
    send(&mut stream, "POST", "/v1/traces", &[PROTOBUF], &request(vec![span(1, 10)]));
    while rig.outlet.blocks().is_empty() {
        std::thread::yield_now();
    }
    rig.stop.store(true, Ordering::Release);
    rig.outlet.doorbell.ring();
    while TcpStream::connect(rig.otlp).is_ok() {}
    rig.outlet.answer_all(VerdictOutcome::Durable);
    let reply = read_reply(&mut stream).unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    rig.stop();
}

#[test]
fn what_no_writer_takes_before_the_stop_is_counted() {
    let rig = Rig::start(Policy::Hold, 8);
    let intake = Intake::new(rig.outlet.clone());
    let uberagent = config::Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };
    let rows = intake.add_rows(SourceId(1), Encoder::new(uberagent, SourceId(1)));
    let passed = intake.add_passed(SourceId(0));
    let spans = request(vec![span(1, 10), span(2, 10)]);
    intake.merge(passed, 5, &spans, crate::otlp::check::check(&spans).unwrap().summary).unwrap();
    let row = format!("{{\"LogonProcType\":\"x\",\"SessionGUID\":\"{}\"}}", "1".repeat(32));
    let decode = |encoder: &mut Encoder, _| encoder.json(row.as_bytes(), Origin::default(), 5);
    assert!(matches!(intake.rows(rows, decode).unwrap().0, Outcome::Encoded { .. }));
    rig.outlet.ring.lock().unwrap().capacity = 0;
    let lost = intake.abandon();
    assert!(rig.outlet.blocks().is_empty() && intake.is_handed_over());
    let counters = HttpCounters::default();
    lost.iter().for_each(|meta| count_lost(&counters, meta));
    assert_eq!((counters.spans_lost.get(), counters.records_lost.get()), (2, 1));
}

/// A gateway that may hold 10,000 bytes of bodies, and a connection that holds 8,000 of them.
fn crowded() -> (Rig, TcpStream) {
    let patient = HttpLimits { body_timeout: Duration::from_secs(20), ..limits() };
    let rig = Rig::with_body_bytes(DURABLE, 100, patient, 10_000);
    let mut holder = connect(rig.otlp);
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{PROTOBUF}\r\ncontent-length: 8000\r\n\r\n");
    holder.write_all(head.as_bytes()).unwrap();
    let size = |bytes| request(vec![span(1, bytes)]);
    while rig.traces(&size(5000)).status != 503 {}
    (rig, holder)
}

#[test]
fn bodies_share_an_allowance_and_what_does_not_fit_is_refused_for_now() {
    let (rig, holder) = crowded();
    let reply = rig.traces(&request(vec![span(1, 3000)]));
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(reply.message(), "no room at the moment, try again");
    assert_eq!(rig.fronts[0].requests_refused.get(), 2);
    let row = format!("{{\"create\":{{}}}}\n{{\"pad\":\"{}\"}}\n", "x".repeat(3000));
    let reply = post(rig.bulk, "/_bulk", &[], row.as_bytes());
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    assert_eq!(reply.json()["error"]["type"], "es_rejected_execution_exception");
    assert_eq!((rig.fronts[1].requests_refused.get(), rig.fronts[1].received.get()), (1, 0));
    assert_eq!(rig.traces(&request(vec![span(1, 1000)])).status, 200, "what fits is taken");
    drop(holder);
    while rig.traces(&request(vec![span(1, 9000)])).status != 200 {}
}

#[test]
fn a_body_that_declares_nothing_counts_as_it_comes() {
    let (rig, holder) = crowded();
    let mut stream = connect(rig.otlp);
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{PROTOBUF}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..5 {
        stream.write_all(b"3e8\r\n").unwrap();
        stream.write_all(&[0; 1000]).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 503);
    drop(holder);
    while rig.traces(&request(vec![span(1, 9000)])).status != 200 {}
}

#[test]
fn what_a_body_inflates_to_counts_too() {
    let (rig, holder) = crowded();
    let packed = zstd::encode_all(request(vec![span(1, 5000)]).as_slice(), 1).unwrap();
    let post_packed = || post(rig.otlp, "/v1/traces", &[PROTOBUF, "content-encoding: zstd"], &packed).status;
    assert_eq!(post_packed(), 503);
    drop(holder);
    while post_packed() != 200 {}
}

#[test]
fn an_idle_gateway_ticks_and_one_that_has_stopped_is_expected_to_be_silent() {
    let mut rig = Rig::start(DURABLE, 100);
    let from = clock::monotonic();
    // Only a tick that came half a second or more after the start is young enough then.
    let ticked = || rig.health.live(from + Duration::from_millis(3500)).yes;
    while !ticked() {
        assert!(clock::monotonic() < from + Duration::from_secs(10), "no tick since the start");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    rig.stop();
    assert_eq!(rig.health.live(Duration::from_secs(1 << 20)).lines, ["[+] gateway: ended"]);
}

#[test]
fn elasticsearch_clients_find_what_they_look_for() {
    let rig = Rig::start(DURABLE, 100);
    let mut stream = connect(rig.bulk);
    for (method, path, body) in [("GET", "/", ""), ("PUT", "/_template/uberagent", "{}"), ("GET", "/_license", "")] {
        send(&mut stream, method, path, &[], body.as_bytes());
        let reply = read_reply(&mut stream).unwrap();
        assert_eq!((reply.status, reply.header("x-elastic-product")), (200, Some("Elasticsearch")), "{path}");
    }
    let reply = post(rig.bulk, "/_search", &[], b"{}");
    assert_eq!((reply.status, reply.json()["status"].as_i64()), (404, Some(404)));
    let reply = post(rig.bulk, "/_bulk", &["content-type: application/x-ndjson"], b"{\"create\":{}}\n{}\nnonsense\n");
    assert_eq!(reply.status, 400);
    assert!(reply.json()["error"]["reason"].as_str().unwrap().contains("[3]"));
    assert_eq!(rig.fronts[1].received.get(), 0, "a malformed action stores nothing");
}

#[test]
fn rows_are_answered_item_by_item_and_the_ledger_balances() {
    let rig = Rig::start(DURABLE, 100);
    let rows = include_str!("../../../tests/data/uberagent/wire_es_bulk.ndjson");
    let body = format!("{rows}{{\"create\":{{}}}}\nnot json\n{{\"delete\":{{}}}}\n");
    let reply = post(rig.bulk, "/uberagent/_bulk", &["content-type: application/x-ndjson"], body.as_bytes());
    assert_eq!(reply.status, 200);
    let reply = reply.json();
    let items = reply["items"].as_array().unwrap();
    let documents = rows.lines().count() / 2;
    assert_eq!((items.len(), reply["errors"].as_bool()), (documents + 2, Some(true)));
    assert_eq!(items[documents]["create"]["status"], 400);
    assert_eq!(items[documents]["create"]["_index"], "uberagent");
    assert_eq!(items[documents + 1]["delete"]["status"], 400);
    let front = &rig.fronts[1];
    assert_eq!(front.received.get(), documents as u64 + 2);
    assert_eq!(front.received.get(), front.rejected.get() + front.filtered.get() + front.encoded.get());
    let records: u32 = rig.outlet.blocks().iter().map(|block| block.meta.records).sum();
    assert_eq!(u64::from(records), front.encoded.get());
}

#[test]
fn a_full_ring_refuses_rows_with_429() {
    let rig = Rig::start(DURABLE, 2);
    let reply = post(rig.bulk, "/_bulk", &[], b"{\"create\":{}}\n{}\n");
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    let rig = Rig::start(Policy::Hold, 4);
    let row = format!(
        "{{\"create\":{{}}}}\n{{\"LogonProcType\":\"x\",\"SessionGUID\":\"{}\",\"pad\":\"{}\"}}\n",
        "1".repeat(32),
        "x".repeat(20_000)
    );
    let mut stream = connect(rig.bulk);
    send(&mut stream, "POST", "/_bulk", &[], row.repeat(6).as_bytes());
    while rig.fronts[1].rejected.get() == 0 {
        std::thread::yield_now();
    }
    rig.outlet.answer_all(VerdictOutcome::Durable);
    let reply = read_reply(&mut stream).unwrap().json();
    let statuses: Vec<_> =
        reply["items"].as_array().unwrap().iter().map(|item| item["create"]["status"].as_u64().unwrap()).collect();
    assert_eq!((statuses[0], statuses[5]), (201, 429), "{statuses:?}");
    assert!(statuses.is_sorted(), "what came first is taken first: {statuses:?}");
    assert_eq!(rig.fronts[1].received.get(), 6);
}

#[test]
fn a_bulk_request_larger_than_the_ring_goes_in_piece_by_piece() {
    let rig = Rig::start(DURABLE, 4);
    let rows = include_str!("../../../tests/data/uberagent/wire_es_bulk.ndjson");
    let (documents, copies) = (rows.lines().count() / 2, (8 << 20) / rows.len());
    let reply = post(rig.bulk, "/_bulk", &[], rows.repeat(copies).as_bytes());
    assert_eq!(reply.status, 200);
    let reply = reply.json();
    let items = reply["items"].as_array().unwrap();
    assert_eq!(items.len(), documents * copies);
    assert_eq!(items.iter().filter(|item| item["create"]["status"] == 429).count(), 0);
    let front = &rig.fronts[1];
    assert_eq!(front.received.get(), (documents * copies) as u64);
    assert_eq!(front.received.get(), front.rejected.get() + front.filtered.get() + front.encoded.get());
    let records: u64 = rig.outlet.blocks().iter().map(|block| u64::from(block.meta.records)).sum();
    assert_eq!(records, front.encoded.get());
}

#[test]
fn a_bulk_request_of_more_items_than_can_be_kept_is_refused_for_good() {
    let rig = Rig::with_body_bytes(DURABLE, 100, limits(), 1 << 20);
    let reply = post(rig.bulk, "/_bulk", &[], "{\"delete\":{}}\n".repeat(10_000).as_bytes());
    assert_eq!((reply.status, reply.json()["error"]["reason"].as_str()), (413, Some("too many items in one request")));
    assert_eq!(rig.counters[1].refused_requests.iter().collect::<Vec<_>>(), [("too_many_items", 1)]);
}

#[test]
fn rows_refused_by_the_log_are_429_as_a_whole() {
    let rig = Rig::start(REFUSED, 100);
    let rows = include_str!("../../../tests/data/uberagent/wire_es_bulk.ndjson");
    let reply = post(rig.bulk, "/_bulk", &[], rows.as_bytes());
    let stored_nothing = rig.outlet.blocks().is_empty();
    assert_eq!(reply.status, if stored_nothing { 200 } else { 429 });
}

impl Rig {
    /// Has a change adopted.
    fn change(&self, close: Vec<u16>, serve: Vec<Listener>) {
        let (adopted, adoption) = crossbeam::channel::bounded(1);
        let close = close.into_iter().map(SourceId).collect();
        assert!(self.changer.send(DoorChanges { close, serve, remap: false, adopted }).is_ok());
        adoption.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    /// The OTLP door over another socket, under these limits.
    fn otlp_door(&self, limits: HttpLimits) -> Listener {
        Listener {
            socket: TcpListener::bind("127.0.0.1:0").unwrap(),
            source: SourceId(0),
            kind: DoorKind::OtlpHttp,
            front: self.fronts[0].clone(),
            table: ConnectionTable::new(limits.max_connections, limits.max_connections_per_ip),
            limits,
            counters: self.counters[0].clone(),
            uberagent: config::Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter },
        }
    }
}

#[test]
fn a_door_that_changes_keeps_its_connections_and_one_that_closes_answers_what_is_in_flight() {
    let mut rig = Rig::start(Policy::Hold, 100);
    let (mut kept, mut other) = (connect(rig.otlp), connect(rig.bulk));
    let export = |stream: &mut TcpStream, rig: &Rig, name_bytes| {
        let pushed = rig.outlet.blocks().len();
        send(stream, "POST", "/v1/traces", &[PROTOBUF], &request(vec![span(1, name_bytes)]));
        while rig.outlet.blocks().len() == pushed {
            std::thread::yield_now();
        }
    };
    export(&mut kept, &rig, 10);
    let small = HttpLimits { max_body_bytes: 1000, ..limits() };
    let door = rig.otlp_door(small);
    let before = std::mem::replace(&mut rig.otlp, door.socket.local_addr().unwrap());
    rig.change(Vec::new(), vec![door]);
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut kept).unwrap().status, 200, "in flight while the door changed");
    assert!(TcpStream::connect(before).is_err(), "the old socket is closed");
    assert_eq!(rig.traces(&request(vec![span(1, 2000)])).status, 413, "new connections have the new limits");
    export(&mut kept, &rig, 2000);
    rig.change(vec![0], Vec::new());
    assert!(TcpStream::connect(rig.otlp).is_err());
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut kept).unwrap().status, 200, "of a connection that is older than the limit");
    assert!(read_reply(&mut kept).is_none(), "closed after it");
    send(&mut other, "GET", "/", &[], &[]);
    assert_eq!(read_reply(&mut other).unwrap().status, 200, "the other door is untouched");

    let door = rig.otlp_door(limits());
    rig.otlp = door.socket.local_addr().unwrap();
    rig.change(Vec::new(), vec![door]);
    let mut back = connect(rig.otlp);
    export(&mut back, &rig, 10);
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut back).unwrap().status, 200);
    assert_eq!(rig.fronts[0].spans_passed.get(), 3, "one front, whatever the door");
}
