//! The reactor: one pinned thread a lane that takes uberAgent's lines over raw TCP at full speed.
//!
//! A loop of two steps. [`Reactor::wait`] sleeps in epoll and turns events into `ready` marks; [`Reactor::turn`] does a
//! bounded amount of everything: hand blocks over, accept, read, decode, close aged blocks, look for silent connections.
//! Connections are edge-triggered and stay marked until a read finds less than it could take, so pausing needs no system
//! call: a marked connection is simply not read. Reads go into one scratch buffer; `connection` says what a connection keeps.
//!
//! Backpressure: a full ring stops reading, and the kernel's window slows the sender. A sender of lines cannot be told
//! "later", and an endlessly closed window looks like a slow but reachable backend, so after `pause_limit` this lane
//! declares an overload: on every lane established connections are drained and closed and new ones are reset, until
//! there is room again. Rows of a closing connection that find no room are dead letters, counted and kept if possible.
//!
//! Promise to the sender: none; the protocol has no answer. What was decoded is as safe as its block. Every record that was
//! read is on the front balance after every turn. Time is an argument; only [`Reactor::run`] reads clocks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::Receiver;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;

use self::accept::Gate;
use self::connection::Connections;
use self::decode::Decoder;
use self::outflow::Outflow;
use self::read::{Reading, WrongProtocolLog};
use super::admission::{ConnectionTable, Overload};
use super::{DoorChanges, LineCounters, ReactorCounters};
use crate::block::{DeadLetterSender, Outlet, SourceId};
use crate::config::TcpLimits;
use crate::sys::clock;
use crate::sys::doorbell::Doorbell;
use crate::sys::socket::Listener;
use crate::telemetry::ledger::Front;
use crate::uberagent::Encoder;

mod accept;
mod adopt;
mod connection;
mod decode;
mod outflow;
mod read;

/// Bytes of the buffer that a lane reads into; bigger reads are cheaper a byte up to about here.
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// Bytes that a lane keeps of unfinished lines, over all its connections.
pub const MAX_UNFINISHED_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of closed blocks that wait for the ring before rows of closing connections are dead letters.
pub const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// An open block waits so long for more rows.
const BLOCK_AGE: Duration = Duration::from_millis(2);

/// Connections that we close are read for so long at most.
const ENDING_LIMIT: Duration = Duration::from_millis(250);

/// On stopping, decoded blocks wait so long for room. The writer answers everything before; this is for a writer that died.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(10);

/// Longest sleep: another lane's overload, and the watchdog's count of turns, need no doorbell.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Silent connections are looked for so often, so many slots a turn.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const SWEEP_SLOTS: usize = 1024;

const EVENTS_PER_WAIT: usize = 1024;

/// The doorbell's token; listeners count down from the next one, connections count up from zero.
const DOORBELL: Token = Token(usize::MAX);
const FIRST_GATE: usize = usize::MAX - 1;

/// Tokens for listeners: many more than a lane ever has.
const MAX_GATES: usize = 1 << 16;

/// One source as this lane serves it.
#[derive(Debug)]
pub struct Door {
    /// This lane's listeners.
    pub listeners: Vec<Listener>,
    /// The receiver's source id; the encoder was made for it.
    pub source: SourceId,
    /// The receiver's bounds.
    pub limits: TcpLimits,
    /// The receiver's connections over all lanes.
    pub table: Arc<ConnectionTable>,
    /// This lane's encoder of the source.
    pub encoder: Encoder,
    /// This lane's front balance of the source.
    pub front: Arc<Front>,
    /// This lane's other counters of the source.
    pub counters: Arc<LineCounters>,
}

/// Everything that a reactor works with.
#[derive(Debug)]
pub struct ReactorOptions<O> {
    /// The sources.
    pub doors: Vec<Door>,
    /// The ring to the lane's writer.
    pub outlet: O,
    /// Rung by the writer when a parked reactor has verdicts, and by whoever sets `stop`.
    pub doorbell: Doorbell,
    /// Where undecodable records go.
    pub dead_letters: DeadLetterSender,
    /// Shared by all lanes.
    pub overload: Arc<Overload>,
    /// What this reactor says of itself.
    pub counters: Arc<ReactorCounters>,
    /// Set, then ring the doorbell: the reactor drains and returns.
    pub stop: Arc<AtomicBool>,
    /// Changes of the doors; ring the doorbell after sending one.
    pub changes: Receiver<DoorChanges<Door>>,
}

/// What is left to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go on.
    Going,
    /// Everything that was read is handed over; the reactor is of no more use.
    Drained,
}

/// Whether peers are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Serving,
    /// Some lane is overloaded: connections are closed, new ones reset.
    Overloaded,
    /// The process stops; what was decoded is given up at `give_up_at`.
    Draining {
        give_up_at: Duration,
    },
}

/// The reactor of one lane. See the module.
pub struct Reactor<O> {
    poll: Poll,
    events: Events,
    doorbell: Doorbell,
    gates: Vec<Gate>,
    sources: Vec<Source>,
    changes: Receiver<DoorChanges<Door>>,
    dead_letters: DeadLetterSender,
    connections: Connections,
    reading: Reading,
    outflow: Outflow<O>,
    wrong_protocols: WrongProtocolLog,
    mode: Mode,
    /// This lane has declared an overload.
    declared: bool,
    /// Connections that we close are cut then.
    ending_at: Option<Duration>,
    next_sweep_at: Duration,
    sweep_slot: usize,
    overload: Arc<Overload>,
    counters: Arc<ReactorCounters>,
    stop: Arc<AtomicBool>,
}

/// A door behind its gates.
struct Source {
    id: SourceId,
    decoder: Decoder,
    limits: TcpLimits,
    table: Arc<ConnectionTable>,
    /// When the turn began that opened the encoder's oldest block.
    open_since: Option<Duration>,
    /// The receiver is not in the configuration any more.
    removed: bool,
}

impl<O: Outlet> Reactor<O> {
    /// A reactor that listens. Fails when the process is out of descriptors or kernel memory.
    pub fn new(options: ReactorOptions<O>) -> io::Result<Reactor<O>> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&options.doorbell.as_raw_fd()), DOORBELL, Interest::READABLE)?;
        let mut gates = Vec::new();
        let mut sources = Vec::new();
        for (index, door) in options.doors.into_iter().enumerate() {
            for listener in door.listeners {
                gates.push(Gate::open(listener, index, &poll, FIRST_GATE - gates.len())?);
            }
            let dead_letters = options.dead_letters.clone();
            let decoder = Decoder::new(door.encoder, door.source, door.front, door.counters, dead_letters);
            let Door { source: id, limits, table, .. } = door;
            sources.push(Source { id, decoder, limits, table, open_since: None, removed: false });
        }
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            doorbell: options.doorbell,
            gates,
            sources,
            changes: options.changes,
            dead_letters: options.dead_letters,
            connections: Connections::default(),
            reading: Reading::new(),
            outflow: Outflow::new(options.outlet, options.counters.clone()),
            wrong_protocols: WrongProtocolLog::default(),
            mode: Mode::Serving,
            declared: false,
            ending_at: None,
            next_sweep_at: Duration::ZERO,
            sweep_slot: 0,
            overload: options.overload,
            counters: options.counters,
            stop: options.stop,
        })
    }

    /// Serves until it is told to stop and everything read is handed over. Fails only when epoll itself does.
    pub fn run(mut self) -> io::Result<()> {
        let mut now = clock::monotonic();
        loop {
            let timeout = self.timeout(now);
            self.wait(timeout)?;
            now = clock::monotonic();
            if self.turn(now, clock::wall_ns()) == Turn::Drained {
                return Ok(());
            }
        }
    }

    /// Sleeps until something happens, at most for `timeout`, and marks what can be worked on.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            done => done?,
        }
        for event in &self.events {
            if event.token() == DOORBELL {
                self.doorbell.answer();
            } else if event.token().0 > FIRST_GATE - MAX_GATES {
                // One that was shut in the turn before may still be spoken of.
                self.gates.iter_mut().filter(|gate| gate.is(event.token())).for_each(|gate| gate.waiting = true);
            } else if let Some(connection) = self.connections.get_mut(event.token().0) {
                connection.peer_ended |= event.is_read_closed() || event.is_error();
                self.reading.mark(event.token().0, connection);
            }
        }
        Ok(())
    }

    /// Does a bounded amount of what there is to do at `now`; records that are read are received at `wall_ns`.
    pub fn turn(&mut self, now: Duration, wall_ns: u64) -> Turn {
        self.counters.turns.add(1);
        self.outflow.hand_over(now);
        self.change_mode(now);
        self.adopt(now);
        self.accept(now);
        self.read(now, wall_ns);
        self.cut_endings(now, wall_ns);
        self.close_aged_blocks(now);
        self.sweep(now, wall_ns);
        self.finish_drain(now)
    }

    /// How long [`Reactor::wait`] may sleep after a turn at `now`. Parks the outlet when only room can help.
    pub fn timeout(&mut self, now: Duration) -> Duration {
        let blocked = self.outflow.is_blocked() && self.outflow.park(now);
        if self.reading.has_ready() && (!blocked || self.ending_at.is_some()) {
            return Duration::ZERO;
        }
        let mut until = now + MAX_WAIT;
        let mut at_latest = |deadline: Option<Duration>| until = deadline.map_or(until, |at| until.min(at));
        at_latest(self.ending_at);
        at_latest((self.connections.open() > 0).then_some(self.next_sweep_at));
        for gate in &self.gates {
            at_latest(gate.rests_until());
        }
        if !blocked {
            for source in &self.sources {
                at_latest(source.open_since.map(|since| since + BLOCK_AGE));
            }
        } else if !self.declared {
            at_latest(self.outflow.blocked_since().map(|since| since + self.pause_limit()));
        }
        until.saturating_sub(now)
    }

    /// Connections that are open on this lane.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    fn pause_limit(&self) -> Duration {
        let served = self.sources.iter().filter(|source| !source.removed);
        served.map(|source| source.limits.pause_limit).min().unwrap_or(Duration::MAX)
    }

    fn change_mode(&mut self, now: Duration) {
        if matches!(self.mode, Mode::Draining { .. }) {
            return;
        }
        // Acquire pairs with the store of whoever stops us; nothing but the flag itself is read.
        if self.stop.load(Ordering::Acquire) {
            self.mode = Mode::Draining { give_up_at: now + HAND_OVER_LIMIT };
            self.withdraw_overload();
            self.refuse_waiting("draining", |_| true);
            self.gates.clear();
            self.end_all(now);
            return;
        }
        match self.outflow.blocked_since() {
            Some(since) if !self.declared && now.saturating_sub(since) >= self.pause_limit() => {
                self.declared = true;
                self.overload.declare();
                self.counters.overloads.add(1);
                tracing::warn!("the log takes nothing: connections of line receivers are closed until it does");
            }
            Some(_) => {}
            None => self.withdraw_overload(),
        }
        match (self.mode, self.overload.is_declared()) {
            (Mode::Serving, true) => {
                self.mode = Mode::Overloaded;
                self.end_all(now);
            }
            (Mode::Overloaded, false) => self.mode = Mode::Serving,
            _ => {}
        }
    }

    fn withdraw_overload(&mut self) {
        if std::mem::take(&mut self.declared) {
            self.overload.withdraw();
            tracing::info!("the log takes blocks again: line receivers serve their peers");
        }
    }

    fn close_aged_blocks(&mut self, now: Duration) {
        let draining = matches!(self.mode, Mode::Draining { .. });
        for source in &mut self.sources {
            source.open_since = source.decoder.encoder.open_since_ns().and(source.open_since.or(Some(now)));
            let aged = source.open_since.is_some_and(|since| now.saturating_sub(since) >= BLOCK_AGE);
            // While the ring is full an open block may as well go on filling.
            if draining || (aged && !self.outflow.is_blocked()) {
                while let Some(block) = source.decoder.encoder.close() {
                    source.decoder.encoder.recycle(self.outflow.take(block));
                }
                source.open_since = None;
            }
        }
    }

    fn finish_drain(&mut self, now: Duration) -> Turn {
        let Mode::Draining { give_up_at } = self.mode else {
            return Turn::Going;
        };
        if self.connections.open() > 0 {
            return Turn::Going;
        }
        if self.outflow.has_waiting() {
            if now < give_up_at {
                return Turn::Going;
            }
            self.outflow.abandon();
            tracing::error!("the writer took no more blocks: decoded records were lost on stopping");
        }
        Turn::Drained
    }
}

impl<O> Drop for Reactor<O> {
    fn drop(&mut self) {
        // A lane that is gone must not keep the others closed.
        if self.declared {
            self.overload.withdraw();
        }
    }
}

#[cfg(test)]
mod tests;
