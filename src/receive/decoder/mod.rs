//! A receiver whose bytes a plugin turns into records: raw TCP, on a thread of its own, so that nobody else waits for it.
//!
//! One thread a receiver: it accepts, reads, has the plugin decode, and hands blocks to its lane's ring. Backpressure: while
//! the ring is full nothing is read, and the kernel's window slows the sender. What the plugin answers a peer goes out
//! once the records before it are durable; when they cannot be, the connection is closed without it, and the peer sends
//! again. Time is an argument but in [`Decoder::run`].

mod records;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

pub use self::records::{Books, Broken, Link, Records};
use super::LineCounters;
use super::admission::{ConnectionTable, Place};
use crate::block::{DeadLetterSender, Outlet, SourceId, VerdictOutcome};
use crate::config::PluginReceive;
use crate::config::budget::DECODER_UNREAD_BYTES;
use crate::plugin::Instance;
use crate::sys::clock;
use crate::sys::doorbell::Doorbell;
use crate::sys::socket::{Listener, reset_on_close};
use crate::telemetry::health::Tick;
use crate::telemetry::ledger::Front;

/// Bytes of a read, and reads a turn.
const READ_BYTES: usize = 64 * 1024;
const READS_PER_TURN: usize = 16;

/// Connections accepted a turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Bytes that wait for a peer to take them.
const MAX_OUTGOING_BYTES: usize = 64 * 1024;

/// Longest sleep: idle connections are looked for when it is over.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A listener that cannot accept is left alone for so long.
const REST: Duration = Duration::from_millis(100);

/// On stopping, blocks wait so long for room, and replies for their blocks.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(10);

const DOORBELL: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

/// What a decoder works with.
pub struct DecoderOptions<O> {
    /// The receiver's listener.
    pub listener: Listener,
    /// Its bounds.
    pub limits: PluginReceive,
    /// Its connections.
    pub table: Arc<ConnectionTable>,
    /// Its number.
    pub source: SourceId,
    /// The plugin, of the world `decode`.
    pub instance: Instance,
    /// The ring to the lane's writer.
    pub outlet: O,
    /// Rung by the writer when a parked decoder has verdicts, and by whoever sets `stop`.
    pub doorbell: Doorbell,
    /// Where undecodable records go.
    pub dead_letters: DeadLetterSender,
    /// The front balance of the source.
    pub front: Arc<Front>,
    /// What is counted of it besides.
    pub counters: Arc<LineCounters>,
    /// Set, then ring the doorbell: the decoder hands over what it has and ends.
    pub stop: Arc<AtomicBool>,
}

struct Connection {
    stream: TcpStream,
    link: Link,
    /// The peer has closed its side, and waits for replies.
    peer_ended: bool,
    heard_at: Duration,
    /// There may be something to read.
    ready: bool,
    outgoing: Vec<u8>,
    _place: Place,
}

/// See the module.
pub struct Decoder<O> {
    poll: Poll,
    doorbell: Doorbell,
    listener: Listener,
    accepts: bool,
    rests_until: Option<Duration>,
    limits: PluginReceive,
    table: Arc<ConnectionTable>,
    connections: Vec<Option<Connection>>,
    ready: VecDeque<usize>,
    opened_ever: u64,
    records: Records,
    outlet: O,
    /// Blocks whose fate is known.
    answered: u64,
    pushed: u64,
    scratch: Box<[u8]>,
    stop: Arc<AtomicBool>,
}

impl<O: Outlet> Decoder<O> {
    /// A decoder that listens. Fails when the process is out of descriptors.
    pub fn new(options: DecoderOptions<O>) -> io::Result<Decoder<O>> {
        let DecoderOptions {
            listener,
            limits,
            table,
            source,
            instance,
            outlet,
            doorbell,
            dead_letters,
            front,
            counters,
            stop,
        } = options;
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&doorbell.as_raw_fd()), DOORBELL, Interest::READABLE)?;
        listener.watch(&poll, LISTENER.0 as u64)?;
        let books = Books { source, front, counters, dead_letters };
        let records = Records::new(instance, books, limits.max_record_bytes);
        let (connections, ready) = (Vec::new(), VecDeque::new());
        let scratch = vec![0; READ_BYTES].into_boxed_slice();
        Ok(Decoder {
            poll,
            doorbell,
            listener,
            accepts: false,
            rests_until: None,
            limits,
            table,
            connections,
            ready,
            opened_ever: 0,
            records,
            outlet,
            answered: 0,
            pushed: 0,
            scratch,
            stop,
        })
    }

    /// The thread's body. Fails when epoll does.
    pub fn run(mut self, tick: &Tick) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        // Acquire pairs with the Release of whoever stops the producers.
        while !self.stop.load(Ordering::Acquire) {
            let now = clock::monotonic();
            tick.tick(now);
            self.turn(now, clock::wall_ns());
            let wait = if self.is_done_for_now() { MAX_WAIT } else { Duration::ZERO };
            self.wait(&mut events, self.rests_until.map_or(wait, |_| wait.min(REST)))?;
        }
        self.drain(&mut events, tick)
    }

    /// A bounded amount of everything.
    fn turn(&mut self, now: Duration, wall_ns: u64) {
        self.hand_over();
        self.accept(now);
        for _ in 0..READS_PER_TURN.min(self.ready.len()) {
            if self.is_blocked() {
                break;
            }
            let Some(slot) = self.ready.pop_front() else { break };
            if let Err(Broken(reason)) = self.read(slot, now, wall_ns) {
                self.end(slot, reason);
            }
        }
        self.records.close();
        self.hand_over();
        self.reply();
        let idle = |connection: &Connection| now.saturating_sub(connection.heard_at) > self.limits.idle_timeout;
        let idle: Vec<usize> = self.slots(idle);
        idle.into_iter().for_each(|slot| self.end(slot, "idle"));
    }

    /// Sleeps until something happens, at most so long.
    fn wait(&mut self, events: &mut Events, most: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(most)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in events.iter() {
            match event.token() {
                DOORBELL => self.doorbell.answer(),
                LISTENER => self.accepts = true,
                Token(slot) => {
                    if let Some(Some(connection)) = self.connections.get_mut(slot)
                        && !std::mem::replace(&mut connection.ready, true)
                    {
                        self.ready.push_back(slot);
                    }
                }
            }
        }
        Ok(())
    }

    /// Nothing can be done before the next event; asks for the doorbell.
    fn is_done_for_now(&mut self) -> bool {
        self.outlet.park();
        self.hand_over();
        self.reply();
        self.is_blocked() || (self.ready.is_empty() && !self.accepts)
    }

    fn is_blocked(&self) -> bool {
        !self.records.closed.is_empty() || self.outlet.room() == 0
    }

    /// Takes verdicts, and hands over what there is room for.
    fn hand_over(&mut self) {
        while let Some(verdict) = self.outlet.verdict() {
            self.answered = verdict.last.0 + 1;
            if verdict.outcome != VerdictOutcome::Durable {
                // A reply says that all blocks before it are safe: `after` is how many there are.
                let hangs_on_it =
                    |connection: &Connection| connection.link.replies.iter().any(|(after, _)| *after > verdict.first.0);
                self.slots(hangs_on_it).into_iter().for_each(|slot| self.end(slot, "overload"));
            }
        }
        while self.outlet.room() > 0
            && let Some(block) = self.records.closed.pop_front()
        {
            self.outlet.push(block);
            self.pushed += 1;
        }
    }

    fn accept(&mut self, now: Duration) {
        if self.rests_until.is_some_and(|until| now >= until) {
            self.rests_until = self.listener.watch(&self.poll, LISTENER.0 as u64).err().map(|_| now + REST);
        }
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.accepts {
                return;
            }
            match self.listener.socket.accept() {
                Ok((stream, peer)) => self.admit(stream, peer, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.accepts = false,
                // accept(2): errors of the connection itself are reported here too, and the next one may be fine.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(_) => {
                    self.records.counters.connections.accept_failures.add(1);
                    self.accepts = false;
                    if self.listener.unwatch(&self.poll).is_ok() {
                        self.rests_until = Some(now + REST);
                    }
                }
            }
        }
    }

    fn admit(&mut self, stream: std::net::TcpStream, peer: SocketAddr, now: Duration) {
        let counters = &self.records.counters.connections;
        let place = match self.table.admit(peer.ip()) {
            Ok(place) => place,
            Err(refused) => {
                counters.refused.add(refused.label(), 1);
                // It fails for a connection that is gone; then there is nobody to notice.
                reset_on_close(&stream).ok();
                return;
            }
        };
        let slot = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
        if stream.set_nonblocking(true).is_err() {
            counters.accept_failures.add(1);
            return;
        }
        let mut stream = TcpStream::from_std(stream);
        if self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE).is_err() {
            counters.accept_failures.add(1);
            return;
        }
        counters.opened();
        self.opened_ever += 1;
        let link = Link::new(self.opened_ever, peer);
        let connection = Connection {
            stream,
            link,
            peer_ended: false,
            heard_at: now,
            ready: false,
            outgoing: Vec::new(),
            _place: place,
        };
        match self.connections.get_mut(slot) {
            Some(free) => *free = Some(connection),
            None => self.connections.push(Some(connection)),
        }
    }

    /// Reads once and decodes; an error ends the connection.
    fn read(&mut self, slot: usize, now: Duration, wall_ns: u64) -> Result<(), Broken> {
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return Ok(()) };
        connection.ready = false;
        match connection.stream.read(&mut self.scratch) {
            Ok(0) => {
                if !std::mem::replace(&mut connection.peer_ended, true) {
                    self.records.feed(&mut connection.link, true, wall_ns)?;
                }
                Ok(())
            }
            Ok(bytes) => {
                connection.heard_at = now;
                connection.ready = true;
                self.ready.push_back(slot);
                self.records.front.received_bytes.add(bytes as u64);
                connection.link.unread.extend_from_slice(&self.scratch[..bytes]);
                self.records.feed(&mut connection.link, false, wall_ns)?;
                self.bound_unread(slot, wall_ns)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                connection.ready = true;
                self.ready.push_back(slot);
                Ok(())
            }
            Err(_) => {
                if !std::mem::replace(&mut connection.peer_ended, true) {
                    self.records.feed(&mut connection.link, true, wall_ns)?;
                }
                Err(Broken("peer_reset"))
            }
        }
    }

    /// What is not used up is bounded over all connections: the one that goes beyond it ends.
    fn bound_unread(&mut self, slot: usize, wall_ns: u64) -> Result<(), Broken> {
        let unread = |connection: &Option<Connection>| connection.as_ref().map_or(0, |one| one.link.unread.len());
        if self.connections.iter().map(unread).sum::<usize>() <= DECODER_UNREAD_BYTES {
            return Ok(());
        }
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return Ok(()) };
        let unread = std::mem::take(&mut connection.link.unread);
        self.records.dead_letter(&unread, "line_memory_exhausted", wall_ns);
        Err(Broken("record_too_long"))
    }

    /// Sends the replies whose blocks are safe, as far as peers take them.
    fn reply(&mut self) {
        for slot in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[slot] else { continue };
            while let Some((_, reply)) = connection.link.replies.pop_front_if(|(after, _)| *after <= self.answered) {
                connection.outgoing.extend_from_slice(&reply);
            }
            let is_over = connection.peer_ended && connection.link.replies.is_empty();
            match send(connection) {
                Ok(()) if is_over && connection.outgoing.is_empty() => self.end(slot, "peer"),
                Ok(()) if connection.outgoing.len() <= MAX_OUTGOING_BYTES => {}
                Ok(()) => self.end(slot, "slow_reader"),
                Err(_) => self.end(slot, "peer_reset"),
            }
        }
    }

    fn slots(&self, which: impl Fn(&Connection) -> bool) -> Vec<usize> {
        let slots = self.connections.iter().enumerate();
        slots.filter_map(|(slot, connection)| connection.as_ref().filter(|one| which(one)).map(|_| slot)).collect()
    }

    /// Ends a connection.
    fn end(&mut self, slot: usize, reason: &'static str) {
        let Some(Some(connection)) = self.connections.get_mut(slot).map(Option::take) else { return };
        self.ready.retain(|ready| *ready != slot);
        self.records.closed(&connection.link);
        self.records.counters.connections.ended(reason);
    }

    /// Takes what was sent until now, makes it safe, ends.
    fn drain(&mut self, events: &mut Events, tick: &Tick) -> io::Result<()> {
        self.listener.unwatch(&self.poll).ok();
        let give_up_at = clock::monotonic() + HAND_OVER_LIMIT;
        for slot in 0..self.connections.len() {
            let (now, wall_ns) = (clock::monotonic(), clock::wall_ns());
            let mut outcome = self.read(slot, now, wall_ns);
            if let (Ok(()), Some(Some(connection))) = (outcome, self.connections.get_mut(slot))
                && !connection.peer_ended
            {
                outcome = self.records.feed(&mut connection.link, true, wall_ns);
            }
            self.records.close();
            if outcome.is_err() {
                self.end(slot, "drain");
            }
        }
        while clock::monotonic() < give_up_at {
            tick.tick(clock::monotonic());
            self.outlet.park();
            self.hand_over();
            self.reply();
            if self.records.closed.is_empty() && self.answered == self.pushed {
                break;
            }
            self.wait(events, REST)?;
        }
        (0..self.connections.len()).for_each(|slot| self.end(slot, "drain"));
        Ok(())
    }
}

fn send(connection: &mut Connection) -> io::Result<()> {
    while !connection.outgoing.is_empty() {
        match connection.stream.write(&connection.outgoing) {
            Ok(bytes) => drop(connection.outgoing.drain(..bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
