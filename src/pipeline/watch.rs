//! What a destination shows of itself: its gauges, its health, its ticks.
//!
//! Written once a turn by the destination's own thread; it decides nothing. A backend that fails makes its component
//! degraded and never unready: the log takes what it does not.

use std::sync::Arc;
use std::time::Duration;

use crate::deliver::{BreakerState, Delivery};
use crate::queue::Position;
use crate::telemetry::health::{Component, State, Tick};
use crate::telemetry::ledger;
use crate::telemetry::metrics::DestinationGauges;

/// The places where a destination is seen.
pub struct Watch {
    /// The balances of all lanes: what was appended.
    pub lanes: Vec<Arc<ledger::Lane>>,
    /// Bytes of a segment: what one segment of lag is.
    pub segment_bytes: u64,
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
}

impl Watch {
    /// One turn: `read` are the readers' positions, `unsettled` the spans read and not settled, `tails` and `fronts` the
    /// ends of the lanes' logs and where the cursor will stand.
    pub fn turn(&mut self, delivery: &Delivery, now: Duration, unsettled: u64, lanes: impl Iterator<Item = LaneView>) {
        self.tick.tick(now);
        let (mut in_queue, mut lag_bytes) = (unsettled, 0);
        for (ledger, lane) in self.lanes.iter().zip(lanes) {
            in_queue += ledger.appended.get().saturating_sub(lane.read.spans);
            let segments = lane.tail.segment.saturating_sub(lane.front.segment);
            lag_bytes += (segments * self.segment_bytes + lane.tail.offset).saturating_sub(lane.front.offset);
        }
        self.gauges.in_queue.set(in_queue);
        self.gauges.lag_bytes.set(lag_bytes);
        let state = delivery.state(now);
        self.gauges.in_flight.set(state.in_flight as u64);
        self.gauges.held.set(u64::from(state.held.is_some()));
        self.gauges.breaker.set(match state.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen { .. } => 1,
            BreakerState::Open { .. } => 2,
        });
        let fails = state.held.is_some() || state.breaker != BreakerState::Closed;
        let reason = || state.last_error.map_or_else(|| "the backend fails".to_owned(), |error| error.message);
        let degraded = fails.then(reason);
        if degraded != self.degraded {
            self.component.set(degraded.clone().map_or(State::Ready, State::Degraded));
            self.degraded = degraded;
        }
    }
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
