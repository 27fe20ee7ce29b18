//! What an answer means for everything else: the second half of the state machine.
//!
//! Every answer first tells something of the peer (breaker, concurrency, pause, hold), then something of the work: it is
//! settled, waits to be sent again, or is halved. A hold ends only by an accepted probe, because an answer to a request
//! from before the hold proves nothing of the requests after it.

use std::time::Duration;

use super::super::backoff::{equal_jitter, full_jitter, retry_after};
use super::super::hold::Hold;
use super::super::work::Work;
use super::super::{HoldReason, Outcome, Part, Settlement};
use super::{Delivery, Flight, Role};
use crate::config::Retry;

/// After so many failures of one request, with other requests accepted in between, it is sent in halves.
const LONELY_FAILURES: u32 = 3;

/// What is said of a dead letter.
struct Letter {
    reason: &'static str,
    reply: String,
}

impl Delivery {
    /// The peer took the request, but for `refused` spans.
    pub(super) fn accepted(
        &mut self,
        flight: Flight,
        refused: u64,
        message: Option<String>,
        now: Duration,
    ) -> Settlement {
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
        self.accepted_at = now;
        self.throttles = 0;
        self.limit.accepted(work.bytes);
        self.letters.delivered(work.spans, now);
        work.parts.iter().for_each(|part| self.tracker.settle(part));
        let refused_by_peer = refused.min(work.spans);
        let delivered = work.spans - refused_by_peer;
        let redelivered = if work.answer_lost { delivered } else { 0 };
        Settlement::Delivered { parts: work.parts, delivered, refused_by_peer, redelivered, message }
    }

    /// Nothing of the request concerned the peer. It is settled, and a probe has to be made with something else.
    pub(super) fn settled_unsent(&mut self, flight: Flight, now: Duration) -> Settlement {
        let Flight { work, role, .. } = flight;
        if role == Role::BreakerProbe {
            self.breaker.probe_undecided();
        }
        self.hold_probe_undecided(role, now);
        work.parts.iter().for_each(|part| self.tracker.settle(part));
        let delivered = work.spans;
        Settlement::Delivered { parts: work.parts, delivered, refused_by_peer: 0, redelivered: 0, message: None }
    }

    /// The peer did not take the request; `outcome` says why.
    pub(super) fn not_accepted(&mut self, flight: Flight, outcome: Outcome, now: Duration) -> Settlement {
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
            Outcome::Accepted | Outcome::AcceptedPartially { .. } | Outcome::NothingToSend => {
                unreachable!("what is settled goes elsewhere")
            }
            Outcome::Throttled { retry_after, .. } => self.throttled(kept, role, retry_after, now),
            Outcome::Unavailable { retry_after, answer_lost, .. } => {
                let kept = kept.map(|work| Work { answer_lost: work.answer_lost || answer_lost, ..work });
                self.unavailable(kept, role, retry_after, now)
            }
            Outcome::TooLarge { payload_bytes, message } => {
                self.limit.refused(payload_bytes);
                // Of what is left of a request nobody knows yet whether it is refused without the rest.
                match given_up.is_empty() {
                    true => self.halve_to_the_cause(kept, role, Letter { reason: "too_large", reply: message }, now),
                    false => self.repeat(kept, role, now),
                }
            }
            Outcome::Unencodable { .. } if !given_up.is_empty() => self.repeat(kept, role, now),
            Outcome::Unencodable { message } => {
                self.halve_to_the_cause(kept, role, Letter { reason: "unencodable", reply: message }, now)
            }
            Outcome::BadRequest { message } if uncompressed && given_up.is_empty() => {
                self.refused(kept, role, message, now)
            }
            // First as it is without compression.
            Outcome::BadRequest { .. } => self.repeat(kept.map(|work| Work { uncompressed: true, ..work }), role, now),
            Outcome::Misconfigured { .. } => self.misconfigured(kept, role, now),
        };
        if !given_up.is_empty() {
            debug_assert_eq!(settlement, Settlement::Nothing, "what is left of a request goes again");
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
        let Some(work) = work else { return Settlement::Nothing };
        let Retry { initial, max, .. } = self.retry;
        let not_before = now + full_jitter(initial, max, work.failures, &mut self.rng);
        let lonely = work.failed_at.is_some_and(|failed_at| failed_at < self.accepted_at);
        let lonely_failures = work.lonely_failures + u32::from(lonely);
        let failures = work.failures.saturating_add(1);
        let work = Work { failures, failed_at: Some(now), lonely_failures, not_before, costs_budget: true, ..work };
        if lonely_failures < LONELY_FAILURES || work.spans == 1 {
            return self.wait(Some(work));
        }
        // The peer is well, and this request kills it, times out or is cut off every time: proxies reset a connection
        // whose body is too large before their 413 can be read. In pieces all but the cause gets through.
        self.limit.suspected(work.bytes);
        self.split(Work { failures: 0, lonely_failures: 0, ..work }, now)
    }

    /// Something in the request is at fault, and the peer is not: in pieces all but the cause gets through.
    fn halve_to_the_cause(&mut self, work: Option<Work>, role: Role, letter: Letter, now: Duration) -> Settlement {
        match work {
            Some(work) if work.spans == 1 => self.give_up_span(work, role, letter, now),
            work => {
                self.hold_probe_undecided(role, now);
                work.map_or(Settlement::Nothing, |work| self.split(work, now))
            }
        }
    }

    /// At once, because the refusal may be of something else: of compression, which some proxies break, or of what is no
    /// longer part of the request.
    fn repeat(&mut self, work: Option<Work>, role: Role, now: Duration) -> Settlement {
        self.hold_probe_undecided(role, now);
        self.wait(work.map(|work| Work { costs_budget: false, not_before: now, ..work }))
    }

    /// The peer refuses the data. Only a peer that has accepted something makes the data suspect.
    fn refused(&mut self, work: Option<Work>, role: Role, reply: String, now: Duration) -> Settlement {
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
            return self.give_up_span(work, role, Letter { reason: "refused_by_peer", reply }, now);
        }
        self.split(work, now)
    }

    fn misconfigured(&mut self, work: Option<Work>, role: Role, now: Duration) -> Settlement {
        self.begin_hold(HoldReason::Misconfigured, role, now);
        self.wait(work.map(|work| Work { not_before: now, costs_budget: false, ..work }))
    }

    /// One span that the peer refuses for good becomes a dead letter, unless there are too many of them.
    fn give_up_span(&mut self, work: Work, role: Role, letter: Letter, now: Duration) -> Settlement {
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
        let Letter { reason, reply } = letter;
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
            self.waiting.insert(half.key(), Work { not_before: now, costs_budget: false, ..half });
        }
        Settlement::Nothing
    }

    /// Takes the parts out of `work` that the driver has given up meanwhile.
    pub(super) fn part_abandoned(&self, work: Work) -> (Option<Work>, Vec<Part>) {
        if work.key().0 >= self.abandoned_below {
            return (Some(work), Vec::new());
        }
        let (given_up, kept): (Vec<Part>, Vec<Part>) =
            work.parts.iter().partition(|part| part.block < self.abandoned_below);
        if kept.is_empty() {
            return (None, given_up);
        }
        (Some(work.with_parts(kept)), given_up)
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
