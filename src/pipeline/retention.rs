//! Without any destination the log is a bounded retention: the oldest goes, by age or when the budget is used up, counted.
//!
//! One thread plays a destination that takes nothing: it has a durable cursor like the others (`destinations/none`), so what
//! was dropped is in the balance after a restart too. When a destination is configured it ends, and its cursor goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::sync::Parker;

use super::age::Ages;
use super::drain::EgressStop;
use super::place::Place;
use super::turn::Turn;
use super::window::Window;
use crate::queue::{Log, Position};
use crate::sys::clock;
use crate::telemetry::health::Tick;
use crate::telemetry::ledger::{self, DropReason};
use crate::telemetry::metrics::DestinationGauges;
use crate::telemetry::moment::nanoseconds;

/// Time between looks at the log.
const INTERVAL: Duration = Duration::from_millis(250);

/// Time between looks at everything that is kept.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long blocks are kept; a reload may change it.
#[derive(Debug)]
pub struct Retain(AtomicU64);

impl Retain {
    /// So long.
    #[must_use]
    pub fn new(retain: Duration) -> Retain {
        let this = Retain(AtomicU64::new(0));
        this.set(retain);
        this
    }

    /// So long from now on.
    pub fn set(&self, retain: Duration) {
        // Relaxed: a setting that is seen within a turn; nothing is published through it.
        self.0.store(nanoseconds(retain), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        // Relaxed: as in `set`.
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// What the retention keeps.
pub struct Retention {
    /// The logs of all lanes.
    pub lanes: Vec<Arc<Log>>,
    /// Their balances: what was appended.
    pub appended: Vec<Arc<ledger::Lane>>,
    /// The cursor of the destination that is none.
    pub place: Place,
    /// Where it stands.
    pub window: Window<Position>,
    /// How long blocks are kept.
    pub retain: Arc<Retain>,
    /// How old they are.
    pub ages: Ages,
    /// Bytes on the disk that a lane may hold, pool and active segment left out.
    pub lane_bytes: u64,
    /// What was dropped.
    pub ledger: Arc<ledger::Destination>,
    /// What is kept.
    pub gauges: Arc<DestinationGauges>,
    /// When what is kept was last looked at.
    pub looked_at: Duration,
    /// When to end.
    pub stop: Arc<EgressStop>,
    /// The thread's tick.
    pub tick: Tick,
}

impl Retention {
    /// The thread's body.
    pub fn run(mut self, parker: &Parker) {
        while let Turn::Wait(time) = self.turn(clock::monotonic(), clock::wall_ns()) {
            self.tick.tick(clock::monotonic());
            parker.park_timeout(time);
        }
        self.tick.end();
    }

    /// Drops what is too old or too much.
    pub fn turn(&mut self, now: Duration, wall_ns: u64) -> Turn {
        // Looked at first: then the writers have ended, and what they appended last is in the balance too.
        let stopping = self.stop.is_draining();
        self.drop_oldest(now, wall_ns);
        if stopping { Turn::Ended } else { Turn::Wait(INTERVAL) }
    }

    fn drop_oldest(&mut self, now: Duration, wall_ns: u64) {
        let oldest_kept = self.ages.oldest_kept(self.retain.get(), now, wall_ns);
        for (lane, log) in self.lanes.iter().enumerate() {
            let by_age = log.position_at_age(oldest_kept);
            let to = by_age.max(log.position_at_lag(self.lane_bytes));
            let front = self.window.front(lane);
            if to <= front {
                continue;
            }
            let to = front.forward_to(&to);
            let spans = to.spans_since(&front);
            let index = self.window.push(lane, to.sequence, to, 0);
            self.window.settle(index, 0, |totals| totals.dropped[DropReason::NoDestination as usize] += spans);
        }
        self.window.advance();
        self.show(now);
        if let Err(error) = self.place.commit(&mut self.window) {
            tracing::warn!(%error, "the retention's cursor could not be written");
        }
    }

    fn show(&mut self, now: Duration) {
        self.ledger.show(self.window.totals());
        if now.saturating_sub(self.looked_at) >= LOOK_INTERVAL {
            self.looked_at = now;
            let fronts = || self.lanes.iter().enumerate().map(|(lane, log)| (log, self.window.front(lane)));
            let kept_bytes = fronts().map(|(log, front)| log.bytes_behind(&front)).sum();
            let received_ns = fronts().map(|(log, front)| log.reader(front).ahead().received_ns);
            self.gauges.lag_bytes.set(kept_bytes);
            self.gauges.oldest_ns.set(received_ns.filter(|time| *time > 0).min().unwrap_or(0));
        }
        let kept = |(lane, ledger): (usize, &Arc<ledger::Lane>)| {
            ledger.appended.get().saturating_sub(self.window.front(lane).spans)
        };
        self.gauges.in_queue.set(self.appended.iter().enumerate().map(kept).sum());
    }
}
