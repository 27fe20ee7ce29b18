//! The desk: lists, replays and purges dead letters while the appliance runs.
//!
//! One thread takes the questions of the API one after the other. It is the producer by which records enter again, so it
//! ends with the other producers. Spans that a backend refused are sent again by a thread of their own, for a backend
//! takes its time; while that runs nothing else is replayed or purged, so no letter is replayed twice at once.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use serde_json::{Value, json};

use super::letter::{Letter, Scan, Selection, StoreName};
use super::replay::{self, FrontReplay, Replayed};
use super::{DeadLetters, GoneBy, Room, purge_all, select};
use crate::queue::Log;
use crate::serve::{DeadLetterCall, DeadLetterVerb};
use crate::sys::{clock, sigbus};
use crate::telemetry::health::Tick;
use crate::telemetry::moment::iso;

/// Time between looks whether the appliance stops.
const INTERVAL: Duration = Duration::from_millis(100);

/// Letters that one replay takes; whoever asked may ask again.
const REPLAY_LETTERS: usize = 512;

/// And their bytes, beyond which it takes no further one: those of an encrypted store are in memory.
const REPLAY_BYTES: usize = 8 << 20;

/// Letters that a list names; groups count all of them.
const LISTED_LETTERS: usize = 1000;

/// What the desk is made from.
pub struct DeskParts {
    /// The questions.
    pub calls: Receiver<DeadLetterCall>,
    /// The stores' logs.
    pub logs: [(StoreName, Arc<Log>); 2],
    /// Where it is said that letters are gone.
    pub letters: DeadLetters,
    /// How records enter again.
    pub front: FrontReplay,
    /// Producers stop taking.
    pub stop: Arc<AtomicBool>,
    /// The thread's tick.
    pub tick: Tick,
}

/// Where the answer to a question goes.
type Answer = tokio::sync::oneshot::Sender<Result<Value, String>>;

/// The desk.
pub struct Desk {
    parts: DeskParts,
}

impl Desk {
    /// A desk that nobody has asked yet.
    #[must_use]
    pub fn new(parts: DeskParts) -> Desk {
        Desk { parts }
    }

    /// The thread's body: ends when producers are told to stop.
    pub fn run(mut self) {
        while !self.is_stopping() {
            self.tick();
            match self.parts.calls.recv_timeout(INTERVAL) {
                Ok(call) => self.take(call),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.parts.tick.end();
    }

    fn take(&mut self, call: DeadLetterCall) {
        let DeadLetterCall { verb, body, answer } = call;
        if verb == DeadLetterVerb::List {
            let found = self.scan(|scans| list(scans, &Selection::default(), LISTED_LETTERS));
            self.answer(answer, Ok(found));
            return;
        }
        if self.parts.letters.is_sending() {
            answer.send(Err("dead letters are being replayed: ask again when that is over".to_owned())).ok();
            return;
        }
        let selection = match Selection::from_json(&body) {
            Ok(selection) => selection,
            Err(what) => {
                answer.send(Err(what)).ok();
                return;
            }
        };
        match verb {
            DeadLetterVerb::Purge => {
                self.answer(answer, self.purge(&selection));
            }
            _ => self.replay(&selection, answer),
        }
    }

    /// Calls `with` with both stores to be read, which ends early when the appliance stops.
    fn scan<T>(&self, with: impl FnOnce(&[Scan<'_>; 2]) -> T) -> T {
        let pulse = || {
            self.tick();
            if self.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let [(front, front_log), (delivery, delivery_log)] = &self.parts.logs;
        let open = |log: &Arc<Log>| log.reader(log.oldest());
        with(&[
            Scan { store: *front, open: &|| open(front_log), pulse: &pulse },
            Scan { store: *delivery, open: &|| open(delivery_log), pulse: &pulse },
        ])
    }

    fn tick(&self) {
        self.parts.tick.tick(clock::monotonic());
    }

    fn is_stopping(&self) -> bool {
        // Acquire pairs with the Release of whoever stops the producers.
        self.parts.stop.load(Ordering::Acquire)
    }

    /// Answers, unless the appliance stops and what was found is half of it: whoever asked hears that when the question is
    /// dropped.
    fn answer(&self, to: Answer, found: Result<Value, String>) {
        if !self.is_stopping() {
            // Whoever asked may be gone.
            to.send(found).ok();
        }
    }

    fn purge(&self, selection: &Selection) -> Result<Value, String> {
        let mut purged = 0;
        for store in 0..self.parts.logs.len() {
            let (name, log) = &self.parts.logs[store];
            let go = &mut |numbers| self.parts.letters.go(*name, numbers, GoneBy::Purge, &|| self.tick());
            let gone = self.scan(|scans| purge_all(&scans[store], log, selection, go));
            purged += gone.ok_or("what was purged could not be made durable")?;
        }
        Ok(json!({ "purged": purged }))
    }

    fn replay(&mut self, selection: &Selection, answer: Answer) {
        let faults = sigbus::faults();
        let mut room = Room { letters: REPLAY_LETTERS, bytes: REPLAY_BYTES, more: false };
        let (records, spans) = self
            .scan(|[front, delivery]| (select(front, selection, &mut room), select(delivery, selection, &mut room)));
        if sigbus::has_faulted_since(faults) {
            // Zeros may stand where a letter's bytes were.
            answer.send(Err("the disk failed while letters were read: try again".to_owned())).ok();
            return;
        }
        let more = room.more;
        let (letters, stop) = (self.parts.letters.clone(), Arc::clone(&self.parts.stop));
        let mut replayed = self.parts.front.replay(&records, &stop, &|| self.parts.tick.tick(clock::monotonic()));
        replayed.last = [records.last(), spans.last()].into_iter().flatten().map(Letter::id).collect();
        confirm(&letters, StoreName::Front, &mut replayed, &|| self.tick());
        if spans.is_empty() {
            answer.send(Ok(replayed.to_json(more))).ok();
            return;
        }
        let sent = Arc::clone(&letters.sent);
        sent.begin();
        let send = move || {
            replay::deliver(&spans, &letters, &stop, &mut replayed);
            answer.send(Ok(replayed.to_json(more))).ok();
            sent.say();
        };
        if let Err(error) = thread::Builder::new().name("replay".to_owned()).spawn(send) {
            tracing::error!(%error, "no thread for the replay of dead letters");
            self.parts.letters.sent.say();
        }
    }
}

/// Says that what was replayed is gone; what cannot be said durably is still there.
pub(super) fn confirm(letters: &DeadLetters, store: StoreName, replayed: &mut Replayed, pulse: &dyn Fn()) {
    let numbers = std::mem::take(&mut replayed.gone);
    let count = numbers.len();
    if letters.go(store, numbers, GoneBy::Replay, pulse) {
        replayed.count += count;
    } else {
        replayed.stop("what was replayed could not be marked as gone: it may be replayed again".to_owned());
    }
}

/// The letters that are meant: counted by store, reason and origin, and the newest `most` of them each.
#[must_use]
pub fn list(scans: &[Scan<'_>], selection: &Selection, most: usize) -> Value {
    let mut groups: Vec<(Letter, u64, u64, u64)> = Vec::new();
    // Without their bytes: a thousand letters may be a gigabyte.
    let mut newest = VecDeque::new();
    for scan in scans {
        scan.letters(&mut |mut letter, _| {
            if !selection.takes(&letter) {
                return ControlFlow::Continue(());
            }
            let length = std::mem::take(&mut letter.bytes).len();
            let (bytes, time_ns) = (length as u64, letter.time_ns);
            let same = |known: &Letter| {
                (known.store, &known.reason, &known.origin) == (letter.store, &letter.reason, &letter.origin)
            };
            match groups.iter_mut().find(|(known, ..)| same(known)) {
                Some((_, count, all_bytes, newest_ns)) => {
                    (*count, *all_bytes) = (*count + 1, *all_bytes + bytes);
                    *newest_ns = time_ns.max(*newest_ns);
                }
                None => groups.push((letter.clone(), 1, bytes, time_ns)),
            }
            newest.push_back((letter, length));
            if newest.len() > most {
                newest.pop_front();
            }
            ControlFlow::Continue(())
        });
    }
    let group = |(first, letters, bytes, newest_ns): &(Letter, u64, u64, u64)| {
        json!({
            "store": first.store.word(),
            "reason": first.reason,
            "origin": first.origin,
            "letters": letters,
            "bytes": bytes,
            "oldest": iso(first.time_ns),
            "newest": iso(*newest_ns),
        })
    };
    let newest: Vec<Value> = newest.iter().map(|(letter, length)| letter.summary_of(*length)).collect();
    json!({ "groups": groups.iter().map(group).collect::<Vec<_>>(), "letters": newest })
}
