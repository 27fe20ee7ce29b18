//! The management port over a real socket: every route, every status, and its bounds.
//!
//! Requests are written by hand, so that nothing between test and server mends what the server gets wrong. Waiting has a
//! deadline everywhere.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::telemetry::health::State;

fn started() -> (Management, Health) {
    let health = Health::new();
    let sources = Sources { metrics: Arc::new(Metrics::new()), health: health.clone() };
    let management = Management::start(TcpListener::bind("127.0.0.1:0").unwrap(), sources).unwrap();
    (management, health)
}

fn get(management: &Management, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(management.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
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
    let held: Vec<TcpStream> =
        (0..MAX_CONNECTIONS).map(|_| TcpStream::connect(management.address()).unwrap()).collect();
    let mut late = TcpStream::connect(management.address()).unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(late.read(&mut [0; 1]).is_err(), "a connection beyond the limit was served");
    drop(held);
    late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reply = String::new();
    late.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}
