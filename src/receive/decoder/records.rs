//! From the bytes of connections to records in open blocks, by a plugin, with an exact count of everything that was none.
//!
//! Sans-I/O. What a connection has sent and the plugin has not used up is kept with it and given again. A plugin that fails on
//! bytes, or answers against the rules, leaves them as one dead letter with the reason, and its connection is of no use
//! any more: nobody knows where the next record would begin. A plugin's instance that was made anew is told of a connection
//! before it is given bytes of it. Owned by the decoder's thread.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::block::{Block, DeadLetterSender, FrontDeadLetter, MAX_BYTES, Made, Meta, Signal, SourceId, TARGET_BYTES};
use crate::otlp::Summary;
use crate::otlp::columns::{Columns, Selection};
use crate::otlp::edit::{self, Arrival, Edits, Unbuildable};
use crate::plugin::Instance;
use crate::plugin::answers::{Answer, Decoded};
use crate::receive::LineCounters;
use crate::telemetry::ledger::Front;

/// The word for answers that break a rule.
const BAD_ANSWER: &str = "bad_answer";

/// A connection as the plugin knows it.
#[derive(Debug)]
pub struct Link {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    /// What was read and not used up.
    pub unread: Vec<u8>,
    /// Bytes used up before them.
    used: u64,
    /// In which of the instance's lives the plugin was told of it; 0 for none.
    life: u64,
    /// What the peer is to be told, each once so many blocks are safe.
    pub replies: VecDeque<(u64, Vec<u8>)>,
}

impl Link {
    /// A connection that has sent nothing yet. The ids of its records follow from its number.
    #[must_use]
    pub fn new(id: u64, peer: SocketAddr) -> Link {
        Link { id, peer, unread: Vec::new(), used: 0, life: 0, replies: VecDeque::new() }
    }
}

/// The connection is of no use any more; for this reason, a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// See the module.
pub struct Records {
    instance: Instance,
    source: SourceId,
    signal: Signal,
    max_record_bytes: usize,
    open: Option<Block>,
    /// Blocks that are closed, in order, and how many there ever were.
    pub closed: VecDeque<Block>,
    closed_ever: u64,
    pub(super) front: Arc<Front>,
    pub(super) counters: Arc<LineCounters>,
    dead_letters: DeadLetterSender,
    /// What the plugin last failed on, in words.
    failed: Option<String>,
}

/// Where records come from, and where what is counted of them goes.
pub struct Books {
    /// The receiver.
    pub source: SourceId,
    /// Its balance.
    pub front: Arc<Front>,
    /// What is counted besides.
    pub counters: Arc<LineCounters>,
    /// What became no record.
    pub dead_letters: DeadLetterSender,
}

impl Records {
    /// Records by a plugin of the world `decode`; one that takes more bytes than this and is not done is given up.
    #[must_use]
    pub fn new(instance: Instance, books: Books, max_record_bytes: usize) -> Records {
        let Books { source, front, counters, dead_letters } = books;
        let signal = instance.generation().setup.signals[0];
        let (open, closed) = (None, VecDeque::new());
        Records {
            instance,
            source,
            signal,
            max_record_bytes,
            open,
            closed,
            closed_ever: 0,
            front,
            counters,
            dead_letters,
            failed: None,
        }
    }

    /// Why the plugin last failed, since this was last asked.
    pub fn failed(&mut self) -> Option<String> {
        self.failed.take()
    }

    /// Gives the plugin what was read of a connection; `last` when nothing more will be.
    ///
    /// # Errors
    ///
    /// What breaks the connection; what was unread is a dead letter then.
    pub fn feed(&mut self, link: &mut Link, last: bool, received_ns: u64) -> Result<(), Broken> {
        loop {
            let used = self.decode(link, last, received_ns).map_err(|reason| {
                let unread = std::mem::take(&mut link.unread);
                let detail = self.failed.clone().unwrap_or_default();
                self.dead_letter_saying(&unread, (reason, detail), received_ns);
                Broken("plugin")
            })?;
            if !last || used == 0 || link.unread.is_empty() {
                break;
            }
        }
        let reason = match link.unread.len() {
            0 => return Ok(()),
            _ if last => "unfinished",
            bytes if bytes > self.max_record_bytes => "record_too_long",
            _ => return Ok(()),
        };
        let unread = std::mem::take(&mut link.unread);
        self.dead_letter(&unread, reason, received_ns);
        if last { Ok(()) } else { Err(Broken("record_too_long")) }
    }

    /// A connection has gone.
    pub fn closed(&mut self, link: &Link) {
        if link.life == self.instance.life() {
            // It can fail, and the next call gets a new instance.
            match self.instance.closed(link.id) {
                Ok(()) => self.instance.accept(),
                Err(error) => tracing::debug!(%error, "a decoder failed over the end of a connection"),
            }
        }
    }

    /// Closes the open block: nothing more comes in this turn.
    pub fn close(&mut self) {
        if let Some(block) = self.open.take() {
            self.closed_ever += 1;
            self.closed.push_back(block);
        }
    }

    /// One call; the bytes that it used up, or the word for why none were.
    fn decode(&mut self, link: &mut Link, last: bool, received_ns: u64) -> Result<usize, &'static str> {
        if link.life != self.instance.life() {
            let about = [("peer", link.peer.to_string()), ("transport", "tcp".to_owned())];
            let about = about.map(|(key, value)| (key.to_owned(), value));
            let told = self.instance.opened(link.id, &about);
            told.map_err(|error| self.failing(error.word(), error.to_string()))?;
            link.life = self.instance.life();
        }
        let decoded = self.instance.decode((link.id, received_ns), &link.unread, last);
        let decoded = decoded.map_err(|error| self.failing(error.word(), error.to_string()))?;
        let pieces = self.pieces(link, &decoded, received_ns).map_err(|error| {
            self.instance.reject();
            self.instance.counters().bad_patches.add(1);
            self.failing(BAD_ANSWER, format!("its answer breaks a rule: {error}"))
        })?;
        self.instance.accept();
        let Decoded { consumed, rows, filtered, rejected, reply, .. } = decoded;
        for (payload, summary) in pieces {
            self.append(&payload, summary, received_ns);
        }
        self.front.received.add(u64::from(rows) + u64::from(filtered));
        self.front.encoded.add(u64::from(rows));
        self.front.filtered.add(u64::from(filtered));
        if filtered > 0 {
            self.counters.filtered.add("plugin", u64::from(filtered));
        }
        for record in rejected {
            let bytes = link.unread[record.bytes].to_vec();
            self.dead_letter_saying(&bytes, ("undecodable", record.reason), received_ns);
        }
        link.unread.drain(..consumed);
        link.used += consumed as u64;
        if !reply.is_empty() {
            self.open.iter_mut().for_each(|block| block.awaited = true);
            link.replies.push_back((self.closed_ever + u64::from(self.open.is_some()), reply));
        }
        Ok(consumed)
    }

    /// Keeps in words what goes on as `word`.
    fn failing(&mut self, word: &'static str, why: String) -> &'static str {
        tracing::debug!(why, "a decoder failed");
        self.failed = Some(why);
        word
    }

    /// The payloads of an answer, each at most a block.
    fn pieces(&self, link: &Link, decoded: &Decoded, received_ns: u64) -> Result<Vec<(Vec<u8>, Summary)>, String> {
        let Decoded { consumed, rows, answer: Answer { extra, patch }, .. } = decoded;
        if *rows as usize > *consumed {
            return Err(format!("{rows} records of {consumed} bytes"));
        }
        if *rows == 0 {
            return Ok(Vec::new());
        }
        let generation = self.instance.generation();
        let own = generation.selection(self.signal).ok_or("it has no fields")?;
        let selection = &*own.extended(extra.clone()).map_err(|error| error.to_string())?;
        let limit = usize::try_from(generation.patch_bytes()).unwrap_or(usize::MAX);
        let edits = edit::check(selection, &Columns::of_rows(*rows), patch.clone(), limit);
        let edits = edits.map_err(|error| error.to_string())?;
        let arrival = Arrival { received_ns, place: (link.id << 40) ^ link.used };
        let mut pieces = Vec::new();
        build((self.signal, selection), &edits, 0..*rows, arrival, &mut pieces).map_err(|error| error.to_string())?;
        Ok(pieces)
    }

    fn append(&mut self, payload: &[u8], summary: Summary, received_ns: u64) {
        if self.open.as_ref().is_some_and(|block| block.payload.len() + payload.len() > MAX_BYTES) {
            self.close();
        }
        let (signal, source) = (self.signal, self.source);
        let block = self
            .open
            .get_or_insert_with(|| Block::open(Meta::empty(signal, Made::Encoded, source, received_ns), Vec::new()));
        // Payloads of one signal behind each other are their merge.
        block.payload.extend_from_slice(payload);
        block.meta.records += summary.spans;
        block.meta.spans += summary.spans;
        block.meta.cover(summary.first_start_ns, summary.last_end_ns);
        if block.payload.len() >= TARGET_BYTES {
            self.close();
        }
    }

    /// Books bytes that became no record and keeps them aside, if there is room.
    pub(super) fn dead_letter(&mut self, bytes: &[u8], reason: &'static str, received_ns: u64) {
        self.dead_letter_saying(bytes, (reason, String::new()), received_ns);
    }

    /// The same with what the plugin says of them, or what it failed on.
    fn dead_letter_saying(&mut self, bytes: &[u8], (reason, detail): (&'static str, String), received_ns: u64) {
        self.front.received.add(1);
        self.front.dead_lettered.add(1);
        self.counters.dead_lettered.add(reason, 1);
        let letter = FrontDeadLetter { source: self.source, reason, detail, received_ns, bytes: bytes.to_vec() };
        if self.dead_letters.try_send(letter).is_err() {
            self.counters.dead_letters_not_kept.add(1);
        }
    }
}

/// Payloads of rows: as few as fit.
fn build(
    of: (Signal, &Selection),
    edits: &Edits,
    rows: Range<u32>,
    arrival: Arrival,
    pieces: &mut Vec<(Vec<u8>, Summary)>,
) -> Result<(), Unbuildable> {
    let mut payload = Vec::new();
    match edit::build(of, edits, rows.clone(), arrival, &mut payload) {
        Ok(summary) => pieces.push((payload, summary)),
        Err(Unbuildable::TooBig) if rows.len() > 1 => {
            let middle = rows.start + (rows.end - rows.start) / 2;
            build(of, edits, rows.start..middle, arrival, pieces)?;
            build(of, edits, middle..rows.end, arrival, pieces)?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
