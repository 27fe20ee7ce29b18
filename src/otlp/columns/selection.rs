//! Which fields are wanted: checked once, then ready to be found in every payload.
//!
//! The table of a signal holds the numbers in which spans and log records differ, and the intrinsics by name. Deliberately
//! no trait of signals: the walk is the same, the numbers are data.

use super::super::keys;
use super::{Field, Kind, Level};
use crate::block::Signal;

/// Fields of one selection: a word has a bit for each.
pub const MAX_FIELDS: usize = 64;

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
    pub(in crate::otlp) layout: &'static Layout,
    pub(super) keys: [Keys; 3],
    pub(super) intrinsics: Vec<Wanted>,
    /// A bit for each field number of a record that an intrinsic needs.
    pub(super) numbers: u32,
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
}

/// Number of `Span.status`.
pub(in crate::otlp) const STATUS: u8 = 15;

impl Target {
    /// The number of the field that holds it, of those that are not found by key.
    pub(in crate::otlp) fn number(self) -> Option<u8> {
        match self {
            Target::Id(number) | Target::Text(number) | Target::Number(number) | Target::Value(number) => Some(number),
            Target::StatusCode | Target::StatusMessage => Some(STATUS),
            Target::Attribute | Target::Start | Target::End | Target::Duration => None,
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

/// Name, kinds, whether it can be written, place.
#[derive(Debug)]
pub(super) struct Intrinsic(pub(super) &'static str, &'static [Kind], bool, pub(super) Target);

static SPANS: Layout = Layout {
    attribute_tags: [0x4a, 0x0a, 0x1a],
    start_tag: 0x39,
    end_tag: 0x41,
    records: "spans",
    intrinsics: &[
        Intrinsic("trace-id", ID, false, Target::Id(1)),
        Intrinsic("span-id", ID, false, Target::Id(2)),
        Intrinsic("parent-span-id", ID, false, Target::Id(4)),
        Intrinsic("name", TEXT, true, Target::Text(5)),
        Intrinsic("kind", INTEGER, false, Target::Number(6)),
        Intrinsic("start", INTEGER, false, Target::Start),
        Intrinsic("end", INTEGER, false, Target::End),
        Intrinsic("duration", INTEGER, false, Target::Duration),
        Intrinsic("status", INTEGER, true, Target::StatusCode),
        Intrinsic("status-message", TEXT, true, Target::StatusMessage),
        Intrinsic("sourcetype", TEXT, false, Target::Attribute),
    ],
};

static LOGS: Layout = Layout {
    attribute_tags: [0x32, 0x0a, 0x1a],
    start_tag: 0x09,
    end_tag: 0x09, // A log record ends when it starts.
    records: "log records",
    intrinsics: &[
        Intrinsic("start", INTEGER, false, Target::Start),
        Intrinsic("severity", INTEGER, true, Target::Number(2)),
        Intrinsic("severity-text", TEXT, true, Target::Text(3)),
        Intrinsic("body", ANY, true, Target::Value(5)),
        Intrinsic("trace-id", ID, false, Target::Id(9)),
        Intrinsic("span-id", ID, false, Target::Id(10)),
        Intrinsic("sourcetype", TEXT, false, Target::Attribute),
    ],
};

const TEXT: &[Kind] = &[Kind::Text];
const INTEGER: &[Kind] = &[Kind::Integer];
const ID: &[Kind] = &[Kind::Text, Kind::Bytes];
const ANY: &[Kind] = &[Kind::Text, Kind::Integer, Kind::Double, Kind::Boolean, Kind::Bytes, Kind::Json];

/// The attributes that are wanted of one level.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// A bit for each length of a key; the last for all that are as long or longer.
    pub(super) lengths: u64,
    pub(super) keys: Vec<Wanted>,
}

/// A field as the walk looks for it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The attribute's key.
    pub(super) key: Box<[u8]>,
    pub(super) target: Target,
    pub(super) form: Form,
    /// Its bit among the fields.
    pub(super) bit: u64,
    pub(super) column: Option<usize>,
    pub(super) slot: Option<usize>,
}

/// How a value becomes a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::otlp) enum Form {
    /// As the kind says.
    Kind(Kind),
    /// Text as it is, everything else as JSON.
    Plain,
}

impl Selection {
    /// Checks `fields` for payloads of `signal`. The intrinsics of both signals: `trace-id`, `span-id` (text: lower-case
    /// hex; or bytes), `start` (integer, Unix nanoseconds) and `sourcetype` (text). Of spans: `parent-span-id`, `name`,
    /// `status-message` (text), `kind`, `status` (integer, OTLP's numbers), `end`, `duration` (integer, nanoseconds). Of log
    /// records: `body` (any kind), `severity` (integer) and `severity-text` (text). Absent are empty texts and ids, and
    /// times that are not stated.
    pub fn new(signal: Signal, fields: Vec<Field>) -> Result<Selection, FieldError> {
        let layout = Layout::of(signal)?;
        if fields.len() > MAX_FIELDS {
            return Err(FieldError::TooMany(fields.len()));
        }
        for (index, field) in fields.iter().enumerate() {
            let writes_the_same = |other: &Field| other.write && (other.level, &other.key) == (field.level, &field.key);
            if field.write && fields[..index].iter().any(writes_the_same) {
                return Err(FieldError::WrittenTwice { key: field.key.clone() });
            }
        }
        let mut selection = Selection::empty(layout);
        let mut columns = 0;
        for (index, field) in fields.iter().enumerate() {
            let target = layout.target(field)?;
            let in_records = matches!(field.level, Level::Record | Level::Intrinsic);
            let slot = (field.write && in_records).then_some(selection.slot_count);
            let column = field.read.then_some(columns);
            columns += usize::from(field.read);
            selection.slot_count += usize::from(slot.is_some());
            let key = if field.level == Level::Intrinsic { keys::SOURCETYPE } else { &field.key };
            let (key, form) = (key.as_bytes().into(), Form::Kind(field.kind));
            selection.want(field.level, Wanted { key, target, form, bit: 1 << index, column, slot });
            selection.targets.push(target);
            selection.slots.push(slot);
        }
        selection.fields = fields;
        Ok(selection)
    }

    /// The fields, as they were given.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(super) fn empty(layout: &'static Layout) -> Selection {
        Selection {
            fields: Vec::new(),
            targets: Vec::new(),
            slots: Vec::new(),
            slot_count: 0,
            layout,
            keys: Default::default(),
            intrinsics: Vec::new(),
            numbers: 0,
        }
    }

    pub(super) fn want(&mut self, level: Level, wanted: Wanted) {
        if wanted.target != Target::Attribute {
            self.numbers |= wanted.target.number().map_or(0, |number| 1 << number);
            self.intrinsics.push(wanted);
            return;
        }
        // The one intrinsic that is an attribute stands among those of the record.
        let keys = &mut self.keys[if level == Level::Intrinsic { 0 } else { level as usize }];
        keys.lengths |= length_bit(wanted.key.len());
        keys.keys.push(wanted);
    }
}

/// The bit of a key's length in [`Keys::lengths`].
#[inline]
pub(super) fn length_bit(bytes: usize) -> u64 {
    1 << bytes.min(63)
}

impl Layout {
    pub(super) fn of(signal: Signal) -> Result<&'static Layout, FieldError> {
        match signal {
            Signal::Traces => Ok(&SPANS),
            Signal::Logs => Ok(&LOGS),
            Signal::Metrics => Err(FieldError::Metrics),
        }
    }

    fn target(&self, field: &Field) -> Result<Target, FieldError> {
        if field.level != Level::Intrinsic {
            return Ok(Target::Attribute);
        }
        let Intrinsic(_, kinds, writable, target) = self.known(&field.key)?;
        let name = field.key.clone();
        if !kinds.contains(&field.kind) {
            return Err(FieldError::Kind { name, kind: field.kind, kinds });
        }
        if field.write && !writable {
            let writable = self.intrinsics.iter().filter(|known| known.2).map(|known| known.0).collect();
            return Err(FieldError::NotWritable { name, writable });
        }
        Ok(*target)
    }

    pub(super) fn known(&self, name: &str) -> Result<&'static Intrinsic, FieldError> {
        self.intrinsics.iter().find(|known| known.0 == name).ok_or_else(|| {
            let distance = |known: &&Intrinsic| strsim::damerau_levenshtein(name, known.0);
            let nearest = self.intrinsics.iter().min_by_key(distance).map_or("", |known| known.0);
            FieldError::Unknown { name: name.to_owned(), records: self.records, nearest }
        })
    }
}
