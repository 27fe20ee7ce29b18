//! The Elasticsearch door: `_bulk`, as uberAgent itself sends, and the probes that clients make before it.
//!
//! Documents are uberAgent's rows and go to the source's encoder; nothing is indexed. The answer is Elasticsearch's, item
//! by item: 201 for a row that is durable (or understood and not wanted), 400 for one that is unusable, 429 for one for
//! which there was no room in time: a request larger than the ring goes in piece by piece. The action lines of a request
//! are read before its first document is decoded, so that a malformed one refuses the request with nothing stored. `index`
//! and `create` are understood; ids are echoed, never used.

pub mod bulk;
mod probe;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};

use crate::block::{Outlet, Refusal};
use crate::receive::gateway::{Answer, Body, BodyError, Door, Settled};
use crate::receive::inflate::InflateError;
use crate::sys::clock;
use crate::telemetry::ledger::Front;
use bulk::{Counts, Items, Unread};

/// Clients from 7.14 on talk to nothing that does not say this.
const PRODUCT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-elastic-product"), HeaderValue::from_static("Elasticsearch"));

/// Seconds after which a refused client should try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// When a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Unix nanoseconds.
    pub(crate) wall_ns: u64,
    /// For `took`.
    pub(crate) monotonic: Duration,
}

/// Why a request is not taken as a whole.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no handler found for this path and method")]
    NoRoute,
    #[error(transparent)]
    Body(BodyError),
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("no room at the moment, try again")]
    Busy,
    #[error("not stored, try again")]
    NotStored,
}

impl Refused {
    /// The answer's status, and Elasticsearch's name for what happened.
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Refused::NoRoute => (StatusCode::NOT_FOUND, "invalid_index_name_exception"),
            Refused::Unread(Unread::Malformed { .. }) => (StatusCode::BAD_REQUEST, "illegal_argument_exception"),
            Refused::Unread(Unread::TooMany) => (StatusCode::PAYLOAD_TOO_LARGE, "content_too_long_exception"),
            Refused::Busy => (StatusCode::TOO_MANY_REQUESTS, "es_rejected_execution_exception"),
            Refused::NotStored => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_shards_exception"),
            Refused::Body(error) => match error {
                BodyError::TooLarge(_) | BodyError::Inflate(InflateError::TooLarge(_) | InflateError::Ratio) => {
                    (StatusCode::PAYLOAD_TOO_LARGE, "content_too_long_exception")
                }
                BodyError::NoRoom => Refused::Busy.status(),
                BodyError::TimedOut => (StatusCode::REQUEST_TIMEOUT, "timeout_exception"),
                BodyError::Encoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type_header_exception"),
                BodyError::Broken | BodyError::Inflate(InflateError::Corrupt) => {
                    (StatusCode::BAD_REQUEST, "parse_exception")
                }
            },
        }
    }
}

impl Refused {
    /// The reason as a metric's label.
    fn label(&self) -> &'static str {
        match self {
            Refused::NoRoute => "no_route",
            Refused::Body(error) => error.label(),
            Refused::Unread(Unread::Malformed { .. }) => "malformed",
            Refused::Unread(Unread::TooMany) => "too_many_items",
            Refused::Busy => "no_room",
            Refused::NotStored => "not_stored",
        }
    }
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Refused {
        match error {
            BodyError::NoRoom => Refused::Busy,
            error => Refused::Body(error),
        }
    }
}

/// Answers a request.
pub(crate) async fn answer<O: Outlet>(door: &Door<O>, request: Request<Incoming>, arrival: Arrival) -> Answer {
    match take(door, request, arrival).await {
        Ok(body) => json(StatusCode::OK, body),
        Err(refused) => refusal(door, &refused),
    }
}

async fn take<O: Outlet>(door: &Door<O>, request: Request<Incoming>, arrival: Arrival) -> Result<Vec<u8>, Refused> {
    let path = request.uri().path().to_owned();
    let may_be_bulk = matches!(*request.method(), Method::POST | Method::PUT);
    let Some(index) = bulk_index(&path).filter(|_| may_be_bulk) else {
        let answer = probe::answer(request.method(), &path).ok_or(Refused::NoRoute);
        // The templates and pipelines that installers put are read and not kept.
        door.read(request, door.limits.max_inflated_bytes).await?.discard(&door.intake);
        return answer;
    };
    let mut body = door.read(request, door.limits.max_inflated_bytes).await?;
    let result = match items(&mut body) {
        Ok(items) => take_bulk(door, Bulk { index, items, body: body.bytes_mut(&door.intake), arrival }).await,
        Err(refused) => Err(refused),
    };
    body.discard(&door.intake);
    result
}

/// Reads a body's actions. What they and their answer take is counted beside the body.
fn items(body: &mut Body) -> Result<Items, Refused> {
    let (now_bytes, alone_bytes) = body.room_beside();
    let items = match Items::read(body.bytes(), now_bytes) {
        Err(Unread::TooMany) if now_bytes < alone_bytes => return Err(Refused::Busy),
        items => items?,
    };
    body.cover_beside(items.cost_bytes())?;
    Ok(items)
}

/// The index (or the prefix that uberAgent's configuration put there) of a bulk path; empty when there is none.
fn bulk_index(path: &str) -> Option<&str> {
    let prefix = path.trim_end_matches('/').strip_suffix("/_bulk")?;
    Some(prefix.trim_start_matches('/').rsplit('/').next().unwrap_or_default())
}

/// A bulk request.
struct Bulk<'a> {
    index: &'a str,
    items: Items,
    body: &'a mut [u8],
    arrival: Arrival,
}

/// Takes the rows in as many goes as there is room for, waiting for room as long as a body may take, and waits until all
/// that was taken is durable.
async fn take_bulk<O: Outlet>(door: &Door<O>, mut bulk: Bulk<'_>) -> Result<Vec<u8>, Refused> {
    let patient_until = tokio::time::Instant::now() + door.limits.body_timeout;
    let mut receipts = Vec::new();
    while let Some(next_bytes) = bulk.items.next_bytes() {
        let room = door.intake.room_for_row(next_bytes);
        if tokio::time::timeout_at(patient_until, room).await.is_err() {
            if receipts.is_empty() {
                return Err(Refused::Busy);
            }
            count(&door.front, bulk.items.refuse_rest());
            break;
        }
        let received_ns = bulk.arrival.wall_ns;
        let decode = |encoder: &mut _, room_bytes| bulk.items.decode(bulk.body, encoder, room_bytes, received_ns);
        let Ok((counts, receipt)) = door.intake.rows(door.slot, decode) else { continue };
        count(&door.front, counts);
        receipts.push(receipt);
        // The others of this thread, and the blocks of these rows, come first.
        tokio::task::yield_now().await;
    }
    for receipt in receipts {
        match receipt.settled().await {
            Settled::Durable => {}
            Settled::Refused(Refusal::Full) => return Err(Refused::Busy),
            Settled::Refused(Refusal::Storage | Refusal::Draining | Refusal::Transforms) | Settled::Unknown => {
                return Err(Refused::NotStored);
            }
        }
    }
    let took = clock::monotonic().saturating_sub(bulk.arrival.monotonic);
    Ok(bulk.items.answer(bulk.index, took, bulk.arrival.wall_ns))
}

fn count(front: &Front, counts: Counts) {
    front.received.add(counts.encoded + counts.filtered + counts.rejected);
    front.encoded.add(counts.encoded);
    front.filtered.add(counts.filtered);
    front.rejected.add(counts.rejected);
    front.fields_dropped.add(counts.fields_dropped);
}

fn refusal<O: Outlet>(door: &Door<O>, refused: &Refused) -> Answer {
    let (status, kind) = refused.status();
    door.counters.refused_requests.add(refused.label(), 1);
    let reason = refused.to_string();
    let cause = serde_json::json!({ "type": kind, "reason": reason });
    let body = serde_json::json!({
        "error": { "root_cause": [cause], "type": kind, "reason": reason },
        "status": status.as_u16(),
    });
    let mut response = json(status, body.to_string().into_bytes());
    if matches!(refused, Refused::Busy | Refused::NotStored) {
        door.front.requests_refused.add(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (name, value) = PRODUCT;
    headers.insert(name, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bulk_path_may_have_an_index_or_a_prefix() {
        assert_eq!(bulk_index("/_bulk"), Some(""));
        assert_eq!(bulk_index("/_bulk/"), Some(""));
        assert_eq!(bulk_index("/uberagent/_bulk"), Some("uberagent"));
        assert_eq!(bulk_index("/prefix/uberagent/_bulk"), Some("uberagent"));
        assert_eq!(bulk_index("/_bulky"), None);
        assert_eq!(bulk_index("/"), None);
    }
}
