//! The walk over a payload that fills columns. The hot path: one pass, no object, no allocation once the columns have
//! grown.
//!
//! An attribute that nobody wants costs its lengths and one look at the length and first letter of its key. Values are only
//! read where the key matches. Owned by the thread that owns the columns.

use std::collections::HashSet;

use super::super::fields::{Field as WireField, Fields, Value};
use super::super::{Summary, json};
use super::selection::{Keys, STATUS, Target, Wanted, key_bit};
use super::value::{Cell, cell, odd_pair, plain_pair, push_json};
use super::{Column, Columns, Field, FieldError, Groups, Kind, Level, NumColumn, Place, Selection, Spot, TextColumn};
use crate::block::Signal;

/// Fields that a record has by number, the last of which is `Span.flags`.
const RECORD_NUMBERS: usize = 17;

impl Selection {
    /// Fills `columns` from a checked payload, which is under 4 GiB, as all blocks are by far.
    pub fn gather(&self, payload: &[u8], columns: &mut Columns) {
        assert!(u32::try_from(payload.len()).is_ok(), "a payload of {} bytes", payload.len());
        self.reset(columns);
        columns.payload_bytes = payload.len();
        let mut walk = Walk { selection: self, base: payload.as_ptr() as usize, columns };
        for field in Fields::of(payload) {
            if let WireField { number: 1, value: Value::Bytes(body), .. } = field {
                walk.resource(field, body);
            }
        }
        self.finish(columns);
    }

    fn reset(&self, columns: &mut Columns) {
        for groups in [&mut columns.resources, &mut columns.scopes] {
            groups.first_rows.clear();
            groups.places.clear();
        }
        columns.records.clear();
        columns.times.clear();
        columns.spots.clear();
        columns.duplicates.clear();
        columns.summary = Summary::EMPTY;
        let mut count = 0;
        for wanted in self.wanted().filter(|wanted| wanted.column.is_some()) {
            count += 1;
            let index = wanted.column.unwrap_or_default();
            let is_num = wanted.kind.is_num();
            while columns.columns.len() <= index {
                columns.columns.push(Column::Text(TextColumn::default()));
            }
            match &mut columns.columns[index] {
                Column::Text(text) if !is_num => text.clear(),
                Column::Num(num) if is_num => num.clear(),
                other if is_num => *other = Column::Num(NumColumn::default()),
                other => *other = Column::Text(TextColumn::default()),
            }
        }
        columns.columns.truncate(count);
    }

    fn wanted(&self) -> impl Iterator<Item = &Wanted> {
        self.keys.iter().flat_map(|keys| &keys.keys).chain(&self.intrinsics)
    }

    /// A column that has a cell for each row or group names none.
    fn finish(&self, columns: &mut Columns) {
        let groups = [columns.records.len(), columns.resources.places.len(), columns.scopes.places.len()];
        let attributes =
            self.keys.iter().zip(groups).flat_map(|(keys, cells)| keys.keys.iter().map(move |w| (w, cells)));
        for (wanted, cells) in attributes.chain(self.intrinsics.iter().map(|wanted| (wanted, groups[0]))) {
            let Some(column) = wanted.column else { continue };
            let (Column::Text(TextColumn { rows, .. }) | Column::Num(NumColumn { rows, .. })) =
                &mut columns.columns[column];
            if rows.len() == cells {
                rows.clear();
            }
        }
    }
}

impl TextColumn {
    fn clear(&mut self) {
        self.rows.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    /// Ends the cell of `row`, whose bytes were appended.
    #[inline]
    fn end(&mut self, row: u32) {
        self.rows.push(row);
        self.ends.push(u32::try_from(self.bytes.len()).expect("the cells of a payload under 1 MiB are under 4 GiB"));
    }
}

impl NumColumn {
    fn clear(&mut self) {
        self.rows.clear();
        self.values.clear();
    }
}

impl Column {
    #[inline]
    fn push(&mut self, row: u32, cell: &Cell<'_>) {
        match (self, cell) {
            (Column::Text(column), Cell::Text(text)) => {
                column.bytes.extend_from_slice(text);
                column.end(row);
            }
            (Column::Text(column), Cell::Json(value)) => {
                push_json(value, 0, &mut column.bytes);
                column.end(row);
            }
            (Column::Num(column), Cell::Num(number)) => {
                column.rows.push(row);
                column.values.push(*number);
            }
            (Column::Num(_), Cell::Text(_) | Cell::Json(_)) | (Column::Text(_), Cell::Num(_)) | (_, Cell::None) => {}
        }
    }

    fn push_hex(&mut self, row: u32, id: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if let Column::Text(column) = self {
            column
                .bytes
                .extend(id.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)]));
            column.end(row);
        }
    }
}

struct Walk<'a> {
    selection: &'a Selection,
    /// Address of the payload: offsets are differences of addresses.
    base: usize,
    columns: &'a mut Columns,
}

impl Walk<'_> {
    fn offset(&self, bytes: &[u8]) -> u32 {
        u32::try_from(bytes.as_ptr() as usize - self.base).expect("the payload is under 4 GiB")
    }

    fn place(&self, field: WireField<'_>, body: &[u8]) -> Place {
        let start = self.offset(field.raw);
        let body_start = self.offset(body);
        Place { start, body: body_start, end: body_start + u32_of(body.len()) }
    }

    fn resource(&mut self, field: WireField<'_>, body: &[u8]) {
        let first_row = u32_of(self.columns.records.len());
        for field in Fields::of(body) {
            if let WireField { number: 2, value: Value::Bytes(body), .. } = field {
                self.scope(field, body);
            }
        }
        if u32_of(self.columns.records.len()) > first_row {
            let place = self.place(field, body);
            self.columns.resources.push(first_row, place);
            self.group_attributes(Level::Resource, first_row, body);
        }
    }

    fn scope(&mut self, field: WireField<'_>, body: &[u8]) {
        let first_row = u32_of(self.columns.records.len());
        for field in Fields::of(body) {
            if let WireField { number: 2, value: Value::Bytes(body), .. } = field {
                let place = self.place(field, body);
                self.record(place, body);
            }
        }
        if u32_of(self.columns.records.len()) > first_row {
            let place = self.place(field, body);
            self.columns.scopes.push(first_row, place);
            self.group_attributes(Level::Scope, first_row, body);
            self.scope_texts(first_row, body);
        }
    }

    /// Reads the attributes of the resource or scope that stands in field 1 of `body`; several are one.
    fn group_attributes(&mut self, level: Level, first_row: u32, body: &[u8]) {
        let keys = &self.selection.keys[level as usize];
        if keys.keys.is_empty() {
            return;
        }
        let number = u32::from(self.selection.layout.attribute_tags[level as usize] >> 3);
        let columns = &mut *self.columns;
        let mut row = Row {
            row: first_row,
            seen: 0,
            base: self.base,
            spots: &mut [],
            columns: &mut columns.columns,
            duplicates: &mut columns.duplicates,
        };
        for pair in Fields::of(body).each(1).flat_map(|group| Fields::of(group).each(number)) {
            row.attribute(keys, pair, pair);
        }
    }

    /// Gives every row of the scope what is the scope's.
    fn scope_texts(&mut self, first_row: u32, body: &[u8]) {
        for wanted in &self.selection.intrinsics {
            let (Target::ScopeText(number), Some(column)) = (wanted.target, wanted.column) else { continue };
            let text = Fields::of(body).each(1).filter_map(|scope| Fields::of(scope).bytes(number.into())).last();
            for row in first_row..u32_of(self.columns.records.len()) {
                text_cell(&mut self.columns.columns[column], row, text.unwrap_or_default());
            }
        }
    }

    fn record(&mut self, place: Place, body: &[u8]) {
        let selection = self.selection;
        let layout = selection.layout;
        let columns = &mut *self.columns;
        let spots_from = columns.spots.len();
        columns.spots.resize(spots_from + selection.slot_count, Spot::ABSENT);
        let row = u32_of(columns.records.len());
        let spots = &mut columns.spots[spots_from..];
        let mut row = Row {
            row,
            seen: 0,
            base: self.base,
            spots,
            columns: &mut columns.columns,
            duplicates: &mut columns.duplicates,
        };
        let (mut start_ns, mut end_ns) = (0, 0);
        let mut plain = PlainFields { found: 0, several: 0, raw: [&[]; RECORD_NUMBERS] };
        let ([attribute_tag, ..], keys) = (layout.attribute_tags, &selection.keys[0]);
        let mut rest = pass_unwanted(keys, attribute_tag, body);
        while let Some(field) = Fields::of(rest).next() {
            rest = pass_unwanted(keys, attribute_tag, &rest[field.raw.len()..]);
            let Some(&tag) = field.raw.first() else { continue };
            if tag == attribute_tag {
                row.attribute(keys, field.value.bytes(), field.raw);
                continue;
            }
            if tag == layout.start_tag {
                start_ns = field.value.number();
            }
            if tag == layout.end_tag {
                end_ns = field.value.number();
            }
            if field.number < 32 && selection.numbers & 1 << field.number != 0 {
                plain.note(field);
            }
        }
        if !selection.intrinsics.is_empty() {
            plain.give(&selection.intrinsics, (start_ns, end_ns), body, &mut row);
        }
        columns.records.push(place);
        columns.times.push((start_ns, end_ns));
        columns.summary.add_span(start_ns, end_ns);
    }
}

/// What is left of a message behind the attributes at its front that nobody wants, as far as they are short, as most are,
/// and written in the plain way.
#[inline]
fn pass_unwanted<'a>(keys: &Keys, attribute_tag: u8, message: &'a [u8]) -> &'a [u8] {
    let mut rest = message;
    while let &[tag, bytes @ ..0x80, ref body @ ..] = rest
        && tag == attribute_tag
        && let Some((pair, next)) = body.split_at_checked(usize::from(bytes))
        && plain_pair(pair).is_some_and(|(key, _)| keys.bits & key_bit(key) == 0)
    {
        rest = next;
    }
    rest
}

impl Groups {
    fn push(&mut self, first_row: u32, place: Place) {
        self.first_rows.push(first_row);
        self.places.push(place);
    }
}

fn u32_of(number: usize) -> u32 {
    u32::try_from(number).expect("the payload is under 4 GiB")
}

/// The row that is being read.
struct Row<'a> {
    row: u32,
    /// The bits of the attributes that it has had.
    seen: u64,
    base: usize,
    /// Its part of [`Columns::spots`].
    spots: &'a mut [Spot],
    columns: &'a mut [Column],
    duplicates: &'a mut Vec<(usize, u32)>,
}

impl Row<'_> {
    /// Looks at one attribute, which stands in the payload as `raw` with its tag.
    #[inline]
    fn attribute(&mut self, keys: &Keys, pair: &[u8], raw: &[u8]) {
        match plain_pair(pair) {
            Some((key, _)) if keys.bits & key_bit(key) == 0 => {}
            Some((key, value)) => self.matching(keys, key, value, raw),
            None => {
                let (key, value) = odd_pair(pair);
                self.matching(keys, key, &value, raw);
            }
        }
    }

    fn matching(&mut self, keys: &Keys, key: &[u8], value: &[u8], raw: &[u8]) {
        for wanted in keys.keys.iter().filter(|wanted| *wanted.key == *key) {
            let again = self.seen & wanted.bit != 0;
            self.seen |= wanted.bit;
            self.spot(wanted, raw, again);
            if again && wanted.write {
                self.duplicates.push((wanted.bit.trailing_zeros() as usize, self.row));
            }
            if let Some(column) = wanted.column.filter(|_| !again) {
                self.columns[column].push(self.row, &cell(value, wanted.kind));
            }
        }
    }

    #[inline]
    fn spot(&mut self, wanted: &Wanted, raw: &[u8], again: bool) {
        if let Some(spot) = wanted.slot.and_then(|slot| self.spots.get_mut(slot)) {
            let start = u32_of(raw.as_ptr() as usize - self.base);
            *spot = if again { Spot::SEVERAL } else { Spot { start, end: start + u32_of(raw.len()) } };
        }
    }
}

/// The fields of a record that intrinsics are made of, by number.
struct PlainFields<'a> {
    found: u32,
    several: u32,
    raw: [&'a [u8]; RECORD_NUMBERS],
}

impl<'a> PlainFields<'a> {
    fn note(&mut self, field: WireField<'a>) {
        let bit = 1 << field.number;
        self.several |= self.found & bit;
        self.found |= bit;
        if let Some(raw) = self.raw.get_mut(field.number as usize) {
            *raw = field.raw;
        }
    }

    /// The value of a field; of several the last, as protobuf has it.
    fn value(&self, number: u8) -> Value<'a> {
        Fields::of(self.raw[usize::from(number)]).next().map_or(Value::Bytes(&[]), |field| field.value)
    }

    /// The body of the message that a field is; several are one.
    fn message(&self, number: u8, record: &'a [u8], together: &'a mut Vec<u8>) -> &'a [u8] {
        if self.several & 1 << number == 0 {
            return self.value(number).bytes();
        }
        together.clear();
        Fields::of(record).each(u32::from(number)).for_each(|body| together.extend_from_slice(body));
        together
    }

    fn give(&self, intrinsics: &[Wanted], times: (u64, u64), record: &[u8], row: &mut Row<'_>) {
        for wanted in intrinsics {
            let number = wanted.target.number().unwrap_or_default();
            if self.found & 1 << number != 0 {
                row.spot(wanted, self.raw[usize::from(number)], self.several & 1 << number != 0);
            }
            let Some(column) = wanted.column.map(|column| &mut row.columns[column]) else { continue };
            let mut together = Vec::new();
            match wanted.target {
                Target::Id(_) => match self.value(number).bytes() {
                    [] => {}
                    id if wanted.kind == Kind::Bytes => column.push(row.row, &Cell::Text(id)),
                    id => column.push_hex(row.row, id),
                },
                Target::Text(_) => text_cell(column, row.row, self.value(number).bytes()),
                Target::Number(_) => column.push(row.row, &Cell::Num(self.value(number).number().cast_signed())),
                Target::Value(_) if self.found & 1 << number == 0 => {}
                Target::Value(_) => {
                    let value = self.message(number, record, &mut together);
                    column.push(row.row, &cell(value, wanted.kind));
                }
                Target::StatusCode => {
                    let status = Fields::of(self.message(STATUS, record, &mut together));
                    let code = status.filter(|field| field.number == 3).last().map_or(0, |field| field.value.number());
                    column.push(row.row, &Cell::Num(code.cast_signed()));
                }
                Target::StatusMessage => {
                    let status = Fields::of(self.message(STATUS, record, &mut together));
                    text_cell(column, row.row, status.bytes(2).unwrap_or_default());
                }
                Target::Events(_) => list_cell(column, row.row, Fields::of(record).each(number.into()), json::event),
                Target::Links(_) => list_cell(column, row.row, Fields::of(record).each(number.into()), json::link),
                Target::Start | Target::End | Target::Duration => time_cell(column, row.row, wanted.target, times),
                Target::Attribute | Target::ScopeText(_) => {}
            }
        }
    }
}

fn text_cell(column: &mut Column, row: u32, text: &[u8]) {
    if !text.is_empty() {
        column.push(row, &Cell::Text(text));
    }
}

/// A repeated message as a JSON array, each element written by `push`.
fn list_cell<'a>(
    column: &mut Column,
    row: u32,
    messages: impl Iterator<Item = &'a [u8]>,
    push: fn(&[u8], &mut Vec<u8>),
) {
    let Column::Text(column) = column else { return };
    let start = column.bytes.len();
    for message in messages {
        column.bytes.push(if column.bytes.len() == start { b'[' } else { b',' });
        push(message, &mut column.bytes);
    }
    if column.bytes.len() > start {
        column.bytes.push(b']');
        column.end(row);
    }
}

/// Times are given where they are stated; what ends before it starts has no duration.
fn time_cell(column: &mut Column, row: u32, target: Target, (start_ns, end_ns): (u64, u64)) {
    let (is_stated, time_ns) = match target {
        Target::Start => (start_ns != 0, start_ns),
        Target::End => (end_ns != 0, end_ns),
        _ => (start_ns != 0 && end_ns != 0, end_ns.saturating_sub(start_ns)),
    };
    if is_stated {
        column.push(row, &Cell::Num(i64::try_from(time_ns).unwrap_or(i64::MAX)));
    }
}

/// One column of a checked payload, as a field of that kind would be given. Allocates; for what nobody declared.
pub fn column(signal: Signal, payload: &[u8], level: Level, key: &str, kind: Kind) -> Result<Column, FieldError> {
    let field = Field { level, key: key.to_owned(), kind, read: true, write: false };
    let mut columns = Columns::default();
    Selection::new(signal, vec![field])?.gather(payload, &mut columns);
    Ok(columns.columns.pop().expect("a field that is read has a column"))
}

/// The distinct keys of a level in the order in which they first appear; of the intrinsics all names. Allocates.
pub fn keys(signal: Signal, payload: &[u8], level: Level) -> Result<Vec<String>, FieldError> {
    let layout = Selection::new(signal, Vec::new())?.layout;
    if level == Level::Intrinsic {
        return Ok(layout.intrinsics.iter().map(|known| known.0.to_owned()).collect());
    }
    let number = u32::from(layout.attribute_tags[level as usize] >> 3);
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    let mut add = |message: &[u8]| {
        for pair in Fields::of(message).each(number) {
            let key = String::from_utf8_lossy(odd_pair(pair).0);
            if !seen.contains(&*key) {
                seen.insert(key.to_string());
                found.push(key.into_owned());
            }
        }
    };
    for resource in Fields::of(payload).each(1) {
        if level == Level::Resource {
            Fields::of(resource).each(1).for_each(&mut add);
            continue;
        }
        for scope in Fields::of(resource).each(2) {
            Fields::of(scope).each(if level == Level::Scope { 1 } else { 2 }).for_each(&mut add);
        }
    }
    Ok(found)
}
