//! One process from start to its end: the product's own threads without the threads.
//!
//! What `appliance`, `ingest` and `destinations` make and introduce to each other is made here in the same order, on the
//! simulated disk; what runs there in a thread is here a value whose turns the world takes. A start that the disk breaks
//! off gives nothing.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel;
use crossbeam::sync::Parker;

use super::destination::{Destination, Outside, Rules};
use super::exchange::{self, Door};
use super::keeper::{self, Keeper};
use super::oracle::Oracle;
use super::plugins::Plugins;
use super::scenario::{DestinationPlan, Scenario};
use super::sources::{Gateway, Lines, PASSED, ROWS, Spied, Tally};
use crate::config::{Admission, Requirement, StartAt};
use crate::deliver::Delivery;
use crate::pipeline::age::Ages;
use crate::pipeline::drain::EgressStop;
use crate::pipeline::egress::{Egress, EgressOptions, Takes};
use crate::pipeline::outlet;
use crate::pipeline::place::Place;
use crate::pipeline::release::Release;
use crate::pipeline::retention::{Retain, Retention};
use crate::pipeline::senders::Senders;
use crate::pipeline::sources::Admissions;
use crate::pipeline::sync::{SyncRequest, SyncStop, Syncer};
use crate::pipeline::watch::Watch;
use crate::pipeline::window::{LaneState, Window};
use crate::pipeline::writer::{LaneWriter, Transforms, WriterOptions};
use crate::queue::{Ahead, Appender, AtRest, Budget, Cursor, LaneCursor, Log, OpenError, Options, Position, Storage};
use crate::sim::disk::SimDisk;
use crate::sys::doorbell::Doorbell;
use crate::telemetry::health::{Health, State};
use crate::telemetry::ledger::{self, LaneTotals};
use crate::telemetry::metrics::{DestinationGauges, Words};
use crate::transform::scripted::Scripted;

/// How long blocks are kept without a destination.
const RETAIN: Duration = Duration::from_secs(120);

/// What a start is configured with beside the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) lanes: usize,
    /// A bit for each destination.
    pub(super) destinations: u8,
    /// Of those, which were away for a while: what was freed meanwhile is lost to them.
    pub(super) returned: u8,
    /// What the lanes' transforms do.
    pub(super) transform: Scripted,
}

/// A lane with its sources.
pub(super) struct Lane {
    pub(super) gateway: Option<Gateway>,
    /// When it turns, and when its peers send.
    pub(super) gateway_due: Duration,
    pub(super) requests_at: Duration,
    pub(super) lines: Option<Lines>,
    pub(super) lines_due: Duration,
    pub(super) rows_at: Duration,
    pub(super) writer: Option<LaneWriter>,
    pub(super) writer_due: Duration,
    pub(super) keeper: Keeper,
    pub(super) door: Door,
    /// The thread beside the writer, where there is one.
    pub(super) plugins: Option<Plugins>,
    /// What its log had published, and what of it was durable, after the writer's last turn.
    pub(super) reached: (u64, u64),
    pub(super) tally: Rc<RefCell<Tally>>,
}

/// The retention, where there is no destination.
pub(super) struct NoDestination {
    pub(super) retention: Retention,
    pub(super) due: Duration,
    pub(super) ledger: Arc<ledger::Destination>,
    pub(super) gauges: Arc<DestinationGauges>,
}

/// See the module.
pub(super) struct Process {
    pub(super) started_at: Duration,
    pub(super) logs: Vec<Arc<Log>>,
    pub(super) ledgers: Vec<Arc<ledger::Lane>>,
    pub(super) opened: Vec<LaneTotals>,
    pub(super) lanes: Vec<Lane>,
    pub(super) syncer: Option<Syncer>,
    pub(super) sync_due: Duration,
    /// The disk is busy until then.
    pub(super) sync_blocked_until: Duration,
    pub(super) sync_stop: SyncStop,
    pub(super) destinations: Vec<Destination>,
    pub(super) none: Option<NoDestination>,
    pub(super) egress_stop: Arc<EgressStop>,
    pub(super) give_up: Arc<AtomicBool>,
}

/// Everything that a start needs to know.
pub(super) struct Start<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) configuration: Configuration,
    pub(super) disk: &'a SimDisk,
    pub(super) oracle: &'a Rc<RefCell<Oracle>>,
    pub(super) now: Duration,
    pub(super) wall_ns: u64,
    pub(super) seed: u64,
}

/// The log of a lane with its end and its balance.
struct Opened {
    log: Arc<Log>,
    appender: Appender,
    ledger: Arc<ledger::Lane>,
}

impl Start<'_> {
    /// Starts a process; `None` when the disk breaks the start off.
    pub(super) fn run(&self) -> Option<Process> {
        let Scenario { most_lanes, budget_bytes, sync_interval, .. } = self.scenario;
        let budget = Arc::new(Budget::new(*budget_bytes, 0));
        let cursors = self.cursors();
        let mut opened = Vec::new();
        for lane in 0..u32::try_from(*most_lanes).expect("two") {
            opened.push(self.open_log(lane, &budget, &cursors)?);
        }
        let logs: Vec<Arc<Log>> = opened.iter().map(|lane| Arc::clone(&lane.log)).collect();
        let ledgers: Vec<Arc<ledger::Lane>> = opened.iter().map(|lane| Arc::clone(&lane.ledger)).collect();
        let egress_stop = Arc::<EgressStop>::default();
        let destinations = self.destinations(&logs, &ledgers, &egress_stop)?;
        let none = match destinations.is_empty() {
            true => Some(self.retention(&logs, &ledgers, &egress_stop)?),
            false => None,
        };
        let health = Health::new().component("log");
        let parked = Parker::new();
        let synced = logs.iter().map(|log| (Arc::clone(log), parked.unparker().clone())).collect();
        let syncer = Syncer::new(*sync_interval, synced, health);
        let (give_up, request) = (Arc::<AtomicBool>::default(), syncer.request());
        let running = opened.into_iter().take(self.configuration.lanes).enumerate();
        let lanes = running.map(|(index, lane)| self.lane(index as u64, lane, &request, &give_up)).collect();
        Some(Process {
            started_at: self.now,
            opened: ledgers.iter().map(|lane| lane.snapshot()).collect(),
            logs,
            ledgers,
            lanes,
            sync_stop: syncer.stopper(),
            syncer: Some(syncer),
            sync_due: self.now,
            sync_blocked_until: self.now,
            destinations,
            none,
            egress_stop,
            give_up,
        })
    }

    /// Where every destination that ever was stands, as far as that can be read.
    fn cursors(&self) -> Vec<LaneCursor> {
        let names = self.scenario.destinations.iter().map(|plan| plan.name.as_str()).chain(["none"]);
        let directories = names.map(|name| Path::new("state/destinations").join(name));
        let known = directories.filter(|directory| self.disk.contents(&directory.join("cursor")).is_some());
        let opened = known.filter_map(|directory| Cursor::open(self.disk, &directory).ok());
        opened.flat_map(|cursor| cursor.lanes().to_vec()).collect()
    }

    fn open_log(&self, lane: u32, budget: &Arc<Budget>, cursors: &[LaneCursor]) -> Option<Opened> {
        let directory = PathBuf::from("state/log");
        let options = Options {
            directory: directory.join(format!("lane-{lane:02}")),
            quarantine: directory.join("quarantine"),
            lane,
            segment_bytes: self.scenario.segment_bytes,
            max_payload_bytes: self.scenario.max_payload_bytes,
            pool_segments: self.scenario.pool_segments,
            opened_at_start: self.scenario.opened_at_start,
            budget: Arc::clone(budget),
            wall_ns: self.wall_ns,
            at_rest: AtRest { compression: self.scenario.compression, ..AtRest::default() },
        };
        let storage: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let (log, appender, found) = match Log::open_with_cursors(storage, options, cursors) {
            Ok(opened) => opened,
            Err(error) => {
                let broke_off = matches!(&error, OpenError::Storage { .. });
                assert!(broke_off, "recovery refused: {error}");
                return None;
            }
        };
        if self.disk.is_off() {
            return None;
        }
        assert_eq!((found.lost_blocks, found.quarantined), (0, 0), "a crash alone has damaged a log");
        assert_eq!(found.totals.imbalance(), 0, "the lane balance does not open in balance: {:?}", found.totals);
        let ledger = Arc::new(ledger::Lane::default());
        ledger.open_from(found.totals);
        Some(Opened { log, appender, ledger })
    }

    fn lane(&self, index: u64, opened: Opened, sync: &SyncRequest, give_up: &Arc<AtomicBool>) -> Lane {
        let Scenario { ack, admission, sync_bytes, ring_blocks, ring_spans, poison_every, plugins_need, .. } =
            *self.scenario;
        let tally = Rc::<RefCell<Tally>>::default();
        let writer = Parker::new();
        let ring = |spans| {
            let doorbell = Doorbell::new().expect("there are descriptors");
            let (outlet, end, _) = outlet::pair(ring_blocks, spans, doorbell, writer.unparker().clone());
            (Spied::new(outlet, self.oracle, &tally), end)
        };
        let (to_gateway, gateway_end) = ring(u64::MAX);
        let (to_lines, lines_end) = ring(ring_spans);
        let Opened { log, appender, ledger } = opened;
        let admissions = Admissions::default();
        admissions.set(PASSED, Admission::Block);
        admissions.set(ROWS, admission);
        let options = WriterOptions {
            log,
            appender,
            ledger,
            ack,
            admission: admissions,
            sync_bytes,
            sync: sync.clone(),
            give_up: Arc::clone(give_up),
            tap: Arc::default(),
        };
        let chain = exchange::chain(self.configuration.transform, self.scenario.piece_bytes);
        let (door, swaps) = Door::new();
        let (aside, letters) = channel::bounded(keeper::WAITING);
        let transforms = Transforms::new(chain, swaps, aside, writer.unparker().clone());
        let seed = self.seed.wrapping_add(index);
        let (transforms, plugins) = match plugins_need {
            Some(longest) => {
                let (transforms, worker) = transforms.away_without_thread();
                (transforms, Some(Plugins::new(worker, longest, seed)))
            }
            None => (transforms, None),
        };
        Lane {
            gateway: Some(Gateway::new(to_gateway, seed, poison_every)),
            gateway_due: self.now,
            requests_at: self.now,
            lines: Some(Lines::new(to_lines, seed)),
            lines_due: self.now,
            rows_at: self.now,
            writer: Some(LaneWriter::new(options, transforms, vec![lines_end, gateway_end])),
            writer_due: self.now,
            keeper: Keeper::new(letters, seed),
            door,
            plugins,
            reached: (0, 0),
            tally,
        }
    }

    fn open_place(
        &self,
        name: &str,
        logs: &[Arc<Log>],
        (requirement, start_at): (Requirement, StartAt),
    ) -> Option<(Place, Vec<LaneState<Position>>)> {
        let cursor = Cursor::open(self.disk, &Path::new("state/destinations").join(name)).ok()?;
        let (place, states) = Place::open(cursor, logs, requirement, start_at).ok()?;
        for (log, state) in logs.iter().zip(&states) {
            assert_eq!(state.totals.settled(), state.position.spans, "totals of {name} in lane {}", log.lane());
        }
        Some((place, states))
    }

    fn destinations(
        &self,
        logs: &[Arc<Log>],
        ledgers: &[Arc<ledger::Lane>],
        stop: &Arc<EgressStop>,
    ) -> Option<Vec<Destination>> {
        let plans = self.scenario.destinations.iter().enumerate();
        let configured = plans.filter(|(index, _)| self.configuration.destinations & 1 << index != 0);
        let mut opened = Vec::new();
        for (index, plan) in configured {
            let (place, states) = self.open_place(&plan.name, logs, (plan.requirement, plan.start_at))?;
            opened.push((index, plan, place, states));
        }
        let release = Arc::new(Release::new(logs.to_vec()));
        for (_, _, place, states) in &mut opened {
            join(&release, place, states);
        }
        release.free();
        let mut destinations = Vec::new();
        for (index, plan, place, states) in opened {
            destinations.push(self.destination((index, plan), (place, states), (logs, ledgers), stop));
        }
        Some(destinations)
    }

    fn destination(
        &self,
        (index, plan): (usize, &DestinationPlan),
        (place, states): (Place, Vec<LaneState<Position>>),
        (logs, ledgers): (&[Arc<Log>], &[Arc<ledger::Lane>]),
        stop: &Arc<EgressStop>,
    ) -> Destination {
        let (senders, jobs, answers) = Senders::without_threads(plan.retry.max_concurrency);
        let readers = logs.iter().zip(&states).map(|(log, state)| log.reader(state.position)).collect();
        let window = Window::new(states, &place.totals_elsewhere());
        let (ledger, gauges) = (Arc::<ledger::Destination>::default(), Arc::<DestinationGauges>::default());
        ledger.show(window.totals());
        let letters = Arc::<Mutex<Vec<_>>>::default();
        let (kept, disk) = (Arc::clone(&letters), self.disk.clone());
        let health = Health::new();
        let component = health.component(&plan.name);
        component.set(State::Ready);
        let egress = Egress::new(EgressOptions {
            name: plan.name.clone(),
            readers,
            window,
            place,
            delivery: Delivery::new(plan.retry, plan.batch, plan.compression, self.seed + index as u64),
            senders,
            takes: Takes { logs: false, encoded_only: plan.encoded_only },
            ledger: Arc::clone(&ledger),
            keep_letter: Box::new(move |letter| {
                // A letter that the power does not last for is kept by nobody.
                if !disk.is_off() {
                    kept.lock().expect("nobody panics with it").push(letter);
                }
                true
            }),
            stop: Arc::clone(stop),
            watch: Watch {
                name: plan.name.clone(),
                lanes: ledgers.to_vec(),
                logs: logs.to_vec(),
                far_bytes: (0, Duration::ZERO),
                words: Words::default(),
                gauges: Arc::clone(&gauges),
                latency: metrics::Histogram::noop(),
                component,
                tick: health.thread(&plan.name, Duration::MAX, Duration::ZERO),
                degraded: None,
                parked: None,
                unread: (Ahead::default(), Duration::ZERO),
                told: None,
            },
        });
        let encoded_only = plan.encoded_only;
        let returned = self.configuration.returned & 1 << index != 0;
        let required = plan.requirement == Requirement::Required;
        let rules = Rules { encoded_only, returned, required };
        let outside = Outside { plan: index, rules, ledger, gauges, letters, jobs, answers };
        Destination::new(egress, outside, self.now)
    }

    fn retention(
        &self,
        logs: &[Arc<Log>],
        ledgers: &[Arc<ledger::Lane>],
        stop: &Arc<EgressStop>,
    ) -> Option<NoDestination> {
        let (mut place, states) = self.open_place("none", logs, (Requirement::Required, StartAt::Oldest))?;
        let release = Arc::new(Release::new(logs.to_vec()));
        join(&release, &mut place, &states);
        release.free();
        let window = Window::new(states, &place.totals_elsewhere());
        let Scenario { pool_segments, segment_bytes, budget_bytes, .. } = *self.scenario;
        let spare_bytes = (pool_segments as u64 + 2) * segment_bytes;
        let (ledger, gauges) = (Arc::<ledger::Destination>::default(), Arc::<DestinationGauges>::default());
        ledger.show(window.totals());
        let retention = Retention {
            lanes: logs.to_vec(),
            appended: ledgers.to_vec(),
            place,
            window,
            retain: Arc::new(Retain::new(RETAIN)),
            ages: Ages::default(),
            lane_bytes: (budget_bytes / logs.len() as u64).saturating_sub(spare_bytes),
            ledger: Arc::clone(&ledger),
            gauges: Arc::clone(&gauges),
            looked_at: Duration::ZERO,
            stop: Arc::clone(stop),
            tick: Health::new().thread("retention", Duration::MAX, Duration::ZERO),
        };
        Some(NoDestination { retention, due: self.now, ledger, gauges })
    }
}

impl Process {
    /// Spans in the logs of all lanes, by their balances.
    pub(super) fn appended(&self) -> u64 {
        self.ledgers.iter().map(|lane| lane.appended.get()).sum()
    }

    /// Storage has failed for good: the process is of no more use.
    pub(super) fn has_failed(&self) -> bool {
        self.logs.iter().any(|log| log.has_failed())
    }

    /// The lane balance, by itself and against what the lane's producers were told.
    pub(super) fn check_lane(&self, index: usize) {
        let (now, opened, lane) = (self.ledgers[index].snapshot(), &self.opened[index], &self.lanes[index]);
        assert_eq!(now.imbalance(), 0, "the balance of lane {index}: {now:?}");
        let tally = lane.tally.borrow();
        let dropped = now.transform_dropped - opened.transform_dropped;
        let (taken, refused) = (now.appended - opened.appended + dropped, now.refused - opened.refused);
        // What nobody can say yes or no to may be on both sides.
        let (accepted, unknown) = (tally.accepted, tally.unknown);
        let is_booked = taken + unknown >= accepted && refused >= tally.refused;
        assert!(is_booked, "lane {index} answered what it has not booked: {now:?} since {opened:?}, {tally:?}");
        if tally.unanswered == 0 {
            assert_eq!(taken + refused, accepted + tally.refused, "lane {index} against its producers");
            assert!(refused <= tally.refused + unknown, "lane {index} has refused what it said yes to");
        }
        if let Some(lines) = &lane.lines {
            lines.check(tally.records);
        }
    }

    /// Whatever a lane's rings were given is booked: its writer has ended.
    pub(super) fn check_ended_lane(&self, index: usize) {
        let booked = |of: &LaneTotals| of.appended + of.transform_dropped + of.refused;
        let booked = booked(&self.ledgers[index].snapshot()) - booked(&self.opened[index]);
        assert_eq!(booked, self.lanes[index].tally.borrow().spans, "lane {index} ends with what nobody has booked");
    }

    /// Nothing is between source and log, and nothing between log and backend.
    pub(super) fn is_quiet(&self) -> bool {
        let idle =
            |lane: &Lane| lane.tally.borrow().unanswered == 0 && lane.gateway.as_ref().is_none_or(Gateway::is_idle);
        let settled = |one: &Destination| one.is_quiet() && one.ledger.snapshot().settled() == self.appended();
        self.lanes.iter().all(idle) && self.destinations.iter().all(settled)
    }

    /// Spans that the destination which is furthest behind has in front of it.
    pub(super) fn backlog(&self) -> u64 {
        let settled = self.destinations.iter().map(|one| one.ledger.snapshot().settled()).min();
        settled.map_or(0, |settled| self.appended() - settled)
    }

    /// What stands between that and now, in words.
    pub(super) fn what_is_left(&self) -> String {
        let unanswered: Vec<u64> = self.lanes.iter().map(|lane| lane.tally.borrow().unanswered).collect();
        let ends: Vec<_> = self.logs.iter().map(|log| (log.oldest(), log.tail(), log.stats())).collect();
        let settled: Vec<_> =
            self.destinations.iter().map(|one| (one.plan, one.is_quiet(), one.ledger.snapshot().settled())).collect();
        format!("{} appended, unanswered {unanswered:?}, settled {settled:?}, logs {ends:?}", self.appended())
    }
}

/// Joins a place to those that the log is held for.
fn join(release: &Arc<Release>, place: &mut Place, states: &[LaneState<Position>]) {
    let positions = states.iter().map(|state| state.position).collect();
    let ((), member) = release.join(|| Ok(((), positions))).expect("there is nothing that fails");
    place.release_with(Arc::clone(release), member);
}
