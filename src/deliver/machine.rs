//! The state machine of one destination: what to send next, and what an answer means for everything else.
//!
//! It joins the small mechanisms beside it: `gather` makes requests, `hold`, the throttle's pause, `breaker` and
//! `concurrency` say whether one may go, `budget` and `backoff` when a failed one may, `limit` and `work` how a refused
//! one is cut, `tracker` what is settled. Precedence of the gates: hold, pause, breaker, concurrency.
//!
//! Work is in exactly one place: gathered, waiting, or in flight; [`Delivery::answer`] moves it or settles it. All calls
//! come from one thread of the destination (or under its lock); nothing here blocks or reads a clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::backoff::{equal_jitter, full_jitter, retry_after};
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

/// The delivery of one destination in one configuration generation: a reload makes a new one.
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
        match self.take_older(oldest, now) {
            Some(work) => {
                self.breaker.probe_sent();
                self.send(work, Role::BreakerProbe, now)
            }
            None => self.gather.due_at().map_or(Action::Idle, Action::WaitUntil),
        }
    }

    /// A misconfigured destination is asked with its oldest request. Where the data is in doubt, with what the peer has
    /// refused least: as soon as one request is accepted, the others are known to be the poison.
    fn send_hold_probe(&mut self, now: Duration) -> Action {
        let misconfigured = self.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::Misconfigured);
        let least_refused = self.waiting.values().map(|work| (work.refusals, work.key())).min();
        let work = match least_refused {
            Some((refusals, _)) if refusals > 0 && !misconfigured => self.gather.take(self.limit.bytes(), now),
            _ => None,
        };
        let key = if misconfigured { self.waiting.keys().next().copied() } else { least_refused.map(|(_, key)| key) };
        match work.or_else(|| self.take_older(key, now)) {
            Some(work) => {
                self.hold.as_mut().expect("only a held destination is probed so").probe_sent();
                self.send(work, Role::HoldProbe, now)
            }
            None => self.gather.due_at().map_or(Action::Idle, Action::WaitUntil),
        }
    }

    /// Takes the waiting work under `key` or the fresh request that is due, whichever is older.
    fn take_older(&mut self, key: Option<(u64, u32)>, now: Duration) -> Option<Work> {
        let limit = self.limit.bytes();
        match (key, self.gather.due(limit, now)) {
            (Some(key), fresh) if fresh.is_none_or(|fresh| key < fresh) => self.waiting.remove(&key),
            _ => self.gather.take(limit, now),
        }
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

/// Answers.
impl Delivery {
    fn accepted(&mut self, flight: Flight, refused: u64, message: Option<String>, now: Duration) -> Settlement {
        let Flight { work, role, uncompressed, .. } = flight;
        match role {
            Role::Ordinary => self.breaker.succeeded(now),
            Role::BreakerProbe => self.breaker.probe_succeeded(),
            Role::HoldProbe => {}
        }
        let doubt_is_over = |hold: &Hold| role == Role::HoldProbe || hold.reason == HoldReason::NothingAccepted;
        self.hold.take_if(|hold| doubt_is_over(hold));
        if self.compressed && uncompressed && work.refusals == 0 {
            // The same bytes were refused compressed and taken plain: the peer cannot decompress.
            self.compressed = false;
            self.compression_given_up = true;
        }
        self.succeeded = true;
        self.throttles = 0;
        self.limit.accepted(work.bytes);
        self.letters.delivered(work.spans, now);
        work.parts.iter().for_each(|part| self.tracker.settle(part));
        let refused_by_peer = refused.min(work.spans);
        let delivered = work.spans - refused_by_peer;
        let redelivered = if work.answer_lost { delivered } else { 0 };
        Settlement::Delivered { parts: work.parts, delivered, refused_by_peer, redelivered, message }
    }

    fn not_accepted(&mut self, flight: Flight, outcome: Outcome, now: Duration) -> Settlement {
        let Flight { work, role, sent_at, uncompressed, .. } = flight;
        if role == Role::BreakerProbe && !matches!(outcome, Outcome::Unavailable { .. }) {
            self.breaker.probe_undecided();
        }
        if matches!(outcome, Outcome::Throttled { .. } | Outcome::Unavailable { .. }) {
            self.concurrency.congested(sent_at, now);
        }
        let (kept, given_up) = self.part_abandoned(work);
        given_up.iter().for_each(|part| self.tracker.settle(part));
        let mut settlement = match outcome {
            Outcome::Accepted | Outcome::AcceptedPartially { .. } => unreachable!("accepted answers go elsewhere"),
            Outcome::Throttled { retry_after, .. } => self.throttled(kept, role, retry_after, now),
            Outcome::Unavailable { retry_after, answer_lost, .. } => {
                let kept = kept.map(|work| Work { answer_lost: work.answer_lost || answer_lost, ..work });
                self.unavailable(kept, role, retry_after, now)
            }
            Outcome::TooLarge { payload_bytes, message } => self.too_large(kept, role, payload_bytes, message, now),
            Outcome::BadRequest { message } if uncompressed => self.refused(kept, role, message, now),
            Outcome::BadRequest { .. } => self.repeat_uncompressed(kept, role, now),
            Outcome::Misconfigured { .. } => self.misconfigured(kept, role, now),
        };
        if !given_up.is_empty() {
            debug_assert_eq!(settlement, Settlement::Nothing, "a single span is either given up or a dead letter");
            let spans = given_up.iter().map(Part::spans).sum();
            settlement = Settlement::Abandoned { parts: given_up.into(), spans };
        }
        settlement
    }

    /// The peer asked for less: the whole destination pauses, and the same request goes again.
    fn throttled(&mut self, work: Option<Work>, role: Role, asked: Option<Duration>, now: Duration) -> Settlement {
        let Retry { initial, max, .. } = self.retry;
        let pause = match asked {
            Some(asked) => retry_after(asked, &mut self.rng),
            None => equal_jitter(initial, max, self.throttles, &mut self.rng),
        };
        self.throttles = self.throttles.saturating_add(1);
        self.paused_until = self.paused_until.max(now + pause);
        self.hold_probe_undecided(role, now + pause);
        self.wait(work.map(|work| Work { not_before: now, costs_budget: false, ..work }))
    }

    fn unavailable(&mut self, work: Option<Work>, role: Role, asked: Option<Duration>, now: Duration) -> Settlement {
        match role {
            Role::Ordinary => self.breaker.failed(now, &mut self.rng),
            Role::BreakerProbe => self.breaker.probe_failed(now, &mut self.rng),
            Role::HoldProbe => self.hold_probe_refused(now),
        }
        if let Some(asked) = asked {
            self.paused_until = self.paused_until.max(now + retry_after(asked, &mut self.rng));
        }
        let Retry { initial, max, .. } = self.retry;
        let work = work.map(|work| {
            let not_before = now + full_jitter(initial, max, work.failures, &mut self.rng);
            Work { failures: work.failures.saturating_add(1), not_before, costs_budget: true, ..work }
        });
        self.wait(work)
    }

    fn too_large(
        &mut self,
        work: Option<Work>,
        role: Role,
        payload_bytes: usize,
        message: String,
        now: Duration,
    ) -> Settlement {
        self.limit.refused(payload_bytes);
        match work {
            Some(work) if work.spans == 1 => self.give_up_span(work, role, "too_large", message, now),
            Some(work) => {
                self.hold_probe_undecided(role, now);
                self.split(work, now)
            }
            None => Settlement::Nothing,
        }
    }

    /// A refused request is first repeated as it is without compression: some proxies break compressed bodies.
    fn repeat_uncompressed(&mut self, work: Option<Work>, role: Role, now: Duration) -> Settlement {
        self.hold_probe_undecided(role, now);
        self.wait(work.map(|work| Work { uncompressed: true, costs_budget: false, not_before: now, ..work }))
    }

    /// The peer refuses the data. Only a peer that has accepted something makes the data suspect.
    fn refused(&mut self, work: Option<Work>, role: Role, message: String, now: Duration) -> Settlement {
        let Some(work) = work else {
            self.hold_probe_undecided(role, now);
            return Settlement::Nothing;
        };
        let work = Work { refusals: work.refusals + 1, costs_budget: false, not_before: now, ..work };
        if !self.succeeded {
            self.begin_hold(HoldReason::NothingAccepted, role, now);
            return self.wait(Some(work));
        }
        if role == Role::HoldProbe {
            let misconfigured = self.hold.take_if(|hold| hold.reason == HoldReason::Misconfigured).is_some();
            if !misconfigured {
                self.hold_probe_refused(now);
                return self.wait(Some(work));
            }
        }
        if work.spans == 1 {
            return self.give_up_span(work, role, "refused_by_peer", message, now);
        }
        self.split(work, now)
    }

    fn misconfigured(&mut self, work: Option<Work>, role: Role, now: Duration) -> Settlement {
        self.begin_hold(HoldReason::Misconfigured, role, now);
        self.wait(work.map(|work| Work { not_before: now, costs_budget: false, ..work }))
    }

    /// One span that the peer refuses for good becomes a dead letter, unless there are too many of them.
    fn give_up_span(
        &mut self,
        work: Work,
        role: Role,
        reason: &'static str,
        reply: String,
        now: Duration,
    ) -> Settlement {
        if !self.letters.take(now) {
            self.begin_hold(HoldReason::TooManyDeadLetters, role, now);
            return self.wait(Some(Work {
                refusals: work.refusals.max(1),
                not_before: now,
                costs_budget: false,
                ..work
            }));
        }
        self.hold_probe_undecided(role, now);
        let part = work.parts[0];
        self.tracker.settle(&part);
        Settlement::DeadLetter { part, reason, reply }
    }
}

/// Where work goes that was not settled.
impl Delivery {
    fn wait(&mut self, work: Option<Work>) -> Settlement {
        if let Some(work) = work {
            self.waiting.insert(work.key(), work);
        }
        Settlement::Nothing
    }

    fn split(&mut self, work: Work, now: Duration) -> Settlement {
        for half in work.halve() {
            self.waiting.insert(half.key(), Work { not_before: now, ..half });
        }
        Settlement::Nothing
    }

    /// Takes the parts out of `work` that the driver has given up meanwhile.
    fn part_abandoned(&self, work: Work) -> (Option<Work>, Vec<Part>) {
        if work.key().0 >= self.abandoned_below {
            return (Some(work), Vec::new());
        }
        let (given_up, kept): (Vec<Part>, Vec<Part>) =
            work.parts.iter().partition(|part| part.block < self.abandoned_below);
        if kept.is_empty() {
            return (None, given_up);
        }
        let sums = Work::fresh(work.signal, kept.into());
        (Some(Work { parts: sums.parts, spans: sums.spans, bytes: sums.bytes, ..work }), given_up)
    }

    fn begin_hold(&mut self, reason: HoldReason, role: Role, now: Duration) {
        match &mut self.hold {
            Some(hold) if role == Role::HoldProbe => hold.probe_refused(reason, now),
            // A request from before the hold says nothing new, but for a fault of configuration, which weighs more.
            Some(hold) if reason == HoldReason::Misconfigured => hold.reason = reason,
            Some(_) => {}
            none => *none = Some(Hold::begin(reason, now)),
        }
    }

    fn hold_probe_refused(&mut self, now: Duration) {
        if let Some(hold) = &mut self.hold {
            hold.probe_refused(hold.reason, now);
        }
    }

    fn hold_probe_undecided(&mut self, role: Role, at: Duration) {
        if let (Role::HoldProbe, Some(hold)) = (role, &mut self.hold) {
            hold.probe_undecided(at);
        }
    }
}
