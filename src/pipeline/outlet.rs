//! The rings between a producer and its lane's writer: blocks one way; verdicts and empty buffers the other.
//!
//! One pair belongs to one producer thread and one writer thread, so every queue here has one thread at each end. The
//! producer counts its blocks in flight by tickets, and a ticket is given back by its verdict, so [`RingOutlet::room`] bounds
//! ring, writer and unsynced tail together, and the reverse ring, as large as the tickets that can be outstanding, never
//! fills. What may wait is bounded in blocks and in spans (`QUEUE_MAXSIZE`), with room for at least one block.
//!
//! Parking: the producer parks, then looks again; the writer stores a verdict, then wakes ([`Parked`]). The doorbell rings
//! once a park at most.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::sync::Unparker;

use crate::block::{Block, Outlet, TARGET_BYTES, Ticket, Verdict, VerdictOutcome};
use crate::sys::doorbell::Doorbell;
use crate::sys::handshake::{Done, Parked};

/// Both ends' view of the rings.
struct Rings {
    blocks: ArrayQueue<Block>,
    verdicts: ArrayQueue<Verdict>,
    spares: ArrayQueue<Vec<u8>>,
    parked: Parked,
    /// The producer pushes nothing more.
    closed: Done,
    /// Spans pushed and not yet answered; a gauge besides.
    waiting_spans: AtomicU64,
    doorbell: Doorbell,
}

/// The producer's end.
pub struct RingOutlet {
    rings: Arc<Rings>,
    writer: Unparker,
    next: u64,
    /// Spans of the blocks not yet answered, oldest first.
    unanswered: VecDeque<u32>,
    waiting_spans: u64,
    max_spans: u64,
}

/// The writer's end.
pub struct WriterEnd {
    rings: Arc<Rings>,
    /// What comes is a dead letter already: not to be kept aside a second time.
    pub of_letters: bool,
}

/// A gauge of what one producer has pushed and not yet been told the fate of.
#[derive(Clone)]
pub struct Waiting(Arc<Rings>);

impl Waiting {
    /// Spans between decode and verdict.
    #[must_use]
    pub fn spans(&self) -> u64 {
        // Relaxed: a statistic.
        self.0.waiting_spans.load(Ordering::Relaxed)
    }
}

/// The two ends for at most `blocks` unanswered blocks and, beyond the first, `max_spans` unanswered spans.
#[must_use]
pub fn pair(blocks: usize, max_spans: u64, doorbell: Doorbell, writer: Unparker) -> (RingOutlet, WriterEnd, Waiting) {
    let rings = Arc::new(Rings {
        blocks: ArrayQueue::new(blocks),
        verdicts: ArrayQueue::new(blocks),
        spares: ArrayQueue::new(blocks),
        parked: Parked::new(),
        closed: Done::new(false),
        waiting_spans: AtomicU64::new(0),
        doorbell,
    });
    let outlet = RingOutlet {
        rings: rings.clone(),
        writer,
        next: 0,
        unanswered: VecDeque::with_capacity(blocks),
        waiting_spans: 0,
        max_spans,
    };
    (outlet, WriterEnd { rings: rings.clone(), of_letters: false }, Waiting(rings))
}

impl Outlet for RingOutlet {
    fn room(&self) -> usize {
        if self.waiting_spans >= self.max_spans && !self.unanswered.is_empty() {
            return 0;
        }
        self.rings.blocks.capacity() - self.unanswered.len()
    }

    fn push(&mut self, block: Block) -> Ticket {
        self.unanswered.push_back(block.meta.spans);
        self.waiting_spans += u64::from(block.meta.spans);
        self.rings.waiting_spans.store(self.waiting_spans, Ordering::Relaxed);
        assert!(self.rings.blocks.push(block).is_ok(), "a producer pushes only what it has room for");
        self.writer.unpark();
        self.next += 1;
        Ticket(self.next - 1)
    }

    fn spare(&mut self) -> Vec<u8> {
        self.rings.spares.pop().unwrap_or_else(|| Vec::with_capacity(TARGET_BYTES + TARGET_BYTES / 4))
    }

    fn verdict(&mut self) -> Option<Verdict> {
        let verdict = self.rings.verdicts.pop()?;
        for _ in verdict.first.0..=verdict.last.0 {
            let spans = self.unanswered.pop_front().expect("a verdict answers tickets that were given out");
            self.waiting_spans -= u64::from(spans);
        }
        self.rings.waiting_spans.store(self.waiting_spans, Ordering::Relaxed);
        Some(verdict)
    }

    fn park(&mut self) {
        self.rings.parked.park();
    }
}

impl Drop for RingOutlet {
    fn drop(&mut self) {
        self.rings.closed.say();
        self.writer.unpark();
    }
}

impl WriterEnd {
    /// The oldest block not yet taken.
    pub fn pop(&mut self) -> Option<Block> {
        self.rings.blocks.pop()
    }

    /// Gives an emptied buffer back; one that is too large to keep is freed.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 4 * TARGET_BYTES {
            buffer.clear();
            // A full queue of spares means that this one is not needed: it is freed.
            drop(self.rings.spares.push(buffer));
        }
    }

    /// Answers tickets, in order, and rings when the producer is parked.
    pub fn answer(&mut self, first: Ticket, last: Ticket, outcome: VerdictOutcome) {
        let verdict = Verdict { first, last, outcome };
        assert!(self.rings.verdicts.push(verdict).is_ok(), "the reverse ring holds every outstanding ticket");
        if self.rings.parked.wake() {
            self.rings.doorbell.ring();
        }
    }

    /// The producer has dropped its end and every block was taken.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        // In this order: what was pushed before the end is seen by the look that follows.
        self.rings.closed.is_said() && self.rings.blocks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Made, Meta, Signal, SourceId};

    fn block(spans: u32) -> Block {
        let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 1);
        meta.spans = spans;
        Block::open(meta, Vec::new())
    }

    fn rings(blocks: usize, max_spans: u64) -> (RingOutlet, WriterEnd, Waiting) {
        let parker = crossbeam::sync::Parker::new();
        pair(blocks, max_spans, Doorbell::new().unwrap(), parker.unparker().clone())
    }

    #[test]
    fn room_comes_back_with_the_verdict_and_not_before() {
        let (mut outlet, mut writer, waiting) = rings(2, 1000);
        let first = outlet.push(block(10));
        let second = outlet.push(block(20));
        assert_eq!((outlet.room(), waiting.spans()), (0, 30));
        assert!(writer.pop().is_some() && writer.pop().is_some() && writer.pop().is_none());
        assert_eq!(outlet.room(), 0, "taken is not yet answered");
        writer.answer(first, second, VerdictOutcome::Durable);
        assert_eq!(outlet.verdict().map(|v| (v.first, v.last)), Some((first, second)));
        assert_eq!((outlet.room(), waiting.spans()), (2, 0));
    }

    #[test]
    fn spans_bound_the_room_but_one_block_always_fits() {
        let (mut outlet, _writer, _) = rings(8, 100);
        assert_eq!(outlet.room(), 8);
        outlet.push(block(5000));
        assert_eq!(outlet.room(), 0);
    }

    #[test]
    fn a_dropped_outlet_is_finished_once_its_blocks_are_taken() {
        let (mut outlet, mut writer, _) = rings(4, 100);
        outlet.push(block(1));
        assert!(!writer.is_finished());
        drop(outlet);
        assert!(!writer.is_finished(), "a block is left");
        assert!(writer.pop().is_some());
        assert!(writer.is_finished());
    }

    #[test]
    fn the_doorbell_rings_once_a_park() {
        let (mut outlet, mut writer, _) = rings(4, 100);
        let tickets: Vec<Ticket> = (0..3).map(|_| outlet.push(block(1))).collect();
        let mut count = [0u8; 8];
        let mut readable = |outlet: &RingOutlet| {
            use std::io::Read;
            let fd = std::os::fd::AsFd::as_fd(&outlet.rings.doorbell).try_clone_to_owned().unwrap();
            std::fs::File::from(fd).read(&mut count).is_ok()
        };
        writer.answer(tickets[0], tickets[0], VerdictOutcome::Durable);
        assert!(!readable(&outlet), "nobody was parked");
        outlet.park();
        writer.answer(tickets[1], tickets[1], VerdictOutcome::Durable);
        writer.answer(tickets[2], tickets[2], VerdictOutcome::Durable);
        assert!(readable(&outlet));
        assert!(!readable(&outlet));
    }
}
