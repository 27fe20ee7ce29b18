//! The transforms of a lane, as its writer runs them.
//!
//! The chain belongs to the writer's thread: sockets are never held up by what runs here. Another chain comes from the
//! control thread and is taken between two blocks. A block that is to be kept aside goes to the keeper of dead letters with
//! the way to say that it is durable.

use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use crossbeam::sync::Unparker;

use super::feed::{Kept, Letter};
use crate::block::Block;
use crate::transform::{Cause, Chain, Outcome};

/// A block that transforms could not do, on its way to be kept.
pub struct Quarantined {
    /// As it came.
    pub block: Block,
    /// Why.
    pub cause: Cause,
    /// Where it is said what became of it; to be dropped when that is nothing.
    pub kept: Sender<Kept>,
    /// To be woken then: the lane's writer.
    pub writer: Unparker,
}

/// Makes another chain of a chain; on an error it is as it was.
pub type Change = Box<dyn FnOnce(&mut Chain) -> Result<(), String> + Send>;

/// A change of the chain, on its way to a lane.
pub struct Swap {
    /// Makes it.
    pub change: Change,
    /// Where the lane says how that went.
    pub answer: Sender<Result<(), String>>,
}

/// See the module.
pub struct Transforms {
    chain: Chain,
    swaps: Receiver<Swap>,
    aside: Sender<Quarantined>,
    writer: Unparker,
}

impl Transforms {
    /// The transforms of one lane: its chain, where changes come from, and where blocks go that are kept aside.
    #[must_use]
    pub fn new(chain: Chain, swaps: Receiver<Swap>, aside: Sender<Quarantined>, writer: Unparker) -> Transforms {
        Transforms { chain, swaps, aside, writer }
    }

    /// None, for ever.
    #[must_use]
    pub fn none(writer: Unparker) -> Transforms {
        Transforms::new(Chain::new(Vec::new()), channel::never(), channel::bounded(0).0, writer)
    }

    /// Between two blocks: takes the changes that have come.
    pub(super) fn adopt(&mut self) {
        while let Ok(Swap { change, answer }) = self.swaps.try_recv() {
            // Whoever asked waits for the answer, or has gone.
            answer.send(change(&mut self.chain)).ok();
        }
    }

    /// Whether a block has to go through the chain.
    pub(super) fn takes(&self, block: &Block) -> bool {
        self.chain.takes(&block.meta)
    }

    pub(super) fn run(&mut self, block: &mut Block, now: Duration) -> Outcome {
        self.chain.run(&block.meta, &mut block.payload, now)
    }

    /// Processor time of the steps since this was last asked.
    pub(super) fn spent(&mut self) -> Duration {
        self.chain.spent()
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        self.chain.recycle(buffer);
    }

    /// Hands a block to the keeper; gives it back when too many are under way, or when there is no keeper.
    pub(super) fn keep_aside(&self, block: Block, cause: Cause) -> Handed {
        let (kept, is_kept) = channel::bounded(1);
        let letter = Letter { whole: block.meta, kept: is_kept };
        let quarantined = Quarantined { block, cause, kept, writer: self.writer.clone() };
        match self.aside.try_send(quarantined) {
            Ok(()) => Handed::Over(letter),
            Err(TrySendError::Full(back)) => Handed::Back(back.block, back.cause),
            Err(TrySendError::Disconnected(back)) => Handed::Never(back.block),
        }
    }
}

/// What came of handing a block to the keeper.
pub(super) enum Handed {
    Over(Letter),
    /// Too many are under way.
    Back(Block, Cause),
    /// There is no keeper.
    Never(Block),
}
