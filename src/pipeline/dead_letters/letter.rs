//! A dead letter as it is kept, found again and shown.
//!
//! A letter is the payload of a block of its store's log, little-endian: `u8` version 1, then for reason, origin (source or
//! destination) and reply each `u16` length and UTF-8 bytes, then the letter's own bytes; signal and source are the
//! block's. Its id is the block's sequence. What was replayed or purged is said by a later block: `u8` 2, then the `u64`
//! ids that are gone. It stands behind the letters that it names, and the oldest segments go first, so it is never gone
//! before them. A block that transforms could not do is `u8` 3, the same texts, `u8` 1 if it was encoded from records,
//! `u32` records, `u32` spans, `u64` earliest start, `u64` latest end, and its payload. What may not be kept is `u8` 4, the
//! same texts, and in the place of its bytes a line that says how many they were and their SHA-256.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use serde_json::{Value, json};

use super::KEPT_BYTES;
use crate::block::{Made, Meta, Signal, SourceId};
use crate::otlp::slice;
use crate::otlp::{self, Summary};
use crate::queue::{Entry, Position, Reader};
use crate::sys::digest::{hex, sha256};
use crate::telemetry::moment::iso;

const LETTER: u8 = 1;
const GONE: u8 = 2;
const BLOCK: u8 = 3;
const WITHHELD: u8 = 4;

/// Bytes of a reason, an origin or a reply that are kept: a reply is shown to people, its beginning is enough.
const TEXT_BYTES: usize = 256;

/// Entries between two pulses of a [`Scan`]: a few milliseconds.
pub(super) const PULSE_ENTRIES: u32 = 4096;

/// Ids in one block of those that are gone.
pub(super) const GONE_IDS: usize = 64 * 1024;

/// The two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreName {
    /// Records that could not be decoded.
    Front,
    /// Spans that a backend refused.
    Delivery,
}

impl StoreName {
    /// Both.
    pub const ALL: [StoreName; 2] = [StoreName::Front, StoreName::Delivery];

    /// The name of its directory, in ids and as a metric's label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            StoreName::Front => "front",
            StoreName::Delivery => "delivery",
        }
    }

    /// The store of this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<StoreName> {
        StoreName::ALL.into_iter().find(|store| store.word() == word)
    }
}

/// A letter that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its store.
    pub store: StoreName,
    /// Its number in the store.
    pub number: u64,
    /// Why it is here: a metric's label.
    pub reason: String,
    /// The source that it came by, or the destination that refused it.
    pub origin: String,
    /// What the backend said; empty for a record.
    pub reply: String,
    /// When the record was received, or the span refused, Unix nanoseconds.
    pub time_ns: u64,
    /// The signal of what a backend refused.
    pub signal: Signal,
    /// The source that a record came by.
    pub source: SourceId,
    /// What the bytes are, when they are a block that transforms could not do.
    pub block: Option<Meta>,
    /// Its bytes were not kept: they say how many there were, and their SHA-256.
    pub is_withheld: bool,
    /// The record as it was sent, or OTLP as it was in the log.
    pub bytes: Bytes,
}

impl Letter {
    /// Its id: `front-12`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{}", self.store.word(), self.number)
    }

    /// Whether only the beginning of its bytes was kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.bytes.len() >= KEPT_BYTES
    }

    /// What it is, without its bytes.
    #[must_use]
    pub fn summary(&self) -> Value {
        self.summary_of(self.bytes.len())
    }

    /// The summary of a letter of so many bytes, which it need not have with it.
    pub(super) fn summary_of(&self, bytes: usize) -> Value {
        json!({
            "id": self.id(),
            "store": self.store.word(),
            "reason": self.reason,
            "origin": self.origin,
            "reply": self.reply,
            "time": iso(self.time_ns),
            "bytes": bytes,
            "cut": bytes >= KEPT_BYTES,
            "withheld": self.is_withheld,
        })
    }

    /// Its bytes for people: OTLP as JSON, a record as the text that it was.
    #[must_use]
    pub fn content(&self) -> String {
        match self.store {
            _ if (self.store == StoreName::Delivery || self.block.is_some()) && otlp::json::knows(self.signal) => {
                let mut text = Vec::new();
                otlp::json::encode(self.signal, &[&self.bytes], &mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
            _ => String::from_utf8_lossy(&self.bytes).into_owned(),
        }
    }
}

/// The payload of a letter's block; texts are cut.
pub(super) fn encode(reason: &str, origin: &str, reply: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = encode_texts(LETTER, [reason, origin, reply]);
    out.extend_from_slice(bytes);
    out
}

/// The payload of a letter whose bytes may not be kept.
pub(super) fn encode_withheld(reason: &str, origin: &str, reply: &str, bytes: &[u8]) -> Vec<u8> {
    let digest = hex(&sha256(bytes));
    let mut out = encode_texts(WITHHELD, [reason, origin, reply]);
    out.extend_from_slice(format!("{} bytes, sha256 {digest}", bytes.len()).as_bytes());
    out
}

/// The payload of the letter of a block; `texts` are reason, source, and step with what it said.
fn encode_block((reason, origin, reply): (&str, &str, &str), meta: &Meta, bytes: &[u8]) -> Vec<u8> {
    let mut out = encode_texts(BLOCK, [reason, origin, reply]);
    out.push(u8::from(meta.made == Made::Encoded));
    out.extend_from_slice(&meta.records.to_le_bytes());
    out.extend_from_slice(&meta.spans.to_le_bytes());
    out.extend_from_slice(&meta.first_span_ns.to_le_bytes());
    out.extend_from_slice(&meta.last_span_ns.to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

/// The payloads of the letters of a block.
pub(super) fn of_block(texts: (&str, &str, &str), meta: &Meta, payload: &[u8]) -> Vec<Vec<u8>> {
    in_letters(meta, payload).iter().map(|(meta, payload)| encode_block(texts, meta, payload)).collect()
}

/// A block in parts that fit a letter each. A single row that does not is kept as far as it fits: it is shown as cut.
fn in_letters(meta: &Meta, payload: &[u8]) -> Vec<(Meta, Vec<u8>)> {
    if payload.len() < KEPT_BYTES || meta.spans < 2 {
        return vec![(*meta, payload[..payload.len().min(KEPT_BYTES)].to_vec())];
    }
    let first: Vec<u32> = (0..meta.spans / 2).collect();
    let (mut front, mut rest) = (Vec::new(), Vec::new());
    let (ahead, behind) = slice::part(meta.signal, payload, &first, &mut front, &mut rest);
    let records = meta.records.min(ahead.spans);
    let part = |summary: Summary, records| Meta { records, spans: summary.spans, ..*meta };
    let mut letters = in_letters(&part(ahead, records), &front);
    letters.extend(in_letters(&part(behind, meta.records - records), &rest));
    letters
}

fn encode_texts(version: u8, texts: [&str; 3]) -> Vec<u8> {
    let mut out = vec![version];
    for text in texts {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES)];
        out.extend_from_slice(&u16::try_from(text.len()).expect("cut above").to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The payload of a block that says which letters are gone; at most [`GONE_IDS`].
pub(super) fn encode_gone(numbers: &[u64]) -> Vec<u8> {
    let mut out = vec![GONE];
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out
}

fn decode(store: StoreName, meta: &Meta, sequence: u64, payload: &Bytes) -> Option<Letter> {
    let (version, mut rest) = payload.split_first()?;
    let mut text = || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rest = after;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let (reason, origin, reply) = (text()?, text()?, text()?);
    let block = match *version {
        LETTER | WITHHELD => None,
        BLOCK => {
            let (head, after) = rest.split_first_chunk::<25>()?;
            rest = after;
            Some(described(meta, head)?)
        }
        _ => return None,
    };
    Some(Letter {
        store,
        number: sequence,
        reason,
        origin,
        reply,
        time_ns: meta.received_ns,
        signal: meta.signal,
        source: meta.source,
        block,
        is_withheld: *version == WITHHELD,
        bytes: payload.slice_ref(rest),
    })
}

/// `None` for figures that no block has: the log would take one with them, and nobody could read it there.
fn described(meta: &Meta, head: &[u8; 25]) -> Option<Meta> {
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let described = Meta {
        made: if head[0] == 1 { Made::Encoded } else { Made::Passed },
        records: u32_at(1),
        spans: u32_at(5),
        first_span_ns: u64_at(9),
        last_span_ns: u64_at(17),
        ..*meta
    };
    (described.records <= described.spans).then_some(described)
}

/// The numbers of letters that are gone and still on disk: a bit each, for a full store may hold ten million of them.
#[derive(Debug, Default)]
pub(super) struct Gone(BTreeMap<u64, u64>);

impl Gone {
    pub(super) fn insert(&mut self, number: u64) {
        *self.0.entry(number / 64).or_default() |= 1 << (number % 64);
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.get(&(number / 64)).is_some_and(|bits| bits & (1 << (number % 64)) != 0)
    }

    /// Nobody will ask about numbers below this one again.
    pub(super) fn forget_below(&mut self, number: u64) {
        self.0 = self.0.split_off(&(number / 64));
    }
}

/// A block of a store as it is read.
struct Read<'a> {
    meta: &'a Meta,
    number: u64,
    payload: &'a Bytes,
    end: Position,
}

/// How one store is read, be it with millions of letters in it.
pub struct Scan<'a> {
    /// Which.
    pub store: StoreName,
    /// A reader from the oldest letter on.
    pub open: &'a dyn Fn() -> Reader,
    /// Called every [`PULSE_ENTRIES`] entries, so that a thread can say that it lives; it may end the reading.
    pub pulse: &'a dyn Fn() -> ControlFlow<()>,
}

impl Scan<'_> {
    /// Every letter that is still there, oldest first, with the place behind it. The store is read twice: first for what is
    /// gone.
    pub fn letters(&self, visit: &mut dyn FnMut(Letter, Position) -> ControlFlow<()>) {
        if let Some(gone) = self.gone() {
            self.letters_beside(&gone, visit);
        }
    }

    /// As [`Scan::letters`], where it is known what is gone.
    pub(super) fn letters_beside(&self, gone: &Gone, visit: &mut dyn FnMut(Letter, Position) -> ControlFlow<()>) {
        self.each(&mut |Read { meta, number, payload, end }| {
            if gone.contains(number) {
                return ControlFlow::Continue(());
            }
            decode(self.store, meta, number, payload).map_or(ControlFlow::Continue(()), |letter| visit(letter, end))
        });
    }

    /// The numbers of all letters that are gone; `None` when the reading was ended.
    pub(super) fn gone(&self) -> Option<Gone> {
        let mut gone = Gone::default();
        let to_the_end = self.each(&mut |Read { payload, .. }| {
            if let Some((&GONE, rest)) = payload.split_first() {
                let (numbers, _rest) = rest.as_chunks::<8>();
                numbers.iter().for_each(|bytes| gone.insert(u64::from_le_bytes(*bytes)));
            }
            ControlFlow::Continue(())
        });
        to_the_end.then_some(gone)
    }

    /// The number of every letter, gone or not, with the place behind it. Whatever does not say what is gone is a letter,
    /// also one of a kind that only a later version knows.
    pub(super) fn numbers(&self, visit: &mut dyn FnMut(u64, Position) -> ControlFlow<()>) {
        self.each(&mut |Read { number, payload, end, .. }| match payload.first() {
            Some(&GONE) => ControlFlow::Continue(()),
            _ => visit(number, end),
        });
    }

    /// Behind the last place before which everything is known to be gone. It stands before a letter that is there, and before
    /// whatever cannot be read: a key that is missing may come back.
    pub(super) fn gone_before(&self, gone: &Gone) -> Position {
        let mut reader = (self.open)();
        let (mut passed, mut entries) = (reader.position(), 0u32);
        while let Some(Entry::Block { sequence, payload, end, .. }) = reader.next() {
            let is_there = payload.first() != Some(&GONE) && !gone.contains(sequence);
            entries += 1;
            if is_there || (entries.is_multiple_of(PULSE_ENTRIES) && (self.pulse)().is_break()) {
                break;
            }
            passed = end;
        }
        passed
    }

    /// Every block; false when the reading was ended. What is damaged is gone; what a later version kept is not ours to show.
    fn each(&self, visit: &mut dyn FnMut(Read<'_>) -> ControlFlow<()>) -> bool {
        let mut reader = (self.open)();
        let mut entries = 0u32;
        while let Some(entry) = reader.next() {
            entries += 1;
            if entries.is_multiple_of(PULSE_ENTRIES) && (self.pulse)().is_break() {
                return false;
            }
            if let Entry::Block { meta, sequence, payload, end, .. } = entry
                && visit(Read { meta: &meta, number: sequence, payload: &payload, end }).is_break()
            {
                return false;
            }
        }
        true
    }
}

/// Which letters are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These; any when there are none. There may be as many as a request has room for, and each is looked for in every letter.
    pub ids: BTreeSet<(StoreName, u64)>,
    /// Of this store.
    pub store: Option<StoreName>,
    /// For this reason.
    pub reason: Option<String>,
    /// Of this source or destination.
    pub origin: Option<String>,
    /// Only those of a store that stand behind this one: who asks again and again goes on where he was.
    pub after: BTreeSet<(StoreName, u64)>,
}

impl Selection {
    /// Whether a letter is meant.
    #[must_use]
    pub fn takes(&self, letter: &Letter) -> bool {
        let named = self.ids.is_empty() || self.ids.contains(&(letter.store, letter.number));
        let is_behind = |(store, number): &(StoreName, u64)| *store != letter.store || letter.number > *number;
        named
            && self.after.iter().all(is_behind)
            && self.store.is_none_or(|store| store == letter.store)
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && self.origin.as_ref().is_none_or(|origin| *origin == letter.origin)
    }

    /// Whether it says which letters it means: otherwise they are all.
    #[must_use]
    pub fn names_some(&self) -> bool {
        !self.ids.is_empty() || self.store.is_some() || self.reason.is_some() || self.origin.is_some()
    }

    /// One letter by its id, such as `front-12`.
    pub fn parse_id(text: &str) -> Result<(StoreName, u64), String> {
        let parsed = text
            .rsplit_once('-')
            .and_then(|(store, number)| Some((StoreName::from_word(store)?, number.parse().ok()?)));
        parsed.ok_or_else(|| format!("{text:?} is no id of a dead letter: they look like front-12 and delivery-34"))
    }

    /// As [`Selection::to_json`] writes it. What names nothing at all is refused unless it says `all`; and so is what is not
    /// understood, for with less in it a selection takes more.
    pub fn from_json(body: &Value) -> Result<Selection, String> {
        let fields = body.as_object().ok_or("say which dead letters in a JSON object")?;
        let (mut selection, mut all) = (Selection::default(), false);
        for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let odd = || format!("{key:?}: {value} says no dead letters");
            let text = || value.as_str().map(str::to_owned).ok_or_else(odd);
            match key.as_str() {
                "ids" | "after" => {
                    let ids = if key == "ids" { &mut selection.ids } else { &mut selection.after };
                    for id in value.as_array().ok_or_else(odd)? {
                        ids.insert(Selection::parse_id(id.as_str().ok_or_else(odd)?)?);
                    }
                }
                "store" => selection.store = Some(StoreName::from_word(&text()?).ok_or_else(odd)?),
                "reason" => selection.reason = Some(text()?),
                "origin" => selection.origin = Some(text()?),
                "all" => all = value.as_bool().ok_or_else(odd)?,
                _ => return Err(format!("{key:?} is none of ids, store, reason, origin, after, all")),
            }
        }
        if !selection.names_some() && !all {
            return Err("say which dead letters: ids, store, reason, origin, or all".to_owned());
        }
        Ok(selection)
    }

    /// For the API; `all` is said when nothing else is.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let words = |ids: &BTreeSet<(StoreName, u64)>| -> Vec<String> {
            ids.iter().map(|(store, number)| format!("{}-{number}", store.word())).collect()
        };
        json!({
            "ids": words(&self.ids),
            "after": words(&self.after),
            "store": self.store.map(StoreName::word),
            "reason": self.reason,
            "origin": self.origin,
            "all": !self.names_some(),
        })
    }
}
