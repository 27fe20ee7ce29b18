//! What a component of each world exports: looked up by name once a generation, bound to each instance.
//!
//! Adding a world is a variant of [`Work`], with its row in each of the two functions.

use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::bindings::exports::millrace::plugin::{decoder, encoder, enricher, lifecycle, sampler, transformer};
use super::host::Host;
use super::manifest::World;

/// A linked component, and where in it the exports are.
pub(super) struct Linked {
    pre: InstancePre<Host>,
    lifecycle: lifecycle::GuestIndices,
    work: Places,
}

/// Where the work of a world is found.
enum Places {
    Transform(transformer::GuestIndices),
    Sample(sampler::GuestIndices),
    Enrich(enricher::GuestIndices),
    Decode(decoder::GuestIndices),
    Encode(encoder::GuestIndices),
}

/// What can be called in one instance.
pub(super) struct Exports {
    pub(super) lifecycle: lifecycle::Guest,
    pub(super) work: Work,
}

/// The one job of a plugin.
pub(super) enum Work {
    Transform(transformer::Guest),
    Sample(sampler::Guest),
    Enrich(enricher::Guest),
    Decode(decoder::Guest),
    Encode(encoder::Guest),
}

impl Linked {
    /// Finds the exports of `world`; an error when one is missing or is not what `wit/` says.
    pub(super) fn new(pre: InstancePre<Host>, world: World) -> wasmtime::Result<Linked> {
        let work = match world {
            World::Transform => Places::Transform(transformer::GuestIndices::new(&pre)?),
            World::Sample => Places::Sample(sampler::GuestIndices::new(&pre)?),
            World::Enrich => Places::Enrich(enricher::GuestIndices::new(&pre)?),
            World::Decode => Places::Decode(decoder::GuestIndices::new(&pre)?),
            World::Encode => Places::Encode(encoder::GuestIndices::new(&pre)?),
        };
        Ok(Linked { lifecycle: lifecycle::GuestIndices::new(&pre)?, work, pre })
    }

    /// An instance; modules may run code in this.
    pub(super) fn instantiate(&self, store: &mut Store<Host>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate(&mut *store)?;
        let work = match &self.work {
            Places::Transform(places) => Work::Transform(places.load(&mut *store, &instance)?),
            Places::Sample(places) => Work::Sample(places.load(&mut *store, &instance)?),
            Places::Enrich(places) => Work::Enrich(places.load(&mut *store, &instance)?),
            Places::Decode(places) => Work::Decode(places.load(&mut *store, &instance)?),
            Places::Encode(places) => Work::Encode(places.load(&mut *store, &instance)?),
        };
        Ok(Exports { lifecycle: self.lifecycle.load(&mut *store, &instance)?, work })
    }

    pub(super) fn engine(&self) -> &wasmtime::Engine {
        self.pre.engine()
    }
}
