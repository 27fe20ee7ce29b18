//! Fields of fixed width: integers, floating point numbers and booleans.
//!
//! All travel as 64 bits. As with text, [`Number::get`] gives the value that came, whatever was set since.

use std::marker::PhantomData;

use crate::bindings::types::{Column, NumColumn, NumEdits};
use crate::cell::{Access, Cell, Edits, Position, Read, Readable, Removed, Writable};

/// A signed integer.
pub type Integer<'b, A = Read> = Number<'b, i64, A>;
/// A floating point number; an integer attribute is given as one too.
pub type Float<'b, A = Read> = Number<'b, f64, A>;
/// A boolean.
pub type Boolean<'b, A = Read> = Number<'b, bool, A>;

/// A field of fixed width; see [`Integer`], [`Float`] and [`Boolean`].
#[derive(Debug)]
pub struct Number<'b, T: Bits, A: Access = Read> {
    at: Position<'b>,
    values: &'b [i64],
    rows: Vec<u32>,
    edits: Vec<i64>,
    removed: Removed,
    access: PhantomData<(T, A)>,
}

/// What the 64 bits of a [`Number`] mean.
pub trait Bits: Copy {
    /// The kind's number in the interface.
    const KIND: u8;
    #[doc(hidden)]
    fn from_bits(bits: i64) -> Self;
    #[doc(hidden)]
    fn bits(self) -> i64;
}

impl Bits for i64 {
    const KIND: u8 = 1;

    fn from_bits(bits: i64) -> Self {
        bits
    }

    fn bits(self) -> i64 {
        self
    }
}

impl Bits for f64 {
    const KIND: u8 = 2;

    fn from_bits(bits: i64) -> Self {
        Self::from_bits(bits.cast_unsigned())
    }

    fn bits(self) -> i64 {
        self.to_bits().cast_signed()
    }
}

impl Bits for bool {
    const KIND: u8 = 3;

    fn from_bits(bits: i64) -> Self {
        bits != 0
    }

    fn bits(self) -> i64 {
        i64::from(self)
    }
}

impl<'b, T: Bits, A: Access> Cell<'b> for Number<'b, T, A> {
    const KIND: u8 = T::KIND;
    const READ: bool = A::READ;
    const WRITE: bool = A::WRITE;

    fn open(column: Option<&'b Column>) -> Result<Self, String> {
        const NOTHING: &NumColumn = &NumColumn { rows: Vec::new(), values: Vec::new() };
        let column = match column {
            Some(Column::Num(column)) => column,
            Some(Column::Text(_)) => return Err("a column of text for a field of numbers".to_owned()),
            None => NOTHING,
        };
        Ok(Self {
            at: Position::new(&column.rows),
            values: &column.values,
            rows: Vec::new(),
            edits: Vec::new(),
            removed: Removed::default(),
            access: PhantomData,
        })
    }

    #[inline(always)]
    fn seek(&mut self, ordinal: u32, row: u32) {
        self.at.seek(ordinal, row);
    }

    #[inline(always)]
    fn forget(&mut self) {
        self.removed.forget(self.at.row());
        if self.rows.last() == Some(&self.at.row()) {
            self.rows.pop();
            self.edits.pop();
        }
    }

    fn finish(self, field: u16, edits: &mut Edits) {
        if !self.rows.is_empty() {
            edits.num.push(NumEdits { field, cells: NumColumn { rows: self.rows, values: self.edits } });
        }
        self.removed.finish(field, edits);
    }
}

impl<'b, T: Bits, A: Readable> Number<'b, T, A> {
    /// The value that came with this row, if it has one of this kind.
    #[inline(always)]
    pub fn get(&self) -> Option<T> {
        self.values.get(self.at.cell()).copied().map(T::from_bits)
    }

    /// Every value of the batch with its row, or with the first row of its group.
    pub fn cells(&self) -> impl Iterator<Item = (u32, T)> + use<'b, T, A> {
        self.at.rows(self.values.len()).zip(self.values.iter().copied().map(T::from_bits))
    }
}

impl<T: Bits, A: Writable> Number<'_, T, A> {
    /// Sets the value of this row; of a resource or scope, of its whole group.
    #[inline(always)]
    pub fn set(&mut self, value: T) {
        self.forget();
        self.rows.push(self.at.row());
        self.edits.push(value.bits());
    }

    /// Removes the attribute.
    pub fn unset(&mut self) {
        self.forget();
        self.removed.push(self.at.row());
    }
}
