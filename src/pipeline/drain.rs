//! The order of a stop, as shared flags: who may end when.
//!
//! First the producers (reactors and gateways) stop taking and hand over what they have; then the writers empty their rings
//! and the last sync makes it durable: that part is the guarantee and is quick. Then the destinations may go on until they
//! are empty or their time is over; what is left stays in the log. Nobody is ended by force.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ends the destinations.
#[derive(Debug, Default)]
pub struct EgressStop {
    draining: AtomicBool,
    skipped: AtomicBool,
    deadline: Mutex<Option<Duration>>,
}

impl EgressStop {
    /// From now on destinations send at once and end when they are empty, or at `deadline` (monotonic).
    pub fn drain_until(&self, deadline: Duration) {
        *self.deadline.lock().expect("nobody panics under this lock") = Some(deadline);
        // Release pairs with the Acquire in `is_draining`.
        self.draining.store(true, Ordering::Release);
    }

    /// End now, whatever is left in the log.
    pub fn skip(&self) {
        // Relaxed: a flag that nothing else depends on.
        self.skipped.store(true, Ordering::Relaxed);
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        // Acquire pairs with the Release in `drain_until`.
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the time for it is over.
    #[must_use]
    pub fn is_over(&self, now: Duration) -> bool {
        // Relaxed: as in `skip`.
        self.skipped.load(Ordering::Relaxed)
            || self.deadline.lock().expect("nobody panics under this lock").is_some_and(|deadline| now >= deadline)
    }
}
