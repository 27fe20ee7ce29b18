//! What a destination shows of itself: its gauges, its health, its ticks.
//!
//! Written once a turn by the destination's own thread; it decides nothing. A backend that fails makes its component
//! degraded and never unready: the log takes what it does not. That it fails, holds or is back again is logged once each.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::deliver::{self, BreakerState, Delivery};
use crate::queue::{Ahead, Log, Position, Reader};
use crate::telemetry::health::{Component, State, Tick};
use crate::telemetry::ledger;
use crate::telemetry::metrics::{DestinationGauges, Trouble, TroubleKind, Words};

/// Time between looks at every segment that waits.
const LOOK_FAR: Duration = Duration::from_secs(1);

/// The places where a destination is seen.
pub struct Watch {
    /// Its name.
    pub name: String,
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
    /// The oldest block that it has not read, and when that was looked for.
    pub unread: (Ahead, Duration),
    /// The trouble that the log was last told of.
    pub told: Option<TroubleKind>,
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
    pub fn turn<'a>(
        &mut self,
        delivery: &Delivery,
        now: Duration,
        backlog: Backlog,
        lanes: impl Iterator<Item = LaneView<'a>>,
    ) {
        self.tick.tick(now);
        let (mut in_queue, mut lag_bytes) = (backlog.unsettled, 0);
        let look_far = now.saturating_sub(self.far_bytes.1) >= LOOK_FAR;
        let mut far_bytes = None;
        let look_ahead = now.saturating_sub(self.unread.1) >= LOOK_FAR;
        if look_ahead {
            self.unread = (Ahead::default(), now);
        }
        for ((ledger, log), lane) in self.lanes.iter().zip(&self.logs).zip(lanes) {
            if look_ahead {
                self.unread.0 = older(self.unread.0, lane.reader.ahead());
            }
            in_queue += ledger.appended.get().saturating_sub(lane.reader.position().spans);
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
        // What was unread a moment ago may be in the backlog by now, or delivered.
        let unread = self.unread.0;
        let unread_ns = if in_queue > backlog.unsettled { unread.received_ns } else { 0 };
        self.gauges.oldest_ns.set(match backlog.oldest_ns {
            0 => unread_ns,
            oldest_ns if unread.missing_key.is_some() && unread_ns > 0 => oldest_ns.min(unread_ns),
            oldest_ns => oldest_ns,
        });
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
        let locked = || unread.missing_key.map(|key| format!("waits for key {key}, which is missing"));
        let degraded = self.parked.clone().or_else(|| fails.then(reason)).or_else(locked);
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
            (None, BreakerState::Closed, None) => (self.unread.0.missing_key.map(|_| TroubleKind::Locked), None),
        };
        let message = state.last_error.as_ref().map_or("", |error| error.message.as_str());
        match news(&mut self.told, kind) {
            Some(News::Unreachable) => tracing::warn!(destination = %self.name, "cannot be reached: {message}"),
            Some(News::Holds) => {
                tracing::warn!(destination = %self.name, "holds, asked again once a minute: {message}")
            }
            Some(News::Back) => tracing::info!(destination = %self.name, "delivers again"),
            None => {}
        }
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
        let missing_key = kind.filter(|kind| *kind == TroubleKind::Locked).and(self.unread.0.missing_key);
        let missing_key = missing_key.map(|key| key.to_string());
        let words = Words { trouble, last_error, retains: false, missing_key };
        if words != self.words {
            self.words = words.clone();
            *self.gauges.words.lock().unwrap_or_else(PoisonError::into_inner) = words;
        }
    }
}

/// What there is to log of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Unreachable,
    Holds,
    Back,
}

/// What is news for somebody who was told of the trouble before; a peer that is asked whether it is back is not back yet.
fn news(told: &mut Option<TroubleKind>, kind: Option<TroubleKind>) -> Option<News> {
    let (trouble, news) = match kind {
        Some(TroubleKind::Holding) => (kind, Some(News::Holds)),
        Some(TroubleKind::Unreachable) => (kind, Some(News::Unreachable)),
        Some(TroubleKind::Recovering) => return None,
        // Nobody asks for it any more.
        Some(TroubleKind::Parked) => (None, None),
        Some(TroubleKind::Throttled | TroubleKind::Locked) | None => (None, Some(News::Back)),
    };
    let is_news = *told != trouble;
    *told = trouble;
    news.filter(|_| is_news)
}

/// Of what lies ahead in two lanes: the older block, and a missing key if there is one.
fn older(one: Ahead, other: Ahead) -> Ahead {
    let times = [one.received_ns, other.received_ns].into_iter().filter(|time| *time > 0);
    Ahead { received_ns: times.min().unwrap_or(0), missing_key: one.missing_key.or(other.missing_key) }
}

/// A lane as a destination sees it.
pub struct LaneView<'a> {
    /// It has read so far.
    pub reader: &'a Reader,
    /// Where the cursor will stand.
    pub front: Position,
    /// The end of the log, a commit-mark old.
    pub tail: Position,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Made, Meta, Signal, SourceId};
    use crate::queue::{AtRest, Keys, MmapStorage, Options};

    #[test]
    fn each_change_is_news_once_and_a_probe_is_none() {
        use TroubleKind::{Holding, Locked, Parked, Recovering, Throttled, Unreachable};
        let mut told = None;
        let mut said = Vec::new();
        let kinds =
            [None, Some(Throttled), Some(Unreachable), Some(Recovering), Some(Unreachable), Some(Recovering), None];
        for kind in
            kinds.into_iter().chain([Some(Holding), Some(Holding), Some(Locked), Some(Unreachable), Some(Parked), None])
        {
            said.extend(news(&mut told, kind));
        }
        assert_eq!(said, [News::Unreachable, News::Back, News::Holds, News::Back, News::Unreachable]);
    }

    #[test]
    fn what_waits_for_a_key_has_an_age_and_says_which() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::parse(&"0f".repeat(32)).unwrap();
        let open = |keys: &Keys| {
            let at_rest = AtRest { keys: keys.clone(), ..AtRest::default() };
            let options = Options { at_rest, ..Options::of_a_test(directory.path()) };
            Log::open(Arc::new(MmapStorage), options).unwrap()
        };
        let (log, mut appender, _) = open(&keys);
        let from = log.oldest();
        assert_eq!(log.reader(from).ahead(), Ahead::default());
        for received_ns in [700, 900] {
            let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), received_ns);
            meta.spans = 1;
            appender.append(&meta, &[7; 1000]).unwrap();
        }
        log.sync().unwrap();
        let mut reader = log.reader(from);
        let mut ahead = Vec::new();
        loop {
            ahead.push(reader.ahead().received_ns);
            if reader.next().is_none() {
                break;
            }
        }
        assert_eq!(ahead, [700, 900, 0]);
        drop((log, appender, reader));
        let (log, ..) = open(&Keys::default());
        let mut reader = log.reader(log.oldest());
        assert!(reader.next().is_none(), "it is held");
        let held = Ahead { received_ns: 700, missing_key: keys.ids().next() };
        assert_eq!((reader.ahead(), log.reader(log.oldest()).ahead()), (held, held));
    }

    #[test]
    fn the_older_of_two_lanes_is_ahead_and_a_key_of_either_is_missed() {
        let at = |received_ns| Ahead { received_ns, missing_key: None };
        assert_eq!(older(at(0), at(7)), at(7));
        assert_eq!(older(at(5), at(7)), at(5));
        assert_eq!(older(at(0), at(0)), at(0));
    }
}
