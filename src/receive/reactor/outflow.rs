//! Closed blocks on their way to the ring, and how long it has been full.
//!
//! One read can close more blocks than the ring has room for: how much a row grows is known only after it was encoded. So
//! what does not fit waits here and nothing is read until it has left; what waits is bounded by one read's rows. Verdicts
//! are taken because room comes back with them; nobody waits for them, for a line protocol has no answers. Owned by the
//! reactor thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{Block, Outlet};
use crate::receive::ReactorCounters;

/// The reactor's side of the ring.
#[derive(Debug)]
pub(super) struct Outflow<O> {
    outlet: O,
    waiting: VecDeque<Block>,
    waiting_bytes: usize,
    blocked_since: Option<Duration>,
    counters: Arc<ReactorCounters>,
}

impl<O: Outlet> Outflow<O> {
    /// Nothing waits.
    pub(super) fn new(outlet: O, counters: Arc<ReactorCounters>) -> Outflow<O> {
        Outflow { outlet, waiting: VecDeque::new(), waiting_bytes: 0, blocked_since: None, counters }
    }

    /// Takes a closed block, and gives an empty buffer for the next one.
    pub(super) fn take(&mut self, block: Block) -> Vec<u8> {
        if self.waiting.is_empty() && self.outlet.room() > 0 {
            self.outlet.push(block);
        } else {
            self.waiting_bytes += block.payload.len();
            self.waiting.push_back(block);
        }
        self.outlet.spare()
    }

    /// Takes the verdicts that have come and hands over what there is room for.
    pub(super) fn hand_over(&mut self, now: Duration) {
        while self.outlet.verdict().is_some() {}
        while self.outlet.room() > 0
            && let Some(block) = self.waiting.pop_front()
        {
            self.waiting_bytes -= block.payload.len();
            self.outlet.push(block);
        }
        if !self.is_blocked() {
            self.blocked_since = None;
        } else if self.blocked_since.is_none() {
            self.blocked_since = Some(now);
            self.counters.pauses.add(1);
        }
    }

    /// Whether reading has to wait.
    pub(super) fn is_blocked(&self) -> bool {
        !self.waiting.is_empty() || self.outlet.room() == 0
    }

    /// Since when it has had to, as of the last [`Outflow::hand_over`].
    pub(super) fn blocked_since(&self) -> Option<Duration> {
        self.blocked_since
    }

    /// Whether blocks wait here.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes of blocks that wait here.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Asks for the doorbell before the thread sleeps; `false` when room has come meanwhile.
    pub(super) fn park(&mut self, now: Duration) -> bool {
        self.outlet.park();
        self.hand_over(now);
        self.is_blocked()
    }

    /// Gives up what waits, when the process may wait no longer.
    pub(super) fn abandon(&mut self) {
        for block in self.waiting.drain(..) {
            self.counters.blocks_lost.add(1);
            self.counters.records_lost.add(u64::from(block.meta.records));
        }
        self.waiting_bytes = 0;
    }
}
