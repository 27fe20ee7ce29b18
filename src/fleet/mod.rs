//! The synthetic fleet: endpoints on which people log on and off, as uberAgent would report it.
//!
//! A [`Fleet`] is a sequence of [`Burst`]s in the order in which they reach a collector: the rows of one logon or one
//! logoff, all with one timestamp. It has the shapes that make real data hard: a bell of arrivals, process trees in which
//! 45 % of the parents are never sent, PIDs that are reused inside a logon, phase rows without a PID, rows emitted minutes
//! late, rows sent twice, hosts that flush hours-old data at once. Its tests hold the measured numbers.
//!
//! The same seed and options give the same bytes. Time is an argument: the fleet knows the wall-clock time at which its
//! window opens and counts from there; whoever sends the bursts decides when. Nothing here is copied from a vendor or a
//! customer: names of fields and processes are public, values are drawn. Not for the hot path: it allocates as it likes.

mod catalog;
mod row;
mod session;
mod summary;
mod tree;
mod wire;

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

pub use row::{Row, Sourcetype, Value};
pub use wire::Wire;

use session::{Arrival, Session};

/// What the fleet is like and what happens in its window.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Endpoints.
    pub hosts: u32,
    /// Of 100 hosts, those that carry 2 to [`Self::max_sessions`] sessions; the others are somebody's PC.
    pub multi_session_percent: u32,
    /// Sessions that a multi-session host carries at most.
    pub max_sessions: u32,
    /// Logons in the window. Each has a logoff [`Self::logoff_after`] later.
    pub logons: usize,
    /// Sessions opened hours before the window that end in it: logoff bursts among the logons.
    pub earlier_sessions: usize,
    /// How long the storm lasts; arrivals form a bell over it.
    pub window: Duration,
    /// Wall clock when the window opens, Unix nanoseconds.
    pub opens_wall_ns: u64,
    /// Between logon and logoff.
    pub logoff_after: Range<Duration>,
    /// Of 1000 logons, those whose rows are emitted minutes late.
    pub late_permille: u32,
    /// Of 1000 rows, those that are sent a second time.
    pub duplicate_permille: u32,
    /// Of 1000 hosts, those that were cut off and flush hours-old data at one moment of the window.
    pub stale_host_permille: u32,
    /// Rows besides the process rows: LogonDetail, LogoffDetail and the group policy extensions.
    pub summaries: bool,
}

impl FleetOptions {
    /// A fleet as measured in the field, with `logons` logons in `window` from `opens_wall_ns` (Unix nanoseconds) on.
    #[must_use]
    pub fn storm(logons: usize, window: Duration, opens_wall_ns: u64) -> FleetOptions {
        FleetOptions {
            hosts: u32::try_from(logons / 4).unwrap_or(u32::MAX).max(20),
            multi_session_percent: 20,
            max_sessions: 250,
            logons,
            earlier_sessions: logons / 20,
            window,
            opens_wall_ns,
            logoff_after: Duration::from_secs(4 * 3600)..Duration::from_secs(9 * 3600),
            late_permille: 100,
            duplicate_permille: 20,
            stale_host_permille: 50,
            summaries: true,
        }
    }
}

/// Which end of a session a burst reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurstKind {
    /// The session was opened.
    Logon,
    /// The session was closed.
    Logoff,
}

/// The rows of one logon or logoff, which arrive together.
#[derive(Clone, Debug)]
pub struct Burst {
    /// When it reaches the collector, since the window opened. Logoffs of the window's own logons lie hours after it.
    pub at: Duration,
    /// Logon or logoff.
    pub kind: BurstKind,
    /// The session's GUID, as in the rows.
    pub guid: String,
    /// The rows, nearly in the order in which processes started, phase rows and summaries last.
    pub rows: Vec<Row>,
    /// How many of the rows are exact copies of another row of the burst.
    pub duplicates: usize,
}

/// The fleet: an iterator over bursts by arrival.
#[derive(Debug)]
pub struct Fleet {
    seed: u64,
    options: FleetOptions,
    /// By arrival, last first, so that `next` pops.
    arrivals: Vec<Arrival>,
}

impl Fleet {
    /// The fleet of this seed. Takes memory for 48 bytes a burst; rows are made when they are asked for.
    #[must_use]
    pub fn new(seed: u64, options: FleetOptions) -> Fleet {
        let mut arrivals = session::schedule(seed, &options);
        arrivals.sort_by(|a, b| b.at.cmp(&a.at).then(b.session.cmp(&a.session)));
        Fleet { seed, options, arrivals }
    }
}

impl Iterator for Fleet {
    type Item = Burst;

    fn next(&mut self) -> Option<Burst> {
        let arrival = self.arrivals.pop()?;
        let session = Session::new(self.seed, &self.options, &arrival);
        let mut rows = match arrival.kind {
            BurstKind::Logon => tree::logon_rows(&session),
            BurstKind::Logoff => tree::logoff_rows(&session),
        };
        if self.options.summaries {
            match arrival.kind {
                BurstKind::Logon => summary::logon_rows(&session, rows.len(), &mut rows),
                BurstKind::Logoff => summary::logoff_rows(&session, rows.len(), &mut rows),
            }
        }
        let duplicates = send_twice(&mut session.rng(4), self.options.duplicate_permille, &mut rows);
        Some(Burst { at: arrival.at, kind: arrival.kind, guid: session.guid(), rows, duplicates })
    }
}

/// Appends copies of some rows, as an agent does that lost the answer to a request. Returns how many.
fn send_twice(rng: &mut Rng, permille: u32, rows: &mut Vec<Row>) -> usize {
    let originals = rows.len();
    for index in 0..originals {
        if rng.u32(0..1000) < permille {
            rows.push(rows[index].clone());
        }
    }
    rows.len() - originals
}

/// A value of a distribution given by its evenly spaced quantiles.
fn quantile(rng: &mut Rng, quantiles: &[u64]) -> u64 {
    let segment = rng.usize(0..quantiles.len() - 1);
    rng.u64(quantiles[segment]..=quantiles[segment + 1])
}

/// Spreads the bits of `value`: the finaliser of SplitMix64, a bijection.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
