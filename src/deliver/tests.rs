//! The whole machine on a virtual clock: a scripted peer, an oracle that knows the fate of every span, no sleeps.
//!
//! [`Rig`] offers blocks, sends what the machine says, answers when the peer would, and checks on every step: no span is
//! settled twice, what is called delivered was taken by the peer, the frontier never passes an unsettled span, retries
//! stay within their budget, and nothing waits for a time that has passed.

#![expect(clippy::cast_possible_truncation, reason = "indexes of a test's few blocks")]

mod faults;
mod generated;
mod originals;
mod rules;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{Action, BlockOffer, BreakerState, Delivery, HoldReason, Outcome, Part, Request, Settlement};
use crate::block::Signal;
use crate::config::{Batch, Compression, Retry};

const BATCH: Batch =
    Batch { send_spans: 200, timeout: Duration::from_millis(200), max_spans: None, max_request_bytes: 1 << 20 };
const RETRY: Retry = Retry { initial: Duration::from_millis(500), max: Duration::from_secs(60), max_concurrency: 4 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What became of one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unsettled,
    Delivered,
    DeadLetter,
    Abandoned,
}

/// What the peer does with one request: the answer, and how long it takes.
type Peer = Box<dyn FnMut(&Request, Duration) -> (Outcome, Duration)>;

/// A destination, its peer, and the oracle.
struct Rig {
    delivery: Delivery,
    now: Duration,
    peer: Peer,
    in_flight: Vec<(Duration, Request, Outcome)>,
    fates: Vec<Vec<Fate>>,
    taken: Vec<Vec<bool>>,
    unsettled: u64,
    frontier: usize,
    /// Every request in the order of sending: when, what, and whether it repeats a failed one outside a probe.
    sent: Vec<(Duration, Request, bool)>,
    /// Requests by their first part and length whose last answer was a transport failure.
    failed: HashMap<(u64, u32, u64), bool>,
    firsts: VecDeque<Duration>,
    retries: VecDeque<Duration>,
    refused_by_peer: u64,
    redelivered: u64,
    letters: Vec<(Part, &'static str)>,
}

impl Rig {
    fn new(compression: Compression, seed: u64, peer: Peer) -> Rig {
        Rig::with(Delivery::new(RETRY, BATCH, compression, seed), peer)
    }

    fn with(delivery: Delivery, peer: Peer) -> Rig {
        Rig {
            delivery,
            now: secs(1_000),
            peer,
            in_flight: Vec::new(),
            fates: Vec::new(),
            taken: Vec::new(),
            unsettled: 0,
            frontier: 0,
            sent: Vec::new(),
            failed: HashMap::new(),
            firsts: VecDeque::new(),
            retries: VecDeque::new(),
            refused_by_peer: 0,
            redelivered: 0,
            letters: Vec::new(),
        }
    }

    fn offer(&mut self, spans: u32) -> u64 {
        self.offer_of(Signal::Traces, spans)
    }

    fn offer_of(&mut self, signal: Signal, spans: u32) -> u64 {
        let offer = BlockOffer { signal, spans, bytes: spans as usize * 220 };
        let block = self.delivery.offer(offer, self.now);
        assert_eq!(block, self.fates.len() as u64, "blocks are numbered densely");
        self.fates.push(vec![Fate::Unsettled; spans as usize]);
        self.taken.push(vec![false; spans as usize]);
        self.unsettled += u64::from(spans);
        block
    }

    /// Runs until `until`, or until nothing can happen any more before it.
    fn run_until(&mut self, until: Duration) {
        while self.step(until) {}
        self.now = until;
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until every span is settled; panics when that takes longer than `limit`.
    fn settle_within(&mut self, limit: Duration) {
        let until = self.now + limit;
        while self.unsettled > 0 {
            let state = self.delivery.state(self.now);
            assert!(self.step(until), "{} spans unsettled after {limit:?}: {state:?}", self.unsettled);
        }
    }

    /// One event; false when there is none before `until`.
    fn step(&mut self, until: Duration) -> bool {
        let wait = loop {
            match self.delivery.poll(self.now) {
                Action::Send(request) => self.send(request),
                Action::WaitUntil(at) => {
                    assert!(at > self.now, "waiting for {at:?} at {:?} is a busy loop", self.now);
                    break Some(at);
                }
                Action::Idle => break None,
            }
        };
        let answer = self.in_flight.iter().map(|(at, ..)| *at).min();
        let Some(next) = wait.into_iter().chain(answer).min().filter(|next| *next <= until) else { return false };
        self.now = next;
        while let Some(index) = self.in_flight.iter().position(|(at, ..)| *at <= self.now) {
            let (_, request, outcome) = self.in_flight.swap_remove(index);
            self.answer(&request, outcome);
        }
        true
    }

    fn send(&mut self, request: Request) {
        assert!(!request.parts.is_empty() && request.spans > 0);
        assert_eq!(request.spans, request.parts.iter().map(Part::spans).sum::<u64>());
        let state = self.delivery.state(self.now);
        assert!(state.in_flight <= RETRY.max_concurrency.max(1) + 1, "{state:?}");
        let key = (request.parts[0].block, request.parts[0].first, request.spans);
        let probe = matches!(state.breaker, BreakerState::HalfOpen { .. }) || state.held.is_some();
        let retry = self.failed.remove(&key).unwrap_or(false) && !probe;
        self.check_budget(retry);
        self.sent.push((self.now, request.clone(), retry));
        let (outcome, latency) = (self.peer)(&request, self.now);
        let lost = matches!(outcome, Outcome::Unavailable { answer_lost: true, .. });
        if lost || matches!(outcome, Outcome::Accepted | Outcome::AcceptedPartially { .. } | Outcome::NothingToSend) {
            for part in request.parts.iter() {
                self.taken[part.block as usize][part.first as usize..part.end as usize].fill(true);
            }
        }
        self.in_flight.push((self.now + latency, request, outcome));
    }

    /// The budget, restated: nine seconds of retries lie wholly inside any window of ten buckets.
    fn check_budget(&mut self, retry: bool) {
        let now = self.now;
        self.firsts.retain(|at| now.saturating_sub(*at) < secs(10));
        self.retries.retain(|at| now.saturating_sub(*at) < secs(9));
        if !retry {
            self.firsts.push_back(now);
            return;
        }
        self.retries.push_back(now);
        let most = self.firsts.len().max(20) / 5;
        assert!(self.retries.len() <= most, "{} retries beside {} requests", self.retries.len(), self.firsts.len());
    }

    fn answer(&mut self, request: &Request, outcome: Outcome) {
        if matches!(outcome, Outcome::Unavailable { .. }) {
            self.failed.insert((request.parts[0].block, request.parts[0].first, request.spans), true);
        }
        match self.delivery.answer(request.id, outcome, self.now) {
            Settlement::Nothing => {}
            Settlement::Delivered { parts, delivered, refused_by_peer, redelivered, .. } => {
                assert_eq!(delivered + refused_by_peer, request.spans);
                assert!(redelivered == 0 || request.answer_lost_before);
                self.refused_by_peer += refused_by_peer;
                self.redelivered += redelivered;
                parts.iter().for_each(|part| self.settle(part, Fate::Delivered));
            }
            Settlement::DeadLetter { part, reason, reply } => {
                assert_eq!(part.spans(), 1);
                assert!(!reply.is_empty());
                self.letters.push((part, reason));
                self.settle(&part, Fate::DeadLetter);
            }
            Settlement::Abandoned { parts, spans } => {
                assert_eq!(spans, parts.iter().map(Part::spans).sum::<u64>());
                parts.iter().for_each(|part| self.settle(part, Fate::Abandoned));
            }
        }
        self.check_frontier();
    }

    fn settle(&mut self, part: &Part, fate: Fate) {
        for span in part.first as usize..part.end as usize {
            let old = std::mem::replace(&mut self.fates[part.block as usize][span], fate);
            assert_eq!(old, Fate::Unsettled, "span {span} of block {} is settled twice", part.block);
            self.unsettled -= 1;
            let taken = self.taken[part.block as usize][span];
            assert!(fate != Fate::Delivered || taken, "span {span} of block {} was never taken", part.block);
        }
    }

    fn check_frontier(&mut self) {
        let settled = |fates: &Vec<Fate>| !fates.contains(&Fate::Unsettled);
        self.frontier += self.fates[self.frontier..].iter().take_while(|fates| settled(fates)).count();
        assert_eq!(self.delivery.frontier(), self.frontier as u64);
        assert_eq!(self.delivery.state(self.now).unsettled_spans, self.unsettled);
    }

    /// The driver gives up everything below `block`.
    fn abandon(&mut self, block: u64) -> u64 {
        let in_flight: Vec<Part> = self.in_flight.iter().flat_map(|(_, request, _)| request.parts.to_vec()).collect();
        let flies = |block: usize, span: usize| {
            let holds = |part: &Part| (part.first as usize..part.end as usize).contains(&span);
            in_flight.iter().any(|part| part.block == block as u64 && holds(part))
        };
        let before = self.unsettled;
        for (block, fates) in self.fates.iter_mut().enumerate().take(block as usize) {
            for (span, fate) in fates.iter_mut().enumerate() {
                if *fate == Fate::Unsettled && !flies(block, span) {
                    *fate = Fate::Abandoned;
                    self.unsettled -= 1;
                }
            }
        }
        let given_up = before - self.unsettled;
        assert_eq!(self.delivery.abandon(block), given_up);
        self.check_frontier();
        given_up
    }

    fn count(&self, fate: Fate) -> u64 {
        self.fates.iter().flatten().filter(|of| **of == fate).count() as u64
    }

    fn delivered(&self) -> u64 {
        self.count(Fate::Delivered)
    }

    fn held(&self) -> Option<HoldReason> {
        self.delivery.state(self.now).held.map(|(reason, _)| reason)
    }
}

/// A peer that takes everything in ten milliseconds.
fn well(_: &Request, _: Duration) -> (Outcome, Duration) {
    (Outcome::Accepted, ms(10))
}

fn unavailable() -> Outcome {
    Outcome::Unavailable { retry_after: None, answer_lost: false, message: "503 service unavailable".into() }
}

fn throttled(retry_after: Option<Duration>) -> Outcome {
    Outcome::Throttled { retry_after, message: "429 too many requests".into() }
}

fn bad_request() -> Outcome {
    Outcome::BadRequest { message: "400 bad request".into() }
}

fn misconfigured() -> Outcome {
    Outcome::Misconfigured { message: "401 unauthorized".into() }
}

/// Whether a request contains a span of a block.
fn contains(request: &Request, block: u64, span: u32) -> bool {
    request.parts.iter().any(|part| part.block == block && (part.first..part.end).contains(&span))
}

/// Start here: a block is offered, waits for company, is sent, and the cursor may move past it.
#[test]
fn a_block_becomes_a_request_and_the_frontier_moves_past_it() {
    let mut delivery = Delivery::new(RETRY, BATCH, Compression::None, 1);
    let start = secs(1);
    let block = delivery.offer(BlockOffer { signal: Signal::Traces, spans: 72, bytes: 15_840 }, start);
    let Action::WaitUntil(due) = delivery.poll(start) else { panic!("72 spans wait for company") };
    assert_eq!(due, start + BATCH.timeout);
    let Action::Send(request) = delivery.poll(due) else { panic!("and go when they have waited long enough") };
    assert_eq!((request.spans, request.bytes, request.parts[0].is_whole()), (72, 15_840, true));
    assert!(matches!(delivery.poll(due), Action::Idle));
    assert_eq!(delivery.frontier(), block);
    let settlement = delivery.answer(request.id, Outcome::Accepted, due + ms(5));
    assert!(matches!(settlement, Settlement::Delivered { delivered: 72, refused_by_peer: 0, redelivered: 0, .. }));
    assert_eq!(delivery.frontier(), block + 1);
}
