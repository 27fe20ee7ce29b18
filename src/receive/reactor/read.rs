//! Reading connections, in the order in which they became ready and a bounded amount a turn, and closing them.
//!
//! A connection that has more than one read can take goes to the end of the queue: one fast sender does not starve the
//! others. Edge-triggered readiness is used up when a read returns less than it could take, unless the peer's end was
//! already seen, for then no further event will come. Connections that we close are read on until there is nothing, so that a
//! close is no reset that destroys what the peer has sent. Owned by the reactor thread.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::connection::{Connection, Connections};
use super::decode::{At, Fed, Intake};
use super::{
    ENDING_LIMIT, MAX_UNFINISHED_BYTES, MAX_WAITING_BYTES, Mode, Reactor, SCRATCH_BYTES, SWEEP_INTERVAL, SWEEP_SLOTS,
};
use crate::block::Outlet;
use crate::receive::lines::LineBuffers;
use crate::receive::sniff::{WRONG_PROTOCOLS, WrongProtocol};

/// Reads a turn, and the bytes after which no further one is begun: about two milliseconds of decoding.
const READS_PER_TURN: usize = 128;
const BYTES_PER_TURN: usize = 1024 * 1024;

/// One wrong protocol is logged once in so long.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The courtesy to somebody who points a browser or curl at the port.
const HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n\
    This port takes uberAgent's lines over TCP. HTTP receivers are on other ports.\n";

/// What a lane needs to read: one buffer for all, and who is next.
pub(super) struct Reading {
    scratch: Box<[u8]>,
    buffers: LineBuffers,
    ready: VecDeque<usize>,
}

impl Reading {
    /// Nobody is ready.
    pub(super) fn new() -> Reading {
        Reading {
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            buffers: LineBuffers::new(MAX_UNFINISHED_BYTES),
            ready: VecDeque::new(),
        }
    }

    /// Queues a connection, once.
    pub(super) fn mark(&mut self, slot: usize, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.ready, true) {
            self.ready.push_back(slot);
        }
    }

    /// Bytes that unfinished lines may still take.
    #[cfg(test)]
    pub(super) fn buffers_left_bytes(&self) -> usize {
        self.buffers.left_bytes()
    }

    /// Whether a connection waits to be read.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// What becomes of a connection after a read.
enum After {
    /// There may be more.
    Again,
    /// Nothing more until the next event.
    Wait,
    /// It is closed, for this reason; what it had not finished is cut for the other one, or was ended by the peer.
    Close(&'static str),
}

impl<O: Outlet> Reactor<O> {
    /// Reads what is ready, within the bounds of a turn and as long as blocks find room.
    pub(super) fn read(&mut self, now: Duration, wall_ns: u64) {
        let mut read_bytes = 0;
        for _ in 0..READS_PER_TURN.min(self.reading.ready.len()) {
            if read_bytes >= BYTES_PER_TURN {
                break;
            }
            let slot = self.reading.ready.pop_front().expect("the loop is bounded by the length");
            let connection = self.connections.get_mut(slot).expect("a connection leaves the queue before it is closed");
            let blocked = self.outflow.is_blocked();
            if blocked && !connection.ending {
                self.reading.ready.push_back(slot);
                continue;
            }
            connection.ready = false;
            let full = blocked && self.outflow.waiting_bytes() >= MAX_WAITING_BYTES;
            let at = At { received_ns: wall_ns, intake: if full { Intake::Full } else { Intake::Open } };
            let (after, bytes) = self.read_one(slot, now, at);
            read_bytes += bytes;
            match after {
                After::Again => {
                    let connection = self.connections.get_mut(slot).expect("it was not closed");
                    self.reading.mark(slot, connection);
                }
                After::Wait => {}
                After::Close(reason) => self.close(slot, reason),
            }
        }
    }

    /// Closes connections that were given time to be read to their end and did not get there.
    pub(super) fn cut_endings(&mut self, now: Duration, wall_ns: u64) {
        if self.ending_at.is_none_or(|at| now < at) {
            return;
        }
        self.ending_at = None;
        let at = At { received_ns: wall_ns, intake: Intake::Full };
        for slot in 0..self.connections.slots() {
            if self.connections.get_mut(slot).is_some_and(|connection| connection.ending) {
                let reason = self.ending_reason(slot);
                self.cut(slot, at, reason);
                self.close(slot, reason.closed);
            }
        }
        let connections = &mut self.connections;
        self.reading.ready.retain(|slot| connections.get_mut(*slot).is_some());
    }

    /// Begins to close every connection: nothing more is sent, what has come is read.
    pub(super) fn end_all(&mut self, now: Duration) {
        for slot in 0..self.connections.slots() {
            if let Some(connection) = self.connections.get_mut(slot) {
                connection.ending = true;
                // Fails only when the peer is gone, and then reading says so.
                connection.stream.shutdown(Shutdown::Write).ok();
                self.reading.mark(slot, connection);
                self.ending_at = Some(now + ENDING_LIMIT);
            }
        }
    }

    /// Looks at some slots for connections that are silent, or slow with one line, for too long.
    pub(super) fn sweep(&mut self, now: Duration, wall_ns: u64) {
        if now < self.next_sweep_at {
            return;
        }
        let end = (self.sweep_slot + SWEEP_SLOTS).min(self.connections.slots());
        for slot in self.sweep_slot..end {
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            // What waits to be read is not silent: it is us who pause.
            if connection.ready || connection.ending {
                continue;
            }
            let limits = &self.sources[connection.door].limits;
            let unfinished = connection.stream_state.is_unfinished();
            let partial = unfinished && now.saturating_sub(connection.unfinished_since) >= limits.partial_line_timeout;
            let idle = now.saturating_sub(connection.heard_at) >= limits.idle_timeout;
            if partial || idle {
                let at = At { received_ns: wall_ns, intake: Intake::Open };
                self.cut(slot, at, Ending { cut: "partial_line_timeout", closed: "" });
                self.close(slot, if partial { "partial_line" } else { "idle" });
            }
        }
        self.sweep_slot = end;
        if end == self.connections.slots() {
            self.sweep_slot = 0;
            self.next_sweep_at = now + SWEEP_INTERVAL;
        }
    }

    /// One read of one connection, decoded; with the bytes read.
    fn read_one(&mut self, slot: usize, now: Duration, at: At) -> (After, usize) {
        let ending_reason = self.ending_reason(slot);
        let connection = self.connections.get_mut(slot).expect("the caller has it");
        match connection.stream.read(&mut self.reading.scratch) {
            Ok(0) => {
                let source = &mut self.sources[connection.door];
                source.decoder.end(&mut connection.stream_state, &mut self.reading.buffers, at);
                self.end_together(slot);
                (After::Close("peer"), 0)
            }
            Ok(bytes) => (self.fed(slot, bytes, now, at), bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (After::Again, 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if connection.ending {
                    self.cut(slot, at, ending_reason);
                    return (After::Close(ending_reason.closed), 0);
                }
                connection.peer_ended = false;
                (After::Wait, 0)
            }
            Err(_) => {
                self.cut(slot, at, Ending { cut: "cut_by_reset", closed: "" });
                (After::Close("peer_reset"), 0)
            }
        }
    }

    /// Decodes the first `bytes` of the scratch, which came from the connection in `slot`.
    fn fed(&mut self, slot: usize, bytes: usize, now: Duration, at: At) -> After {
        let connection = self.connections.get_mut(slot).expect("the caller has it");
        let decoder = &mut self.sources[connection.door].decoder;
        decoder.front.received_bytes.add(bytes as u64);
        let was_unfinished = connection.stream_state.is_unfinished();
        let Reading { scratch, buffers, .. } = &mut self.reading;
        let fed = decoder.feed(&mut connection.stream_state, &mut scratch[..bytes], buffers, at);
        connection.heard_at = now;
        match fed {
            Fed::Wrong(protocol) => {
                decoder.counters.wrong_protocol.add(protocol.label(), 1);
                self.wrong_protocols.report(protocol, connection, now);
                After::Close("wrong_protocol")
            }
            Fed::Lines { any_ended } => {
                if any_ended || !was_unfinished {
                    connection.unfinished_since = now;
                }
                let again = bytes == SCRATCH_BYTES || connection.peer_ended || connection.ending;
                self.end_together(slot);
                if again { After::Again } else { After::Wait }
            }
        }
    }

    /// The rows of one read are decoded: counts are published, full blocks handed over.
    fn end_together(&mut self, slot: usize) {
        let connection = self.connections.get_mut(slot).expect("the caller has it");
        let decoder = &mut self.sources[connection.door].decoder;
        decoder.end_together();
        while let Some(block) = decoder.encoder.pop_closed() {
            decoder.encoder.recycle(self.outflow.take(block));
        }
    }

    /// Gives up what a connection had not finished.
    fn cut(&mut self, slot: usize, at: At, ending: Ending) {
        let connection = self.connections.get_mut(slot).expect("the caller has it");
        let decoder = &mut self.sources[connection.door].decoder;
        decoder.cut(&mut connection.stream_state, &mut self.reading.buffers, at, ending.cut);
        self.end_together(slot);
    }

    /// Closes a connection that is not in the queue.
    fn close(&mut self, slot: usize, reason: &'static str) {
        close(&mut self.connections, &self.sources, slot, reason);
    }

    fn ending_reason(&mut self, slot: usize) -> Ending {
        let door = self.connections.get_mut(slot).map(|connection| connection.door);
        match self.mode {
            Mode::Serving | Mode::Overloaded if door.is_some_and(|door| self.sources[door].removed) => {
                Ending { cut: "cut_by_removal", closed: "removed" }
            }
            Mode::Draining { .. } => Ending { cut: "cut_by_drain", closed: "drain" },
            Mode::Serving | Mode::Overloaded => Ending { cut: "cut_by_overload", closed: "overload" },
        }
    }
}

/// Why a connection is closed by us: the reason of its last, unfinished line, and its own.
#[derive(Clone, Copy)]
struct Ending {
    cut: &'static str,
    closed: &'static str,
}

fn close(connections: &mut Connections, sources: &[super::Source], slot: usize, reason: &'static str) {
    if let Some(connection) = connections.remove(slot) {
        let counters = &sources[connection.door].decoder.counters;
        counters.connections.ended(reason);
    }
}

/// Says once in a while what arrives that is not lines, and what to do about it.
#[derive(Debug, Default)]
pub(super) struct WrongProtocolLog {
    said_at: [Option<Duration>; WRONG_PROTOCOLS.len()],
}

impl WrongProtocolLog {
    fn report(&mut self, protocol: WrongProtocol, connection: &mut Connection, now: Duration) {
        if protocol == WrongProtocol::Http {
            // One attempt; whether it arrives changes nothing.
            connection.stream.write_all(HTTP_ANSWER).ok();
        }
        let said_at = &mut self.said_at[protocol as usize];
        if said_at.is_none_or(|at| now.saturating_sub(at) >= LOG_INTERVAL) {
            *said_at = Some(now);
            let (kind, remedy) = (protocol.label(), protocol.remedy());
            tracing::warn!(peer = %connection.peer, kind, "a peer does not send lines: {remedy}");
        }
    }
}
