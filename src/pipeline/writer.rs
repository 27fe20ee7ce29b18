//! The writer of a lane: takes blocks from the rings, appends them to the log, answers their producers.
//!
//! One thread a lane owns the appender and both writer ends. It never waits for a producer, a destination or a sync: what
//! cannot be answered yet stays in a per-producer queue in ticket order. A full log is met by the source's admission:
//! `block` keeps the block and stops taking from that ring until there is room, unless its sender awaits the answer: then
//! it is refused, counted, and the sender told to come again. `drop_newest` refuses every block, counted.
//!
//! The lane balance is kept here and only here, both sides at once, from the block's own counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::sync::Parker;

use super::outlet::WriterEnd;
use super::sabotage::{Sabotage, planted};
use super::sources::Admissions;
use super::sync::SyncRequest;
use super::turn::Turn;
use crate::block::{Block, Refusal, Ticket, VerdictOutcome};
use crate::config::AckPolicy;
use crate::queue::{AppendError, Appender, Log};
use crate::sys::clock;
use crate::telemetry::health::Tick;
use crate::telemetry::ledger;

/// Blocks taken from one ring before the others get their turn.
const BLOCKS_A_TURN: usize = 32;

/// Bytes appended, and time since the last time, after which destinations are told. Each is a wake-up of another thread:
/// told of every block, destinations would wake for less than they send.
const ANNOUNCE_BYTES: u64 = 512 * 1024;
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(2);

/// The longest sleep: the time in which a lane that is idle writes its commit-mark and tends its pool.
const IDLE: Duration = Duration::from_millis(50);

/// What becomes of a ticket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Known(VerdictOutcome),
    /// Durable once this sequence is.
    Until(u64),
}

/// One producer as the writer sees it.
struct Feed {
    end: WriterEnd,
    next: Ticket,
    /// Taken, and the log was full.
    held: Option<Block>,
    unanswered: VecDeque<(Ticket, Fate)>,
}

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
}

/// The writer of one lane.
pub struct LaneWriter {
    options: WriterOptions,
    feeds: Vec<Feed>,
    /// Bytes that destinations have not been told of, and when they were last told of some.
    unannounced_bytes: u64,
    announced_at: Duration,
}

impl LaneWriter {
    /// A writer for the producers behind `ends`.
    #[must_use]
    pub fn new(options: WriterOptions, ends: Vec<WriterEnd>) -> LaneWriter {
        let feed = |end| Feed { end, next: Ticket(0), held: None, unanswered: VecDeque::new() };
        LaneWriter {
            options,
            feeds: ends.into_iter().map(feed).collect(),
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
        let took = self.take();
        self.answer();
        self.announce(now);
        // Commit-marks. A full log is met when a block needs the room.
        match self.options.appender.maintain(now, wall_ns) {
            Ok(()) | Err(AppendError::Full) => {}
            Err(error) => tracing::debug!(%error, "the log could not be maintained"),
        }
        if self.feeds.iter().all(|feed| feed.held.is_none() && feed.unanswered.is_empty() && feed.end.is_finished()) {
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
        // Relaxed: as in `waits`.
        let gives_up = self.options.give_up.load(Ordering::Relaxed);
        log.durable_sequence() >= log.published_sequence() || log.has_failed() || gives_up
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
    fn take(&mut self) -> bool {
        let mut took = false;
        let mut awaited = false;
        for index in 0..self.feeds.len() {
            for _ in 0..BLOCKS_A_TURN {
                let feed = &mut self.feeds[index];
                let Some(block) = feed.held.take().or_else(|| feed.end.pop()) else { break };
                awaited |= block.awaited && self.options.ack == AckPolicy::Durable;
                if !self.admit(index, block) {
                    break;
                }
                took = true;
            }
        }
        if awaited || self.options.log.unsynced_bytes() >= self.options.sync_bytes {
            self.options.sync.request();
        }
        took
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

    /// Appends one block or decides against it. False when it has to wait for room.
    fn admit(&mut self, index: usize, block: Block) -> bool {
        let fate = match self.options.appender.append(&block.meta, &block.payload) {
            Ok(sequence) => {
                self.book(&block, false);
                self.unannounced_bytes += block.payload.len() as u64;
                match (block.awaited, self.options.ack) {
                    (true, AckPolicy::Durable) if !planted(Sabotage::VerdictBeforeSync) => Fate::Until(sequence),
                    _ => Fate::Known(VerdictOutcome::Durable),
                }
            }
            Err(AppendError::Full) if self.waits(&block) => {
                if planted(Sabotage::HeldForgotten) {
                    return false;
                }
                self.feeds[index].held = Some(block);
                return false;
            }
            Err(AppendError::Full) if planted(Sabotage::FullAcknowledged) => {
                self.book(&block, true);
                Fate::Known(VerdictOutcome::Durable)
            }
            Err(error) => {
                self.book(&block, true);
                Fate::Known(VerdictOutcome::Refused(self.refusal(&error)))
            }
        };
        let feed = &mut self.feeds[index];
        feed.unanswered.push_back((feed.next, fate));
        feed.next = Ticket(feed.next.0 + 1);
        feed.end.recycle(block.payload);
        true
    }

    /// A sender that awaits an answer is not kept waiting for room: it is told to come again.
    fn waits(&self, block: &Block) -> bool {
        // Relaxed: a flag that is only ever set, and seen within a turn.
        !block.awaited
            && !self.options.give_up.load(Ordering::Relaxed)
            && self.options.admission.blocks(block.meta.source)
    }

    fn refusal(&self, error: &AppendError) -> Refusal {
        match error {
            // Relaxed: as in `waits`.
            AppendError::Full if self.options.give_up.load(Ordering::Relaxed) => Refusal::Draining,
            AppendError::Full => Refusal::Full,
            _ => Refusal::Storage,
        }
    }

    fn book(&self, block: &Block, refused: bool) {
        let (lane, meta) = (&self.options.ledger, &block.meta);
        lane.encoded.add(u64::from(meta.records));
        lane.passed.add(u64::from(meta.passed()));
        lane.synthesised.add(u64::from(meta.synthesised()));
        if !refused {
            lane.appended.add(u64::from(meta.spans));
            lane.appended_blocks.add(1);
            lane.appended_bytes.add(block.payload.len() as u64);
        } else if !planted(Sabotage::RefusedNotBooked) {
            lane.refused.add(u64::from(meta.spans));
        }
    }

    /// Answers, in order, every ticket whose fate is known, ranges of one outcome at once.
    fn answer(&mut self) {
        let durable = self.options.log.durable_sequence();
        let failed = self.options.log.has_failed();
        for feed in &mut self.feeds {
            let mut range: Option<(Ticket, Ticket, VerdictOutcome)> = None;
            while let Some(&(ticket, fate)) = feed.unanswered.front() {
                let outcome = match fate {
                    Fate::Known(outcome) => outcome,
                    Fate::Until(sequence) if sequence <= durable => VerdictOutcome::Durable,
                    Fate::Until(_) if failed && planted(Sabotage::UnknownAcknowledged) => VerdictOutcome::Durable,
                    Fate::Until(_) if failed => VerdictOutcome::Unknown,
                    Fate::Until(_) => break,
                };
                feed.unanswered.pop_front();
                range = match range {
                    Some((first, _, same)) if same == outcome => Some((first, ticket, same)),
                    Some((first, last, other)) => {
                        feed.end.answer(first, last, other);
                        Some((ticket, ticket, outcome))
                    }
                    None => Some((ticket, ticket, outcome)),
                };
            }
            if let Some((first, last, outcome)) = range {
                feed.end.answer(first, last, outcome);
            }
        }
    }
}
