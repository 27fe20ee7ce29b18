//! Attributes under keys that are only known now.
//!
//! Declared fields cannot name them: the pairs of a line, the columns of a table. They are written only, as text, and belong
//! to one batch; the host takes at most [`Extra::LIMIT`] different keys.

use crate::bindings::types::{Field, TextEdits};
use crate::cell::{Edits, WideEdits};
use crate::fields::Level;

/// Attributes of this batch beside the declared fields.
#[derive(Debug)]
pub struct Extra {
    /// How many fields are declared: these are numbered after them.
    first: u16,
    fields: Vec<Field>,
    edits: Vec<WideEdits>,
}

impl Extra {
    /// Different keys of a batch.
    pub const LIMIT: usize = 256;

    pub(crate) fn after(declared: usize) -> Self {
        let first = u16::try_from(declared).expect("a struct has fewer fields");
        Self { first, fields: Vec::new(), edits: Vec::new() }
    }

    /// Sets an attribute of a row. Rows are visited in order; the key is none that a declared field writes.
    ///
    /// # Errors
    /// When there are [`Extra::LIMIT`] other keys.
    pub fn set(&mut self, row: u32, key: &str, value: &str) -> Result<(), String> {
        let index = match self.fields.iter().position(|field| field.key == key) {
            Some(index) => index,
            None if self.fields.len() == Self::LIMIT => {
                return Err(format!("more than {} keys in a batch", Self::LIMIT));
            }
            None => {
                let level = Level::Record as u8;
                self.fields.push(Field { level, key: key.to_owned(), kind: 0, read: false, write: true });
                self.edits.push(WideEdits::default());
                self.fields.len() - 1
            }
        };
        self.edits[index].set(row, &[value.as_bytes()], (0, 0));
        Ok(())
    }

    /// Takes back what was set at this row.
    pub(crate) fn forget(&mut self, row: u32) {
        for edits in &mut self.edits {
            edits.forget(row);
        }
    }

    /// The fields with their edits, which are added to those of the declared ones.
    pub(crate) fn finish(self, text: &mut Vec<TextEdits>) -> Vec<Field> {
        let mut edits = Edits::default();
        for (field, cells) in (self.first..).zip(self.edits) {
            cells.finish(field, &mut edits);
        }
        text.append(&mut edits.text);
        self.fields
    }
}
