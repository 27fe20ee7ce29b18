//! What a client may take: time, connections, memory.

use std::io::Write;
use std::net::TcpStream;

use super::super::*;
use super::harness::{DURABLE, PROTOBUF, Rig, connect, limits, post, read_reply, request, send, span};

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

/// RFC 9112 section 6.3: the encoding decides where the body ends, and nothing behind it on the connection is believed, for
/// a proxy in front may have gone by the length.
#[test]
fn a_request_with_a_length_and_an_encoding_is_the_last_of_its_connection() {
    let body = request(vec![span(1, 10)]);
    let length = format!("content-length: {}", body.len() + 100);
    let encoding = "transfer-encoding: chunked".to_owned();
    for framing in [[&length, &encoding], [&encoding, &length]] {
        let rig = Rig::start(DURABLE, 100);
        let mut stream = connect(rig.otlp);
        let head =
            format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{PROTOBUF}\r\n{}\r\n{}\r\n\r\n", framing[0], framing[1]);
        let mut bytes = [head.as_bytes(), format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        bytes.extend(format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{PROTOBUF}\r\n").bytes());
        bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(&body);
        stream.write_all(&bytes).unwrap();
        let reply = read_reply(&mut stream).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{framing:?}");
        assert!(read_reply(&mut stream).is_none(), "the request behind it was answered");
        rig.until_closed(0, "done");
        assert_eq!(rig.outlet.blocks().len(), 1, "{framing:?}");
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
