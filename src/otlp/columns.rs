//! Declared fields of a payload as flat columns, straight from the OTLP bytes, for whoever works on values.
//!
//! A [`Selection`] names the fields once; [`Selection::gather`] walks a payload of spans or log records once and fills
//! [`Columns`], which are reused: in the steady state nothing is allocated. Rows are the spans (or log records) in the
//! order of the payload. What is gathered remembers where it stood, so that [`edit`](super::edit) finds the place again.
//!
//! A field of a resource or scope has one cell a group; groups are the `ResourceSpans` and `ScopeSpans` that hold at least
//! one row. Of attributes with the same key the first counts; if its value is of another kind than the field's, the row
//! has no cell. Of a plain field that comes twice the last counts, as protobuf has it. Payloads have passed the check;
//! of other bytes the walk sees less, it does not panic.

use super::Summary;

mod gather;
pub(super) mod selection;
pub(super) mod value;

pub use gather::{column, keys};
pub use selection::{FieldError, MAX_EXTRA_FIELDS, MAX_FIELDS, Selection};

/// Where a field is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Level {
    /// An attribute of the span or log record.
    Record = 0,
    /// An attribute of its resource.
    Resource = 1,
    /// An attribute of its scope.
    Scope = 2,
    /// What every span or log record has, by name: see [`Selection::new`].
    Intrinsic = 3,
}

impl Level {
    /// The level with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Level> {
        [Level::Record, Level::Resource, Level::Scope, Level::Intrinsic].get(usize::from(number)).copied()
    }

    /// Larger for a level of which there are more: a resource has scopes, a scope has records.
    #[must_use]
    pub fn fineness(self) -> u8 {
        match self {
            Level::Resource => 0,
            Level::Scope => 1,
            Level::Record | Level::Intrinsic => 2,
        }
    }
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// UTF-8; taken from text only.
    Text = 0,
    /// A signed integer; taken from integers only.
    Integer = 1,
    /// A floating point number, in its bits; an integer is given as one too.
    Double = 2,
    /// 0 or 1.
    Boolean = 3,
    /// Bytes; text is given as bytes too.
    Bytes = 4,
    /// JSON text of any value.
    Json = 5,
    /// Text of any value: text as it is, everything else as JSON. Written as text.
    Any = 6,
}

impl Kind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Kind> {
        let all = [Kind::Text, Kind::Integer, Kind::Double, Kind::Boolean, Kind::Bytes, Kind::Json, Kind::Any];
        all.get(usize::from(number)).copied()
    }

    /// Whether its cells are of fixed width, in a [`NumColumn`].
    #[must_use]
    pub fn is_num(self) -> bool {
        matches!(self, Kind::Integer | Kind::Double | Kind::Boolean)
    }
}

/// One column that is read, written or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it is.
    pub level: Level,
    /// The attribute's key, or the intrinsic's name.
    pub key: String,
    /// What its cells hold.
    pub kind: Kind,
    /// Whether it gets a column.
    pub read: bool,
    /// Whether it may be edited.
    pub write: bool,
}

/// Cells of variable width: cell `i` is `bytes[ends[i - 1]..ends[i]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextColumn {
    /// The row of each cell, ascending; empty with cells means one for each row (or group), in order. A group's row is
    /// its first.
    pub rows: Vec<u32>,
    /// Where each cell ends in `bytes`.
    pub ends: Vec<u32>,
    /// The cells.
    pub bytes: Vec<u8>,
}

/// Cells of fixed width.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumColumn {
    /// As in [`TextColumn`].
    pub rows: Vec<u32>,
    /// The cells.
    pub values: Vec<i64>,
}

/// The column of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// Of text, bytes, JSON and any value.
    Text(TextColumn),
    /// Of integers, floating point numbers and booleans.
    Num(NumColumn),
}

/// What was gathered from one payload.
#[derive(Clone, Debug)]
pub struct Columns {
    pub(super) resources: Groups,
    pub(super) scopes: Groups,
    pub(super) columns: Vec<Column>,
    pub(super) records: Vec<Place>,
    /// Start and end of each record, Unix nanoseconds; 0 for one that is not stated.
    pub(super) times: Vec<(u64, u64)>,
    /// For each row and each slot of the selection where the value stands.
    pub(super) spots: Vec<Spot>,
    /// Field and row of what is written and stands there several times.
    pub(super) duplicates: Vec<(usize, u32)>,
    pub(super) summary: Summary,
    pub(super) payload_bytes: usize,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            resources: Groups::default(),
            scopes: Groups::default(),
            columns: Vec::new(),
            records: Vec::new(),
            times: Vec::new(),
            spots: Vec::new(),
            duplicates: Vec::new(),
            summary: Summary::EMPTY,
            payload_bytes: 0,
        }
    }
}

impl Columns {
    /// So many rows of nothing, each with a resource and a scope of its own: what edits of rows are checked against that are
    /// not in a payload.
    #[must_use]
    pub fn of_rows(rows: u32) -> Columns {
        let groups = || Groups { first_rows: (0..rows).collect(), places: Vec::new() };
        let summary = Summary { spans: rows, ..Summary::EMPTY };
        Columns { resources: groups(), scopes: groups(), summary, ..Columns::default() }
    }

    /// Spans or log records of the payload.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.summary.spans
    }

    /// The first row of each resource.
    #[must_use]
    pub fn resources(&self) -> &[u32] {
        &self.resources.first_rows
    }

    /// The first row of each scope.
    #[must_use]
    pub fn scopes(&self) -> &[u32] {
        &self.scopes.first_rows
    }

    /// A column for each field that is read, in the order of the fields.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Rows and the time that they cover.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }
}

/// The resources or the scopes of a payload that hold rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    pub(super) first_rows: Vec<u32>,
    pub(super) places: Vec<Place>,
}

/// A message of the payload: offsets of its key, its body and its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) start: u32,
    pub(super) body: u32,
    pub(super) end: u32,
}

/// A field of a record with its key: offsets into the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Spot {
    /// The record has no such field. No field of a record stands at the payload's first byte.
    pub(super) const ABSENT: Spot = Spot { start: 0, end: 0 };
    /// It has several.
    pub(super) const SEVERAL: Spot = Spot { start: 1, end: 0 };
}

#[cfg(test)]
mod tests;
