//! The order of a stop, as shared flags: who may end when.
//!
//! First the producers (reactors and gateways) stop taking and hand over what they have; then the writers empty their rings
//! and the last sync makes it durable: that part is the guarantee and is quick. Then the destinations may go on until they
//! are empty or their time is over; what is left stays in the log. Nobody is ended by force. Imports nothing from the
//! crate: `tests/loom` checks it.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

/// No end has been set.
const NEVER: u64 = u64::MAX;

/// Ends the destinations: the time at which they end, whatever is left, is all there is to know.
#[derive(Debug)]
pub struct EgressStop {
    /// Monotonic nanoseconds.
    ends_at_ns: AtomicU64,
}

impl Default for EgressStop {
    fn default() -> EgressStop {
        EgressStop { ends_at_ns: AtomicU64::new(NEVER) }
    }
}

impl EgressStop {
    /// From now on destinations send at once and end when they are empty, or at `deadline` (monotonic).
    pub fn drain_until(&self, deadline: Duration) {
        let ends_at_ns = u64::try_from(deadline.as_nanos()).unwrap_or(NEVER).min(NEVER - 1);
        // Release pairs with the Acquire in `is_draining`.
        self.ends_at_ns.store(ends_at_ns, Ordering::Release);
    }

    /// End now, whatever is left in the log.
    pub fn skip(&self) {
        self.drain_until(Duration::ZERO);
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        // Acquire pairs with the Release in `drain_until`.
        self.ends_at_ns.load(Ordering::Acquire) != NEVER
    }

    /// Whether the time for it is over.
    #[must_use]
    pub fn is_over(&self, now: Duration) -> bool {
        // Relaxed: nothing else depends on it.
        self.is_draining() && now.as_nanos() >= u128::from(self.ends_at_ns.load(Ordering::Relaxed))
    }
}
