//! Dead letters: two stores, each a small log of its own, written by one thread, and a desk where operators ask for them.
//!
//! `front` keeps records that could not be decoded, as they were sent; `delivery` keeps OTLP that a backend refused for
//! good, as it was in the log. A front letter is given without waiting and given up when the thread cannot keep up (it
//! stays counted under its reason); a delivery letter is kept durably before its destination's cursor moves past it, so its
//! giver waits. Each store is bounded in bytes and in age.
//!
//! What comes to the front is from before redaction. While a plugin removes what must not be kept, and the stores are not
//! encrypted, front letters are kept without their bytes; a block whose sender can send it again is then not kept at all.
//!
//! A letter that is sent again goes only once what became of it is durable or delivered; one that fails again stays the
//! letter that it was. Neither changes a balance that is closed: a replayed record enters the front as another one, under the
//! producer `replay`, and a replayed span was booked as dead-lettered and stays so.

mod desk;
mod letter;
mod replay;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{self, Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use super::sources::SourceNames;
use super::writer::{Kept, Quarantined};
use crate::block::{DeadLetterSender, FrontDeadLetter, MAX_BYTES, Signal, SourceId};
use crate::export::Exporter;
use crate::queue::inspect::Place;
use crate::queue::{AtRest, FileStorage, Log, Storage};
use crate::sys::clock;
use crate::sys::handshake::Done;
use crate::telemetry::health::{Health, Tick};
use crate::telemetry::metrics::{Extra, ExtraKind, ExtraRead, Metrics};

pub use desk::{Desk, DeskParts, list};
pub use letter::{Letter, Scan, Selection, StoreName};
pub use replay::{FrontReplay, RING_BLOCKS};
pub use store::{GoneBy, StoreCounters};
use store::{Store, StoreWatch};

/// Letters of each kind that may wait for the thread.
const WAITING: usize = 128;

/// Blocks that may wait to be kept aside.
const BLOCKS_WAITING: usize = 8;

/// Bytes kept of one letter.
const KEPT_BYTES: usize = MAX_BYTES - 4096;

/// Letters that are purged together.
const PURGED_AT_ONCE: usize = 16 * 1024;

/// How long the thread may be silent before it counts as stuck.
const TICK_LIMIT: Duration = Duration::from_secs(10);

/// Time between the ticks of a thread that waits for the stores' thread.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);

/// Time between looks at the age of the letters.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);

/// Where a store is under a state directory.
#[must_use]
pub fn place(state_directory: &Path, store: StoreName) -> Place {
    let directory = state_directory.join("dead-letters").join(store.word());
    Place { quarantine: directory.join("quarantine"), directory, lane: 0, at_rest: AtRest::default() }
}

/// A span that a backend refused for good.
#[derive(Clone, Debug)]
pub struct DeliveryLetter {
    /// The refusing destination.
    pub destination: String,
    /// Why: a metric's label.
    pub reason: &'static str,
    /// What the backend said.
    pub reply: String,
    /// The signal of the payload.
    pub signal: Signal,
    /// OTLP, as it was in the log.
    pub payload: Bytes,
}

/// What the thread is asked to do; it answers once that is durable, or drops the sender when it cannot be.
enum Order {
    Keep(DeliveryLetter, Sender<()>),
    Go(StoreName, Vec<u64>, GoneBy, Sender<()>),
    /// Take no more orders.
    End,
}

/// What letters are sent again with, by destination. Whoever sends holds only that one's lock.
type Exporters = HashMap<String, Arc<Mutex<Exporter>>>;

/// Where destinations leave letters, and what it takes to send them again.
#[derive(Clone)]
pub struct DeadLetters {
    orders: Sender<Order>,
    exporters: Arc<Mutex<Exporters>>,
    /// No letters are being sent to their backends.
    sent: Arc<Done>,
}

impl DeadLetters {
    /// Keeps a letter; returns once it is durable, and calls `pulse` while that takes its time. False when it cannot be: then
    /// the span is lost.
    pub fn keep(&self, letter: DeliveryLetter, pulse: &dyn Fn()) -> bool {
        // The thread drops the sender unanswered when its store fails, and has said so in the log.
        self.order(|kept| Order::Keep(letter, kept), pulse)
    }

    /// What letters of this destination are sent again with from now on.
    pub fn replay_by(&self, destination: &str, exporter: Exporter) {
        self.exporters().insert(destination.to_owned(), Arc::new(Mutex::new(exporter)));
    }

    /// Letters of this destination stay where they are from now on: it does not run.
    pub fn replay_no_more(&self, destination: &str) {
        self.exporters().remove(destination);
    }

    /// Whether letters are being sent to their backends, by a thread that nobody joins: its backend may never answer.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        // Once it is done, what it said is gone is seen to be.
        !self.sent.is_said()
    }

    /// Ends the stores' thread once the front has no more letters either. What is replayed later stays a letter.
    pub fn end(&self) {
        // Fails when it has ended.
        self.orders.send(Order::End).ok();
    }

    /// Says durably that letters are gone. False when that could not be made durable: they are still there.
    fn go(&self, store: StoreName, numbers: Vec<u64>, by: GoneBy, pulse: &dyn Fn()) -> bool {
        numbers.is_empty() || self.order(|done| Order::Go(store, numbers, by, done), pulse)
    }

    /// Whoever waits for the thread is not stuck, be it that it reads a store of millions of letters: it ticks for itself.
    fn order(&self, order: impl FnOnce(Sender<()>) -> Order, pulse: &dyn Fn()) -> bool {
        let (done, is_done) = channel::bounded(1);
        let mut order = order(done);
        while let Err(error) = self.orders.send_timeout(order, PULSE_INTERVAL) {
            match error {
                SendTimeoutError::Timeout(back) => order = back,
                SendTimeoutError::Disconnected(_) => return false,
            }
            pulse();
        }
        loop {
            match is_done.recv_timeout(PULSE_INTERVAL) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) => pulse(),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn exporters(&self) -> MutexGuard<'_, Exporters> {
        self.exporters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread and its doors. It ends when every door is dropped, or with [`DeadLetters::end`].
pub struct DeadLetterStores {
    /// For decoding threads.
    pub front: DeadLetterSender,
    /// For writers: blocks that transforms could not do.
    pub aside: Sender<Quarantined>,
    /// For destinations.
    pub delivery: DeadLetters,
    /// The stores' logs, to be read.
    pub logs: [(StoreName, Arc<Log>); 2],
    /// What became of letters, by store.
    pub counters: [(StoreName, Arc<StoreCounters>); 2],
    /// The thread.
    pub thread: JoinHandle<()>,
    /// The front keeps letters without their bytes.
    withholds: Arc<AtomicBool>,
    is_encrypted: bool,
}

impl DeadLetterStores {
    /// Says whether a plugin removes what must not be kept, and to the operator what that means: without a key front letters
    /// are kept without their bytes.
    pub fn withhold(&self, removes_secrets: bool) {
        let withholds = removes_secrets && !self.is_encrypted;
        // Relaxed: a letter that is under way is from before the change or from after it.
        let was = self.withholds.swap(withholds, Ordering::Relaxed);
        if withholds && !was {
            tracing::warn!(
                "a plugin removes what must not be kept and queue.encryption has no key: dead letters of the front are \
                 kept without their bytes, and cannot be replayed"
            );
        }
    }
}

/// Opens both stores under a state directory and starts their thread. `names` are the sources by id.
pub fn start(
    storage: &Arc<dyn Storage>,
    state_directory: &Path,
    at_rest: &AtRest,
    names: SourceNames,
    health: &Health,
) -> io::Result<DeadLetterStores> {
    let tick = health.thread("dead-letters", TICK_LIMIT, clock::monotonic());
    let open = |name| {
        let tick = tick.clone();
        let pulse = Box::new(move || tick.tick(clock::monotonic()));
        let watch = StoreWatch { pulse, component: health.component(store::component(name)) };
        Store::open(storage, state_directory, name, at_rest, watch).map_err(io::Error::other)
    };
    let (front_store, delivery_store) = (open(StoreName::Front)?, open(StoreName::Delivery)?);
    let logs = [&front_store, &delivery_store].map(|store| (store.name, Arc::clone(&store.log)));
    let counters = [&front_store, &delivery_store].map(|store| (store.name, Arc::clone(&store.counters)));
    let (front, front_letters) = channel::bounded(WAITING);
    let (orders, orders_taken) = channel::bounded(WAITING);
    let (aside, blocks) = channel::bounded(BLOCKS_WAITING);
    let withholds = Arc::<AtomicBool>::default();
    let keeper = Keeper {
        front: front_store,
        delivery: delivery_store,
        names,
        withholds: Arc::clone(&withholds),
        expired_at: None,
        tick,
    };
    let thread = thread::Builder::new().name("dead-letters".to_owned());
    let thread = thread.spawn(move || keeper.run(front_letters, orders_taken, blocks))?;
    Ok(DeadLetterStores {
        front,
        aside,
        delivery: DeadLetters { orders, exporters: Arc::default(), sent: Arc::new(Done::new(true)) },
        logs,
        counters,
        thread,
        withholds,
        is_encrypted: at_rest.keys.ids().next().is_some(),
    })
}

/// Shows what became of letters, and what the stores hold.
pub fn show(stores: &DeadLetterStores, metrics: &Metrics) {
    let show = |store: StoreName, name, help, kind, read| {
        let labels = vec![("store", store.word().to_owned())];
        metrics.add_extra(Extra { name, help, kind, labels, read: ExtraRead::One(read) });
    };
    for (store, counters) in &stores.counters {
        let of = |read: fn(&StoreCounters) -> u64| {
            let counters = Arc::clone(counters);
            Box::new(move || read(&counters)) as Box<dyn Fn() -> u64 + Send>
        };
        let counter = ExtraKind::Counter;
        let kept = of(|counters| counters.kept.get());
        show(*store, "millrace_dead_letters_kept_total", "Dead letters kept.", counter, kept);
        let expired = of(|counters| counters.expired.get());
        let help = "Dead letters too old, or pushed out by newer ones.";
        show(*store, "millrace_dead_letters_expired_total", help, counter, expired);
        let replayed = of(|counters| counters.replayed.get());
        show(*store, "millrace_dead_letters_replayed_total", "Dead letters sent again and taken.", counter, replayed);
        let purged = of(|counters| counters.purged.get());
        show(*store, "millrace_dead_letters_purged_total", "Dead letters thrown away by an operator.", counter, purged);
    }
    for (store, log) in &stores.logs {
        let log = Arc::clone(log);
        let read = Box::new(move || log.stats().entry_bytes);
        show(*store, "millrace_dead_letters_bytes", "Bytes that dead letters take.", ExtraKind::Gauge, read);
    }
}

/// Throws letters away where no process runs; the caller holds the state directory's lock. Returns how many.
pub fn purge(state_directory: &Path, at_rest: &AtRest, selection: &Selection) -> io::Result<u64> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    let mut purged = 0;
    for name in StoreName::ALL {
        let mut store =
            Store::open(&storage, state_directory, name, at_rest, StoreWatch::nobody()).map_err(io::Error::other)?;
        let log = Arc::clone(&store.log);
        let scan = Scan { store: name, open: &|| log.reader(log.oldest()), pulse: &|| ControlFlow::Continue(()) };
        let gone = purge_all(&scan, &log, selection, &mut |numbers| store.go(&numbers, GoneBy::Purge));
        purged += gone.ok_or_else(|| io::Error::other("what was purged could not be made durable"))?;
    }
    Ok(purged)
}

/// Lets all letters go that are meant and there by now, some at a time in one reading; returns how many, or nothing when
/// that could not be made durable. A reading that is ended early has purged what it had found.
fn purge_all(scan: &Scan<'_>, log: &Log, selection: &Selection, go: &mut dyn FnMut(Vec<u64>) -> bool) -> Option<u64> {
    if selection.store.is_some_and(|wanted| wanted != scan.store) {
        return Some(0);
    }
    let (mut purged, mut found, mut all_gone) = (0, Vec::new(), true);
    // What comes meanwhile nobody has seen.
    let last = log.published_sequence();
    scan.letters(&mut |letter, _| {
        if letter.number > last {
            return ControlFlow::Break(());
        }
        if selection.takes(&letter) {
            found.push(letter.number);
        }
        if found.len() == PURGED_AT_ONCE {
            purged += found.len() as u64;
            all_gone = go(std::mem::take(&mut found));
        }
        if all_gone { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    purged += found.len() as u64;
    (all_gone && go(found)).then_some(purged)
}

/// How much is taken out of the stores at once.
struct Room {
    letters: usize,
    bytes: usize,
    /// There are more than there was room for.
    more: bool,
}

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        self.more = self.letters == 0 || self.bytes == 0;
        if !self.more {
            self.letters -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        !self.more
    }
}

/// The letters of a store that are meant, oldest first, as far as there is room. Their bytes are copies: what the disk loses
/// later is nothing to them.
fn select(scan: &Scan<'_>, selection: &Selection, room: &mut Room) -> Vec<Letter> {
    let mut found = Vec::new();
    if room.more || selection.store.is_some_and(|wanted| wanted != scan.store) {
        return found;
    }
    scan.letters(&mut |mut letter, _| {
        if selection.takes(&letter) {
            if !room.take(letter.bytes.len()) {
                return ControlFlow::Break(());
            }
            letter.bytes = Bytes::copy_from_slice(&letter.bytes);
            found.push(letter);
        }
        ControlFlow::Continue(())
    });
    found
}

struct Keeper {
    front: Store,
    delivery: Store,
    names: SourceNames,
    withholds: Arc<AtomicBool>,
    expired_at: Option<Duration>,
    tick: Tick,
}

impl Keeper {
    fn run(
        mut self,
        mut front: Receiver<FrontDeadLetter>,
        mut orders: Receiver<Order>,
        mut blocks: Receiver<Quarantined>,
    ) {
        let mut open = 3;
        while open > 0 {
            crossbeam::channel::select! {
                recv(front) -> letter => match letter {
                    Ok(letter) => self.keep_front(&letter),
                    Err(_) => { front = channel::never(); open -= 1; }
                },
                recv(orders) -> order => match order {
                    Ok(Order::Keep(letter, done)) => answer(self.keep_delivery(&letter), &done),
                    Ok(Order::Go(store, numbers, by, done)) => answer(self.store(store).go(&numbers, by), &done),
                    Ok(Order::End) | Err(_) => { orders = channel::never(); open -= 1; }
                },
                recv(blocks) -> block => match block {
                    Ok(block) => self.keep_aside(&block),
                    Err(_) => { blocks = channel::never(); open -= 1; }
                },
                default(Duration::from_millis(500)) => {}
            }
            let now = clock::monotonic();
            self.tick.tick(now);
            if front.is_empty() {
                self.front.sync();
            }
            if self.expired_at.is_none_or(|at| now.saturating_sub(at) >= EXPIRE_INTERVAL) {
                self.expired_at = Some(now);
                let wall_ns = clock::wall_ns();
                [&mut self.front, &mut self.delivery].into_iter().for_each(|store| store.expire_by_age(now, wall_ns));
            }
        }
        self.front.sync();
        self.tick.end();
    }

    fn keep_front(&mut self, letter: &FrontDeadLetter) {
        let name = self.names.of(letter.source);
        let bytes = &letter.bytes[..letter.bytes.len().min(KEPT_BYTES)];
        let encoded = match self.withholds() {
            // A decoder may say what it has read, and that must not be kept either.
            true => letter::encode_withheld(letter.reason, &name, "", bytes),
            false => letter::encode(letter.reason, &name, &letter.detail, bytes),
        };
        self.front.keep((Signal::Traces, letter.source), letter.received_ns, &encoded);
    }

    /// Keeps a block that transforms could not do, in as many letters as it takes, and says so once they are durable.
    fn keep_aside(&mut self, quarantined: &Quarantined) {
        let Quarantined { block, cause, kept, writer } = quarantined;
        let (origin, reply) = (self.names.of(block.meta.source), format!("{}: {}", cause.step, cause.message));
        let withholds = self.withholds();
        if withholds && block.awaited {
            kept.send(Kept::Not).ok();
            writer.unpark();
            return;
        }
        let letters = match withholds {
            true => vec![letter::encode_withheld(cause.reason, &origin, &reply, &block.payload)],
            false => letter::of_block((cause.reason, &origin, &reply), &block.meta, &block.payload),
        };
        let signal = (block.meta.signal, block.meta.source);
        let all = letters.iter().all(|letter| self.front.keep(signal, block.meta.received_ns, letter));
        if all && self.front.sync() {
            // The writer may have given up meanwhile: it is kept all the same.
            kept.send(Kept::Durably).ok();
        }
        writer.unpark();
    }

    fn withholds(&self) -> bool {
        // Relaxed: see `withhold`.
        self.withholds.load(Ordering::Relaxed)
    }

    fn store(&mut self, name: StoreName) -> &mut Store {
        match name {
            StoreName::Front => &mut self.front,
            StoreName::Delivery => &mut self.delivery,
        }
    }

    fn keep_delivery(&mut self, letter: &DeliveryLetter) -> bool {
        let bytes = &letter.payload[..letter.payload.len().min(KEPT_BYTES)];
        let encoded = letter::encode(letter.reason, &letter.destination, &letter.reply, bytes);
        self.delivery.keep((letter.signal, SourceId::MIXED), clock::wall_ns(), &encoded) && self.delivery.sync()
    }
}

/// Whoever waits is told that it was done, or hears that the sender was dropped.
fn answer(was_done: bool, waits: &Sender<()>) {
    if was_done {
        // Nobody waits any more when the asker was ended: it is done all the same.
        waits.send(()).ok();
    }
}
