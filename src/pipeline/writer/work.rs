//! A block on its way from the ring into the log: whole, or in the pieces that transforms have left of it.
//!
//! What has to wait for room waits as this, so no block goes through the transforms twice. The spans of a block are booked
//! as their fate becomes known: each piece when it is appended or refused, and what was dropped with the first of them: of a
//! block that is refused nothing was dropped, for it will come again. Every booking is in balance by itself, because a
//! piece is described as a block is.

use super::super::sabotage::{Sabotage, planted};
use crate::block::{Block, Meta};
use crate::transform::{Cause, Outcome, Piece};

/// What a feed has to do next: a block of its ring, or what had to wait.
pub(super) enum Held {
    /// As it came.
    New(Block),
    /// In the chain, on another thread: what it is, whether a peer waits for it, and its number there.
    Away(Meta, bool, u64),
    /// Back from there.
    Back(Block, Outcome),
    /// Transformed, on its way into the log.
    Work(Work),
    /// On its way to the keeper of dead letters.
    Aside(Block, Cause),
}

impl Held {
    /// Whether a peer waits for the verdict.
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Held::New(block) | Held::Work(Work { block, .. }) | Held::Aside(block, _) | Held::Back(block, _) => {
                block.awaited
            }
            Held::Away(_, awaited, _) => *awaited,
        }
    }
}

/// See the module.
pub(super) struct Work {
    /// What to do with the next piece, and the last one.
    pub(super) block: Block,
    /// The pieces behind it, the last one first.
    rest: Vec<Piece>,
    /// What transforms dropped, until it is booked.
    dropped: Option<Meta>,
    /// The sequence of the last piece that was appended, if one was.
    pub(super) appended: Option<u64>,
}

impl Work {
    /// A block that transforms have not changed.
    pub(super) fn whole(block: Block) -> Work {
        Work { block, rest: Vec::new(), dropped: None, appended: None }
    }

    /// What is left of a block in pieces, of which there is one at least.
    pub(super) fn pieces(whole: &Meta, mut pieces: Vec<Piece>, awaited: bool) -> Work {
        let dropped = dropped(whole, &pieces);
        pieces.reverse();
        let Piece { meta, payload } = pieces.pop().expect("the caller has looked");
        Work { block: Block { meta, payload, awaited }, rest: pieces, dropped, appended: None }
    }

    /// What was dropped of the block, the first time that somebody asks.
    pub(super) fn take_dropped(&mut self) -> Option<Meta> {
        self.dropped.take()
    }

    /// Goes on to the next piece; false when there is none. Returns the buffer of the one before.
    pub(super) fn advance(&mut self, sequence: u64) -> (bool, Vec<u8>) {
        self.appended = Some(sequence);
        match self.rest.pop() {
            Some(_) if planted(Sabotage::PieceForgotten) => (false, std::mem::take(&mut self.block.payload)),
            Some(Piece { meta, payload }) => {
                self.block.meta = meta;
                (true, std::mem::replace(&mut self.block.payload, payload))
            }
            None => (false, std::mem::take(&mut self.block.payload)),
        }
    }

    /// The descriptions of everything that is not yet booked.
    pub(super) fn left(&self) -> impl Iterator<Item = &Meta> {
        std::iter::once(&self.block.meta).chain(self.rest.iter().map(|piece| &piece.meta)).chain(&self.dropped)
    }
}

/// What of `whole` is in none of the pieces.
fn dropped(whole: &Meta, pieces: &[Piece]) -> Option<Meta> {
    let of = |count: fn(&Meta) -> u32| pieces.iter().map(|piece| count(&piece.meta)).sum::<u32>();
    let (spans, records) = (whole.spans - of(|meta| meta.spans), whole.records - of(|meta| meta.records));
    (spans > 0).then_some(Meta { spans, records, ..*whole })
}
