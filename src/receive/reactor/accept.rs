//! Letting connections in: a bounded number a turn, and never a loop around an error.
//!
//! A connection that may not stay is accepted and reset rather than left in the backlog, where it would look like a slow
//! server. Out of descriptors, a spare one is given up for a moment to do just that. When even this fails the listener
//! rests a tenth of a second, because a level-triggered listener would wake the thread at once for ever. Owned by the
//! reactor thread.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mio::{Interest, Poll, Token};

use super::connection::{Connection, StreamState};
use super::{Mode, Reactor};
use crate::block::Outlet;
use crate::sys::socket::{Listener, Sharing, reset_on_close};

/// Connections accepted a turn and listener.
const ACCEPTS_PER_TURN: usize = 64;

/// A listener that cannot accept is left alone for so long.
const REST: Duration = Duration::from_millis(100);

/// A listener and the way to its source.
pub(super) struct Gate {
    listener: Listener,
    token: u64,
    /// Index of the door that it leads to.
    pub(super) door: usize,
    /// Connections may wait behind it.
    pub(super) waiting: bool,
    /// Not watched until then.
    rests_until: Option<Duration>,
    /// A descriptor to give up when there is no other.
    spare: Option<File>,
}

impl Gate {
    /// Watches a listener.
    pub(super) fn open(listener: Listener, door: usize, poll: &Poll, token: usize) -> io::Result<Gate> {
        let token = token as u64;
        listener.watch(poll, token)?;
        Ok(Gate { listener, token, door, waiting: false, rests_until: None, spare: spare() })
    }

    /// Whether it is watched as this.
    pub(super) fn is(&self, token: Token) -> bool {
        self.token == token.0 as u64
    }

    /// When it will be watched again, if it is not.
    pub(super) fn rests_until(&self) -> Option<Duration> {
        self.rests_until
    }

    /// Ends the watch; one that rests has none.
    pub(super) fn unwatch(&self, poll: &Poll) {
        self.listener.unwatch(poll).ok();
    }

    fn rest(&mut self, poll: &Poll, now: Duration) {
        self.waiting = false;
        if self.listener.unwatch(poll).is_ok() {
            self.rests_until = Some(now + REST);
        }
    }

    fn wake(&mut self, poll: &Poll, now: Duration) {
        if self.rests_until.is_some_and(|until| now >= until) {
            self.rests_until = self.listener.watch(poll, self.token).err().map(|_| now + REST);
        }
    }

    /// Accepts with the spare descriptor and resets what comes; what came of it.
    pub(super) fn reset_one(&mut self) -> Accepted {
        self.spare = None;
        let accepted = match accept(&self.listener) {
            Accepted::Connection(stream, _) => {
                reset(stream);
                Accepted::Gone
            }
            other => other,
        };
        self.spare = spare();
        accepted
    }
}

/// What came of one accept.
#[derive(Debug)]
pub(super) enum Accepted {
    /// Somebody.
    Connection(TcpStream, SocketAddr),
    /// Nobody waits any more.
    Nobody,
    /// This one is gone; perhaps there is another.
    Gone,
    /// The process or the machine has no descriptor left.
    NoDescriptor,
    /// The machine cannot.
    Failed,
}

impl<O: Outlet> Reactor<O> {
    /// Accepts what waits, within the bounds of a turn.
    pub(super) fn accept(&mut self, now: Duration) {
        for index in 0..self.gates.len() {
            self.gates[index].wake(&self.poll, now);
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.gates[index].waiting {
                    break;
                }
                let door = self.gates[index].door;
                let mut accepted = accept(&self.gates[index].listener);
                if let Accepted::NoDescriptor = accepted {
                    // The kernel says so before it looks whether anybody waits.
                    accepted = self.gates[index].reset_one();
                    if let Accepted::Gone = accepted {
                        self.sources[door].decoder.counters.connections.refused.add("no_descriptors", 1);
                    }
                }
                match accepted {
                    Accepted::Connection(stream, peer) => self.admit(stream, peer, door, now),
                    Accepted::Nobody => self.gates[index].waiting = false,
                    Accepted::Gone => {}
                    Accepted::NoDescriptor | Accepted::Failed => {
                        self.sources[door].decoder.counters.connections.accept_failures.add(1);
                        self.gates[index].rest(&self.poll, now);
                    }
                }
            }
        }
    }

    /// Before gates are closed for good: whoever waits behind our own listeners would be reset by their close, and is
    /// counted. Behind inherited ones peers go on waiting, for the next process.
    pub(super) fn refuse_waiting(&mut self, reason: &'static str, closes: impl Fn(&Gate) -> bool) {
        for gate in self.gates.iter().filter(|gate| gate.listener.sharing == Sharing::Own && closes(gate)) {
            for _ in 0..ACCEPTS_PER_TURN {
                let Accepted::Connection(stream, _) = accept(&gate.listener) else {
                    break;
                };
                reset(stream);
                self.sources[gate.door].decoder.counters.connections.refused.add(reason, 1);
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, door: usize, now: Duration) {
        let source = &self.sources[door];
        let counters = &source.decoder.counters.connections;
        if self.mode == Mode::Overloaded {
            counters.refused.add("overload", 1);
            reset(stream);
            return;
        }
        let place = match source.table.admit(peer.ip()) {
            Ok(place) => place,
            Err(refused) => {
                counters.refused.add(refused.label(), 1);
                reset(stream);
                return;
            }
        };
        let mut stream = mio::net::TcpStream::from_std(stream);
        let token = Token(self.connections.next_slot());
        if self.poll.registry().register(&mut stream, token, Interest::READABLE).is_err() {
            counters.accept_failures.add(1);
            return;
        }
        counters.opened();
        self.connections.insert(Connection {
            stream,
            peer,
            door,
            stream_state: StreamState::new(source.limits.max_line_bytes),
            heard_at: now,
            unfinished_since: now,
            ready: false,
            peer_ended: false,
            ending: false,
            _place: place,
        });
    }
}

fn accept(listener: &Listener) -> Accepted {
    let (stream, peer) = match listener.socket.accept() {
        Ok(accepted) => accepted,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::Nobody,
        Err(error) => {
            return match error.raw_os_error() {
                // accept(2): errors of the connection itself are reported here too, and the next one may be fine.
                Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO | libc::EPERM) => Accepted::Gone,
                Some(libc::EMFILE | libc::ENFILE) => Accepted::NoDescriptor,
                _ => Accepted::Failed,
            };
        }
    };
    if stream.set_nonblocking(true).is_err() { Accepted::Gone } else { Accepted::Connection(stream, peer) }
}

/// Closes a connection so that its peer notices.
fn reset(stream: TcpStream) {
    // It fails for a connection that is gone; then there is nobody to notice.
    reset_on_close(&stream).ok();
    drop(stream);
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}
