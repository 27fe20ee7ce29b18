//! From one set of plugins to another on a running lane, whole or not at all.
//!
//! A plugin of the same name keeps its place: its instance, its state and its counters; only what is new of it is swapped.
//! If one of them cannot be, those that were are swapped back.

use std::sync::Arc;

use super::{PluginStep, Program, StepCounters};
use crate::block::SourceId;
use crate::transform::{Chain, Step};

/// A plugin as a lane is to run it.
#[derive(Clone)]
pub struct Wanted {
    /// What runs.
    pub program: Arc<Program>,
    /// The sources of its filter; none: all.
    pub sources: Option<Vec<SourceId>>,
    /// What is counted of it on this lane.
    pub counters: Arc<StepCounters>,
}

impl Wanted {
    fn step(self) -> Box<PluginStep> {
        Box::new(PluginStep::new(self.program, self.sources, self.counters))
    }

    fn names(&self, step: &PluginStep) -> bool {
        step.name() == self.program.plugin.name
    }
}

impl Chain {
    /// A chain of plugins, in order.
    #[must_use]
    pub fn of_plugins(wanted: Vec<Wanted>) -> Chain {
        Chain::new(wanted.into_iter().map(|wanted| Step::Plugin(wanted.step())).collect())
    }

    /// Makes the chain one of other plugins, between two blocks.
    ///
    /// # Errors
    ///
    /// Why a plugin could not be swapped; the chain is as it was.
    pub fn adopt(&mut self, wanted: Vec<Wanted>) -> Result<(), String> {
        let mut swapped = Vec::new();
        for one in &wanted {
            let Some(step) = self.plugins().find(|step| one.names(step)) else { continue };
            let before = (Arc::clone(step.program()), step.taking.sources.clone());
            if let Err(error) = step.swap(Arc::clone(&one.program), one.sources.clone()) {
                self.swap_back(swapped);
                return Err(error);
            }
            swapped.push(before);
        }
        let mut old = std::mem::take(&mut self.steps);
        let mut place = |wanted: Wanted| {
            let known = old.iter().position(|step| matches!(step, Step::Plugin(step) if wanted.names(step)));
            known.map_or_else(|| Step::Plugin(wanted.step()), |index| old.swap_remove(index))
        };
        self.steps = wanted.into_iter().map(&mut place).collect();
        Ok(())
    }

    fn swap_back(&mut self, swapped: Vec<(Arc<Program>, Option<Vec<SourceId>>)>) {
        for (program, sources) in swapped {
            let Some(step) = self.plugins().find(|step| step.name() == program.plugin.name) else { continue };
            if let Err(error) = step.swap(program, sources) {
                tracing::error!(%error, "a plugin could not go back to what ran before: the new one goes on");
            }
        }
    }

    fn plugins(&mut self) -> impl Iterator<Item = &mut PluginStep> {
        self.steps.iter_mut().filter_map(plugin)
    }
}

fn plugin(step: &mut Step) -> Option<&mut PluginStep> {
    match step {
        Step::Plugin(step) => Some(step),
        #[cfg(test)]
        Step::Scripted(_) => None,
    }
}
