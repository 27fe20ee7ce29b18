//! The sync thread: one per device, the only caller of `fdatasync`, so that the lanes share each one.
//!
//! It syncs at once when a writer says that somebody waits or that much is unsynced, else once an interval. While a sync
//! runs, requests merge into the next one: group commit without a timer. After each it wakes the writers, which send the
//! verdicts. It owns no data; a sync that fails is mended, or reported, by the log itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::sync::{Parker, Unparker};

use crate::queue::Log;
use crate::sys::clock;
use crate::telemetry::health::{Component, State, Tick};

/// Time between rounds of what can wait: footers, recycled files, spare segments.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// How writers ask for a sync.
#[derive(Clone)]
pub struct SyncRequest {
    requested: Arc<AtomicBool>,
    thread: Unparker,
}

impl SyncRequest {
    /// Asks for a sync of every lane that has something unsynced, now.
    pub fn request(&self) {
        // Release pairs with the Acquire swap of the sync thread: it sees what the writer published before.
        if !self.requested.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

/// The sync thread's state.
pub struct Syncer {
    parker: Parker,
    requested: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    interval: Duration,
}

/// Ends the sync thread after a last sync.
#[derive(Clone)]
pub struct SyncStop {
    stop: Arc<AtomicBool>,
    thread: Unparker,
}

impl SyncStop {
    /// Called once every writer has ended.
    pub fn stop(&self) {
        // Release pairs with the Acquire load in `run`.
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Syncer {
    /// A syncer that also syncs once an `interval` without being asked.
    #[must_use]
    pub fn new(interval: Duration) -> Syncer {
        Syncer { parker: Parker::new(), requested: Arc::default(), stop: Arc::default(), interval }
    }

    /// How writers ask for a sync.
    #[must_use]
    pub fn request(&self) -> SyncRequest {
        SyncRequest { requested: self.requested.clone(), thread: self.parker.unparker().clone() }
    }

    /// How the thread is ended.
    #[must_use]
    pub fn stopper(&self) -> SyncStop {
        SyncStop { stop: self.stop.clone(), thread: self.parker.unparker().clone() }
    }

    /// The thread's body: `lanes` are the logs with the unparkers of their writers.
    pub fn run(self, lanes: &[(Arc<Log>, Unparker)], health: &Component, tick: &Tick) {
        let (mut tended_at, mut synced_at, mut requested) = (clock::monotonic(), Duration::ZERO, true);
        let mut shown = Shown { failures: vec![None; lanes.len()], health };
        loop {
            // Acquire pairs with the Release in `SyncStop::stop`; read first, so that the last round syncs everything.
            let stopping = self.stop.load(Ordering::Acquire);
            let asked_at = clock::monotonic();
            if stopping || requested || asked_at.saturating_sub(synced_at) >= self.interval {
                synced_at = asked_at;
                for (lane, (log, writer)) in lanes.iter().enumerate().filter(|(_, (log, _))| log.unsynced_bytes() > 0) {
                    shown.synced(lane, log.sync().err().map(|error| error.to_string()));
                    writer.unpark();
                }
            }
            let now = clock::monotonic();
            tick.tick(now);
            let due = stopping || now.saturating_sub(tended_at) >= TEND_INTERVAL;
            if due {
                tended_at = now;
            }
            for (log, _) in lanes.iter().filter(|(log, _)| due || log.wants_tending()) {
                if let Err(error) = log.tend(clock::wall_ns()) {
                    tracing::warn!(lane = log.lane(), %error, "the log could not be tended");
                }
            }
            if stopping {
                return;
            }
            // Acquire pairs with the Release in `SyncRequest::request`. A swap after the park too, not a store: a writer that
            // found the request made does not unpark, so taking the request has to acquire what that writer published. A
            // store could become visible after the look at the logs, and the request would be gone unseen.
            requested = self.requested.swap(false, Ordering::Acquire);
            if !requested {
                self.parker.park_timeout(self.interval.min(TEND_INTERVAL));
                requested = self.requested.swap(false, Ordering::Acquire);
            }
        }
    }
}

/// What the log's component says of all lanes: one that is well does not hide one that has failed.
struct Shown<'a> {
    failures: Vec<Option<String>>,
    health: &'a Component,
}

impl Shown<'_> {
    /// A lane was synced, or failed. Shown when it is news.
    fn synced(&mut self, lane: usize, failure: Option<String>) {
        if self.failures[lane].is_some() == failure.is_some() {
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
    fn a_lane_that_is_well_does_not_hide_one_that_has_failed() {
        let health = Health::new();
        let component = health.component("log");
        component.set(State::Ready);
        let mut shown = Shown { failures: vec![None; 2], health: &component };
        shown.synced(0, Some("disk gone".to_owned()));
        shown.synced(1, None);
        assert_eq!(health.summary(), "ready; log: lane 0: disk gone");
        shown.synced(0, None);
        assert_eq!(health.summary(), "ready");
    }
}
