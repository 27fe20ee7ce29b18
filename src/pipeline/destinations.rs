//! Every configured destination: its cursor, readers, delivery, senders and thread.
//!
//! Exporter -> `OtlpHttp` or `Influx`; both go the same way and differ only in the exporter that their senders own and in
//! what they take. Without any the retention runs instead.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::sync::Parker;

use super::dead_letters::{DeadLetters, DeliveryLetter};
use super::drain::EgressStop;
use super::egress::{Egress, EgressOptions, Takes};
use super::logs::OpenLog;
use super::place::Place;
use super::release::Release;
use super::retention::Retention;
use super::senders::Senders;
use super::watch::Watch;
use super::window::Window;
use crate::block::Signal;
use crate::config::{self, Backend, Compression, Requirement, StartAt};
use crate::deliver::Delivery;
use crate::export::{Exporter, SetupError};
use crate::queue::{Cursor, Log, Storage};
use crate::sys::clock;
use crate::telemetry::health::Health;
use crate::telemetry::ledger;
use crate::telemetry::metrics::{DestinationGauges, DestinationSource, Metrics, Words};

/// How long a destination's thread may be silent before it counts as stuck: it never waits for its backend, its senders do.
const TICK_LIMIT: Duration = Duration::from_secs(10);

/// Why the destinations could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The exporter cannot work as configured.
    #[error("exporter {name} cannot work as configured")]
    Setup {
        /// The exporter's name.
        name: String,
        /// What is wrong.
        source: SetupError,
    },
    /// A cursor cannot be opened or a thread not be started.
    #[error("destination {name} cannot be opened")]
    Io {
        /// The exporter's name.
        name: String,
        /// What failed.
        source: io::Error,
    },
}

/// What all destinations share.
pub struct Shared<'a> {
    /// The storage of cursors.
    pub storage: &'a Arc<dyn Storage>,
    /// The state directory.
    pub directory: &'a Path,
    /// The logs of all lanes.
    pub logs: &'a [OpenLog],
    /// The queue's settings.
    pub queue: &'a config::Queue,
    /// Where refused spans go.
    pub letters: &'a DeadLetters,
    /// When to end.
    pub stop: &'a Arc<EgressStop>,
    /// Where destinations are seen.
    pub metrics: &'a Metrics,
    /// How they do.
    pub health: &'a Health,
}

/// A destination whose cursor is open.
struct Opened<'a> {
    settings: &'a config::Exporter,
    exporter: Exporter,
    place: Place,
    states: Vec<super::window::LaneState<crate::queue::Position>>,
}

/// Starts every destination, or the retention when there is none.
pub fn start(exporters: &[config::Exporter], shared: &Shared<'_>) -> Result<Vec<JoinHandle<()>>, StartError> {
    let lanes: Vec<Arc<Log>> = shared.logs.iter().map(|open| Arc::clone(&open.log)).collect();
    if exporters.is_empty() {
        let thread = start_retention(&lanes, shared);
        return thread.map(|thread| vec![thread]).map_err(|source| StartError::Io { name: "none".to_owned(), source });
    }
    let mut opened = Vec::with_capacity(exporters.len());
    for settings in exporters {
        let name = || settings.name.clone();
        let exporter =
            Exporter::open(&settings.backend).map_err(|source| StartError::Setup { name: name(), source })?;
        let cursor = open_cursor(shared, &settings.name).map_err(|source| StartError::Io { name: name(), source })?;
        let (place, states) = Place::open(cursor, &lanes, settings.requirement, settings.start_at)
            .map_err(|source| StartError::Io { name: name(), source })?;
        opened.push(Opened { settings, exporter, place, states });
    }
    let positions = opened.iter().map(|one| one.states.iter().map(|state| state.position).collect()).collect();
    let release = Arc::new(Release::new(lanes.clone(), positions));
    let mut threads = Vec::with_capacity(opened.len());
    for (index, mut one) in opened.into_iter().enumerate() {
        one.place.release_with(Arc::clone(&release), index);
        let name = one.settings.name.clone();
        threads.push(start_one(one, &lanes, shared).map_err(|source| StartError::Io { name, source })?);
    }
    Ok(threads)
}

fn open_cursor(shared: &Shared<'_>, name: &str) -> io::Result<Cursor> {
    // A named instance is `type/name`; a file name has no slash.
    let directory = shared.directory.join("destinations").join(name.replace('/', "~"));
    let cursor = Cursor::open(&**shared.storage, &directory)?;
    if cursor.was_damaged() {
        tracing::error!(destination = name, "the cursor was damaged: what is in the log is delivered again");
    }
    Ok(cursor)
}

fn start_one(one: Opened<'_>, lanes: &[Arc<Log>], shared: &Shared<'_>) -> io::Result<JoinHandle<()>> {
    let Opened { settings, exporter, place, states } = one;
    let name = settings.name.clone();
    let parker = Parker::new();
    lanes.iter().for_each(|log| log.subscribe(parker.unparker().clone()));
    let takes = Takes { logs: exporter.accepts(Signal::Logs), encoded_only: exporter.wants_uberagent_only() };
    shared.letters.replay_by(&name, exporter.another());
    let mut exporters: Vec<Exporter> = (1..settings.retry.max_concurrency).map(|_| exporter.another()).collect();
    exporters.push(exporter);
    let readers = lanes.iter().zip(&states).map(|(log, state)| log.reader(state.position)).collect();
    let window = Window::new(states, &place.totals_elsewhere());
    let ledger = Arc::new(ledger::Destination::default());
    ledger.show(window.totals());
    let gauges = Arc::new(DestinationGauges::default());
    let source = DestinationSource { name: name.clone(), counters: Arc::clone(&ledger), gauges: Arc::clone(&gauges) };
    shared.metrics.add_destination(source);
    let component = shared.health.component(&format!("destination {name}"));
    component.set(crate::telemetry::health::State::Ready);
    let egress = Egress::new(EgressOptions {
        readers,
        window,
        place,
        delivery: Delivery::new(settings.retry, settings.batch, compression(&settings.backend), fastrand::u64(..)),
        senders: Senders::start(&name, exporters, parker.unparker())?,
        takes,
        ledger,
        keep_letter: keeper(shared.letters.clone()),
        stop: Arc::clone(shared.stop),
        watch: Watch {
            lanes: shared.logs.iter().map(|open| Arc::clone(&open.ledger)).collect(),
            logs: lanes.to_vec(),
            far_bytes: (0, Duration::ZERO),
            gauges,
            latency: shared.metrics.batch_latency(),
            component,
            tick: shared.health.thread(&format!("destination {name}"), TICK_LIMIT, clock::monotonic()),
            degraded: None,
            words: Words::default(),
        },
        name: name.clone(),
    });
    thread::Builder::new().name(name).spawn(move || egress.run(&parker))
}

fn keeper(letters: DeadLetters) -> Box<dyn FnMut(DeliveryLetter) + Send> {
    Box::new(move |letter| letters.keep(letter))
}

fn start_retention(lanes: &[Arc<Log>], shared: &Shared<'_>) -> io::Result<JoinHandle<()>> {
    let cursor = open_cursor(shared, "none")?;
    let (mut place, states) = Place::open(cursor, lanes, Requirement::Required, StartAt::Oldest)?;
    let positions = states.iter().map(|state| state.position).collect();
    place.release_with(Arc::new(Release::new(lanes.to_vec(), vec![positions])), 0);
    let window = Window::new(states, &place.totals_elsewhere());
    let spare_bytes = (shared.queue.pool_segments as u64 + 2) * shared.queue.segment_bytes;
    let counters = Arc::new(ledger::Destination::default());
    counters.show(window.totals());
    let gauges = Arc::new(DestinationGauges::default());
    let source =
        DestinationSource { name: "none".to_owned(), counters: Arc::clone(&counters), gauges: Arc::clone(&gauges) };
    shared.metrics.add_destination(source);
    let retention = Retention {
        lanes: lanes.to_vec(),
        appended: shared.logs.iter().map(|open| Arc::clone(&open.ledger)).collect(),
        place,
        window,
        retain: shared.queue.retain,
        lane_bytes: (shared.queue.max_bytes / lanes.len() as u64).saturating_sub(spare_bytes),
        ledger: counters,
        gauges,
        stop: Arc::clone(shared.stop),
        tick: shared.health.thread("retention", TICK_LIMIT, clock::monotonic()),
    };
    thread::Builder::new().name("retention".to_owned()).spawn(move || retention.run(&Parker::new()))
}

fn compression(backend: &Backend) -> Compression {
    match backend {
        Backend::OtlpHttp(otlp) => otlp.http.compression,
        Backend::Influx(influx) => influx.http.compression,
    }
}
