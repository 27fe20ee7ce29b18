//! A lane's chain on a thread of its own, for plugins that take milliseconds and the stack of an interpreter.
//!
//! The writer hands a block over and goes on with its other feeds; it is woken when the block is back with what became of
//! it. One block a feed is under way, so blocks of a feed keep their order, and what is under way is bounded. Changes of the
//! chain go the same way and are in order with the blocks. Blocks that do not concern the chain are not handed over; while
//! a change is under way nobody can say which those are, and all of them are. The thread ends when its writer does, after
//! the call that it is in: calls end with their processor time.

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::sync::Unparker;

use super::super::sabotage::{Sabotage, planted};
use super::transforms::Swap;
use crate::block::{Block, Meta};
use crate::sys::{affinity, clock};
use crate::transform::{Chain, Outcome, Taking};

/// Stack of a thread that runs plugins of any kind: 4 MiB that WebAssembly may use, and as much again for the host below it.
pub const DEEP_STACK_BYTES: usize = 8 << 20;

/// A block that is under way, or back.
pub(super) struct Job<R> {
    /// The feed that it is of.
    pub(super) feed: usize,
    /// Tells it from those that were given up.
    pub(super) serial: u64,
    pub(super) block: Block,
    /// What became of it.
    pub(super) result: R,
}

enum Order {
    /// Take this chain in the place of the one that is there.
    Take(Chain),
    Run(Job<()>),
    Change(Swap),
}

enum Done {
    Ran(Job<Outcome>),
    /// It has another chain, which takes these blocks.
    Changed(Vec<Taking>),
}

/// See the module.
pub(super) struct Away {
    orders: Sender<Order>,
    done: Receiver<Done>,
    serial: u64,
    taking: Vec<Taking>,
    changes: usize,
}

/// Whoever has the chain: the thread's body, or what a test gives turns.
pub(in super::super) struct Worker {
    chain: Chain,
    orders: Receiver<Order>,
    done: Sender<Done>,
    writer: Unparker,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(self) -> io::Result<()> {
        let thread = thread::Builder::new().name("plugins".to_owned()).stack_size(DEEP_STACK_BYTES);
        thread.spawn(|| self.run()).map(drop)
    }

    /// Whether there is something to do.
    #[cfg(test)]
    pub(in super::super) fn is_ordered(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Does one thing, if there is any; false when there is no writer any more.
    #[cfg(test)]
    pub(in super::super) fn turn(&mut self, now: Duration) -> bool {
        match self.orders.try_recv() {
            Ok(order) => self.obey(order, now),
            Err(error) => error.is_empty(),
        }
    }

    fn run(mut self) {
        while let Ok(order) = self.orders.recv()
            && self.obey(order, clock::monotonic())
        {}
    }

    /// Does what it was ordered; false when there is no writer any more.
    fn obey(&mut self, order: Order, now: Duration) -> bool {
        let done = match order {
            Order::Take(other) => {
                self.chain = other;
                return true;
            }
            Order::Run(Job { feed, serial, mut block, result: () }) => {
                let result = self.chain.run(&block.meta, &mut block.payload, now);
                Done::Ran(Job { feed, serial, block, result })
            }
            Order::Change(Swap { change, answer, .. }) => {
                // Whoever asked waits for the answer, or has gone.
                answer.send(change(&mut self.chain)).ok();
                Done::Changed(self.chain.taking())
            }
        };
        let has_writer = self.done.send(done).is_ok();
        self.writer.unpark();
        has_writer
    }
}

impl Away {
    /// The two ends; there is no chain yet. `writer` is woken for every block that is back.
    pub(super) fn new(writer: Unparker) -> (Away, Worker) {
        let (orders, received) = channel::unbounded();
        let (finished, done) = channel::unbounded();
        let worker = Worker { chain: Chain::new(Vec::new()), orders: received, done: finished, writer };
        (Away { orders, done, serial: 0, taking: Vec::new(), changes: 0 }, worker)
    }

    pub(super) fn take(&mut self, chain: Chain) {
        self.taking = chain.taking();
        self.order(Order::Take(chain));
    }

    pub(super) fn change(&mut self, swap: Swap) {
        self.changes += 1;
        self.order(Order::Change(swap));
    }

    /// Whether a block like this has to go through the chain.
    pub(super) fn takes(&self, meta: &Meta) -> bool {
        self.changes > 0 || self.taking.iter().any(|step| step.takes(meta))
    }

    /// Hands a block over; the number under which it comes back.
    pub(super) fn run(&mut self, feed: usize, block: Block) -> u64 {
        self.serial += 1;
        self.order(Order::Run(Job { feed, serial: self.serial, block, result: () }));
        self.serial
    }

    /// A block that is back.
    pub(super) fn returned(&mut self) -> Option<Job<Outcome>> {
        loop {
            match self.done.try_recv().ok()? {
                Done::Ran(job) => return Some(job),
                Done::Changed(taking) => {
                    if !planted(Sabotage::TakingOfTheOld) {
                        self.taking = taking;
                    }
                    self.changes -= 1;
                }
            }
        }
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the thread of the plugins lives as long as its writer");
    }
}

/// Does something that runs plugins of any kind on a stack that is deep enough for them, and waits for it. Lanes and doors
/// have most of the cores meanwhile: a plugin is loaded while spans flow.
///
/// # Errors
///
/// When the system has no thread to give.
pub fn on_a_deep_stack<R: Send>(work: impl FnOnce() -> R + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(DEEP_STACK_BYTES).spawn_scoped(scope, || {
            affinity::give_way();
            work()
        })?;
        Ok(thread.join().expect("what is done here does not panic"))
    })
}
