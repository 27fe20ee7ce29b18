//! Delivery: everything between "this block is in the log" and "this block is settled", for one destination.
//!
//! [`Delivery`] is sans-I/O: it is told of blocks ([`Delivery::offer`]) and answers ([`Delivery::answer`]), and says
//! what to do next ([`Delivery::poll`]). Time and randomness are arguments. It knows nothing of sockets, logs, encodings
//! or threads; a request is a list of whole blocks, or of span ranges of blocks once one had to be cut.
//!
//! ```text
//!  offer ─► gather ──────────────► request ─► answer ─┬─ accepted ───────────► settled ─► frontier
//!           (send point, caps)        ▲               ├─ throttled ── pause ──┐
//!                                     │               ├─ unavailable ─ back-off, breaker, budget
//!                                     │               ├─ too large, bad ─ split ─ one span ─► dead letter
//!                                     │               └─ misconfigured ─ HOLD, probe every 60 s
//!                                     └────────────── waiting ◄───────────────┘
//! ```
//!
//! Invariants: every span offered is settled exactly once (delivered, refused by the peer, dead-lettered, or abandoned
//! by the driver's order); nothing is ever given up because of time; [`Delivery::frontier`] never passes an unsettled
//! span, so a cursor committed there loses nothing. A span may be *sent* more than once: at least once is the promise.

mod backoff;
mod breaker;
mod budget;
mod concurrency;
mod gather;
mod hold;
mod letters;
mod limit;
mod machine;
mod tracker;
mod window;
mod work;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use crate::block::Outcome;
use crate::block::Signal;
pub use breaker::BreakerState;
pub use hold::HoldReason;
pub use machine::{Delivery, State};

/// Names one attempt to send: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What the driver says of a block when it offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockOffer {
    /// The payload's signal: requests hold one signal only.
    pub signal: Signal,
    /// Spans in the payload; a block without any is settled at once.
    pub spans: u32,
    /// Bytes of the payload.
    pub bytes: usize,
}

/// The spans `first..end` of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The block: the index that [`Delivery::offer`] returned.
    pub block: u64,
    /// First span of the range.
    pub first: u32,
    /// One past the last span of the range; always greater than `first`.
    pub end: u32,
    /// Spans in the whole block.
    pub of: u32,
    /// Payload bytes: exact for a whole block, a share by spans for a range of one.
    pub bytes: usize,
}

impl Part {
    /// Whether the part is the whole block, whose payload can be sent as it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.first == 0 && self.end == self.of
    }

    /// Spans in the range.
    #[must_use]
    pub fn spans(&self) -> u64 {
        u64::from(self.end - self.first)
    }
}

/// One attempt to send: what the driver hands to an exporter.
#[derive(Clone, Debug)]
pub struct Request {
    /// To be given back with the answer.
    pub id: RequestId,
    /// The signal of all parts.
    pub signal: Signal,
    /// What to send, in order; never empty. The payloads concatenated are the body.
    pub parts: Arc<[Part]>,
    /// Spans in all parts.
    pub spans: u64,
    /// Payload bytes of all parts, exact unless a part is a range.
    pub bytes: usize,
    /// Send without compression although the destination is configured with one.
    pub uncompressed: bool,
    /// These spans may have been taken before: an answer to them was lost.
    pub answer_lost_before: bool,
}

/// What the driver does next.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this now; then poll again, more may follow.
    Send(Request),
    /// Nothing until this time (monotonic, later than `now`), an offer or an answer.
    WaitUntil(std::time::Duration),
    /// Nothing until an offer or an answer.
    Idle,
}

/// What an answer settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Nothing: the spans will be sent again.
    Nothing,
    /// The peer took the parts, but for some spans that it refused for good.
    Delivered {
        /// What is settled.
        parts: Arc<[Part]>,
        /// Spans that the peer took.
        delivered: u64,
        /// Spans that it refused; which ones, no protocol says.
        refused_by_peer: u64,
        /// Spans that it may now have twice, because an earlier answer was lost: outside the balance.
        redelivered: u64,
        /// What the peer said, when it said anything.
        message: Option<String>,
    },
    /// One span that the peer refuses for good: keep it aside before the cursor moves past it.
    DeadLetter {
        /// The span.
        part: Part,
        /// Why: one of a small fixed set of words, a metric's label.
        reason: &'static str,
        /// What the peer said.
        reply: String,
    },
    /// The driver gave these up while they were in flight ([`Delivery::abandon`]) and the peer did not take them.
    Abandoned {
        /// What is settled.
        parts: Arc<[Part]>,
        /// Spans in them.
        spans: u64,
    },
}
