//! The world `sample`: keep or drop whole traces.
//!
//! A row is a trace. A field's cell is that of the trace's root if it is there, else of its earliest span; besides the
//! intrinsics of spans there are "spans", "errors" and "trace-duration".

use crate::bindings::types::Column;
use crate::fields::Fields;
use crate::plugin::{Plugin, Signal};
use crate::rows::Rows;

/// What becomes of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// Drop all of it.
    Drop,
    /// Keep all of it.
    Keep,
    /// Keep all of it; it stands for this many like it, the others of which are dropped.
    KeepFor(f64),
    /// Ask again when more of it has come; where nothing more is awaited this keeps.
    NotYet,
    /// Let others decide.
    NoOpinion,
}

impl Decision {
    fn code(self) -> u8 {
        match self {
            Self::Drop => 0,
            Self::Keep | Self::KeepFor(_) => 1,
            Self::NotYet => 2,
            Self::NoOpinion => 3,
        }
    }
}

/// A plugin that decides on traces. `#[sample]` on the impl exports it.
pub trait Sample: Plugin {
    /// The fields that it reads.
    type Row<'b>: Fields<'b>;

    /// Called for each trace. `is_final`: nothing more of it is awaited.
    fn trace(&mut self, row: &mut Self::Row<'_>, is_final: bool) -> Decision;
}

/// Decides on a batch of traces.
///
/// # Errors
/// When the columns are not those of the plugin's fields.
pub fn run<'b, P: Sample>(
    plugin: &mut P,
    traces: u32,
    is_final: bool,
    columns: &'b [Column],
) -> Result<Vec<Decision>, String> {
    let mut rows: Rows<P::Row<'b>> = Rows::open(Signal::Span, traces, None, columns)?;
    let mut decisions = Vec::with_capacity(traces as usize);
    while rows.advance().is_some() {
        decisions.push(plugin.trace(&mut rows.fields, is_final));
    }
    Ok(decisions)
}

/// Decisions as the interface has them: a code each, and how many traces each stands for, which is empty for 1 each.
#[must_use]
pub fn verdicts(decisions: &[Decision]) -> (Vec<u8>, Vec<f64>) {
    let codes = decisions.iter().map(|decision| decision.code()).collect();
    let weight = |decision: &Decision| match decision {
        Decision::KeepFor(weight) => *weight,
        _ => 1.0,
    };
    let is_weighted = decisions.iter().any(|decision| matches!(decision, Decision::KeepFor(_)));
    (codes, if is_weighted { decisions.iter().map(weight).collect() } else { Vec::new() })
}
