//! How a plugin of each world is asked what to change in a block: all answers have the form of a transform's.
//!
//! Another world that changes blocks is another variant. What is remembered from block to block belongs to one instance and
//! one generation, and counts when the answers were accepted.

use super::enrich::Enricher;
use super::live::Failure;
use super::sample::Sampler;
use crate::otlp::columns::Selection;
use crate::plugin::{Answer, Call, Generation, Instance, World};

/// See the module.
pub(super) enum Ask {
    Transform,
    Enrich(Box<Enricher>),
    Sample(Box<Sampler>),
}

impl Ask {
    /// How plugins of a world are asked; `None` for one that changes no blocks.
    pub(super) fn of(world: World) -> Option<Ask> {
        match world {
            World::Transform => Some(Ask::Transform),
            World::Enrich => Some(Ask::Enrich(Box::default())),
            World::Sample => Some(Ask::Sample(Box::default())),
            World::Decode | World::Encode => None,
        }
    }

    /// As [`Ask::of`], for a generation that a program was made of.
    pub(super) fn of_loaded(generation: &Generation) -> Ask {
        Ask::of(generation.world).expect("a program is not made of other worlds")
    }

    /// Rows that one call is shown; 0 for any. What is no span is cut into calls where it is made.
    pub(super) fn most_rows(&self, generation: &Generation) -> u32 {
        match self {
            Ask::Transform => generation.setup.max_rows,
            Ask::Enrich(_) | Ask::Sample(_) => 0,
        }
    }

    /// What the plugin wants changed in the payload that was gathered with `selection`.
    pub(super) fn answer(
        &mut self,
        instance: &mut Instance,
        selection: &Selection,
        (call, payload): (&Call<'_>, &mut Vec<u8>),
    ) -> Result<Answer, Failure> {
        match self {
            Ask::Transform => instance.transform(call, payload).map_err(Failure::of),
            Ask::Enrich(enricher) => enricher.answer(instance, selection, call),
            Ask::Sample(sampler) => sampler.answer(instance, selection, call),
        }
    }

    /// The answers were good.
    pub(super) fn accept(&mut self) {
        if let Ask::Sample(sampler) = self {
            sampler.accept();
        }
    }

    /// They were not.
    pub(super) fn reject(&mut self) {
        if let Ask::Enrich(enricher) = self {
            enricher.forget();
        }
    }
}
