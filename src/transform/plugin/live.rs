//! One instance with the buffers around it: a payload in, another out, or why not.
//!
//! The rows are shown in calls of as many as the plugin wants. All of them are one transaction: the output is only good, and
//! what the calls wrote to the plugin's state only counts, when the last call has given a good answer. The columns are
//! used again, so in the steady state nothing is allocated for a row. Lanes and the author's tools call through here; only
//! the tools ask for the time of each part.

use std::sync::Arc;

use super::ask::Ask;
use super::program::Program;
use super::record::Mark;
use crate::block::{MAX_BYTES, Meta, Signal};
use crate::otlp::Summary;
use crate::otlp::columns::{Columns, FieldError, Level};
use crate::otlp::edit::{self, Applied, BadEdit};
use crate::otlp::slice::{self, Bounds};
use crate::plugin::counters::Counters;
use crate::plugin::{Answer, Call, CallError, Instance};
use crate::transform::Made;

/// The word for answers that break a rule.
const BAD_PATCH: &str = "bad_patch";

/// Why a plugin did nothing with a block.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It said so.
    #[error("{0}")]
    Refused(CallError),
    /// A call failed.
    #[error("{0}")]
    Call(CallError),
    /// Its answer broke a rule.
    #[error("its answer breaks a rule: {0}")]
    BadPatch(BadEdit),
    /// A field that its answer brings cannot be.
    #[error("its answer brings a field that cannot be: {0}")]
    BadField(FieldError),
    /// A value of its answer does not follow from what it reads.
    #[error("its answer writes {key:?} of a {level:?}, and it reads what is finer")]
    TooCoarse {
        /// The field that it brings.
        key: String,
        /// Resource or scope.
        level: Level,
    },
    /// A span of its answer is more than a block.
    #[error("its answer makes {0} spans of more than {MAX_BYTES} bytes")]
    TooBig(u32),
}

impl Failure {
    /// What became of a call.
    pub(super) fn of(error: CallError) -> Failure {
        match error {
            CallError::Refused(_) => Failure::Refused(error),
            error => Failure::Call(error),
        }
    }

    /// One of a fixed set: a metric's label, and a dead letter's reason.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Failure::BadPatch(_) | Failure::BadField(_) | Failure::TooCoarse { .. } | Failure::TooBig(_) => BAD_PATCH,
            Failure::Refused(error) | Failure::Call(error) => error.word(),
        }
    }

    /// Counts a block that failed so.
    pub(super) fn count(&self, counters: &Counters) {
        match self {
            Failure::Refused(error) | Failure::Call(error) => counters.failed(error),
            Failure::BadPatch(_) | Failure::BadField(_) | Failure::TooCoarse { .. } | Failure::TooBig(_) => {
                counters.bad_patches.add(1);
            }
        }
    }

    /// Another instance might do better: what the last one had in its memory may be the reason.
    pub(super) fn may_be_the_instances(&self) -> bool {
        matches!(self, Failure::Call(CallError::Trap(_) | CallError::StackOverflow | CallError::OutOfMemory { .. }))
    }
}

/// Rows that were shown, and processor time of the parts of calls, nanoseconds; added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Rows of the payloads.
    pub rows: u32,
    /// Fields to columns.
    pub gather_ns: u64,
    /// The plugin, with the way to it and back.
    pub call_ns: u64,
    /// Proof that the answers can be applied.
    pub check_ns: u64,
    /// The payload written anew.
    pub apply_ns: u64,
}

/// Time between two looks at a clock.
struct Lap {
    cpu_ns: fn() -> u64,
    last_ns: u64,
}

impl Lap {
    fn begin(cpu_ns: fn() -> u64) -> Lap {
        Lap { cpu_ns, last_ns: cpu_ns() }
    }

    fn lap(&mut self) -> u64 {
        let now_ns = (self.cpu_ns)();
        now_ns.saturating_sub(std::mem::replace(&mut self.last_ns, now_ns))
    }
}

/// See the module.
pub struct Live {
    program: Arc<Program>,
    instance: Instance,
    ask: Ask,
    mark: Option<Mark>,
    columns: Columns,
    /// What one call of several makes.
    made: Vec<u8>,
    /// The answers of the last block, if somebody wants to compare them.
    answers: Vec<Answer>,
    /// What the parts of a call are timed by; on lanes nothing, for the clock would be asked five times a block.
    cpu_ns: fn() -> u64,
    spent: Spent,
    /// Rows that the calls of the block under way edited and dropped: they count when all of it is good.
    edited: u64,
    dropped: u64,
}

impl Live {
    /// A plugin's place; the first call starts it.
    #[must_use]
    pub fn new(program: &Arc<Program>, counters: Arc<Counters>) -> Live {
        Live::timed(program, counters, || 0)
    }

    /// As [`Live::new`], and each part of a call is timed by `cpu_ns`.
    #[must_use]
    pub fn timed(program: &Arc<Program>, counters: Arc<Counters>, cpu_ns: fn() -> u64) -> Live {
        Live {
            instance: Instance::new(Arc::clone(&program.generation), counters),
            ask: Ask::of_loaded(&program.generation),
            mark: Mark::of(program),
            program: Arc::clone(program),
            columns: Columns::default(),
            made: Vec::new(),
            answers: Vec::new(),
            cpu_ns,
            spent: Spent::default(),
            edited: 0,
            dropped: 0,
        }
    }

    /// Forgets what the plugin has said of values and traces; its instance stays.
    pub fn forget(&mut self) {
        self.ask = Ask::of_loaded(&self.program.generation);
    }

    /// What was spent since this was last asked.
    pub fn spent(&mut self) -> Spent {
        std::mem::take(&mut self.spent)
    }

    /// Another program; on an error the present one stays.
    pub(super) fn swap(&mut self, program: &Arc<Program>) -> Result<(), CallError> {
        if !Arc::ptr_eq(&program.generation, &self.program.generation) {
            self.instance.swap(Arc::clone(&program.generation))?;
            self.ask = Ask::of_loaded(&program.generation);
        }
        self.mark = Mark::of(program);
        self.program = Arc::clone(program);
        Ok(())
    }

    /// Why what the plugin knew was lost at the last block, though that was done: see [`Instance::lapse`].
    pub(super) fn lapse(&mut self) -> Option<Failure> {
        self.instance.lapse().map(Failure::Call)
    }

    /// Whether the plugin can be replaced by another instance of itself.
    pub(super) fn restart(&mut self) -> Result<(), CallError> {
        self.instance.restart()
    }

    /// What the plugin said of the last block, call by call; kept only where there is a shadow.
    pub(super) fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Shows a payload to the plugin and writes what it makes of it over `out`, nothing if that fails. The payload is as it was
    /// afterwards.
    ///
    /// # Errors
    ///
    /// Why nothing came of it; that it failed is not counted yet, for it may be shown the payload again.
    ///
    /// # Panics
    ///
    /// If the plugin does not want the signal.
    pub fn transform(&mut self, meta: &Meta, payload: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Made, Failure> {
        self.answers.clear();
        out.clear();
        (self.edited, self.dropped) = (0, 0);
        let outcome = self.in_calls(meta, payload, out);
        match &outcome {
            Ok(_) => {
                self.instance.accept();
                self.ask.accept();
                let counters = self.instance.counters();
                counters.rows_edited.add(self.edited);
                counters.rows_dropped.add(self.dropped);
            }
            Err(_) => {
                out.clear();
                self.instance.reject();
                self.ask.reject();
            }
        }
        outcome
    }

    fn in_calls(&mut self, meta: &Meta, payload: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Made, Failure> {
        let most = self.ask.most_rows(&self.program.generation);
        let made = match most {
            0 => self.call(meta, payload, out)?.0,
            most if slice::count_spans(payload) <= most => self.call(meta, payload, out)?.0,
            most => self.pieces(meta, payload, most, out)?,
        };
        if let Made::Other(_) = &made
            && out.len() > MAX_BYTES
        {
            let too_big = too_big(meta.signal, out);
            if too_big > 0 {
                return Err(Failure::TooBig(too_big));
            }
        }
        Ok(made)
    }

    /// In calls of `most` rows. What they leave is written behind each other, which is the payload of all of it.
    fn pieces(&mut self, meta: &Meta, payload: &[u8], most: u32, out: &mut Vec<u8>) -> Result<Made, Failure> {
        let (mut changed, mut summary) = (false, Summary::EMPTY);
        let mut made = std::mem::take(&mut self.made);
        for mut piece in slice::by_rows(meta.signal, payload, most) {
            let (this, holds) = self.call(meta, &mut piece.payload, &mut made)?;
            out.extend_from_slice(if this == Made::Same { &piece.payload } else { &made });
            changed |= this != Made::Same;
            summary = super::join(summary, holds);
        }
        self.made = made;
        Ok(if changed { Made::Other(summary) } else { Made::Same })
    }

    /// One call on all of a payload; what it makes of it, and what that holds.
    fn call(&mut self, meta: &Meta, payload: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(Made, Summary), Failure> {
        let generation = Arc::clone(&self.program.generation);
        let selection = generation.selection(meta.signal).expect("the step takes only what its plugin wants");
        let mut lap = Lap::begin(self.cpu_ns);
        selection.gather(payload, &mut self.columns);
        self.spent.gather_ns += lap.lap();
        self.spent.rows = self.spent.rows.wrapping_add(self.columns.rows());
        let call = Call { signal: meta.signal, columns: &self.columns, received_ns: meta.received_ns };
        let answer = self.ask.answer(&mut self.instance, selection, (&call, payload))?;
        self.spent.call_ns += lap.lap();
        if self.program.shadow.is_some() {
            self.answers.push(answer.clone());
        }
        let mut most_bytes = usize::try_from(self.program.plugin.limits.patch_bytes).unwrap_or(usize::MAX);
        let Answer { extra, mut patch } = answer;
        let selection = &*selection.extended(extra).map_err(Failure::BadField)?;
        let marks = self.mark.as_ref().map(|mark| mark.add(&mut patch, selection.fields(), &self.columns));
        let marks = marks.unwrap_or_default();
        most_bytes = most_bytes.saturating_add(marks.bytes);
        let selection = &*selection.extended(marks.fields).map_err(Failure::BadField)?;
        let edits = edit::check(selection, &self.columns, patch, most_bytes).map_err(Failure::BadPatch)?;
        self.spent.check_ns += lap.lap();
        let applied = edit::apply(payload, selection, &self.columns, &edits, out);
        self.spent.apply_ns += lap.lap();
        match applied {
            Applied::Unchanged => Ok((Made::Same, self.columns.summary())),
            Applied::Changed { summary, edited, dropped } => {
                self.edited += u64::from(edited);
                self.dropped += u64::from(dropped);
                Ok((Made::Other(summary), summary))
            }
        }
    }
}

/// Spans that are more than a block by themselves.
fn too_big(signal: Signal, payload: &[u8]) -> u32 {
    match signal {
        Signal::Traces => slice::pieces(payload, Bounds { max_bytes: MAX_BYTES, max_spans: u32::MAX }).too_big_spans,
        // Log records are not cut: the block they are in has to hold them.
        Signal::Logs | Signal::Metrics => 1,
    }
}

#[cfg(test)]
mod tests;
