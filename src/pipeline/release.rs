//! Who still needs what: frees segments that every destination's durable cursor has passed.
//!
//! Each destination tells its committed positions here; the least of a lane is released. A destination that may lag for
//! ever would hold the log for ever: that is what required means, and an optional one jumps before it comes to that.

use std::sync::{Arc, Mutex, PoisonError};

use crate::queue::{Log, Position};

/// The committed positions of all destinations over all lanes.
#[derive(Debug)]
pub struct Release {
    lanes: Vec<Arc<Log>>,
    /// By destination, then by lane.
    committed: Mutex<Vec<Vec<Position>>>,
}

impl Release {
    /// `committed` are the positions at start: destinations by lanes. What all of them are past is freed: with a full log
    /// that only a destination held which is gone, nothing would come that moves the others.
    #[must_use]
    pub fn new(lanes: Vec<Arc<Log>>, committed: Vec<Vec<Position>>) -> Release {
        free(&lanes, &committed);
        Release { lanes, committed: Mutex::new(committed) }
    }

    /// Destination `index` has durably come to `positions`, one a lane.
    pub fn moved(&self, index: usize, positions: impl Iterator<Item = Position>) {
        let mut committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        committed[index].clear();
        committed[index].extend(positions);
        free(&self.lanes, &committed);
    }
}

fn free(lanes: &[Arc<Log>], committed: &[Vec<Position>]) {
    for (lane, log) in lanes.iter().enumerate() {
        if let Some(least) = committed.iter().map(|positions| positions[lane]).min() {
            log.release(&least);
        }
    }
}
