//! The sync thread: one per device, the only caller of `fdatasync`, so that the lanes share each one.
//!
//! It syncs at once when a writer says that somebody waits or that much is unsynced, else once an interval. While a sync
//! runs, requests merge into the next one: group commit without a timer. When one was made while a sync ran, there are
//! several who wait in turn; then the thread rests for half as long as the sync took, so that those whom it has answered
//! come again and share the next. Who is alone is never made to wait. After each sync it wakes the writers, which send the
//! verdicts. It owns no data; a sync that fails is mended, or reported, by the log itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::sync::{Parker, Unparker};

use super::sabotage::{Sabotage, planted};
use super::turn::Turn;
use crate::queue::Log;
use crate::sys::clock;
use crate::sys::handshake::{Done, Request};
use crate::telemetry::health::{Component, State, Tick};

/// Time between rounds of what can wait: footers, recycled files, spare segments.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// How long the destinations still send from memory once the log has failed for good, before the process ends itself: only a
/// start finds out what is on the disk.
const FAIL_HOLD: Duration = Duration::from_secs(30);

/// The longest rest between two syncs, whatever the first took: a disk that is slow groups enough.
const LONGEST_REST: Duration = Duration::from_millis(1);

/// What the log's component says while the writer has not moved what a failed sync left, for want of room or of a turn.
const MOVES_BLOCKS: &str = "a sync failed, and its blocks wait to be moved to another file";

/// How writers ask for a sync.
#[derive(Clone)]
pub struct SyncRequest {
    requested: Arc<Request>,
    thread: Unparker,
}

impl SyncRequest {
    /// Asks for a sync of every lane that has something unsynced, now.
    pub fn request(&self) {
        if self.requested.make() {
            self.thread.unpark();
        }
    }
}

/// The sync thread's state.
pub struct Syncer {
    parker: Parker,
    requested: Arc<Request>,
    /// The writers append nothing more.
    stop: Arc<Done>,
    interval: Duration,
    /// The logs with the unparkers of their writers.
    lanes: Vec<(Arc<Log>, Unparker)>,
    shown: Shown,
    synced_at: Duration,
    rests_until: Duration,
    tended_at: Duration,
    /// By lane: tending failed, so it waits for its time.
    tending_fails: Vec<bool>,
    failed_since: Option<Duration>,
    given_up: Arc<AtomicBool>,
}

/// Ends the sync thread after a last sync.
#[derive(Clone)]
pub struct SyncStop {
    stop: Arc<Done>,
    thread: Unparker,
}

impl SyncStop {
    /// Called once every writer has ended.
    pub fn stop(&self) {
        self.stop.say();
        self.thread.unpark();
    }
}

impl Syncer {
    /// A syncer of `lanes`, the logs with the unparkers of their writers, that also syncs once an `interval` without being
    /// asked. `health` says how the log does.
    #[must_use]
    pub fn new(interval: Duration, lanes: Vec<(Arc<Log>, Unparker)>, health: Component) -> Syncer {
        let shown = Shown { failures: vec![None; lanes.len()], health };
        let tending_fails = vec![false; lanes.len()];
        Syncer {
            parker: Parker::new(),
            // What recovery has left is synced by the first turn.
            requested: Arc::new(Request::new(true)),
            stop: Arc::new(Done::new(false)),
            interval,
            lanes,
            shown,
            synced_at: Duration::ZERO,
            rests_until: Duration::ZERO,
            tended_at: Duration::ZERO,
            tending_fails,
            failed_since: None,
            given_up: Arc::default(),
        }
    }

    /// How writers ask for a sync.
    #[must_use]
    pub fn request(&self) -> SyncRequest {
        SyncRequest { requested: self.requested.clone(), thread: self.parker.unparker().clone() }
    }

    /// Set once a log has failed for good and the time to hold on is over.
    #[must_use]
    pub fn given_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.given_up)
    }

    /// How the thread is ended.
    #[must_use]
    pub fn stopper(&self) -> SyncStop {
        SyncStop { stop: self.stop.clone(), thread: self.parker.unparker().clone() }
    }

    /// The thread's body.
    pub fn run(mut self, tick: &Tick) {
        loop {
            let began = clock::monotonic();
            let Turn::Wait(time) = self.turn(began, clock::wall_ns()) else { return };
            let ended = clock::monotonic();
            if self.synced_at == began && self.requested.is_made() {
                self.rests_until = ended + ((ended - began) / 2).min(LONGEST_REST);
            }
            tick.tick(ended);
            self.parker.park_timeout(time);
        }
    }

    /// Syncs what was asked for or is due, then tends what can wait.
    pub fn turn(&mut self, now: Duration, wall_ns: u64) -> Turn {
        // Asked first, so that the last round syncs everything.
        let stopping = self.stop.is_said();
        if !stopping && now < self.rests_until {
            return Turn::Wait(self.rests_until - now);
        }
        let requested = self.requested.take();
        let last = stopping && !planted(Sabotage::NoLastSync);
        if last || requested || now.saturating_sub(self.synced_at) >= self.interval {
            self.synced_at = now;
            let dirty = self.lanes.iter().enumerate().filter(|(_, (log, _))| log.unsynced_bytes() > 0);
            for (lane, (log, writer)) in dirty {
                let failure = log.sync().err().map(|error| error.to_string());
                self.shown.synced(lane, failure.or_else(|| log.moves_blocks().then(|| MOVES_BLOCKS.to_owned())));
                writer.unpark();
            }
        }
        let due = stopping || now.saturating_sub(self.tended_at) >= TEND_INTERVAL;
        if due {
            self.tended_at = now;
        }
        self.tend(due, wall_ns);
        if self.lanes.iter().any(|(log, _)| log.has_failed())
            && now.saturating_sub(*self.failed_since.get_or_insert(now)) >= FAIL_HOLD
        {
            // Relaxed: a flag that is only ever set, and looked at once a second.
            self.given_up.store(true, Ordering::Relaxed);
        }
        if !stopping {
            return Turn::Wait(self.interval.min(TEND_INTERVAL));
        }
        self.leave();
        Turn::Ended
    }
}

impl Syncer {
    /// What is durable is all that there will be.
    fn leave(&self) {
        for (log, _) in &self.lanes {
            if let Err(error) = log.leave() {
                tracing::warn!(lane = log.lane(), %error, "it cannot be written how far the log has come");
            }
        }
    }

    /// Tends the logs that want it. One that cannot be tended is tried again when it is due, and said once.
    fn tend(&mut self, due: bool, wall_ns: u64) {
        for ((log, _), fails) in self.lanes.iter().zip(&mut self.tending_fails) {
            if !due && (*fails || !log.wants_tending()) {
                continue;
            }
            let outcome = log.tend(wall_ns);
            if let Err(error) = &outcome
                && !*fails
            {
                tracing::warn!(lane = log.lane(), %error, "the log cannot be tended: no segment is freed or prepared");
            }
            *fails = outcome.is_err();
        }
    }
}

/// What the log's component says of all lanes: one that is well does not hide one that has failed.
struct Shown {
    failures: Vec<Option<String>>,
    health: Component,
}

impl Shown {
    /// A lane was synced, or failed. Shown when it is news.
    fn synced(&mut self, lane: usize, failure: Option<String>) {
        if self.failures[lane] == failure {
            return;
        }
        self.failures[lane] = failure;
        let failed = self.failures.iter().enumerate().filter_map(|(lane, failure)| Some((lane, failure.as_ref()?)));
        let reasons: Vec<String> = failed.map(|(lane, failure)| format!("lane {lane}: {failure}")).collect();
        self.health.set(if reasons.is_empty() { State::Ready } else { State::Degraded(reasons.join(", ")) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::Health;

    #[test]
    fn a_request_waits_for_the_end_of_the_rest_and_a_stop_does_not() {
        let at = Duration::from_millis;
        let mut syncer = Syncer::new(at(100), Vec::new(), Health::new().component("log"));
        syncer.rests_until = at(5);
        assert_eq!(syncer.turn(at(1), 1), Turn::Wait(at(4)));
        assert!(syncer.requested.is_made(), "it is still to be done");
        assert_eq!((syncer.turn(at(5), 1), syncer.requested.is_made()), (Turn::Wait(at(100)), false));
        syncer.rests_until = at(9);
        syncer.stopper().stop();
        assert_eq!(syncer.turn(at(6), 1), Turn::Ended);
    }

    #[test]
    fn a_lane_that_is_well_does_not_hide_one_that_has_failed() {
        let health = Health::new();
        let component = health.component("log");
        component.set(State::Ready);
        let mut shown = Shown { failures: vec![None; 2], health: component };
        shown.synced(0, Some("disk gone".to_owned()));
        shown.synced(1, None);
        assert_eq!(health.summary(), "ready; log: lane 0: disk gone");
        shown.synced(0, None);
        assert_eq!(health.summary(), "ready");
    }
}
