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

    /// How often it has opened since it was closed last.
    pub(super) fn openings(&self) -> u32 {
        self.openings
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules restated over the whole history: what the state must be after each call.
    struct Model {
        calls: Vec<(u64, bool)>,
        open_until: Option<Duration>,
        successes: Option<u32>,
    }

    impl Model {
        fn trips(&self, now: Duration) -> bool {
            let in_a_row = self.calls.iter().rev().take_while(|(_, failed)| *failed).count();
            let recent = self.calls.iter().filter(|(second, _)| second + 10 > now.as_secs());
            let (calls, failures) =
                recent.fold((0, 0), |(calls, failures), (_, failed)| (calls + 1, failures + u32::from(*failed)));
            in_a_row >= 5 || (calls >= 20 && failures * 2 >= calls)
        }
    }

    fn run(seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let mut jitter = Rng::with_seed(seed);
        let mut breaker = Breaker::new();
        let mut model = Model { calls: Vec::new(), open_until: None, successes: None };
        let mut now = Duration::from_secs(100);
        let (failing, longest_gap_ms) = (rng.u8(10..90), rng.u64(20..1_500));
        for _ in 0..2_000 {
            now += Duration::from_millis(rng.u64(1..=longest_gap_ms));
            let failed = rng.u8(..100) < failing;
            match breaker.gate(now) {
                Gate::Open => {
                    assert!(model.open_until.is_none() && model.successes.is_none());
                    model.calls.push((now.as_secs(), failed));
                    if failed {
                        breaker.failed(now, &mut jitter)
                    } else {
                        breaker.succeeded(now)
                    }
                    if failed && model.trips(now) {
                        model.open_until = Some(opened(&breaker, now));
                    }
                }
                Gate::Shut(until) => assert_eq!(Some(until), model.open_until),
                Gate::AwaitProbe => unreachable!("every probe is answered at once"),
                Gate::Probe => {
                    assert!(model.open_until.is_none_or(|until| until <= now));
                    model.open_until = None;
                    breaker.probe_sent();
                    assert_eq!(breaker.gate(now), Gate::AwaitProbe);
                    let successes = model.successes.unwrap_or(0);
                    if failed {
                        breaker.probe_failed(now, &mut jitter);
                        (model.open_until, model.successes) = (Some(opened(&breaker, now)), None);
                    } else if rng.bool() {
                        breaker.probe_undecided();
                        model.successes = Some(successes);
                    } else {
                        breaker.probe_succeeded();
                        model.successes = Some(successes + 1).filter(|successes| *successes < 3);
                        if model.successes.is_none() {
                            model.calls.clear();
                        }
                    }
                }
            }
        }
    }

    fn opened(breaker: &Breaker, now: Duration) -> Duration {
        let BreakerState::Open { until } = breaker.state() else { panic!("the model says open, not {breaker:?}") };
        let pause = until - now;
        assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_secs(60), "{pause:?}");
        until
    }

    #[test]
    fn its_trace_is_that_of_the_rules_restated() {
        for seed in 0..200 {
            run(seed);
        }
    }

    #[test]
    fn answers_from_before_it_opened_decide_nothing() {
        let mut rng = Rng::with_seed(1);
        let mut breaker = Breaker::new();
        let now = Duration::from_secs(1);
        for _ in 0..5 {
            breaker.failed(now, &mut rng);
        }
        let open = breaker.state();
        breaker.succeeded(now);
        breaker.failed(now, &mut rng);
        assert_eq!(breaker.state(), open);
    }
}
