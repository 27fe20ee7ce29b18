//! A sampler as a step: the spans of a block are put together by trace, and those of the traces that it drops are dropped.
//!
//! It is asked about what the block holds of a trace and told that no more is awaited, for nothing waits here. A trace that
//! it has kept once is kept from then on without a question, as far as a bounded memory reaches: so the rest of it arrives.
//! One that it has dropped is asked about again when more of it comes. "Not yet" and "no opinion" keep this block's spans and
//! decide nothing. How many traces a kept one stands for is written to its spans, where it is not one.

use std::collections::HashMap;

use super::cells::{Cell, Cells, number, push_num};
use super::live::Failure;
use crate::otlp::columns::{Column, Columns, Field, Kind, Level, NumColumn, Selection};
use crate::otlp::edit::{NumEdits, Patch};
use crate::plugin::answers::{Batch, Decision};
use crate::plugin::traces::{ALWAYS, OfTrace};
use crate::plugin::{Answer, Call, Instance};

/// The attribute that says how many traces a kept one stands for.
const WEIGHT_KEY: &str = "sampling.weight";

/// Kept traces that are remembered: the last so many, and up to as many before them.
const REMEMBERED: usize = 1 << 15;

/// OTLP's number of a span that failed.
const STATUS_ERROR: i64 = 2;

type TraceId = [u8; 16];

/// See the module.
#[derive(Default)]
pub(super) struct Sampler {
    /// Weights of traces that were kept, and of those before them.
    kept: HashMap<TraceId, f64>,
    kept_before: HashMap<TraceId, f64>,
    /// Of this block, not yet accepted.
    undecided: Vec<(TraceId, f64)>,
    cells: Vec<Cells>,
}

/// What a block holds of a trace.
struct Trace {
    id: TraceId,
    spans: i64,
    errors: i64,
    first_start_ns: i64,
    last_end_ns: i64,
    /// The row that stands for it: of its root, else the earliest.
    row: u32,
    has_root: bool,
    /// What becomes of it; 1 until it is known.
    weight: f64,
    is_dropped: bool,
}

impl Sampler {
    /// Which rows of a call go, and the weights of the others.
    pub(super) fn answer(
        &mut self,
        instance: &mut Instance,
        selection: &Selection,
        call: &Call<'_>,
    ) -> Result<Answer, Failure> {
        self.undecided.clear();
        let (mut traces, of_row) = self.traces(selection, call.columns);
        let mut new = Vec::new();
        for (index, trace) in traces.iter_mut().enumerate() {
            match self.kept.get(&trace.id).or_else(|| self.kept_before.get(&trace.id)) {
                Some(weight) => trace.weight = *weight,
                None => new.push(index),
            }
        }
        let most = match instance.generation().setup.max_rows {
            0 => new.len().max(1),
            most => most as usize,
        };
        for asked in new.chunks(most) {
            self.ask(instance, call, &mut traces, asked)?;
        }
        Ok(answer(&traces, &of_row, selection.fields().len()))
    }

    /// The answers were good: what was kept stays kept.
    pub(super) fn accept(&mut self) {
        for (id, weight) in self.undecided.drain(..) {
            if self.kept.len() >= REMEMBERED {
                self.kept_before = std::mem::take(&mut self.kept);
            }
            self.kept.insert(id, weight);
        }
    }

    /// The traces of a block, and for each row which it belongs to; a span without an id belongs to none.
    fn traces(&mut self, selection: &Selection, columns: &Columns) -> (Vec<Trace>, Vec<Option<usize>>) {
        self.cells.resize_with(columns.columns().len(), Cells::default);
        for ((cells, column), field) in self.cells.iter_mut().zip(columns.columns()).zip(selection.fields()) {
            cells.find(column, field.level, columns);
        }
        let first = columns.columns().len() - ALWAYS.len();
        let cell = |always: usize, row| self.cells[first + always].of(&columns.columns()[first + always], row);
        let num = |always, row, absent| match cell(always, row) {
            Some(Cell::Num(value)) => value,
            _ => absent,
        };
        let (mut traces, mut of_row) = (Vec::<Trace>::new(), Vec::new());
        let mut places: HashMap<TraceId, usize> = HashMap::new();
        for row in 0..columns.rows() {
            let id = match cell(0, row) {
                Some(Cell::Text(bytes)) => bytes.try_into().ok(),
                _ => None,
            };
            let Some(id) = id else {
                of_row.push(None);
                continue;
            };
            let (start_ns, end_ns, is_root) = (num(2, row, i64::MAX), num(3, row, 0), cell(1, row).is_none());
            let place = *places.entry(id).or_insert_with(|| {
                traces.push(Trace::new(id, row, start_ns));
                traces.len() - 1
            });
            let trace = &mut traces[place];
            if !trace.has_root && (is_root || start_ns < trace.first_start_ns) {
                (trace.row, trace.has_root) = (row, is_root);
            }
            trace.spans += 1;
            trace.errors += i64::from(num(4, row, 0) == STATUS_ERROR);
            trace.first_start_ns = trace.first_start_ns.min(start_ns);
            trace.last_end_ns = trace.last_end_ns.max(end_ns);
            of_row.push(Some(place));
        }
        (traces, of_row)
    }

    fn ask(
        &mut self,
        instance: &mut Instance,
        call: &Call<'_>,
        traces: &mut [Trace],
        asked: &[usize],
    ) -> Result<(), Failure> {
        let rows: Vec<u32> = asked.iter().map(|index| traces[*index].row).collect();
        let mut of_spans = self.cells.iter().zip(call.columns.columns());
        let mut columns = Vec::new();
        for field in &instance.generation().setup.fields {
            columns.push(match OfTrace::of(field) {
                Some(what) => {
                    let values = asked.iter().map(|index| traces[*index].number(what)).collect();
                    Column::Num(NumColumn { rows: Vec::new(), values })
                }
                None => {
                    let (cells, column) = of_spans.next().expect("every field of a span was gathered");
                    cells.choose(column, &rows)
                }
            });
        }
        let batch =
            Batch { signal: call.signal, rows: number(rows.len()), columns: &columns, received_ns: call.received_ns };
        let verdicts = instance.decide(&batch).map_err(Failure::of)?;
        for (position, (index, decision)) in asked.iter().zip(verdicts.decisions).enumerate() {
            let trace = &mut traces[*index];
            match decision {
                Decision::Drop => trace.is_dropped = true,
                Decision::Keep => {
                    trace.weight = verdicts.weights.get(position).copied().unwrap_or(1.0);
                    self.undecided.push((trace.id, trace.weight));
                }
                Decision::NotYet | Decision::NoOpinion => {}
            }
        }
        Ok(())
    }
}

impl Trace {
    fn new(id: TraceId, row: u32, start_ns: i64) -> Trace {
        Trace {
            id,
            spans: 0,
            errors: 0,
            first_start_ns: start_ns,
            last_end_ns: 0,
            row,
            has_root: false,
            weight: 1.0,
            is_dropped: false,
        }
    }

    fn number(&self, what: OfTrace) -> i64 {
        match what {
            OfTrace::Spans => self.spans,
            OfTrace::Errors => self.errors,
            OfTrace::Duration => self.last_end_ns.saturating_sub(self.first_start_ns).max(0),
        }
    }
}

/// The patch that does what was decided; `own` fields come before that of the weight.
fn answer(traces: &[Trace], of_row: &[Option<usize>], own: usize) -> Answer {
    let (mut drop, mut weights) = (Vec::new(), NumColumn::default());
    for (row, trace) in (0..).zip(of_row) {
        let Some(trace) = trace.map(|index| &traces[index]) else { continue };
        if trace.is_dropped {
            drop.push(row);
        } else if trace.weight > 1.0 {
            push_num(&mut weights, row, trace.weight.to_bits().cast_signed());
        }
    }
    if weights.values.is_empty() {
        return Answer { extra: Vec::new(), patch: Patch { drop, ..Patch::default() } };
    }
    let weight =
        Field { level: Level::Record, key: WEIGHT_KEY.to_owned(), kind: Kind::Double, read: false, write: true };
    let field = u16::try_from(own).expect("a selection has few fields");
    Answer {
        extra: vec![weight],
        patch: Patch { drop, num: vec![NumEdits { field, cells: weights }], ..Patch::default() },
    }
}

#[cfg(test)]
mod tests;
