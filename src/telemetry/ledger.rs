//! The ledger: every record and every span is accounted for, in three balances, each exact.
//!
//! ```text
//! front,       in records: received = rejected + filtered + dead_lettered + encoded
//! lane,        in spans:   encoded + passed + synthesised = transform_dropped + refused + appended
//! destination, in spans:   appended = delivered + refused_by_peer + dead_lettered + dropped + lost
//!                                     + skipped_at_start + in_queue
//! ```
//!
//! The front is kept per producer and source, by the thread that decodes, once a turn. The lane is kept by the lane's
//! writer, both sides at the same time, from the block's own counts; its counters ride in every commit-mark. The
//! destination's are kept by its own thread and ride in the cursor slot, per lane and as of the slot's position: what was
//! settled beyond it is not in the slot, for it will be read again. So the last two are as durable as what they count,
//! and after a crash the balances open from them; rows that were only in memory never enter them. What is sent again
//! after a lost answer is counted apart, as `redelivered`; after a crash nobody knows how much of the last second was,
//! so that counter is a lower bound.
//!
//! Every counter has one writing thread, so `add` is a load and a store; readers may see one side of a balance a turn
//! before the other and must compare at rest.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with a single writing thread and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    pub fn add(&self, n: u64) {
        // Relaxed: a statistic, nothing is published through it; one writer, so load and store cannot lose a count.
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Sets the value, when a balance is opened from what was durable or a gauge is shown.
    pub fn set(&self, value: u64) {
        // Relaxed: as in `add`.
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, perhaps a moment old.
    #[must_use]
    pub fn get(&self) -> u64 {
        // Relaxed: as in `add`.
        self.0.load(Ordering::Relaxed)
    }
}

/// The front balance of one producer and source, in records; plus what passed through undecoded.
#[derive(Debug, Default)]
pub struct Front {
    /// Records that a peer sent whole.
    pub received: Counter,
    /// Refused with an answer that says so.
    pub rejected: Counter,
    /// Understood and not wanted.
    pub filtered: Counter,
    /// Not understood, kept aside with the reason.
    pub dead_lettered: Counter,
    /// Became exactly one item of a block.
    pub encoded: Counter,
    /// Fields dropped from records that were kept.
    pub fields_dropped: Counter,
    /// Bytes read from peers.
    pub received_bytes: Counter,
    /// Spans of requests passed through that were cut out and reported.
    pub spans_rejected: Counter,
    /// Spans of requests passed through whole.
    pub spans_passed: Counter,
    /// Requests answered "try again later".
    pub requests_refused: Counter,
}

/// The lane balance, in spans.
#[derive(Debug, Default)]
pub struct Lane {
    /// Spans that stand for one record each.
    pub encoded: Counter,
    /// Spans passed through.
    pub passed: Counter,
    /// Spans that no record stands for.
    pub synthesised: Counter,
    /// Dropped by a transform.
    pub transform_dropped: Counter,
    /// Refused: the producer was told.
    pub refused: Counter,
    /// In the log.
    pub appended: Counter,
    /// Blocks in the log.
    pub appended_blocks: Counter,
    /// Payload bytes in the log.
    pub appended_bytes: Counter,
    /// 1 while the log takes nothing for want of room; no part of the balance.
    pub is_full: Counter,
}

/// Why a destination gave spans up by policy. The numbers are part of the cursor's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// It lagged by more than it may.
    Lag = 0,
    /// Older than it may be.
    Age = 1,
    /// The disk budget was used up.
    Budget = 2,
    /// There is no destination, and the retention is over.
    NoDestination = 3,
    /// The backend does not take this signal.
    SignalNotTaken = 4,
    /// Sampled out.
    Sampled = 5,
    /// An operator said so.
    Operator = 6,
}

/// Slots of drop reasons in a cursor, one of them free.
pub const DROP_REASONS: usize = 8;

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [DropReason; 7] = [
        DropReason::Lag,
        DropReason::Age,
        DropReason::Budget,
        DropReason::NoDestination,
        DropReason::SignalNotTaken,
        DropReason::Sampled,
        DropReason::Operator,
    ];

    /// The reason as a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            DropReason::Lag => "lag",
            DropReason::Age => "age",
            DropReason::Budget => "budget",
            DropReason::NoDestination => "no_destination",
            DropReason::SignalNotTaken => "signal_not_taken",
            DropReason::Sampled => "sampled",
            DropReason::Operator => "operator",
        }
    }
}

/// The destination balance, in spans.
#[derive(Debug, Default)]
pub struct Destination {
    /// Accepted by the peer.
    pub delivered: Counter,
    /// Refused by the peer in a request that it otherwise accepted.
    pub refused_by_peer: Counter,
    /// Refused by the peer for good and kept aside.
    pub dead_lettered: Counter,
    /// Given up by policy, by [`DropReason`].
    pub dropped: [Counter; DROP_REASONS],
    /// Damaged in the log.
    pub lost: Counter,
    /// Older than the destination.
    pub skipped_at_start: Counter,
    /// Sent again after an answer was lost; outside the balance.
    pub redelivered: Counter,
    /// Requests accepted.
    pub requests_sent: Counter,
    /// Requests that failed, each attempt.
    pub request_failures: Counter,
}

/// The lane balance at one moment, as it rides in a commit-mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneTotals {
    /// See [`Lane::encoded`].
    pub encoded: u64,
    /// See [`Lane::passed`].
    pub passed: u64,
    /// See [`Lane::synthesised`].
    pub synthesised: u64,
    /// See [`Lane::transform_dropped`].
    pub transform_dropped: u64,
    /// See [`Lane::refused`].
    pub refused: u64,
    /// See [`Lane::appended`].
    pub appended: u64,
}

impl LaneTotals {
    /// What came in and is not accounted for; 0 or the ledger is wrong.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        let came = i128::from(self.encoded) + i128::from(self.passed) + i128::from(self.synthesised);
        came - i128::from(self.transform_dropped) - i128::from(self.refused) - i128::from(self.appended)
    }
}

impl Lane {
    /// The totals now.
    #[must_use]
    pub fn snapshot(&self) -> LaneTotals {
        LaneTotals {
            encoded: self.encoded.get(),
            passed: self.passed.get(),
            synthesised: self.synthesised.get(),
            transform_dropped: self.transform_dropped.get(),
            refused: self.refused.get(),
            appended: self.appended.get(),
        }
    }

    /// Opens the balance from what was durable.
    pub fn open_from(&self, totals: LaneTotals) {
        self.encoded.set(totals.encoded);
        self.passed.set(totals.passed);
        self.synthesised.set(totals.synthesised);
        self.transform_dropped.set(totals.transform_dropped);
        self.refused.set(totals.refused);
        self.appended.set(totals.appended);
    }
}

/// The destination balance at one moment, as it rides in a cursor slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationTotals {
    /// See [`Destination::delivered`].
    pub delivered: u64,
    /// See [`Destination::refused_by_peer`].
    pub refused_by_peer: u64,
    /// See [`Destination::dead_lettered`].
    pub dead_lettered: u64,
    /// See [`Destination::dropped`].
    pub dropped: [u64; DROP_REASONS],
    /// See [`Destination::lost`].
    pub lost: u64,
    /// See [`Destination::skipped_at_start`].
    pub skipped_at_start: u64,
    /// See [`Destination::redelivered`].
    pub redelivered: u64,
}

impl DestinationTotals {
    /// Spans that have left the log for this destination, one way or another.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let dropped: u64 = self.dropped.iter().sum();
        self.delivered + self.refused_by_peer + self.dead_lettered + dropped + self.lost + self.skipped_at_start
    }
}

impl Destination {
    /// The totals now.
    #[must_use]
    pub fn snapshot(&self) -> DestinationTotals {
        DestinationTotals {
            delivered: self.delivered.get(),
            refused_by_peer: self.refused_by_peer.get(),
            dead_lettered: self.dead_lettered.get(),
            dropped: std::array::from_fn(|reason| self.dropped[reason].get()),
            lost: self.lost.get(),
            skipped_at_start: self.skipped_at_start.get(),
            redelivered: self.redelivered.get(),
        }
    }

    /// Sets the balance: when it opens from what was durable, and after each turn of the destination's thread.
    pub fn show(&self, totals: DestinationTotals) {
        self.delivered.set(totals.delivered);
        self.refused_by_peer.set(totals.refused_by_peer);
        self.dead_lettered.set(totals.dead_lettered);
        for (counter, value) in self.dropped.iter().zip(totals.dropped) {
            counter.set(value);
        }
        self.lost.set(totals.lost);
        self.skipped_at_start.set(totals.skipped_at_start);
        self.redelivered.set(totals.redelivered);
    }
}
