//! Ingest: a lane, from its sockets to its log.
//!
//! ```text
//!  sockets ─► reactor ─ decode ─┐
//!                               ├─► rings ─► writer ─► log ─► sync
//!  sockets ─► gateway ─ check ──┘     ▲                         │
//!                  └──── answer ◄─────┴──────── verdicts ◄──────┘
//! ```
//!
//! Reactor and gateway are pinned to the lane's core and share nothing with other lanes; each owns its ring to the lane's
//! writer. This file only makes them and introduces them to each other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender};
use crossbeam::sync::{Parker, Unparker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::outlet::{self, RingOutlet, Waiting, WriterEnd};
use super::shown;
use super::sources::Admissions;
use super::sync::SyncRequest;
use super::writer::{LaneWriter, Transforms, WriterOptions};
use crate::block::{DeadLetterSender, SourceId};
use crate::config::budget::Pools;
use crate::config::{self, Config, Protocol, Uberagent};
use crate::queue::{Appender, Log};
use crate::receive::admission::{ConnectionTable, Overload};
use crate::receive::gateway::{self, DoorKind, Gateway, GatewayOptions};
use crate::receive::reactor::{Door, Reactor, ReactorOptions};
use crate::receive::{DoorChanges, HttpCounters, LineCounters, ReactorCounters};
use crate::sys::doorbell::Doorbell;
use crate::sys::socket::Listener;
use crate::sys::{affinity, clock};
use crate::telemetry::health::{Health, Tick};
use crate::telemetry::ledger::{self, Front};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tap::Tap;
use crate::uberagent::Encoder;

/// How long a lane's thread may be silent before it counts as stuck.
const TICK_LIMIT: Duration = Duration::from_secs(10);

/// The longest drain of a gateway's connections.
const GATEWAY_DRAIN: Duration = Duration::from_secs(2);

/// One receiver as all lanes share it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its durable id.
    pub id: SourceId,
    /// Its configuration.
    pub receiver: config::Receiver,
    /// Its connections over all lanes.
    pub table: Arc<ConnectionTable>,
}

/// What all lanes share.
pub struct Shared<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The sizes that the memory budget has counted.
    pub pools: Pools,
    /// What a full log does, by source.
    pub admissions: &'a Admissions,
    /// Where undecodable records go.
    pub dead_letters: &'a DeadLetterSender,
    /// Declared by one lane, obeyed by all.
    pub overload: &'a Arc<Overload>,
    /// The sync thread.
    pub sync: &'a SyncRequest,
    /// Producers stop taking.
    pub stop: &'a Arc<AtomicBool>,
    /// Writers stop holding what does not fit.
    pub give_up: &'a Arc<AtomicBool>,
    /// Who looks at what passes.
    pub tap: &'a Arc<Tap>,
    /// Where threads tick.
    pub health: &'a Health,
}

/// What a lane is made from.
pub struct LaneParts {
    /// Its number.
    pub number: u32,
    /// Its core; `None` when there are more lanes than cores.
    pub core: Option<CoreId>,
    /// Its log.
    pub log: Arc<Log>,
    /// The log's writing end.
    pub appender: Appender,
    /// Its balance.
    pub ledger: Arc<ledger::Lane>,
    /// Ends of producers besides reactor and gateway.
    pub others: Vec<WriterEnd>,
    /// What its blocks go through.
    pub transforms: Transforms,
    /// The writer's parker: the sync thread and the budget know its other half.
    pub writer: Parker,
}

/// A change of the receivers as one lane adopts it.
pub struct Changes {
    /// No longer served.
    pub close: Vec<SourceId>,
    /// Served from now on, or in another way, each on this lane's listener.
    pub serve: Vec<(Source, Listener)>,
    /// How rows become spans.
    pub uberagent: Uberagent,
    /// That is another way than before.
    pub remap: bool,
}

/// What a lane counts for one receiver, for as long as the process runs.
pub struct SourceCounters {
    /// The source's id.
    pub id: SourceId,
    /// `reactor` or `gateway`.
    pub producer: &'static str,
    /// The receiver's name.
    pub source: String,
    /// The front balance.
    pub front: Arc<Front>,
    /// What the receiver counts besides.
    pub other: OtherCounters,
}

/// What a receiver counts beside its front balance.
#[derive(Clone)]
pub enum OtherCounters {
    /// A line receiver.
    Lines(Arc<LineCounters>),
    /// A receiver of HTTP requests.
    Http(Arc<HttpCounters>),
}

impl SourceCounters {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new(source: &Source) -> SourceCounters {
        let (producer, other) = match source.receiver.protocol {
            Protocol::UberagentTcp(_) => ("reactor", OtherCounters::Lines(Arc::default())),
            Protocol::OtlpHttp(_) | Protocol::Elasticsearch(_) => ("gateway", OtherCounters::Http(Arc::default())),
            Protocol::Plugin(_) => ("decoder", OtherCounters::Lines(Arc::default())),
        };
        SourceCounters { id: source.id, producer, source: source.receiver.name.clone(), front: Arc::default(), other }
    }
}

/// A running lane.
pub struct Lane {
    /// Reactor and gateway: they end when told to stop.
    pub producers: Vec<JoinHandle<()>>,
    /// The writer: it ends after the producers.
    pub writer: JoinHandle<()>,
    /// To wake the producers when they are told to stop.
    pub doorbells: Vec<Doorbell>,
    /// What waits in the rings.
    pub waiting: Vec<Waiting>,
    /// The lane's balance.
    pub ledger: Arc<ledger::Lane>,
    /// The reactor's own counters.
    pub reactor: Arc<ReactorCounters>,
    /// Its tick, and the turns that it had made at the last one.
    pub reactor_tick: Tick,
    /// See `reactor_tick`.
    pub reactor_turns: u64,
    /// The counters of every receiver that it ever served.
    pub sources: Vec<SourceCounters>,
    number: u32,
    reactor_changes: Sender<DoorChanges<Door>>,
    gateway_changes: UnboundedSender<DoorChanges<gateway::Listener>>,
}

impl Lane {
    /// Nothing that its producers have pushed waits for an answer.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.spans() == 0)
    }

    /// Tells reactor and gateway of a change; each says on `adopted` when it has adopted it.
    pub fn change(&mut self, changes: Changes, adopted: &Sender<()>, metrics: &Metrics) {
        let Changes { close, serve, uberagent, remap } = changes;
        let (mut doors, mut gates) = (Vec::new(), Vec::new());
        for (source, listener) in serve {
            let index = self.sources.iter().position(|known| known.id == source.id).unwrap_or_else(|| {
                let counters = SourceCounters::new(&source);
                shown::register_source(metrics, self.number, &counters);
                self.sources.push(counters);
                self.sources.len() - 1
            });
            let SourceCounters { front, other, .. } = &self.sources[index];
            match other {
                OtherCounters::Lines(counters) => doors.push(door(source, listener, (front, counters), uberagent)),
                OtherCounters::Http(counters) => gates.push(gate(source, listener, (front, counters), uberagent)),
            }
        }
        let (reactor, gateway) = (adopted.clone(), adopted.clone());
        // A producer that has ended adopts nothing; whoever waits for it hears so when its channel goes.
        self.reactor_changes.send(DoorChanges { close: close.clone(), serve: doors, remap, adopted: reactor }).ok();
        self.gateway_changes.send(DoorChanges { close, serve: gates, remap, adopted: gateway }).ok();
        self.doorbells.iter().for_each(Doorbell::ring);
    }
}

/// Starts a lane; it serves nobody before its first change.
pub fn start(parts: LaneParts, shared: &Shared<'_>) -> io::Result<Lane> {
    let LaneParts { number, core, log, appender, ledger, others, transforms, writer } = parts;
    let seat = Seat { number, core };
    let pools = &shared.pools;
    let (to_reactor, reactor_end, reactor_waiting) =
        ring(pools.reactor_ring_blocks, pools.ring_spans, writer.unparker())?;
    // A gateway's senders wait for the sync and would be refused for what others wait for: blocks bound them, not spans.
    let (to_gateway, gateway_end, gateway_waiting) = ring(pools.gateway_ring_blocks, u64::MAX, writer.unparker())?;
    let reactor = Arc::new(ReactorCounters::default());
    let reactor_tick = shared.health.thread(&format!("reactor-{number}"), TICK_LIMIT, clock::monotonic());
    let doorbells = vec![to_reactor.doorbell.clone(), to_gateway.doorbell.clone()];
    let (reactor_changes, changes) = crossbeam::channel::unbounded();
    let reactor_thread = start_reactor(seat, changes, to_reactor, reactor.clone(), shared)?;
    let (gateway_changes, changes) = unbounded_channel();
    let producers = vec![reactor_thread, start_gateway(seat, changes, to_gateway, shared)?];
    let options = writer_options(log, appender, ledger.clone(), shared);
    let ends = [reactor_end, gateway_end].into_iter().chain(others).collect();
    let lane_writer = LaneWriter::new(options, transforms, ends);
    let writer = start_writer(seat, lane_writer, writer, shared)?;
    Ok(Lane {
        producers,
        writer,
        doorbells,
        waiting: vec![reactor_waiting, gateway_waiting],
        ledger,
        reactor,
        reactor_tick,
        reactor_turns: 0,
        sources: Vec::new(),
        number,
        reactor_changes,
        gateway_changes,
    })
}

/// Where a lane's threads run: its number, and its core unless there are more lanes than cores.
#[derive(Clone, Copy)]
struct Seat {
    number: u32,
    core: Option<CoreId>,
}

/// A producer's end of a ring with the doorbell that it sleeps on.
struct Producer {
    outlet: RingOutlet,
    doorbell: Doorbell,
}

fn ring(blocks: usize, spans: u64, writer: &Unparker) -> io::Result<(Producer, WriterEnd, Waiting)> {
    let doorbell = Doorbell::new()?;
    let (outlet, end, waiting) = outlet::pair(blocks, spans, doorbell.clone(), writer.clone());
    Ok((Producer { outlet, doorbell }, end, waiting))
}

fn door(
    source: Source,
    listener: Listener,
    (front, counters): (&Arc<Front>, &Arc<LineCounters>),
    uberagent: Uberagent,
) -> Door {
    let Protocol::UberagentTcp(limits) = source.receiver.protocol else {
        unreachable!("a name belongs to one protocol")
    };
    Door {
        listeners: vec![listener],
        source: source.id,
        limits,
        table: source.table,
        encoder: Encoder::new(uberagent, source.id),
        front: front.clone(),
        counters: counters.clone(),
    }
}

fn gate(
    source: Source,
    listener: Listener,
    (front, counters): (&Arc<Front>, &Arc<HttpCounters>),
    uberagent: Uberagent,
) -> gateway::Listener {
    let (kind, limits) = match source.receiver.protocol {
        Protocol::OtlpHttp(limits) => (DoorKind::OtlpHttp, limits),
        Protocol::Elasticsearch(limits) => (DoorKind::Elasticsearch, limits),
        Protocol::UberagentTcp(_) | Protocol::Plugin(_) => unreachable!("a name belongs to one protocol"),
    };
    gateway::Listener {
        socket: listener.socket,
        source: source.id,
        kind,
        limits,
        front: front.clone(),
        table: source.table,
        counters: counters.clone(),
        uberagent,
    }
}

fn start_reactor(
    seat: Seat,
    changes: Receiver<DoorChanges<Door>>,
    producer: Producer,
    counters: Arc<ReactorCounters>,
    shared: &Shared<'_>,
) -> io::Result<JoinHandle<()>> {
    let reactor = Reactor::new(ReactorOptions {
        doors: Vec::new(),
        outlet: producer.outlet,
        doorbell: producer.doorbell,
        dead_letters: shared.dead_letters.clone(),
        overload: shared.overload.clone(),
        counters,
        stop: shared.stop.clone(),
        changes,
    })?;
    pinned(format!("reactor-{}", seat.number), seat.core, move || {
        reactor.run().expect("epoll works as long as the process has its descriptors");
    })
}

fn start_gateway(
    seat: Seat,
    changes: UnboundedReceiver<DoorChanges<gateway::Listener>>,
    producer: Producer,
    shared: &Shared<'_>,
) -> io::Result<JoinHandle<()>> {
    let name = format!("gateway-{}", seat.number);
    let Producer { outlet, doorbell } = producer;
    let gateway = Gateway::new(GatewayOptions {
        listeners: Vec::new(),
        outlet,
        doorbell,
        body_bytes: shared.pools.gateway_body_bytes,
        tick: shared.health.thread(&name, TICK_LIMIT, clock::monotonic()),
        stop: shared.stop.clone(),
        drain_timeout: GATEWAY_DRAIN,
        changes,
    });
    pinned(name, seat.core, move || {
        gateway.run().expect("the runtime works as long as the process has its descriptors");
    })
}

fn writer_options(log: Arc<Log>, appender: Appender, ledger: Arc<ledger::Lane>, shared: &Shared<'_>) -> WriterOptions {
    WriterOptions {
        log,
        appender,
        ledger,
        ack: shared.config.queue.ack,
        admission: shared.admissions.clone(),
        sync_bytes: shared.config.queue.sync_bytes,
        sync: shared.sync.clone(),
        give_up: shared.give_up.clone(),
        tap: shared.tap.clone(),
    }
}

fn start_writer(seat: Seat, writer: LaneWriter, parker: Parker, shared: &Shared<'_>) -> io::Result<JoinHandle<()>> {
    let name = format!("writer-{}", seat.number);
    let tick: Tick = shared.health.thread(&name, TICK_LIMIT, clock::monotonic());
    pinned(name, seat.core, move || {
        writer.run(&parker, &tick);
        tick.end();
    })
}

/// A thread of the lane, on the lane's core.
fn pinned(name: String, core: Option<CoreId>, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.clone()).spawn(move || {
        if let Some(core) = core
            && !affinity::pin(core)
        {
            tracing::warn!(thread = %name, core = core.id, "could not be pinned to its core");
        }
        body();
    })
}
