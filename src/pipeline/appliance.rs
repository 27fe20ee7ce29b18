//! The appliance: everything that `run` runs, made in one order and ended in another.
//!
//! Start: state directory, sockets, log, destinations, sync, lanes, management port. So an address that is taken or a log
//! that cannot be opened is said before anything was received. Stop: see [`super::drain`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::Receiver;
use crossbeam::sync::Parker;

use super::dead_letters::{self, DeadLetterStores, Desk, DeskParts, FrontReplay, RING_BLOCKS};
use super::decoders::{Decoders, DecodersError, Running};
use super::destination;
use super::destinations::Destinations;
use super::disk::Disk;
use super::drain::EgressStop;
use super::ground::{self, Ground};
use super::ingest::{self, Lane};
use super::lanes::{self, WriterSeat};
use super::logs::{LogsError, OpenLog};
use super::outlet;
use super::plugins::{self, Formats, PluginError, Plugins};
use super::receivers::{PrepareError, Receivers};
use super::release::Release;
use super::shown;
use super::sources::{RowRules, SourceNames};
use super::sync::{SyncRequest, SyncStop, Syncer};
use crate::config::budget::pools;
use crate::config::{Config, Tapping};
use crate::queue::{Keys, StateLock};
use crate::receive::ReactorCounters;
use crate::serve::{
    DeadLetterCall, Guard, Management, ReloadRequest, Sources, TokenFileError, Tokens, Trust, desk_channel,
    reload_channel,
};
use crate::sys::doorbell::Doorbell;
use crate::sys::systemd::Inherited;
use crate::sys::{affinity, clock};
use crate::telemetry::health::{Health, State, Tick};
use crate::telemetry::metrics::{Extra, ExtraKind, ExtraRead, Metrics};
use crate::telemetry::tap::Tap;

/// How long a thread that only waits may be silent before it counts as stuck.
const TICK_LIMIT: Duration = Duration::from_secs(10);

/// The time in which what was received has to be durable on a stop, before writers refuse what does not fit.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Time between looks at a thread that has to end.
const JOIN_INTERVAL: Duration = Duration::from_millis(2);

/// Why the appliance could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A receiver's address cannot be had.
    #[error(transparent)]
    Receiver(#[from] PrepareError),
    /// The management port cannot be had.
    #[error("the management port cannot listen on {address}")]
    Management {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The state directory is in use or cannot be written.
    #[error("state directory {directory} cannot be used")]
    State {
        /// Which.
        directory: String,
        /// Why not.
        source: io::Error,
    },
    /// The logs cannot be opened.
    #[error(transparent)]
    Logs(#[from] LogsError),
    /// A destination cannot be started.
    #[error(transparent)]
    Destination(#[from] destination::StartError),
    /// A receiver with a thread of its own cannot be served.
    #[error(transparent)]
    Decoders(#[from] DecodersError),
    /// A plugin cannot go live.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The token file of the management port cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// A thread cannot be started.
    #[error("a thread could not be started")]
    Thread(#[from] io::Error),
    /// It ran, and had to end so that it is started again.
    #[error("the storage of the log has failed; what was not durable was not acknowledged")]
    StorageFailed,
}

/// Why a configuration cannot be put into force; the old one stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A receiver's address cannot be had.
    #[error(transparent)]
    Receiver(#[from] PrepareError),
    /// A destination cannot be started.
    #[error(transparent)]
    Destination(#[from] destination::StartError),
    /// A plugin cannot go live.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The token file of the management port cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
}

/// Who is told to end, and how.
#[derive(Default)]
struct Stops {
    producers: Arc<AtomicBool>,
    writers_give_up: Arc<AtomicBool>,
    egress: Arc<EgressStop>,
}

/// The sync thread.
struct Syncing {
    given_up: Arc<AtomicBool>,
    request: SyncRequest,
    stop: SyncStop,
    thread: JoinHandle<()>,
}

/// A running appliance.
pub struct Appliance {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How everybody does.
    pub health: Health,
    management: Management,
    guard: Guard,
    tap: Arc<Tap>,
    receivers: Receivers,
    lanes: Vec<Lane>,
    decoders: Running,
    plugins: Plugins,
    destinations: Destinations,
    stops: Stops,
    syncing: Syncing,
    disk: Disk,
    desk: JoinHandle<()>,
    dead_letters: DeadLetterStores,
    keys: Keys,
    drain_timeout: Duration,
    /// Let go last: the directory is ours as long as anything here lives.
    _lock: StateLock,
}

impl Appliance {
    /// Starts everything that `config` says, for good. `inherited` are the sockets that systemd passed in.
    pub fn start(config: &Config, inherited: Vec<Inherited>) -> Result<Appliance, StartError> {
        Appliance::start_reloadable(config, inherited).map(|(appliance, _)| appliance)
    }

    /// As [`Appliance::start`], with the reloads that the API will ask for.
    pub fn start_reloadable(
        config: &Config,
        inherited: Vec<Inherited>,
    ) -> Result<(Appliance, Receiver<ReloadRequest>), StartError> {
        let cores = affinity::allowed_cores();
        let lanes = config.lanes.unwrap_or(cores.len()).max(1);
        let lock = ground::take_state(config)?;
        let mut receivers = Receivers::new(config, lanes, inherited);
        let bound = receivers.prepare(config)?;
        bound.open()?;
        let decoders = Decoders::open(config)?;
        let management = bind_management(config.management)?;
        let guard = Guard::new(config.management.ip(), read_trust(config)?);
        let (metrics, health) = (Arc::new(Metrics::new()), Health::new());
        let process = health.component("process");
        let (ground, stops) = (Ground::open(config, lanes, &receivers.names, &health)?, Stops::default());
        let parkers: Vec<Parker> = ground.logs.iter().map(|_| Parker::new()).collect();
        let unparkers = parkers.iter().take(lanes).map(|parker| parker.unparker().clone()).collect();
        let (plugins, swaps) = Plugins::load(config, unparkers, &metrics, &health)?;
        ground.dead_letters.withhold(plugins.any_fail_closed());
        let destinations = start_destinations(config, &ground, &stops.egress, plugins.formats(), (&metrics, &health))?;
        parkers.iter().for_each(|parker| ground.budget.subscribe(parker.unparker().clone()));
        let syncing = start_sync(config, &ground.logs, &parkers, &health)?;
        let tap = start_tap(config.management_tap, receivers.names.clone(), &metrics);
        let shared = ingest::Shared {
            config,
            pools: pools(config, lanes),
            admissions: &receivers.admissions,
            dead_letters: &ground.dead_letters.front,
            overload: &Arc::default(),
            sync: &syncing.request,
            stop: &stops.producers,
            give_up: &stops.writers_give_up,
            tap: &tap,
            health: &health,
        };
        let disk = ground.show(config, lanes, &metrics, &health);
        let mut writers = lanes::seats(parkers, &plugins, swaps, &ground.dead_letters.aside)?;
        let ((calls, called), (reload, reloads)) = (desk_channel(), reload_channel());
        let desk = start_desk(
            receivers.rules.clone(),
            called,
            &ground.dead_letters,
            &mut writers[0],
            (&metrics, &health, &stops),
        )?;
        let decoders = decoders.start(&mut writers, (&shared, &receivers.names), (&metrics, &plugins.formats()))?;
        let mut lanes = lanes::start(ground.logs, writers, (&cores, lanes), &shared)?;
        shown::register(&metrics, &lanes, &receivers);
        receivers.adopt(bound, &mut lanes, &metrics);
        let sources = (reload, calls, tap.clone());
        let management = Management::start(management, Sources::new(&metrics, &health, &guard, sources))?;
        process.set(State::Ready);
        let appliance = Appliance {
            receivers,
            metrics,
            health,
            management,
            guard,
            tap,
            lanes,
            decoders,
            plugins,
            destinations,
            stops,
            syncing,
            disk,
            desk,
            dead_letters: ground.dead_letters,
            keys: ground.keys,
            drain_timeout: config.drain_timeout,
            _lock: lock,
        };
        Ok((appliance, reloads))
    }

    /// Where each receiver listens.
    #[must_use]
    pub fn receivers(&self) -> Vec<(String, SocketAddr)> {
        self.receivers.listening().into_iter().chain(self.decoders.listening.clone()).collect()
    }

    /// Where the management port listens.
    #[must_use]
    pub fn management(&self) -> SocketAddr {
        self.management.address()
    }

    /// Whether the log has failed for good and was given its time: to be stopped, and started again by somebody.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        // Relaxed: a flag that is only ever set.
        self.syncing.given_up.load(Ordering::Relaxed)
    }

    /// The keys that the log is written and read with.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The lanes that run.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Puts another configuration into force, whole or not at all; with `dry_run` only looks whether that would work. What
    /// only a start can change is not looked at: see [`super::reload`]. Returns what is new that no setting shows, a line
    /// each.
    pub fn reload(&mut self, config: &Config, dry_run: bool) -> Result<Vec<String>, ReloadError> {
        let trust = read_trust(config)?;
        let receivers = self.receivers.prepare(config)?;
        let plugins = self.plugins.prepare(config)?;
        let renewed = self.renewed(config, &trust, &plugins);
        if dry_run {
            self.destinations.check(config)?;
            return Ok(renewed);
        }
        let destinations = self.destinations.prepare(config)?;
        let opened = receivers.open().map_err(ReloadError::from);
        // Before the first block that they fail on, and until there is none of the old ones'.
        self.dead_letters.withhold(plugins.any_fail_closed() || self.plugins.any_fail_closed());
        let gone = self.receivers.gone_with(&receivers);
        let adopted = opened.and_then(|()| Ok(self.plugins.adopt(plugins, &gone)?));
        self.dead_letters.withhold(self.plugins.any_fail_closed());
        if let Err(error) = adopted {
            self.destinations.discard(destinations);
            return Err(error);
        }
        self.destinations.adopt(config, destinations);
        self.receivers.adopt(receivers, &mut self.lanes, &self.metrics);
        self.guard.replace(trust);
        self.tap.allow(config.management_tap);
        self.drain_timeout = config.drain_timeout;
        Ok(renewed)
    }

    /// A line for each receiver whose plugin runs from a file that has changed.
    pub fn stale_decoders(&self) -> Vec<String> {
        self.decoders.stale()
    }

    /// Files that hold something else than before under the names that they had.
    fn renewed(&self, config: &Config, trust: &Trust, plugins: &plugins::Prepared) -> Vec<String> {
        let line = |section: &'static str| move |name: String| format!("{section}.{name}: its files have changed");
        let mut renewed: Vec<String> = self.plugins.renewed(plugins).into_iter().map(line("processors")).collect();
        renewed.extend(self.destinations.renewed(config).into_iter().map(line("exporters")));
        if self.guard.has_other_tokens(trust) {
            renewed.push("management.token_file: its tokens have changed".to_owned());
        }
        renewed
    }

    /// Ticks for the reactors whose event loops have turned, a look at the disk and at what is parked; to be called about
    /// once a second.
    pub fn look(&mut self, now: Duration) {
        self.disk.look();
        let rests = self.lanes.iter().all(Lane::is_at_rest) && self.receivers.gone_are_left();
        self.plugins.look(now, rests);
        self.dead_letters.withhold(self.plugins.any_fail_closed());
        for Lane { reactor, reactor_tick, reactor_turns, .. } in &mut self.lanes {
            tick_if_turned(reactor, reactor_tick, reactor_turns, now);
        }
        self.destinations.look(now);
    }

    /// Does of [`Appliance::look`] what has to be done while the calling thread is busy: the ticks of the reactors.
    pub fn look_meanwhile(&self) -> impl FnMut(Duration) + Send + use<> {
        let reactor = |lane: &Lane| (Arc::clone(&lane.reactor), lane.reactor_tick.clone(), lane.reactor_turns);
        let mut reactors: Vec<_> = self.lanes.iter().map(reactor).collect();
        move |now| reactors.iter_mut().for_each(|(reactor, tick, turns)| tick_if_turned(reactor, tick, turns, now))
    }

    /// Stops: takes nothing more, makes what was received durable, gives the destinations their time, ends. `hurry` says
    /// whether the destinations' time is over early; `waiting` is called while somebody else is waited for.
    pub fn stop(self, hurry: &dyn Fn() -> bool, waiting: &dyn Fn()) {
        self.health.drain();
        // With the lanes' views of the listening sockets theirs go: nobody is left to wait behind one.
        drop(self.receivers);
        // Release pairs with the producers' Acquire loads.
        self.stops.producers.store(true, Ordering::Release);
        let give_up_at = clock::monotonic() + HAND_OVER;
        self.decoders.doorbells.iter().for_each(Doorbell::ring);
        let (mut producers, mut writers, mut reactor_ticks) = (self.decoders.threads, Vec::new(), Vec::new());
        producers.push(self.desk);
        for lane in self.lanes {
            lane.doorbells.iter().for_each(Doorbell::ring);
            reactor_ticks.push(lane.reactor_tick);
            producers.extend(lane.producers);
            writers.push(lane.writer);
        }
        let give_up = || {
            if clock::monotonic() >= give_up_at {
                // Relaxed: a flag that is only ever set, and seen within a turn.
                self.stops.writers_give_up.store(true, Ordering::Relaxed);
            }
            waiting();
        };
        join_all(producers, &give_up);
        reactor_ticks.iter().for_each(Tick::end);
        join_all(writers, &give_up);
        self.syncing.stop.stop();
        join_all(vec![self.syncing.thread], waiting);
        let drained_at = clock::monotonic() + self.drain_timeout;
        let destinations = self.destinations.drain_until(drained_at);
        let hurried = || {
            if hurry() {
                self.stops.egress.skip();
            }
            waiting();
        };
        join_all(destinations, &hurried);
        let DeadLetterStores { front, delivery, aside, thread, .. } = self.dead_letters;
        // A replay has the destinations' time: what its backend has taken by then is said to be gone.
        while delivery.is_sending() && !self.stops.egress.is_over(clock::monotonic()) {
            hurried();
            thread::park_timeout(JOIN_INTERVAL);
        }
        drop((front, aside));
        delivery.end();
        join_all(vec![thread], waiting);
    }
}

fn tick_if_turned(reactor: &ReactorCounters, tick: &Tick, turns: &mut u64, now: Duration) {
    let now_turned = reactor.turns.get();
    if now_turned != *turns {
        *turns = now_turned;
        tick.tick(now);
    }
}

/// Joins threads as they end. A thread that panicked has broken an invariant: so does its joiner.
fn join_all(threads: Vec<JoinHandle<()>>, waiting: &dyn Fn()) {
    for thread in threads {
        while !thread.is_finished() {
            waiting();
            thread::park_timeout(JOIN_INTERVAL);
        }
        thread.join().expect("threads do not panic");
    }
}

fn bind_management(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Management { address, source })
}

/// Starts the desk of the dead letters; records enter again by a ring to this writer.
fn start_desk(
    rules: RowRules,
    calls: Receiver<DeadLetterCall>,
    stores: &DeadLetterStores,
    writer: &mut WriterSeat,
    (metrics, health, stops): (&Arc<Metrics>, &Health, &Stops),
) -> io::Result<JoinHandle<()>> {
    dead_letters::show(stores, metrics);
    let (outlet, mut end, _) = outlet::pair(RING_BLOCKS, u64::MAX, Doorbell::new()?, writer.parker.unparker().clone());
    end.of_letters = true;
    writer.others.push(end);
    let desk = Desk::new(DeskParts {
        calls,
        logs: stores.logs.clone(),
        letters: stores.delivery.clone(),
        front: FrontReplay::new(outlet, rules, Arc::clone(metrics)),
        stop: Arc::clone(&stops.producers),
        tick: health.thread("desk", TICK_LIMIT, clock::monotonic()),
    });
    thread::Builder::new().name("desk".to_owned()).spawn(move || desk.run())
}

fn start_destinations(
    config: &Config,
    ground: &Ground,
    stop: &Arc<EgressStop>,
    formats: Formats,
    (metrics, health): (&Arc<Metrics>, &Health),
) -> Result<Destinations, StartError> {
    let lanes: Vec<_> = ground.logs.iter().map(|open| Arc::clone(&open.log)).collect();
    let shared = destination::Shared {
        storage: Arc::clone(&ground.storage),
        directory: config.state_directory.join("destinations"),
        release: Arc::new(Release::new(lanes.clone())),
        lanes,
        appended: ground.logs.iter().map(|open| Arc::clone(&open.ledger)).collect(),
        queue: config.queue.clone(),
        letters: ground.dead_letters.delivery.clone(),
        stop: Arc::clone(stop),
        metrics: Arc::clone(metrics),
        health: health.clone(),
        formats,
    };
    Ok(Destinations::start(config, shared)?)
}

fn start_sync(config: &Config, logs: &[OpenLog], parkers: &[Parker], health: &Health) -> io::Result<Syncing> {
    let writers = parkers.iter().map(|parker| parker.unparker().clone());
    let lanes: Vec<_> = logs.iter().map(|open| open.log.clone()).zip(writers).collect();
    let (component, tick) = (health.component("log"), health.thread("sync", TICK_LIMIT, clock::monotonic()));
    component.set(State::Ready);
    let syncer = Syncer::new(config.queue.sync_interval, lanes, component);
    let (given_up, request, stop) = (syncer.given_up(), syncer.request(), syncer.stopper());
    let thread = thread::Builder::new().name("sync".to_owned()).spawn(move || {
        syncer.run(&tick);
        tick.end();
    })?;
    Ok(Syncing { given_up, request, stop, thread })
}

/// A tap on the lanes, and what is counted of it.
fn start_tap(allowed: Tapping, names: SourceNames, metrics: &Metrics) -> Arc<Tap> {
    let tap = Arc::new(Tap::new(allowed, Box::new(move || names.all())));
    let show = |name, help, kind, read: fn(&Tap) -> u64| {
        let tap = Arc::clone(&tap);
        let read = ExtraRead::One(Box::new(move || read(&tap)));
        metrics.add_extra(Extra { name, help, kind, labels: Vec::new(), read });
    };
    show("millrace_tap_listeners", "Who listens to what passes the lanes.", ExtraKind::Gauge, Tap::listeners);
    show("millrace_tap_blocks_total", "Blocks copied for them.", ExtraKind::Counter, Tap::taken);
    let help = "Blocks that a listener had no room for; nothing but the tap has lost them.";
    show("millrace_tap_lost_blocks_total", help, ExtraKind::Counter, Tap::lost);
    tap
}

/// Whom the management port lets in; without a file nobody has a token.
fn read_trust(config: &Config) -> Result<Trust, TokenFileError> {
    let loopback = config.management_trust_loopback;
    let Some(path) = &config.management_token_file else { return Ok(Trust { tokens: Tokens::default(), loopback }) };
    let (tokens, warning) = Tokens::read(path)?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(Trust { tokens, loopback })
}
