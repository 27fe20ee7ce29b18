//! The thread of a lane's heavy plugins: every block takes it a time of its own, and it does one after the other.
//!
//! What it has under way when the process ends is nobody's. Its times are drawn apart.

use std::time::Duration;

use fastrand::Rng;

use crate::pipeline::writer::Worker;

/// See the module.
pub(super) struct Plugins {
    worker: Worker,
    longest: Duration,
    /// When it is done with what it does, if it does something.
    done_at: Option<Duration>,
    random: Rng,
}

impl Plugins {
    /// Those that need up to `longest` for a block.
    pub(super) fn new(worker: Worker, longest: Duration, seed: u64) -> Plugins {
        Plugins { worker, longest, done_at: None, random: Rng::with_seed(!seed) }
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.done_at
    }

    /// Begins with what was ordered.
    pub(super) fn begin(&mut self, now: Duration) {
        if self.done_at.is_none() && self.worker.is_ordered() {
            self.done_at = Some(now + self.longest.mul_f64(self.random.f64()));
        }
    }

    /// Is done with one thing, and begins with the next; false when there is no writer any more.
    pub(super) fn turn(&mut self, now: Duration, uptime: Duration) -> bool {
        self.done_at = None;
        let has_writer = self.worker.turn(uptime);
        self.begin(now);
        has_writer
    }

    /// By chance it is done with what it does in the moment in which that is given up.
    pub(super) fn hurry(&mut self, given_up_at: Duration) {
        if self.random.bool() {
            self.done_at = self.done_at.map(|done_at| done_at.min(given_up_at));
        }
    }
}
