//! The keeper of dead letters as a lane's writer sees it: slow, and now and then it has none to keep.
//!
//! A letter is durable from the moment in which its lane is told so, and not before: what is under way when the power goes
//! is nobody's.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam::channel::Receiver;
use fastrand::Rng;

use super::oracle::Oracle;
use crate::pipeline::writer::{Kept, Quarantined};

/// Letters that may wait for it.
pub(super) const WAITING: usize = 2;

/// See the module.
pub(super) struct Keeper {
    letters: Receiver<Quarantined>,
    under_way: VecDeque<(Duration, Quarantined)>,
    random: Rng,
}

impl Keeper {
    pub(super) fn new(letters: Receiver<Quarantined>, seed: u64) -> Keeper {
        Keeper { letters, under_way: VecDeque::new(), random: Rng::with_seed(seed) }
    }

    /// When it has to do something, if there is anything.
    pub(super) fn due(&self) -> Option<Duration> {
        self.under_way.front().map(|(due, _)| *due)
    }

    /// Takes what has come.
    pub(super) fn take(&mut self, now: Duration) {
        while self.under_way.len() < WAITING
            && let Ok(letter) = self.letters.try_recv()
        {
            self.under_way.push_back((now + Duration::from_millis(self.random.u64(1..400)), letter));
        }
    }

    /// Does with the oldest letter what becomes of it.
    pub(super) fn keep(&mut self, oracle: &mut Oracle) {
        let Some((_, Quarantined { block, kept, .. })) = self.under_way.pop_front() else { return };
        let answer = match self.random.u8(..) {
            0..20 => return,
            20..60 if block.awaited => Kept::Not,
            _ => {
                oracle.quarantined(&block.payload);
                Kept::Durably
            }
        };
        kept.send(answer).ok();
    }
}
