//! Those who hand in: a gateway whose requests wait for their answers, and a line receiver whose rows nobody answers.
//!
//! Both use the product's own code up to the ring: the gateway's intake with its receipts, the encoder of rows. What goes
//! into the ring and what verdicts come out of it is seen by [`Spied`], which is where the oracle learns of a span.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;

use super::oracle::{Oracle, POISON, hash};
use crate::block::{Block, Outlet, SourceId, Ticket, Verdict, VerdictOutcome};
use crate::config::{Mapping, OtherSourcetypes, Uberagent};
use crate::fleet::{Fleet, FleetOptions, Wire};
use crate::otlp::Summary;
use crate::otlp::view;
use crate::otlp::writer::{close_message, open_message, push_bytes_field};
use crate::pipeline::outlet::RingOutlet;
use crate::receive::gateway::intake::{Intake, Receipt, Settled};
use crate::uberagent::{Encoder, Origin, Outcome};

/// The gateway's source, and the line receiver's.
pub(super) const PASSED: SourceId = SourceId(0);
pub(super) const ROWS: SourceId = SourceId(1);

/// When the rows of the fleet happened: what time it is when they arrive is another question.
const FLEET_OPENS_NS: u64 = 1_747_033_200_000_000_000;

/// What a lane's rings were told, in spans.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) unanswered: u64,
    /// Blocks that the writer was not told of yet.
    pub(super) pushed: u64,
    /// In the log, dropped or kept aside by the writer's word.
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Of those accepted, what may be in the log in part.
    pub(super) unknown: u64,
    /// Handed in, and the records that they stand for.
    pub(super) spans: u64,
    pub(super) records: u64,
}

/// A ring that tells the oracle what goes in, and keeps count of what comes out.
pub(super) struct Spied {
    ring: RingOutlet,
    oracle: Rc<RefCell<Oracle>>,
    tally: Rc<RefCell<Tally>>,
    outlet: u32,
    outstanding: VecDeque<u32>,
}

impl Spied {
    pub(super) fn new(ring: RingOutlet, oracle: &Rc<RefCell<Oracle>>, tally: &Rc<RefCell<Tally>>) -> Spied {
        let outlet = oracle.borrow_mut().new_outlet();
        Spied { ring, oracle: Rc::clone(oracle), tally: Rc::clone(tally), outlet, outstanding: VecDeque::new() }
    }
}

impl Outlet for Spied {
    fn room(&self) -> usize {
        self.ring.room()
    }

    fn push(&mut self, block: Block) -> Ticket {
        self.oracle.borrow_mut().handed_in(&block, self.outlet);
        let tally = &mut *self.tally.borrow_mut();
        tally.unanswered += u64::from(block.meta.spans);
        tally.pushed += 1;
        tally.spans += u64::from(block.meta.spans);
        tally.records += u64::from(block.meta.records);
        self.outstanding.push_back(block.meta.spans);
        self.ring.push(block)
    }

    fn spare(&mut self) -> Vec<u8> {
        self.ring.spare()
    }

    fn verdict(&mut self) -> Option<Verdict> {
        let verdict = self.ring.verdict()?;
        let tally = &mut *self.tally.borrow_mut();
        for _ in verdict.first.0..=verdict.last.0 {
            let spans = u64::from(self.outstanding.pop_front().expect("a verdict is of a block that was handed in"));
            tally.unanswered -= spans;
            match verdict.outcome {
                VerdictOutcome::Refused(_) => tally.refused += spans,
                VerdictOutcome::Durable => tally.accepted += spans,
                VerdictOutcome::Unknown => {
                    tally.accepted += spans;
                    tally.unknown += spans;
                }
            }
        }
        let (first, last) = (verdict.first.0, verdict.last.0);
        self.oracle.borrow_mut().note("verdict", &[u64::from(self.outlet), first, last]);
        Some(verdict)
    }

    fn park(&mut self) {
        self.ring.park();
    }
}

/// A request that waits for its answer.
struct Request {
    receipt: Rc<Receipt>,
    spans: Vec<u64>,
    since: Duration,
}

/// A gateway and its peers.
pub(super) struct Gateway {
    intake: Intake<Spied>,
    slot: usize,
    requests: Vec<Request>,
    random: Rng,
    poison_every: u64,
}

impl Gateway {
    pub(super) fn new(outlet: Spied, seed: u64, poison_every: u64) -> Gateway {
        let intake = Intake::new(outlet);
        let slot = intake.add_passed(PASSED);
        Gateway { intake, slot, requests: Vec::new(), random: Rng::with_seed(seed), poison_every }
    }

    /// A peer sends a request. `next_span` numbers spans over the whole run.
    pub(super) fn request(&mut self, next_span: &mut u64, (now, wall_ns): (Duration, u64)) {
        let mut spans = Vec::new();
        let received = if self.random.u8(..) < 200 {
            let count = self.random.u64(1..25);
            let (payload, summary) = self.payload(count, next_span, &mut spans);
            self.intake.merge(self.slot, wall_ns, &payload, summary)
        } else {
            let blocks = self.random.usize(1..4);
            let count = self.random.u64(1..60);
            let payloads = (0..blocks).map(|_| self.payload(count, next_span, &mut spans)).collect();
            self.intake.store(self.slot, wall_ns, payloads)
        };
        // Of a busy gateway nothing was stored, and the peer was told so.
        if let Ok(receipt) = received {
            self.requests.push(Request { receipt, spans, since: now });
        }
        if self.random.u8(..) < 200 {
            self.intake.flush();
        }
    }

    fn payload(&mut self, count: u64, next_span: &mut u64, hashes: &mut Vec<u64>) -> (Vec<u8>, Summary) {
        let mut out = Vec::new();
        let resource = open_message(&mut out, 0x0a);
        let scope = open_message(&mut out, 0x12);
        for _ in 0..count {
            *next_span += 1;
            let id = *next_span;
            let span = open_message(&mut out, 0x12);
            push_bytes_field(&mut out, 0x0a, &(u128::from(id) << 64 | 7).to_be_bytes());
            push_bytes_field(&mut out, 0x12, &id.to_be_bytes());
            let poisoned = self.poison_every > 0 && id.is_multiple_of(self.poison_every);
            let letters = self.random.usize(1..300);
            let name = if poisoned { POISON.to_owned() } else { "n".repeat(letters) };
            push_bytes_field(&mut out, 0x2a, name.as_bytes());
            close_message(&mut out, span);
        }
        close_message(&mut out, scope);
        close_message(&mut out, resource);
        hashes.extend(view::spans(&out).map(|(_, _, span)| hash(span.body())));
        let spans = u32::try_from(count).expect("a handful");
        (out, Summary { spans, first_start_ns: 1, last_end_ns: 2 })
    }

    /// Closes what is open.
    pub(super) fn flush(&mut self) {
        self.intake.flush();
    }

    /// Takes verdicts and answers peers: what was answered yes, span by span. Waits of more than `patience` are a fault.
    pub(super) fn answer(&mut self, now: Duration, patience: Duration) -> Vec<u64> {
        self.intake.take_verdicts();
        let mut acknowledged = Vec::new();
        self.requests.retain(|request| {
            assert!(
                now.saturating_sub(request.since) < patience,
                "a request waits since {:?} at {now:?}",
                request.since
            );
            match pin!(request.receipt.settled()).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Settled::Durable) => acknowledged.extend_from_slice(&request.spans),
                Poll::Ready(Settled::Refused(_) | Settled::Unknown) => {}
                Poll::Pending => return true,
            }
            false
        });
        acknowledged
    }

    /// Everything handed in is in the ring, and every peer has its answer.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.intake.is_handed_over()
    }
}

/// A line receiver and its agents.
pub(super) struct Lines {
    outlet: Spied,
    encoder: Encoder,
    fleet: Fleet,
    waiting: VecDeque<Block>,
    random: Rng,
    line: Vec<u8>,
    /// The front balance, in records.
    received: u64,
    encoded: u64,
    filtered: u64,
    dead_lettered: u64,
}

impl Lines {
    pub(super) fn new(outlet: Spied, seed: u64) -> Lines {
        let settings = Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };
        Lines {
            outlet,
            encoder: Encoder::new(settings, ROWS),
            fleet: fleet(seed),
            waiting: VecDeque::new(),
            random: Rng::with_seed(seed),
            line: Vec::new(),
            received: 0,
            encoded: 0,
            filtered: 0,
            dead_lettered: 0,
        }
    }

    /// Reads what one agent sends, unless the ring is full.
    pub(super) fn read(&mut self, wall_ns: u64) {
        if !self.hand_over() || self.outlet.room() == 0 {
            return;
        }
        let Some(burst) = self.fleet.next() else {
            self.fleet = fleet(self.random.u64(..));
            return;
        };
        self.encoder.recycle(self.outlet.spare());
        for row in burst.rows.iter().take(40) {
            self.line.clear();
            Wire::FluentBit.render(row, &mut self.line);
            self.received += 1;
            match self.encoder.json(&self.line, Origin::default(), wall_ns) {
                Outcome::Encoded { .. } => self.encoded += 1,
                Outcome::Filtered(_) => self.filtered += 1,
                Outcome::DeadLetter(_) => self.dead_lettered += 1,
                Outcome::Blank => self.received -= 1,
            }
        }
        while let Some(block) = self.encoder.close() {
            self.waiting.push_back(block);
        }
        self.hand_over();
    }

    /// Takes verdicts and hands over what there is room for; whether that was all.
    pub(super) fn hand_over(&mut self) -> bool {
        while self.outlet.verdict().is_some() {}
        while self.outlet.room() > 0
            && let Some(block) = self.waiting.pop_front()
        {
            self.outlet.push(block);
        }
        self.waiting.is_empty()
    }

    /// The front balance: everything received became something, and every record encoded is in a block.
    pub(super) fn check(&self, records_handed_in: u64) {
        assert_eq!(self.received, self.encoded + self.filtered + self.dead_lettered, "the front balance");
        let waiting: u64 = self.waiting.iter().map(|block| u64::from(block.meta.records)).sum();
        assert_eq!(self.encoded, records_handed_in + waiting, "records encoded and records in blocks");
    }
}

fn fleet(seed: u64) -> Fleet {
    Fleet::new(seed, FleetOptions::storm(40, Duration::from_secs(600), FLEET_OPENS_NS))
}
