//! A second plugin beside the first: it is shown the same rows, its answers are compared and never applied.
//!
//! Two answers say the same of a row when they drop it alike, or set and remove the same values under the same keys. Each
//! edit is a hash of where and what; a row's hashes are added up, so the order of edits and of fields means nothing. What the
//! shadow writes to its state is forgotten, and what it fails on is counted by its host and concerns nobody else.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::ask::Ask;
use super::counters::StepCounters;
use super::program::Program;
use crate::block::Meta;
use crate::otlp::columns::{Columns, Field};
use crate::plugin::{Answer, Call, Generation, Instance};

/// See the module.
pub(super) struct Shadow {
    live: Arc<Generation>,
    instance: Instance,
    ask: Ask,
    columns: Columns,
    counters: Arc<StepCounters>,
    /// What it said of the block that is under way, and its rows.
    answer: Option<(HashMap<u32, u64>, u32)>,
}

impl Shadow {
    pub(super) fn of(program: &Arc<Program>, counters: &Arc<StepCounters>) -> Option<Shadow> {
        let generation = program.shadow.as_ref()?;
        Some(Shadow {
            live: Arc::clone(&program.generation),
            instance: Instance::new(Arc::clone(generation), Arc::clone(&counters.shadow)),
            ask: Ask::of_loaded(generation),
            columns: Columns::default(),
            counters: Arc::clone(counters),
            answer: None,
        })
    }

    /// Shows a block to it.
    pub(super) fn begin(&mut self, meta: &Meta, payload: &mut Vec<u8>) {
        self.answer = None;
        let generation = Arc::clone(self.instance.generation());
        let Some(selection) = generation.selection(meta.signal) else { return };
        selection.gather(payload, &mut self.columns);
        let call = Call { signal: meta.signal, columns: &self.columns, received_ns: meta.received_ns };
        match self.ask.answer(&mut self.instance, selection, (&call, payload)) {
            Ok(answer) => {
                self.ask.accept();
                self.answer = Some((by_row(&[answer], &generation.setup.fields), self.columns.rows()));
            }
            Err(failure) => {
                failure.count(self.instance.counters());
                self.ask.reject();
            }
        }
        self.instance.reject();
    }

    /// Compares with what the first one said of that block.
    pub(super) fn compare(&mut self, answers: &[Answer]) {
        let Some((shadow, rows)) = self.answer.take() else { return };
        // A plugin that is shown a block in several calls counts its rows anew in each: there is nothing to compare.
        if answers.len() != 1 {
            return;
        }
        let live = by_row(answers, &self.live.setup.fields);
        let differ = live.iter().filter(|(row, hash)| shadow.get(*row) != Some(*hash)).count()
            + shadow.keys().filter(|row| !live.contains_key(*row)).count();
        self.counters.shadow_rows.add(u64::from(rows));
        self.counters.shadow_differences.add(differ as u64);
    }
}

/// What a patch says of each row that it names. A group is named by its first row.
fn by_row(answers: &[Answer], fields: &[Field]) -> HashMap<u32, u64> {
    let mut rows: HashMap<u32, u64> = HashMap::new();
    for Answer { extra, patch } in answers {
        let field = |index: u16| {
            let index = usize::from(index);
            let field = fields.get(index).or_else(|| extra.get(index.checked_sub(fields.len())?));
            field.map(|field| (field.level, &field.key))
        };
        let mut say = |row: u32, what: u64| {
            let said = rows.entry(row).or_default();
            *said = said.wrapping_add(what);
        };
        patch.drop.iter().for_each(|row| say(*row, hash("drop")));
        for edits in &patch.text {
            let mut start = 0;
            for (index, end) in edits.cells.ends.iter().enumerate() {
                let value = edits.cells.bytes.get(start..*end as usize);
                say(named(&edits.cells.rows, index), hash((field(edits.field), value)));
                start = *end as usize;
            }
        }
        for edits in &patch.num {
            for (index, value) in edits.cells.values.iter().enumerate() {
                say(named(&edits.cells.rows, index), hash((field(edits.field), value)));
            }
        }
        for unset in &patch.unset {
            unset.rows.iter().for_each(|row| say(*row, hash((field(unset.field), "unset"))));
        }
    }
    rows
}

fn named(rows: &[u32], index: usize) -> u32 {
    rows.get(index).copied().unwrap_or_else(|| u32::try_from(index).unwrap_or(u32::MAX))
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
