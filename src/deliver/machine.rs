//! The state machine of one destination: what to send next, and what an answer means for everything else.
//!
//! It joins the small mechanisms beside it: `gather` makes requests, `hold`, the throttle's pause, `breaker` and
//! `concurrency` say whether one may go, `budget` and `backoff` when a failed one may, `limit` and `work` how a refused
//! one is cut, `tracker` what is settled. Precedence of the gates: hold, pause, breaker, concurrency.
//!
//! Work is in exactly one place: gathered, waiting, or in flight; [`Delivery::answer`] moves it or settles it. All calls
//! come from one thread of the destination (or under its lock); nothing here blocks or reads a clock.

mod adopt;
mod answers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::breaker::{Breaker, Gate};
use super::budget::RetryBudget;
use super::concurrency::Concurrency;
use super::gather::Gather;
use super::hold::{Hold, HoldGate};
use super::letters::LetterRate;
use super::limit::SizeLimit;
use super::tracker::Tracker;
use super::work::Work;
use super::{Action, BlockOffer, BreakerState, HoldReason, Outcome, Part, Request, RequestId, Settlement};
use crate::config::{Batch, Compression, Retry};

/// Blocks that may be unsettled at once, so that a stuck span cannot grow the tracker without end.
const MOST_BLOCKS: usize = 16 * 1024;

/// From this opening of the breaker on a probe is half of the oldest request, and half of that the next time: a peer that
/// breaks off every large request looks like one that is down, and only a smaller one can tell. Halves are joined later.
const SMALLER_PROBE_OPENINGS: u32 = 4;

/// The delivery of one destination; a reload that changes its settings begins a new generation ([`Delivery::adopt`]).
#[derive(Debug)]
pub struct Delivery {
    retry: Retry,
    /// Requests go out compressed: configured, and not found out to be beyond the peer.
    compressed: bool,
    compression_given_up: bool,
    window_bytes: usize,
    rng: Rng,
    next_id: u64,
    gather: Gather,
    waiting: BTreeMap<(u64, u32), Work>,
    in_flight: Vec<Flight>,
    tracker: Tracker,
    hold: Option<Hold>,
    paused_until: Duration,
    throttles: u32,
    breaker: Breaker,
    concurrency: Concurrency,
    budget: RetryBudget,
    limit: SizeLimit,
    letters: LetterRate,
    /// A request was accepted in this generation: from now on a refusal is about the data.
    succeeded: bool,
    accepted_at: Duration,
    abandoned_below: u64,
    last_error: Option<LastError>,
}

/// A request on its way.
#[derive(Debug)]
struct Flight {
    id: RequestId,
    work: Work,
    uncompressed: bool,
    sent_at: Duration,
    role: Role,
}

/// Why a request was allowed to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ordinary,
    BreakerProbe,
    HoldProbe,
}

/// The last thing that went wrong, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When (monotonic).
    pub at: Duration,
    /// What the peer said or what failed.
    pub message: String,
}

/// What metrics and health show of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The breaker.
    pub breaker: BreakerState,
    /// Why and since when (monotonic) the destination is held, if it is.
    pub held: Option<(HoldReason, Duration)>,
    /// The peer asked for a pause until then (monotonic), if it did and it is not over.
    pub paused_until: Option<Duration>,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that may be in flight.
    pub concurrency: usize,
    /// Requests that wait to be sent again.
    pub waiting: usize,
    /// Spans offered and not settled.
    pub unsettled_spans: u64,
    /// Payload bytes that a request may hold: configured, or learned from the peer.
    pub request_limit_bytes: usize,
    /// Compression is configured, but the peer understands requests only without.
    pub compression_given_up: bool,
}

impl Delivery {
    /// A destination without blocks. `seed` makes every random choice repeatable.
    #[must_use]
    pub fn new(retry: Retry, batch: Batch, compression: Compression, seed: u64) -> Delivery {
        Delivery {
            retry,
            compressed: compression != Compression::None,
            compression_given_up: false,
            window_bytes: batch.max_request_bytes.saturating_mul(2 * retry.max_concurrency.max(2)),
            rng: Rng::with_seed(seed),
            next_id: 0,
            gather: Gather::new(batch),
            waiting: BTreeMap::new(),
            in_flight: Vec::new(),
            tracker: Tracker::default(),
            hold: None,
            paused_until: Duration::ZERO,
            throttles: 0,
            breaker: Breaker::new(),
            concurrency: Concurrency::new(retry.max_concurrency.max(1)),
            budget: RetryBudget::new(),
            limit: SizeLimit::new(batch.max_request_bytes.max(1)),
            letters: LetterRate::new(),
            succeeded: false,
            accepted_at: Duration::ZERO,
            abandoned_below: 0,
            last_error: None,
        }
    }

    /// Whether the driver should offer more blocks now. It may offer more than that; this only bounds what is unsettled
    /// to twice the requests that can be in flight.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.tracker.bytes() < self.window_bytes && self.tracker.blocks() < MOST_BLOCKS
    }

    /// Takes a block on. The index returned names it in parts; indexes are dense and ascending from 0.
    pub fn offer(&mut self, offer: BlockOffer, now: Duration) -> u64 {
        let BlockOffer { signal, spans, bytes } = offer;
        let block = self.tracker.offer(spans, bytes);
        if spans > 0 {
            self.gather.push(signal, Part { block, first: 0, end: spans, of: spans, bytes }, now);
        }
        block
    }

    /// What to do next. Call it until it is not [`Action::Send`], after every offer and answer and when a wait is over.
    pub fn poll(&mut self, now: Duration) -> Action {
        if let Some(hold) = &self.hold {
            return match hold.gate(now) {
                HoldGate::Shut(until) => Action::WaitUntil(until),
                HoldGate::AwaitProbe => Action::Idle,
                HoldGate::Probe => self.send_hold_probe(now),
            };
        }
        if now < self.paused_until {
            return Action::WaitUntil(self.paused_until);
        }
        match self.breaker.gate(now) {
            Gate::Shut(until) => Action::WaitUntil(until),
            Gate::AwaitProbe => Action::Idle,
            Gate::Probe => self.send_breaker_probe(now),
            Gate::Open if self.in_flight.len() >= self.concurrency.limit() => Action::Idle,
            Gate::Open => self.send_ordinary(now),
        }
    }

    /// What the answer to request `id` settles. Panics on an id that is not in flight.
    pub fn answer(&mut self, id: RequestId, outcome: Outcome, now: Duration) -> Settlement {
        let at = self.in_flight.iter().position(|flight| flight.id == id).expect("an answer belongs to a request");
        let in_flight = self.in_flight.len();
        let flight = self.in_flight.swap_remove(at);
        if !outcome.message().is_empty() {
            self.last_error = Some(LastError { at: now, message: outcome.message().to_owned() });
        }
        let (refused, message) = match outcome {
            Outcome::Accepted => (0, None),
            Outcome::NothingToSend => return self.settled_unsent(flight, now),
            Outcome::AcceptedPartially { refused_spans, message } => (refused_spans, Some(message)),
            other => return self.not_accepted(flight, other, now),
        };
        self.concurrency.accepted(now.saturating_sub(flight.sent_at), in_flight);
        self.accepted(flight, refused, message, now)
    }

    /// Every block below this index is settled: where a cursor may stand.
    #[must_use]
    pub fn frontier(&self) -> u64 {
        self.tracker.frontier()
    }

    /// From now on requests are due at once, however small: the process stops.
    pub fn drain(&mut self) {
        self.gather.drain();
    }

    /// Gives up every span of the blocks below `block`, because the driver's cursor jumps there, and says how many spans
    /// that settled now. What is in flight is settled by its answer: delivered, or [`Settlement::Abandoned`].
    pub fn abandon(&mut self, block: u64) -> u64 {
        self.abandoned_below = self.abandoned_below.max(block);
        let before = self.tracker.spans();
        self.gather.abandon(block, |part| self.tracker.settle(part));
        let concerned: Vec<(u64, u32)> = self.waiting.range(..(block, 0)).map(|(key, _)| *key).collect();
        for key in concerned {
            let work = self.waiting.remove(&key).expect("the key was just read");
            let (kept, given_up) = self.part_abandoned(work);
            given_up.iter().for_each(|part| self.tracker.settle(part));
            if let Some(work) = kept {
                self.waiting.insert(work.key(), work);
            }
        }
        before - self.tracker.spans()
    }

    /// A picture for metrics and health.
    #[must_use]
    pub fn state(&self, now: Duration) -> State {
        State {
            breaker: self.breaker.state(),
            held: self.hold.as_ref().map(|hold| (hold.reason, hold.since)),
            paused_until: (now < self.paused_until).then_some(self.paused_until),
            last_error: self.last_error.clone(),
            in_flight: self.in_flight.len(),
            concurrency: self.concurrency.limit(),
            waiting: self.waiting.len(),
            unsettled_spans: self.tracker.spans(),
            request_limit_bytes: self.limit.bytes(),
            compression_given_up: self.compression_given_up,
        }
    }
}

/// Sending.
impl Delivery {
    fn send_ordinary(&mut self, now: Duration) -> Action {
        let retries = self.budget.allows(now);
        let may_go = |work: &Work| work.not_before <= now && (retries || !work.costs_budget);
        let waiting = self.waiting.iter().find(|(_, work)| may_go(work)).map(|(key, _)| *key);
        if let Some(work) = self.take_older(waiting, now) {
            let work = self.with_company(work, now);
            return self.send(work, Role::Ordinary, now);
        }
        let ask_again = self.budget.ask_again(now);
        let ready_at = |work: &Work| {
            if retries || !work.costs_budget { work.not_before } else { work.not_before.max(ask_again) }
        };
        let next = self.waiting.values().map(ready_at).chain(self.gather.due_at()).min();
        next.map_or(Action::Idle, Action::WaitUntil)
    }

    fn send_breaker_probe(&mut self, now: Duration) -> Action {
        let oldest = self.waiting.keys().next().copied();
        let Some(mut work) = self.take_older(oldest, now) else {
            return self.gather.due_at().map_or(Action::Idle, Action::WaitUntil);
        };
        if self.breaker.openings() >= SMALLER_PROBE_OPENINGS && work.spans > 1 {
            let [probe, rest] = work.halve();
            self.waiting.insert(rest.key(), rest);
            work = probe;
        }
        self.breaker.probe_sent();
        self.send(work, Role::BreakerProbe, now)
    }

    /// A misconfigured destination is asked with its oldest request, one that refuses data with a single span.
    fn send_hold_probe(&mut self, now: Duration) -> Action {
        let hold = self.hold.as_ref().expect("only a held destination is probed so");
        let next_repetition = hold.next_repetition();
        let work = if hold.reason == HoldReason::Misconfigured {
            self.take_older(self.waiting.keys().next().copied(), now)
        } else {
            self.take_least_suspect_span(next_repetition, now)
        };
        if let Some(work) = work {
            self.hold.as_mut().expect("it was just read").probe_sent();
            return self.send(work, Role::HoldProbe, now);
        }
        let repetition = if self.waiting.is_empty() { None } else { Some(next_repetition) };
        repetition.into_iter().chain(self.gather.due_at()).min().map_or(Action::Idle, Action::WaitUntil)
    }

    /// One span that has been refused least. Any request of thousands of spans may hold a bad one, so only a single span
    /// tells a peer that refuses some data from one that refuses all; once it is accepted the bad ones can be found.
    fn take_least_suspect_span(&mut self, next_repetition: Duration, now: Duration) -> Option<Work> {
        let least = self.waiting.values().min_by_key(|work| (work.refusals, work.key()));
        let least = least.map(|work| (work.refusals, work.spans, work.key()));
        let waiting = match least {
            Some((0, _, key)) => Some(key),
            _ => None,
        };
        // A limit of one byte takes one span.
        let fresh = if waiting.is_none() { self.gather.take(1, now) } else { None };
        if fresh.is_some() {
            return fresh;
        }
        let repeated = least.filter(|(_, spans, _)| *spans > 1 || now >= next_repetition).map(|(.., key)| key);
        let work = self.waiting.remove(&waiting.or(repeated)?)?;
        let (span, rest) = work.first_span();
        if let Some(rest) = rest {
            self.waiting.insert(rest.key(), rest);
        }
        Some(span)
    }

    /// Takes the waiting work under `key` or the fresh request that is due, whichever is older.
    fn take_older(&mut self, key: Option<(u64, u32)>, now: Duration) -> Option<Work> {
        let limit = self.limit.bytes();
        match (key, self.gather.due(limit, now)) {
            (Some(key), fresh) if fresh.is_none_or(|fresh| key < fresh) => self.waiting.remove(&key),
            _ => self.gather.take(limit, now),
        }
    }

    /// Failed requests that wait are joined to one as far as it can hold them: the budget counts requests, so after a bad
    /// time fewer and fuller ones get through sooner.
    fn with_company(&mut self, work: Work, now: Duration) -> Work {
        let (most_bytes, most_spans) = (self.limit.bytes(), self.gather.most_spans());
        let (mut bytes, mut spans) = (work.bytes, work.spans);
        let mut fits = |other: &Work| {
            let fits = bytes + other.bytes <= most_bytes && spans + other.spans <= most_spans;
            let joins = fits && other.not_before <= now && work.can_join(other);
            if joins {
                (bytes, spans) = (bytes + other.bytes, spans + other.spans);
            }
            joins
        };
        let company: Vec<(u64, u32)> =
            self.waiting.range(work.key()..).filter(|(_, other)| fits(other)).map(|(key, _)| *key).collect();
        if company.is_empty() {
            return work;
        }
        let others = company.iter().map(|key| self.waiting.remove(key).expect("the key was just read"));
        let pieces: Vec<Work> = std::iter::once(work).chain(others).collect();
        Work::joined(&pieces)
    }

    fn send(&mut self, mut work: Work, role: Role, now: Duration) -> Action {
        if !work.attempted {
            self.budget.first_attempt(now);
        } else if work.costs_budget && role == Role::Ordinary {
            self.budget.retry(now);
        }
        work.attempted = true;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let uncompressed = work.uncompressed || !self.compressed;
        let request = Request {
            id,
            signal: work.signal,
            parts: Arc::clone(&work.parts),
            spans: work.spans,
            bytes: work.bytes,
            uncompressed,
            answer_lost_before: work.answer_lost,
        };
        self.in_flight.push(Flight { id, work, uncompressed, sent_at: now, role });
        Action::Send(request)
    }
}
