//! Applies edits: one pass over the places that gathering has remembered, one copy of what stays.
//!
//! The payload is copied up to the next place that an edit touches, so that untouched neighbours, whole scopes and whole
//! resources are one copy. Around a change the lengths of the wrappers are written anew, in four bytes each.

use super::super::Summary;
use super::super::columns::{Columns, Level, Place, Selection};
use super::super::fields::{Field, Fields, Value};
use super::super::slice::{LENGTH_BYTES, close_length};
use super::message::{Editor, Operation};
use super::{Applied, Edits, List};

const RESOURCE_WRAPPER: u8 = 0x0a;
const SCOPE_WRAPPER: u8 = 0x12;

/// Writes `payload`, which `selection` has gathered to `columns`, with the edits checked against them, over `out`.
pub fn apply(payload: &[u8], selection: &Selection, columns: &Columns, edits: &Edits, out: &mut Vec<u8>) -> Applied {
    assert_eq!(payload.len(), columns.payload_bytes, "the columns are those of another payload");
    out.clear();
    if edits.is_empty() {
        return Applied::Unchanged;
    }
    out.reserve(payload.len() + payload.len() / 8);
    let mut rewriter = Rewriter::new(payload, selection, columns, edits, out);
    for index in 0..columns.resources.places.len() {
        rewriter.resource(index);
    }
    rewriter.copy_to(payload.len());
    let (edited, dropped) = (rewriter.edited, edits.dropped());
    Applied::Changed { summary: summary(columns, &edits.drop), edited, dropped }
}

/// What is left without the rows `dropped`. No edit changes a time.
fn summary(columns: &Columns, dropped: &[u32]) -> Summary {
    if dropped.is_empty() {
        return columns.summary;
    }
    let (mut summary, mut from) = (Summary::EMPTY, 0);
    let ends = dropped.iter().map(|&row| row as usize).chain([columns.times.len()]);
    for end in ends {
        columns.times[from..end].iter().for_each(|&(start_ns, end_ns)| summary.add_span(start_ns, end_ns));
        from = end + 1;
    }
    summary
}

/// The edits of one field with those that are still to come.
struct Cursor<'a> {
    list: &'a List,
    level: Level,
    next: usize,
}

impl Cursor<'_> {
    #[inline]
    fn row(&self) -> u32 {
        self.list.rows.get(self.next).copied().unwrap_or(u32::MAX)
    }
}

struct Rewriter<'a> {
    payload: &'a [u8],
    columns: &'a Columns,
    slot_count: usize,
    dropped: &'a [u32],
    cursors: Vec<Cursor<'a>>,
    editor: Editor<'a>,
    /// Resources and scopes that are written anew, with their keys, ascending: their old bytes are passed over.
    holes: Vec<(usize, usize)>,
    next_hole: usize,
    out: &'a mut Vec<u8>,
    /// What of the payload is done.
    at: usize,
    edited: u32,
}

impl<'a> Rewriter<'a> {
    fn new(
        payload: &'a [u8],
        selection: &'a Selection,
        columns: &'a Columns,
        edits: &'a Edits,
        out: &'a mut Vec<u8>,
    ) -> Rewriter<'a> {
        let cursor = |list: &'a List| Cursor { list, level: selection.fields()[list.field].level, next: 0 };
        let mut rewriter = Rewriter {
            payload,
            columns,
            slot_count: selection.slot_count,
            dropped: &edits.drop,
            cursors: edits.lists.iter().map(cursor).collect(),
            editor: Editor::new(selection),
            holes: Vec::new(),
            next_hole: 0,
            out,
            at: 0,
            edited: 0,
        };
        rewriter.find_holes();
        rewriter
    }

    fn find_holes(&mut self) {
        for cursor in &self.cursors {
            let groups = match cursor.level {
                Level::Resource => &self.columns.resources,
                Level::Scope => &self.columns.scopes,
                Level::Record | Level::Intrinsic => continue,
            };
            for row in &cursor.list.rows {
                let index = groups.first_rows.binary_search(row).expect("the check has found it");
                let mut at = groups.places[index].body as usize;
                for field in Fields::of(groups.places[index].body_in(self.payload)) {
                    if is_group(&field) {
                        self.holes.push((at, at + field.raw.len()));
                    }
                    at += field.raw.len();
                }
            }
        }
        self.holes.sort_unstable();
        self.holes.dedup();
    }

    /// Copies what lies before `end`, without the holes.
    fn copy_to(&mut self, end: usize) {
        while let Some(&(hole_start, hole_end)) = self.holes.get(self.next_hole).filter(|hole| hole.0 < end) {
            self.out.extend_from_slice(&self.payload[self.at..hole_start]);
            self.at = hole_end;
            self.next_hole += 1;
        }
        self.out.extend_from_slice(&self.payload[self.at..end]);
        self.at = end;
    }

    /// Passes over what lies before `end`.
    fn skip_to(&mut self, end: usize) {
        self.at = end;
        while self.holes.get(self.next_hole).is_some_and(|hole| hole.0 < end) {
            self.next_hole += 1;
        }
    }

    /// The next row that anything touches.
    #[inline]
    fn next_row(&self) -> u32 {
        let dropped = self.dropped.first().copied().unwrap_or(u32::MAX);
        self.cursors.iter().fold(dropped, |row, cursor| row.min(cursor.row()))
    }

    fn dropped_before(&self, end: u32) -> u32 {
        u32::try_from(self.dropped.partition_point(|&row| row < end)).expect("rows are counted in 32 bits")
    }

    /// A wrapper that holds the rows up to `end`: whether it has to be opened, because something in it is touched.
    fn is_touched(&mut self, place: Place, (first, end): (u32, u32)) -> bool {
        if self.next_row() >= end {
            return false;
        }
        if self.dropped_before(end) < end - first {
            return true;
        }
        self.copy_to(place.start as usize);
        self.skip_to(place.end as usize);
        self.dropped = &self.dropped[(end - first) as usize..];
        for cursor in &mut self.cursors {
            cursor.next += cursor.list.rows[cursor.next..].partition_point(|&row| row < end);
        }
        false
    }

    fn resource(&mut self, index: usize) {
        let (place, rows) =
            (self.columns.resources.places[index], rows(&self.columns.resources.first_rows, index, self.columns));
        if !self.is_touched(place, rows) {
            return;
        }
        let kept = rows.1 - rows.0 - self.dropped_before(rows.1);
        let edited_before = self.edited;
        let opened_at = self.open(RESOURCE_WRAPPER, place);
        let is_edited = self.group(Level::Resource, rows.0, place);
        let scopes = &self.columns.scopes.first_rows;
        let first_scope = scopes.partition_point(|&row| row < rows.0);
        let end_scope = scopes.partition_point(|&row| row < rows.1);
        for scope in first_scope..end_scope {
            self.scope(scope);
        }
        self.close(opened_at, place);
        if is_edited {
            self.edited = edited_before + kept;
        }
    }

    fn scope(&mut self, index: usize) {
        let (place, rows) =
            (self.columns.scopes.places[index], rows(&self.columns.scopes.first_rows, index, self.columns));
        if !self.is_touched(place, rows) {
            return;
        }
        let kept = rows.1 - rows.0 - self.dropped_before(rows.1);
        let edited_before = self.edited;
        let opened_at = self.open(SCOPE_WRAPPER, place);
        let is_edited = self.group(Level::Scope, rows.0, place);
        loop {
            let row = self.next_row();
            if row >= rows.1 {
                break;
            }
            self.record(row);
        }
        self.close(opened_at, place);
        if is_edited {
            self.edited = edited_before + kept;
        }
    }

    fn open(&mut self, tag: u8, place: Place) -> usize {
        self.copy_to(place.start as usize);
        self.at = place.body as usize;
        self.out.push(tag);
        self.out.extend_from_slice(&[0; LENGTH_BYTES]);
        self.out.len()
    }

    fn close(&mut self, opened_at: usize, place: Place) {
        self.copy_to(place.end as usize);
        close_length(self.out, opened_at);
    }

    /// Takes the edits of `row` at these levels to the editor.
    fn take(&mut self, row: u32, of_level: impl Fn(Level) -> bool) -> bool {
        self.editor.operations.clear();
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.row() == row && of_level(cursor.level)) {
            self.editor.operations.push(Operation { field: cursor.list.field, new: cursor.list.value(cursor.next) });
            cursor.next += 1;
        }
        !self.editor.operations.is_empty()
    }

    /// Writes the edited resource or scope at the front of its wrapper.
    fn group(&mut self, level: Level, first_row: u32, place: Place) -> bool {
        if !self.take(first_row, |other| other == level) {
            return false;
        }
        let mut bodies = Fields::of(place.body_in(self.payload)).each(1);
        let (first, second) = (bodies.next(), bodies.next());
        if second.is_none() {
            self.editor.group(first, level, self.out);
        } else {
            let together: Vec<u8> = Fields::of(place.body_in(self.payload)).each(1).flatten().copied().collect();
            self.editor.group(Some(&together), level, self.out);
        }
        true
    }

    fn record(&mut self, row: u32) {
        let place = self.columns.records[row as usize];
        self.copy_to(place.start as usize);
        let is_edited = self.take(row, |level| matches!(level, Level::Record | Level::Intrinsic));
        self.at = place.end as usize;
        if self.dropped.first() == Some(&row) {
            self.dropped = &self.dropped[1..];
        } else if is_edited {
            let spots = &self.columns.spots[row as usize * self.slot_count..][..self.slot_count];
            self.editor.record(place.body_in(self.payload), place.body as usize, spots, self.out);
            self.edited += 1;
        }
    }
}

/// First row of a group and the one behind its last.
fn rows(first_rows: &[u32], index: usize, columns: &Columns) -> (u32, u32) {
    (first_rows[index], first_rows.get(index + 1).copied().unwrap_or(columns.rows()))
}

/// Whether a field of a wrapper is its resource or scope.
fn is_group(field: &Field<'_>) -> bool {
    matches!(field, Field { number: 1, value: Value::Bytes(_), .. })
}

impl Place {
    fn body_in(self, payload: &[u8]) -> &[u8] {
        &payload[self.body as usize..self.end as usize]
    }
}
