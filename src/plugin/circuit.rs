//! The circuit of one plugin on one lane: after too many failures it is left alone for a while.
//!
//! CLOSED opens at so many failures within a window, or when they have cost a tenth of its time. OPEN lasts a jittered
//! back-off that doubles each time it opens again. Then it is HALF OPEN: the next call decides, success closes, failure
//! opens. While it is open the operator's policy meets every batch, as if the plugin had failed, at no cost. Plain fields,
//! `now` in, decision out: no clock is read here.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

/// The part of the window that failures may cost: a few long ones hold a lane up as many short ones do. One alone says
/// nothing of the next block, and an interpreter takes a second to start again.
const LOST_PART: u32 = 10;

/// When a circuit opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Failures within `window` that open it; at least 1.
    pub failures: usize,
    /// How long a failure counts.
    pub window: Duration,
    /// Ceiling of the first back-off; the back-off is between half of it and all of it.
    pub first_backoff: Duration,
    /// Ceiling of the longest.
    pub longest_backoff: Duration,
}

impl CircuitLimits {
    /// Five failures in a minute; one second, doubling up to a minute.
    pub const DEFAULT: CircuitLimits = CircuitLimits {
        failures: 5,
        window: Duration::from_secs(60),
        first_backoff: Duration::from_secs(1),
        longest_backoff: Duration::from_secs(60),
    };
}

/// Where a circuit stands, for metrics and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls are made.
    Closed,
    /// No call is made before `until` (monotonic).
    Open {
        /// When one is tried again.
        until: Duration,
    },
    /// The next call decides.
    HalfOpen,
}

/// See the module.
#[derive(Debug)]
pub struct Circuit {
    limits: CircuitLimits,
    state: CircuitState,
    /// When the latest failures were and what they cost, at most as many as open it.
    failures: VecDeque<(Duration, Duration)>,
    /// Times that it opened since it was closed last.
    openings: u32,
    rng: Rng,
}

impl Circuit {
    /// A closed circuit; the seed is that of the jitter.
    #[must_use]
    pub fn new(limits: CircuitLimits, seed: u64) -> Circuit {
        assert!(limits.failures > 0, "a circuit that opens at no failure is never closed");
        let failures = VecDeque::with_capacity(limits.failures);
        Circuit { limits, state: CircuitState::Closed, failures, openings: 0, rng: Rng::with_seed(seed) }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.state
    }

    /// Whether a call may be made at `now`; an opening that is over becomes half open here.
    pub fn allows(&mut self, now: Duration) -> bool {
        if let CircuitState::Open { until } = self.state
            && now >= until
        {
            self.state = CircuitState::HalfOpen;
        }
        !matches!(self.state, CircuitState::Open { .. })
    }

    /// A call went well.
    pub fn succeeded(&mut self) {
        if self.state == CircuitState::HalfOpen {
            self.state = CircuitState::Closed;
            self.openings = 0;
            self.failures.clear();
        }
    }

    /// A call failed at `now`, for which so much processor time was spent. True when that opened the circuit.
    pub fn failed(&mut self, now: Duration, lost: Duration) -> bool {
        let opens = match self.state {
            CircuitState::Open { .. } => return false,
            CircuitState::HalfOpen => true,
            CircuitState::Closed => self.counts_to_the_limit(now, lost),
        };
        if opens {
            let factor = 1u32.checked_shl(self.openings).unwrap_or(u32::MAX);
            let longest = self.limits.longest_backoff;
            let ceiling = self.limits.first_backoff.checked_mul(factor).unwrap_or(longest).min(longest);
            self.state = CircuitState::Open { until: now + ceiling.mul_f64(0.5 + self.rng.f64() / 2.0) };
            self.openings = self.openings.saturating_add(1);
            self.failures.clear();
        }
        opens
    }

    fn counts_to_the_limit(&mut self, now: Duration, lost: Duration) -> bool {
        let begin = now.saturating_sub(self.limits.window);
        while self.failures.front().is_some_and(|(at, _)| *at < begin) {
            self.failures.pop_front();
        }
        self.failures.push_back((now, lost));
        let lost: Duration = self.failures.iter().map(|(_, lost)| *lost).sum();
        let costs_too_much = self.failures.len() > 1 && lost > self.limits.window / LOST_PART;
        self.failures.len() >= self.limits.failures || costs_too_much
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn circuit() -> Circuit {
        Circuit::new(CircuitLimits { failures: 3, ..CircuitLimits::DEFAULT }, 1)
    }

    fn opening(circuit: &Circuit, now: Duration) -> Duration {
        match circuit.state() {
            CircuitState::Open { until } => until - now,
            state => panic!("{state:?} is not open"),
        }
    }

    #[test]
    fn it_opens_at_the_failures_of_a_window_and_not_at_as_many_over_a_longer_time() {
        let mut slow = circuit();
        assert!((0..20).all(|n| !slow.failed(seconds(31 * n), Duration::ZERO) && slow.allows(seconds(31 * n))));
        let mut fast = circuit();
        let outcomes: Vec<bool> = [0, 30, 60].map(|at| fast.failed(seconds(at), Duration::ZERO)).into();
        assert_eq!(outcomes, [false, false, true]);
        assert!(!fast.allows(seconds(60)), "it has just opened");
    }

    #[test]
    fn it_opens_when_failures_have_cost_a_tenth_of_the_window() {
        let mut circuit = Circuit::new(CircuitLimits { failures: 100, ..CircuitLimits::DEFAULT }, 1);
        assert!(!circuit.failed(seconds(0), seconds(3)));
        assert!(!circuit.failed(seconds(30), seconds(3)), "six of sixty");
        assert!(!circuit.failed(seconds(61), seconds(3)), "the first no longer counts");
        assert!(circuit.failed(seconds(62), Duration::from_nanos(1)));
        let mut circuit = Circuit::new(CircuitLimits { failures: 100, ..CircuitLimits::DEFAULT }, 1);
        assert!(!circuit.failed(seconds(0), seconds(7)), "one alone");
        assert!(circuit.failed(seconds(59), Duration::ZERO));
    }

    #[test]
    fn successes_between_failures_do_not_keep_it_closed() {
        let mut circuit = circuit();
        for at in 0..3 {
            circuit.succeeded();
            circuit.failed(seconds(at), Duration::ZERO);
        }
        assert!(!circuit.allows(seconds(2)));
    }

    #[test]
    fn one_call_decides_after_the_back_off_which_doubles_up_to_its_longest() {
        let mut circuit = circuit();
        let mut now = seconds(0);
        (0..3).for_each(|_| assert!(circuit.failed(now, Duration::ZERO) || circuit.allows(now)));
        for ceiling in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = opening(&circuit, now);
            assert!(wait >= seconds(ceiling) / 2 && wait <= seconds(ceiling), "{wait:?} of {ceiling} s");
            assert!(!circuit.allows(now + wait - Duration::from_nanos(1)));
            now += wait;
            assert!(circuit.allows(now) && circuit.state() == CircuitState::HalfOpen);
            assert!(circuit.failed(now, Duration::ZERO), "the first failure opens it again");
        }
        now += opening(&circuit, now);
        assert!(circuit.allows(now));
        circuit.succeeded();
        assert_eq!(circuit.state(), CircuitState::Closed);
        assert!(!circuit.failed(now, Duration::ZERO), "what was before the success no longer counts");
        (0..2).for_each(|_| assert!(circuit.failed(now, Duration::ZERO) || circuit.allows(now)));
        assert!(opening(&circuit, now) <= seconds(1), "nor do the openings");
    }
}
