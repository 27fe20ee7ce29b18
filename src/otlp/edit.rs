//! Edits of a payload: which rows go, which values are set, which are removed; applied by rewriting the bytes.
//!
//! A [`Patch`] is raw: it comes from somebody who may be wrong. [`check`] proves all of it against the [`columns`] that it
//! answers, before anything is changed, and makes [`Edits`]; [`apply`] copies the payload with the edits in it. What no
//! edit touches is copied in runs as it stands, unknown fields included; a touched record is copied around the places that
//! gathering remembered; wrappers that have lost all their rows vanish. The result passes the check that the payload
//! passed. Nothing here knows where a patch comes from, nor what is done about a bad one.
//!
//! Of several attributes with an edited key the first is replaced and the others removed; a value that was absent is put
//! behind the last. Of an attribute that may be written the others are removed in any case: who has seen one value and
//! left it must not have left another.
//!
//! [`columns`]: super::columns

use super::Summary;
use super::columns::{NumColumn, TextColumn};

mod apply;
mod build;
mod check;
mod json_value;
mod message;

pub use apply::apply;
pub use build::{Arrival, Unbuildable, build};
pub use check::{BadEdit, MAX_EDIT_BYTES, check};

/// What to change, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Rows to drop, ascending.
    pub drop: Vec<u32>,
    /// Values of variable width to set.
    pub text: Vec<TextEdits>,
    /// Values of fixed width to set.
    pub num: Vec<NumEdits>,
    /// Values to remove.
    pub unset: Vec<Unset>,
}

/// Values of one field to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextEdits {
    /// Which of the selection's fields.
    pub field: u16,
    /// Rows and values. Rows of a resource's or scope's field are first rows of groups; the value is set for the group.
    pub cells: TextColumn,
}

/// Values of one field to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumEdits {
    /// Which of the selection's fields.
    pub field: u16,
    /// As in [`TextEdits`].
    pub cells: NumColumn,
}

/// Values of one field to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unset {
    /// Which of the selection's fields.
    pub field: u16,
    /// Ascending; rows that have no such value stay as they are.
    pub rows: Vec<u32>,
}

/// A patch that has passed [`check`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    drop: Vec<u32>,
    lists: Vec<List>,
}

impl Edits {
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drop.is_empty() && self.lists.is_empty()
    }

    /// Rows that will be dropped.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        u32::try_from(self.drop.len()).expect("rows are counted in 32 bits")
    }
}

/// Edits of one field; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    field: usize,
    /// Ascending; of groups their first rows.
    rows: Vec<u32>,
    values: Values,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    /// Where each ends, and the bytes; of JSON the encoded `AnyValue`s.
    Text(Vec<u32>, Vec<u8>),
    Num(Vec<i64>),
    Unset,
    /// All but the first of several.
    First,
}

/// A value that an edit gives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum New<'a> {
    Text(&'a [u8]),
    Num(i64),
    Unset,
    First,
}

impl List {
    /// The value at `index` of the rows.
    #[inline]
    fn value(&self, index: usize) -> New<'_> {
        match &self.values {
            Values::Text(ends, bytes) => {
                let start = if index == 0 { 0 } else { ends[index - 1] };
                New::Text(&bytes[start as usize..ends[index] as usize])
            }
            Values::Num(values) => New::Num(values[index]),
            Values::Unset => New::Unset,
            Values::First => New::First,
        }
    }
}

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// There was nothing to change: the payload is still good, and the output empty.
    Unchanged,
    /// The output is the new payload.
    Changed {
        /// What it holds.
        summary: Summary,
        /// Rows in it that an edit names, themselves or by their resource or scope.
        edited: u32,
        /// Rows that are no longer there.
        dropped: u32,
    },
}

#[cfg(test)]
mod tests;
