//! One peer's connection, and the slots in which a lane keeps its connections.
//!
//! A connection between two lines owns no buffer: it is a descriptor, its place in the table, and where the stream stands.
//! A slot's number is the connection's token in epoll. Slots are reused; every event is turned into `ready` marks before
//! anything is closed or accepted, so an event never meets the next owner of a slot. Owned by the reactor thread.

use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;

use crate::receive::admission::Place;
use crate::receive::lines::Lines;
use crate::receive::sniff::SNIFF_BYTES;
use crate::uberagent::CsvHeader;

/// One open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Index of the door that it came in by.
    pub(super) door: usize,
    /// Where the stream stands.
    pub(super) stream_state: StreamState,
    /// When the last byte came, or the connection.
    pub(super) heard_at: Duration,
    /// When the unfinished line began, if there is one.
    pub(super) unfinished_since: Duration,
    /// It is in the queue of connections to be read.
    pub(super) ready: bool,
    /// The peer's end was seen: read until zero, for no further event will come.
    pub(super) peer_ended: bool,
    /// We close it: read what has come, then no more.
    pub(super) ending: bool,
    /// Counts the connection until it is dropped.
    pub(super) _place: Place,
}

/// What has to be known of the bytes so far to understand the next ones.
#[derive(Debug)]
pub(super) struct StreamState {
    /// Whether it is lines at all.
    pub(super) phase: Phase,
    /// Line ends, and the unfinished line.
    pub(super) lines: Lines,
    /// The Splunk header that holds for the rows after it; boxed, because few connections have one.
    pub(super) header: Option<Box<SplunkHeader>>,
}

/// The stages of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Too few bytes to tell lines from a wrong protocol.
    Sniffing { held: [u8; SNIFF_BYTES], held_bytes: usize },
    /// Lines, none of them seen yet: a byte order mark may stand before the first.
    FirstLine,
    /// Lines.
    Lines,
}

/// A header line and what it says. It precedes every event, so the same bytes are parsed once.
#[derive(Debug)]
pub(super) struct SplunkHeader {
    pub(super) line: Vec<u8>,
    pub(super) parsed: CsvHeader,
}

impl StreamState {
    /// The state before the first byte.
    pub(super) fn new(max_line_bytes: usize) -> StreamState {
        let phase = Phase::Sniffing { held: [0; SNIFF_BYTES], held_bytes: 0 };
        StreamState { phase, lines: Lines::new(max_line_bytes), header: None }
    }

    /// Whether the stream stands inside a line.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(self.phase, Phase::Sniffing { held_bytes: 1.., .. }) || self.lines.is_unfinished()
    }
}

/// The connections of a lane.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    open: usize,
}

impl Connections {
    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Slots, open or not: every slot's number is below.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slot that the next [`Connections::insert`] takes.
    pub(super) fn next_slot(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slots.len())
    }

    /// Puts a connection into [`Connections::next_slot`].
    pub(super) fn insert(&mut self, connection: Connection) {
        match self.free.pop() {
            Some(slot) => self.slots[slot] = Some(connection),
            None => self.slots.push(Some(connection)),
        }
        self.open += 1;
    }

    /// The connection in a slot.
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Connection> {
        let connection = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.open -= 1;
        Some(connection)
    }
}
