//! The check of a patch: all of it before anything is applied, so that a bad one leaves the payload as it was.
//!
//! What passes cannot go wrong later: rows are there and ascending, values are of their field's kind, no cell is named
//! twice, and JSON has become the bytes of the value that it says.

use super::super::check::lists_of_span;
use super::super::columns::selection::Target;
use super::super::columns::{Columns, Field, Kind, Level, Selection, TextColumn};
use super::super::from_json;
use super::json_value;
use super::{Edits, List, Patch, Values};

/// Bytes that a patch may add at most, whatever is allowed: lengths of the result are written in four bytes.
pub const MAX_EDIT_BYTES: usize = 16 << 20;

/// Bytes around a value and its key.
const CELL_BYTES: usize = 16;

/// What is wrong with a patch. Rows and fields are counted from 0; `key` is the field's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEdit {
    /// No such field.
    #[error("an edit of field {field}, there are {fields}")]
    Field {
        /// The field named.
        field: u16,
        /// Fields of the selection.
        fields: usize,
    },
    /// The field is only read.
    #[error("{key:?} was not declared to be written")]
    NotWritable {
        /// The field.
        key: String,
    },
    /// The field can only be unset.
    #[error("{key:?} can be unset, not set")]
    OnlyUnset {
        /// The field.
        key: String,
    },
    /// Texts for numbers, or numbers for texts.
    #[error("{key:?} is {kind:?} and got values of another form")]
    Form {
        /// The field.
        key: String,
        /// Its kind.
        kind: Kind,
    },
    /// The field has two lists of values, or two of removals.
    #[error("{key:?} is edited by two lists")]
    FieldTwice {
        /// The field.
        key: String,
    },
    /// A cell is both set and unset.
    #[error("{key:?} of row {row} is both set and unset")]
    CellTwice {
        /// The field.
        key: String,
        /// The row.
        row: u32,
    },
    /// A row that does not exist.
    #[error("{key:?} names row {row}, there are {rows}")]
    Row {
        /// The field; `drop` for rows to drop.
        key: String,
        /// The row.
        row: u32,
        /// Rows of the batch.
        rows: u32,
    },
    /// Rows that do not ascend.
    #[error("{key:?} names row {row} behind row {before}")]
    Order {
        /// The field; `drop` for rows to drop.
        key: String,
        /// The row.
        row: u32,
        /// The one before it.
        before: u32,
    },
    /// A row in which no resource (or scope) begins.
    #[error("{key:?} is of a {level:?} and names row {row}, where none begins")]
    NotFirst {
        /// The field.
        key: String,
        /// Resource or scope.
        level: Level,
        /// The row.
        row: u32,
    },
    /// Rows and values do not go together.
    #[error("{key:?} has {cells} values for {rows} rows")]
    Count {
        /// The field.
        key: String,
        /// Values.
        cells: usize,
        /// Rows named; all rows (or groups) where none is named.
        rows: usize,
    },
    /// Ends of values that do not ascend or do not end where the bytes do.
    #[error("{key:?} has a value that ends at byte {end} of {bytes}, behind byte {before}")]
    End {
        /// The field.
        key: String,
        /// The end; of the last one if bytes are left over.
        end: u32,
        /// The end before it.
        before: u32,
        /// Bytes of all values.
        bytes: usize,
    },
    /// Text that is not UTF-8.
    #[error("{key:?} of row {row} is not UTF-8")]
    Utf8 {
        /// The field.
        key: String,
        /// The row.
        row: u32,
    },
    /// Text that is not JSON, or JSON that the field cannot hold.
    #[error("{key:?} of row {row} is not JSON that it can hold: {why}")]
    Json {
        /// The field.
        key: String,
        /// The row.
        row: u32,
        /// What the parser said.
        why: String,
    },
    /// A number that the field cannot have.
    #[error("{key:?} of row {row} is {value}, it can be 0 to {max}")]
    Value {
        /// The field.
        key: String,
        /// The row.
        row: u32,
        /// The number.
        value: i64,
        /// The largest that it can be.
        max: i64,
    },
    /// More than is allowed.
    #[error("the edits add {bytes} bytes, {max} are allowed")]
    TooBig {
        /// Bytes of values with their keys and lengths.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
}

/// Checks `patch`, the answer to `columns`, which adds at most `max_bytes` (and [`MAX_EDIT_BYTES`]) with its keys.
pub fn check(selection: &Selection, columns: &Columns, patch: Patch, max_bytes: usize) -> Result<Edits, BadEdit> {
    let mut checker = Checker { selection, columns, lists: Vec::new() };
    checker.size(&patch, max_bytes.min(MAX_EDIT_BYTES))?;
    checker.ascending("drop", &patch.drop)?;
    for edits in patch.text {
        checker.text(edits.field, edits.cells)?;
    }
    for edits in patch.num {
        checker.num(edits.field, edits.cells.rows, edits.cells.values)?;
    }
    for edits in patch.unset {
        let (index, field) = checker.field(edits.field)?;
        checker.once(index, field, |values| *values == Values::Unset)?;
        checker.rows(field, &edits.rows)?;
        checker.push(index, edits.rows, Values::Unset);
    }
    checker.cells_once()?;
    checker.duplicates();
    // What is new in a message is put there in the order of the fields.
    checker.lists.sort_by_key(|list| list.field);
    Ok(Edits { drop: patch.drop, lists: checker.lists })
}

struct Checker<'a> {
    selection: &'a Selection,
    columns: &'a Columns,
    lists: Vec<List>,
}

impl<'a> Checker<'a> {
    /// First of all, so that no time is spent on what is too big.
    fn size(&self, patch: &Patch, max: usize) -> Result<(), BadEdit> {
        let key_bytes = |field: u16| self.selection.fields().get(usize::from(field)).map_or(0, |field| field.key.len());
        let texts = patch.text.iter().map(|edits| {
            let framing = edits.cells.ends.len().saturating_mul(CELL_BYTES + key_bytes(edits.field));
            framing.saturating_add(edits.cells.bytes.len())
        });
        let nums =
            patch.num.iter().map(|edits| edits.cells.values.len().saturating_mul(CELL_BYTES + key_bytes(edits.field)));
        let bytes = texts.chain(nums).fold(0, usize::saturating_add);
        if bytes > max { Err(BadEdit::TooBig { bytes, max }) } else { Ok(()) }
    }

    fn field(&self, number: u16) -> Result<(usize, &'a Field), BadEdit> {
        let (index, fields) = (usize::from(number), self.selection.fields());
        let field = fields.get(index).ok_or(BadEdit::Field { field: number, fields: fields.len() })?;
        if field.write { Ok((index, field)) } else { Err(BadEdit::NotWritable { key: field.key.clone() }) }
    }

    fn text(&mut self, number: u16, cells: TextColumn) -> Result<(), BadEdit> {
        let (index, field) = self.field(number)?;
        if field.kind.is_num() {
            return Err(BadEdit::Form { key: field.key.clone(), kind: field.kind });
        }
        self.settable(index, field)?;
        let TextColumn { rows, ends, bytes } = cells;
        let rows = self.rows_of(field, rows, ends.len())?;
        ends_fit(field, &ends, &bytes)?;
        let values = match (field.kind, self.selection.targets[index]) {
            (_, Target::Events(_) | Target::Links(_)) => encode(list, field, (&rows, &ends, &bytes))?,
            (Kind::Text | Kind::Any, _) => {
                is_text(field, &rows, &ends, &bytes)?;
                Values::Text(ends, bytes)
            }
            (Kind::Json, _) => encode(value, field, (&rows, &ends, &bytes))?,
            _ => Values::Text(ends, bytes),
        };
        self.push(index, rows, values);
        Ok(())
    }

    fn num(&mut self, number: u16, rows: Vec<u32>, values: Vec<i64>) -> Result<(), BadEdit> {
        let (index, field) = self.field(number)?;
        if !field.kind.is_num() {
            return Err(BadEdit::Form { key: field.key.clone(), kind: field.kind });
        }
        self.settable(index, field)?;
        let rows = self.rows_of(field, rows, values.len())?;
        let max = match (field.kind, self.selection.targets[index]) {
            (Kind::Boolean, _) => 1,
            (_, Target::StatusCode) => 2, // STATUS_CODE_ERROR
            (_, Target::Number(6)) => 5,  // SPAN_KIND_CONSUMER
            (_, Target::Number(_)) => 24, // SEVERITY_NUMBER_FATAL4
            _ => i64::MAX,
        };
        if max < i64::MAX
            && let Some((&row, &value)) = rows.iter().zip(&values).find(|(_, value)| !(0..=max).contains(*value))
        {
            return Err(BadEdit::Value { key: field.key.clone(), row, value, max });
        }
        self.push(index, rows, Values::Num(values));
        Ok(())
    }

    /// Whether the field can have values, and has none yet.
    fn settable(&self, index: usize, field: &Field) -> Result<(), BadEdit> {
        if !self.selection.settable[index] {
            return Err(BadEdit::OnlyUnset { key: field.key.clone() });
        }
        self.once(index, field, |values| *values != Values::Unset)
    }

    /// Whether the field has no list of that form yet.
    fn once(&self, index: usize, field: &Field, is_same: impl Fn(&Values) -> bool) -> Result<(), BadEdit> {
        match self.lists.iter().any(|list| list.field == index && is_same(&list.values)) {
            true => Err(BadEdit::FieldTwice { key: field.key.clone() }),
            false => Ok(()),
        }
    }

    fn push(&mut self, field: usize, rows: Vec<u32>, values: Values) {
        if !rows.is_empty() {
            self.lists.push(List { field, rows, values });
        }
    }

    /// The rows of `cells` values: those named, or all.
    fn rows_of(&self, field: &Field, named: Vec<u32>, cells: usize) -> Result<Vec<u32>, BadEdit> {
        let rows = if !named.is_empty() || cells == 0 {
            self.rows(field, &named)?;
            named
        } else {
            match field.level {
                Level::Record | Level::Intrinsic => (0..self.columns.rows()).collect(),
                Level::Resource => self.columns.resources().to_vec(),
                Level::Scope => self.columns.scopes().to_vec(),
            }
        };
        if rows.len() != cells {
            return Err(BadEdit::Count { key: field.key.clone(), cells, rows: rows.len() });
        }
        Ok(rows)
    }

    fn rows(&self, field: &Field, rows: &[u32]) -> Result<(), BadEdit> {
        self.ascending(&field.key, rows)?;
        let first_rows = match field.level {
            Level::Record | Level::Intrinsic => return Ok(()),
            Level::Resource => self.columns.resources(),
            Level::Scope => self.columns.scopes(),
        };
        match rows.iter().find(|row| first_rows.binary_search(row).is_err()) {
            Some(&row) => Err(BadEdit::NotFirst { key: field.key.clone(), level: field.level, row }),
            None => Ok(()),
        }
    }

    fn ascending(&self, key: &str, rows: &[u32]) -> Result<(), BadEdit> {
        if let Some(pair) = rows.array_windows().find(|[before, row]| before >= row) {
            return Err(BadEdit::Order { key: key.to_owned(), row: pair[1], before: pair[0] });
        }
        match rows.last() {
            Some(&row) if row >= self.columns.rows() => {
                Err(BadEdit::Row { key: key.to_owned(), row, rows: self.columns.rows() })
            }
            _ => Ok(()),
        }
    }

    /// Whether no cell is both set and unset.
    fn cells_once(&self) -> Result<(), BadEdit> {
        let unsets = |list: &&List| list.values == Values::Unset;
        for unset in self.lists.iter().filter(unsets) {
            let Some(set) = self.lists.iter().find(|list| list.field == unset.field && !unsets(list)) else { continue };
            if let Some(&row) = unset.rows.iter().find(|row| set.rows.binary_search(row).is_ok()) {
                return Err(BadEdit::CellTwice { key: self.selection.fields()[set.field].key.clone(), row });
            }
        }
        Ok(())
    }

    /// What is there several times and may be written is there once afterwards, edited or not.
    fn duplicates(&mut self) {
        let edited = self.lists.len();
        for &(field, row) in &self.columns.duplicates {
            let (lists, added) = self.lists.split_at_mut(edited);
            if lists.iter().any(|list| list.field == field && list.rows.binary_search(&row).is_ok()) {
                continue;
            }
            match added.iter_mut().find(|list| list.field == field) {
                Some(list) if list.rows.last() == Some(&row) => {}
                Some(list) => list.rows.push(row),
                None => self.lists.push(List { field, rows: vec![row], values: Values::First }),
            }
        }
    }
}

/// Whether the values lie behind each other and take all bytes.
fn ends_fit(field: &Field, ends: &[u32], bytes: &[u8]) -> Result<(), BadEdit> {
    let bad = |end, before| BadEdit::End { key: field.key.clone(), end, before, bytes: bytes.len() };
    if let Some(&[before, end]) = ends.array_windows().find(|[before, end]| before > end) {
        return Err(bad(end, before));
    }
    let last = ends.last().copied().unwrap_or(0);
    if last as usize == bytes.len() { Ok(()) } else { Err(bad(last, 0)) }
}

/// Whether all values are UTF-8: the whole at once, and no value ends inside a character.
fn is_text(field: &Field, rows: &[u32], ends: &[u32], bytes: &[u8]) -> Result<(), BadEdit> {
    let row = match std::str::from_utf8(bytes) {
        Ok(text) => ends.iter().position(|&end| !text.is_char_boundary(end as usize)),
        Err(error) => ends.iter().position(|&end| end as usize > error.valid_up_to()),
    };
    match row {
        Some(index) => Err(BadEdit::Utf8 { key: field.key.clone(), row: rows[index] }),
        None => Ok(()),
    }
}

/// The body of the `AnyValue` that a JSON text says.
fn value(_: &Field, json: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    json_value::encode(json, out).map_err(|error| error.to_string())
}

/// The events or links of a new span, as its fields: in JSON what reading them gives.
fn list(field: &Field, json: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    from_json::list_of_span(&field.key, json, out).map_err(|error| error.to_string())?;
    lists_of_span(&out[start..]).map_err(|reason| reason.to_string())
}

/// Appends what the JSON of one cell becomes, or says why it cannot.
type Encode = fn(&Field, &[u8], &mut Vec<u8>) -> Result<(), String>;

/// What the JSON texts of cells become: rows, ends and bytes.
fn encode(one: Encode, field: &Field, (rows, ends, bytes): (&[u32], &[u32], &[u8])) -> Result<Values, BadEdit> {
    let (mut start, mut out) = (0, Vec::with_capacity(bytes.len()));
    let mut encoded = Vec::with_capacity(ends.len());
    for (&row, &end) in rows.iter().zip(ends) {
        one(field, &bytes[start..end as usize], &mut out).map_err(|why| BadEdit::Json {
            key: field.key.clone(),
            row,
            why,
        })?;
        start = end as usize;
        encoded.push(u32::try_from(out.len()).expect("16 MiB of JSON become less than 4 GiB"));
    }
    Ok(Values::Text(encoded, out))
}
