//! The doors: one file a receiver, each turning one protocol's bytes into blocks and exact counts.
//!
//! `reactor` takes uberAgent's lines over raw TCP on a lane's pinned thread; `lines` cuts them, `sniff` tells formats and
//! wrong protocols apart, `admission` bounds connections over all lanes. The doors know of the ring only what
//! [`crate::block::Outlet`] says.
//!
//! Here are the counters of the receivers beside the front balance. Each has one writing thread, like those of
//! [`crate::telemetry::ledger`]; whoever renders metrics reads them.

use std::fmt;
use std::sync::OnceLock;

use crate::block::SourceId;
use crate::telemetry::ledger::Counter;

pub mod admission;
#[cfg(feature = "plugins")]
pub mod decoder;
pub mod elasticsearch;
pub mod gateway;
pub mod inflate;
pub mod lines;
pub mod otlp_http;
pub mod reactor;
pub mod sniff;

pub use sniff::{WRONG_PROTOCOLS, WrongProtocol};

/// A change of the doors of a reactor or gateway, adopted between two turns of its loop.
#[derive(Debug)]
pub struct DoorChanges<D> {
    /// No longer served: connections are drained and closed.
    pub close: Vec<SourceId>,
    /// Served from now on, or from now on served so. Listeners replace those that the source had.
    pub serve: Vec<D>,
    /// Rows become spans in another way: encoders of sources that were known are replaced.
    pub remap: bool,
    /// Told when it is adopted.
    pub adopted: crossbeam::channel::Sender<()>,
}

/// Labels that one [`ByLabel`] tells apart; all later ones are counted as [`ByLabel::OTHER`].
const LABELS: usize = 48;

/// Counters by a label of a small fixed set, such as the reason of a dead letter.
pub struct ByLabel {
    slots: [(OnceLock<&'static str>, Counter); LABELS],
    other: Counter,
}

impl ByLabel {
    /// Counts everything beyond the labels that there is place for.
    pub const OTHER: &'static str = "other";

    /// Adds `n` under `label`. Only the owning thread may call this.
    pub fn add(&self, label: &'static str, n: u64) {
        let slot = self.slots.iter().find(|(name, _)| *name.get_or_init(|| label) == label);
        slot.map_or(&self.other, |(_, counter)| counter).add(n);
    }

    /// Every label that was ever counted, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = self.slots.iter().map_while(|(name, counter)| Some((*name.get()?, counter.get())));
        let other = Some((Self::OTHER, self.other.get())).filter(|(_, count)| *count > 0);
        named.chain(other)
    }
}

impl fmt::Debug for ByLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Default for ByLabel {
    fn default() -> ByLabel {
        ByLabel { slots: std::array::from_fn(|_| (OnceLock::new(), Counter::default())), other: Counter::default() }
    }
}

/// What a receiver says of its connections on one lane.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    /// Connections that are open now; a gauge.
    pub open: Counter,
    /// Connections accepted and kept.
    pub accepted: Counter,
    /// Connections reset at once, by reason: `max_connections`, `max_connections_per_ip`, `overload`, `no_descriptors`,
    /// `draining`, `removed`.
    pub refused: ByLabel,
    /// Connections closed, by reason. Lines: `peer`, `peer_reset`, `idle`, `partial_line`, `wrong_protocol`, `overload`,
    /// `drain`, `removed`. HTTP: `done`, `idle`, `slow_head`, `slow_reader`, `head_too_large`, `malformed_head`, `broken`.
    pub closed: ByLabel,
    /// Failures to accept that were the machine's, not the peer's.
    pub accept_failures: Counter,
}

impl ConnectionCounters {
    /// Counts one that was accepted and is kept. Only the owning thread may call this, as the next.
    pub fn opened(&self) {
        self.accepted.add(1);
        self.open.set(self.open.get() + 1);
    }

    /// Counts the end of one that was kept.
    pub fn ended(&self, reason: &'static str) {
        self.closed.add(reason, 1);
        self.open.set(self.open.get() - 1);
    }
}

/// What a receiver of HTTP requests says of itself on one lane, beside the front balance of its source.
#[derive(Debug, Default)]
pub struct HttpCounters {
    /// Its connections.
    pub connections: ConnectionCounters,
    /// Requests that were not taken, by reason.
    pub refused_requests: ByLabel,
    /// Records decoded that could not be handed over before the process stopped; their senders were not told yes.
    pub records_lost: Counter,
    /// Spans passed through, likewise.
    pub spans_lost: Counter,
}

/// What a line receiver says of itself on one lane, beside the front balance of its source.
#[derive(Debug, Default)]
pub struct LineCounters {
    /// Its connections.
    pub connections: ConnectionCounters,
    /// Connections that spoke something else, by [`WrongProtocol::label`].
    pub wrong_protocol: ByLabel,
    /// Records understood and not wanted, by sourcetype; their sum is the front's `filtered`.
    pub filtered: ByLabel,
    /// Records not understood, by reason; their sum is the front's `dead_lettered`.
    pub dead_lettered: ByLabel,
    /// Dead letters whose bytes were given up because nobody could take them.
    pub dead_letters_not_kept: Counter,
    /// Elements that are no record: blank lines, action lines, header lines.
    pub not_records: Counter,
}

/// What a reactor says of itself.
#[derive(Debug, Default)]
pub struct ReactorCounters {
    /// Turns of the event loop: grows at least once in two seconds as long as the thread lives.
    pub turns: Counter,
    /// Times that reading stopped because the ring was full.
    pub pauses: Counter,
    /// Times that a pause became an overload.
    pub overloads: Counter,
    /// Blocks that were decoded and could not be handed over before the process stopped.
    pub blocks_lost: Counter,
    /// Records in those blocks.
    pub records_lost: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_apart_and_the_surplus_together() {
        static NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let by_label = ByLabel::default();
        for round in 0..3 {
            for name in NAMES {
                by_label.add(name, round);
            }
        }
        assert_eq!(by_label.iter().collect::<Vec<_>>(), NAMES.map(|name| (name, 3)));
        for number in 0..LABELS {
            by_label.add(Box::leak(number.to_string().into_boxed_str()), 1);
        }
        assert_eq!(by_label.iter().last(), Some((ByLabel::OTHER, NAMES.len() as u64)));
        assert_eq!(by_label.iter().map(|(_, count)| count).sum::<u64>(), 12 + LABELS as u64);
    }
}
