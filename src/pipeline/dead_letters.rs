//! Dead letters: two stores, each a small log of its own, written by one thread.
//!
//! `front` keeps records that could not be decoded, as they were sent; `delivery` keeps OTLP that a backend refused for
//! good, as it was in the log. A front letter is given without waiting and given up when the thread cannot keep up (it
//! stays counted under its reason); a delivery letter is kept durably before its destination's cursor moves past it, so its
//! giver waits. Each store is bounded: beyond its budget the oldest segment goes.
//!
//! A letter is the payload of a block, little-endian: `u8` version 1, then for reason, origin (source or destination) and
//! reply each `u16` length and UTF-8 bytes, then the letter's own bytes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{self, Receiver, Sender};

use super::logs;
use crate::block::{DeadLetterSender, FrontDeadLetter, MAX_BYTES, Made, Meta, Signal, SourceId};
use crate::queue::inspect::Place;
use crate::queue::{Appender, AtRest, Budget, Log, Options, Storage};
use crate::sys::clock;
use crate::telemetry::health::Tick;

/// Bytes on disk of each store.
const STORE_BYTES: u64 = 64 << 20;

/// Bytes of a store's segments: a whole block and its marks have to fit.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Letters of each kind that may wait for the thread.
const WAITING: usize = 128;

/// Bytes kept of one letter.
const KEPT_BYTES: usize = MAX_BYTES - 4096;

/// The two stores.
pub const STORES: [&str; 2] = ["front", "delivery"];

/// Where a store is under a state directory.
#[must_use]
pub fn place(state_directory: &Path, store: &str) -> Place {
    let directory = state_directory.join("dead-letters").join(store);
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
    /// OTLP, as it was in the log.
    pub payload: Bytes,
}

/// Where destinations leave letters.
#[derive(Clone)]
pub struct DeadLetters(Sender<(DeliveryLetter, Sender<()>)>);

impl DeadLetters {
    /// Keeps a letter; returns once it is durable, or once it is known that it cannot be.
    pub fn keep(&self, letter: DeliveryLetter) {
        let (kept, is_kept) = channel::bounded(1);
        if self.0.send((letter, kept)).is_ok() {
            // The thread drops the sender unanswered when its store fails, and has said so in the log.
            is_kept.recv().ok();
        }
    }
}

/// The thread and its doors. It ends when every door is dropped.
pub struct DeadLetterStores {
    /// For decoding threads.
    pub front: DeadLetterSender,
    /// For destinations.
    pub delivery: DeadLetters,
    /// The thread.
    pub thread: JoinHandle<()>,
}

/// Opens both stores under `directory` and starts their thread. `names` are the sources by id.
pub fn start(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    at_rest: &AtRest,
    names: Vec<(SourceId, String)>,
    tick: Tick,
) -> io::Result<DeadLetterStores> {
    let open = |name: &str| Store::open(storage, &directory.join(name), at_rest).map_err(io::Error::other);
    let (front_store, delivery_store) = (open("front")?, open("delivery")?);
    let (front, front_letters) = channel::bounded(WAITING);
    let (delivery, delivery_letters) = channel::bounded(WAITING);
    let keeper = Keeper { front: front_store, delivery: delivery_store, names, tick };
    let thread = thread::Builder::new().name("dead-letters".to_owned());
    let thread = thread.spawn(move || keeper.run(front_letters, delivery_letters))?;
    Ok(DeadLetterStores { front, delivery: DeadLetters(delivery), thread })
}

struct Keeper {
    front: Store,
    delivery: Store,
    names: Vec<(SourceId, String)>,
    tick: Tick,
}

impl Keeper {
    fn run(mut self, mut front: Receiver<FrontDeadLetter>, mut delivery: Receiver<(DeliveryLetter, Sender<()>)>) {
        let mut open = 2;
        while open > 0 {
            crossbeam::channel::select! {
                recv(front) -> letter => match letter {
                    Ok(letter) => self.keep_front(&letter),
                    Err(_) => { front = channel::never(); open -= 1; }
                },
                recv(delivery) -> letter => match letter {
                    Ok((letter, kept)) => self.keep_delivery(&letter, &kept),
                    Err(_) => { delivery = channel::never(); open -= 1; }
                },
                default(Duration::from_millis(500)) => {}
            }
            self.tick.tick(clock::monotonic());
            if front.is_empty() {
                self.front.sync();
            }
        }
        self.front.sync();
        self.tick.end();
    }

    fn keep_front(&mut self, letter: &FrontDeadLetter) {
        let name = self.names.iter().find(|(id, _)| *id == letter.source).map_or("", |(_, name)| name);
        let bytes = &letter.bytes[..letter.bytes.len().min(KEPT_BYTES)];
        self.front.append(letter.source, letter.received_ns, &encode(letter.reason, name, "", bytes));
    }

    fn keep_delivery(&mut self, letter: &DeliveryLetter, kept: &Sender<()>) {
        let bytes = &letter.payload[..letter.payload.len().min(KEPT_BYTES)];
        let encoded = encode(letter.reason, &letter.destination, &letter.reply, bytes);
        if self.delivery.append(SourceId::MIXED, clock::wall_ns(), &encoded) && self.delivery.sync() {
            // Nobody waits any more when the destination was ended: the letter is kept all the same.
            kept.send(()).ok();
        }
    }
}

/// One bounded log of letters.
struct Store {
    log: Arc<Log>,
    appender: Appender,
}

impl Store {
    fn open(storage: &Arc<dyn Storage>, directory: &Path, at_rest: &AtRest) -> Result<Store, crate::queue::OpenError> {
        let options = Options {
            directory: directory.to_owned(),
            quarantine: directory.join("quarantine"),
            lane: 0,
            segment_bytes: SEGMENT_BYTES,
            max_payload_bytes: MAX_BYTES,
            pool_segments: 1,
            opened_at_start: logs::OPENED_AT_START,
            budget: Arc::new(Budget::new(STORE_BYTES, 0)),
            wall_ns: clock::wall_ns(),
            at_rest: at_rest.clone(),
        };
        let (log, appender, _) = Log::open(Arc::clone(storage), options)?;
        Ok(Store { log, appender })
    }

    /// Appends a letter, in place of the oldest ones when the store is full. False when storage fails.
    fn append(&mut self, source: SourceId, received_ns: u64, payload: &[u8]) -> bool {
        if !self.appender.has_room() {
            self.log.release(&self.log.position_at_lag(STORE_BYTES - 4 * SEGMENT_BYTES));
            self.tend();
        }
        let mut meta = Meta::empty(Signal::Traces, Made::Passed, source, received_ns);
        meta.spans = 1;
        if let Err(error) = self.appender.append(&meta, payload) {
            tracing::error!(%error, "a dead letter could not be kept");
            return false;
        }
        true
    }

    /// Makes what was appended durable. False when storage fails.
    fn sync(&mut self) -> bool {
        if self.log.unsynced_bytes() == 0 {
            return true;
        }
        if let Err(error) = self.appender.maintain(clock::monotonic(), clock::wall_ns()) {
            tracing::warn!(%error, "the dead letters could not be maintained");
        }
        match self.log.sync() {
            Ok(_) => {
                self.tend();
                true
            }
            Err(error) => {
                tracing::error!(%error, "dead letters could not be made durable");
                false
            }
        }
    }

    fn tend(&self) {
        if let Err(error) = self.log.tend(clock::wall_ns()) {
            tracing::warn!(%error, "the dead letters could not be tended");
        }
    }
}

fn encode(reason: &str, origin: &str, reply: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![1u8];
    for text in [reason, origin, reply] {
        let mut end = text.len().min(1024);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        out.extend_from_slice(&u16::try_from(end).expect("at most 1024").to_le_bytes());
        out.extend_from_slice(&text.as_bytes()[..end]);
    }
    out.extend_from_slice(bytes);
    out
}
