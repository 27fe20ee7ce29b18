//! Fields of variable width: text, bytes and JSON.
//!
//! A value is a slice of the column that the host gave and lives as long as the batch, so it may be kept while the field is
//! edited. What is set does not change what [`Wide::get`] gives: that is always the value that came.

use std::marker::PhantomData;

use crate::bindings::types::{Column, TextColumn};
use crate::cell::{Access, Cell, Edits, Position, Read, Readable, Removed, WideEdits, Writable};

/// UTF-8 text.
pub type Text<'b, A = Read> = Wide<'b, Utf8, A>;
/// Bytes; of a text attribute its UTF-8.
pub type Bytes<'b, A = Read> = Wide<'b, Octets, A>;
/// Any value as text: text as it is, anything else as JSON. For whoever must find every value; what is written is text.
pub type AnyText<'b, A = Read> = Wide<'b, Whatever, A>;
/// The JSON text of any value.
pub type Json<'b, A = Read> = Wide<'b, JsonText, A>;

/// A field of variable width; see [`Text`], [`Bytes`] and [`Json`].
#[derive(Debug)]
pub struct Wide<'b, C: Content, A: Access = Read> {
    at: Position<'b>,
    ends: &'b [u32],
    values: &'b C::Value,
    edits: WideEdits,
    removed: Removed,
    access: PhantomData<A>,
}

/// What the bytes of a [`Wide`] field mean.
pub trait Content {
    /// `str` or `[u8]`.
    type Value: ?Sized + 'static;
    /// The kind's number in the interface.
    const KIND: u8;
    #[doc(hidden)]
    fn of(bytes: &[u8]) -> Result<&Self::Value, String>;
    #[doc(hidden)]
    fn slice(values: &Self::Value, start: usize, end: usize) -> Option<&Self::Value>;
    #[doc(hidden)]
    fn bytes(value: &Self::Value) -> &[u8];
}

/// [`Text`]'s content.
#[derive(Debug)]
pub struct Utf8;
/// [`AnyText`]'s content.
#[derive(Debug)]
pub struct Whatever;
/// [`Bytes`]' content.
#[derive(Debug)]
pub struct Octets;
/// [`Json`]'s content.
#[derive(Debug)]
pub struct JsonText;

impl Content for Utf8 {
    type Value = str;
    const KIND: u8 = 0;

    // The whole column at once: cheaper than cell by cell, and a cell is then cut without looking again.
    fn of(bytes: &[u8]) -> Result<&str, String> {
        std::str::from_utf8(bytes).map_err(|error| format!("a column of text: {error}"))
    }

    #[inline(always)]
    fn slice(values: &str, start: usize, end: usize) -> Option<&str> {
        values.get(start..end)
    }

    #[inline(always)]
    fn bytes(value: &str) -> &[u8] {
        value.as_bytes()
    }
}

/// Text under another kind.
macro_rules! as_utf8 {
    ($content:ident, $kind:literal) => {
        impl Content for $content {
            type Value = str;
            const KIND: u8 = $kind;

            fn of(bytes: &[u8]) -> Result<&str, String> {
                Utf8::of(bytes)
            }

            #[inline(always)]
            fn slice(values: &str, start: usize, end: usize) -> Option<&str> {
                Utf8::slice(values, start, end)
            }

            #[inline(always)]
            fn bytes(value: &str) -> &[u8] {
                value.as_bytes()
            }
        }
    };
}

as_utf8!(JsonText, 5);
as_utf8!(Whatever, 6);

impl Content for Octets {
    type Value = [u8];
    const KIND: u8 = 4;

    fn of(bytes: &[u8]) -> Result<&[u8], String> {
        Ok(bytes)
    }

    #[inline(always)]
    fn slice(values: &[u8], start: usize, end: usize) -> Option<&[u8]> {
        values.get(start..end)
    }

    #[inline(always)]
    fn bytes(value: &[u8]) -> &[u8] {
        value
    }
}

impl<'b, C: Content, A: Access> Cell<'b> for Wide<'b, C, A> {
    const KIND: u8 = C::KIND;
    const READ: bool = A::READ;
    const WRITE: bool = A::WRITE;

    fn open(column: Option<&'b Column>) -> Result<Self, String> {
        const NOTHING: &TextColumn = &TextColumn { rows: Vec::new(), ends: Vec::new(), bytes: Vec::new() };
        let column = match column {
            Some(Column::Text(column)) => column,
            Some(Column::Num(_)) => return Err("a column of numbers for a field of text".to_owned()),
            None => NOTHING,
        };
        Ok(Self {
            at: Position::new(&column.rows),
            ends: &column.ends,
            values: C::of(&column.bytes)?,
            edits: WideEdits::default(),
            removed: Removed::default(),
            access: PhantomData,
        })
    }

    #[inline(always)]
    fn seek(&mut self, ordinal: u32, row: u32) {
        self.at.seek(ordinal, row);
    }

    fn forget(&mut self) {
        self.edits.forget(self.at.row());
        self.removed.forget(self.at.row());
    }

    fn finish(self, field: u16, edits: &mut Edits) {
        self.edits.finish(field, edits);
        self.removed.finish(field, edits);
    }
}

impl<'b, C: Content, A: Readable> Wide<'b, C, A> {
    /// The value that came with this row, if it has one of this kind.
    #[inline(always)]
    pub fn get(&self) -> Option<&'b C::Value> {
        self.cut(self.at.cell())
    }

    /// Every value of the batch with its row, or with the first row of its group.
    pub fn cells(&self) -> impl Iterator<Item = (u32, &'b C::Value)> + use<'_, 'b, C, A> {
        self.at.rows(self.ends.len()).enumerate().filter_map(|(cell, row)| Some((row, self.cut(cell)?)))
    }

    #[inline(always)]
    fn cut(&self, cell: usize) -> Option<&'b C::Value> {
        let end = *self.ends.get(cell)?;
        let start = if cell == 0 { 0 } else { self.ends[cell - 1] };
        C::slice(self.values, start as usize, end as usize)
    }
}

impl<C: Content, A: Writable> Wide<'_, C, A> {
    /// Sets the value of this row; of a resource or scope, of its whole group.
    #[inline(always)]
    pub fn set(&mut self, value: &C::Value) {
        self.write(&[C::bytes(value)]);
    }

    /// Removes the attribute.
    pub fn unset(&mut self) {
        self.forget();
        self.removed.push(self.at.row());
    }

    #[inline(always)]
    fn write(&mut self, parts: &[&[u8]]) {
        self.removed.forget(self.at.row());
        self.edits.set(self.at.row(), parts, (self.ends.len(), C::bytes(self.values).len()));
    }
}

impl<C: Content<Value = str>, A: Writable> Wide<'_, C, A> {
    /// Sets the value to these parts, one behind the other, without putting them together elsewhere first.
    #[inline(always)]
    pub fn set_parts<const N: usize>(&mut self, parts: &[&str; N]) {
        self.write(&parts.map(str::as_bytes));
    }
}

impl<A: Readable> Json<'_, A> {
    /// The value of this row, read as `T`; `None` when there is none or it is something else.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.get()?).ok()
    }
}
