//! What a destination's answer to one request means: the word between an exporter and the delivery state machine.
//!
//! An exporter knows a protocol and says which of these an answer was; delivery knows none and decides what follows.
//! The two are strangers, so their one shared word lives on the ground. The variants are named for what follows, and
//! every `message` is for people: lower case, the status first, at most the first 256 bytes of a reply, never a secret.

use std::time::Duration;

/// The meaning of one answer, or of its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every span was taken.
    Accepted,
    /// Nothing in the request concerns the peer, so it was not sent: settled, but no sign of the peer's health.
    NothingToSend,
    /// Taken, but for some spans that the peer refused for good: never sent again (OTLP `partial_success`).
    AcceptedPartially {
        /// Spans refused; 0 with a message is a warning.
        refused_spans: u64,
        /// What the peer said.
        message: String,
    },
    /// The peer is well and asks for less: wait, then send the same again.
    Throttled {
        /// How long the peer asked to wait, if it said so.
        retry_after: Option<Duration>,
        /// What the peer said.
        message: String,
    },
    /// The peer cannot answer now: a server error, a timeout, a reset, no address.
    Unavailable {
        /// How long the peer asked to wait, if it said so.
        retry_after: Option<Duration>,
        /// The peer may have taken the request: it was sent whole and the answer never came.
        answer_lost: bool,
        /// What went wrong.
        message: String,
    },
    /// The request is too large for the peer: send less at once.
    TooLarge {
        /// Payload bytes of the request, before compression.
        payload_bytes: usize,
        /// What the peer said.
        message: String,
    },
    /// The peer does not understand the request and will not next time: something in it is wrong.
    BadRequest {
        /// What the peer said.
        message: String,
    },
    /// It could not be written in the peer's format, so it was not sent: with less in it, what is left may be.
    Unencodable {
        /// What went wrong.
        message: String,
    },
    /// No request can succeed until somebody changes a configuration: credentials, path, certificate, redirect.
    Misconfigured {
        /// What went wrong.
        message: String,
    },
}

impl Outcome {
    /// What the peer said or what went wrong; empty when there is nothing to say.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Outcome::Accepted | Outcome::NothingToSend => "",
            Outcome::AcceptedPartially { message, .. }
            | Outcome::Throttled { message, .. }
            | Outcome::Unavailable { message, .. }
            | Outcome::TooLarge { message, .. }
            | Outcome::BadRequest { message }
            | Outcome::Unencodable { message }
            | Outcome::Misconfigured { message } => message,
        }
    }
}
