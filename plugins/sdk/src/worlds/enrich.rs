//! The world `enrich`: add attributes that follow from a few values.
//!
//! A row is a distinct combination of the values of the fields that are read, and the answer a pure function of it: the host
//! remembers it, so that a slow look-up costs nothing when the value comes again.

use crate::bindings::types::{Column, Field, NumEdits, TextEdits};
use crate::cell::Edits;
use crate::extra::Extra;
use crate::fields::Fields;
use crate::plugin::{Plugin, Signal};
use crate::rows::Rows;

/// A plugin that adds to rows. `#[enrich]` on the impl exports it.
pub trait Enrich: Plugin {
    /// The fields that it reads, and those that it writes.
    type Row<'b>: Fields<'b>;

    /// Called for each combination.
    fn row(&mut self, _row: &mut Self::Row<'_>) {}

    /// Called for each batch of combinations; visits them unless the plugin has a better way, as when it asks a table for
    /// all of them at once. `extra` takes attributes whose keys are not declared.
    ///
    /// # Errors
    /// Concern this batch only; the operator's policy decides what becomes of its rows.
    fn batch<'b>(&mut self, rows: &mut Rows<'b, Self::Row<'b>>, _extra: &mut Extra) -> Result<(), String> {
        while rows.advance().is_some() {
            self.row(&mut rows.fields);
        }
        Ok(())
    }
}

/// What to add.
#[derive(Debug)]
pub struct Additions {
    /// Fields of this batch alone.
    pub extra: Vec<Field>,
    /// Text to set.
    pub text: Vec<TextEdits>,
    /// Numbers to set.
    pub num: Vec<NumEdits>,
}

/// Runs one batch.
///
/// # Errors
/// The plugin's own, that the columns are not those of its fields, or that it removes something: here values are only added.
pub fn run<'b, P: Enrich>(
    plugin: &mut P,
    signal: Signal,
    rows: u32,
    columns: &'b [Column],
) -> Result<Additions, String> {
    let mut rows = Rows::open(signal, rows, None, columns)?;
    let mut extra = Extra::after(<P::Row<'b> as Fields<'b>>::FIELDS.len());
    plugin.batch(&mut rows, &mut extra)?;
    let Edits { mut text, num, unset } = rows.finish();
    let extra = extra.finish(&mut text);
    match unset.is_empty() {
        true => Ok(Additions { extra, text, num }),
        false => Err("a plugin of the world enrich cannot unset".to_owned()),
    }
}
