//! Adopting changed doors between two turns: a new one is opened, a changed one goes on with its connections, one that is
//! gone drains its own.
//!
//! A source keeps its place among the sources for good, so that connections, counters and the encoder of one that returns
//! are its own again. A changed door's connections stay; bounds of lines hold for those accepted afterwards. Owned by the
//! reactor thread.

use std::net::Shutdown;
use std::time::Duration;

use mio::Token;

use super::accept::Gate;
use super::decode::Decoder;
use super::{Door, ENDING_LIMIT, FIRST_GATE, MAX_GATES, Mode, Reactor, Source};
use crate::block::{Outlet, SourceId};
use crate::receive::DoorChanges;

impl<O: Outlet> Reactor<O> {
    /// Adopts every change that has come.
    pub(super) fn adopt(&mut self, now: Duration) {
        while let Ok(DoorChanges { close, serve, remap, adopted }) = self.changes.try_recv() {
            if !matches!(self.mode, Mode::Draining { .. }) {
                close.into_iter().for_each(|source| self.close_door(source, now));
                serve.into_iter().for_each(|door| self.serve_door(door, remap));
            }
            // Nobody waits any more when the process stops meanwhile.
            adopted.send(()).ok();
        }
    }

    fn serve_door(&mut self, door: Door, remap: bool) {
        let Door { listeners, source: id, limits, table, encoder, front, counters } = door;
        let index = match self.sources.iter().position(|source| source.id == id) {
            Some(index) => {
                self.shut_gates(index);
                let Reactor { sources, outflow, .. } = self;
                let source = &mut sources[index];
                if remap {
                    let known = &mut source.decoder.encoder;
                    while let Some(block) = known.close() {
                        known.recycle(outflow.take(block));
                    }
                    *known = encoder;
                }
                (source.limits, source.table, source.removed) = (limits, table, false);
                index
            }
            None => {
                let decoder = Decoder::new(encoder, id, front, counters, self.dead_letters.clone());
                self.sources.push(Source { id, decoder, limits, table, open_since: None, removed: false });
                self.sources.len() - 1
            }
        };
        for listener in listeners {
            let tokens = (0..MAX_GATES).map(|below| FIRST_GATE - below);
            let free = tokens.into_iter().find(|token| !self.gates.iter().any(|gate| gate.is(Token(*token))));
            match Gate::open(listener, index, &self.poll, free.expect("a lane has few listeners")) {
                Ok(gate) => self.gates.push(gate),
                Err(error) => tracing::error!(%error, "a listener cannot be watched: this lane does not serve it"),
            }
        }
    }

    fn close_door(&mut self, id: SourceId, now: Duration) {
        let Some(door) = self.sources.iter().position(|source| source.id == id) else { return };
        self.refuse_waiting("removed", |gate| gate.door == door);
        self.shut_gates(door);
        self.sources[door].removed = true;
        for slot in 0..self.connections.slots() {
            if let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.door == door) {
                connection.ending = true;
                // Fails only when the peer is gone, and then reading says so.
                connection.stream.shutdown(Shutdown::Write).ok();
                self.reading.mark(slot, connection);
                self.ending_at = Some(now + ENDING_LIMIT);
            }
        }
    }

    /// Their sockets may be open elsewhere, so closing our descriptors would not end the watch.
    fn shut_gates(&mut self, door: usize) {
        for shut in self.gates.extract_if(.., |gate| gate.door == door) {
            shut.unwatch(&self.poll);
        }
    }
}
