//! All receivers: their sockets, sources and connection tables, over all lanes.
//!
//! Like [`super::destinations`] a change has two steps: [`Receivers::prepare`] binds sockets and assigns ids, and what it
//! made serves nobody; [`Receivers::adopt`] hands it to the lanes and returns when each has adopted it. Here every listening
//! socket is kept open as long as its receiver is configured, so that a change of limits loses no connection that waits.
//! Owned by the thread that runs the appliance.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crossbeam::channel::unbounded;

use super::doors::{self, BindError, Bound};
use super::ingest::{Changes, Lane, Source};
use super::sources::{self, Admissions, SourceNames};
use crate::block::SourceId;
use crate::config::{self, Config, Protocol, Uberagent};
use crate::receive::admission::ConnectionTable;
use crate::sys::socket::Listener;
use crate::sys::systemd::Inherited;
use crate::telemetry::metrics::Metrics;

/// Lanes adopt at their next turn, which is milliseconds away; longer than this a thread is stuck, and the watchdog's.
const ADOPT_LIMIT: Duration = Duration::from_secs(10);

/// Why receivers cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The table of source ids cannot be read or written, or the process is out of descriptors.
    #[error("receivers cannot be prepared: {0}")]
    Io(#[from] io::Error),
}

/// A receiver that is configured.
struct Served {
    source: Source,
    bound: Bound,
}

/// One receiver of a change.
struct Change {
    id: SourceId,
    receiver: config::Receiver,
    /// Sockets that it did not have before.
    bound: Option<Bound>,
    /// A view of its sockets for each lane.
    views: Vec<Listener>,
}

/// Everything of a change that can fail, done.
pub struct Prepared {
    changes: Vec<Change>,
    close: Vec<SourceId>,
    uberagent: Uberagent,
    remap: bool,
}

/// The receivers of a running appliance.
pub struct Receivers {
    state_directory: PathBuf,
    lanes: usize,
    /// How rows become spans now.
    uberagent: Uberagent,
    served: Vec<Served>,
    /// The tables of receivers that are gone: their last connections, and what they had when they return.
    gone: Vec<Source>,
    /// The names of the sources, for dead letters.
    pub names: SourceNames,
    /// What a full log does to whose senders, for the writers.
    pub admissions: Admissions,
}

impl Receivers {
    /// None yet.
    #[must_use]
    pub fn new(config: &Config, lanes: usize) -> Receivers {
        Receivers {
            state_directory: config.state_directory.clone(),
            lanes,
            uberagent: config.uberagent,
            served: Vec::new(),
            gone: Vec::new(),
            names: SourceNames::default(),
            admissions: Admissions::default(),
        }
    }

    /// Where each listens, in the order in which they came.
    #[must_use]
    pub fn listening(&self) -> Vec<(String, SocketAddr)> {
        self.served.iter().map(|served| (served.source.receiver.name.clone(), served.bound.address)).collect()
    }

    /// Does what can fail of a change to `config`. Errors leave everything as it was; `inherited` are systemd's sockets.
    pub fn prepare(&self, config: &Config, inherited: &[Inherited]) -> Result<Prepared, PrepareError> {
        let remap = config.uberagent != self.uberagent;
        let names: Vec<&str> = config.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        let is_gone = |served: &&Served| !names.contains(&served.source.receiver.name.as_str());
        let close = self.served.iter().filter(is_gone).map(|served| served.source.id).collect();
        let ids = sources::assign(&self.state_directory, &names)?;
        let mut changes = Vec::new();
        for (id, receiver) in ids.into_iter().zip(&config.receivers) {
            let known = self.served.iter().find(|served| served.source.id == id);
            let is_remapped = remap && !matches!(receiver.protocol, Protocol::OtlpHttp(_));
            if known.is_some_and(|known| known.source.receiver == *receiver) && !is_remapped {
                continue;
            }
            let stays = known.filter(|known| known.source.receiver.listen == receiver.listen);
            let bound = match stays {
                Some(_) => None,
                None => Some(doors::bind(receiver, inherited, self.lanes)?),
            };
            let sockets = bound.as_ref().or(stays.map(|known| &known.bound)).expect("it has sockets or gets some");
            let views = sockets.listeners.iter().map(Listener::another).collect::<io::Result<_>>()?;
            changes.push(Change { id, receiver: receiver.clone(), bound, views });
        }
        Ok(Prepared { changes, close, uberagent: config.uberagent, remap })
    }

    /// Puts a prepared change into force; every lane has adopted it when this returns.
    pub fn adopt(&mut self, prepared: Prepared, lanes: &mut [Lane], metrics: &Metrics) {
        let Prepared { changes, close, uberagent, remap } = prepared;
        self.uberagent = uberagent;
        let of_lane = |_| Changes { close: close.clone(), serve: Vec::new(), uberagent, remap };
        let mut by_lane: Vec<Changes> = lanes.iter().map(of_lane).collect();
        for closed in self.served.extract_if(.., |served| close.contains(&served.source.id)) {
            self.gone.push(closed.source);
        }
        for Change { id, receiver, bound, views } in changes {
            let source = self.serve(id, receiver, bound);
            for (lane, view) in by_lane.iter_mut().zip(views) {
                lane.serve.push((source.clone(), view));
            }
        }
        let (adopted, adoptions) = unbounded();
        for (lane, changes) in lanes.iter_mut().zip(by_lane) {
            lane.change(changes, &adopted, metrics);
        }
        drop(adopted);
        for _ in 0..2 * lanes.len() {
            if adoptions.recv_timeout(ADOPT_LIMIT).is_err() {
                tracing::error!("a lane has not adopted the receivers: its thread is stuck");
                return;
            }
        }
    }

    fn serve(&mut self, id: SourceId, receiver: config::Receiver, bound: Option<Bound>) -> Source {
        self.names.add(id, &receiver.name);
        self.admissions.set(id, receiver.admission);
        let (total, of_one_address) = connection_bounds(&receiver.protocol);
        if let Some(known) = self.served.iter_mut().find(|served| served.source.id == id) {
            known.source.table.set_bounds(total, of_one_address);
            known.source.receiver = receiver;
            if let Some(bound) = bound {
                known.bound = bound;
            }
            return known.source.clone();
        }
        let returns = self.gone.extract_if(.., |gone| gone.id == id).next();
        let table = returns.map_or_else(|| ConnectionTable::new(total, of_one_address), |gone| gone.table);
        table.set_bounds(total, of_one_address);
        let source = Source { id, receiver, table };
        let bound = bound.expect("a receiver that was not served was bound");
        self.served.push(Served { source: source.clone(), bound });
        source
    }
}

fn connection_bounds(protocol: &Protocol) -> (usize, usize) {
    match protocol {
        Protocol::UberagentTcp(limits) => (limits.max_connections, limits.max_connections_per_ip),
        Protocol::OtlpHttp(limits) | Protocol::Elasticsearch(limits) => {
            (limits.max_connections, limits.max_connections_per_ip)
        }
    }
}
