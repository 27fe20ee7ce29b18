//! One field of a row: where its cell is now, and what is to be written.
//!
//! A column holds a cell for each row, or only for the rows that it names; a field of a resource or scope has one cell a
//! group. All of that ends here: whoever holds a field sees the value of the row at hand.
//!
//! Invariant: rows are visited once and in order, so edits are in order too, and a later edit of the same cell replaces the
//! earlier one. A patch made this way is never refused for its form.

use crate::bindings::types::{Column, NumEdits, TextColumn, TextEdits, Unset};

/// How a field is used: [`Read`], [`Write`] or [`Edit`].
pub trait Access {
    /// The host gives the values.
    const READ: bool;
    /// Values may be set and removed.
    const WRITE: bool;
}

/// The field is read.
#[derive(Debug)]
pub struct Read;

/// The field is written and never read: the host need not gather it.
#[derive(Debug)]
pub struct Write;

/// The field is read and written.
#[derive(Debug)]
pub struct Edit;

impl Access for Read {
    const READ: bool = true;
    const WRITE: bool = false;
}

impl Access for Write {
    const READ: bool = false;
    const WRITE: bool = true;
}

impl Access for Edit {
    const READ: bool = true;
    const WRITE: bool = true;
}

/// An [`Access`] under which values are given.
pub trait Readable: Access {}
impl Readable for Read {}
impl Readable for Edit {}

/// An [`Access`] under which values may be set.
pub trait Writable: Access {}
impl Writable for Write {}
impl Writable for Edit {}

/// A field's type: [`Text`](crate::Text), [`Integer`](crate::Integer) and the others. Called by what `#[derive(Fields)]` makes.
pub trait Cell<'b>: Sized {
    /// The kind's number in the interface.
    const KIND: u8;
    /// See [`Access::READ`].
    const READ: bool;
    /// See [`Access::WRITE`].
    const WRITE: bool;

    /// A field over its column; `None` for one that is only written.
    ///
    /// # Errors
    /// When the column is of another kind than the field.
    fn open(column: Option<&'b Column>) -> Result<Self, String>;

    /// Goes to the `ordinal`th row or group; `row` is the row, or the first of the group.
    fn seek(&mut self, ordinal: u32, row: u32);

    /// Takes back what was written to this row.
    fn forget(&mut self);

    /// Hands over what was written, as edits of the field with this number.
    fn finish(self, field: u16, edits: &mut Edits);
}

/// What all fields together want written.
#[derive(Debug, Default)]
pub struct Edits {
    pub(crate) text: Vec<TextEdits>,
    pub(crate) num: Vec<NumEdits>,
    pub(crate) unset: Vec<Unset>,
}

/// Where in a column the current row's cell is.
#[derive(Debug)]
pub(crate) struct Position<'b> {
    rows: &'b [u32],
    next: usize,
    cell: usize,
    row: u32,
}

impl<'b> Position<'b> {
    pub(crate) fn new(rows: &'b [u32]) -> Self {
        Self { rows, next: 0, cell: usize::MAX, row: 0 }
    }

    #[inline(always)]
    pub(crate) fn seek(&mut self, ordinal: u32, row: u32) {
        self.row = row;
        self.cell = if self.rows.is_empty() {
            ordinal as usize
        } else if self.rows.get(self.next) == Some(&row) {
            self.next += 1;
            self.next - 1
        } else {
            usize::MAX
        };
    }

    /// The cell's number, or one past every column when the row has none.
    #[inline(always)]
    pub(crate) fn cell(&self) -> usize {
        self.cell
    }

    #[inline(always)]
    pub(crate) fn row(&self) -> u32 {
        self.row
    }

    /// The rows that have a cell, of a column of `cells`.
    pub(crate) fn rows(&self, cells: usize) -> impl Iterator<Item = u32> + use<'b> {
        let rows = self.rows;
        (0..cells).zip(0..).map(move |(cell, ordinal)| rows.get(cell).copied().unwrap_or(ordinal))
    }
}

/// The rows to remove a value from.
#[derive(Debug, Default)]
pub(crate) struct Removed(Vec<u32>);

impl Removed {
    #[inline(always)]
    pub(crate) fn forget(&mut self, row: u32) {
        if self.0.last() == Some(&row) {
            self.0.pop();
        }
    }

    pub(crate) fn push(&mut self, row: u32) {
        self.forget(row);
        self.0.push(row);
    }

    pub(crate) fn finish(self, field: u16, edits: &mut Edits) {
        if !self.0.is_empty() {
            edits.unset.push(Unset { field, rows: self.0 });
        }
    }
}

/// Values of variable width to set, appended to one buffer.
#[derive(Debug, Default)]
pub(crate) struct WideEdits {
    rows: Vec<u32>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl WideEdits {
    /// Makes room for as much as the column holds, once: most edits keep or shorten.
    #[cold]
    #[inline(never)]
    fn reserve(&mut self, cells: usize, bytes: usize) {
        self.rows.reserve_exact(cells);
        self.ends.reserve_exact(cells);
        self.bytes.reserve(bytes);
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, row: u32, parts: &[&[u8]], expected: (usize, usize)) {
        if self.rows.capacity() == 0 {
            self.reserve(expected.0, expected.1);
        }
        self.forget(row);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.rows.push(row);
        self.ends.push(u32::try_from(self.bytes.len()).expect("memory of 32 bits holds no more"));
    }

    #[inline(always)]
    pub(crate) fn forget(&mut self, row: u32) {
        if self.rows.last() == Some(&row) {
            self.rows.pop();
            self.ends.pop();
            self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
        }
    }

    pub(crate) fn finish(self, field: u16, edits: &mut Edits) {
        if !self.rows.is_empty() {
            let cells = TextColumn { rows: self.rows, ends: self.ends, bytes: self.bytes };
            edits.text.push(TextEdits { field, cells });
        }
    }
}
