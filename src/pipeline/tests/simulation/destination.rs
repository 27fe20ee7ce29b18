//! A destination between its egress and its backend: requests on their way, answers, and what they must come to.
//!
//! The balance that the egress keeps is compared, after each of its turns, with what the backend was told to answer: so
//! every answer is booked once and as what it was, also the spans that may have been taken twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use super::oracle::{Oracle, SpanIndex};
use crate::block::Outcome;
use crate::pipeline::dead_letters::DeliveryLetter;
use crate::pipeline::egress::Egress;
use crate::pipeline::senders::{Answer, Job};
use crate::sim::backend::{Backend, Taken};
use crate::telemetry::ledger::{self, DestinationTotals};
use crate::telemetry::metrics::DestinationGauges;

/// A request on its way.
struct Flight {
    arrives: Duration,
    answer: Answer,
    spans: Vec<SpanIndex>,
}

/// What the answers so far must have been booked as.
#[derive(Debug, Default)]
struct Expected {
    delivered: u64,
    refused: u64,
    letters: u64,
    /// Bounds: of a request that was taken in part nobody knows which spans came twice.
    redelivered: (u64, u64),
    /// Spans an answer to which was lost.
    lost: BTreeSet<SpanIndex>,
}

/// One destination of one process.
pub(super) struct Destination {
    /// Its number in the scenario, and its bit.
    pub(super) plan: usize,
    pub(super) bit: u8,
    pub(super) rules: Rules,
    pub(super) egress: Option<Egress>,
    pub(super) due: Duration,
    pub(super) ledger: Arc<ledger::Destination>,
    pub(super) gauges: Arc<DestinationGauges>,
    pub(super) letters: Arc<Mutex<Vec<DeliveryLetter>>>,
    jobs: Receiver<Job>,
    answers: Sender<Answer>,
    flights: Vec<Flight>,
    /// Answers that the egress has and has not booked yet.
    answered: Vec<(Outcome, Vec<SpanIndex>)>,
    opened: DestinationTotals,
    expected: Expected,
}

/// What may become of a destination's spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// It takes only what was encoded from rows.
    pub(super) encoded_only: bool,
    /// It was away: what was freed meanwhile is lost to it.
    pub(super) returned: bool,
    /// It may not give anything up.
    pub(super) required: bool,
}

/// What a destination is made of beside its egress.
pub(super) struct Outside {
    pub(super) plan: usize,
    pub(super) rules: Rules,
    pub(super) ledger: Arc<ledger::Destination>,
    pub(super) gauges: Arc<DestinationGauges>,
    pub(super) letters: Arc<Mutex<Vec<DeliveryLetter>>>,
    pub(super) jobs: Receiver<Job>,
    pub(super) answers: Sender<Answer>,
}

impl Destination {
    pub(super) fn new(egress: Egress, outside: Outside, now: Duration) -> Destination {
        let Outside { plan, rules, ledger, gauges, letters, jobs, answers } = outside;
        Destination {
            plan,
            bit: 1 << plan,
            rules,
            egress: Some(egress),
            due: now,
            opened: ledger.snapshot(),
            ledger,
            gauges,
            letters,
            jobs,
            answers,
            flights: Vec::new(),
            answered: Vec::new(),
            expected: Expected::default(),
        }
    }

    /// Takes what the egress has just sent to the backend.
    pub(super) fn carry(&mut self, backend: &mut Backend, oracle: &mut Oracle, now: Duration) {
        while let Ok(Job { request, payloads, .. }) = self.jobs.try_recv() {
            let spans = oracle.sent(&request, &payloads);
            let reply = backend.answer(&request, oracle.any_poisoned(&spans), now);
            if let Taken::AllBut(refused) = reply.taken {
                oracle.taken(&spans, refused, self.bit);
            }
            let nanoseconds = u64::try_from(now.as_nanos()).expect("minutes");
            oracle.note("sent", &[u64::from(self.bit), nanoseconds, request.id.0, request.spans, request.bytes as u64]);
            let answer = Answer { id: request.id, outcome: reply.outcome, elapsed: reply.latency };
            self.flights.push(Flight { arrives: now + reply.latency, answer, spans });
        }
    }

    /// When the next answer arrives.
    pub(super) fn next_answer(&self) -> Option<Duration> {
        self.flights.iter().map(|flight| flight.arrives).min()
    }

    /// The next answer arrives.
    pub(super) fn arrive(&mut self, now: Duration) {
        let next = self.flights.iter().enumerate().min_by_key(|(_, flight)| flight.arrives);
        let (index, _) = next.expect("the caller saw one");
        let Flight { answer, spans, .. } = self.flights.swap_remove(index);
        self.answered.push((answer.outcome.clone(), spans));
        self.answers.send(answer).expect("there is room for as many answers as requests");
        self.due = now;
    }

    /// After a turn of the egress, also one in which the power went: what it kept aside before that was durable.
    pub(super) fn keep(&mut self, oracle: &mut Oracle) {
        for letter in self.letters.lock().expect("nobody panics with it").drain(..) {
            self.expected.letters += 1;
            oracle.kept_aside(&letter.payload, self.bit);
        }
    }

    /// After a turn of the egress: everything answered is booked, once and right.
    pub(super) fn check(&mut self, appended: u64, oracle: &mut Oracle) {
        for (outcome, spans) in std::mem::take(&mut self.answered) {
            self.expected.answer(&outcome, &spans, oracle);
        }
        let (totals, expected) = (self.ledger.snapshot(), &self.expected);
        let in_queue = self.gauges.in_queue.get();
        assert_eq!(appended, totals.settled() + in_queue, "the balance of {}: {totals:?}, {in_queue} left", self.plan);
        if !self.rules.returned {
            assert_eq!(totals.lost, self.opened.lost, "lost to {}", self.plan);
        }
        if self.rules.required {
            assert_eq!(totals.dropped, self.opened.dropped, "dropped by {}, which is required", self.plan);
        }
        if !self.rules.encoded_only {
            assert_eq!(totals.delivered - self.opened.delivered, expected.delivered, "delivered to {}", self.plan);
        }
        let refused = totals.refused_by_peer - self.opened.refused_by_peer;
        assert_eq!(refused, expected.refused, "refused by {}", self.plan);
        let letters = totals.dead_lettered - self.opened.dead_lettered;
        assert_eq!(letters, expected.letters, "dead letters of {}", self.plan);
        let redelivered = totals.redelivered - self.opened.redelivered;
        let (least, most) = expected.redelivered;
        assert!(least <= redelivered && redelivered <= most, "{redelivered} sent again, not {least} to {most}");
    }

    /// Nothing is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.answered.is_empty()
    }
}

impl Expected {
    fn answer(&mut self, outcome: &Outcome, spans: &[SpanIndex], oracle: &Oracle) {
        let refused = match outcome {
            Outcome::Accepted => 0,
            Outcome::AcceptedPartially { refused_spans, .. } => *refused_spans,
            Outcome::Unavailable { answer_lost: true, .. } => {
                self.lost.extend(spans);
                return;
            }
            _ => return,
        };
        let delivered = spans.len() as u64 - refused;
        self.delivered += delivered;
        self.refused += refused;
        let again: Vec<&SpanIndex> = spans.iter().filter(|span| self.lost.contains(span)).collect();
        // A span that was handed in twice stands here twice: nobody knows which of them is meant.
        let surely = again.iter().filter(|span| !oracle.is_repeated(***span)).count() as u64;
        self.redelivered.0 += surely.saturating_sub(refused);
        self.redelivered.1 += (again.len() as u64).min(delivered);
    }
}
