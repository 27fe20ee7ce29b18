//! Decoders in a build that has plugins: components are loaded, sockets bound, threads started.
//!
//! A decoder's records go to one lane, the lanes in turn.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::doors::{self, Bound};
use super::super::ingest::{OtherCounters, Shared, Source, SourceCounters};
use super::super::lanes::WriterSeat;
use super::super::plugins::Formats;
use super::super::sources::{self, SourceNames};
use super::super::writer::{DEEP_STACK_BYTES, on_a_deep_stack};
use super::super::{outlet, shown};
use super::{DecodersError, Running};
use crate::block::SourceId;
use crate::config::budget::DECODER_RING_BLOCKS;
use crate::config::{Config, PluginReceive, Protocol, Receiver};
use crate::plugin::counters::Counters as PluginCounters;
use crate::plugin::{Engine, Generation, Instance, World};
use crate::receive::admission::ConnectionTable;
use crate::receive::decoder::{Decoder, DecoderOptions};
use crate::sys::clock;
use crate::sys::doorbell::Doorbell;
use crate::telemetry::metrics::{Metrics, PluginPlace};

/// A decoder may be silent for as long as a heavy plugin takes to be started.
const TICK_LIMIT: Duration = Duration::from_secs(60);

struct Opened {
    receiver: Receiver,
    limits: PluginReceive,
    id: SourceId,
    generation: Arc<Generation>,
    bound: Bound,
}

/// Decoders that were opened and do not run yet.
pub struct Decoders {
    /// Held for as long as there are instances.
    engine: Option<Arc<Engine>>,
    opened: Vec<Opened>,
}

impl Decoders {
    /// Loads the plugins and binds the addresses; nobody can connect yet.
    ///
    /// # Errors
    ///
    /// Names the receiver, the file, and why it cannot be used.
    pub fn open(config: &Config) -> Result<Decoders, DecodersError> {
        let decoders = config.receivers.iter().filter_map(|receiver| match &receiver.protocol {
            Protocol::Plugin(limits) => Some((receiver, limits)),
            _ => None,
        });
        let decoders: Vec<(&Receiver, &Box<PluginReceive>)> = decoders.collect();
        if decoders.is_empty() {
            return Ok(Decoders { engine: None, opened: Vec::new() });
        }
        let unusable =
            |receiver: &Receiver, why: String| DecodersError::Plugin { receiver: receiver.name.clone(), why };
        let engine = Engine::outside_lanes().map_err(|error| unusable(decoders[0].0, error.to_string()))?;
        let names: Vec<&str> = decoders.iter().map(|(receiver, _)| receiver.name.as_str()).collect();
        let assigned = sources::assign(&config.state_directory, &names)?;
        assigned.keep()?;
        let mut opened = Vec::new();
        for ((receiver, limits), id) in decoders.into_iter().zip(assigned.ids) {
            let component = &limits.plugin.component;
            let generation = on_a_deep_stack(|| Generation::load(&engine, &limits.plugin, component, 1))?
                .map_err(|error| unusable(receiver, format!("{}: {error}", component.path.display())))?;
            if generation.world != World::Decode {
                let (path, world) = (component.path.display(), generation.world.name());
                let why = format!("{path}: a receiver takes a plugin of the world decode; this one is of {world}");
                return Err(unusable(receiver, why));
            }
            let bound = doors::bind(receiver, &[], &[], 1)?;
            let (receiver, limits) = (receiver.clone(), PluginReceive::clone(limits));
            opened.push(Opened { receiver, limits, id, generation: Arc::new(generation), bound });
        }
        Ok(Decoders { engine: Some(engine), opened })
    }

    /// Starts the threads, which hand their records to these writers.
    ///
    /// # Errors
    ///
    /// When a thread or descriptor cannot be had, or an address is taken after all.
    pub fn start(
        self,
        writers: &mut [WriterSeat],
        (shared, names): (&Shared<'_>, &SourceNames),
        (metrics, formats): (&Metrics, &Formats),
    ) -> Result<Running, DecodersError> {
        let mut running = Running::default();
        let lanes = writers.len();
        for (opened, lane) in self.opened.into_iter().zip((0..lanes).cycle()) {
            let Opened { receiver, limits, id, generation, bound } = opened;
            names.add(id, &receiver.name);
            shared.admissions.set(id, receiver.admission);
            let doorbell = Doorbell::new()?;
            let writer = &mut writers[lane];
            let unparker = writer.parker.unparker().clone();
            let (outlet, end, _) = outlet::pair(DECODER_RING_BLOCKS, u64::MAX, doorbell.clone(), unparker);
            writer.others.push(end);
            let table = ConnectionTable::new(limits.max_connections, limits.max_connections_per_ip);
            let source = Source { id, receiver: receiver.clone(), table: Arc::clone(&table) };
            let counted = SourceCounters::new(&source);
            shown::register_source(metrics, u32::try_from(lane).unwrap_or(u32::MAX), &counted);
            let OtherCounters::Lines(counters) = counted.other else { unreachable!("a decoder counts as lines do") };
            let path = limits.plugin.component.path.clone();
            generation.announce(&receiver.name, &path);
            running.files.push((receiver.name.clone(), path, generation.sha256));
            let plugin = Arc::<PluginCounters>::default();
            let instance = Instance::new(generation, Arc::clone(&plugin));
            formats.serve(PluginPlace::Receivers, &receiver.name, vec![plugin]);
            doors::listen(&receiver, &bound)?;
            let listener = bound.listeners.into_iter().next().ok_or_else(|| std::io::Error::other("no socket"))?;
            let decoder = Decoder::new(DecoderOptions {
                listener,
                limits,
                table,
                source: id,
                instance,
                outlet,
                doorbell: doorbell.clone(),
                dead_letters: shared.dead_letters.clone(),
                front: counted.front,
                counters,
                stop: Arc::clone(shared.stop),
            })?;
            let tick = shared.health.thread(&format!("receiver {}", receiver.name), TICK_LIMIT, clock::monotonic());
            let engine = self.engine.clone();
            let thread = thread::Builder::new().name(format!("decoder-{lane}")).stack_size(DEEP_STACK_BYTES);
            running.threads.push(thread.spawn(move || {
                decoder.run(&tick).expect("epoll works as long as the process has its descriptors");
                tick.end();
                drop(engine);
            })?);
            running.doorbells.push(doorbell);
            running.listening.push((receiver.name, bound.address));
        }
        Ok(running)
    }
}
