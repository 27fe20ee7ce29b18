//! The retry budget: retries are at most a fifth of the requests of the last ten seconds.
//!
//! It keeps a failing peer from being sent more than before it failed. A quiet destination has no ratio worth the name,
//! so twenty requests are assumed: four retries in ten seconds, which is what the breaker needs to make up its mind.
//! Outside the budget: a breaker's probe (its own timer bounds it), the repetition of a throttled request (the peer said
//! when, and the whole destination waits for it), and the halves of a refused request (they are smaller requests).

use std::time::Duration;

use super::window::Window;

const WINDOW: Duration = Duration::from_secs(10);
const REQUESTS_PER_RETRY: u64 = 5;
const LEAST_REQUESTS: u64 = 20;

/// Counts requests and retries of the last ten seconds.
#[derive(Debug)]
pub(super) struct RetryBudget {
    requests: Window,
}

impl RetryBudget {
    /// An untouched budget.
    pub(super) fn new() -> RetryBudget {
        RetryBudget { requests: Window::new(WINDOW) }
    }

    /// A request goes out for the first time.
    pub(super) fn first_attempt(&mut self, now: Duration) {
        self.requests.add(1, 0, now);
    }

    /// A retry goes out, which [`RetryBudget::allows`] allowed.
    pub(super) fn retry(&mut self, now: Duration) {
        self.requests.add(0, 1, now);
    }

    /// Whether a retry may go out now.
    pub(super) fn allows(&self, now: Duration) -> bool {
        let (requests, retries) = self.requests.counts(now);
        retries < requests.max(LEAST_REQUESTS) / REQUESTS_PER_RETRY
    }

    /// When to ask again after a no.
    pub(super) fn ask_again(&self, now: Duration) -> Duration {
        self.requests.next_change(now)
    }
}
