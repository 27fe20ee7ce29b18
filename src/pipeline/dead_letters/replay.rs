//! Sending dead letters again: records into the front, spans to the backend that refused them.
//!
//! A record is decoded as a lane's producer decodes it, under the present configuration, and goes through a ring of its own
//! to the writer of the first lane; it is gone once the log has it durably. What a plugin's receiver took in is no row and
//! cannot be decoded here. A span goes past the plugins to its destination
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
use crate::block::{Block, Outcome, Outlet, Refusal, SourceId, VerdictOutcome};
use crate::config::{self, is_of_plugin};
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

/// Why a letter stays that transforms could not do again. It is not kept aside a second time.
const FAILS_AGAIN: &str = "a plugin fails on it again";

/// What became of letters.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Replayed and gone.
    pub(super) count: usize,
    /// Replayed and not yet said to be gone.
    pub(super) gone: Vec<u64>,
    /// Failed again: id, and why.
    failed: Vec<(String, String)>,
    /// The last of each store that was to be tried.
    pub(super) last: Vec<String>,
    /// Why some were not tried, if that is so.
    pub(super) stopped: Option<String>,
}

impl Replayed {
    pub(super) fn to_json(&self, more: bool) -> Value {
        let failed = self.failed.iter().map(|(id, why)| json!({ "id": id, "why": why }));
        json!({
            "replayed": self.count,
            "failed": failed.collect::<Vec<_>>(),
            "last": self.last,
            "stopped": self.stopped,
            "more": more,
        })
    }

    /// Some are not tried.
    pub(super) fn stop(&mut self, why: String) {
        let before = self.stopped.take().map(|before| format!("{before}; ")).unwrap_or_default();
        self.stopped = Some(before + &why);
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
            }
            if replayed.stopped.is_some() {
                break;
            }
            let (tried, blocks) = self.decode(together, &mut replayed);
            let mut outcomes = self.store(blocks, pulse).into_iter();
            for (letter, blocks) in tried {
                let bad = outcomes.by_ref().take(blocks).filter(|outcome| *outcome != VerdictOutcome::Durable);
                match bad.last() {
                    None => replayed.gone.push(letter.number),
                    Some(VerdictOutcome::Refused(Refusal::Transforms)) => replayed.fail(letter, FAILS_AGAIN),
                    // Each of them says the same.
                    Some(outcome) => replayed.stopped = Some(why(outcome).to_owned()),
                }
            }
        }
        replayed
    }

    /// Decodes letters of one source and books them; returns those that are no dead letters any more once their blocks are
    /// durable, with how many these are, and the blocks one behind the other. None is shared: each letter has its own fate.
    fn decode<'l>(&mut self, letters: &'l [Letter], replayed: &mut Replayed) -> (Vec<(&'l Letter, usize)>, Vec<Block>) {
        let (mut tried, mut blocks) = (Vec::new(), Vec::new());
        let Some(first) = letters.first() else { return (tried, blocks) };
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
            if let Some(why) = unfit(letter) {
                replayed.fail(letter, why);
                continue;
            }
            let before = blocks.len();
            if let Some(meta) = letter.block {
                front.received.add(u64::from(meta.records));
                front.encoded.add(u64::from(meta.records));
                blocks.push(Block { meta, payload: letter.bytes.to_vec(), awaited: true });
            } else if let Err(why) = encode(letter, encoder, front) {
                replayed.fail(letter, why);
                continue;
            }
            blocks.extend(std::iter::from_fn(|| encoder.close()));
            tried.push((letter, blocks.len() - before));
        }
        (tried, blocks)
    }

    /// Hands blocks to the lane and waits until it is known of each what became of it.
    fn store(&mut self, blocks: Vec<Block>, pulse: &dyn Fn()) -> Vec<VerdictOutcome> {
        let (count, mut outcomes) = (blocks.len(), Vec::new());
        for mut block in blocks {
            block.awaited = true;
            // It is received now: its age in the log counts from here.
            block.meta.received_ns = clock::wall_ns();
            self.outlet.push(block);
        }
        while outcomes.len() < count {
            let Some(verdict) = self.outlet.verdict() else {
                pulse();
                thread::park_timeout(LOOK);
                continue;
            };
            outcomes.extend((verdict.first.0..=verdict.last.0).map(|_| verdict.outcome));
        }
        outcomes
    }
}

/// Why a letter of the front cannot be decoded at all, if that is so.
fn unfit(letter: &Letter) -> Option<&'static str> {
    if letter.is_cut() {
        Some(CUT)
    } else if letter.is_withheld {
        Some("its bytes may not be kept, and were not")
    } else if letter.block.is_none() && is_of_plugin(&letter.origin) {
        Some("a plugin reads what comes by this receiver: send it there again (millrace dlq show ID --format raw)")
    } else {
        None
    }
}

/// Decodes a row into the encoder's open blocks, and books it; why it stays a letter.
fn encode(letter: &Letter, encoder: &mut Encoder, front: &Front) -> Result<(), &'static str> {
    let outcome = encoder.json(&letter.bytes, Origin::default(), letter.time_ns);
    front.received.add(u64::from(outcome != uberagent::Outcome::Blank));
    match outcome {
        uberagent::Outcome::Encoded { fields_dropped } => {
            front.encoded.add(1);
            front.fields_dropped.add(u64::from(fields_dropped));
        }
        uberagent::Outcome::Filtered(_) => front.filtered.add(1),
        uberagent::Outcome::DeadLetter(reason) => {
            front.dead_lettered.add(1);
            return Err(reason);
        }
        uberagent::Outcome::Blank => return Err("no record"),
    }
    Ok(())
}

/// Why the rest of a replay is not tried.
fn why(outcome: VerdictOutcome) -> &'static str {
    match outcome {
        VerdictOutcome::Refused(Refusal::Storage) => "the storage of the log has failed",
        VerdictOutcome::Refused(Refusal::Draining) => "the appliance is stopping",
        VerdictOutcome::Refused(_) => "the log has no room for them now",
        VerdictOutcome::Unknown | VerdictOutcome::Durable => "the log could not be synced",
    }
}

/// Sends spans to the backends that refused them. One that takes nothing now is asked no more; the others are.
pub(super) fn deliver(letters: &[Letter], door: &DeadLetters, stop: &AtomicBool, replayed: &mut Replayed) {
    let mut away: Vec<&str> = Vec::new();
    for together in letters.chunks(TOGETHER) {
        for letter in together {
            // Relaxed: a flag that is only ever set.
            if stop.load(Ordering::Relaxed) {
                replayed.stopped = Some("the appliance is stopping".to_owned());
                break;
            }
            if !away.contains(&letter.origin.as_str())
                && let Err(message) = send(letter, door, replayed)
            {
                away.push(&letter.origin);
                replayed.stop(format!("{} takes nothing now: {message}", letter.origin));
            }
        }
        // Nobody watches this thread.
        confirm(door, StoreName::Delivery, replayed, &|| ());
    }
}

/// Sends one letter. Fails when its backend takes nothing now, whatever is sent.
fn send(letter: &Letter, door: &DeadLetters, replayed: &mut Replayed) -> Result<(), String> {
    if letter.is_cut() {
        replayed.fail(letter, CUT);
        return Ok(());
    }
    let Some(exporter) = door.exporters().get(&letter.origin).cloned() else {
        replayed.fail(letter, "its destination does not run");
        return Ok(());
    };
    let payloads = [&letter.bytes[..]];
    let request = Request {
        signal: letter.signal,
        payloads: &payloads,
        uncompressed: false,
        wall_ns: clock::wall_ns(),
        // The bytes are the letter's own.
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
        | Outcome::Misconfigured { message } => return Err(message),
    }
    Ok(())
}
