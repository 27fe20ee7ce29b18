//! The body of a `_bulk` request and its answer: action lines, documents, items. Sans-I/O.
//!
//! [`Items::read`] finds the lines and reads the actions, [`Items::decode`] gives the documents to the encoder, in as many
//! goes as there is room for, [`Items::answer`] writes one item an action. A document goes to the encoder whole or not at
//! all. Lines end with LF or CRLF, the last one need not. Memory is bounded before it is taken: an item costs
//! [`ITEM_BYTES`] and its names.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value;

use crate::block::MAX_BYTES;
use crate::uberagent::{Encoder, Origin, Outcome};

/// The index of an item when neither path nor action names one.
const DEFAULT_INDEX: &str = "uberagent";

/// Bytes that an item may take beside its names: itself, in a list that grows by doubling, and its part of the answer.
const ITEM_BYTES: usize = 2 * size_of::<Item>() + 160;

/// A longer action line is malformed: what is parsed to a tree has to be small.
const MAX_ACTION_BYTES: usize = 4096;

/// Bytes of an index's name or an id; Elasticsearch's own bound for ids.
const MAX_NAME_BYTES: usize = 512;

/// Why the actions of a body are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// An action line that cannot be read: where the documents are is unknown from here on.
    #[error("malformed action line [{line}], expected an object with one of index, create, update and delete")]
    Malformed {
        /// Its number, the request's first being 1.
        line: usize,
    },
    /// More than can be kept in mind.
    #[error("too many items in one request")]
    TooMany,
}

/// What an action asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Index,
    Create,
    Update,
    Delete,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Index => "index",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Delete => "delete",
        }
    }

    fn parse(name: &str) -> Option<Verb> {
        [Verb::Index, Verb::Create, Verb::Update, Verb::Delete].into_iter().find(|verb| verb.name() == name)
    }
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not decoded yet.
    Waiting,
    /// Stored, or understood and not wanted.
    Taken,
    /// Unusable: why.
    Unusable(&'static str),
    /// There was no room left.
    Busy,
}

/// One action with its document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    verb: Verb,
    index: Option<Box<str>>,
    id: Option<Box<str>>,
    /// The document's place in the body.
    document: Range<usize>,
    fate: Fate,
}

/// The items of a body, of which the first have been decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items {
    all: Vec<Item>,
    /// Items that are decided and booked.
    decided: usize,
    cost_bytes: usize,
}

/// Records by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Became an item of a block.
    pub encoded: u64,
    /// Understood and not wanted.
    pub filtered: u64,
    /// Unusable, or without room.
    pub rejected: u64,
    /// Fields that were left out of those encoded.
    pub fields_dropped: u64,
}

impl Items {
    /// Reads the actions of a body, as long as items and answer take at most `max_bytes`.
    pub fn read(body: &[u8], max_bytes: usize) -> Result<Items, Unread> {
        let (mut all, mut cost_bytes) = (Vec::new(), 0);
        let mut lines = Lines { body, at: 0, line: 0 };
        while let Some(action) = lines.next() {
            let action = &body[action];
            if action.trim_ascii().is_empty() {
                continue;
            }
            let Action { verb, index, id } = self::action(action).ok_or(Unread::Malformed { line: lines.line })?;
            let names = [&index, &id].into_iter().flatten().map(|name| name.len()).sum::<usize>();
            cost_bytes += ITEM_BYTES + 2 * names;
            if cost_bytes > max_bytes {
                return Err(Unread::TooMany);
            }
            let document = if verb == Verb::Delete { None } else { lines.next() };
            let fate = match (verb, &document) {
                (Verb::Update | Verb::Delete, _) => Fate::Unusable("only index and create are understood"),
                (_, None) => Fate::Unusable("the document is missing"),
                (_, Some(document)) if document.len() > MAX_BYTES => {
                    Fate::Unusable("the document is bigger than 1 MiB")
                }
                (Verb::Index | Verb::Create, Some(_)) => Fate::Waiting,
            };
            all.push(Item { verb, index, id, document: document.unwrap_or(0..0), fate });
        }
        Ok(Items { all, decided: 0, cost_bytes })
    }

    /// Bytes that items and answer take at most.
    pub fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// Bytes of the next document to be decoded; `None` when every item is decided.
    pub fn next_bytes(&self) -> Option<usize> {
        let next = self.all.get(self.decided)?;
        Some(if next.fate == Fate::Waiting { next.document.len() } else { 0 })
    }

    /// Gives documents to the encoder as long as they fit into `room_bytes`.
    pub fn decode(&mut self, body: &mut [u8], encoder: &mut Encoder, room_bytes: usize, received_ns: u64) -> Counts {
        let mut counts = Counts::default();
        let mut left_bytes = room_bytes;
        for item in &mut self.all[self.decided..] {
            if item.fate == Fate::Waiting {
                let Some(left) = left_bytes.checked_sub(item.document.len()) else { break };
                left_bytes = left;
                let outcome = encoder.json(&body[item.document.clone()], Origin::default(), received_ns);
                item.fate = fate(outcome, &mut counts);
            }
            counts.rejected += u64::from(matches!(item.fate, Fate::Unusable(_)));
            self.decided += 1;
        }
        counts
    }

    /// There is no room for what is not decided yet.
    pub fn refuse_rest(&mut self) -> Counts {
        let rest = &mut self.all[self.decided..];
        rest.iter_mut().filter(|item| item.fate == Fate::Waiting).for_each(|item| item.fate = Fate::Busy);
        let counts = Counts { rejected: rest.len() as u64, ..Counts::default() };
        self.decided = self.all.len();
        counts
    }
}

/// The lines of a body, without their ends.
struct Lines<'a> {
    body: &'a [u8],
    at: usize,
    line: usize,
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let rest = self.body.get(self.at..).filter(|rest| !rest.is_empty())?;
        let start = self.at;
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += length + 1;
        self.line += 1;
        let end = start + length;
        Some(start..if end > start && self.body[end - 1] == b'\r' { end - 1 } else { end })
    }
}

/// What an action line says.
struct Action {
    verb: Verb,
    index: Option<Box<str>>,
    id: Option<Box<str>>,
}

fn action(line: &[u8]) -> Option<Action> {
    // What uberAgent and most shippers send for every document.
    match line {
        br#"{"create":{}}"# => return Some(Action { verb: Verb::Create, index: None, id: None }),
        br#"{"index":{}}"# => return Some(Action { verb: Verb::Index, index: None, id: None }),
        _ if line.len() > MAX_ACTION_BYTES => return None,
        _ => {}
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(line) else { return None };
    let mut entries = object.into_iter();
    let (name, metadata) = entries.next().filter(|_| entries.next().is_none())?;
    let Value::Object(metadata) = metadata else { return None };
    let text = |key| match metadata.get(key).and_then(Value::as_str) {
        Some(name) if name.len() > MAX_NAME_BYTES => Err(()),
        name => Ok(name.map(Box::from)),
    };
    Some(Action { verb: Verb::parse(&name)?, index: text("_index").ok()?, id: text("_id").ok()? })
}

fn fate(outcome: Outcome, counts: &mut Counts) -> Fate {
    match outcome {
        Outcome::Encoded { fields_dropped } => {
            counts.encoded += 1;
            counts.fields_dropped += u64::from(fields_dropped);
            Fate::Taken
        }
        Outcome::Filtered(_) => {
            counts.filtered += 1;
            Fate::Taken
        }
        Outcome::DeadLetter(reason) => Fate::Unusable(reason),
        // An action's document is a record, also when it is empty: the sender is told, so it is booked.
        Outcome::Blank => Fate::Unusable("the document is empty"),
    }
}

impl Items {
    /// The answer to a request whose taken items are durable.
    pub fn answer(&self, index: &str, took: Duration, received_ns: u64) -> Vec<u8> {
        let items = &self.all;
        let errors = items.iter().any(|item| item.fate != Fate::Taken);
        let mut out = Vec::with_capacity(64 + items.len() * 96);
        out.extend_from_slice(format!(r#"{{"took":{},"errors":{errors},"items":["#, took.as_millis()).as_bytes());
        let index = if index.is_empty() { DEFAULT_INDEX } else { index };
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{""#);
            out.extend_from_slice(item.verb.name().as_bytes());
            out.extend_from_slice(br#"":{"_index":"#);
            put_text(&mut out, item.index.as_deref().unwrap_or(index));
            out.extend_from_slice(br#","_id":"#);
            match &item.id {
                Some(id) => put_text(&mut out, id),
                None => out.extend_from_slice(format!(r#""{received_ns:x}-{position:x}""#).as_bytes()),
            }
            match item.fate {
                Fate::Waiting | Fate::Taken => out.extend_from_slice(br#","status":201,"result":"created"}}"#),
                Fate::Unusable(reason) => put_error(&mut out, 400, "mapper_parsing_exception", reason),
                Fate::Busy => put_error(&mut out, 429, "es_rejected_execution_exception", "no room at the moment"),
            }
        }
        out.extend_from_slice(b"]}");
        out
    }
}

fn put_error(out: &mut Vec<u8>, status: u16, kind: &str, reason: &str) {
    out.extend_from_slice(format!(r#","status":{status},"error":{{"type":"{kind}","reason":"#).as_bytes());
    put_text(out, reason);
    out.extend_from_slice(b"}}}");
}

/// Appends a JSON string; senders control what is in it.
fn put_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing text to a vector cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Items {
        Items::read(body.as_bytes(), 1 << 20).unwrap()
    }

    #[test]
    fn actions_and_documents_are_told_apart() {
        let body = "{\"create\":{}}\r\n{\"a\":1}\r\n\n{\"delete\":{\"_id\":\"x\"}}\n{\"index\":{\"_index\":\"i\",\"_id\":\"7\"}}\n{\"b\":2}";
        let items = parse(body).all;
        assert_eq!(items.iter().map(|item| item.verb).collect::<Vec<_>>(), [Verb::Create, Verb::Delete, Verb::Index]);
        assert_eq!(&body[items[0].document.clone()], "{\"a\":1}");
        assert_eq!(&body[items[2].document.clone()], "{\"b\":2}");
        assert_eq!(items[2].index.as_deref(), Some("i"));
        assert_eq!(items[2].id.as_deref(), Some("7"));
        assert!(matches!(items[1].fate, Fate::Unusable(_)));
    }

    #[test]
    fn a_malformed_action_names_its_line() {
        for bad in ["nonsense", "{}", "[]", "{\"index\":1}", "{\"index\":{},\"create\":{}}", "{\"frobnicate\":{}}"] {
            let body = format!("{{\"create\":{{}}}}\n{{\"a\":1}}\n{bad}\n{{}}\n");
            assert_eq!(Items::read(body.as_bytes(), 1 << 20), Err(Unread::Malformed { line: 3 }), "{bad}");
        }
    }

    #[test]
    fn items_are_refused_before_they_take_too_much() {
        let body = "{\"delete\":{}}\n".repeat(5);
        assert_eq!(Items::read(body.as_bytes(), 5 * ITEM_BYTES).unwrap().cost_bytes(), 5 * ITEM_BYTES);
        assert_eq!(Items::read(body.as_bytes(), 5 * ITEM_BYTES - 1), Err(Unread::TooMany));
        let named = format!("{{\"delete\":{{\"_id\":\"{}\"}}}}\n", "x".repeat(MAX_NAME_BYTES));
        assert_eq!(Items::read(named.as_bytes(), ITEM_BYTES + MAX_NAME_BYTES), Err(Unread::TooMany));
        let long = named.replace("\"x", "\"xx");
        assert_eq!(Items::read(long.as_bytes(), 1 << 20), Err(Unread::Malformed { line: 1 }));
    }

    #[test]
    fn a_missing_document_is_the_items_fault() {
        assert!(matches!(parse("{\"create\":{}}\n").all[0].fate, Fate::Unusable(_)));
    }

    #[test]
    fn the_answer_is_json_whatever_the_sender_wrote() {
        let mut items = parse(
            "{\"index\":{\"_index\":\"a\\\"b\\n\",\"_id\":\"\\u0000\"}}\n{}\n{\"create\":{}}\n{}\n{\"update\":{}}\n{}\n",
        );
        items.all[0].fate = Fate::Taken;
        items.all[1].fate = Fate::Busy;
        let answer: Value = serde_json::from_slice(&items.answer("", Duration::from_millis(3), 255)).unwrap();
        assert_eq!(answer["took"], 3);
        assert_eq!(answer["errors"], true);
        assert_eq!(answer["items"][0]["index"]["_index"], "a\"b\n");
        assert_eq!(answer["items"][0]["index"]["status"], 201);
        assert_eq!(answer["items"][1]["create"]["_id"], "ff-1");
        assert_eq!(answer["items"][1]["create"]["status"], 429);
        assert_eq!(answer["items"][2]["update"]["error"]["type"], "mapper_parsing_exception");
    }
}
