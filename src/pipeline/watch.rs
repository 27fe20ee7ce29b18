//! What a destination shows of itself: its gauges, its health, its ticks.
//!
//! Written once a turn by the destination's own thread; it decides nothing. A backend that fails makes its component
//! degraded and never unready: the log takes what it does not.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::deliver::{self, BreakerState, Delivery};
use crate::queue::{Entry, Log, Position};
use crate::telemetry::health::{Component, State, Tick};
use crate::telemetry::ledger;
use crate::telemetry::metrics::{DestinationGauges, Trouble, TroubleKind, Words};

/// Time between looks at every segment that waits.
const LOOK_FAR: Duration = Duration::from_secs(1);

/// The places where a destination is seen.
pub struct Watch {
    /// The balances of all lanes: what was appended.
    pub lanes: Vec<Arc<ledger::Lane>>,
    /// Their logs: what waits in them.
    pub logs: Vec<Arc<Log>>,
    /// Bytes that wait in segments behind the one that is read, and when they were added up: looking at every segment
    /// is too much for a turn.
    pub far_bytes: (u64, Duration),
    /// What `/metrics` shows.
    pub gauges: Arc<DestinationGauges>,
    /// Seconds that requests took.
    pub latency: metrics::Histogram,
    /// Its component.
    pub component: Component,
    /// Its thread.
    pub tick: Tick,
    /// Why the component was last shown as degraded, if it was, so that it is written only when that changes.
    pub degraded: Option<String>,
    /// What was last said of it, so that it is written only when that changes.
    pub words: Words,
    /// Why it does not deliver although nothing fails, if that is so.
    pub parked: Option<String>,
    /// Receive time of the oldest block that waits while it is parked and reads nothing, and when that was looked for.
    pub unread_ns: (u64, Duration),
}

/// What was read and is not settled.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Its spans.
    pub unsettled: u64,
    /// Receive time of its oldest block, Unix nanoseconds; 0 when there is none.
    pub oldest_ns: u64,
}

impl Watch {
    /// One turn, with every lane as the destination sees it.
    pub fn turn(
        &mut self,
        delivery: &Delivery,
        now: Duration,
        backlog: Backlog,
        lanes: impl Iterator<Item = LaneView>,
    ) {
        self.tick.tick(now);
        let (mut in_queue, mut lag_bytes) = (backlog.unsettled, 0);
        let look_far = now.saturating_sub(self.far_bytes.1) >= LOOK_FAR;
        let mut far_bytes = None;
        let look_for_unread = now.saturating_sub(self.unread_ns.1) >= LOOK_FAR;
        if look_for_unread {
            self.unread_ns = (0, now);
        }
        for ((ledger, log), lane) in self.lanes.iter().zip(&self.logs).zip(lanes) {
            if look_for_unread && self.parked.is_some() {
                let oldest_ns = [self.unread_ns.0, first_received_ns(log, lane.read)];
                self.unread_ns.0 = oldest_ns.into_iter().filter(|time| *time > 0).min().unwrap_or(0);
            }
            in_queue += ledger.appended.get().saturating_sub(lane.read.spans);
            if lane.tail.segment <= lane.front.segment {
                lag_bytes += lane.tail.offset.saturating_sub(lane.front.offset);
            } else {
                let looked = if look_far { log.bytes_behind(&lane.front) } else { 0 };
                far_bytes = Some(far_bytes.unwrap_or(0) + looked);
            }
        }
        match far_bytes {
            None => self.far_bytes.0 = 0,
            Some(far_bytes) if look_far => self.far_bytes = (far_bytes, now),
            Some(_) => {}
        }
        self.gauges.lag_bytes.set(lag_bytes + self.far_bytes.0);
        self.gauges.in_queue.set(in_queue);
        self.gauges.oldest_ns.set(if backlog.oldest_ns == 0 { self.unread_ns.0 } else { backlog.oldest_ns });
        let state = delivery.state(now);
        self.gauges.in_flight.set(state.in_flight as u64);
        self.gauges.held.set(u64::from(state.held.is_some()));
        self.gauges.breaker.set(match state.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen { .. } => 1,
            BreakerState::Open { .. } => 2,
        });
        self.say(&state, now);
        let fails = state.held.is_some() || state.breaker != BreakerState::Closed;
        let reason = || state.last_error.map_or_else(|| "the backend fails".to_owned(), |error| error.message);
        let degraded = self.parked.clone().or_else(|| fails.then(reason));
        if degraded != self.degraded {
            self.component.set(degraded.clone().map_or(State::Ready, State::Degraded));
            self.degraded = degraded;
        }
    }

    /// Says what is so, when that is news.
    fn say(&mut self, state: &deliver::State, now: Duration) {
        let (kind, next_try) = match (state.held, state.breaker, state.paused_until) {
            _ if self.parked.is_some() => (Some(TroubleKind::Parked), None),
            (Some(_), ..) => (Some(TroubleKind::Holding), None),
            (None, BreakerState::Open { until }, _) => (Some(TroubleKind::Unreachable), Some(until)),
            (None, BreakerState::HalfOpen { .. }, _) => (Some(TroubleKind::Recovering), None),
            (None, BreakerState::Closed, Some(until)) => (Some(TroubleKind::Throttled), Some(until)),
            (None, BreakerState::Closed, None) => (None, None),
        };
        let last_error = state.last_error.as_ref().map(|error| (error.at, error.message.clone()));
        let trouble = kind.map(|kind| Trouble {
            kind,
            // Held, it knows since when; a peer that comes back or goes again is in the trouble that it was in.
            since: match (state.held, &self.words.trouble) {
                (Some((_, since)), _) if kind == TroubleKind::Holding => since,
                (_, Some(known)) if (kind == TroubleKind::Parked) == (known.kind == TroubleKind::Parked) => known.since,
                _ => now,
            },
            next_try,
        });
        let words = Words { trouble, last_error, retains: false };
        if words != self.words {
            self.words = words.clone();
            *self.gauges.words.lock().unwrap_or_else(PoisonError::into_inner) = words;
        }
    }
}

/// Receive time of the first block behind a place; 0 when there is none.
fn first_received_ns(log: &Arc<Log>, from: Position) -> u64 {
    let mut reader = log.reader(from);
    let block = std::iter::from_fn(|| reader.next()).find_map(|entry| match entry {
        Entry::Block { meta, .. } => Some(meta.received_ns),
        Entry::Gap { .. } => None,
    });
    block.unwrap_or(0)
}

/// A lane as a destination sees it.
pub struct LaneView {
    /// Behind the last entry read.
    pub read: Position,
    /// Where the cursor will stand.
    pub front: Position,
    /// The end of the log, a commit-mark old.
    pub tail: Position,
}
