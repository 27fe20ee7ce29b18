//! The doors of a gateway: opened at start and by a reload, each with its accept loop, changed and closed one by one.
//!
//! A change makes a new door over the same slot of the intake, with other limits and perhaps another socket; connections
//! of the old one go on under the limits that they began with. A door that is closed finishes what is in flight. A slot
//! belongs to its source for good, so one that returns finds it again. Owned by the gateway's thread.

use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_local};

use super::allowance::Allowance;
use super::intake::Intake;
use super::{Door, DoorKind, Listener, accept};
use crate::block::{Outlet, SourceId};
use crate::config;
use crate::receive::{DoorChanges, HttpCounters};
use crate::uberagent::Encoder;

/// What every door of a gateway shares.
pub(super) struct Shared<O> {
    pub(super) intake: Rc<Intake<O>>,
    pub(super) allowance: Rc<Allowance>,
    /// Rung when a door is held by nobody any more.
    pub(super) idle: Rc<Notify>,
}

/// A door, as long as somebody holds it.
struct Served<O> {
    source: SourceId,
    door: Weak<Door<O>>,
    accepting: Option<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
}

impl<O> Served<O> {
    /// No new connections; those that are open end with the request in flight.
    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

/// The doors.
pub(super) struct Doors<O> {
    shared: Shared<O>,
    served: Vec<Served<O>>,
    /// The slot and the counters of every source that ever had a door.
    known: Vec<(SourceId, usize, Arc<HttpCounters>)>,
}

impl<O: Outlet + 'static> Doors<O> {
    /// None yet.
    pub(super) fn new(shared: Shared<O>) -> Doors<O> {
        Doors { shared, served: Vec::new(), known: Vec::new() }
    }

    /// Opens a door. Fails when its listener cannot be registered.
    pub(super) fn open(&mut self, listener: Listener) -> io::Result<()> {
        listener.socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpListener::from_std(listener.socket)?;
        let Listener { kind, limits, front, table, counters, source, uberagent, .. } = listener;
        let slot = self.slot(source, kind, uberagent, &counters);
        let Shared { intake, allowance, idle } = &self.shared;
        let (intake, allowance, idle) = (intake.clone(), allowance.clone(), idle.clone());
        let door = Rc::new(Door { intake, slot, kind, limits, front, table, counters, allowance, idle });
        let (stopping, stops) = watch::channel(false);
        let weak = Rc::downgrade(&door);
        let accepting = Some(spawn_local(accept(door, socket, stops)));
        self.served.push(Served { source, door: weak, accepting, stopping });
        Ok(())
    }

    /// Adopts a change, and says so once the sockets that it gives up are closed.
    pub(super) async fn adopt(&mut self, changes: DoorChanges<Listener>) {
        for source in changes.close {
            self.stop_accepting(source).await;
            self.served.iter().filter(|served| served.source == source).for_each(Served::stop);
        }
        for listener in changes.serve {
            let source = listener.source;
            self.stop_accepting(source).await;
            if changes.remap
                && listener.kind == DoorKind::Elasticsearch
                && let Some((_, slot, _)) = self.known.iter().find(|(known, ..)| *known == source)
            {
                self.shared.intake.remap(*slot, Encoder::new(listener.uberagent, source));
            }
            if let Err(error) = self.open(listener) {
                tracing::error!(%error, "a listener cannot be watched: this lane does not serve it");
            }
        }
        self.served.retain(|served| served.door.strong_count() > 0);
        // Nobody waits any more when the process stops meanwhile.
        changes.adopted.send(()).ok();
    }

    /// No new connections; those that are open end with the request in flight.
    pub(super) fn stop(&self) {
        self.served.iter().for_each(Served::stop);
    }

    /// Nobody holds a door: every accept loop and every connection has ended.
    pub(super) fn are_idle(&self) -> bool {
        self.served.iter().all(|served| served.door.strong_count() == 0)
    }

    /// The counters of a source.
    pub(super) fn counters(&self, source: SourceId) -> Option<&HttpCounters> {
        self.known.iter().find(|(known, ..)| *known == source).map(|(.., counters)| &**counters)
    }

    async fn stop_accepting(&mut self, source: SourceId) {
        for served in self.served.iter_mut().filter(|served| served.source == source) {
            if let Some(accepting) = served.accepting.take() {
                accepting.abort();
                // It says that it was ended, which is what was asked for.
                accepting.await.ok();
            }
        }
    }

    fn slot(
        &mut self,
        source: SourceId,
        kind: DoorKind,
        uberagent: config::Uberagent,
        counters: &Arc<HttpCounters>,
    ) -> usize {
        if let Some((_, slot, _)) = self.known.iter().find(|(known, ..)| *known == source) {
            return *slot;
        }
        let slot = match kind {
            DoorKind::OtlpHttp => self.shared.intake.add_passed(source),
            DoorKind::Elasticsearch => self.shared.intake.add_rows(source, Encoder::new(uberagent, source)),
        };
        self.known.push((source, slot, counters.clone()));
        slot
    }
}
