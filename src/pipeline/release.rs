//! Who still needs what: frees segments that every destination's durable cursor has passed.
//!
//! Each destination joins with its place, tells its committed positions, and leaves when it is forgotten; the least of a
//! lane is released. Before the first [`Release::free`] nothing is, so that all can join. A destination that may lag for
//! ever would hold the log for ever: that is what required means, and an optional one jumps before it comes to that.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::queue::{Log, Position};

/// A destination among those that are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(u64);

/// The committed positions of all destinations over all lanes.
#[derive(Debug)]
pub struct Release {
    lanes: Vec<Arc<Log>>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    /// All who were there at the start have joined.
    complete: bool,
    /// A position a lane.
    committed: BTreeMap<Member, Vec<Position>>,
}

impl Release {
    /// Nobody has joined.
    #[must_use]
    pub fn new(lanes: Vec<Arc<Log>>) -> Release {
        Release { lanes, members: Mutex::default() }
    }

    /// Joins a destination at the positions that `open` gives, one a lane. Nothing is freed meanwhile, so that the oldest
    /// block that a new destination finds is still there when it begins.
    pub fn join<T>(&self, open: impl FnOnce() -> io::Result<(T, Vec<Position>)>) -> io::Result<(T, Member)> {
        let mut members = self.members();
        let (opened, positions) = open()?;
        let member = Member(members.next);
        members.next += 1;
        members.committed.insert(member, positions);
        Ok((opened, member))
    }

    /// Everybody has joined: frees what all are past. With a full log that only a destination held which is gone, nothing
    /// would come that moves the others.
    pub fn free(&self) {
        let mut members = self.members();
        members.complete = true;
        self.free_before(&members);
    }

    /// A destination has durably come to `positions`, one a lane.
    pub fn moved(&self, member: Member, positions: impl Iterator<Item = Position>) {
        let mut members = self.members();
        let Some(committed) = members.committed.get_mut(&member) else { return };
        committed.clear();
        committed.extend(positions);
        self.free_before(&members);
    }

    /// A destination needs nothing any more.
    pub fn leave(&self, member: Member) {
        let mut members = self.members();
        members.committed.remove(&member);
        self.free_before(&members);
    }

    fn free_before(&self, members: &Members) {
        if !members.complete {
            return;
        }
        for (lane, log) in self.lanes.iter().enumerate() {
            if let Some(least) = members.committed.values().map(|positions| positions[lane]).min() {
                log.release(&least);
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Positions only grow and each change is one call: a panic of another thread leaves them good enough to hold on to.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
