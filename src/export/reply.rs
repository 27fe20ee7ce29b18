//! What an HTTP status means for a request that was sent: one table for all HTTP backends.
//!
//! | status | outcome | why |
//! |---|---|---|
//! | 2xx | the protocol reads the body | |
//! | 3xx | misconfigured | redirects are not followed: they would carry credentials to wherever a peer points |
//! | 400, 422 | bad request | |
//! | 413 | too large | |
//! | 415 | bad request when compressed, else misconfigured | the encoding is the first suspect |
//! | 408, 425 | unavailable | the peer says that the same may work later |
//! | 429, and 503 with `Retry-After` | throttled | the peer is well and says when |
//! | 5xx, 1xx | unavailable | |
//! | other 4xx | misconfigured | credentials, path, method: nothing that another request would change |
//!
//! OTLP/HTTP allows a retry only after 429, 502, 503 and 504 and tells clients to give the data up otherwise. Every 5xx is
//! retried here all the same: an overloaded proxy that says 500 would empty the queue, and a repeated request that the
//! peer had taken costs it a duplicate.

use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode, header};

use super::http::Reply;
use crate::block::Outcome;
use crate::otlp::fields::{Field, Fields, Value};

/// Bytes of a reply that are shown to people.
const MESSAGE_BYTES: usize = 256;

/// What was sent, as far as the meaning of an answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) payload_bytes: usize,
    pub(super) compressed: bool,
    pub(super) wall_ns: u64,
}

impl Reply {
    /// What a status other than 2xx means; `None` for a yes, whose body the protocol reads.
    pub(super) fn refusal(&self, sent: Sent) -> Option<Outcome> {
        let message = self.message();
        let retry_after = retry_after(&self.headers, sent.wall_ns);
        let outcome = match self.status {
            200..=299 => return None,
            400 | 422 => Outcome::BadRequest { message },
            413 => Outcome::TooLarge { payload_bytes: sent.payload_bytes, message },
            415 if sent.compressed => Outcome::BadRequest { message },
            429 => Outcome::Throttled { retry_after, message },
            503 if retry_after.is_some() => Outcome::Throttled { retry_after, message },
            100..=199 | 408 | 425 | 500.. => Outcome::Unavailable { retry_after, answer_lost: false, message },
            _ => Outcome::Misconfigured { message },
        };
        Some(outcome)
    }

    /// The status and the beginning of the body on one line.
    pub(super) fn message(&self) -> String {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let said = self.said();
        let status = format!("{} {}", self.status, reason.unwrap_or("")).trim_end().to_ascii_lowercase();
        if said.is_empty() { status } else { format!("{status}: {said}") }
    }

    /// Whether the body claims to be of a type, by a word of its `Content-Type`.
    pub(super) fn is_of_type(&self, word: &str) -> bool {
        let content_type = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        content_type.is_some_and(|content_type| content_type.to_ascii_lowercase().contains(word))
    }

    /// The beginning of the body as printable text. An OTLP peer answers in protobuf: `google.rpc.Status`, whose second
    /// field is the message.
    fn said(&self) -> String {
        let status = if self.is_of_type("protobuf") { Fields::of(&self.body).bytes(2) } else { None };
        printable(status.unwrap_or(&self.body))
    }
}

/// At most the first 256 bytes as one line of text; whatever is no text or would move a terminal's cursor becomes a space.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MESSAGE_BYTES)]);
    let plain = text.replace(|character: char| character.is_control() || character == char::REPLACEMENT_CHARACTER, " ");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `Retry-After` in both of its forms: seconds, or a date. A date is compared with the reply's own `Date`, so that two
/// clocks need not agree, and only without one with ours. Bounds are set by whoever waits.
pub fn retry_after(headers: &HeaderMap, wall_ns: u64) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let date = headers.get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let now = date.unwrap_or(std::time::UNIX_EPOCH + Duration::from_nanos(wall_ns));
    Some(at.duration_since(now).unwrap_or_default())
}

/// The body of a yes that is no reply of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no reply of its protocol")]
pub struct NotAReply;

/// `partial_success` of a protobuf `Export*ServiceResponse`: items rejected and the message. `None` when there is none;
/// an error when the bytes are no such message.
pub fn partial_success(body: &[u8]) -> Result<Option<(u64, String)>, NotAReply> {
    let mut read = 0;
    let mut partial = None;
    for Field { number, value, .. } in Fields::of(body) {
        read += 1;
        match (number, value) {
            (1, Value::Bytes(bytes)) => partial = Some(bytes),
            (1, _) => return Err(NotAReply),
            _ => {}
        }
    }
    if read == 0 && !body.is_empty() {
        return Err(NotAReply);
    }
    let Some(partial) = partial else { return Ok(None) };
    let rejected = Fields::of(partial).filter_map(|Field { number, value, .. }| match value {
        Value::Varint(rejected) if number == 1 => Some(rejected),
        _ => None,
    });
    // The field is signed; a negative count rejects nothing.
    let rejected = rejected.last().unwrap_or(0).cast_signed().max(0).cast_unsigned();
    Ok(Some((rejected, printable(Fields::of(partial).bytes(2).unwrap_or(b"")))))
}

/// The same of a JSON reply. The count's name depends on the signal, so any that begins with `rejected` is taken.
pub fn partial_success_json(body: &[u8]) -> Result<Option<(u64, String)>, NotAReply> {
    let reply: serde_json::Value = serde_json::from_slice(body).map_err(|_| NotAReply)?;
    let Some(partial) = reply.get("partialSuccess").and_then(serde_json::Value::as_object) else { return Ok(None) };
    let count = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.parse::<u64>().ok(),
        other => other.as_u64(),
    };
    let rejected = partial.iter().find(|(name, _)| name.starts_with("rejected")).and_then(|(_, value)| count(value));
    let message = partial.get("errorMessage").and_then(serde_json::Value::as_str).unwrap_or("");
    Ok(Some((rejected.unwrap_or(0), printable(message.as_bytes()))))
}

#[cfg(test)]
mod tests;
