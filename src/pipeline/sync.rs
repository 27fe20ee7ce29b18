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
        let mut tended_at = clock::monotonic();
        loop {
            // Acquire pairs with the Release in `SyncStop::stop`; read first, so that the last round syncs everything.
            let stopping = self.stop.load(Ordering::Acquire);
            for (log, writer) in lanes.iter().filter(|(log, _)| log.unsynced_bytes() > 0) {
                match log.sync() {
                    Ok(_) => health.set(State::Ready),
                    Err(error) => health.set(State::Degraded(error.to_string())),
                }
                writer.unpark();
            }
            let now = clock::monotonic();
            tick.tick(now);
            let due = stopping || now.saturating_sub(tended_at) >= TEND_INTERVAL;
            for (log, _) in lanes.iter().filter(|(log, _)| due || log.wants_tending()) {
                tended_at = now;
                if let Err(error) = log.tend(clock::wall_ns()) {
                    tracing::warn!(lane = log.lane(), %error, "the log could not be tended");
                }
            }
            if stopping {
                return;
            }
            // Acquire pairs with the Release in `SyncRequest::request`.
            if !self.requested.swap(false, Ordering::Acquire) {
                self.parker.park_timeout(self.interval);
                self.requested.store(false, Ordering::Relaxed);
            }
        }
    }
}
