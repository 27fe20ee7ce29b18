//! The circuit breaker of a destination: while the peer is down, nothing is taken off the log for it.
//!
//! CLOSED opens at five failures in a row, or at half of at least twenty calls in ten seconds. OPEN lasts a jittered
//! second, doubling to a minute each time it opens again. HALF_OPEN lets one request through at a time: three successes
//! close, one failure opens. Only failures of transport and server count; a throttle or a refused request shows a peer
//! that is alive, so it neither closes nor opens. Answers to requests sent before the breaker opened decide nothing.

use std::time::Duration;

use fastrand::Rng;

use super::backoff::equal_jitter;
use super::window::Window;

const CONSECUTIVE_FAILURES: u32 = 5;
const LEAST_CALLS: u64 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// Equal jitter halves the ceiling: the first opening lasts 1-2 s, the longest 30-60 s.
const FIRST_CEILING: Duration = Duration::from_secs(2);
const LAST_CEILING: Duration = Duration::from_secs(60);
const CLOSING_SUCCESSES: u32 = 3;

/// The breaker's state, as metrics and health show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests flow.
    Closed,
    /// Nothing is sent until `until` (monotonic).
    Open {
        /// When the next probe may go.
        until: Duration,
    },
    /// One request at a time, until three succeeded.
    HalfOpen {
        /// Probes that succeeded so far.
        successes: u32,
    },
}

/// One destination's breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    state: BreakerState,
    consecutive: u32,
    calls: Window,
    openings: u32,
    probing: bool,
}

/// What the breaker allows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// As many requests as concurrency allows.
    Open,
    /// One probe: the oldest request.
    Probe,
    /// A probe is in flight; wait for its answer.
    AwaitProbe,
    /// Nothing before this time.
    Shut(Duration),
}

impl Breaker {
    /// A closed breaker.
    pub(super) fn new() -> Breaker {
        Breaker { state: BreakerState::Closed, consecutive: 0, calls: Window::new(WINDOW), openings: 0, probing: false }
    }

    /// The state, for people.
    pub(super) fn state(&self) -> BreakerState {
        self.state
    }

    /// What may be sent at `now`; an opening that is over becomes half-open here.
    pub(super) fn gate(&mut self, now: Duration) -> Gate {
        match self.state {
            BreakerState::Closed => Gate::Open,
            BreakerState::Open { until } if now < until => Gate::Shut(until),
            BreakerState::Open { .. } => {
                self.state = BreakerState::HalfOpen { successes: 0 };
                Gate::Probe
            }
            BreakerState::HalfOpen { .. } if self.probing => Gate::AwaitProbe,
            BreakerState::HalfOpen { .. } => Gate::Probe,
        }
    }

    /// The probe that [`Gate::Probe`] allowed is under way.
    pub(super) fn probe_sent(&mut self) {
        debug_assert!(!self.probing, "two probes at once");
        self.probing = true;
    }

    /// A request that is no probe was accepted.
    pub(super) fn succeeded(&mut self, now: Duration) {
        self.consecutive = 0;
        self.calls.add(1, 0, now);
    }

    /// A request that is no probe failed.
    pub(super) fn failed(&mut self, now: Duration, rng: &mut Rng) {
        self.consecutive += 1;
        self.calls.add(1, 1, now);
        let (calls, failures) = self.calls.counts(now);
        let often = calls >= LEAST_CALLS && failures * 2 >= calls;
        if self.state == BreakerState::Closed && (self.consecutive >= CONSECUTIVE_FAILURES || often) {
            self.open(now, rng);
        }
    }

    /// The probe was accepted.
    pub(super) fn probe_succeeded(&mut self) {
        self.probing = false;
        let BreakerState::HalfOpen { successes } = self.state else { return };
        if successes + 1 < CLOSING_SUCCESSES {
            self.state = BreakerState::HalfOpen { successes: successes + 1 };
            return;
        }
        self.state = BreakerState::Closed;
        self.openings = 0;
        self.consecutive = 0;
        self.calls.clear();
    }

    /// The probe failed.
    pub(super) fn probe_failed(&mut self, now: Duration, rng: &mut Rng) {
        self.probing = false;
        self.open(now, rng);
    }

    /// The probe got an answer that says nothing of the peer's health.
    pub(super) fn probe_undecided(&mut self) {
        self.probing = false;
    }

    fn open(&mut self, now: Duration, rng: &mut Rng) {
        let pause = equal_jitter(FIRST_CEILING, LAST_CEILING, self.openings, rng);
        self.openings = self.openings.saturating_add(1);
        self.state = BreakerState::Open { until: now + pause };
    }
}
