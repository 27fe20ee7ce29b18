//! Exporters: one file a protocol; each only says how one request is sent and what the answer means.
//!
//! An exporter belongs to one sender thread of its destination and blocks it: one request, one answer, one keep-alive
//! connection. When to send, what to do with a failure and what is settled is decided elsewhere, by delivery; the shared
//! word is [`Outcome`]. Nothing here retries, follows a redirect, or reads more of a reply than its cap.

#[cfg(doc)]
use crate::block::Outcome;
use crate::block::Signal;

/// One request to a backend: payloads of whole blocks (or cut ones) of one signal.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The signal of all payloads.
    pub signal: Signal,
    /// OTLP protobuf bytes; concatenated they are one export request.
    pub payloads: &'a [&'a [u8]],
    /// Spans (or log records) in all payloads.
    pub spans: u64,
    /// Send without compression although the destination is configured with one.
    pub uncompressed: bool,
}
