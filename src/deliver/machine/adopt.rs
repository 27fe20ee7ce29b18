//! A new configuration generation: other settings, perhaps another backend, the same spans.
//!
//! What is gathered or waits keeps its place in the order of the log and is due again at once. Everything that was learned
//! of the backend is forgotten: breaker, hold, pauses, sizes, refusals.

use super::super::work::Work;
use super::Delivery;
use crate::config::{Batch, Compression, Retry};

impl Delivery {
    /// Goes on under other settings. Panics when something is in flight: its answer would be about another backend.
    pub fn adopt(&mut self, retry: Retry, batch: Batch, compression: Compression) {
        assert!(self.in_flight.is_empty(), "nothing is in flight when settings change");
        let fresh = Delivery::new(retry, batch, compression, self.rng.u64(..));
        let before = std::mem::replace(self, fresh);
        self.next_id = before.next_id;
        self.tracker = before.tracker;
        self.abandoned_below = before.abandoned_below;
        self.gather = before.gather.adopted(batch);
        self.waiting = before.waiting.into_values().map(Work::forgiven).map(|work| (work.key(), work)).collect();
    }
}
