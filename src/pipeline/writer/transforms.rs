//! The transforms of a lane, as its writer runs them.
//!
//! The chain belongs to the writer's thread, or if a heavy plugin is in it, or ever was, to a thread beside it: sockets are
//! never held up by what runs here. Changes come from the control thread and are made between two blocks. A block that is
//! to be kept aside goes to the keeper of dead letters with the way to say that it is durable.

use std::io;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use crossbeam::sync::Unparker;

#[cfg(test)]
use super::away::Worker;
use super::away::{Away, Job};
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
    /// There will be a heavy plugin in the chain: it needs a thread of its own.
    pub needs_thread: bool,
    /// Where the lane says how that went.
    pub answer: Sender<Result<(), String>>,
}

/// Where the chain is.
enum Runner {
    Here(Chain),
    Away(Away),
}

/// What came of giving a block to the chain.
pub(super) enum Ran {
    /// It is done.
    Done(Block, Outcome),
    /// It is under way, and comes back under this number.
    Away(u64),
}

/// See the module.
pub struct Transforms {
    runner: Runner,
    swaps: Receiver<Swap>,
    aside: Sender<Quarantined>,
    writer: Unparker,
}

impl Transforms {
    /// The transforms of one lane: its chain, where changes come from, and where blocks go that are kept aside.
    #[must_use]
    pub fn new(chain: Chain, swaps: Receiver<Swap>, aside: Sender<Quarantined>, writer: Unparker) -> Transforms {
        Transforms { runner: Runner::Here(chain), swaps, aside, writer }
    }

    /// The same with the chain on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give.
    pub fn away(mut self) -> io::Result<Transforms> {
        self.go_away()?;
        Ok(self)
    }

    /// The same, and who has the chain: who does what the thread would.
    #[cfg(test)]
    pub(in super::super) fn away_without_thread(mut self) -> (Transforms, Worker) {
        let (away, worker) = Away::new(self.writer.clone());
        self.hand_to(away);
        (self, worker)
    }

    fn go_away(&mut self) -> io::Result<()> {
        if matches!(self.runner, Runner::Here(_)) {
            let (away, worker) = Away::new(self.writer.clone());
            worker.start()?;
            self.hand_to(away);
        }
        Ok(())
    }

    /// Gives the chain away, if it is here.
    fn hand_to(&mut self, mut away: Away) {
        if let Runner::Here(chain) = &mut self.runner {
            away.take(std::mem::replace(chain, Chain::new(Vec::new())));
            self.runner = Runner::Away(away);
        }
    }

    /// None, for ever.
    #[must_use]
    pub fn none(writer: Unparker) -> Transforms {
        Transforms::new(Chain::new(Vec::new()), channel::never(), channel::bounded(0).0, writer)
    }

    /// Between two blocks: makes the changes that have come.
    pub(super) fn adopt(&mut self) {
        while let Ok(swap) = self.swaps.try_recv() {
            if swap.needs_thread
                && let Err(error) = self.go_away()
            {
                swap.answer.send(Err(format!("there is no thread for its plugins: {error}"))).ok();
                continue;
            }
            match &mut self.runner {
                // Whoever asked waits for the answer, or has gone.
                Runner::Here(chain) => drop(swap.answer.send((swap.change)(chain))),
                Runner::Away(away) => away.change(swap),
            }
        }
    }

    /// Whether a block has to go through the chain.
    pub(super) fn takes(&self, block: &Block) -> bool {
        match &self.runner {
            Runner::Here(chain) => chain.takes(&block.meta),
            Runner::Away(away) => away.takes(&block.meta),
        }
    }

    /// Gives a block of a feed to the chain.
    pub(super) fn run(&mut self, feed: usize, mut block: Block, now: Duration) -> Ran {
        match &mut self.runner {
            Runner::Here(chain) => {
                let outcome = chain.run(&block.meta, &mut block.payload, now);
                Ran::Done(block, outcome)
            }
            Runner::Away(away) => Ran::Away(away.run(feed, block)),
        }
    }

    /// A block that is back.
    pub(super) fn returned(&mut self) -> Option<Job<Outcome>> {
        match &mut self.runner {
            Runner::Here(_) => None,
            Runner::Away(away) => away.returned(),
        }
    }

    /// Processor time that the steps have taken from this thread since this was last asked.
    pub(super) fn spent(&mut self) -> Duration {
        match &mut self.runner {
            Runner::Here(chain) => chain.spent(),
            Runner::Away(_) => Duration::ZERO,
        }
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if let Runner::Here(chain) = &mut self.runner {
            chain.recycle(buffer);
        }
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
