//! A thread of its own for a heavy plugin, with a stack that an interpreter needs.
//!
//! The lane hands a job over and goes on; the worker does it with its [`Instance`] and hands back what came of it, in order.
//! Jobs under way are bounded: a full queue gives the job back, and the lane does with the batch what backpressure
//! means there. What a job is, the owner says: it moves in whole (payload, columns, ticket), so nothing is shared.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::counters::Counters;
use super::generation::Generation;
use super::instance::Instance;

/// Stack of the thread: what WebAssembly may use, and as much again for the host below it.
const STACK_BYTES: usize = 8 << 20;

enum Order<J> {
    Do(J),
    Swap(Arc<Generation>),
}

/// See the module.
pub struct Worker<J, D> {
    orders: Option<Sender<Order<J>>>,
    done: Receiver<D>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker does: the work itself, and how the lane is woken.
pub struct WorkerOptions<W, N> {
    /// Jobs that may wait, at least 1.
    pub capacity: usize,
    /// Does one job.
    pub work: W,
    /// Called after each job: the lane may be parked.
    pub notify: N,
}

impl<J: Send + 'static, D: Send + 'static> Worker<J, D> {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give.
    pub fn start<W, N>(
        generation: Arc<Generation>,
        counters: Arc<Counters>,
        options: WorkerOptions<W, N>,
    ) -> std::io::Result<Worker<J, D>>
    where
        W: FnMut(&mut Instance, J) -> D + Send + 'static,
        N: Fn() + Send + 'static,
    {
        let WorkerOptions { capacity, mut work, notify } = options;
        let (orders, received) = bounded(capacity);
        // One more than can be under way: handing back never waits.
        let (finished, done) = bounded(capacity + 1);
        let thread = thread::Builder::new().name("plugin-worker".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            let mut instance = Instance::new(generation, counters);
            for order in received {
                match order {
                    Order::Do(job) => {
                        let is_wanted = finished.send(work(&mut instance, job)).is_ok();
                        notify();
                        if !is_wanted {
                            break;
                        }
                    }
                    Order::Swap(generation) => {
                        if let Err(error) = instance.swap(generation) {
                            tracing::warn!(%error, "the new generation of a plugin did not start; the old one goes on");
                        }
                    }
                }
            }
        })?;
        Ok(Worker { orders: Some(orders), done, thread: Some(thread) })
    }

    /// Hands a job over.
    ///
    /// # Errors
    ///
    /// Gives the job back when as many wait as may, or the thread has ended.
    pub fn submit(&self, job: J) -> Result<(), J> {
        let Some(orders) = &self.orders else { return Err(job) };
        match orders.try_send(Order::Do(job)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Order::Do(job)) | TrySendError::Disconnected(Order::Do(job))) => Err(job),
            Err(_) => unreachable!("what comes back is what was sent"),
        }
    }

    /// What came of the oldest job that is done.
    #[must_use]
    pub fn poll(&self) -> Option<D> {
        self.done.try_recv().ok()
    }

    /// Makes another generation live before the jobs that are handed over from now on. Waits for room in the queue.
    pub fn swap(&self, generation: Arc<Generation>) {
        if let Some(orders) = &self.orders {
            // A thread that has ended has nothing to swap.
            orders.send(Order::Swap(generation)).ok();
        }
    }
}

impl<J, D> Drop for Worker<J, D> {
    /// Ends the thread after the jobs that it has.
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // It may wait for somebody to take what it has done.
            while !thread.is_finished() {
                drop(self.done.recv());
            }
            thread.join().ok();
        }
    }
}
