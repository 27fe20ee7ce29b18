//! A second plugin beside the first: it is shown the same rows, its answers are compared and never applied.
//!
//! Two answers say the same of a row when they drop it alike, or set and remove the same values under the same keys. Each
//! edit is a hash of where and what; a row's hashes are added up, so the order of edits and of fields means nothing. What the
//! shadow writes to its state is forgotten, and what it fails on is counted and concerns nobody else. It takes the lane's time
//! like the first one, so that it has a circuit of its own: while that is open it is shown nothing.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::ask::Ask;
use super::counters::StepCounters;
use super::live::Failure;
use super::program::Program;
use crate::block::Meta;
use crate::otlp::columns::{Columns, Field};
use crate::otlp::edit;
use crate::plugin::circuit::Circuit;
use crate::plugin::{Answer, Call, Generation, Instance};

/// See the module.
pub(super) struct Shadow {
    /// The name that both have.
    plugin: String,
    live: Arc<Generation>,
    instance: Instance,
    ask: Ask,
    columns: Columns,
    circuit: Circuit,
    counters: Arc<StepCounters>,
    /// What it said of the block that is under way, and its rows.
    answer: Option<(HashMap<u32, u64>, u32)>,
}

impl Shadow {
    pub(super) fn of(program: &Arc<Program>, counters: &Arc<StepCounters>) -> Option<Shadow> {
        let generation = program.shadow.as_ref()?;
        counters.shadow_circuit.set(0);
        Some(Shadow {
            plugin: program.plugin.name.clone(),
            live: Arc::clone(&program.generation),
            instance: Instance::new(Arc::clone(generation), Arc::clone(&counters.shadow)),
            ask: Ask::of_loaded(generation),
            columns: Columns::default(),
            circuit: super::circuit(program, counters),
            counters: Arc::clone(counters),
            answer: None,
        })
    }

    /// Shows a block that it wants to it, unless it is given a rest.
    pub(super) fn begin(&mut self, meta: &Meta, payload: &mut Vec<u8>, now: Duration) {
        self.answer = None;
        let wants = self.instance.generation().selection(meta.signal).is_some();
        if wants && self.circuit.allows(now) {
            let begin_ns = self.counters.shadow.cpu_ns.get();
            let asked = self.ask(meta, payload);
            self.instance.reject();
            let lost = Duration::from_nanos(self.counters.shadow.cpu_ns.get().saturating_sub(begin_ns));
            match &asked {
                Ok(()) => self.ask.accept(),
                Err(failure) => {
                    failure.count(&self.counters.shadow);
                    self.ask.reject();
                }
            }
            match asked.err().or(self.instance.lapse().map(Failure::Call)) {
                None => self.circuit.succeeded(),
                Some(Failure::Refused(_)) => {}
                Some(failure) if self.circuit.failed(now, lost) => {
                    let plugin = self.plugin.as_str();
                    tracing::warn!(plugin, %failure, "the plugin's shadow is given a rest after too many failures");
                }
                Some(_) => {}
            }
        }
        self.counters.shadow_circuit.set(super::shown(self.circuit.state()));
    }

    /// Asks what it says of a block, which is kept if that could be done.
    fn ask(&mut self, meta: &Meta, payload: &mut Vec<u8>) -> Result<(), Failure> {
        let generation = Arc::clone(self.instance.generation());
        let selection = generation.selection(meta.signal).expect("only what it wants is shown to it");
        selection.gather(payload, &mut self.columns);
        let call = Call { signal: meta.signal, columns: &self.columns, received_ns: meta.received_ns };
        let answer = self.ask.answer(&mut self.instance, selection, (&call, payload))?;
        let said = by_row(std::slice::from_ref(&answer), &generation.setup.fields);
        let selection = &*selection.extended(answer.extra).map_err(Failure::BadField)?;
        let most_bytes = usize::try_from(generation.patch_bytes()).unwrap_or(usize::MAX);
        edit::check(selection, &self.columns, answer.patch, most_bytes).map_err(Failure::BadPatch)?;
        self.answer = Some((said, self.columns.rows()));
        Ok(())
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
