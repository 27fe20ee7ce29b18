//! The management port over a real socket: every route, every status, and its bounds.
//!
//! Requests are written by hand, so that nothing between test and server mends what the server gets wrong. Waiting has a
//! deadline everywhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use hyper::service::Service;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::telemetry::health::State;

fn started() -> (Management, Health) {
    let health = Health::new();
    let (management, _) = serving(&health);
    (management, health)
}

fn serving(health: &Health) -> (Management, crossbeam::channel::Receiver<ReloadRequest>) {
    let (sources, requests) = sources(health, Tokens::default());
    (Management::start(TcpListener::bind("127.0.0.1:0").unwrap(), sources).unwrap(), requests)
}

fn sources(health: &Health, tokens: Tokens) -> (Sources, crossbeam::channel::Receiver<ReloadRequest>) {
    let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), Trust { tokens, loopback: true });
    let (reload, requests) = reload_channel();
    (Sources::new(&Arc::default(), health, &guard, (reload, desk_channel().0, Arc::default())), requests)
}

fn get(management: &Management, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(management.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    (reply.split(' ').nth(1).unwrap().parse().unwrap(), reply)
}

#[test]
fn health_pages_say_what_is_so() {
    let (management, health) = started();
    let log = health.component("log");
    assert_eq!(get(&management, "GET /readyz").0, 503);
    assert_eq!(get(&management, "GET /startupz").0, 503);
    log.set(State::Ready);
    assert_eq!(get(&management, "GET /readyz").0, 200);
    let (status, page) = get(&management, "GET /startupz?verbose");
    assert!(status == 200 && page.contains("[+] log: started\nok\n"), "{page}");
    health.drain();
    let (status, page) = get(&management, "GET /readyz");
    assert!(status == 503 && page.ends_with("[-] process: draining\nfailed\n"), "{page}");
    // A thread that ticked at the beginning of time and may be silent for no time at all is stuck.
    let (status, page) = get(&management, "GET /livez?verbose");
    assert!(status == 200 && page.contains("[+] management: turns"), "{page}");
    let _stuck = health.thread("reactor-0", Duration::ZERO, Duration::ZERO);
    assert_eq!(get(&management, "GET /livez").0, 503);
}

#[test]
fn every_page_that_is_listed_exists_and_no_other() {
    let (management, _health) = started();
    let (status, index) = get(&management, "GET /");
    assert_eq!(status, 200);
    let listed: Vec<&str> = index.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(listed.len(), 4);
    for path in listed {
        assert_eq!(get(&management, &format!("GET {path}")).0, 200, "{path}");
    }
    assert_eq!(get(&management, "GET /config").0, 404);
    assert_eq!(get(&management, "POST /metrics").0, 405);
}

/// Asks the router as a peer at `peer` would.
fn ask(route: (&str, &str), peer: &str, headers: &[(&str, &str)]) -> StatusCode {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let (sources, requests) = sources(&Health::new(), Tokens::read(&file).unwrap().0);
    drop(requests);
    let peer = auth::Peer(SocketAddr::new(peer.parse().unwrap(), 1234));
    let router = routes::router(routes::routes(), sources).layer(Extension(peer));
    let mut request = axum::extract::Request::builder().method(route.0).uri(route.1);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(axum::body::Body::empty()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(TowerToHyperService::new(router).call(request)).unwrap().status()
}

const TOKEN: &str = "a-token-of-the-tests";

#[test]
fn every_route_is_open_or_asks_for_a_token_and_the_list_of_open_ones_is_this() {
    let mut open = Vec::new();
    for route in routes::routes() {
        let (right, wrong) = (format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}x"));
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            let ask = |peer, headers: &[(&str, &str)]| ask((method, route.path), peer, headers).as_u16();
            let (far, near) = ("198.51.100.1", "127.0.0.1");
            match route.access {
                routes::Access::Open => assert_ne!(ask(far, &[("host", "x")]), 401, "{method} {}", route.path),
                routes::Access::Guarded => {
                    let statuses = [
                        ask(far, &[("host", "localhost")]),
                        ask(far, &[("host", "localhost"), ("authorization", &wrong)]),
                        ask(near, &[("host", "evil.example")]),
                        ask(near, &[("host", "localhost"), ("origin", "http://evil.example")]),
                    ];
                    assert_eq!(statuses, [401, 401, 403, 403], "{method} {}", route.path);
                    let passes = [ask(far, &[("authorization", &right)]), ask(near, &[("host", "localhost")])];
                    assert!(passes.iter().all(|status| ![401, 403].contains(status)), "{method} {}", route.path);
                }
            }
        }
        if route.access == routes::Access::Open {
            open.push(route.path);
        }
    }
    assert_eq!(open, ["/", "/metrics", "/livez", "/readyz", "/startupz"]);
}

#[test]
fn a_reload_is_asked_for_and_its_answer_passed_on() {
    let (management, requests) = serving(&Health::new());
    let operator = std::thread::spawn(move || {
        let mut asked = Vec::new();
        let good = ReloadAnswer::Good { generation: 2, changes: vec!["a".to_owned()], warnings: Vec::new() };
        let refused = ReloadAnswer::Refused { generation: 2, problems: vec!["f:1:2: no".to_owned(); 2] };
        for answer in [good, refused] {
            let request = requests.recv_timeout(Duration::from_secs(20)).unwrap();
            asked.push(request.dry_run);
            request.answer.send(answer).unwrap();
        }
        asked
    });
    // As a client on this host writes it.
    let post = |query: &str| get(&management, &format!("POST /api/v1/reload{query}"));
    let (status, page) = post("?dry_run=1");
    assert_eq!(status, 200);
    assert!(page.ends_with(r#"{"changes":["a"],"dry_run":true,"generation":2,"warnings":[]}"#), "{page}");
    let (status, page) = post("");
    assert_eq!(status, 422);
    assert!(page.contains(r#""error":"f:1:2: no\nf:1:2: no""#), "{page}");
    assert_eq!(operator.join().unwrap(), [true, false]);
    assert_eq!((post("?force").0, post("").0), (400, 503), "nobody is there to reload");
}

#[test]
fn metrics_are_prometheus_text() {
    let (management, _health) = started();
    let (status, page) = get(&management, "GET /metrics");
    assert_eq!(status, 200);
    assert!(page.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("\nrecords_received_total 0\n"), "{page}");
}

#[test]
fn more_connections_than_allowed_wait_and_are_served_when_others_go() {
    let (management, _health) = started();
    let address = management.address();
    let peers = MAX_CONNECTIONS / peers::MAX_PER_PEER;
    let held: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|number| connect_from(number % peers + 2, address)).collect();
    let mut late = TcpStream::connect(address).unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(late.read(&mut [0; 1]).is_err(), "a connection beyond the limit was served");
    drop(held);
    late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reply = String::new();
    late.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

/// A connection from 127.0.0.`host`.
fn connect_from(host: usize, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = SocketAddr::from(([127, 0, 0, u8::try_from(host).unwrap()], 0));
    socket.bind(&source.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

#[test]
fn a_peer_that_holds_its_share_is_closed_and_others_are_served() {
    let (management, _health) = started();
    let held: Vec<TcpStream> = (0..peers::MAX_PER_PEER).map(|_| connect_from(2, management.address())).collect();
    let mut late = connect_from(2, management.address());
    late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(late.read(&mut [0; 1]).unwrap(), 0, "closed unanswered");
    assert_eq!(get(&management, "GET /livez").0, 200);
    drop(held);
}
