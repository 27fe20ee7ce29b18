//! An enricher as a step: rows with the same values are one, and what was said of them once is remembered.
//!
//! The memory belongs to one generation, for that is what an answer follows from: plugin, configuration and tables. It is
//! bounded, and emptied when it is full, and when an answer turns out to break a rule. A row whose values were seen before
//! costs a look-up.

use std::collections::HashMap;

use super::cells::{Cell, Cells, number, push_num, push_text, text_cell};
use super::live::Failure;
use crate::otlp::columns::{Column, Columns, Field, NumColumn, Selection, TextColumn};
use crate::otlp::edit::{NumEdits, Patch, TextEdits, check};
use crate::plugin::answers::Batch;
use crate::plugin::{Answer, Call, Instance};

/// Combinations of values that are remembered at most, and bytes of them and of what was said.
const MOST: usize = 1 << 16;
const MOST_BYTES: usize = 8 << 20;

/// Bytes of an entry beside its values.
const ENTRY_BYTES: usize = 64;

/// A value that follows, of a field: the plugin's own, then those that answers have brought.
struct Said {
    field: usize,
    value: Value,
}

enum Value {
    Text(Box<[u8]>),
    Num(i64),
}

/// See the module.
#[derive(Default)]
pub(super) struct Enricher {
    known: HashMap<Box<[u8]>, u32>,
    said: Vec<Vec<Said>>,
    bytes: usize,
    /// Fields that answers have brought.
    extra: Vec<Field>,
    cells: Vec<Cells>,
    key: Vec<u8>,
    /// For each row of the block, its place in `said`.
    of_row: Vec<u32>,
}

impl Enricher {
    /// What follows for the rows of a call, asking the plugin for what it has not said yet.
    pub(super) fn answer(
        &mut self,
        instance: &mut Instance,
        selection: &Selection,
        call: &Call<'_>,
    ) -> Result<Answer, Failure> {
        if self.known.len() >= MOST || self.bytes >= MOST_BYTES {
            self.forget();
        }
        let new = self.look_up(selection, call.columns);
        instance.counters().rows_remembered.add(u64::from(call.columns.rows()) - new.len() as u64);
        let most = match instance.generation().setup.max_rows {
            0 => new.len().max(1),
            most => most as usize,
        };
        for rows in new.chunks(most) {
            self.ask(instance, selection, call, rows)?;
        }
        Ok(self.expand(selection, call.columns))
    }

    /// Everything is asked for again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.said.clear();
        self.extra.clear();
        self.bytes = 0;
    }

    /// Fills `of_row`; the first row of each combination that nothing was said of yet, in the order of their places.
    fn look_up(&mut self, selection: &Selection, columns: &Columns) -> Vec<u32> {
        let levels = selection.fields().iter().filter(|field| field.read).map(|field| field.level);
        self.cells.resize_with(columns.columns().len(), Cells::default);
        for ((cells, column), level) in self.cells.iter_mut().zip(columns.columns()).zip(levels) {
            cells.find(column, level, columns);
        }
        self.of_row.clear();
        let mut new = Vec::new();
        for row in 0..columns.rows() {
            self.key.clear();
            for (cells, column) in self.cells.iter().zip(columns.columns()) {
                match cells.of(column, row) {
                    None => self.key.push(0),
                    Some(Cell::Num(value)) => {
                        self.key.push(1);
                        self.key.extend_from_slice(&value.to_le_bytes());
                    }
                    Some(Cell::Text(value)) => {
                        self.key.push(2);
                        self.key.extend_from_slice(&number(value.len()).to_le_bytes());
                        self.key.extend_from_slice(value);
                    }
                }
            }
            let place = self.known.get(&self.key[..]).copied().unwrap_or_else(|| {
                let place = number(self.said.len());
                self.bytes += self.key.len() + ENTRY_BYTES;
                self.known.insert(Box::from(&self.key[..]), place);
                self.said.push(Vec::new());
                new.push(row);
                place
            });
            self.of_row.push(place);
        }
        new
    }

    /// Asks for the combinations of these rows and remembers what is said.
    fn ask(
        &mut self,
        instance: &mut Instance,
        selection: &Selection,
        call: &Call<'_>,
        rows: &[u32],
    ) -> Result<(), Failure> {
        let pairs = self.cells.iter().zip(call.columns.columns());
        let columns: Vec<Column> = pairs.map(|(cells, column)| cells.choose(column, rows)).collect();
        let batch =
            Batch { signal: call.signal, rows: number(rows.len()), columns: &columns, received_ns: call.received_ns };
        let Answer { extra, patch } = instance.enrich(&batch).map_err(Failure::of)?;
        let finest = selection.fields().iter().filter(|field| field.read).map(|field| field.level.fineness()).max();
        if let Some(field) = extra.iter().find(|field| field.level.fineness() < finest.unwrap_or(0)) {
            return Err(Failure::TooCoarse { key: field.key.clone(), level: field.level });
        }
        let own = selection.fields().len();
        let extended = selection.extended(extra.clone()).map_err(Failure::BadField)?;
        let limit = usize::try_from(instance.generation().patch_bytes()).unwrap_or(usize::MAX);
        check(&extended, &Columns::of_rows(batch.rows), patch.clone(), limit).map_err(Failure::BadPatch)?;
        // A field that another answer has brought keeps its number.
        let brought: Vec<usize> = extra.into_iter().map(|field| own + self.place_of(field)).collect();
        let field = |number: u16| brought.get(usize::from(number).wrapping_sub(own)).copied().unwrap_or(number.into());
        self.remember(rows, &patch, field);
        Ok(())
    }

    fn place_of(&mut self, field: Field) -> usize {
        self.extra.iter().position(|known| *known == field).unwrap_or_else(|| {
            self.extra.push(field);
            self.extra.len() - 1
        })
    }

    /// A patch that was checked: its rows are in range.
    fn remember(&mut self, rows: &[u32], patch: &Patch, field: impl Fn(u16) -> usize) {
        let mut say = |named: &[u32], index: usize, said: Said, bytes: usize| {
            let row = named.get(index).map_or(index, |row| *row as usize);
            self.said[self.of_row[rows[row] as usize] as usize].push(said);
            self.bytes += bytes;
        };
        for TextEdits { field: of, cells } in &patch.text {
            for index in 0..cells.ends.len() {
                let value = text_cell(cells, index);
                let said = Said { field: field(*of), value: Value::Text(value.into()) };
                say(&cells.rows, index, said, value.len() + ENTRY_BYTES);
            }
        }
        for NumEdits { field: of, cells } in &patch.num {
            for (index, value) in cells.values.iter().enumerate() {
                let said = Said { field: field(*of), value: Value::Num(*value) };
                say(&cells.rows, index, said, ENTRY_BYTES);
            }
        }
    }

    /// What was said of combinations, for every row that has them; of a group for its first row.
    fn expand(&self, selection: &Selection, columns: &Columns) -> Answer {
        let fields: Vec<&Field> = selection.fields().iter().chain(&self.extra).collect();
        let mut texts: Vec<TextColumn> = vec![TextColumn::default(); fields.len()];
        let mut nums: Vec<NumColumn> = vec![NumColumn::default(); fields.len()];
        for (row, place) in (0..).zip(&self.of_row) {
            let begins = |groups: &[u32]| groups.binary_search(&row).is_ok();
            let coarsest = match () {
                () if begins(columns.resources()) => 0,
                () if begins(columns.scopes()) => 1,
                () => 2,
            };
            for Said { field, value } in &self.said[*place as usize] {
                if fields[*field].level.fineness() < coarsest {
                    continue;
                }
                match value {
                    Value::Text(value) => push_text(&mut texts[*field], row, value),
                    Value::Num(value) => push_num(&mut nums[*field], row, *value),
                }
            }
        }
        let text = (0..).zip(texts).filter(|(_, cells)| !cells.ends.is_empty());
        let num = (0..).zip(nums).filter(|(_, cells)| !cells.values.is_empty());
        let patch = Patch {
            text: text.map(|(field, cells)| TextEdits { field, cells }).collect(),
            num: num.map(|(field, cells)| NumEdits { field, cells }).collect(),
            ..Patch::default()
        };
        Answer { extra: self.extra.clone(), patch }
    }
}

#[cfg(test)]
pub(super) mod tests;
