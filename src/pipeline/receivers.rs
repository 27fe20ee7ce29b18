//! All receivers: their sockets, sources and connection tables, over all lanes.
//!
//! A change has three steps. [`Receivers::prepare`] binds sockets and assigns ids; nobody can connect and nothing is
//! written, so what it made can be dropped: that is all of a dry run. [`Prepared::open`] writes the ids down and listens.
//! [`Receivers::adopt`] hands everything to the lanes and returns when each has adopted it. Here every listening socket is
//! kept open as long as its receiver is configured, so that a change of limits loses no connection that waits; those that
//! systemd passed in are kept for good, for a receiver that is gone may return. Owned by the thread that runs the appliance.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crossbeam::channel::unbounded;

use super::doors::{self, BindError, Bound};
use super::ingest::{Changes, Lane, Source};
use super::sources::{self, Admissions, Assigned, RowRules, SourceNames};
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
    assigned: Assigned,
    uberagent: Uberagent,
    remap: bool,
}

impl Prepared {
    /// The last that can fail: new ids are durable, and peers can connect to new sockets, where they wait to be served.
    pub fn open(&self) -> Result<(), PrepareError> {
        self.assigned.keep()?;
        for Change { receiver, bound, .. } in &self.changes {
            bound.as_ref().map_or(Ok(()), |bound| doors::listen(receiver, bound))?;
        }
        Ok(())
    }
}

/// The receivers of a running appliance.
pub struct Receivers {
    state_directory: PathBuf,
    lanes: usize,
    /// systemd's sockets.
    inherited: Vec<Inherited>,
    served: Vec<Served>,
    /// The tables of receivers that are gone: their last connections, and what they had when they return.
    gone: Vec<Source>,
    /// How rows become spans, for dead letters that are replayed.
    pub rules: RowRules,
    /// The names of the sources, for dead letters.
    pub names: SourceNames,
    /// What a full log does to whose senders, for the writers.
    pub admissions: Admissions,
}

impl Receivers {
    /// None yet; `inherited` are systemd's sockets.
    #[must_use]
    pub fn new(config: &Config, lanes: usize, inherited: Vec<Inherited>) -> Receivers {
        Receivers {
            state_directory: config.state_directory.clone(),
            lanes,
            inherited,
            served: Vec::new(),
            gone: Vec::new(),
            rules: RowRules::new(config.uberagent),
            names: SourceNames::default(),
            admissions: Admissions::default(),
        }
    }

    /// Where each listens, in the order in which they came.
    #[must_use]
    pub fn listening(&self) -> Vec<(String, SocketAddr)> {
        self.served.iter().map(|served| (served.source.receiver.name.clone(), served.bound.address)).collect()
    }

    /// Does what can fail of a change to `config`, with no effect beyond this process.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, PrepareError> {
        let remap = config.uberagent != self.rules.now();
        let names: Vec<&str> = of_lanes(config).map(|receiver| receiver.name.as_str()).collect();
        let is_gone = |served: &&Served| !names.contains(&served.source.receiver.name.as_str());
        let close = self.served.iter().filter(is_gone).map(|served| served.source.id).collect();
        let assigned = sources::assign(&self.state_directory, &names)?;
        let given_up = self.given_up(config);
        let mut changes = Vec::new();
        for (id, receiver) in assigned.ids.iter().copied().zip(of_lanes(config)) {
            let known = self.served.iter().find(|served| served.source.id == id);
            let is_remapped = remap && !matches!(receiver.protocol, Protocol::OtlpHttp(_));
            if known.is_some_and(|known| known.source.receiver == *receiver) && !is_remapped {
                continue;
            }
            let stays = known.filter(|known| known.source.receiver.listen == receiver.listen);
            let bound = match stays {
                Some(_) => None,
                None => Some(doors::bind(receiver, &self.inherited, &given_up, self.lanes)?),
            };
            let sockets = bound.as_ref().or(stays.map(|known| &known.bound)).expect("it has sockets or gets some");
            let views = sockets.views()?;
            changes.push(Change { id, receiver: receiver.clone(), bound, views });
        }
        Ok(Prepared { changes, close, assigned, uberagent: config.uberagent, remap })
    }

    /// The sockets of receivers that are not in `config`, or elsewhere.
    fn given_up(&self, config: &Config) -> Vec<&Bound> {
        let stays = |served: &Served| {
            let Source { receiver: known, .. } = &served.source;
            of_lanes(config).any(|receiver| receiver.name == known.name && receiver.listen == known.listen)
        };
        self.served.iter().filter(|served| !stays(served)).map(|served| &served.bound).collect()
    }

    /// The sources that are not served when a change is in force, whose last blocks may still be under way.
    #[must_use]
    pub fn gone_with(&self, prepared: &Prepared) -> Vec<SourceId> {
        let gone = self.gone.iter().map(|source| source.id).filter(|id| !prepared.assigned.ids.contains(id));
        gone.chain(prepared.close.iter().copied()).collect()
    }

    /// Whether nobody is connected to receivers that are gone.
    #[must_use]
    pub fn gone_are_left(&self) -> bool {
        self.gone.iter().all(|source| source.table.total() == 0)
    }

    /// Puts a prepared change into force; every lane has adopted it when this returns.
    pub fn adopt(&mut self, prepared: Prepared, lanes: &mut [Lane], metrics: &Metrics) {
        let Prepared { changes, close, uberagent, remap, .. } = prepared;
        self.rules.set(uberagent);
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

/// The receivers that every lane serves; the others have threads of their own.
pub(super) fn of_lanes(config: &Config) -> impl Iterator<Item = &config::Receiver> {
    config.receivers.iter().filter(|receiver| !matches!(receiver.protocol, Protocol::Plugin(_)))
}

fn connection_bounds(protocol: &Protocol) -> (usize, usize) {
    match protocol {
        Protocol::UberagentTcp(limits) => (limits.max_connections, limits.max_connections_per_ip),
        Protocol::OtlpHttp(limits) | Protocol::Elasticsearch(limits) => {
            (limits.max_connections, limits.max_connections_per_ip)
        }
        Protocol::Plugin(limits) => (limits.max_connections, limits.max_connections_per_ip),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::path::Path;

    use super::*;
    use crate::config::{File, Host, Inputs};

    fn config(directory: &Path, text: &str) -> Config {
        let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
        let file = Some(File { name: "m.yaml", text });
        let environment = |name: &str| (name == "STATE_DIRECTORY").then(|| directory.display().to_string());
        config::load(&Inputs { file, environment: &environment, flags: &[], proxytrace: false, host }).unwrap().config
    }

    #[test]
    fn what_is_prepared_takes_no_connection_and_writes_nothing_before_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), "receivers: {uberagent: {protocols: {tcp: {endpoint: '127.0.0.1:0'}}}}");
        let prepared = Receivers::new(&config, 2, Vec::new()).prepare(&config).unwrap();
        let address = prepared.changes[0].bound.as_ref().unwrap().address;
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        prepared.open().unwrap();
        TcpStream::connect(address).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("sources")).unwrap(), "uberagent\n");
    }
}
