//! Exporters against backends that behave as badly as a backend can: a listener on loopback with scripted answers.
//!
//! No sleeps: the backend reacts to what it reads, or holds still until the client goes away.

#[cfg(feature = "plugins")]
mod plugin;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::*;
use crate::config::{self, Backend as Settings, Compression, Encoding, HttpClient, InfluxSchema, InfluxWrite};
use crate::sys::sigbus;

/// What the backend does with one request; the last one repeats.
#[derive(Clone)]
enum Act {
    /// Read the request, send these bytes, keep the connection.
    Answer(String),
    /// The same, then close.
    AnswerAndClose(String),
    /// Read the head only, then reset the connection.
    ResetInBody,
    /// Read the request, then close without a word.
    CloseSilently,
    /// Read the request and say nothing until the client goes away.
    Hang,
    /// Send these bytes, then one byte at a time for as long as the client listens.
    Drip(String),
    /// Send these bytes, then bytes without end.
    Flood(String),
}

/// One request as the backend read it.
#[derive(Clone, Debug)]
struct Received {
    head: String,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A backend on loopback that ends with the process.
struct Backend {
    address: SocketAddr,
    received: mpsc::Receiver<Received>,
    connections: Arc<AtomicUsize>,
    flooded: Arc<AtomicUsize>,
}

impl Backend {
    fn start(acts: Vec<Act>) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, served) = (Arc::clone(&connections), Arc::new(AtomicUsize::new(0)));
        let flooded = Arc::new(AtomicUsize::new(0));
        let flood = Arc::clone(&flooded);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (acts, sender) = (acts.clone(), sender.clone());
                let (served, flood) = (Arc::clone(&served), Arc::clone(&flood));
                std::thread::spawn(move || serve(stream.unwrap(), &acts, &sender, (&served, &flood)));
            }
        });
        Backend { address, received, connections, flooded }
    }

    fn answering(answer: &str) -> Backend {
        Backend::start(vec![Act::Answer(answer.to_owned())])
    }

    fn received(&self) -> Received {
        self.received.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

/// Serves one connection until it ends; what the client does to it is the client's business.
fn serve(
    mut stream: TcpStream,
    acts: &[Act],
    sender: &mpsc::Sender<Received>,
    (served, flooded): (&AtomicUsize, &AtomicUsize),
) {
    loop {
        let Some(head) = read_head(&mut stream) else { return };
        let act = &acts[served.fetch_add(1, Ordering::SeqCst).min(acts.len() - 1)];
        if matches!(act, Act::ResetInBody) {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            return;
        }
        let received = Received { head, body: Vec::new() };
        let length = received.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() || sender.send(Received { body, ..received }).is_err() {
            return;
        }
        match act {
            Act::Answer(text) => stream.write_all(text.as_bytes()).unwrap_or_default(),
            Act::AnswerAndClose(text) => return stream.write_all(text.as_bytes()).unwrap_or_default(),
            Act::ResetInBody | Act::CloseSilently => return,
            Act::Hang => return drop(stream.read(&mut [0])),
            Act::Drip(text) => return drip(&mut stream, text),
            Act::Flood(text) => {
                let chunk = vec![b'x'; 64 * 1024];
                let mut sent = stream.write_all(text.as_bytes());
                while sent.is_ok() {
                    sent = stream.write_all(&chunk);
                    flooded.fetch_add(chunk.len(), Ordering::SeqCst);
                }
                return;
            }
        }
    }
}

/// A byte every fifty milliseconds; reading from the client is the pause and the sign that it has gone.
fn drip(stream: &mut TcpStream, text: &str) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut sent = stream.write_all(text.as_bytes());
    while sent.is_ok() && !matches!(stream.read(&mut [0]), Ok(0)) {
        sent = stream.write_all(b"x");
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// A client that gives up soon.
pub(super) fn http_client() -> HttpClient {
    HttpClient {
        headers: Vec::new(),
        ca_file: None,
        compression: Compression::None,
        timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
    }
}

fn otlp(address: SocketAddr) -> config::OtlpHttp {
    config::OtlpHttp {
        traces_url: format!("http://{address}/v1/traces"),
        encoding: Encoding::Protobuf,
        http: http_client(),
    }
}

fn open(settings: config::OtlpHttp) -> Exporter {
    Exporter::open(&Settings::OtlpHttp(settings)).unwrap()
}

fn request<'a>(payloads: &'a [&'a [u8]]) -> Request<'a> {
    Request { signal: Signal::Traces, payloads, uncompressed: false, wall_ns: 0, faults: sigbus::faults() }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
const PAYLOADS: [&[u8]; 3] = [b"\x0a\x01a", b"\x0a\x02bc", b"\x0a\x00"];

fn sent_to(acts: Vec<Act>) -> Outcome {
    let backend = Backend::start(acts);
    open(otlp(backend.address)).send(&request(&PAYLOADS))
}

fn is_unavailable(outcome: &Outcome, lost: bool) -> bool {
    matches!(outcome, Outcome::Unavailable { answer_lost, .. } if *answer_lost == lost)
}

#[test]
fn a_request_is_its_payloads_with_a_length_over_one_connection() {
    let backend = Backend::answering(OK);
    let mut settings = otlp(backend.address);
    settings.http.headers = vec![("X-Scope-OrgID".into(), "tenant-1".into())];
    let mut exporter = open(settings);
    assert!(!format!("{exporter:?}").contains("tenant-1"), "a header's value may be a secret");
    for _ in 0..20 {
        assert_eq!(exporter.send(&request(&PAYLOADS)), Outcome::Accepted);
        let received = backend.received();
        assert!(received.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", received.head);
        assert_eq!(received.body, PAYLOADS.concat());
        assert_eq!(received.header("content-length"), Some("9"));
        assert_eq!(received.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(received.header("x-scope-orgid"), Some("tenant-1"));
        let absent = ["transfer-encoding", "expect", "content-encoding", "accept-encoding"];
        assert!(absent.iter().all(|name| received.header(name).is_none()), "{}", received.head);
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1, "the connection is kept");
    assert_eq!(exporter.another().send(&request(&PAYLOADS)), Outcome::Accepted);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 2, "another sender has its own");
}

#[test]
fn an_exporter_may_live_on_any_thread() {
    fn is_send<T: Send>() {}
    is_send::<Exporter>();
}

#[test]
fn a_large_request_arrives_byte_for_byte() {
    let backend = Backend::answering(OK);
    let blocks: Vec<Vec<u8>> = (0..20u8).map(|byte| vec![byte; 65_000 + usize::from(byte)]).collect();
    let payloads: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    assert_eq!(open(otlp(backend.address)).send(&request(&payloads)), Outcome::Accepted);
    assert!(backend.received().body == blocks.concat());
}

#[test]
fn compression_is_used_unless_the_request_asks_for_none() {
    for (compression, name) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        let backend = Backend::answering(OK);
        let mut settings = otlp(backend.address);
        settings.http.compression = compression;
        let mut exporter = open(settings);
        assert_eq!(exporter.send(&request(&PAYLOADS)), Outcome::Accepted);
        let received = backend.received();
        assert_eq!(received.header("content-encoding"), Some(name));
        let mut plain = Vec::new();
        match compression {
            Compression::Gzip => drop(flate2::read::GzDecoder::new(&received.body[..]).read_to_end(&mut plain)),
            _ => plain = zstd::decode_all(&received.body[..]).unwrap(),
        }
        assert_eq!(plain, PAYLOADS.concat());
        let uncompressed = Request { uncompressed: true, ..request(&PAYLOADS) };
        assert_eq!(exporter.send(&uncompressed), Outcome::Accepted);
        let received = backend.received();
        assert_eq!((received.header("content-encoding"), &received.body), (None, &PAYLOADS.concat()));
    }
}

#[test]
fn json_is_sent_and_read_and_logs_have_their_own_path() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 59\r\n\r\n\
                  {\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"x\"}}";
    let backend = Backend::answering(answer);
    let mut exporter = open(config::OtlpHttp { encoding: Encoding::Json, ..otlp(backend.address) });
    let outcome = exporter.send(&request(&[b"\x0a\x00"]));
    assert_eq!(outcome, Outcome::AcceptedPartially { refused_spans: 1, message: "x".into() });
    let received = backend.received();
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.body, b"{\"resourceSpans\":[{}]}");
    assert!(exporter.accepts(Signal::Logs) && !exporter.accepts(Signal::Metrics));
    drop(exporter.send(&Request { signal: Signal::Logs, ..request(&[b"\x0a\x00"]) }));
    assert!(backend.received().head.starts_with("POST /v1/logs "));
    let elsewhere =
        config::OtlpHttp { traces_url: format!("http://{}/ingest", backend.address), ..otlp(backend.address) };
    assert!(!open(elsewhere).accepts(Signal::Logs), "nobody said where logs go");
}

#[test]
fn statuses_and_their_headers_reach_the_outcome() {
    let answer = |head: &str| Act::Answer(format!("HTTP/1.1 {head}\r\nContent-Length: 4\r\n\r\nwhy?"));
    let throttled = sent_to(vec![answer("429 Too Many\r\nRetry-After: 99999999999")]);
    let retry_after = Some(Duration::from_secs(99_999_999_999));
    assert_eq!(throttled, Outcome::Throttled { retry_after, message: "429 too many requests: why?".into() });
    for (head, expected) in [
        ("500 Oops", "unavailable"),
        ("502 Bad Gateway", "unavailable"),
        ("503 Unavailable", "unavailable"),
        ("504 Timeout", "unavailable"),
        ("503 Unavailable\r\nRetry-After: 7", "throttled"),
        ("429 Slow", "throttled"),
        ("400 Bad", "bad request"),
        ("401 Who", "misconfigured"),
        ("403 No", "misconfigured"),
        ("404 Where", "misconfigured"),
        ("413 Large", "too large"),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", "misconfigured"),
        ("307 Found\r\nLocation: http://127.0.0.1:1/", "misconfigured"),
    ] {
        let name = match sent_to(vec![answer(head)]) {
            Outcome::Unavailable { .. } => "unavailable",
            Outcome::Throttled { .. } => "throttled",
            Outcome::BadRequest { .. } => "bad request",
            Outcome::Misconfigured { .. } => "misconfigured",
            Outcome::TooLarge { payload_bytes: 9, .. } => "too large",
            other => panic!("{head}: {other:?}"),
        };
        assert_eq!(name, expected, "{head}");
    }
}

#[test]
fn a_yes_with_garbage_is_a_yes_but_a_web_page_is_no_receiver() {
    let answer = |kind: &str| {
        Act::Answer(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 7\r\n\r\ngarbage"))
    };
    for kind in ["application/x-protobuf", "application/json", "text/plain"] {
        let outcome = sent_to(vec![answer(kind)]);
        assert!(
            matches!(&outcome, Outcome::AcceptedPartially { refused_spans: 0, message } if message.contains("garbage")),
            "{outcome:?}"
        );
    }
    assert!(matches!(sent_to(vec![answer("text/html; charset=utf-8")]), Outcome::Misconfigured { .. }));
}

#[test]
fn replies_without_end_are_cut_and_the_connection_is_given_up() {
    let heads = |status: &str| {
        let plain = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 3221225472\r\n\r\n");
        [plain, format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\n")]
    };
    for head in heads("200 OK") {
        let backend = Backend::start(vec![Act::Flood(head), Act::Answer(OK.to_owned())]);
        let mut exporter = open(otlp(backend.address));
        assert!(matches!(exporter.send(&request(&PAYLOADS)), Outcome::AcceptedPartially { refused_spans: 0, .. }));
        assert_eq!(exporter.send(&request(&PAYLOADS)), Outcome::Accepted);
        assert_eq!(backend.connections.load(Ordering::SeqCst), 2);
        let flooded = backend.flooded.load(Ordering::SeqCst);
        assert!(flooded < 32 << 20, "{flooded} bytes of a reply, more than sockets buffer");
    }
    for head in heads("500 No") {
        let outcome = sent_to(vec![Act::Flood(head)]);
        assert!(is_unavailable(&outcome, false) && outcome.message().len() < 400, "{outcome:?}");
    }
    let endless_head = "HTTP/1.1 200 OK\r\nX-Endless: ";
    assert!(is_unavailable(&sent_to(vec![Act::Flood(endless_head.into())]), true));
}

#[test]
fn a_slow_reply_ends_with_the_timeout() {
    let head = "HTTP/1.1 200 OK\r\nX-Slow: ".to_owned();
    let outcome = sent_to(vec![Act::Drip(head)]);
    assert!(is_unavailable(&outcome, true), "{outcome:?}");
    let body = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n".to_owned();
    let outcome = sent_to(vec![Act::Drip(body)]);
    assert!(matches!(outcome, Outcome::AcceptedPartially { refused_spans: 0, .. }), "a yes was said: {outcome:?}");
}

#[test]
fn answers_that_never_come_are_lost_answers() {
    assert!(is_unavailable(&sent_to(vec![Act::Hang]), true));
    assert!(is_unavailable(&sent_to(vec![Act::CloseSilently]), true));
    assert!(is_unavailable(&sent_to(vec![Act::AnswerAndClose("HTTP/1.1 2".into())]), true));
    assert!(is_unavailable(&sent_to(vec![Act::AnswerAndClose("SSH-2.0-OpenSSH_9\r\n\r\n".into())]), true));
}

#[test]
fn a_reset_in_the_body_is_no_lost_answer_and_the_next_request_works() {
    let backend = Backend::start(vec![Act::ResetInBody, Act::Answer(OK.to_owned())]);
    let mut exporter = open(otlp(backend.address));
    let big = vec![0; 8 << 20];
    let outcome = exporter.send(&request(&[&big]));
    assert!(is_unavailable(&outcome, false), "{outcome:?}");
    assert_eq!(exporter.send(&request(&PAYLOADS)), Outcome::Accepted);
}

#[test]
fn a_wrong_content_length_is_a_yes_and_nothing_more() {
    let longer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100\r\n\r\n";
    let backend = Backend::start(vec![Act::AnswerAndClose(longer.into()), Act::Answer(format!("{OK}left over"))]);
    let mut exporter = open(otlp(backend.address));
    for connections in [1, 2, 3] {
        assert_eq!(exporter.send(&request(&PAYLOADS)), Outcome::Accepted);
        assert_eq!(
            backend.connections.load(Ordering::SeqCst),
            connections,
            "a connection out of step is not used again"
        );
    }
}

#[test]
fn nobody_there_and_no_such_name_are_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(is_unavailable(&open(otlp(address)).send(&request(&PAYLOADS)), false));
    let mut settings = otlp(address);
    settings.traces_url = "http://no-such-name.invalid:4318/v1/traces".into();
    assert!(is_unavailable(&open(settings).send(&request(&PAYLOADS)), false));
}

#[test]
fn no_tls_where_tls_is_expected_is_a_fault_of_configuration() {
    let backend = Backend::answering(OK);
    let url = format!("https://{}/v1/traces", backend.address);
    // The server waits for a head that never comes and answers nothing; a talking one answers in plain text.
    let talking = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = talking.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in talking.incoming().flatten() {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap_or_default();
            drop(stream.read(&mut [0; 1024]));
        }
    });
    let settings = config::OtlpHttp { traces_url: format!("https://{address}/v1/traces"), ..otlp(address) };
    let outcome = open(settings).send(&request(&PAYLOADS));
    assert!(matches!(outcome, Outcome::Misconfigured { .. }), "{outcome:?}");
    let settings = config::OtlpHttp { traces_url: url, ..otlp(backend.address) };
    assert!(is_unavailable(&open(settings).send(&request(&PAYLOADS)), false));
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let address = "127.0.0.1:1".parse().unwrap();
    let with_url = |url: &str| config::OtlpHttp { traces_url: url.into(), ..otlp(address) };
    for url in ["ftp://host/v1/traces", "/v1/traces", "http://", "http://ho st/", ""] {
        let error = Exporter::open(&Settings::OtlpHttp(with_url(url))).unwrap_err();
        assert!(matches!(error, SetupError::Url { .. }), "{url}: {error}");
    }
    let mut settings = otlp(address);
    settings.http.headers = vec![("X-Token".into(), "secret\n".into())];
    let error = Exporter::open(&Settings::OtlpHttp(settings.clone())).unwrap_err().to_string();
    assert!(error.contains("X-Token") && !error.contains("secret"), "{error}");
    settings.http.headers.clear();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n")] {
        content.into_iter().for_each(|content| std::fs::write(&path, content).unwrap());
        settings.http.ca_file = Some(path.clone());
        let error = Exporter::open(&Settings::OtlpHttp(settings.clone())).unwrap_err();
        assert!(matches!(error, SetupError::CaFile { .. }), "{content:?}: {error}");
    }
}

fn influx(address: SocketAddr) -> config::Influx {
    config::Influx {
        url: format!("http://{address}"),
        token: Some("s3cret".into()),
        write: InfluxWrite::V2 { org: "org".into(), bucket: "bucket".into() },
        schema: InfluxSchema::Tags,
        http: http_client(),
    }
}

/// One span of a logon as the `original` mapping writes it.
fn logon(digit: u8) -> Vec<u8> {
    let mut span =
        vec![0x0a, 16, 0x10, 0, 0, 0x01, 0x14, 0xb1, 0xe9, 0x3a, 0x7f, 0x07, 0x75, 0xd3, 0x90, 0xbc, 0x3d, digit];
    span.extend([0x39, 1, 0, 0, 0, 0, 0, 0, 0]);
    span.extend(b"\x4a\x13\x0a\x0aevent_type\x12\x05\x0a\x03log");
    [(0x12, "scope spans"), (0x12, "resource spans"), (0x0a, "request")]
        .into_iter()
        .fold(span, |message, (tag, _)| [&[tag, u8::try_from(message.len()).unwrap()][..], &message].concat())
}

#[test]
fn the_session_map_is_written_once_and_again_only_after_a_failure() {
    const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 2\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let backend = Backend::start(vec![Act::Answer(BUSY.into()), Act::Answer(NO_CONTENT.into())]);
    let mut exporter = Exporter::open(&Settings::Influx(influx(backend.address))).unwrap();
    assert!(exporter.wants_uberagent_only() && !exporter.accepts(Signal::Logs));
    assert!(!format!("{exporter:?}").contains("s3cret"));
    let (one, two) = (logon(0xb0), logon(0xc0));
    let payloads: [&[u8]; 3] = [&one, &one, &two];
    assert!(is_unavailable(&exporter.send(&request(&payloads)), false));
    assert_eq!(exporter.send(&request(&payloads)), Outcome::Accepted);
    assert_eq!(exporter.another().send(&request(&payloads)), Outcome::NothingToSend, "nothing new");
    let (failed, written) = (backend.received(), backend.received());
    assert_eq!(failed.body, written.body);
    assert!(written.head.starts_with("POST /api/v2/write?org=org&bucket=bucket&precision=ns HTTP/1.1\r\n"));
    assert_eq!(written.header("authorization"), Some("Token s3cret"));
    let expected = "uberAgent:logonTraceMap,guid=00000011-4b1e-93a7-f077-5d390bc3db01,\
                    trace_id=1000000114b1e93a7f0775d390bc3db0 value=0i 1\n\
                    uberAgent:logonTraceMap,guid=00000011-4b1e-93a7-f077-5d390bc3dc01,\
                    trace_id=1000000114b1e93a7f0775d390bc3dc0 value=0i 1\n";
    assert_eq!(String::from_utf8(written.body).unwrap(), expected);
    assert!(backend.received.try_recv().is_err());
}
