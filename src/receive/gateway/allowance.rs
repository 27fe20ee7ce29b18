//! The bytes of request bodies that a gateway may hold at once: a lane's share of the memory budget.
//!
//! Taken before anything is buffered: what a request declares, or each piece of one that declares nothing, and what it
//! inflates to. Given back with the body. Nobody waits for it, so requests that hold a part each cannot wait for one another:
//! one that finds no room is refused, to be sent again. A declared length is taken whole at once, so of many large requests
//! those that began are finished; one that declares and does not send holds it for the body's timeout at most.
//!
//! Owned by the gateway's thread: a plain counter.

use std::cell::Cell;
use std::rc::Rc;

/// What is left of the bytes.
#[derive(Debug)]
pub(super) struct Allowance {
    total_bytes: usize,
    left_bytes: Cell<usize>,
}

/// Bytes that a body holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    of: Rc<Allowance>,
    bytes: usize,
}

/// There are not so many bytes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

impl Allowance {
    /// An allowance of so many bytes.
    pub(super) fn new(bytes: usize) -> Rc<Allowance> {
        Rc::new(Allowance { total_bytes: bytes, left_bytes: Cell::new(bytes) })
    }

    /// A permit for nothing yet.
    pub(super) fn permit(self: &Rc<Self>) -> Permit {
        Permit { of: self.clone(), bytes: 0 }
    }

    /// Bytes that nobody holds.
    pub(super) fn left_bytes(&self) -> usize {
        self.left_bytes.get()
    }
}

impl Permit {
    /// Bytes that it could grow by now.
    pub(super) fn left_bytes(&self) -> usize {
        self.of.left_bytes.get()
    }

    /// Bytes that it could grow by if nobody else held any.
    pub(super) fn room_bytes(&self) -> usize {
        self.of.total_bytes - self.bytes
    }

    /// Grows by `bytes`; all or nothing.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.cover(self.bytes.saturating_add(bytes))
    }

    /// Grows to `bytes` if it is less; all or nothing.
    pub(super) fn cover(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        let left = self.of.left_bytes.get().checked_sub(more).ok_or(Exhausted)?;
        self.of.left_bytes.set(left);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.left_bytes.set(self.of.left_bytes.get() + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_share_the_allowance_and_give_back_what_they_took() {
        let allowance = Allowance::new(100);
        let (mut first, mut second) = (allowance.permit(), allowance.permit());
        assert_eq!((first.cover(60), second.cover(41)), (Ok(()), Err(Exhausted)));
        assert_eq!((first.cover(30), second.cover(40)), (Ok(()), Ok(())), "what is held covers less");
        assert_eq!((allowance.left_bytes(), first.cover(61)), (0, Err(Exhausted)));
        assert_eq!((second.left_bytes(), second.room_bytes(), second.add(1)), (0, 60, Err(Exhausted)));
        drop(first);
        assert_eq!(allowance.left_bytes(), 60);
        drop(second);
        assert_eq!(allowance.left_bytes(), 100);
    }
}
