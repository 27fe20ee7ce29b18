//! A plugin called by hand, through the very parts that call it in a running appliance.
//!
//! What the author's tools show is what a lane, a receiver or a destination would do: the rows are gathered, shown in calls
//! and edited by the step of a lane, bytes become records by the decoder's code, messages are judged by the exporter's. Only
//! policy is missing (`on_error`, circuit, filter): a failure is the answer. When things are received is fixed, so that
//! ids and times made from it are the same tomorrow.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crossbeam::channel;

use crate::block::{FrontDeadLetter, Made as Origin, Meta, Signal, SourceId};
use crate::config::Plugin;
use crate::export::plugin::Format;
use crate::plugin::counters::Counters;
use crate::plugin::{CallError, Engine, Generation, Instance, World};
use crate::receive::decoder::{Books, Link, Records};
use crate::sys::clock;
use crate::telemetry::ledger::Front;
use crate::transform::Made;
use crate::transform::plugin::{Failure, Live, Program, ProgramError};

pub use crate::transform::plugin::Spent;

/// When everything was received, Unix nanoseconds.
pub const RECEIVED_NS: u64 = 1_767_225_600_000_000_000;

/// Bytes of a record at most, the default of receivers.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// The word for a decoder that says no to a connection: all others mean that it is broken.
const REFUSED: &str = "refused";

/// Why nothing came of a trial.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The plugin failed on a block.
    #[error(transparent)]
    Block(#[from] Failure),
    /// The plugin failed on a batch to write.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The plugin failed on the bytes of a connection.
    #[error("{0}")]
    Bytes(String),
    /// It is given something else.
    #[error("a plugin of the world {world} is not given {given}")]
    World {
        /// Its world.
        world: &'static str,
        /// What was tried.
        given: &'static str,
    },
}

/// What a plugin that changes blocks made of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What it is now; empty when no row is left.
    pub payload: Vec<u8>,
    /// Rows that were changed and kept.
    pub edited: u64,
    /// Rows that were dropped.
    pub dropped: u64,
    /// What it took.
    pub spent: Spent,
}

/// What a decoder made of the bytes of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// A payload for each block.
    pub blocks: Vec<Vec<u8>>,
    /// Records understood and not wanted.
    pub filtered: u64,
    /// Bytes that became no record.
    pub rejected: Vec<Rejected>,
    /// What the peer was answered.
    pub reply: Vec<u8>,
    /// What it took; rows are records.
    pub spent: Spent,
}

/// Bytes of a connection that became no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The word for why: the `reason` of the dead letter.
    pub reason: &'static str,
    /// What the plugin says of them: the `reply` of the dead letter.
    pub reply: String,
    /// They.
    pub bytes: Vec<u8>,
}

/// What an encoder made of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// The messages, in order.
    pub messages: Vec<Vec<u8>>,
    /// What they are.
    pub content_type: String,
    /// Rows that cannot be said in the format.
    pub unencodable: Vec<u32>,
    /// What it took.
    pub spent: Spent,
}

/// A receiver without a socket.
struct Connections {
    records: Records,
    front: Arc<Front>,
    letters: channel::Receiver<FrontDeadLetter>,
}

/// See the module.
pub struct Trial {
    program: Arc<Program>,
    counters: Arc<Counters>,
    hand: Hand,
}

/// What calls a plugin of each world.
enum Hand {
    Blocks(Box<Live>),
    Connections(Box<Connections>),
    Batches(Box<Format>),
}

impl Trial {
    /// A plugin that was loaded, as it was configured; the first call starts it.
    #[must_use]
    pub fn new(plugin: &Plugin, generation: Arc<Generation>) -> Trial {
        let program = Arc::new(Program { plugin: plugin.clone(), generation, shadow: None });
        let counters = Arc::default();
        let hand = hand(&program, &counters);
        Trial { program, counters, hand }
    }

    /// Forgets the instance with all that it and its host remember; the next call gets a new one.
    pub fn renew(&mut self) {
        self.hand = hand(&self.program, &self.counters);
    }

    /// Forgets what the plugin has said of values and traces, and nothing else.
    pub fn forget(&mut self) {
        if let Hand::Blocks(live) = &mut self.hand {
            live.forget();
        }
    }

    /// What is known of the plugin.
    #[must_use]
    pub fn generation(&self) -> &Arc<Generation> {
        &self.program.generation
    }

    /// What is counted of it.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the plugin is shown records of this signal, or makes them.
    #[must_use]
    pub fn wants(&self, signal: Signal) -> bool {
        self.generation().selection(signal).is_some()
    }

    /// Shows a block to a plugin of the worlds `transform`, `enrich` or `sample`. What it does not want to see comes back
    /// as it was.
    ///
    /// # Errors
    ///
    /// When it fails on the block, or is of another world.
    pub fn block(&mut self, signal: Signal, payload: &[u8]) -> Result<Block, TrialError> {
        let unwanted = !self.wants(signal);
        let Hand::Blocks(live) = &mut self.hand else { return Err(self.is_not_given("blocks")) };
        let mut payload = payload.to_vec();
        if unwanted {
            return Ok(Block { payload, ..Block::default() });
        }
        let meta = Meta::empty(signal, Origin::Passed, SourceId::MIXED, RECEIVED_NS);
        let (edited, dropped) = (self.counters.rows_edited.get(), self.counters.rows_dropped.get());
        let mut out = Vec::new();
        let made = live.transform(&meta, &mut payload, &mut out);
        let spent = live.spent();
        Ok(Block {
            payload: if made? == Made::Same { payload } else { out },
            edited: self.counters.rows_edited.get() - edited,
            dropped: self.counters.rows_dropped.get() - dropped,
            spent,
        })
    }

    /// Gives a plugin of the world `decode` the bytes of one connection, read by so many at a time, and the connection's end.
    ///
    /// # Errors
    ///
    /// When it fails, or is of another world. One that refuses the connection has not failed.
    pub fn connection(&mut self, bytes: &[u8], read_bytes: usize) -> Result<Received, TrialError> {
        let Hand::Connections(receiver) = &mut self.hand else {
            return Err(self.is_not_given("the bytes of a connection"));
        };
        let Connections { records, front, letters } = &mut **receiver;
        let (filtered, encoded) = (front.filtered.get(), front.encoded.get());
        let (begun_ns, called_ns) = (clock::thread_cpu_ns(), self.counters.cpu_ns.get());
        let mut link = Link::new(1, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let mut pieces = bytes.chunks(read_bytes.max(1));
        let mut feed = |link: &mut Link, piece: Option<&[u8]>| {
            link.unread.extend_from_slice(piece.unwrap_or_default());
            records.feed(link, piece.is_none(), RECEIVED_NS)
        };
        let fed = pieces.try_for_each(|piece| feed(&mut link, Some(piece))).and_then(|()| feed(&mut link, None));
        let failed = records.failed();
        records.closed(&link);
        records.close();
        let call_ns = self.counters.cpu_ns.get() - called_ns;
        let all_ns = clock::thread_cpu_ns().saturating_sub(begun_ns);
        let blocks = records.closed.drain(..).map(|block| block.payload).collect();
        let rejected = |letter: FrontDeadLetter| {
            let FrontDeadLetter { reason, detail, bytes, .. } = letter;
            Rejected { reason, reply: detail, bytes }
        };
        let rejected: Vec<_> = letters.try_iter().map(rejected).collect();
        if let (Err(_), Some(why)) = (fed, failed)
            && rejected.last().is_none_or(|last| last.reason != REFUSED)
        {
            return Err(TrialError::Bytes(why));
        }
        let rows = u32::try_from(front.encoded.get() - encoded).unwrap_or(u32::MAX);
        Ok(Received {
            blocks,
            filtered: front.filtered.get() - filtered,
            rejected,
            reply: link.replies.drain(..).flat_map(|(_, reply)| reply).collect(),
            spent: Spent { rows, call_ns, apply_ns: all_ns.saturating_sub(call_ns), ..Spent::default() },
        })
    }

    /// Has a plugin of the world `encode` write a batch. Nothing of what it does not want.
    ///
    /// # Errors
    ///
    /// When it fails on the batch, or is of another world.
    pub fn batch(&mut self, signal: Signal, payload: &[u8]) -> Result<Messages, TrialError> {
        let Hand::Batches(format) = &mut self.hand else { return Err(self.is_not_given("batches to write")) };
        let (begun_ns, called_ns) = (clock::thread_cpu_ns(), self.counters.cpu_ns.get());
        let called_rows = self.counters.rows.get();
        let Some(written) = format.write(signal, &mut payload.to_vec())? else { return Ok(Messages::default()) };
        let call_ns = self.counters.cpu_ns.get() - called_ns;
        let all_ns = clock::thread_cpu_ns().saturating_sub(begun_ns);
        let rows = u32::try_from(self.counters.rows.get() - called_rows).unwrap_or(u32::MAX);
        Ok(Messages {
            messages: written.messages().map(<[u8]>::to_vec).collect(),
            content_type: String::from_utf8_lossy(written.content_type.as_bytes()).into_owned(),
            unencodable: written.unencodable().to_vec(),
            spent: Spent { rows, call_ns, gather_ns: all_ns.saturating_sub(call_ns), ..Spent::default() },
        })
    }

    fn is_not_given(&self, given: &'static str) -> TrialError {
        TrialError::World { world: self.generation().world.name(), given }
    }
}

/// Loads and tries a plugin that changes blocks as a start does, and throws it away.
///
/// # Errors
///
/// What would keep an appliance from starting with it.
pub fn start(engine: &Engine, plugin: &Plugin) -> Result<(), ProgramError> {
    Program::load(engine, plugin, 1).map(|_| ())
}

fn hand(program: &Arc<Program>, counters: &Arc<Counters>) -> Hand {
    let generation = &program.generation;
    match generation.world {
        World::Transform | World::Enrich | World::Sample => {
            Hand::Blocks(Box::new(Live::timed(program, Arc::clone(counters), clock::thread_cpu_ns)))
        }
        World::Decode => {
            // As many as there are records; what is tried is a file.
            let (dead_letters, letters) = channel::unbounded();
            let front = Arc::<Front>::default();
            let books =
                Books { source: SourceId::MIXED, front: Arc::clone(&front), counters: Arc::default(), dead_letters };
            let instance = Instance::new(Arc::clone(generation), Arc::clone(counters));
            let records = Records::new(instance, books, MAX_RECORD_BYTES);
            Hand::Connections(Box::new(Connections { records, front, letters }))
        }
        World::Encode => Hand::Batches(Box::new(Format::new(Arc::clone(generation), Arc::clone(counters)))),
    }
}
