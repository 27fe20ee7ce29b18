//! One bounded log of letters, as the thread that writes it has it.
//!
//! Bounded in bytes and in age: beyond either the oldest segments go, and the letters in them that were still there are
//! counted as expired. When every letter at the beginning is gone, its segments go too.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::letter::{self, GONE_IDS, Gone, Scan, StoreName};
use super::place;
use crate::block::{MAX_BYTES, Made, Meta, Signal, SourceId};
use crate::pipeline::age::Ages;
use crate::pipeline::logs;
use crate::queue::{Appender, AtRest, Budget, Log, OpenError, Options, Position, Storage};
use crate::sys::clock;
use crate::telemetry::health::{Component, Health, State};
use crate::telemetry::ledger::Counter;

/// Bytes on disk of each store.
const STORE_BYTES: u64 = 1 << 30;

/// Bytes of a store's segments: a whole block and its marks have to fit.
const SEGMENT_BYTES: u64 = 4 << 20;

/// How long a letter is kept: a week.
pub(super) const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Syncs in which letters have to become durable: one, and one of the file to which a failed one makes them move.
const SYNCS: u32 = 2;

/// What became of a store's letters since the process started; counted by the thread that writes it.
#[derive(Debug, Default)]
pub struct StoreCounters {
    /// Kept.
    pub kept: Counter,
    /// Too old, or pushed out by newer ones.
    pub expired: Counter,
    /// Sent again, and taken.
    pub replayed: Counter,
    /// Thrown away by an operator.
    pub purged: Counter,
}

/// Why letters are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneBy {
    /// They were sent again, and taken.
    Replay,
    /// An operator said so.
    Purge,
}

/// One store.
pub(super) struct Store {
    pub(super) name: StoreName,
    pub(super) log: Arc<Log>,
    pub(super) counters: Arc<StoreCounters>,
    appender: Appender,
    /// Letters that are gone and still on disk; read when it is first asked for.
    gone: Option<Gone>,
    /// Every letter before this place is gone.
    passed: Position,
    /// How old letters are.
    ages: Ages,
    watch: StoreWatch,
    /// Storage has failed since the last letter that became durable.
    failing: bool,
}

/// Where a store is seen.
pub(super) struct StoreWatch {
    /// Called now and then while it is read.
    pub(super) pulse: Box<dyn Fn() + Send>,
    /// Says when it cannot keep letters.
    pub(super) component: Component,
}

impl StoreWatch {
    /// Nobody looks.
    pub(super) fn nobody() -> StoreWatch {
        StoreWatch { pulse: Box::new(|| ()), component: Health::new().component("") }
    }
}

/// The name of a store's component.
pub(super) fn component(name: StoreName) -> &'static str {
    match name {
        StoreName::Front => "dead letters front",
        StoreName::Delivery => "dead letters delivery",
    }
}

impl Store {
    pub(super) fn open(
        storage: &Arc<dyn Storage>,
        state: &Path,
        name: StoreName,
        at_rest: &AtRest,
        watch: StoreWatch,
    ) -> Result<Store, OpenError> {
        let place = place(state, name);
        let options = Options {
            directory: place.directory,
            quarantine: place.quarantine,
            lane: place.lane,
            segment_bytes: SEGMENT_BYTES,
            max_payload_bytes: MAX_BYTES,
            pool_segments: 1,
            opened_at_start: logs::OPENED_AT_START,
            budget: Arc::new(Budget::new(STORE_BYTES, 0)),
            wall_ns: clock::wall_ns(),
            at_rest: at_rest.clone(),
        };
        let (log, appender, _) = Log::open(Arc::clone(storage), options)?;
        let passed = log.oldest();
        watch.component.set(State::Ready);
        let (counters, ages) = (Arc::default(), Ages::default());
        Ok(Store { name, log, counters, appender, gone: None, passed, ages, watch, failing: false })
    }

    /// Appends a letter, in place of the oldest ones when the store is full. False when storage fails.
    pub(super) fn keep(&mut self, (signal, source): (Signal, SourceId), received_ns: u64, payload: &[u8]) -> bool {
        let mut meta = Meta::empty(signal, Made::Passed, source, received_ns);
        meta.spans = 1;
        let kept = self.append(&meta, payload);
        self.counters.kept.add(u64::from(kept));
        kept
    }

    fn append(&mut self, meta: &Meta, payload: &[u8]) -> bool {
        if !self.appender.has_room() {
            self.expire(self.log.position_at_lag(STORE_BYTES - 4 * SEGMENT_BYTES));
            self.tend();
        }
        if let Err(error) = self.appender.append(meta, payload) {
            self.fail("a letter could not be kept", &error);
            return false;
        }
        true
    }

    /// Says durably that letters are gone. False when storage fails.
    pub(super) fn go(&mut self, numbers: &[u64], by: GoneBy) -> bool {
        for chunk in numbers.chunks(GONE_IDS) {
            let meta = Meta::empty(Signal::Traces, Made::Passed, SourceId::MIXED, clock::wall_ns());
            if !self.append(&meta, &letter::encode_gone(chunk)) {
                return false;
            }
        }
        if !self.sync() {
            return false;
        }
        let counter = match by {
            GoneBy::Replay => &self.counters.replayed,
            GoneBy::Purge => &self.counters.purged,
        };
        counter.add(numbers.len() as u64);
        let mut gone = self.take_gone();
        numbers.iter().for_each(|number| gone.insert(*number));
        self.gone = Some(gone);
        self.reclaim();
        true
    }

    /// Lets go of what is too old. To be called now and then.
    pub(super) fn expire_by_age(&mut self, now: Duration, wall_ns: u64) {
        let oldest_kept = self.ages.oldest_kept(KEEP, now, wall_ns);
        let to = self.log.position_at_age(oldest_kept);
        if to.segment > self.log.oldest().segment {
            self.expire(to);
            self.tend();
        }
    }

    /// Lets the segments before a place go, and counts the letters that were still there.
    fn expire(&mut self, to: Position) {
        let gone = self.take_gone();
        let mut expired = 0;
        let mut count = |number, end: Position| {
            if end.segment >= to.segment {
                return ControlFlow::Break(());
            }
            expired += u64::from(!gone.contains(number));
            ControlFlow::Continue(())
        };
        self.scan(self.log.oldest(), &mut |scan| scan.numbers(&mut count));
        if expired > 0 {
            tracing::warn!(store = self.name.word(), expired, "the oldest dead letters make room or are too old");
        }
        self.counters.expired.add(expired);
        self.release(&to, gone);
    }

    /// Lets the segments go at whose letters nobody will look again. Goes on where it has come to, so that all calls
    /// together read the store once.
    fn reclaim(&mut self) {
        let gone = self.take_gone();
        let mut passed = self.passed.max(self.log.oldest());
        self.scan(passed, &mut |scan| passed = scan.gone_before(&gone));
        self.passed = passed;
        self.release(&Position { segment: passed.segment, ..Position::default() }, gone);
        self.tend();
    }

    fn release(&mut self, to: &Position, mut gone: Gone) {
        self.log.release(to);
        gone.forget_below(self.log.oldest().sequence);
        self.gone = Some(gone);
    }

    /// What is gone, to be put back; read from the store the first time.
    fn take_gone(&mut self) -> Gone {
        self.gone.take().unwrap_or_else(|| {
            let mut gone = None;
            self.scan(self.log.oldest(), &mut |scan| gone = scan.gone());
            gone.expect("our own pulse ends no reading")
        })
    }

    fn scan(&self, from: Position, with: &mut dyn FnMut(&Scan<'_>)) {
        let pulse = || {
            (self.watch.pulse)();
            ControlFlow::Continue(())
        };
        with(&Scan { store: self.name, open: &|| self.log.reader(from), pulse: &pulse });
    }

    /// Makes what was appended durable. False when storage fails.
    pub(super) fn sync(&mut self) -> bool {
        if self.log.unsynced_bytes() == 0 {
            return true;
        }
        // A sync that fails for the first time is no error: what was not durable moves to another file, whose sync counts.
        for _ in 0..SYNCS {
            self.maintain(clock::monotonic());
            match self.log.sync() {
                Ok(durable) if durable < self.log.published_sequence() => {}
                Ok(_) => {
                    if std::mem::take(&mut self.failing) {
                        self.watch.component.set(State::Ready);
                    }
                    self.tend();
                    return true;
                }
                Err(error) => {
                    self.fail("letters could not be made durable", &error);
                    return false;
                }
            }
        }
        self.fail("letters could not be made durable", &"they could not be moved to another file");
        false
    }

    fn fail(&mut self, what: &str, error: &dyn Display) {
        tracing::error!(store = self.name.word(), %error, "{what}");
        self.failing = true;
        self.watch.component.set(State::Degraded(format!("{what}: {error}")));
    }

    fn maintain(&mut self, now: Duration) {
        if let Err(error) = self.appender.maintain(now, clock::wall_ns()) {
            tracing::warn!(%error, "the dead letters could not be maintained");
        }
    }

    fn tend(&self) {
        if let Err(error) = self.log.tend(clock::wall_ns()) {
            tracing::warn!(%error, "the dead letters could not be tended");
        }
    }
}
