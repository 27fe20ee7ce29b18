//! Transforms that are exchanged while blocks are under way, as a reload does it: lane by lane, each between two blocks.
//!
//! From the order to the last lane's answer a block fares as the old or as the new ones have it; before and after there is
//! no doubt. What comes is drawn apart.

use crossbeam::channel::{self, Receiver, Sender, TryRecvError};

use super::scenario;
use super::world::World;
use crate::pipeline::writer::Swap;
use crate::transform::scripted::Scripted;
use crate::transform::{Chain, Step};

/// The chain of a lane: without a step when nothing is to be done, so that no block goes through it.
pub(super) fn chain(transform: Scripted, piece_bytes: usize) -> Chain {
    let steps = if transform == Scripted::default() { Vec::new() } else { vec![Step::Scripted(transform)] };
    Chain::in_pieces_of(steps, piece_bytes)
}

/// The way to a lane's writer, and what it has not answered yet.
pub(super) struct Door {
    swaps: Sender<Swap>,
    awaited: Option<Receiver<Result<(), String>>>,
}

impl Door {
    /// The door, and its end for the lane's transforms.
    pub(super) fn new() -> (Door, Receiver<Swap>) {
        let (swaps, end) = channel::unbounded();
        (Door { swaps, awaited: None }, end)
    }

    fn order(&mut self, transform: Scripted, piece_bytes: usize) {
        let (answer, answered) = channel::bounded(1);
        let change = Box::new(move |there: &mut Chain| {
            *there = chain(transform, piece_bytes);
            Ok(())
        });
        // A lane that has ended says so by not answering.
        self.swaps.send(Swap { change, needs_thread: false, answer }).ok();
        self.awaited = Some(answered);
    }

    /// The lane has the new ones, or has ended.
    fn is_answered(&mut self) -> bool {
        match self.awaited.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => false,
            Some(Ok(answer)) => {
                answer.expect("nothing of it can fail");
                self.awaited = None;
                true
            }
            None | Some(Err(TryRecvError::Disconnected)) => true,
        }
    }
}

impl World {
    /// Other transforms come, or none.
    pub(super) fn exchange(&mut self) {
        if !self.scenario.exchanges || self.oracle.borrow().is_exchanging() {
            return;
        }
        let random = &mut self.exchange_random;
        let transform = if random.u8(..) < 64 { Scripted::default() } else { scenario::scripted(random) };
        self.tell(|| format!("the transforms become {transform:?}"));
        self.configuration.transform = transform;
        self.oracle.borrow_mut().exchange(transform);
        for lane in &mut self.process.lanes {
            lane.door.order(transform, self.scenario.piece_bytes);
            lane.writer_due = lane.writer_due.min(self.now);
        }
    }

    /// Looks whether an exchange is over: every lane has answered.
    pub(super) fn hear_of_exchange(&mut self) {
        if self.oracle.borrow().is_exchanging() && self.process.lanes.iter_mut().all(|lane| lane.door.is_answered()) {
            self.oracle.borrow_mut().exchanged();
        }
    }
}
