//! Edits of a payload: which rows go, which values are set, which are removed.
//!
//! A [`Patch`] is raw: it comes from somebody who may be wrong. Rows and fields are those of the
//! [`columns`](super::columns) that it answers.

use super::columns::{NumColumn, TextColumn};

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
