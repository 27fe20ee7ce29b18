//! OTLP/HTTP: `POST /v1/traces`, in protobuf or JSON, as the specification 1.x has it.
//!
//! A protobuf body is checked, not decoded: one that is good becomes a block's payload as it came, or is appended to the
//! open block. Refusals carry a `google.rpc.Status` in the request's encoding. Overload is 503 with Retry-After, never 500:
//! clients drop data on 500, and old SDKs drop it on 429. Metrics and logs are not taken in this version and say so.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use prost::Message;

use crate::block::{MAX_BYTES, Outlet};
use crate::otlp::check::{self, Checked, CutOut, Fault, Reason};
use crate::otlp::messages::{ExportTracePartialSuccess, ExportTraceServiceResponse, Status};
use crate::otlp::{from_json, slice};
use crate::receive::gateway::{Answer, Body, BodyError, Busy, Door, Settled};
use crate::receive::inflate::InflateError;

/// A body from this size on becomes a block of its own; a smaller one is cheaper to append than to carry alone.
const OWN_BLOCK_BYTES: usize = 16 * 1024;

/// Seconds after which a refused client should try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// The two encodings of OTLP/HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no such path; traces go to /v1/traces")]
    NoRoute,
    #[error("this version takes traces only; send them to /v1/traces")]
    TracesOnly,
    #[error("only POST is allowed here")]
    Method,
    #[error("the content type is neither application/x-protobuf nor application/json")]
    ContentType,
    #[error(transparent)]
    Body(BodyError),
    #[error("not an ExportTraceServiceRequest: {0}")]
    Malformed(#[from] Fault),
    #[error("not an ExportTraceServiceRequest: {0}")]
    MalformedJson(#[from] from_json::JsonFault),
    #[error("no room at the moment, try again")]
    Busy,
    #[error("not stored, try again")]
    NotStored,
}

impl Refused {
    /// The answer's status, and its `google.rpc.Code`.
    fn status(&self) -> (StatusCode, i32) {
        const INVALID_ARGUMENT: i32 = 3;
        const DEADLINE_EXCEEDED: i32 = 4;
        const UNIMPLEMENTED: i32 = 12;
        const UNAVAILABLE: i32 = 14;
        match self {
            Refused::NoRoute | Refused::TracesOnly => (StatusCode::NOT_FOUND, UNIMPLEMENTED),
            Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, UNIMPLEMENTED),
            Refused::ContentType | Refused::Body(BodyError::Encoding) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_ARGUMENT)
            }
            Refused::Body(
                BodyError::TooLarge(_) | BodyError::Inflate(InflateError::TooLarge(_) | InflateError::Ratio),
            )
            | Refused::Malformed(Fault { reason: Reason::TooManySpans, .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, INVALID_ARGUMENT)
            }
            Refused::Body(BodyError::TimedOut) => (StatusCode::REQUEST_TIMEOUT, DEADLINE_EXCEEDED),
            Refused::Body(BodyError::Broken | BodyError::Inflate(InflateError::Corrupt))
            | Refused::Malformed(_)
            | Refused::MalformedJson(_) => (StatusCode::BAD_REQUEST, INVALID_ARGUMENT),
            Refused::Busy | Refused::NotStored | Refused::Body(BodyError::NoRoom) => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE)
            }
        }
    }
}

impl Refused {
    /// The reason as a metric's label.
    fn label(&self) -> &'static str {
        match self {
            Refused::NoRoute => "no_route",
            Refused::TracesOnly => "traces_only",
            Refused::Method => "method",
            Refused::ContentType => "content_type",
            Refused::Body(error) => error.label(),
            Refused::Malformed(Fault { reason: Reason::TooManySpans, .. }) => "too_many_spans",
            Refused::Malformed(_) | Refused::MalformedJson(_) => "malformed",
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

impl From<Busy> for Refused {
    fn from(_: Busy) -> Refused {
        Refused::Busy
    }
}

/// Answers a request that arrived at `wall_ns`.
pub(crate) async fn answer<O: Outlet>(door: &Door<O>, request: Request<Incoming>, wall_ns: u64) -> Answer {
    let encoding = encoding(request.headers());
    match take(door, request, encoding, wall_ns).await {
        Ok(cut_out) => accepted(encoding.unwrap_or(Encoding::Json), cut_out),
        Err(refused) => {
            door.counters.refused_requests.add(refused.label(), 1);
            if matches!(refused, Refused::Busy | Refused::NotStored) {
                door.front.requests_refused.add(1);
            }
            refusal(encoding.unwrap_or(Encoding::Json), &refused)
        }
    }
}

async fn take<O: Outlet>(
    door: &Door<O>,
    request: Request<Incoming>,
    encoding: Option<Encoding>,
    wall_ns: u64,
) -> Result<Option<CutOut>, Refused> {
    let encoding = match route(&request).and_then(|()| encoding.ok_or(Refused::ContentType)) {
        Ok(encoding) => encoding,
        Err(refused) => {
            door.pass_over(request).await;
            return Err(refused);
        }
    };
    // Of JSON half as much is taken, because its protobuf has to fit beside it.
    let max_inflated_bytes = door.limits.max_inflated_bytes / if encoding == Encoding::Json { 2 } else { 1 };
    let mut body = door.read(request, max_inflated_bytes).await?;
    if encoding == Encoding::Json {
        // Text and protobuf lie beside each other for a moment; the second is not the larger.
        body.cover_beside(body.bytes().len())?;
        let mut protobuf = door.intake.buffer();
        let converted = from_json::traces(body.bytes(), &mut protobuf);
        body.replace(&door.intake, protobuf);
        converted?;
    }
    store(door, body, wall_ns).await
}

fn route(request: &Request<Incoming>) -> Result<(), Refused> {
    match (request.uri().path(), request.method()) {
        ("/v1/traces", &Method::POST) => Ok(()),
        ("/v1/traces", _) => Err(Refused::Method),
        ("/v1/metrics" | "/v1/logs", _) => Err(Refused::TracesOnly),
        _ => Err(Refused::NoRoute),
    }
}

/// Checks a body, hands it in and waits until it is durable; what was cut out of it.
async fn store<O: Outlet>(door: &Door<O>, body: Body, wall_ns: u64) -> Result<Option<CutOut>, Refused> {
    let Checked { payload, summary, mut cut_out } = check::check(body.bytes())?;
    let rejected = |spans: u32| door.front.spans_rejected.add(u64::from(spans));
    if summary.spans == 0 {
        rejected(cut_out.map_or(0, |cut_out| cut_out.spans));
        return Ok(cut_out);
    }
    let (receipt, passed) = if payload.len() > MAX_BYTES {
        let cut = slice::pieces(&payload, slice::Bounds { max_bytes: MAX_BYTES, max_spans: u32::MAX });
        cut_out = add_too_big(cut_out, cut.too_big_spans);
        drop(payload);
        body.discard(&door.intake);
        let pieces = cut.pieces.into_iter().map(|piece| (piece.payload, piece.summary)).collect();
        (door.intake.store(door.slot, wall_ns, pieces)?, summary.spans - cut.too_big_spans)
    } else if payload.len() < OWN_BLOCK_BYTES {
        let receipt = door.intake.merge(door.slot, wall_ns, &payload, summary);
        drop(payload);
        body.discard(&door.intake);
        (receipt?, summary.spans)
    } else {
        let payload = match payload {
            Cow::Owned(copy) => copy,
            Cow::Borrowed(_) => body.into_owned(&door.intake),
        };
        (door.intake.store(door.slot, wall_ns, vec![(payload, summary)])?, summary.spans)
    };
    rejected(cut_out.map_or(0, |cut_out| cut_out.spans));
    door.front.spans_passed.add(u64::from(passed));
    match receipt.settled().await {
        Settled::Durable => Ok(cut_out),
        Settled::Refused(_) | Settled::Unknown => Err(Refused::NotStored),
    }
}

fn add_too_big(cut_out: Option<CutOut>, too_big_spans: u32) -> Option<CutOut> {
    if too_big_spans == 0 {
        return cut_out;
    }
    let first = Fault { offset: 0, reason: Reason::TooBig };
    let before = cut_out.unwrap_or(CutOut { spans: 0, first });
    Some(CutOut { spans: before.spans + too_big_spans, first: before.first })
}

fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/x-protobuf") {
        Some(Encoding::Protobuf)
    } else if media_type.eq_ignore_ascii_case("application/json") {
        Some(Encoding::Json)
    } else {
        None
    }
}

fn accepted(encoding: Encoding, cut_out: Option<CutOut>) -> Answer {
    let partial_success = cut_out.map(|cut_out| ExportTracePartialSuccess {
        rejected_spans: i64::from(cut_out.spans),
        error_message: format!("{} spans rejected; the first at {}", cut_out.spans, cut_out.first),
    });
    let response = ExportTraceServiceResponse { partial_success };
    let body = match encoding {
        Encoding::Protobuf => response.encode_to_vec(),
        Encoding::Json => response.to_json(),
    };
    with_body(StatusCode::OK, encoding, body)
}

fn refusal(encoding: Encoding, refused: &Refused) -> Answer {
    let (status, code) = refused.status();
    let message = Status { code, message: refused.to_string() };
    let body = match encoding {
        Encoding::Protobuf => message.encode_to_vec(),
        Encoding::Json => message.to_json(),
    };
    let mut response = with_body(status, encoding, body);
    match refused {
        Refused::Busy | Refused::NotStored => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        Refused::Method => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    response
}

fn with_body(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Answer {
    let content_type = match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
