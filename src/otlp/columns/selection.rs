//! Which fields are wanted: checked once, then ready to be found in every payload.
//!
//! The table of a signal holds the numbers in which spans and log records differ, and the intrinsics by name. Deliberately
//! no trait of signals: the walk is the same, the numbers are data.

use std::borrow::Cow;

use super::super::keys;
use super::{Field, Kind, Level};
use crate::block::Signal;

/// Fields of one selection: a word has a bit for each.
pub const MAX_FIELDS: usize = 64;

/// Fields that one patch may bring.
pub const MAX_EXTRA_FIELDS: usize = 256;

/// A field that cannot be selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// More than [`MAX_FIELDS`].
    #[error("{0} fields, more than {MAX_FIELDS}")]
    TooMany(usize),
    /// Metrics have no rows here.
    #[error("fields of metrics cannot be selected")]
    Metrics,
    /// No intrinsic of the signal has this name.
    #[error("{records} have no intrinsic {name:?}, the nearest is {nearest:?}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Spans, or log records.
        records: &'static str,
        /// What may have been meant.
        nearest: &'static str,
    },
    /// The intrinsic has no such kind.
    #[error("intrinsic {name:?} is not {kind:?}, it can be {kinds:?}")]
    Kind {
        /// The intrinsic.
        name: String,
        /// What was asked for.
        kind: Kind,
        /// What there is.
        kinds: &'static [Kind],
    },
    /// The intrinsic is only read.
    #[error("intrinsic {name:?} cannot be written, those that can are {writable:?}")]
    NotWritable {
        /// The intrinsic.
        name: String,
        /// Those of the signal that can.
        writable: Vec<&'static str>,
    },
    /// The field is neither read nor written.
    #[error("{key:?} is neither read nor written")]
    Unused {
        /// The key or name.
        key: String,
    },
    /// Two fields write the same value.
    #[error("{key:?} is written by two fields")]
    WrittenTwice {
        /// The key or name.
        key: String,
    },
}

/// Fields of one signal, checked and made ready to be found.
#[derive(Clone, Debug)]
pub struct Selection {
    fields: Vec<Field>,
    pub(in crate::otlp) targets: Vec<Target>,
    /// The slot of each field that is written in records.
    pub(in crate::otlp) slots: Vec<Option<usize>>,
    pub(in crate::otlp) slot_count: usize,
    /// Whether each field can be set, not only unset.
    pub(in crate::otlp) settable: Vec<bool>,
    pub(in crate::otlp) layout: &'static Layout,
    pub(super) keys: [Keys; 3],
    pub(super) intrinsics: Vec<Wanted>,
    /// A bit for each field number of a record that an intrinsic needs.
    pub(super) numbers: u32,
    /// It is of records that do not exist yet.
    is_of_new: bool,
}

/// Where a field's value is in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::otlp) enum Target {
    /// An attribute.
    Attribute,
    /// The id in the field with this number.
    Id(u8),
    Start,
    End,
    Duration,
    /// The text in the field with this number.
    Text(u8),
    /// The varint in the field with this number.
    Number(u8),
    /// The `AnyValue` in the field with this number.
    Value(u8),
    StatusCode,
    StatusMessage,
    /// The events, whose fields have this number.
    Events(u8),
    /// The links, whose fields have this number.
    Links(u8),
    /// The text in the field with this number of the scope.
    ScopeText(u8),
}

/// Number of `Span.status`.
pub(in crate::otlp) const STATUS: u8 = 15;

impl Target {
    /// Whether it stands in the record.
    fn is_in_record(self) -> bool {
        !matches!(self, Target::ScopeText(_))
    }

    /// The number of the field that holds it, of those that are not found by key.
    pub(in crate::otlp) fn number(self) -> Option<u8> {
        match self {
            Target::Id(number)
            | Target::Text(number)
            | Target::Number(number)
            | Target::Value(number)
            | Target::Events(number)
            | Target::Links(number) => Some(number),
            Target::StatusCode | Target::StatusMessage => Some(STATUS),
            Target::Attribute | Target::Start | Target::End | Target::Duration | Target::ScopeText(_) => None,
        }
    }
}

/// Numbers of the fields in which spans and log records differ. In both a request's field 1 holds what a resource has,
/// whose field 1 is the resource and field 2 what a scope has, whose field 1 is the scope and field 2 a record.
#[derive(Debug)]
pub(in crate::otlp) struct Layout {
    /// Tags of the attributes by [`Level`]: of the record, of the resource, of the scope.
    pub(in crate::otlp) attribute_tags: [u8; 3],
    pub(super) start_tag: u8,
    pub(super) end_tag: u8,
    records: &'static str,
    pub(super) intrinsics: &'static [Intrinsic],
}

/// What may be done to an intrinsic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    No,
    Unset,
    Set,
}

/// Name, kinds, what may be done to it, place.
#[derive(Debug)]
pub(super) struct Intrinsic(pub(super) &'static str, &'static [Kind], Change, pub(super) Target);

static SPANS: Layout = Layout {
    attribute_tags: [0x4a, 0x0a, 0x1a],
    start_tag: 0x39,
    end_tag: 0x41,
    records: "spans",
    intrinsics: &[
        Intrinsic("trace-id", ID, Change::No, Target::Id(1)),
        Intrinsic("span-id", ID, Change::No, Target::Id(2)),
        Intrinsic("parent-span-id", ID, Change::No, Target::Id(4)),
        Intrinsic("name", TEXT, Change::Set, Target::Text(5)),
        Intrinsic("kind", INTEGER, Change::Set, Target::Number(6)),
        Intrinsic("start", INTEGER, Change::No, Target::Start),
        Intrinsic("end", INTEGER, Change::No, Target::End),
        Intrinsic("duration", INTEGER, Change::No, Target::Duration),
        Intrinsic("status", INTEGER, Change::Set, Target::StatusCode),
        Intrinsic("status-message", TEXT, Change::Set, Target::StatusMessage),
        Intrinsic("trace-state", TEXT, Change::Unset, Target::Text(3)),
        Intrinsic("events", JSON, Change::Unset, Target::Events(11)),
        Intrinsic("links", JSON, Change::Unset, Target::Links(13)),
        Intrinsic("sourcetype", TEXT, Change::No, Target::Attribute),
        Intrinsic("scope-name", TEXT, Change::No, Target::ScopeText(1)),
        Intrinsic("scope-version", TEXT, Change::No, Target::ScopeText(2)),
    ],
};

static LOGS: Layout = Layout {
    attribute_tags: [0x32, 0x0a, 0x1a],
    start_tag: 0x09,
    end_tag: 0x09, // A log record ends when it starts.
    records: "log records",
    intrinsics: &[
        Intrinsic("start", INTEGER, Change::No, Target::Start),
        Intrinsic("severity", INTEGER, Change::Set, Target::Number(2)),
        Intrinsic("severity-text", TEXT, Change::Set, Target::Text(3)),
        Intrinsic("body", BODY, Change::Set, Target::Value(5)),
        Intrinsic("trace-id", ID, Change::No, Target::Id(9)),
        Intrinsic("span-id", ID, Change::No, Target::Id(10)),
        Intrinsic("sourcetype", TEXT, Change::No, Target::Attribute),
        Intrinsic("scope-name", TEXT, Change::No, Target::ScopeText(1)),
        Intrinsic("scope-version", TEXT, Change::No, Target::ScopeText(2)),
    ],
};

const TEXT: &[Kind] = &[Kind::Text];
const INTEGER: &[Kind] = &[Kind::Integer];
const ID: &[Kind] = &[Kind::Text, Kind::Bytes];
const BODY: &[Kind] = &[Kind::Text, Kind::Json, Kind::Any];
const JSON: &[Kind] = &[Kind::Json, Kind::Any];

/// The attributes that are wanted of one level.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// The bits of all keys, see [`key_bit`]: a key whose bit is not here is none of them.
    pub(super) bits: u64,
    pub(super) keys: Vec<Wanted>,
}

/// A field as the walk looks for it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The attribute's key.
    pub(super) key: Box<[u8]>,
    pub(super) target: Target,
    pub(super) kind: Kind,
    /// Its bit among the fields.
    pub(super) bit: u64,
    pub(super) column: Option<usize>,
    pub(super) slot: Option<usize>,
    pub(super) write: bool,
}

impl Selection {
    /// Checks `fields` for payloads of `signal`.
    ///
    /// The intrinsics of both signals: `trace-id`, `span-id` (text: lower-case hex; or bytes), `start` (integer, Unix
    /// nanoseconds), `sourcetype`, `scope-name` and `scope-version` (text). Of spans: `parent-span-id` (as `span-id`), `name`,
    /// `status-message`, `trace-state` (text), `kind`, `status` (integer, OTLP's numbers), `end`, `duration` (integer,
    /// nanoseconds), `events` and `links` (JSON, or any). Of log records: `body` (text, JSON or any), `severity` (integer) and
    /// `severity-text` (text). Each has one cell a row; absent are empty texts, ids and lists, and times that are not stated.
    pub fn new(signal: Signal, fields: Vec<Field>) -> Result<Selection, FieldError> {
        Selection::checked(signal, fields, false)
    }

    /// Checks `fields` of records that do not exist yet: all intrinsics can be set, but for `sourcetype`. It gathers nothing.
    pub fn of_new(signal: Signal, fields: Vec<Field>) -> Result<Selection, FieldError> {
        Selection::checked(signal, fields, true)
    }

    fn checked(signal: Signal, fields: Vec<Field>, is_of_new: bool) -> Result<Selection, FieldError> {
        let layout = match signal {
            Signal::Traces => &SPANS,
            Signal::Logs => &LOGS,
            Signal::Metrics => return Err(FieldError::Metrics),
        };
        if fields.len() > MAX_FIELDS {
            return Err(FieldError::TooMany(fields.len()));
        }
        let mut selection = Selection {
            fields: Vec::new(),
            targets: Vec::new(),
            slots: Vec::new(),
            slot_count: 0,
            settable: Vec::new(),
            layout,
            keys: Default::default(),
            intrinsics: Vec::new(),
            numbers: 0,
            is_of_new,
        };
        let mut columns = 0;
        for (index, field) in fields.into_iter().enumerate() {
            let level = field.level;
            let target = selection.declare(&field)?;
            let in_records = matches!(level, Level::Record | Level::Intrinsic) && target.is_in_record();
            let slot = (field.write && in_records).then_some(selection.slot_count);
            selection.slot_count += usize::from(slot.is_some());
            let column = field.read.then_some(columns);
            columns += usize::from(field.read);
            let key = if level == Level::Intrinsic { keys::SOURCETYPE } else { &field.key };
            let (key, kind, write) = (key.as_bytes().into(), field.kind, field.write);
            selection.want(level, Wanted { key, target, kind, bit: 1 << index, column, slot, write });
            selection.slots.push(slot);
            selection.fields.push(field);
        }
        Ok(selection)
    }

    /// A selection that can write `extra` fields too, numbered after its own, and itself when there are none: to check and
    /// apply a patch that brings fields of its own, on columns that this selection has gathered. What it gathers is the same.
    pub fn extended(&self, extra: Vec<Field>) -> Result<Cow<'_, Selection>, FieldError> {
        if extra.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        if extra.len() > MAX_EXTRA_FIELDS {
            return Err(FieldError::TooMany(extra.len()));
        }
        let mut selection = self.clone();
        for field in extra {
            selection.declare(&field)?;
            selection.slots.push(None);
            selection.fields.push(field);
        }
        Ok(Cow::Owned(selection))
    }

    /// Checks one more field.
    fn declare(&mut self, field: &Field) -> Result<Target, FieldError> {
        if !field.read && !field.write {
            return Err(FieldError::Unused { key: field.key.clone() });
        }
        let writes_the_same = |other: &Field| other.write && (other.level, &other.key) == (field.level, &field.key);
        if field.write && self.fields.iter().any(writes_the_same) {
            return Err(FieldError::WrittenTwice { key: field.key.clone() });
        }
        let (target, change) = self.layout.target(field, self.is_of_new)?;
        self.targets.push(target);
        self.settable.push(change == Change::Set);
        Ok(target)
    }

    /// The fields, as they were given.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn want(&mut self, level: Level, wanted: Wanted) {
        if wanted.target != Target::Attribute {
            self.numbers |= wanted.target.number().map_or(0, |number| 1 << number);
            self.intrinsics.push(wanted);
            return;
        }
        // The one intrinsic that is an attribute stands among those of the record.
        let keys = &mut self.keys[if level == Level::Intrinsic { 0 } else { level as usize }];
        keys.bits |= key_bit(&wanted.key);
        keys.keys.push(wanted);
    }
}

/// The bit of a key in [`Keys::bits`]: its length and its first letter choose it.
#[inline]
pub(super) fn key_bit(key: &[u8]) -> u64 {
    let first = key.first().copied().unwrap_or_default();
    1 << (key.len().wrapping_add(usize::from(first) << 2) & 63)
}

impl Layout {
    fn target(&self, field: &Field, is_of_new: bool) -> Result<(Target, Change), FieldError> {
        if field.level != Level::Intrinsic {
            return Ok((Target::Attribute, Change::Set));
        }
        let Intrinsic(_, kinds, change, target) = self.known(&field.key)?;
        let is_made = is_of_new && *target != Target::Attribute;
        let change = if is_made { &Change::Set } else { change };
        let name = field.key.clone();
        if !kinds.contains(&field.kind) {
            return Err(FieldError::Kind { name, kind: field.kind, kinds });
        }
        if field.write && *change == Change::No {
            let writable = self.intrinsics.iter().filter(|known| known.2 != Change::No).map(|known| known.0).collect();
            return Err(FieldError::NotWritable { name, writable });
        }
        Ok((*target, *change))
    }

    fn known(&self, name: &str) -> Result<&'static Intrinsic, FieldError> {
        self.intrinsics.iter().find(|known| known.0 == name).ok_or_else(|| {
            let distance = |known: &&Intrinsic| strsim::damerau_levenshtein(name, known.0);
            let nearest = self.intrinsics.iter().min_by_key(distance).map_or("", |known| known.0);
            FieldError::Unknown { name: name.to_owned(), records: self.records, nearest }
        })
    }
}
