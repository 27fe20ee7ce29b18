//! The writer of a lane: takes blocks from the rings, appends them to the log, answers their producers.
//!
//! One thread a lane owns the appender and both writer ends. It never waits for a producer, a destination or a sync: what
//! cannot be answered yet stays in a per-producer queue in ticket order. A full log is met by the source's admission:
//! `block` keeps the block and stops taking from that ring until there is room, unless its sender awaits the answer: then
//! it is refused, counted, and the sender told to come again. `drop_newest` refuses every block, counted.
//!
//! Between ring and log a block goes through the lane's transforms, once: what has to wait waits as their result. A block
//! that they cannot do goes to the keeper of dead letters, and its sender is answered when it is durable there.
//!
//! The lane balance is kept here and only here, both sides at once, from the block's own counts.

mod away;
mod feed;
mod transforms;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::sync::Parker;

use super::outlet::WriterEnd;
use super::sabotage::{Sabotage, planted};
use super::sources::Admissions;
use super::sync::SyncRequest;
use super::turn::Turn;
use crate::block::{Block, Meta, Refusal, VerdictOutcome};
use crate::config::AckPolicy;
use crate::queue::{AppendError, Appender, Log};
use crate::sys::clock;
use crate::telemetry::health::Tick;
use crate::telemetry::ledger;
use crate::telemetry::tap::{Stage, Tap};
use crate::transform::{Cause, Outcome};

#[cfg(test)]
pub(super) use away::Worker;
pub use away::{DEEP_STACK_BYTES, on_a_deep_stack};
pub use feed::Kept;
use feed::{Fate, Feed, Reached, Side};
pub use transforms::{Change, Quarantined, Swap, Transforms};
use transforms::{Handed, Ran};
use work::{Held, Work};

/// Blocks taken from one ring before the others get their turn.
const BLOCKS_A_TURN: usize = 32;

/// Bytes appended, and time since the last time, after which destinations are told. Each is a wake-up of another thread:
/// told of every block, destinations would wake for less than they send.
const ANNOUNCE_BYTES: u64 = 512 * 1024;
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(2);

/// Processor time of transforms after which a turn goes on to the sync, the answers and the destinations.
const TRANSFORM_TIME: Duration = Duration::from_millis(2);

/// The longest sleep: the time in which a lane that is idle writes its commit-mark and tends its pool.
const IDLE: Duration = Duration::from_millis(50);

/// What the writer is told once.
pub struct WriterOptions {
    /// The lane's log.
    pub log: Arc<Log>,
    /// The lane's only appender.
    pub appender: Appender,
    /// The lane's balance.
    pub ledger: Arc<ledger::Lane>,
    /// When producers are told yes.
    pub ack: AckPolicy,
    /// What a full log does, by source.
    pub admission: Admissions,
    /// Unsynced bytes at which a sync is asked for.
    pub sync_bytes: u64,
    /// The sync thread.
    pub sync: SyncRequest,
    /// Refuse what does not fit instead of holding it: the drain is over.
    pub give_up: Arc<AtomicBool>,
    /// Who looks at what passes.
    pub tap: Arc<Tap>,
}

/// The writer of one lane.
pub struct LaneWriter {
    options: WriterOptions,
    transforms: Transforms,
    feeds: Vec<Feed>,
    /// The feed whose turn is first: the one at which the last turn was broken off.
    first: usize,
    /// Bytes that destinations have not been told of, and when they were last told of some.
    unannounced_bytes: u64,
    announced_at: Duration,
}

impl LaneWriter {
    /// A writer for the producers behind `ends`.
    #[must_use]
    pub fn new(options: WriterOptions, transforms: Transforms, ends: Vec<WriterEnd>) -> LaneWriter {
        LaneWriter {
            options,
            transforms,
            feeds: ends.into_iter().map(Feed::new).collect(),
            first: 0,
            unannounced_bytes: 0,
            announced_at: Duration::ZERO,
        }
    }

    /// The thread's body.
    pub fn run(mut self, parker: &Parker, tick: &Tick) {
        loop {
            let turn = self.turn(clock::monotonic(), clock::wall_ns());
            tick.tick(clock::monotonic());
            match turn {
                Turn::Again => {}
                Turn::Wait(time) => parker.park_timeout(time),
                Turn::Ended => break,
            }
        }
        self.end(clock::wall_ns());
    }

    /// Takes what has come, appends, answers. Ended once every producer has dropped its outlet, every ticket is answered, and
    /// what is in the log is durable.
    pub fn turn(&mut self, now: Duration, wall_ns: u64) -> Turn {
        self.transforms.adopt();
        self.welcome();
        let took = self.take(now);
        self.answer();
        self.announce(now);
        // Also without a block that asks for it: senders may wait until they are told that there is room.
        if self.options.ledger.is_full.get() > 0 && self.options.appender.has_room() {
            self.options.ledger.is_full.set(0);
        }
        // Commit-marks. A full log is met when a block needs the room.
        match self.options.appender.maintain(now, wall_ns) {
            Ok(()) | Err(AppendError::Full) => {}
            Err(error) => tracing::debug!(%error, "the log could not be maintained"),
        }
        if self.feeds.iter().all(Feed::is_finished) {
            if self.may_leave() {
                return Turn::Ended;
            }
            self.options.sync.request();
        }
        match took {
            true => Turn::Again,
            false if self.unannounced_bytes > 0 => Turn::Wait(ANNOUNCE_INTERVAL),
            false => Turn::Wait(IDLE),
        }
    }

    /// Nothing in the log needs its writer any more: should a sync fail, nobody else moves the blocks to another file.
    fn may_leave(&self) -> bool {
        let log = &self.options.log;
        log.durable_sequence() >= log.published_sequence() || log.has_failed() || self.gives_up()
    }

    /// After the last turn: the balance rides in a last mark.
    pub fn end(mut self, wall_ns: u64) {
        let totals = self.options.ledger.snapshot();
        if let Err(error) = self.options.appender.commit_mark(totals, wall_ns) {
            // Recovery rolls forward from the mark before.
            tracing::warn!(%error, "no commit-mark could be written at the end");
        }
        self.options.appender.wake_readers();
    }

    /// Takes blocks from every ring in turn. True when there may be more at once.
    fn take(&mut self, now: Duration) -> bool {
        let (mut took, mut awaited, mut broken_off) = (false, false, None);
        for turn in 0..self.feeds.len() {
            let index = (self.first + turn) % self.feeds.len();
            for _ in 0..BLOCKS_A_TURN {
                let feed = &mut self.feeds[index];
                let Some(held) = feed.held.take().or_else(|| feed.end.pop().map(Held::New)) else { break };
                awaited |= held.is_awaited() && self.options.ack == AckPolicy::Durable;
                if let Some(wait) = self.admit(index, held, now) {
                    self.feeds[index].held = Some(wait);
                    break;
                }
                took = true;
            }
            if self.transforms.spent() >= TRANSFORM_TIME {
                broken_off = Some((index + 1) % self.feeds.len());
                break;
            }
        }
        self.first = broken_off.unwrap_or(0);
        if awaited || self.options.log.unsynced_bytes() >= self.options.sync_bytes {
            self.options.sync.request();
        }
        took || broken_off.is_some()
    }

    /// Wakes the destinations when there is something worth it, or when it has waited long enough.
    fn announce(&mut self, now: Duration) {
        let waited = now.saturating_sub(self.announced_at) >= ANNOUNCE_INTERVAL;
        if self.unannounced_bytes >= ANNOUNCE_BYTES || (self.unannounced_bytes > 0 && waited) {
            self.unannounced_bytes = 0;
            self.announced_at = now;
            self.options.appender.wake_readers();
        }
    }

    /// Brings a block as far as it gets now; gives back what has to wait.
    fn admit(&mut self, index: usize, held: Held, now: Duration) -> Option<Held> {
        if let Held::New(block) = &held {
            self.options.tap.offer(Stage::Received, &block.meta, &block.payload);
        }
        match held {
            Held::New(block) if self.transforms.takes(&block) => self.transform(index, block, now),
            Held::New(block) => self.append(index, Work::whole(block)),
            Held::Away(whole, ..) if self.gives_up() => {
                self.refuse(index, std::iter::once(&whole), Refusal::Draining);
                None
            }
            Held::Away(..) => Some(held),
            Held::Back(block, outcome) => self.settle(index, block, outcome),
            Held::Work(work) => self.append(index, work),
            Held::Aside(block, cause) => self.keep_aside(index, block, cause),
        }
    }

    fn transform(&mut self, index: usize, block: Block, now: Duration) -> Option<Held> {
        // What would be refused for want of room is not worth the work: it will come again.
        if block.awaited && !self.options.appender.has_room() {
            self.refuse(index, std::iter::once(&block.meta), self.refusal(&AppendError::Full));
            return None;
        }
        let (whole, awaited) = (block.meta, block.awaited);
        match self.transforms.run(index, block, now) {
            Ran::Done(block, outcome) => self.settle(index, block, outcome),
            Ran::Away(serial) => Some(Held::Away(whole, awaited, serial)),
        }
    }

    /// Takes the blocks that are back from the chain. What was given up meanwhile is answered and nobody's any more.
    fn welcome(&mut self) {
        while let Some(job) = self.transforms.returned() {
            if planted(Sabotage::BackForgotten) && !self.options.appender.has_room() {
                continue;
            }
            let held = &mut self.feeds[job.feed].held;
            if matches!(held, Some(Held::Away(_, _, serial)) if *serial == job.serial) {
                *held = Some(Held::Back(job.block, job.result));
            }
        }
    }

    /// Does with a block what the chain says.
    fn settle(&mut self, index: usize, block: Block, outcome: Outcome) -> Option<Held> {
        match outcome {
            Outcome::Untouched => self.append(index, Work::whole(block)),
            Outcome::Aside(cause) => self.keep_aside(index, block, cause),
            Outcome::Changed(pieces) => {
                let Block { meta: whole, payload, awaited } = block;
                self.transforms.recycle(payload);
                if pieces.is_empty() {
                    book(&self.options.ledger, &whole, Side::Dropped);
                    self.feeds[index].decide(Fate::Known(VerdictOutcome::Durable));
                    return None;
                }
                self.append(index, Work::pieces(&whole, pieces, awaited))
            }
        }
    }

    /// Appends every piece or decides against those that are left.
    fn append(&mut self, index: usize, mut work: Work) -> Option<Held> {
        loop {
            let Work { block, .. } = &work;
            let sequence = match self.options.appender.append(&block.meta, &block.payload) {
                Ok(sequence) => sequence,
                Err(AppendError::Full) if self.waits(&work) => {
                    self.options.ledger.is_full.set(1);
                    return (!planted(Sabotage::HeldForgotten)).then_some(Held::Work(work));
                }
                Err(error) => {
                    self.not_appended(index, &work, &error);
                    return None;
                }
            };
            self.options.tap.offer(Stage::Stored, &block.meta, &block.payload);
            book(&self.options.ledger, &block.meta, Side::Appended);
            let (awaited, bytes) = (block.awaited, block.payload.len() as u64);
            if let Some(dropped) = work.take_dropped() {
                book(&self.options.ledger, &dropped, Side::Dropped);
            }
            self.options.ledger.appended_blocks.add(1);
            self.options.ledger.appended_bytes.add(bytes);
            self.unannounced_bytes += bytes;
            let (more, buffer) = work.advance(sequence);
            self.feeds[index].end.recycle(buffer);
            if !more {
                let fate = match (awaited, self.options.ack) {
                    (true, AckPolicy::Durable) if !planted(Sabotage::VerdictBeforeSync) => Fate::Until(sequence),
                    _ => Fate::Known(VerdictOutcome::Durable),
                };
                self.feeds[index].decide(fate);
                return None;
            }
        }
    }

    /// What is left of a block cannot be appended. If some of it was, nobody can say yes or no to its sender.
    fn not_appended(&mut self, index: usize, work: &Work, error: &AppendError) {
        if planted(Sabotage::FullAcknowledged) && matches!(error, AppendError::Full) {
            work.left().for_each(|meta| book(&self.options.ledger, meta, Side::Refused));
            self.feeds[index].decide(Fate::Known(VerdictOutcome::Durable));
        } else if work.appended.is_some() {
            work.left().for_each(|meta| book(&self.options.ledger, meta, Side::Refused));
            self.feeds[index].decide(Fate::Known(VerdictOutcome::Unknown));
        } else {
            let refusal = self.refusal(error);
            // Who awaits no answer does not come again: what is refused is gone.
            if refusal == Refusal::Full && !work.block.awaited {
                let spans = work.left().map(|meta| u64::from(meta.spans)).sum();
                self.options.admission.dropped(work.block.meta.source, spans);
            }
            self.refuse(index, work.left(), refusal);
        }
    }

    fn refuse<'a>(&mut self, index: usize, refused: impl Iterator<Item = &'a Meta>, refusal: Refusal) {
        if refusal == Refusal::Full {
            self.options.ledger.is_full.set(1);
        }
        refused.for_each(|meta| book(&self.options.ledger, meta, Side::Refused));
        self.feeds[index].decide(Fate::Known(VerdictOutcome::Refused(refusal)));
    }

    /// Hands a block to the keeper of dead letters; gives it back when that has to wait. What came from there is there.
    fn keep_aside(&mut self, index: usize, block: Block, cause: Cause) -> Option<Held> {
        if self.feeds[index].end.of_letters {
            self.refuse(index, std::iter::once(&block.meta), Refusal::Transforms);
            return None;
        }
        match self.transforms.keep_aside(block, cause) {
            Handed::Over(letter) => self.feeds[index].decide(Fate::Letter(Box::new(letter))),
            Handed::Back(block, cause) if !self.gives_up() => return Some(Held::Aside(block, cause)),
            Handed::Back(block, _) => self.refuse(index, std::iter::once(&block.meta), Refusal::Draining),
            Handed::Never(block) => self.refuse(index, std::iter::once(&block.meta), Refusal::Storage),
        }
        None
    }

    /// A sender that awaits an answer is not kept waiting for room: it is told to come again. But what has begun is brought
    /// to its end if it can be.
    fn waits(&self, work: &Work) -> bool {
        let may_wait = !work.block.awaited && self.options.admission.blocks(work.block.meta.source);
        !self.gives_up() && (may_wait || work.appended.is_some())
    }

    fn gives_up(&self) -> bool {
        // Relaxed: a flag that is only ever set, and seen within a turn.
        self.options.give_up.load(Ordering::Relaxed)
    }

    fn refusal(&self, error: &AppendError) -> Refusal {
        match error {
            AppendError::Full if self.gives_up() => Refusal::Draining,
            AppendError::Full => Refusal::Full,
            _ => Refusal::Storage,
        }
    }

    /// Answers every ticket whose fate is known.
    fn answer(&mut self) {
        let log = &self.options.log;
        // Nobody waits for room, also not for that of blocks that stand in a file whose sync failed.
        let unknown = log.has_failed() || self.options.appender.is_stuck();
        let reached = Reached { durable: log.durable_sequence(), unknown, give_up: self.gives_up() };
        let ledger = &self.options.ledger;
        for feed in &mut self.feeds {
            feed.answer(reached, &mut |meta, side| book(ledger, meta, side));
        }
    }
}

/// Books spans on both sides of the lane balance.
fn book(lane: &ledger::Lane, meta: &Meta, side: Side) {
    lane.encoded.add(u64::from(meta.records));
    lane.passed.add(u64::from(meta.passed()));
    lane.synthesised.add(u64::from(meta.synthesised()));
    let spans = u64::from(meta.spans);
    match side {
        Side::Appended => lane.appended.add(spans),
        Side::Dropped if planted(Sabotage::DroppedAsRefused) => lane.refused.add(spans),
        Side::Dropped => lane.transform_dropped.add(spans),
        Side::Refused if planted(Sabotage::RefusedNotBooked) => {}
        Side::Refused => lane.refused.add(spans),
    }
}
