//! The world around the processes: time, disk, backends, trouble, and who takes the next turn.
//!
//! Everything that would be a thread or a peer is an actor with a time at which it is due. The world takes the one that is
//! due first, or by chance one that is due nearly as soon, moves the clock there and gives it its turn: minutes pass as
//! fast as turns are taken. A wake-up is a due time moved forward; some are lost on purpose, for every thread looks again
//! by itself. After each turn the balances are compared, and the power may be gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;

use super::oracle::Oracle;
use super::plugins::Plugins;
use super::process::{Configuration, Process, Start};
use super::scenario::{MOST_DESTINATIONS, Scenario};
use crate::config::{AckPolicy, Requirement};
use crate::pipeline::turn::Turn;
use crate::queue::Log;
use crate::sim::backend::Backend;
use crate::sim::disk::SimDisk;

/// When runs begin by the wall clock.
const BEGINS_NS: u64 = 1_780_000_000_000_000_000;

/// Actors that are due within this time may change their order.
const SLACK: Duration = Duration::from_micros(300);

/// An answer to a peer never takes longer, whatever the trouble.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who takes a turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Actor {
    Gateway(usize),
    Lines(usize),
    Writer(usize),
    Keeper(usize),
    Plugins(usize),
    Sync,
    Egress(usize),
    Answer(usize),
    Retention,
    Trouble,
}

/// What runs count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) turns: u64,
    pub(super) power_cuts: u64,
    pub(super) kills: u64,
    pub(super) stops: u64,
}

/// See the module.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) random: Rng,
    /// Apart, so that a run with a steady clock goes the same way.
    pub(super) clock_random: Rng,
    /// Apart, so that the trouble is the same whatever transforms there are.
    pub(super) exchange_random: Rng,
    pub(super) wall_clock_jumps: bool,
    pub(super) now: Duration,
    pub(super) wall_offset_ns: i64,
    pub(super) disk: SimDisk,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    pub(super) backends: Vec<Backend>,
    pub(super) configuration: Configuration,
    pub(super) process: Process,
    /// Sources hand in.
    pub(super) sources_on: bool,
    /// There is trouble; when the next comes, and when the disk has room again.
    pub(super) troubled: bool,
    pub(super) trouble_at: Duration,
    pub(super) full_until: Option<Duration>,
    pub(super) counts: Counts,
    /// What happens is told, for whoever replays a seed.
    tells: bool,
    next_span: u64,
    actors: Vec<(Duration, Actor)>,
}

impl World {
    /// The world of a seed, with its first process.
    pub(super) fn new(seed: u64, wall_clock_jumps: bool) -> World {
        let scenario = Scenario::new(seed);
        let mut random = Rng::with_seed(seed ^ 0x5eed);
        let disk = SimDisk::new(random.u64(..));
        let oracle = Rc::<RefCell<Oracle>>::default();
        oracle.borrow_mut().transform = scenario.transform;
        let backends = (0..MOST_DESTINATIONS).map(|_| Backend::new(random.u64(..))).collect();
        let destinations = if scenario.without_destinations { 0 } else { random.u8(1..8) | 1 };
        let configuration =
            Configuration { lanes: scenario.most_lanes, destinations, returned: 0, transform: scenario.transform };
        let start = Start {
            scenario: &scenario,
            configuration,
            disk: &disk,
            oracle: &oracle,
            now: Duration::ZERO,
            wall_ns: BEGINS_NS,
            seed,
        };
        let process = start.run().expect("nothing has happened yet");
        World {
            clock_random: Rng::with_seed(seed ^ 0xc10c),
            exchange_random: Rng::with_seed(seed ^ 0xcafe),
            trouble_at: scenario.trouble,
            scenario,
            random,
            wall_clock_jumps,
            now: Duration::ZERO,
            wall_offset_ns: 0,
            disk,
            oracle,
            backends,
            configuration,
            process,
            sources_on: true,
            troubled: true,
            full_until: None,
            counts: Counts::default(),
            tells: std::env::var_os("MILLRACE_PIPELINE_TELLS").is_some(),
            next_span: 0,
            actors: Vec::new(),
        }
    }

    /// Tells what happens, for whoever replays a seed.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            eprintln!("{:>10.3} {}", self.now.as_secs_f64(), what());
        }
    }

    /// The wall clock, Unix nanoseconds.
    pub(super) fn wall_ns(&self) -> u64 {
        let steady = BEGINS_NS + u64::try_from(self.now.as_nanos()).expect("minutes");
        steady.saturating_add_signed(self.wall_offset_ns)
    }

    /// The monotonic clock of the process.
    pub(super) fn uptime(&self) -> Duration {
        self.now - self.process.started_at
    }

    /// Starts a process on what the disk holds; while there is trouble it may break off, and the next one try.
    pub(super) fn start(&mut self) {
        for attempt in 0..100 {
            if self.troubled && attempt < 3 && self.random.u8(..) < 64 {
                let fuse = self.random.u64(1..200);
                self.disk.light_fuse(fuse);
            }
            let start = Start {
                scenario: &self.scenario,
                configuration: self.configuration,
                disk: &self.disk,
                oracle: &self.oracle,
                now: self.now,
                wall_ns: self.wall_ns(),
                seed: self.random.u64(..),
            };
            if let Some(process) = start.run()
                && !self.disk.is_off()
            {
                self.disk.remove_fuse();
                self.process = process;
                self.oracle.borrow_mut().exchanged();
                self.tell(|| format!("started with {:?}, {} appended", self.configuration, self.process.appended()));
                return;
            }
            self.leave_disk();
        }
        panic!("a hundred starts broke off");
    }

    /// What the disk holds after a crash: of the page cache everything, or nothing but what was written back.
    fn leave_disk(&mut self) {
        self.tell(|| "crash".to_owned());
        if self.random.u8(..) < 100 {
            self.disk.remove_fuse();
            self.counts.kills += 1;
        } else {
            self.disk = self.disk.after_power_cut();
            self.counts.power_cuts += 1;
            self.void_what_was_not_durable();
        }
    }

    fn void_what_was_not_durable(&self) {
        if self.scenario.ack == AckPolicy::Appended {
            self.oracle.borrow_mut().void(u8::MAX);
        }
    }

    /// The page cache that an ended process leaves behind is believed by nobody after a sync that failed.
    pub(super) fn void_what_no_sync_has_covered(&self) {
        let lags = |log: &Arc<Log>| log.durable_sequence() < log.published_sequence();
        if self.process.logs.iter().any(|log| log.stats().sync_failures > 0 && lags(log)) {
            self.void_what_was_not_durable();
        }
    }

    /// The process is gone with all that it had in memory; the next one starts.
    pub(super) fn crash(&mut self) {
        self.void_what_no_sync_has_covered();
        self.leave_disk();
        self.start();
    }

    /// Takes the next turn.
    pub(super) fn step(&mut self) {
        let (due, actor) = self.next();
        self.now = self.now.max(due);
        self.counts.turns += 1;
        let nanoseconds = u64::try_from(self.now.as_nanos()).expect("minutes");
        match actor {
            Actor::Gateway(lane) => self.gateway(lane),
            Actor::Lines(lane) => self.lines(lane),
            Actor::Writer(lane) => self.writer(lane),
            Actor::Keeper(lane) => self.keeper(lane),
            Actor::Plugins(lane) => self.plugins(lane),
            Actor::Sync => self.sync(),
            Actor::Egress(index) => self.egress(index),
            Actor::Answer(index) => self.process.destinations[index].arrive(self.now),
            Actor::Retention => self.retention(),
            Actor::Trouble => self.trouble(),
        }
        self.oracle.borrow_mut().note("turn", &[nanoseconds]);
        self.hear_of_exchange();
        if self.disk.is_off() {
            self.crash();
        }
    }

    fn next(&mut self) -> (Duration, Actor) {
        let actors = &mut self.actors;
        actors.clear();
        for (index, lane) in self.process.lanes.iter().enumerate() {
            actors.extend(lane.gateway.as_ref().map(|_| (lane.gateway_due, Actor::Gateway(index))));
            actors.extend(lane.lines.as_ref().map(|_| (lane.lines_due, Actor::Lines(index))));
            actors.extend(lane.writer.as_ref().map(|_| (lane.writer_due, Actor::Writer(index))));
            actors.extend(lane.keeper.due().map(|due| (due, Actor::Keeper(index))));
            let plugins = lane.plugins.as_ref().and_then(Plugins::due);
            actors.extend(plugins.map(|due| (due, Actor::Plugins(index))));
        }
        let process = &self.process;
        actors.extend(process.syncer.as_ref().map(|_| (process.sync_due.max(process.sync_blocked_until), Actor::Sync)));
        for (index, destination) in process.destinations.iter().enumerate() {
            if destination.egress.is_some() {
                actors.push((destination.due, Actor::Egress(index)));
                actors.extend(destination.next_answer().map(|due| (due, Actor::Answer(index))));
            }
        }
        actors.extend(process.none.as_ref().map(|none| (none.due, Actor::Retention)));
        if self.troubled {
            actors.push((self.trouble_at, Actor::Trouble));
        }
        let first = actors.iter().map(|(due, _)| *due).min().expect("somebody always acts");
        actors.retain(|(due, _)| *due <= first + SLACK);
        actors[self.random.usize(..actors.len())]
    }

    fn gateway(&mut self, index: usize) {
        let (now, wall_ns) = (self.now, self.wall_ns());
        let promised_to = self.promised_to();
        let lane = &mut self.process.lanes[index];
        let Some(gateway) = &mut lane.gateway else { return };
        gateway.flush();
        let acknowledged = gateway.answer(now, PATIENCE);
        if self.sources_on && now >= lane.requests_at {
            gateway.request(&mut self.next_span, (now, wall_ns));
            lane.requests_at = now + self.scenario.pace.mul_f64(2.0 * self.random.f64());
        }
        lane.gateway_due = now + Duration::from_millis(self.random.u64(20..400));
        if self.sources_on {
            lane.gateway_due = lane.gateway_due.min(lane.requests_at);
        }
        self.oracle.borrow_mut().promise(&acknowledged, promised_to);
        self.wake_writer(index);
        self.process.check_lane(index);
    }

    /// Who has to get what is acknowledged now: what was passed through, and what was encoded.
    fn promised_to(&self) -> (u8, u8) {
        let (mut all, mut encoded) = (0, 0);
        for (index, plan) in self.scenario.destinations.iter().enumerate() {
            let bit = self.configuration.destinations & 1 << index;
            if plan.requirement == Requirement::Required {
                encoded |= bit;
                all |= if plan.encoded_only { 0 } else { bit };
            }
        }
        (all, encoded)
    }

    fn lines(&mut self, index: usize) {
        let (now, wall_ns) = (self.now, self.wall_ns());
        let lane = &mut self.process.lanes[index];
        let Some(lines) = &mut lane.lines else { return };
        if self.sources_on && now >= lane.rows_at {
            lines.read(wall_ns);
            lane.rows_at = now + self.scenario.pace.mul_f64(8.0 * self.random.f64());
        } else {
            lines.hand_over();
        }
        lane.lines_due = now + Duration::from_millis(self.random.u64(50..1_000));
        if self.sources_on {
            lane.lines_due = lane.lines_due.min(lane.rows_at);
        }
        self.wake_writer(index);
        self.process.check_lane(index);
    }

    fn writer(&mut self, index: usize) {
        let (now, uptime, wall_ns) = (self.now, self.uptime(), self.wall_ns());
        let lane = &mut self.process.lanes[index];
        let Some(writer) = &mut lane.writer else { return };
        match writer.turn(uptime, wall_ns) {
            Turn::Again => lane.writer_due = now,
            Turn::Wait(time) => lane.writer_due = now + time,
            Turn::Ended => lane.writer.take().expect("it has just turned").end(wall_ns),
        }
        let has_ended = lane.writer.is_none();
        lane.keeper.take(now);
        if let Some(plugins) = &mut lane.plugins {
            plugins.begin(now);
        }
        let log = &self.process.logs[index];
        let reached = (log.published_sequence(), log.durable_sequence());
        if lane.reached != reached {
            lane.reached = reached;
            lane.gateway_due = wake(lane.gateway_due, now, self.scenario.lost_wakes, &mut self.random);
            lane.lines_due = wake(lane.lines_due, now, self.scenario.lost_wakes, &mut self.random);
            let process = &mut self.process;
            process.sync_due = wake(process.sync_due, now, self.scenario.lost_wakes, &mut self.random);
            for destination in &mut process.destinations {
                destination.due = wake(destination.due, now, self.scenario.lost_wakes, &mut self.random);
            }
        }
        self.process.check_lane(index);
        if has_ended {
            self.process.check_ended_lane(index);
        }
    }

    fn plugins(&mut self, index: usize) {
        let uptime = self.uptime();
        let lane = &mut self.process.lanes[index];
        if !lane.plugins.as_mut().is_some_and(|plugins| plugins.turn(self.now, uptime)) {
            lane.plugins = None;
        }
        lane.writer_due = wake(lane.writer_due, self.now, self.scenario.lost_wakes, &mut self.random);
    }

    fn keeper(&mut self, index: usize) {
        let lane = &mut self.process.lanes[index];
        lane.keeper.keep(&mut self.oracle.borrow_mut());
        lane.keeper.take(self.now);
        lane.writer_due = wake(lane.writer_due, self.now, self.scenario.lost_wakes, &mut self.random);
    }

    /// Wakes a writer for whom there are blocks, or verdicts to give.
    fn wake_writer(&mut self, index: usize) {
        let lane = &mut self.process.lanes[index];
        if lane.tally.borrow_mut().pushed == 0 && lane.reached.1 == self.process.logs[index].durable_sequence() {
            return;
        }
        lane.tally.borrow_mut().pushed = 0;
        lane.writer_due = wake(lane.writer_due, self.now, self.scenario.lost_wakes, &mut self.random);
    }

    fn sync(&mut self) {
        let (now, uptime, wall_ns) = (self.now, self.uptime(), self.wall_ns());
        let Some(syncer) = &mut self.process.syncer else { return };
        match syncer.turn(uptime, wall_ns) {
            Turn::Again => self.process.sync_due = now,
            Turn::Wait(time) => self.process.sync_due = now + time,
            Turn::Ended => self.process.syncer = None,
        }
        (0..self.process.lanes.len()).for_each(|lane| self.wake_writer(lane));
    }

    fn egress(&mut self, index: usize) {
        let (now, uptime) = (self.now, self.uptime());
        let appended = self.process.appended();
        let destination = &mut self.process.destinations[index];
        let Some(egress) = &mut destination.egress else { return };
        match egress.turn(uptime) {
            Turn::Again => destination.due = now,
            Turn::Wait(time) => destination.due = now + time,
            Turn::Ended => destination.egress.take().expect("it has just turned").end(uptime),
        }
        let oracle = &mut *self.oracle.borrow_mut();
        destination.keep(oracle);
        if self.disk.is_off() {
            return;
        }
        destination.carry(&mut self.backends[destination.plan], oracle, now);
        destination.check(appended, oracle);
    }

    fn retention(&mut self) {
        let (now, wall_ns) = (self.now, self.wall_ns());
        let appended = self.process.appended();
        let Some(none) = &mut self.process.none else { return };
        match none.retention.turn(now, wall_ns) {
            Turn::Again => none.due = now,
            Turn::Wait(time) => none.due = now + time,
            Turn::Ended => {
                self.process.none = None;
                return;
            }
        }
        let kept = none.gauges.in_queue.get();
        assert_eq!(appended, none.ledger.snapshot().settled() + kept, "the balance without a destination");
    }

    /// Sends one more request through a lane, again each second as a peer does that was refused, until the answer is yes. A
    /// sync that was to fail before may still do so: a process whose log has failed for good is started again, perhaps with
    /// fewer lanes.
    pub(super) fn send_fresh(&mut self, index: usize) {
        let before = self.oracle.borrow().promised;
        let (mut send_at, mut limit) = (self.now, self.now + Duration::from_secs(30));
        while self.oracle.borrow().promised == before && index < self.process.lanes.len() {
            assert!(self.now < limit, "a fresh request is not acknowledged: {}", self.process.what_is_left());
            if self.now >= send_at {
                send_at = self.now + Duration::from_secs(1);
                let (now, wall_ns) = (self.now, self.wall_ns());
                let lane = &mut self.process.lanes[index];
                lane.gateway.as_mut().expect("the process runs").request(&mut self.next_span, (now, wall_ns));
            }
            self.step();
            if self.process.has_failed() {
                self.crash();
                limit = self.now + Duration::from_secs(30);
            }
        }
    }

    /// The writers refuse what they cannot take from now on.
    pub(super) fn give_up(&mut self) {
        if self.process.give_up.swap(true, Ordering::Relaxed) {
            return;
        }
        for lane in &mut self.process.lanes {
            if let Some(plugins) = &mut lane.plugins {
                plugins.hurry(lane.writer_due);
            }
        }
    }
}

/// The time at which somebody who is woken turns; some wake-ups come to nothing.
fn wake(due: Duration, now: Duration, lost: u8, random: &mut Rng) -> Duration {
    if random.u8(..) < lost {
        return due;
    }
    due.min(now + Duration::from_micros(random.u64(0..1_500)))
}
