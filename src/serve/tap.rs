//! `GET /api/v1/tap`: what passes the lanes, as lines of OTLP in JSON, until somebody has seen enough.
//!
//! `stage` is `stored` (the default) or `received`, as far as `management.tap` allows it; `source`, `service` and `sourcetype`
//! choose, `rows` ends it after so many. A line holds rows of one block. 400 says what is wrong with the question, 403 that
//! the operator does not allow it, 503 that enough others listen. The stream ends by itself after some minutes; whoever
//! wants more asks again. It is read at a bounded rate: what the lanes have beyond that is a sample, and nobody but the tap
//! notices.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{CONNECTION_LIFE, Sources, failure};
use crate::otlp::rows::Rows;
use crate::otlp::{json, slice};
use crate::telemetry::tap::{Listener, Stage, TapRefusal, Tapped};

/// Before the connection's life is over the stream ends, whole.
const LIFE: Duration = CONNECTION_LIFE.saturating_sub(Duration::from_secs(30));

/// Bytes of OTLP a second for each listener: what they become as JSON is made by the thread that serves everybody.
const BYTES_PER_SECOND: u32 = 8 << 20;

/// What somebody wants to see.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    stage: Stage,
    source: Option<String>,
    services: Vec<String>,
    sourcetypes: Vec<String>,
    rows: u64,
}

impl Wanted {
    fn parse(query: &str) -> Result<Wanted, String> {
        let (services, sourcetypes) = (Vec::new(), Vec::new());
        let mut wanted = Wanted { stage: Stage::Stored, source: None, services, sourcetypes, rows: u64::MAX };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("{value:?} is no text with percent signs"))?;
            match (key, value.as_str()) {
                ("stage", "stored") => wanted.stage = Stage::Stored,
                ("stage", "received") => wanted.stage = Stage::Received,
                ("source", _) => wanted.source = Some(value),
                ("service", _) => wanted.services.push(value),
                ("sourcetype", _) => wanted.sourcetypes.push(value),
                ("rows", _) => {
                    let rows = value.parse().ok().filter(|rows| *rows > 0);
                    wanted.rows = rows.ok_or_else(|| format!("rows={value}: a whole number from 1"))?;
                }
                _ => {
                    return Err(format!(
                        "{pair}: there are source, service, sourcetype, rows and stage=stored|received"
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

/// Text in which percent signs stand before the hexadecimal digits of a byte (RFC 3986, section 2.1).
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                u8::from_str_radix(std::str::from_utf8(&[*high, *low]).ok()?, 16).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The route.
pub(super) async fn tap(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let wanted = match Wanted::parse(query.as_deref().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(what) => return failure(StatusCode::BAD_REQUEST, &what),
    };
    let listener = match sources.tap.listen(wanted.stage, wanted.source.as_deref()) {
        Ok(listener) => listener,
        Err(refusal) => {
            let status = match refusal {
                TapRefusal::NotAllowed(_) => StatusCode::FORBIDDEN,
                TapRefusal::NoSource(..) => StatusCode::BAD_REQUEST,
                TapRefusal::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            };
            return failure(status, &refusal.to_string());
        }
    };
    let (lines, body) = mpsc::channel(1);
    tokio::spawn(pump(
        listener,
        Lines { rows: Rows::new(&wanted.services, &wanted.sourcetypes), left: wanted.rows },
        lines,
    ));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::new(Stream(body))).into_response()
}

/// Passes lines on until nobody reads them, or enough were read.
async fn pump(mut listener: Listener, mut lines: Lines, reader: mpsc::Sender<Bytes>) {
    let end = sleep(LIFE);
    tokio::pin!(end);
    while lines.left > 0 {
        let tapped = tokio::select! {
            tapped = listener.next() => tapped,
            () = reader.closed() => None,
            () = &mut end => None,
        };
        let Some(tapped) = tapped else { return };
        let bytes = u32::try_from(tapped.payload.len()).unwrap_or(u32::MAX);
        if let Some(line) = lines.of(&tapped)
            && reader.send(line).await.is_err()
        {
            return;
        }
        sleep(Duration::from_secs(1) * bytes / BYTES_PER_SECOND).await;
    }
}

/// Blocks as lines, each without the rows that are not wanted.
struct Lines {
    rows: Rows,
    left: u64,
}

impl Lines {
    /// The line of a block; none if nothing of it is wanted.
    fn of(&mut self, tapped: &Tapped) -> Option<Bytes> {
        let all = tapped.rows;
        let wanted: Vec<u32> = match self.rows.shown(tapped.signal, &tapped.payload) {
            None => (0..all).collect(),
            Some(rows) => rows.to_vec(),
        };
        let count = wanted.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if count == 0 {
            return None;
        }
        self.left -= count as u64;
        let (mut chosen, mut rest, mut line) = (Vec::new(), Vec::new(), Vec::new());
        let payload = match count == all as usize {
            true => &tapped.payload[..],
            false => {
                slice::part(tapped.signal, &tapped.payload, &wanted[..count], &mut chosen, &mut rest);
                &chosen
            }
        };
        json::encode(tapped.signal, &[payload], &mut line);
        line.push(b'\n');
        Some(line.into())
    }
}

/// Lines as the body of an answer.
struct Stream(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_say_what_is_wanted_and_wrong_ones_are_told_what_there_is() {
        let wanted =
            Wanted::parse("source=otlp&service=a%20b%2Fc&service=d&rows=7&stage=received&sourcetype=x").unwrap();
        let expected = Wanted {
            stage: Stage::Received,
            source: Some("otlp".to_owned()),
            services: vec!["a b/c".to_owned(), "d".to_owned()],
            sourcetypes: vec!["x".to_owned()],
            rows: 7,
        };
        assert_eq!(wanted, expected);
        assert_eq!(Wanted::parse("").unwrap().rows, u64::MAX);
        for query in ["rows=0", "rows=x", "stage=early", "servcie=x", "service=%", "service=%zz", "service=%ff"] {
            assert!(Wanted::parse(query).is_err(), "{query}");
        }
    }
}
