//! OTLP/HTTP requests with numbered spans, so that a sink can tell whether each came exactly once.
//!
//! One request is in flight on each connection. A refusal (429, 503) is obeyed and the same request sent again; any other
//! failure loses the connection, and the request is sent again on a new one, as an SDK would. Only numbers whose request
//! was answered with success count as acknowledged.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace::sys::clock;

use super::{Pace, Sent, connect, due, on_threads, wait_until};
use crate::http::Messages;
use crate::spans::RequestTemplate;
use crate::usage;

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct OtlpLoad {
    /// Where to.
    pub(crate) target: SocketAddr,
    /// Spans of a request.
    pub(crate) spans: usize,
    /// Connections.
    pub(crate) connections: usize,
    /// The high half of all trace ids; different for runs that must not be mixed up.
    pub(crate) run: u64,
    /// How much, how fast.
    pub(crate) pace: Pace,
}

/// What became of one attempt.
enum Outcome {
    Accepted,
    Refused(Duration),
    Lost,
}

/// Sends until the count is reached or the time is up.
pub(crate) fn send(load: &OtlpLoad) -> Result<Sent> {
    ensure!(load.connections > 0 && load.spans > 0, "a load needs connections and spans");
    let template = RequestTemplate::new(load.spans, clock::wall_ns());
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        template.body.len()
    );
    let began = clock::monotonic();
    on_threads(load.connections, |connection| send_share(load, &template, &head, connection, began))
}

fn send_share(
    load: &OtlpLoad,
    template: &RequestTemplate,
    head: &str,
    connection: usize,
    began: Duration,
) -> Result<Sent> {
    let mut sent = Sent::default();
    let cpu_before = usage::thread_cpu();
    let mut request = [head.as_bytes(), &template.body].concat();
    let mut stream = connect(load.target)?;
    let mut messages = Messages::new();
    let spans = template.spans() as u64;
    let requests = load.pace.count.div_ceil(spans);
    let own_rate = load.pace.rate.map(|rate| rate / load.connections as u64);
    let mut index = connection as u64;
    while index < requests && clock::monotonic() - began < load.pace.limit {
        template.number(&mut request[head.len()..], load.run, index * spans);
        if let Some(rate) = own_rate {
            wait_until(due(began, sent.items, rate));
        }
        match attempt(&mut stream, &mut messages, &request)? {
            Outcome::Accepted => {
                sent.acknowledged.push((load.run, index * spans, spans));
                sent.items += spans;
                sent.bytes += request.len() as u64;
                index += load.connections as u64;
            }
            Outcome::Refused(pause) => {
                sent.refusals += 1;
                wait_until((clock::monotonic() + pause).min(began + load.pace.limit));
            }
            Outcome::Lost => {
                wait_until(clock::monotonic() + Duration::from_millis(50));
                if let Ok(again) = connect(load.target) {
                    stream = again;
                    messages = Messages::new();
                }
            }
        }
    }
    sent.wall = clock::monotonic() - began;
    sent.cpu = usage::thread_cpu() - cpu_before;
    Ok(sent)
}

fn attempt(stream: &mut TcpStream, messages: &mut Messages, request: &[u8]) -> Result<Outcome> {
    if stream.write_all(request).is_err() {
        return Ok(Outcome::Lost);
    }
    let Ok(Some(head)) = messages.head(stream) else { return Ok(Outcome::Lost) };
    if messages.body(&head, stream).is_err() {
        return Ok(Outcome::Lost);
    }
    match head.target.as_str() {
        "200" => Ok(Outcome::Accepted),
        "429" | "502" | "503" | "504" => {
            Ok(Outcome::Refused(head.retry_after.map_or(Duration::from_millis(50), Duration::from_secs)))
        }
        status => anyhow::bail!("answered with status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Expectation, Sink, SinkOptions, verify};

    #[test]
    fn the_sink_gets_every_span_once_though_it_fails_every_third_request() {
        let options =
            SinkOptions { keep_ids: true, fail_every: Some(3), failure_status: 503, ..SinkOptions::default() };
        let sink = Sink::start("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let pace = Pace { count: 2_000, limit: Duration::from_secs(20), rate: None };
        let load = OtlpLoad { target: sink.address, spans: 100, connections: 2, run: 9, pace };
        let sent = send(&load).unwrap();
        assert_eq!((sent.items, sink.snapshot().spans), (2_000, 2_000));
        assert!(sent.refusals > 0);
        let mut came = sink.take_ids();
        let expectation = Expectation { ranges: sent.acknowledged };
        let verdict = verify(came.clone(), &expectation);
        assert_eq!((verdict.unique, verdict.doubled, verdict.missing), (2_000, 0, 0));
        came.pop();
        assert_eq!(verify(came, &expectation).missing, 1);
    }
}
