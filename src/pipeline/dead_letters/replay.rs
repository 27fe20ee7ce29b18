//! Sending dead letters again: records into the front, spans to the backend that refused them.
//!
//! A record is decoded as a lane's producer decodes it, under the present configuration, and goes through a ring of its own
//! to the writer of the first lane; it is gone once the log has it durably. A span goes past the plugins to its destination
//! alone, a letter a request; it is gone once the backend took it. Whatever fails again stays, with no second letter.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::DeadLetters;
use super::desk::confirm;
use super::letter::{Letter, StoreName};
use crate::block::{Block, Outcome, Outlet, SourceId, VerdictOutcome};
use crate::config;
use crate::export::Request;
use crate::pipeline::outlet::RingOutlet;
use crate::pipeline::sources::RowRules;
use crate::sys::{clock, sigbus};
use crate::telemetry::ledger::Front;
use crate::telemetry::metrics::{FrontSource, Metrics};
use crate::uberagent::{self, Encoder, Origin};

/// Letters that are made sure of together.
const TOGETHER: usize = 32;

/// Blocks that [`TOGETHER`] records can become: traces and logs each, none shared.
pub const RING_BLOCKS: usize = 4 * TOGETHER;

/// Time between looks at the writer's answers; a sync takes some milliseconds.
const LOOK: Duration = Duration::from_millis(2);

/// Why a letter that was too large for its store is not sent again: what is left of OTLP may read as less OTLP.
const CUT: &str = "only its beginning was kept";

/// What became of letters.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Replayed and gone.
    pub(super) count: usize,
    /// Replayed and not yet said to be gone.
    pub(super) gone: Vec<u64>,
    /// Failed again: id, and why.
    failed: Vec<(String, String)>,
    /// Why the rest was not tried, if there is a rest.
    pub(super) stopped: Option<String>,
}

impl Replayed {
    pub(super) fn to_json(&self, more: bool) -> Value {
        let failed = self.failed.iter().map(|(id, why)| json!({ "id": id, "why": why }));
        json!({
            "replayed": self.count,
            "failed": failed.collect::<Vec<_>>(),
            "stopped": self.stopped,
            "more": more,
        })
    }

    fn fail(&mut self, letter: &Letter, why: &str) {
        self.failed.push((letter.id(), why.to_owned()));
    }
}

/// The producer of replayed records.
pub struct FrontReplay {
    outlet: RingOutlet,
    rules: RowRules,
    /// The rules that the encoders follow.
    followed: config::Uberagent,
    metrics: Arc<Metrics>,
    sources: HashMap<SourceId, (Encoder, Arc<Front>)>,
}

impl FrontReplay {
    /// A producer with an outlet of at least [`RING_BLOCKS`] to the writer of lane 0.
    #[must_use]
    pub fn new(outlet: RingOutlet, rules: RowRules, metrics: Arc<Metrics>) -> FrontReplay {
        let followed = rules.now();
        FrontReplay { outlet, rules, followed, metrics, sources: HashMap::new() }
    }

    /// Replays records; `pulse` is called while the log is waited for.
    pub(super) fn replay(&mut self, letters: &[Letter], stop: &AtomicBool, pulse: &dyn Fn()) -> Replayed {
        let mut replayed = Replayed::default();
        for together in letters.chunk_by(|a, b| a.source == b.source).flat_map(|same| same.chunks(TOGETHER)) {
            // Relaxed: a flag that is only ever set.
            if stop.load(Ordering::Relaxed) {
                replayed.stopped = Some("the appliance is stopping".to_owned());
                break;
            }
            let (numbers, blocks) = self.decode(together, &mut replayed);
            match self.store(blocks, pulse) {
                Ok(()) => replayed.gone.extend(numbers),
                Err(why) => {
                    replayed.stopped = Some(why.to_owned());
                    break;
                }
            }
        }
        replayed
    }

    /// Decodes letters of one source and books them; returns the numbers of those that are no dead letters any more, and
    /// the blocks in which they are.
    fn decode(&mut self, letters: &[Letter], replayed: &mut Replayed) -> (Vec<u64>, Vec<Block>) {
        let (mut numbers, mut blocks) = (Vec::new(), Vec::new());
        let Some(first) = letters.first() else { return (numbers, Vec::new()) };
        let (rules, metrics) = (self.rules.now(), &self.metrics);
        if rules != self.followed {
            // They hold no block open: what they decoded was handed over each time.
            self.sources.iter_mut().for_each(|(source, (encoder, _))| *encoder = Encoder::new(rules, *source));
            self.followed = rules;
        }
        let (encoder, front) = self.sources.entry(first.source).or_insert_with(|| {
            let counters = Arc::new(Front::default());
            let (source, front) = (first.origin.clone(), Arc::clone(&counters));
            metrics.add_front(FrontSource { lane: 0, producer: "replay", source, counters });
            (Encoder::new(rules, first.source), front)
        });
        for letter in letters {
            if letter.is_cut() {
                replayed.fail(letter, CUT);
                continue;
            }
            if letter.is_withheld {
                replayed.fail(letter, "its bytes may not be kept, and were not");
                continue;
            }
            if let Some(meta) = letter.block {
                front.received.add(u64::from(meta.records));
                front.encoded.add(u64::from(meta.records));
                let payload = letter.bytes.to_vec();
                blocks.push(Block { meta, payload, awaited: true });
                numbers.push(letter.number);
                continue;
            }
            let outcome = encoder.json(&letter.bytes, Origin::default(), letter.time_ns);
            front.received.add(u64::from(outcome != uberagent::Outcome::Blank));
            match outcome {
                uberagent::Outcome::Encoded { fields_dropped } => {
                    front.encoded.add(1);
                    front.fields_dropped.add(u64::from(fields_dropped));
                    numbers.push(letter.number);
                }
                uberagent::Outcome::Filtered(_) => {
                    front.filtered.add(1);
                    numbers.push(letter.number);
                }
                uberagent::Outcome::DeadLetter(reason) => {
                    front.dead_lettered.add(1);
                    replayed.fail(letter, reason);
                }
                uberagent::Outcome::Blank => replayed.fail(letter, "no record"),
            }
        }
        blocks.extend(std::iter::from_fn(|| encoder.close()));
        (numbers, blocks)
    }

    /// Hands blocks to the lane and waits until all of them are durable.
    fn store(&mut self, blocks: Vec<Block>, pulse: &dyn Fn()) -> Result<(), &'static str> {
        let mut waiting = blocks.len();
        for mut block in blocks {
            block.awaited = true;
            // It is received now: its age in the log counts from here.
            block.meta.received_ns = clock::wall_ns();
            self.outlet.push(block);
        }
        let mut outcome = Ok(());
        while waiting > 0 {
            let Some(verdict) = self.outlet.verdict() else {
                pulse();
                thread::park_timeout(LOOK);
                continue;
            };
            waiting -= usize::try_from(verdict.last.0 - verdict.first.0 + 1).unwrap_or(waiting);
            match verdict.outcome {
                VerdictOutcome::Durable => {}
                VerdictOutcome::Refused(_) => outcome = Err("the log has no room for them now"),
                VerdictOutcome::Unknown => outcome = Err("the log could not be synced"),
            }
        }
        outcome
    }
}

/// Sends spans to the backends that refused them.
pub(super) fn deliver(letters: &[Letter], door: &DeadLetters, stop: &AtomicBool, replayed: &mut Replayed) {
    for together in letters.chunks(TOGETHER) {
        for letter in together {
            // Relaxed: a flag that is only ever set.
            if stop.load(Ordering::Relaxed) {
                replayed.stopped = Some("the appliance is stopping".to_owned());
            }
            if replayed.stopped.is_none() {
                send(letter, door, replayed);
            }
        }
        confirm(door, StoreName::Delivery, replayed);
    }
}

fn send(letter: &Letter, door: &DeadLetters, replayed: &mut Replayed) {
    if letter.is_cut() {
        replayed.fail(letter, CUT);
        return;
    }
    let Some(exporter) = door.exporters().get(&letter.origin).cloned() else {
        replayed.fail(letter, "its destination does not run");
        return;
    };
    let payloads = [&letter.bytes[..]];
    let request = Request {
        signal: letter.signal,
        payloads: &payloads,
        uncompressed: false,
        wall_ns: clock::wall_ns(),
        // The letter was read, and checked, a moment ago.
        faults: sigbus::faults(),
    };
    // Only one replay runs at a time: nobody else waits for this lock.
    let outcome = exporter.lock().unwrap_or_else(PoisonError::into_inner).send(&request);
    match outcome {
        Outcome::Accepted | Outcome::NothingToSend | Outcome::AcceptedPartially { refused_spans: 0, .. } => {
            replayed.gone.push(letter.number);
        }
        Outcome::AcceptedPartially { message, .. }
        | Outcome::BadRequest { message }
        | Outcome::Unencodable { message }
        | Outcome::TooLarge { message, .. } => replayed.fail(letter, &message),
        Outcome::Throttled { message, .. }
        | Outcome::Unavailable { message, .. }
        | Outcome::Misconfigured { message } => {
            replayed.stopped = Some(format!("{} takes nothing now: {message}", letter.origin));
        }
    }
}
