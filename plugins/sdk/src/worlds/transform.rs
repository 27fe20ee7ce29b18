//! The world `transform`: change or drop spans and log records.
//!
//! [`Transform::row`] for one row at a time; [`Transform::batch`] for whoever wants the whole batch, its columns and what was
//! not declared as a field.

use crate::bindings::rest;
use crate::bindings::types::{Column, Patch};
use crate::cell::{Cell, Edits, Read};
use crate::extra::Extra;
use crate::fields::{Fields, Level};
use crate::plugin::Plugin;
use crate::rows::{At, Given, Rows};
#[cfg(not(target_arch = "wasm32"))]
use crate::testing;
use crate::wide::AnyText;

/// The intrinsics that may be edited here.
pub const WRITABLE: &[&str] = &[
    "name",
    "kind",
    "status",
    "status-message",
    "body",
    "severity",
    "severity-text",
    // These can only be unset.
    "events",
    "links",
    "trace-state",
];

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, with its edits.
    Keep,
    /// It is dropped and counted.
    Drop,
}

/// A plugin that edits or drops rows. `#[transform]` on the impl exports it.
pub trait Transform: Plugin {
    /// The fields that it reads and writes.
    type Row<'b>: Fields<'b>;

    /// Called at the first row of each resource, before its row: fields of a resource are best edited here.
    fn resource(&mut self, _row: &mut Self::Row<'_>) {}

    /// Called for each row.
    fn row(&mut self, _row: &mut Self::Row<'_>) -> Verdict {
        Verdict::Keep
    }

    /// Called for each batch; visits the rows unless the plugin has a better way.
    ///
    /// # Errors
    /// Concern this batch only, which stays as it was; the operator's policy decides what becomes of it.
    fn batch<'b>(&mut self, batch: &mut Batch<'b, Self::Row<'b>>) -> Result<(), String> {
        while let Some(at) = batch.rows.advance() {
            if at.begins_resource {
                self.resource(&mut batch.rows.fields);
            }
            if self.row(&mut batch.rows.fields) == Verdict::Drop {
                batch.drop_row(&at);
            }
        }
        Ok(())
    }
}

/// A batch to transform.
#[derive(Debug)]
pub struct Batch<'b, R> {
    /// The declared fields, row by row.
    pub rows: Rows<'b, R>,
    /// Attributes to set under keys that are not declared.
    pub extra: Extra,
    /// Everything else, slowly.
    pub all: All<'b>,
    dropped: Vec<u32>,
}

impl<R> Batch<'_, R> {
    /// Drops the row at hand. Rows are dropped in order, each at most once.
    pub fn drop_row(&mut self, at: &At) {
        if self.dropped.last() != Some(&at.row) {
            self.dropped.push(at.row);
        }
    }
}

/// The whole batch, also what was not declared: each question is a call to the host and copies a column.
#[derive(Debug, Clone, Copy)]
pub struct All<'b>(Source<'b>);

#[derive(Debug, Clone, Copy)]
enum Source<'b> {
    Host(&'b rest::Batch),
    #[cfg(not(target_arch = "wasm32"))]
    Test(&'b testing::Batch),
}

impl<'b> All<'b> {
    /// What the host lends.
    #[must_use]
    pub fn host(batch: &'b rest::Batch) -> Self {
        Self(Source::Host(batch))
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn test(batch: &'b testing::Batch) -> Self {
        Self(Source::Test(batch))
    }

    /// The values under a key with their rows, or the first rows of their groups; what is not text comes as JSON.
    ///
    /// # Errors
    /// When the host does not know the intrinsic.
    pub fn text(&self, level: Level, key: &str) -> Result<Vec<(u32, String)>, String> {
        let column = match self.0 {
            Source::Host(batch) => batch.column(level as u8, key, AnyText::<Read>::KIND)?,
            #[cfg(not(target_arch = "wasm32"))]
            Source::Test(batch) => Column::Text(batch.all_text(level, key)),
        };
        let Column::Text(column) = column else { return Err(format!("{key} came as numbers")) };
        let mut start = 0;
        let cells = column.ends.iter().zip(0..).map(|(&end, ordinal)| {
            let bytes = &column.bytes[start..end as usize];
            start = end as usize;
            let row = column.rows.get(ordinal as usize).copied().unwrap_or(ordinal);
            (row, String::from_utf8_lossy(bytes).into_owned())
        });
        Ok(cells.collect())
    }

    /// The distinct keys of a level.
    #[must_use]
    pub fn keys(&self, level: Level) -> Vec<String> {
        match self.0 {
            Source::Host(batch) => batch.keys(level as u8),
            #[cfg(not(target_arch = "wasm32"))]
            Source::Test(batch) => batch.all_keys(level),
        }
    }
}

/// Runs one batch.
///
/// # Errors
/// The plugin's own, or that the columns are not those of its fields.
pub fn run<'b, P: Transform>(plugin: &mut P, given: &'b Given, all: All<'b>) -> Result<Patch, String> {
    let mut batch = Batch {
        rows: Rows::open(given.signal, given.rows, Some(&given.groups), &given.columns)?,
        extra: Extra::after(<P::Row<'b> as Fields<'b>>::FIELDS.len()),
        all,
        dropped: Vec::new(),
    };
    plugin.batch(&mut batch)?;
    let Edits { mut text, num, unset } = batch.rows.finish();
    let extra = batch.extra.finish(&mut text);
    Ok(Patch { drop: batch.dropped, extra, text, num, unset })
}
