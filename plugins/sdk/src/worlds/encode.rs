//! The world `encode`: write spans or log records as bytes for a backend.
//!
//! The host sends, repeats and acknowledges what the plugin writes. The same batch may be given again, so the bytes must
//! follow from it alone.

use crate::fields::Fields;
use crate::plugin::Plugin;
use crate::rows::{Given, Rows};

/// A plugin that writes a format. `#[encode]` on the impl exports it.
pub trait Encode: Plugin {
    /// The fields that it reads.
    type Row<'b>: Fields<'b>;

    /// The media type of a message.
    const CONTENT_TYPE: &'static str;

    /// Called for each row; appends to the message.
    ///
    /// # Errors
    /// The row cannot be said in this format. What was appended is taken back, and the row counted.
    fn row(&mut self, _row: &mut Self::Row<'_>, _message: &mut Vec<u8>) -> Result<(), Unencodable> {
        Ok(())
    }

    /// Called for each batch; writes it as one message unless the plugin does something else.
    ///
    /// # Errors
    /// Concern this batch only; the operator's policy decides what becomes of it.
    fn batch<'b>(&mut self, rows: &mut Rows<'b, Self::Row<'b>>, messages: &mut Messages) -> Result<(), String> {
        while let Some(at) = rows.advance() {
            let before = messages.bytes.len();
            if self.row(&mut rows.fields, &mut messages.bytes).is_err() {
                messages.bytes.truncate(before);
                messages.unencodable.push(at.row);
            }
        }
        messages.end(rows.len());
        Ok(())
    }
}

/// A row cannot be said in this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unencodable;

/// Messages, one behind the other in one buffer.
#[derive(Debug, Default)]
pub struct Messages {
    /// Where the message at hand is appended.
    pub bytes: Vec<u8>,
    /// Rows that cannot be said in this format, ascending.
    pub unencodable: Vec<u32>,
    ends: Vec<u32>,
    rows: Vec<u32>,
}

impl Messages {
    /// Ends the message at hand, which says the rows up to `next`, that one not included. An empty one is not sent.
    pub fn end(&mut self, next: u32) {
        let end = u32::try_from(self.bytes.len()).expect("memory of 32 bits holds no more");
        if self.ends.last().copied().unwrap_or(0) < end {
            self.ends.push(end);
            self.rows.push(next.saturating_sub(1));
        }
    }

    /// Where each message ends in the bytes, and the last row of each.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<u32>, Vec<u32>, Vec<u32>) {
        (self.bytes, self.ends, self.rows, self.unencodable)
    }
}

/// Encodes one batch.
///
/// # Errors
/// The plugin's own, or that the columns are not those of its fields.
pub fn run<P: Encode>(plugin: &mut P, given: &Given) -> Result<Messages, String> {
    let mut rows = Rows::open(given.signal, given.rows, Some(&given.groups), &given.columns)?;
    let mut messages = Messages::default();
    plugin.batch(&mut rows, &mut messages)?;
    messages.end(rows.len());
    Ok(messages)
}
