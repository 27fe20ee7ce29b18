//! One destination: its cursor, readers and thread, which live as long as its name has a place in the log.
//!
//! It is opened without settings and told what to do afterwards ([`Command`]): so everything that can fail when a reload
//! brings a destination has happened before anything else is changed. Exporters differ only in what their senders own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Sender, bounded, unbounded};
use crossbeam::sync::{Parker, Unparker};

use super::dead_letters::{DeadLetters, DeliveryLetter};
use super::drain::EgressStop;
use super::egress::{Command, Egress, EgressOptions, Service, Takes};
use super::parking;
use super::place::Place;
use super::plugins::Formats;
use super::release::{Member, Release};
use super::senders::Senders;
use super::watch::Watch;
use super::window::{LaneState, Window};
use super::writer::on_a_deep_stack;
use crate::block::Signal;
use crate::config::{self, Batch, Compression, Requirement, Retry, StartAt};
use crate::deliver::Delivery;
use crate::export::{Exporter, SetupError};
use crate::queue::{Ahead, Cursor, Log, Position, Storage};
use crate::sys::clock;
use crate::telemetry::health::{Health, Tick};
use crate::telemetry::ledger;
use crate::telemetry::metrics::{DestinationGauges, DestinationSource, Metrics, Words};

/// How long a destination's thread may be silent before it counts as stuck: it never waits for its backend, its senders do.
pub const TICK_LIMIT: Duration = Duration::from_secs(10);

/// Why a destination cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The exporter cannot work as configured.
    #[error("exporter {name} cannot work as configured: {source}")]
    Setup {
        /// The exporter's name.
        name: String,
        /// What is wrong.
        source: SetupError,
    },
    /// A cursor cannot be opened or a thread not be started.
    #[error("destination {name} cannot be opened: {source}")]
    Io {
        /// The exporter's name.
        name: String,
        /// What failed.
        source: io::Error,
    },
    /// Its last spans are being given up at this moment.
    #[error("destination {name} is being forgotten at this moment; try again")]
    Ending {
        /// The exporter's name.
        name: String,
    },
}

/// What all destinations share for as long as the appliance runs.
pub struct Shared {
    /// The storage of cursors.
    pub storage: Arc<dyn Storage>,
    /// Where their directories are.
    pub directory: PathBuf,
    /// The logs of all lanes.
    pub lanes: Vec<Arc<Log>>,
    /// What was appended to each.
    pub appended: Vec<Arc<ledger::Lane>>,
    /// The queue's settings.
    pub queue: config::Queue,
    /// Where refused spans go.
    pub letters: DeadLetters,
    /// When to end.
    pub stop: Arc<EgressStop>,
    /// Who needs what of the log.
    pub release: Arc<Release>,
    /// Where destinations are seen.
    pub metrics: Arc<Metrics>,
    /// How they do.
    pub health: Health,
    /// The plugins that write their formats.
    pub formats: Formats,
}

/// A cursor's place in the log, with the lanes' states.
pub type Opened = (Place, Vec<LaneState<Position>>);

/// A destination with its thread.
pub struct Destination {
    /// Its name: a configured exporter's.
    pub name: String,
    /// How often it was parked, and in which of these its thread has given up its place.
    parkings: u64,
    given_up: Arc<AtomicU64>,
    commands: Sender<Command>,
    wake: Unparker,
    thread: JoinHandle<()>,
    member: Member,
    subscriptions: Vec<u64>,
}

impl Destination {
    /// Opens the place of `name`, or a new one at `start`, and starts its thread, which waits for its first command.
    pub fn open(name: &str, start: StartAt, shared: &Shared) -> io::Result<Destination> {
        let Waiting { thread, wake, work } = Waiting::start(name, |egress: Egress, parker| egress.run(parker))?;
        let Joined { place, states, member } = join(name, start, shared)?;
        let subscriptions = shared.lanes.iter().map(|log| log.subscribe(wake.clone())).collect();
        let ((commands, commanded), given_up) = (unbounded(), Arc::<AtomicU64>::default());
        let egress = egress(name, (place, states), shared).commanded(commanded, Arc::clone(&given_up));
        work.send(egress).expect("the thread waits for it");
        Ok(Destination { name: name.to_owned(), parkings: 0, given_up, commands, wake, thread, member, subscriptions })
    }

    /// How `settings` are served, with a thread for each exporter that was opened for them, of which there is one.
    pub fn service(&self, settings: &config::Exporter, exporters: Vec<Exporter>) -> io::Result<Service> {
        let exporter = &exporters[0];
        let takes = Takes { logs: exporter.accepts(Signal::Logs), encoded_only: exporter.wants_uberagent_only() };
        Ok(Service {
            senders: Senders::start(&self.name, exporters, &self.wake)?,
            takes,
            retry: settings.retry,
            batch: settings.batch,
            compression: settings.backend.http().compression,
            requirement: settings.requirement,
        })
    }

    /// Tells its thread what to do; a thread that was told to end does no more.
    pub fn tell(&self, command: Command) {
        // Fails only after `End`, and then there is nothing to do.
        self.commands.send(command).ok();
        self.wake.unpark();
    }

    /// Parks it: it sends nothing more and keeps its place as long as it lags by no more than `max_lag_bytes`; health says
    /// `why`.
    pub fn park(&mut self, max_lag_bytes: u64, why: String) {
        self.parkings += 1;
        self.tell(Command::Park { number: self.parkings, max_lag_bytes, why });
    }

    /// It was parked, and has given up its place since then.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        // Relaxed: a number through which nothing is published.
        self.parkings > 0 && self.given_up.load(Ordering::Relaxed) == self.parkings
    }

    /// Its thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Its thread, when the process stops: cursor and counters stay.
    #[must_use]
    pub fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }

    /// Forgets a destination whose thread was told to end: waits for it, frees what it held of the log, removes its
    /// directory, and lets its counters stand.
    pub fn forget(self, shared: &Shared) {
        self.thread.join().expect("threads do not panic");
        for (log, number) in shared.lanes.iter().zip(self.subscriptions) {
            log.unsubscribe(number);
        }
        shared.release.leave(self.member);
        shared.metrics.end_destination(&self.name);
        shared.health.retire(&component(&self.name));
        if let Err(error) = parking::forget(&parking::directory(&shared.directory, &self.name)) {
            tracing::warn!(destination = %self.name, %error, "the cursor of a destination that is gone could not be removed");
        }
    }
}

/// A thread that waits for its work, and ends when none comes: made before the log is held for anybody, for it may fail.
pub struct Waiting<T> {
    /// The thread.
    pub thread: JoinHandle<()>,
    /// Wakes it.
    pub wake: Unparker,
    /// Takes its work, once.
    pub work: Sender<T>,
}

impl<T: Send + 'static> Waiting<T> {
    /// Starts a thread that will `run` its work.
    pub fn start(name: &str, run: impl FnOnce(T, &Parker) + Send + 'static) -> io::Result<Waiting<T>> {
        let (work, works) = bounded(1);
        let parker = Parker::new();
        let wake = parker.unparker().clone();
        let thread = thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            // Fails when whoever started it could not go on.
            if let Ok(work) = works.recv() {
                run(work, &parker);
            }
        })?;
        Ok(Waiting { thread, wake, work })
    }
}

/// A place among those that the log is held for.
pub struct Joined {
    /// The cursor.
    pub place: Place,
    /// Where it stands in each lane.
    pub states: Vec<LaneState<Position>>,
    /// Who it is.
    pub member: Member,
}

/// Opens a cursor and joins it to those that the log is held for. Whether it may lag is said when it is served.
pub fn join(name: &str, start: StartAt, shared: &Shared) -> io::Result<Joined> {
    let directory = parking::directory(&shared.directory, name);
    let ((mut place, states), member) = new_or_whole(&*shared.storage, &directory, || {
        let cursor = Cursor::open(&*shared.storage, &directory)?;
        if cursor.was_damaged() {
            tracing::error!(destination = name, "the cursor was damaged: what is in the log is delivered again");
        }
        let open = || {
            let opened: Opened = Place::open(cursor, &shared.lanes, Requirement::Required, start)?;
            let positions = opened.1.iter().map(|state| state.position).collect();
            Ok((opened, positions))
        };
        shared.release.join(open)
    })?;
    place.release_with(Arc::clone(&shared.release), member);
    Ok(Joined { place, states, member })
}

/// Opens the place whose cursor is in a directory. If that fails, a cursor that was not there before is not there
/// afterwards: the next start would park it as that of a destination that is configured no more.
fn new_or_whole<T>(storage: &dyn Storage, directory: &Path, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    storage.create_directory(directory)?;
    let has_cursor = || Ok::<_, io::Error>(storage.list(directory)?.iter().any(|name| name == parking::CURSOR));
    let existed = has_cursor()?;
    let opened = open();
    if opened.is_err() && !existed && has_cursor().unwrap_or(true) {
        let removed = storage.remove(&directory.join(parking::CURSOR));
        if let Err(error) = removed.and_then(|()| storage.sync_directory(directory)) {
            tracing::warn!(?directory, %error, "the cursor of a destination that could not be opened was not removed");
        }
    }
    opened
}

/// The destination's state machine; the settings are those of nobody until the first command.
fn egress(name: &str, (place, states): Opened, shared: &Shared) -> Egress {
    let readers = shared.lanes.iter().zip(&states).map(|(log, state)| log.reader(state.position)).collect();
    let window = Window::new(states, &place.totals_elsewhere());
    let (ledger, gauges) = (Arc::new(ledger::Destination::default()), Arc::new(DestinationGauges::default()));
    ledger.show(window.totals());
    let source =
        DestinationSource { name: name.to_owned(), counters: Arc::clone(&ledger), gauges: Arc::clone(&gauges) };
    shared.metrics.add_destination(source);
    let health = shared.health.component(&component(name));
    health.set(crate::telemetry::health::State::Ready);
    let tick = shared.health.thread(&component(name), TICK_LIMIT, clock::monotonic());
    let retry = Retry { initial: Duration::ZERO, max: Duration::ZERO, max_concurrency: 1 };
    let batch = Batch { send_spans: 1, timeout: Duration::ZERO, max_spans: None, max_request_bytes: 1 };
    Egress::new(EgressOptions {
        readers,
        window,
        place,
        delivery: Delivery::new(retry, batch, Compression::None, fastrand::u64(..)),
        senders: Senders::none(),
        takes: Takes { logs: false, encoded_only: false },
        ledger,
        keep_letter: keeper(shared.letters.clone(), tick.clone()),
        stop: Arc::clone(&shared.stop),
        watch: Watch {
            name: name.to_owned(),
            lanes: shared.appended.clone(),
            logs: shared.lanes.clone(),
            far_bytes: (0, Duration::ZERO),
            gauges,
            latency: shared.metrics.batch_latency(),
            component: health,
            tick,
            degraded: None,
            words: Words::default(),
            parked: None,
            unread: (Ahead::default(), Duration::ZERO),
            told: None,
        },
        name: name.to_owned(),
    })
}

fn keeper(letters: DeadLetters, tick: Tick) -> Box<dyn FnMut(DeliveryLetter) -> bool + Send> {
    Box::new(move |letter| letters.keep(letter, &|| tick.tick(clock::monotonic())))
}

fn component(name: &str) -> String {
    format!("destination {name}")
}

/// What can be said of new settings before anything is touched: whether an exporter works with them.
pub fn open_exporter(settings: &config::Exporter) -> Result<Exporter, StartError> {
    let name = settings.name.clone();
    match on_a_deep_stack(|| Exporter::open(&settings.backend)) {
        Ok(opened) => opened.map_err(|source| StartError::Setup { name, source }),
        Err(source) => Err(StartError::Io { name, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Options;
    use crate::sim::disk::SimDisk;

    /// Opens the place of a destination on a disk whose sync after `syncs` fails; whether that went well, and what is in its
    /// directory afterwards.
    fn open_place(storage: &SimDisk, log: &Arc<Log>, syncs: u64) -> (bool, Vec<String>) {
        let directory = Path::new("destinations/a");
        storage.fail_sync_after(syncs);
        let opened = new_or_whole(storage, directory, || {
            let cursor = Cursor::open(storage, directory)?;
            Place::open(cursor, &[Arc::clone(log)], Requirement::Required, StartAt::Tail)
        });
        (opened.is_ok(), storage.list(directory).unwrap())
    }

    #[test]
    fn a_new_destination_that_cannot_be_opened_leaves_no_cursor() {
        let storage = SimDisk::new(7);
        let options = Options::of_a_test(Path::new(""));
        let (log, _appender, _) = Log::open(Arc::new(storage.clone()), options).unwrap();
        let mut failures = 0;
        while let (false, left) = open_place(&storage, &log, failures) {
            assert_eq!(left, Vec::<String>::new(), "after {failures} syncs");
            failures += 1;
        }
        assert!(failures >= 2, "its creation and its first commit can fail, {failures} did");
        let (is_open, left) = open_place(&storage, &log, 0);
        assert_eq!((is_open, left), (false, vec![parking::CURSOR.to_owned()]), "one that was there stays");
    }

    #[test]
    fn what_was_given_up_in_one_parking_is_not_held_against_the_next() {
        let ((commands, taken), given_up) = (unbounded(), Arc::<AtomicU64>::default());
        let Waiting { thread, wake, work } = Waiting::<()>::start("nobody", |(), _| ()).unwrap();
        let ((), member) = Release::new(Vec::new()).join(|| Ok(((), Vec::new()))).unwrap();
        let mut destination = Destination {
            name: "a".to_owned(),
            parkings: 0,
            given_up: Arc::clone(&given_up),
            commands,
            wake,
            thread,
            member,
            subscriptions: Vec::new(),
        };
        assert!(!destination.has_given_up(), "it was never parked");
        destination.park(0, String::new());
        assert!(!destination.has_given_up());
        // What its thread does when it lags too far.
        let Ok(Command::Park { number, .. }) = taken.try_recv() else { panic!("it was parked") };
        given_up.store(number, Ordering::Relaxed);
        assert!(destination.has_given_up());
        // It is configured again and parked again before its thread has turned.
        destination.park(0, String::new());
        assert!(!destination.has_given_up(), "it has a day from now");
        drop(work);
    }
}
