//! One edited message: a record, a resource or a scope, copied around what is replaced.
//!
//! The edits of a message become splices of its body. Where gathering has remembered the places (a record whose edited
//! fields stand there once) nothing is read again; else the message is walked.

use super::super::columns::selection::{STATUS, Selection, Target};
use super::super::columns::value::{odd_pair, plain_pair};
use super::super::columns::{Kind, Level, Spot};
use super::super::fields::Fields;
use super::super::writer::{push_bytes_field, push_varint, varint_bytes};
use super::New;

/// One edit of the message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Operation<'a> {
    pub(super) field: usize,
    pub(super) new: New<'a>,
}

/// Bytes of the body that are replaced: offsets into the body and into the texts.
#[derive(Clone, Copy, Debug)]
struct Splice {
    start: usize,
    end: usize,
    text_start: usize,
    text_end: usize,
}

/// Makes edited messages, one after the other; its memory is used again.
pub(super) struct Editor<'a> {
    selection: &'a Selection,
    /// The edits of the next message.
    pub(super) operations: Vec<Operation<'a>>,
    splices: Vec<Splice>,
    /// What is put in.
    texts: Vec<u8>,
    /// The bodies of the message's statuses, where there are several.
    status: Vec<u8>,
    /// Which operations have met what they change.
    met: Vec<bool>,
}

impl<'a> Editor<'a> {
    pub(super) fn new(selection: &'a Selection) -> Editor<'a> {
        let (operations, splices, texts, status, met) = Default::default();
        Editor { selection, operations, splices, texts, status, met }
    }

    /// Appends the record with this body as a field, edited at the places that `spots` names by the selection's slots;
    /// `body_at` is the body's offset into what the places count in.
    pub(super) fn record(&mut self, body: &[u8], body_at: usize, spots: &[Spot], out: &mut Vec<u8>) {
        self.begin();
        if !self.splices_from(body, body_at, spots) {
            self.begin();
            self.splices_by_walk(body, Level::Record);
        }
        self.emit(0x12, body, out);
    }

    /// Appends a new record as a field: this body, and what is set.
    pub(super) fn made(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.begin();
        self.splices_by_walk(body, Level::Record);
        self.emit(0x12, body, out);
    }

    /// Appends the resource or scope with this body as a field; `None` for one that is not there.
    pub(super) fn group(&mut self, body: Option<&[u8]>, level: Level, out: &mut Vec<u8>) {
        self.begin();
        self.splices_by_walk(body.unwrap_or_default(), level);
        if body.is_some() || !self.splices.is_empty() {
            self.emit(0x0a, body.unwrap_or_default(), out);
        }
    }

    fn begin(&mut self) {
        self.splices.clear();
        self.texts.clear();
    }

    /// Makes splices of the places that gathering has found; false if they do not suffice.
    fn splices_from(&mut self, body: &[u8], body_at: usize, spots: &[Spot]) -> bool {
        let mut status_is_done = false;
        for index in 0..self.operations.len() {
            let Operation { field, new } = self.operations[index];
            let target = self.selection.targets[field];
            let spot = self.selection.slots[field].map_or(Spot::SEVERAL, |slot| spots[slot]);
            if spot == Spot::SEVERAL {
                return false;
            }
            let place = (spot != Spot::ABSENT).then(|| (spot.start as usize - body_at, spot.end as usize - body_at));
            let text_start = self.texts.len();
            if target.number() == Some(STATUS) {
                if status_is_done {
                    continue;
                }
                status_is_done = true;
                let old = place.map(|(start, end)| &body[start..end]);
                self.push_status(old.and_then(|raw| Fields::of(raw).next()).map(|field| field.value.bytes()));
            } else {
                self.push_field(field, new);
            }
            self.splice(place, body.len(), text_start);
        }
        self.splices.sort_by_key(|splice| splice.start);
        true
    }

    /// Replaces `place` by the texts from `text_start` on; without a place they go to the end of the message.
    fn splice(&mut self, place: Option<(usize, usize)>, body_bytes: usize, text_start: usize) {
        let (start, end) = place.unwrap_or((body_bytes, body_bytes));
        let text_end = self.texts.len();
        if start < end || text_start < text_end {
            self.splices.push(Splice { start, end, text_start, text_end });
        }
    }

    /// Makes splices of a message, of which nothing is known yet.
    fn splices_by_walk(&mut self, body: &[u8], level: Level) {
        let number = u32::from(self.selection.layout.attribute_tags[level as usize] >> 3);
        self.met.clear();
        self.met.resize(self.operations.len(), false);
        let mut at = 0;
        for field in Fields::of(body) {
            let place = (at, at + field.raw.len());
            at = place.1;
            let found = if field.number == number {
                let pair = field.value.bytes();
                let key = plain_pair(pair).map_or_else(|| odd_pair(pair).0, |(key, _)| key);
                self.position(|target, wanted| target == Target::Attribute && wanted.as_bytes() == key)
            } else if level == Level::Record {
                self.position(|target, _| target.number().is_some_and(|number| u32::from(number) == field.number))
            } else {
                None
            };
            let Some(index) = found else { continue };
            let text_start = self.texts.len();
            let is_first = !std::mem::replace(&mut self.met[index], true);
            if is_first && matches!(self.operations[index].new, New::First) {
                continue;
            }
            if is_first {
                self.push_operation(index, body);
            }
            self.splice(Some(place), body.len(), text_start);
        }
        for index in 0..self.operations.len() {
            if !self.met[index] && self.same_field(index) == index {
                let text_start = self.texts.len();
                self.push_operation(index, body);
                self.splice(None, body.len(), text_start);
            }
        }
    }

    /// The first operation on what `matches`.
    fn position(&self, matches: impl Fn(Target, &str) -> bool) -> Option<usize> {
        self.operations.iter().position(|operation| {
            matches(self.selection.targets[operation.field], &self.selection.fields()[operation.field].key)
        })
    }

    /// The first operation on the field of the message that the operation `index` changes: both parts of a status are one.
    fn same_field(&self, index: usize) -> usize {
        let number = self.selection.targets[self.operations[index].field].number();
        if number == Some(STATUS) {
            self.position(|target, _| target.number() == number).unwrap_or(index)
        } else {
            index
        }
    }

    fn push_operation(&mut self, index: usize, body: &[u8]) {
        let Operation { field, new } = self.operations[index];
        if self.selection.targets[field].number() != Some(STATUS) {
            return self.push_field(field, new);
        }
        // The concatenation of messages is their merge.
        let mut old = std::mem::take(&mut self.status);
        old.clear();
        let statuses = Fields::of(body).each(u32::from(STATUS));
        let count = statuses.inspect(|status| old.extend_from_slice(status)).count();
        self.push_status((count > 0).then_some(&old));
        self.status = old;
    }

    /// Appends the status that the operations make of `old`. Nothing becomes of nothing.
    fn push_status(&mut self, old: Option<&[u8]>) {
        let (mut code, mut message) = (None, None);
        for operation in &self.operations {
            match self.selection.targets[operation.field] {
                Target::StatusCode => code = Some(operation.new),
                Target::StatusMessage => message = Some(operation.new),
                _ => {}
            }
        }
        let sets = |new: Option<New<'_>>| matches!(new, Some(New::Text(_) | New::Num(_)));
        if old.is_none() && !sets(code) && !sets(message) {
            return;
        }
        let mut status = Vec::new();
        for field in Fields::of(old.unwrap_or_default()) {
            if !(field.number == 2 && message.is_some() || field.number == 3 && code.is_some()) {
                status.extend_from_slice(field.raw);
            }
        }
        if let Some(New::Text(text)) = message {
            push_bytes_field(&mut status, 0x12, text);
        }
        if let Some(New::Num(number)) = code {
            status.push(0x18);
            push_varint(&mut status, number.cast_unsigned());
        }
        push_bytes_field(&mut self.texts, STATUS << 3 | 2, &status);
    }

    /// Appends a field with its new value; nothing for one that is removed.
    fn push_field(&mut self, field: usize, new: New<'_>) {
        let declared = &self.selection.fields()[field];
        let out = &mut self.texts;
        match (self.selection.targets[field], new) {
            (_, New::Unset | New::First) => {}
            (Target::Text(number), New::Text(text)) => push_bytes_field(out, number << 3 | 2, text),
            (Target::Number(number), New::Num(value)) => {
                out.push(number << 3);
                push_varint(out, value.cast_unsigned());
            }
            // The check has made fields of them.
            (Target::Events(_) | Target::Links(_), New::Text(fields)) => out.extend_from_slice(fields),
            (Target::Value(number), new) => {
                out.push(number << 3 | 2);
                push_value(declared.kind, new, out);
            }
            (_, new) => {
                let key = declared.key.as_bytes();
                let key_bytes = 1 + varint_bytes(key.len() as u64) + key.len();
                let value_bytes = value_bytes(declared.kind, new);
                out.push(self.selection.layout.attribute_tags[declared.level as usize]);
                push_varint(out, (key_bytes + 1 + varint_bytes(value_bytes as u64) + value_bytes) as u64);
                push_bytes_field(out, 0x0a, key);
                out.push(0x12);
                push_value(declared.kind, new, out);
            }
        }
    }

    /// Appends the message as a field: what is left of the body, and the texts in their places.
    fn emit(&self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        let removed: usize = self.splices.iter().map(|splice| splice.end - splice.start).sum();
        out.push(tag);
        push_varint(out, (body.len() - removed + self.texts.len()) as u64);
        let mut at = 0;
        for splice in &self.splices {
            out.extend_from_slice(&body[at..splice.start]);
            out.extend_from_slice(&self.texts[splice.text_start..splice.text_end]);
            at = splice.end;
        }
        out.extend_from_slice(&body[at..]);
    }
}

/// Bytes of the `AnyValue` of a kind.
fn value_bytes(kind: Kind, new: New<'_>) -> usize {
    match (kind, new) {
        (Kind::Json, New::Text(value)) => value.len(),
        (_, New::Text(text)) => 1 + varint_bytes(text.len() as u64) + text.len(),
        (Kind::Double, _) => 9,
        (_, New::Num(number)) => 1 + varint_bytes(number.cast_unsigned()),
        (_, New::Unset | New::First) => 0,
    }
}

/// Appends length and body of the `AnyValue` of a kind.
fn push_value(kind: Kind, new: New<'_>, out: &mut Vec<u8>) {
    push_varint(out, value_bytes(kind, new) as u64);
    match (kind, new) {
        (Kind::Json, New::Text(value)) => out.extend_from_slice(value),
        (Kind::Bytes, New::Text(bytes)) => push_bytes_field(out, 0x3a, bytes),
        (_, New::Text(text)) => push_bytes_field(out, 0x0a, text),
        (Kind::Double, New::Num(bits)) => {
            out.push(0x21);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        (Kind::Boolean, New::Num(value)) => {
            out.push(0x10);
            push_varint(out, value.cast_unsigned());
        }
        (_, New::Num(value)) => {
            out.push(0x18);
            push_varint(out, value.cast_unsigned());
        }
        (_, New::Unset | New::First) => {}
    }
}
