//! What a plugin edits tells so itself, where the operator asks for it: an attribute with its generation and component.
//!
//! Each span, resource or scope of which the plugin sets or removes something gets `millrace.plugin.NAME` =
//! `GENERATION@DIGITS`, the first twelve hexadecimal digits of the component's SHA-256. It is one more field of the patch that
//! the plugin answered, so it is applied with the edits or not at all; what the plugin left alone has none. Bytes of it
//! are not the plugin's: they do not count against its limit.

use super::cells::push_text;
use super::program::Program;
use crate::otlp::columns::{Columns, Field, Kind, Level, TextColumn};
use crate::otlp::edit::{Patch, TextEdits};

/// Bytes around a key and its value, as the check of a patch counts them, and some more.
const FRAMING_BYTES: usize = 32;

/// The attribute of one generation of a plugin.
#[derive(Debug)]
pub(super) struct Mark {
    key: String,
    value: String,
}

/// What marks have added to a patch.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Fields that they are in, numbered after all others.
    pub(super) fields: Vec<Field>,
    /// What they cost at most.
    pub(super) bytes: usize,
}

impl Mark {
    /// The mark of what runs; `None` where nobody asks for it.
    pub(super) fn of(program: &Program) -> Option<Mark> {
        let (plugin, generation) = (&program.plugin, &program.generation);
        plugin.record.then(|| Mark {
            key: format!("millrace.{}", plugin.name.replacen('/', ".", 1)),
            value: format!("{}@{}", generation.number, generation.digits()),
        })
    }

    /// Adds the mark to every row and group that an unchecked patch of these fields edits. What is wrong with the patch stays
    /// for the check to say.
    pub(super) fn add(&self, patch: &mut Patch, fields: &[Field], columns: &Columns) -> Marks {
        let mut marks = Marks::default();
        if named(patch).any(|field| usize::from(field) >= fields.len()) {
            return marks;
        }
        for level in [Level::Record, Level::Resource, Level::Scope] {
            let mut cells = TextColumn::default();
            for row in edited(patch, level, fields, columns) {
                push_text(&mut cells, row, self.value.as_bytes());
            }
            let Ok(field) = u16::try_from(fields.len() + marks.fields.len()) else { continue };
            if !cells.rows.is_empty() {
                marks.bytes += cells.rows.len() * (self.key.len() + self.value.len() + FRAMING_BYTES);
                marks.fields.push(Field { level, key: self.key.clone(), kind: Kind::Text, read: false, write: true });
                patch.text.push(TextEdits { field, cells });
            }
        }
        marks
    }
}

/// The numbers of the fields that a patch edits.
fn named(patch: &Patch) -> impl Iterator<Item = u16> {
    let (texts, nums) = (patch.text.iter().map(|edits| edits.field), patch.num.iter().map(|edits| edits.field));
    texts.chain(nums).chain(patch.unset.iter().map(|unset| unset.field))
}

/// The rows, or first rows of groups, whose fields of a level the patch sets or removes, ascending.
fn edited(patch: &Patch, level: Level, fields: &[Field], columns: &Columns) -> Vec<u32> {
    let texts = patch.text.iter().map(|edits| (edits.field, &edits.cells.rows, edits.cells.ends.len()));
    let nums = patch.num.iter().map(|edits| (edits.field, &edits.cells.rows, edits.cells.values.len()));
    let unsets = patch.unset.iter().map(|unset| (unset.field, &unset.rows, unset.rows.len()));
    // What every span has of itself is edited in the span.
    let is_of_level = |field: u16| {
        let field = fields.get(usize::from(field));
        field.is_some_and(|field| field.level == level || (field.level, level) == (Level::Intrinsic, Level::Record))
    };
    let mut is_edited = vec![false; columns.rows() as usize];
    for (_, rows, cells) in texts.chain(nums).chain(unsets).filter(|(field, ..)| is_of_level(*field)) {
        // No row is named where every one has a cell.
        match rows.is_empty() && cells > 0 {
            true => is_edited.fill(true),
            false => rows.iter().filter_map(|row| usize::try_from(*row).ok()).for_each(|row| {
                is_edited.get_mut(row).into_iter().for_each(|is_edited| *is_edited = true);
            }),
        }
    }
    let among = |rows: &[u32]| rows.iter().copied().filter(|row| is_edited[*row as usize]).collect();
    match level {
        Level::Resource => among(columns.resources()),
        Level::Scope => among(columns.scopes()),
        Level::Record | Level::Intrinsic => (0..columns.rows()).filter(|row| is_edited[*row as usize]).collect(),
    }
}

#[cfg(test)]
mod tests;
