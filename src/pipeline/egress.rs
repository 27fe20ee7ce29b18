//! Egress: the log, through a destination's cursor, to its backend.
//!
//! ```text
//!  log ─► reader (a lane each) ─► window ─► delivery ─► senders ─► backend
//!            ▲                      │          ▲            │
//!            └──── cursor ◄─ settled, durable ◄┴── answers ◄┘
//! ```
//!
//! One thread a destination owns everything here: it reads blocks of every lane in turn, offers them to the delivery state
//! machine, hands requests to the destination's sender threads, books what their answers settle and commits the cursor.
//! Payloads stay where the log mapped them until they are sent. Only this thread counts in the destination's ledger.

mod commands;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam::sync::Parker;

use super::dead_letters::DeliveryLetter;
use super::drain::EgressStop;
use super::payload::Payload;
use super::place::Place;
use super::sabotage::{Sabotage, planted};
use super::senders::{Answer, Job, Senders};
use super::turn::Turn;
use super::watch::{Backlog, LaneView, Watch};
use super::window::Window;
use crate::block::{Made, Signal};
use crate::deliver::{Action, BlockOffer, BreakerState, Delivery, Outcome, Part, Request, Settlement};
use crate::otlp::slice;
use crate::queue::{Entry, Position, Reader};
use crate::sys::{clock, sigbus};
use crate::telemetry::ledger::{self, DestinationTotals, DropReason};

pub use commands::{Command, Service};

/// Time between commits of the cursor while something is settled: what a crash makes a destination send again.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The longest sleep, so that the watchdog sees the thread live.
const IDLE: Duration = Duration::from_millis(250);

/// Entries read in one turn: what a destination does not want never fills its window, and a long log of it has to leave
/// time for commits and ticks.
const ENTRIES_A_TURN: usize = 4096;

/// What a backend has a place for.
#[derive(Clone, Copy, Debug)]
pub struct Takes {
    /// Log records too.
    pub logs: bool,
    /// Only what was encoded from records: blocks passed through are settled without being sent.
    pub encoded_only: bool,
}

/// What a destination's thread is told once.
pub struct EgressOptions {
    /// The destination's name.
    pub name: String,
    /// A reader of every lane, at the cursor's position.
    pub readers: Vec<Reader>,
    /// What was read and not yet put behind.
    pub window: Window<Position>,
    /// The durable cursor, and who is told of it.
    pub place: Place,
    /// When to send what, and what an answer means.
    pub delivery: Delivery,
    /// The threads that send.
    pub senders: Senders,
    /// What the backend has a place for.
    pub takes: Takes,
    /// The destination's balance.
    pub ledger: Arc<ledger::Destination>,
    /// Keeps a span that the peer refuses for good; durable on return.
    pub keep_letter: Box<dyn FnMut(DeliveryLetter) -> bool + Send>,
    /// When to end.
    pub stop: Arc<EgressStop>,
    /// Where it is seen.
    pub watch: Watch,
}

/// One destination at work.
pub struct Egress {
    options: EgressOptions,
    /// The payloads of the window's blocks, and the index of the first.
    payloads: VecDeque<Payload>,
    first_payload: u64,
    /// When each of them was received, Unix nanoseconds; 0 for what is no block.
    received_ns: VecDeque<u64>,
    /// Blocks whose bytes were damaged after they were read: what is settled of them is lost, not delivered.
    damaged: BTreeSet<u64>,
    /// What is on its way, so that a jump leaves it alone.
    in_flight: Vec<Request>,
    next_lane: usize,
    committed_at: Duration,
    orders: commands::Orders,
}

impl Egress {
    /// A destination that stands where its cursor says.
    #[must_use]
    pub fn new(options: EgressOptions) -> Egress {
        let committed_at = Duration::ZERO;
        Egress {
            options,
            payloads: VecDeque::new(),
            first_payload: 0,
            received_ns: VecDeque::new(),
            damaged: BTreeSet::new(),
            in_flight: Vec::new(),
            next_lane: 0,
            committed_at,
            orders: commands::Orders::default(),
        }
    }

    /// The thread's body.
    pub fn run(mut self, parker: &Parker) {
        loop {
            match self.turn(clock::monotonic()) {
                Turn::Again => {}
                Turn::Wait(time) => parker.park_timeout(time),
                Turn::Ended => break,
            }
        }
        self.end(clock::monotonic());
    }

    /// Books what was answered, reads on, sends what is due, commits when it is time.
    pub fn turn(&mut self, now: Duration) -> Turn {
        let stopping = self.options.stop.is_draining();
        if stopping {
            self.options.delivery.drain();
        }
        while let Some(answer) = self.options.senders.answer() {
            self.answered(answer, now);
        }
        if !self.obey(now) {
            return Turn::Ended;
        }
        let more = self.orders.reads() && self.gather(now);
        let wait = if self.orders.sends() { self.dispatch(now) } else { IDLE };
        self.put_behind();
        let due = now.saturating_sub(self.committed_at) >= COMMIT_INTERVAL;
        if due || self.options.place.frees_a_segment(&self.options.window) || self.lags_too_far() {
            self.commit(now);
        }
        self.show(now);
        let finished = !self.orders.reads() || (!more && self.options.window.is_empty());
        if stopping && (finished || self.options.stop.is_over(now)) {
            return Turn::Ended;
        }
        if more { Turn::Again } else { Turn::Wait(wait.min(IDLE)) }
    }

    /// After the last turn: what was settled is committed, what is under way is not waited for.
    pub fn end(mut self, now: Duration) {
        self.commit(now);
        self.show(now);
        self.options.senders.finish();
        self.options.watch.tick.end();
    }

    fn show(&mut self, now: Duration) {
        let EgressOptions { readers, window, place, delivery, watch, .. } = &mut self.options;
        let views = readers.iter().enumerate().map(|(lane, reader)| LaneView {
            reader,
            front: window.front(lane),
            tail: place.tail(lane),
        });
        let oldest_ns = self.received_ns.front().copied().unwrap_or(0);
        watch.turn(delivery, now, Backlog { unsettled: window.unsettled_spans(), oldest_ns }, views);
    }

    /// Reads on, an entry from each lane in turn, while delivery has room. True when there is more for the next turn.
    fn gather(&mut self, now: Duration) -> bool {
        let lanes = self.options.readers.len();
        self.options.readers.iter_mut().for_each(|reader| reader.share_sums(now));
        let mut empty = 0;
        for _ in 0..ENTRIES_A_TURN {
            if empty == lanes || !self.options.delivery.has_room() {
                return false;
            }
            let lane = self.next_lane;
            self.next_lane = (lane + 1) % lanes;
            match self.options.readers[lane].next() {
                Some(entry) => {
                    empty = 0;
                    self.take(lane, entry, now);
                }
                None => empty += 1,
            }
        }
        true
    }

    fn take(&mut self, lane: usize, entry: Entry, now: Duration) {
        match entry {
            Entry::Block { meta, payload, crc, end, .. } => {
                let Takes { logs, encoded_only } = self.options.takes;
                let signal_taken = meta.signal == Signal::Traces || (logs && meta.signal == Signal::Logs);
                let wanted = signal_taken && !(encoded_only && meta.made == Made::Passed);
                let spans = u64::from(meta.spans);
                let offered = if wanted { meta.spans } else { 0 };
                let index = self.options.window.push(lane, end.sequence, end, meta.spans);
                self.received_ns.push_back(meta.received_ns);
                let offer = BlockOffer { signal: meta.signal, spans: offered, bytes: payload.len() };
                self.offer(offer, Payload::new(payload, crc), now);
                if !signal_taken {
                    self.options
                        .window
                        .settle(index, meta.spans, |totals| drop_spans(totals, DropReason::SignalNotTaken, spans));
                } else if !wanted {
                    self.options.window.settle(index, meta.spans, |totals| totals.delivered += spans);
                }
            }
            Entry::Gap { spans, end } => {
                tracing::error!(destination = %self.options.name, lane, spans, "spans in damaged parts of the log are lost");
                self.pass_over(lane, end, now, |totals| totals.lost += spans);
            }
        }
    }

    /// Moves a lane without a block.
    fn pass_over(&mut self, lane: usize, end: Position, now: Duration, book: impl Fn(&mut DestinationTotals)) {
        let index = self.options.window.push(lane, end.sequence, end, 0);
        self.received_ns.push_back(0);
        self.options.window.settle(index, 0, book);
        self.offer(BlockOffer { signal: Signal::Traces, spans: 0, bytes: 0 }, Payload::none(), now);
    }

    fn offer(&mut self, offer: BlockOffer, payload: Payload, now: Duration) {
        let index = self.options.delivery.offer(offer, now);
        self.payloads.push_back(payload);
        debug_assert_eq!(index, self.first_payload + self.payloads.len() as u64 - 1, "window and delivery count alike");
    }

    /// Hands what is due to the senders. Returns how long nothing more is due.
    fn dispatch(&mut self, now: Duration) -> Duration {
        loop {
            match self.options.delivery.poll(now) {
                Action::Send(request) => {
                    let faults = sigbus::faults();
                    let mut payloads: Vec<Bytes> = request.parts.iter().filter_map(|part| self.body(part)).collect();
                    if planted(Sabotage::OrderReversed) {
                        payloads.reverse();
                    }
                    self.in_flight.push(request.clone());
                    self.options.senders.send(Job { request, payloads, faults });
                }
                Action::WaitUntil(at) => return at.saturating_sub(now),
                Action::Idle => return IDLE,
            }
        }
    }

    /// A whole block as it lies in the log, or the bytes of a range of its spans; `None` when it was damaged there.
    fn body(&mut self, part: &Part) -> Option<Bytes> {
        let at = usize::try_from(part.block - self.first_payload).expect("an index into memory");
        let Some(payload) = self.payloads[at].intact() else {
            if self.damaged.insert(part.block) {
                tracing::error!(destination = %self.options.name, "a block was damaged while it waited to be sent");
            }
            return None;
        };
        if part.is_whole() {
            return Some(payload.clone());
        }
        let mut cut = Vec::with_capacity(part.bytes);
        slice::range(payload, part.first..part.end, &mut cut);
        Some(cut.into())
    }

    /// Books what an answer settles.
    fn answered(&mut self, answer: Answer, now: Duration) {
        let Answer { id, mut outcome, elapsed } = answer;
        if planted(Sabotage::BreakerNeverCloses) && self.options.delivery.state(now).breaker != BreakerState::Closed {
            outcome = Outcome::Unavailable { retry_after: None, answer_lost: false, message: String::new() };
        }
        let at = self.in_flight.iter().position(|request| request.id == id).expect("an answer belongs to a request");
        let signal = self.in_flight.swap_remove(at).signal;
        self.options.watch.latency.record(elapsed.as_secs_f64());
        let (window, ledger) = (&mut self.options.window, &self.options.ledger);
        match self.options.delivery.answer(id, outcome, now) {
            Settlement::Nothing => ledger.request_failures.add(1),
            Settlement::Delivered { parts, delivered, refused_by_peer, redelivered, message } => {
                ledger.requests_sent.add(1);
                if let Some(message) = message {
                    tracing::warn!(destination = %self.options.name, %message, "the backend took a request in part");
                }
                let (lost, sent): (Vec<Part>, Vec<Part>) =
                    parts.iter().cloned().partition(|part| self.damaged.contains(&part.block));
                let unsent = lost.iter().map(Part::spans).sum::<u64>();
                let refused = if planted(Sabotage::RefusedAsDelivered) { refused_by_peer } else { 0 };
                let again = if planted(Sabotage::RedeliveryNotCounted) { 0 } else { redelivered };
                settle_delivered(window, &sent, delivered.saturating_sub(unsent) + refused, again);
                if planted(Sabotage::SettledTwice) {
                    settle_delivered(window, &sent, delivered, again);
                }
                for part in lost {
                    window.settle(part.block, part.end - part.first, |totals| totals.lost += part.spans());
                }
            }
            Settlement::DeadLetter { part, reason, reply } => {
                ledger.request_failures.add(1);
                let payload = self.body(&part).unwrap_or_default();
                let destination = self.options.name.clone();
                let letter = DeliveryLetter { destination, reason, reply, signal, payload };
                let kept = planted(Sabotage::LetterNotKept) || (self.options.keep_letter)(letter);
                let book = |totals: &mut DestinationTotals| {
                    *if kept { &mut totals.dead_lettered } else { &mut totals.lost } += part.spans();
                };
                self.options.window.settle(part.block, part.end - part.first, book);
            }
            Settlement::Abandoned { parts, .. } => {
                for part in parts.iter() {
                    let drop_part = |totals: &mut _| drop_spans(totals, DropReason::Lag, part.spans());
                    window.settle(part.block, part.end - part.first, drop_part);
                }
            }
        }
    }

    /// Lets go of what is settled.
    fn put_behind(&mut self) {
        let left = self.options.window.advance();
        self.payloads.drain(..left);
        self.received_ns.drain(..left);
        self.first_payload += left as u64;
        self.damaged = self.damaged.split_off(&self.first_payload);
        self.options.ledger.show(self.options.window.totals());
    }

    fn commit(&mut self, now: Duration) {
        self.committed_at = now;
        if self.orders.reads() {
            self.jump(now);
            self.leave_copies(now);
        }
        self.put_behind();
        if let Err(error) = self.options.place.commit(&mut self.options.window) {
            // The old cursor stands: after a crash more is sent twice, nothing is lost.
            tracing::warn!(destination = %self.options.name, %error, "the cursor could not be written");
        }
    }

    /// Moves the cursor out of segments that hold nothing but copies, as they are made when a sync fails: no block comes out
    /// of them, and yet a full log has room only when they are released.
    fn leave_copies(&mut self, now: Duration) {
        for lane in 0..self.options.readers.len() {
            let (front, start) = (self.options.window.front(lane), self.options.readers[lane].segment_start());
            let has_left = front.segment < start.segment && self.options.window.has_none_of(lane);
            if has_left && !planted(Sabotage::CopiesHeld) {
                let end = Position { sequence: front.sequence, spans: front.spans, ..start };
                self.pass_over(lane, end, now, |_| ());
            }
        }
    }

    /// An optional destination that lags too far gives up what it cannot keep up with.
    fn jump(&mut self, now: Duration) {
        for lane in 0..self.options.readers.len() {
            let Some(to) = self.options.place.jump(lane, &self.options.window) else { continue };
            let mut skipped = self.give_up_before(self.options.window.first_beyond(lane, to), DropReason::Lag);
            if self.options.readers[lane].position() < to {
                let unread = self.options.readers[lane].skip_to(to);
                let end = self.options.readers[lane].position();
                let counted = if planted(Sabotage::JumpNotCounted) { 0 } else { unread };
                self.pass_over(lane, end, now, |totals| drop_spans(totals, DropReason::Lag, counted));
                skipped += unread;
            }
            // What is on its way holds the cursor back, so the same jump is asked for until it is answered.
            if skipped > 0 {
                tracing::warn!(destination = %self.options.name, lane, skipped, "lags further than it may, spans are dropped");
            }
        }
    }

    /// Whether a lane's cursor has to jump now: until it has, it holds up everybody.
    fn lags_too_far(&self) -> bool {
        let mut lanes = 0..self.options.readers.len();
        lanes.any(|lane| self.options.place.jump(lane, &self.options.window).is_some())
    }

    /// Gives up what was read before block `next` and is not on its way; returns how many spans.
    fn give_up_before(&mut self, next: u64, reason: DropReason) -> u64 {
        let given_up = self.options.delivery.abandon(next);
        let mut under_way = vec![0u32; self.payloads.len()];
        for part in self.in_flight.iter().flat_map(|request| request.parts.iter()) {
            under_way[usize::try_from(part.block - self.first_payload).expect("an index into memory")] +=
                part.end - part.first;
        }
        for (index, under_way) in (self.first_payload..next).zip(under_way) {
            let left = self.options.window.unsettled(index) - under_way;
            self.options.window.settle(index, left, |totals| drop_spans(totals, reason, u64::from(left)));
        }
        given_up
    }
}

fn drop_spans(totals: &mut DestinationTotals, reason: DropReason, spans: u64) {
    totals.dropped[reason as usize] += spans;
}

/// A request's spans over its blocks. Which spans a peer refused, no protocol says: they are booked on the last ones.
fn settle_delivered(window: &mut Window<Position>, parts: &[Part], mut delivered: u64, mut redelivered: u64) {
    for part in parts {
        let taken = delivered.min(part.spans());
        let again = redelivered.min(taken);
        delivered -= taken;
        redelivered -= again;
        window.settle(part.block, part.end - part.first, |totals| {
            totals.delivered += taken;
            totals.refused_by_peer += part.spans() - taken;
            totals.redelivered += again;
        });
    }
}
