//! One producer as its lane's writer sees it: what waits, what became of its tickets, and the answers.
//!
//! Tickets are answered in their order, and blocks get into the log in theirs. A ticket whose fate hangs on somebody else
//! (the sync, the keeper of dead letters) holds up the answers behind it, never the blocks behind it.

use std::collections::VecDeque;

use crossbeam::channel::{Receiver, TryRecvError};

use super::super::outlet::WriterEnd;
use super::super::sabotage::{Sabotage, planted};
use super::work::Held;
use crate::block::{Meta, Refusal, Ticket, VerdictOutcome};

/// What became of a block that was to be kept aside; nothing comes when the keeper has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is kept, durably, whole or as far as it may be.
    Durably,
    /// Its bytes may not be kept, and its sender can send them again.
    Not,
}

/// A letter under way.
pub(super) struct Letter {
    /// The block, as its producer counted it.
    pub(super) whole: Meta,
    pub(super) kept: Receiver<Kept>,
}

/// What becomes of a ticket.
pub(super) enum Fate {
    Known(VerdictOutcome),
    /// Durable once this sequence is.
    Until(u64),
    /// Durable once the letter is.
    Letter(Box<Letter>),
}

/// What is known of the log, for the answers of one turn.
#[derive(Clone, Copy)]
pub(super) struct Reached {
    pub(super) durable: u64,
    /// What is not durable may never be, or nobody can tell when.
    pub(super) unknown: bool,
    pub(super) give_up: bool,
}

/// See the module.
pub(super) struct Feed {
    pub(super) end: WriterEnd,
    next: Ticket,
    /// Taken, and there was no room for it, or for the rest of it.
    pub(super) held: Option<Held>,
    unanswered: VecDeque<(Ticket, Fate)>,
}

impl Feed {
    pub(super) fn new(end: WriterEnd) -> Feed {
        Feed { end, next: Ticket(0), held: None, unanswered: VecDeque::new() }
    }

    /// Nothing more will come, and everything is answered.
    pub(super) fn is_finished(&self) -> bool {
        let forgets = planted(Sabotage::EndsWithoutAway) && matches!(self.held, Some(Held::Away(..)));
        (self.held.is_none() || forgets) && self.unanswered.is_empty() && self.end.is_finished()
    }

    /// The fate of the oldest block that has none yet.
    pub(super) fn decide(&mut self, fate: Fate) {
        self.unanswered.push_back((self.next, fate));
        self.next = Ticket(self.next.0 + 1);
    }

    /// Answers, in order, every ticket whose fate is known, ranges of one outcome at once. `book` is told of every letter
    /// whose fate became known here: its block, and whether its spans were dropped or refused.
    pub(super) fn answer(&mut self, reached: Reached, book: &mut dyn FnMut(&Meta, Side)) {
        let mut range: Option<(Ticket, Ticket, VerdictOutcome)> = None;
        while let Some((ticket, fate)) = self.unanswered.front() {
            let ticket = *ticket;
            let Some(outcome) = outcome(fate, reached, book) else { break };
            self.unanswered.pop_front();
            range = match range {
                Some((first, _, same)) if same == outcome => Some((first, ticket, same)),
                Some((first, last, other)) => {
                    self.end.answer(first, last, other);
                    Some((ticket, ticket, outcome))
                }
                None => Some((ticket, ticket, outcome)),
            };
        }
        if let Some((first, last, outcome)) = range {
            self.end.answer(first, last, outcome);
        }
    }
}

/// Where spans are booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Appended,
    Refused,
    Dropped,
}

fn outcome(fate: &Fate, reached: Reached, book: &mut dyn FnMut(&Meta, Side)) -> Option<VerdictOutcome> {
    match fate {
        Fate::Known(outcome) => Some(*outcome),
        Fate::Until(sequence) if *sequence <= reached.durable => Some(VerdictOutcome::Durable),
        Fate::Until(_) if reached.unknown && planted(Sabotage::UnknownAcknowledged) => Some(VerdictOutcome::Durable),
        Fate::Until(_) if reached.unknown => Some(VerdictOutcome::Unknown),
        Fate::Until(_) => None,
        Fate::Letter(letter) => letter_outcome(letter, reached, book),
    }
}

/// A letter's fate: its spans are dropped once it is durable. If it is not to be had, a sender who awaits the answer is
/// told to send again; nobody else can, and what they sent is gone.
fn letter_outcome(letter: &Letter, reached: Reached, book: &mut dyn FnMut(&Meta, Side)) -> Option<VerdictOutcome> {
    let kept = if planted(Sabotage::LetterAwaitedByNobody) { Ok(Kept::Durably) } else { letter.kept.try_recv() };
    let (side, outcome) = match kept {
        Ok(Kept::Durably) => (Side::Dropped, VerdictOutcome::Durable),
        Ok(Kept::Not) | Err(TryRecvError::Disconnected) => (Side::Refused, VerdictOutcome::Refused(Refusal::Storage)),
        Err(TryRecvError::Empty) if reached.give_up => (Side::Refused, VerdictOutcome::Unknown),
        Err(TryRecvError::Empty) => return None,
    };
    book(&letter.whole, side);
    Some(outcome)
}
