//! The flags by which threads do not miss each other: two between one that is about to sleep and those that have something
//! for it, and one that is the last word of a thread that is done.
//!
//! The wake itself (an eventfd, an unpark) is expensive and remembered by its own mechanism; the first two say whether it is
//! needed. Both are read-modify-write on one word, so of two that meet one comes second and sees all that the first did
//! before. Imports nothing from the crate: `tests/loom` checks every interleaving, and that weaker orderings fail.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// A request that any number of threads make and one takes; those made between two takes merge.
#[derive(Debug)]
pub struct Request(AtomicBool);

impl Request {
    /// A request that is made already, or is not.
    #[must_use]
    pub fn new(is_made: bool) -> Request {
        Request(AtomicBool::new(is_made))
    }

    /// Makes it, after everything that it is about; whether the taker has to be woken, because nobody has done so yet.
    #[must_use]
    pub fn make(&self) -> bool {
        // Release pairs with the Acquire in `take`: the taker sees what was published before.
        !self.0.swap(true, Ordering::Release)
    }

    /// Whether it is made: a hint, nothing may be read because of it.
    #[must_use]
    pub fn is_made(&self) -> bool {
        // Relaxed: carries no data.
        self.0.load(Ordering::Relaxed)
    }

    /// Takes it, before looking at what it is about; whether there was one.
    pub fn take(&self) -> bool {
        // Acquire pairs with the Release in `make`. A swap, not a store: who found the request made does not wake, so
        // taking it has to acquire what that one published. A store could become visible after the look at what was
        // published, and the request would be gone unseen.
        self.0.swap(false, Ordering::Acquire)
    }
}

/// Says that one thread is going to sleep, so that another wakes it once.
#[derive(Debug)]
pub struct Parked(AtomicBool);

impl Parked {
    /// Nobody sleeps.
    #[must_use]
    pub fn new() -> Parked {
        Parked(AtomicBool::new(false))
    }

    /// Asks to be woken. The sleeper looks once more for what it waits for before it sleeps.
    pub fn park(&self) {
        // AcqRel pairs with that in `wake`: if this swap comes second, it acquires what was published before the other, and
        // the look that follows finds it.
        self.0.swap(true, Ordering::AcqRel);
    }

    /// To be called after something was published; whether the sleeper has to be woken.
    #[must_use]
    pub fn wake(&self) -> bool {
        // AcqRel pairs with that in `park`: if this swap comes second, it reads true, and the sleeper is woken.
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Default for Parked {
    fn default() -> Parked {
        Parked::new()
    }
}

/// The last word of a thread: whoever hears it sees all that was done before, and nothing follows.
#[derive(Debug)]
pub struct Done(AtomicBool);

impl Done {
    /// Said already, or not yet.
    #[must_use]
    pub fn new(is_said: bool) -> Done {
        Done(AtomicBool::new(is_said))
    }

    /// Takes it back, before a thread is started that will say it again.
    pub fn begin(&self) {
        // Relaxed: the start of the thread orders it.
        self.0.store(false, Ordering::Relaxed);
    }

    /// Says it, after everything else.
    pub fn say(&self) {
        // Release pairs with the Acquire in `is_said`.
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was said. To be asked before the look at what was done: a look that came first may have been too early.
    #[must_use]
    pub fn is_said(&self) -> bool {
        // Acquire pairs with the Release in `say`.
        self.0.load(Ordering::Acquire)
    }
}
