//! The producer's side of a ring: push closed blocks, learn their fate.
//!
//! Each producer (the reactor or the gateway of a lane) has its own ring to the lane's writer and its own reverse ring of
//! verdicts. Both ends of an outlet belong to one thread. Tickets are dense and ascending per producer.
//!
//! The protocol. A producer asks [`Outlet::room`], pushes at most that many blocks (a request reserves room for *all* its
//! blocks before the first push, else it is refused with nothing stored), and keeps the ticket of each. The writer
//! answers every ticket exactly once, in order, in ranges. A block that somebody awaits is answered `Durable` after the
//! sync that covers it (after the append when the queue is configured so); one that nobody awaits, after its append. A
//! request is answered yes only when every one of its tickets was durable.
//!
//! Room comes back with verdicts and with nothing else, so what is outstanding is bounded by the ring whatever the disk
//! does, the reverse ring can never overflow, and the writer never waits for a producer. A producer therefore has to take
//! its verdicts before it asks for room, also while it is paused.
//!
//! When a verdict comes while the producer is parked, its doorbell rings once. Lost wake-ups cannot happen: a producer
//! calls [`Outlet::park`] and then looks for verdicts once more before it blocks.

use super::Block;

/// Names one pushed block of one producer: dense, ascending from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Why a block was refused. Nothing of a refused block is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The disk budget is used up and the source's admission is `drop_newest`.
    Full,
    /// Storage failed before anything was written.
    Storage,
    /// The process stops.
    Draining,
    /// A transform cannot do it, and its producer has it from the dead letters: it is there already.
    Transforms,
}

/// What became of a range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictOutcome {
    /// Acknowledged under the configured durability.
    Durable,
    /// Not stored.
    Refused(Refusal),
    /// In the log, yet a sync failed and could not be mended: the peer has to be told to try again, and may send twice.
    Unknown,
}

/// The fate of the tickets `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// First ticket of the range.
    pub first: Ticket,
    /// Last ticket of the range, inclusive.
    pub last: Ticket,
    /// What became of all of them.
    pub outcome: VerdictOutcome,
}

/// What a producer needs of its ring. Two implementations: the ring of a lane, and a plain vector in tests.
pub trait Outlet {
    /// Blocks that can be pushed now without waiting.
    fn room(&self) -> usize;

    /// Hands a closed block over. Panics when there is no room: the caller asked.
    fn push(&mut self, block: Block) -> Ticket;

    /// An empty buffer with at least [`super::TARGET_BYTES`] of capacity, recycled when there is one.
    fn spare(&mut self) -> Vec<u8>;

    /// The next verdict, if one has come.
    fn verdict(&mut self) -> Option<Verdict>;

    /// Asks for a doorbell at the next verdict. Look for verdicts once more before blocking.
    fn park(&mut self);
}
