//! A plugin as a step of the chain: gather, call, check, apply; and what is done when that fails.
//!
//! A call that traps is made again once, on a fresh instance. What fails then meets the operator's policy: the rows that the
//! plugin was to be shown go on as they were, are dropped, or the whole block is kept aside. So does everything while the
//! circuit is open, without a call. A block is one transaction: rows are shown in as many calls as the plugin wants, and
//! nothing of it is applied, nor of what the calls wrote, before the last one has given a good answer. Not shared: it
//! belongs to the thread of its lane that makes the calls.

mod ask;
mod cells;
mod counters;
mod enrich;
mod live;
mod program;
mod record;
mod sample;
mod shadow;
mod trouble;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use super::{Cause, Given, Made, Taking};
use crate::block::{Meta, SourceId};
use crate::config::{self, OnError};
use crate::otlp::Summary;
use crate::otlp::rows::Rows;
use crate::otlp::slice;
use crate::plugin::circuit::{Circuit, CircuitLimits, CircuitState};

pub use counters::StepCounters;
pub use live::{Failure, Live, Spent};
pub use program::{Program, ProgramError};
use shadow::Shadow;
use trouble::Trouble;
pub use wanted::Wanted;

/// See the module.
pub struct PluginStep {
    program: Arc<Program>,
    live: Live,
    shadow: Option<Shadow>,
    rows: Rows,
    /// Other blocks pass it by.
    taking: Taking,
    circuit: Circuit,
    trouble: Trouble,
    counters: Arc<StepCounters>,
    chosen: Vec<u8>,
    rest: Vec<u8>,
    spent_ns: u64,
}

impl PluginStep {
    /// A plugin's place on a lane. `sources` are those of its filter, by number.
    #[must_use]
    pub fn new(program: Arc<Program>, sources: Option<Vec<SourceId>>, counters: Arc<StepCounters>) -> PluginStep {
        let spent_ns = counters.plugin.cpu_ns.get();
        PluginStep {
            live: Live::new(&program, Arc::clone(&counters.plugin)),
            shadow: Shadow::of(&program, &counters),
            rows: rows(&program),
            circuit: circuit(&program, &counters),
            trouble: Trouble::default(),
            taking: Taking { signals: program.generation.setup.signals.clone(), sources },
            program,
            counters,
            chosen: Vec::new(),
            rest: Vec::new(),
            spent_ns,
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.program.plugin.name
    }

    /// What runs.
    #[must_use]
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Another program, or other sources, from the next block on: what it saves and its state are carried over.
    ///
    /// # Errors
    ///
    /// Why the new program cannot be started; the old one goes on.
    pub fn swap(&mut self, program: Arc<Program>, sources: Option<Vec<SourceId>>) -> Result<(), String> {
        if !Arc::ptr_eq(&program, &self.program) {
            self.live.swap(&program).map_err(|error| format!("{}: {error}", program.plugin.name))?;
            self.shadow = Shadow::of(&program, &self.counters);
            self.rows = rows(&program);
            self.circuit = circuit(&program, &self.counters);
            self.trouble = Trouble::default();
            self.counters.circuit.set(0);
            self.counters.fails.set(0);
            self.program = program;
        }
        self.taking = Taking { signals: self.program.generation.setup.signals.clone(), sources };
        Ok(())
    }

    pub(super) fn taking(&self) -> &Taking {
        &self.taking
    }

    /// Processor time of calls since this was last asked.
    pub(super) fn spent(&mut self) -> Duration {
        let now = self.counters.plugin.cpu_ns.get() + self.counters.shadow.cpu_ns.get();
        Duration::from_nanos(now.saturating_sub(std::mem::replace(&mut self.spent_ns, now)))
    }

    pub(super) fn run(&mut self, given: Given<'_>, out: &mut Vec<u8>) -> Made {
        let Given { meta, payload, now } = given;
        let Some(shown) = self.rows.shown(meta.signal, payload) else {
            return self.run_on(meta, payload, now, out);
        };
        if shown.is_empty() {
            return Made::Same;
        }
        let (mut chosen, mut rest) = (std::mem::take(&mut self.chosen), std::mem::take(&mut self.rest));
        chosen.clear();
        rest.clear();
        let (_, left) = slice::part(meta.signal, payload, shown, &mut chosen, &mut rest);
        let made = match self.run_on(meta, &mut chosen, now, out) {
            Made::Other(summary) => {
                out.extend_from_slice(&rest);
                Made::Other(join(summary, left))
            }
            made => made,
        };
        (self.chosen, self.rest) = (chosen, rest);
        made
    }

    /// All rows of a payload are the plugin's.
    fn run_on(&mut self, meta: &Meta, payload: &mut Vec<u8>, now: Duration, out: &mut Vec<u8>) -> Made {
        if !self.circuit.allows(now) {
            return self.policy("circuit_open", "it is given a rest after too many failures".to_owned());
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.begin(meta, payload, now);
        }
        let begin_ns = self.counters.plugin.cpu_ns.get();
        let mut outcome = self.live.transform(meta, payload, out);
        let mut first = None;
        if outcome.as_ref().is_err_and(Failure::may_be_the_instances) {
            self.counters.retries.add(1);
            first = outcome.err();
            outcome = self.live.transform(meta, payload, out);
        }
        if let Some(failure) = outcome.as_ref().err().or(first.as_ref()) {
            failure.count(&self.counters.plugin);
        }
        let lost = Duration::from_nanos(self.counters.plugin.cpu_ns.get().saturating_sub(begin_ns));
        let lapse = self.live.lapse();
        let made = match outcome {
            Ok(made) => {
                match lapse {
                    Some(failure) => self.failed(&failure, now, lost),
                    None => {
                        self.circuit.succeeded();
                        self.trouble.done(&self.counters);
                    }
                }
                if let Some(shadow) = &mut self.shadow {
                    shadow.compare(self.live.answers());
                }
                made
            }
            Err(failure) => {
                self.failed(&failure, now, lost);
                self.policy(failure.word(), failure.to_string())
            }
        };
        self.counters.circuit.set(shown(self.circuit.state()));
        made
    }

    fn failed(&mut self, failure: &Failure, now: Duration, lost: Duration) {
        self.trouble.failed(&self.program.plugin.name, failure, now, &self.counters);
        // What it says of one batch says nothing of the next.
        if !matches!(failure, Failure::Refused(_)) && self.circuit.failed(now, lost) {
            tracing::warn!(plugin = self.name(), %failure, "the plugin is given a rest after too many failures");
        }
    }

    fn policy(&self, reason: &'static str, message: String) -> Made {
        match self.program.plugin.on_error {
            OnError::Pass => {
                self.counters.passed_blocks.add(1);
                Made::Same
            }
            OnError::Drop => {
                self.counters.dropped_blocks.add(1);
                Made::Other(Summary::EMPTY)
            }
            OnError::Quarantine => {
                self.counters.quarantined_blocks.add(1);
                Made::Aside(Cause { step: self.name().to_owned(), reason, message })
            }
        }
    }
}

/// The rows that the operator's filter leaves to the plugin.
fn rows(program: &Program) -> Rows {
    Rows::new(&program.plugin.filter.services, &program.plugin.filter.sourcetypes)
}

/// A closed circuit, as the operator has it.
fn circuit(program: &Program, counters: &Arc<StepCounters>) -> Circuit {
    let config::Circuit { failures, window, backoff, max_backoff } = program.plugin.circuit;
    let limits = CircuitLimits { failures, window, first_backoff: backoff, longest_backoff: max_backoff };
    // The jitter of lanes is to differ, and nothing else depends on it.
    Circuit::new(limits, Arc::as_ptr(counters) as u64)
}

/// How [`StepCounters::circuit`] has it.
fn shown(state: CircuitState) -> u64 {
    match state {
        CircuitState::Closed => 0,
        CircuitState::HalfOpen => 1,
        CircuitState::Open { .. } => 2,
    }
}

/// What two payloads hold together.
fn join(a: Summary, b: Summary) -> Summary {
    Summary {
        spans: a.spans + b.spans,
        first_start_ns: a.first_start_ns.min(b.first_start_ns),
        last_end_ns: a.last_end_ns.max(b.last_end_ns),
    }
}

#[cfg(test)]
mod tests;
