//! All destinations: the configured ones, those that are parked, and the retention that runs when there is none.
//!
//! A change of them has two steps. [`Destinations::prepare`] does everything that can fail: exporters, places, threads.
//! What it made sends nothing and can be given back ([`Destinations::discard`]). [`Destinations::adopt`] only tells threads
//! what to do. A destination that is configured no more is parked (see [`super::parking`]); [`Destinations::look`] forgets
//! it when its time is over or when it has given up because it lags by more than it may. Owned by the thread that runs the
//! appliance.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::sync::Unparker;
use jiff::Timestamp;

use super::age::Ages;
use super::destination::{Destination, Joined, Shared, StartError, TICK_LIMIT, Waiting, join, open_exporter};
use super::drain::EgressStop;
use super::egress::{Command, Service};
use super::parking::{self, RETENTION};
use super::plugins::{Counted, counted};
use super::release::Member;
use super::retention::{Retain, Retention};
use super::window::Window;
use crate::config::{self, Backend, Config, StartAt};
use crate::export::Exporter;
use crate::sys::{clock, digest};
use crate::telemetry::ledger::{self, DropReason};
use crate::telemetry::metrics::{DestinationGauges, DestinationSource, PluginPlace};

/// What each file of a destination held: a digest, or that it could not be read.
type Held = Vec<Option<[u8; 32]>>;

/// An exporter that is not served, or in another way, and what its files held before it was opened with them: should they
/// change meanwhile, the next reload opens it once more.
struct Opened<'c> {
    settings: &'c config::Exporter,
    held: Held,
    exporter: Exporter,
}

/// What a destination is there for.
enum Role {
    /// It delivers, with what its files held when it was opened.
    Configured(Box<config::Exporter>, Held),
    /// It was opened and is told in a moment what to do.
    New,
    /// It keeps its place until then (monotonic); the wall clock of its mark.
    Parked { until: Duration, marked: Duration },
    /// Its thread was told to give everything up.
    Ending,
}

struct Entry {
    destination: Destination,
    role: Role,
}

/// The retention's thread.
struct RunningRetention {
    stop: Arc<EgressStop>,
    wake: Unparker,
    thread: JoinHandle<()>,
    member: Member,
}

/// One destination that is served from now on, or in another way.
struct Served {
    settings: Box<config::Exporter>,
    /// What its files held before the exporter read them.
    held: Held,
    service: Service,
    /// Its dead letters are sent again with this.
    replay: Exporter,
    /// What all of these count of a plugin.
    counted: Counted,
}

/// Everything of a change that can fail, done.
#[derive(Default)]
pub struct Prepared {
    served: Vec<Served>,
    new: Vec<Destination>,
    retention: Option<RunningRetention>,
}

/// The destinations of a running appliance.
pub struct Destinations {
    shared: Shared,
    /// In the order in which they came.
    entries: Vec<Entry>,
    retention: Option<RunningRetention>,
    retain: Arc<Retain>,
}

impl Destinations {
    /// Starts what `config` says, and parks what has a cursor and is not in it. The log is freed only when all have joined.
    pub fn start(config: &Config, shared: Shared) -> Result<Destinations, StartError> {
        let retain = Arc::new(Retain::new(config.queue.retain));
        let mut destinations = Destinations { shared, entries: Vec::new(), retention: None, retain };
        let prepared = destinations.prepare(config)?;
        destinations.park_unknown(config)?;
        destinations.shared.release.free();
        destinations.adopt(config, prepared);
        Ok(destinations)
    }

    /// Does what can fail of a change to `config`. Errors leave everything as it was.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, StartError> {
        let mut prepared = Prepared::default();
        match self.prepare_into(&mut prepared, config) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                self.discard(prepared);
                Err(error)
            }
        }
    }

    /// Whether the exporters of a change to `config` would work, as far as that can be told without starting them.
    pub fn check(&self, config: &Config) -> Result<(), StartError> {
        self.open_changed(config).map(drop)
    }

    /// The configured destinations whose settings are as they were and whose files are not.
    pub fn renewed(&self, config: &Config) -> Vec<String> {
        let is_renewed = |settings: &&config::Exporter| {
            let role = self.entry(&settings.name).map(|entry| &entry.role);
            matches!(role, Some(Role::Configured(known, held)) if **known == **settings && *held != files(settings))
        };
        config.exporters.iter().filter(is_renewed).map(|settings| settings.name.clone()).collect()
    }

    fn open_changed<'c>(&self, config: &'c Config) -> Result<Vec<Opened<'c>>, StartError> {
        let mut opened = Vec::new();
        for settings in &config.exporters {
            let held = files(settings);
            match self.entry(&settings.name).map(|entry| &entry.role) {
                Some(Role::Configured(known, known_held)) if **known == *settings && *known_held == held => {}
                Some(Role::Ending) => return Err(StartError::Ending { name: settings.name.clone() }),
                _ => opened.push(Opened { settings, held, exporter: open_exporter(settings)? }),
            }
        }
        Ok(opened)
    }

    fn prepare_into(&self, prepared: &mut Prepared, config: &Config) -> Result<(), StartError> {
        for Opened { settings, held, exporter } in self.open_changed(config)? {
            let failed = |source| StartError::Io { name: settings.name.clone(), source };
            let others = (1..settings.retry.max_concurrency).map(|_| exporter.another());
            let (replay, mut exporters) = (exporter.another(), others.collect::<Vec<_>>());
            exporters.push(exporter);
            let counted = counted(exporters.iter().chain([&replay]));
            let service = match self.entry(&settings.name) {
                Some(entry) => entry.destination.service(settings, exporters),
                None => {
                    let new = Destination::open(&settings.name, settings.start_at, &self.shared).map_err(failed)?;
                    let service = new.service(settings, exporters);
                    prepared.new.push(new);
                    service
                }
            };
            let (settings, service) = (Box::new(settings.clone()), service.map_err(failed)?);
            prepared.served.push(Served { settings, held, service, replay, counted });
        }
        if config.exporters.is_empty() && self.retention.is_none() {
            let failed = |source| StartError::Io { name: RETENTION.to_owned(), source };
            prepared.retention = Some(start_retention(&self.shared, &self.retain).map_err(failed)?);
        }
        Ok(())
    }

    /// Gives back what was prepared for a change that does not come.
    pub fn discard(&self, prepared: Prepared) {
        for new in prepared.new {
            new.tell(Command::End(None));
            new.forget(&self.shared);
        }
        if let Some(retention) = prepared.retention {
            self.end_retention(retention);
        }
    }

    /// Puts a prepared change into force.
    pub fn adopt(&mut self, config: &Config, prepared: Prepared) {
        self.retain.set(config.queue.retain);
        self.entries.extend(prepared.new.into_iter().map(|destination| Entry { destination, role: Role::New }));
        for Served { settings, held, service, replay, counted } in prepared.served {
            let directory = parking::directory(&self.shared.directory, &settings.name);
            if let Err(error) = parking::unpark(&directory) {
                tracing::warn!(destination = %settings.name, %error, "the mark of a parked destination could not be removed");
            }
            let entry = self.entries.iter_mut().find(|entry| entry.destination.name == settings.name);
            let entry = entry.expect("a destination that was prepared is there");
            entry.destination.tell(Command::Serve(Box::new(service)));
            replay.announce();
            self.shared.letters.replay_by(&settings.name, replay);
            self.shared.formats.serve(PluginPlace::Exporters, &settings.name, counted);
            entry.role = Role::Configured(settings, held);
        }
        for index in 0..self.entries.len() {
            let Entry { destination, role } = &self.entries[index];
            let stays = config.exporters.iter().any(|settings| settings.name == destination.name);
            if matches!(role, Role::Configured(..)) && !stays {
                self.park(index);
            }
        }
        if let Some(retention) = prepared.retention {
            self.retention = Some(retention);
        } else if !config.exporters.is_empty()
            && let Some(retention) = self.retention.take()
        {
            self.end_retention(retention);
        }
    }

    /// Forgets parked destinations whose time is over or that have given up; to be called about once a second.
    pub fn look(&mut self, now: Duration) {
        for Entry { destination, role } in &mut self.entries {
            let Role::Parked { until, marked } = role else { continue };
            let is_over = now >= *until;
            let since = parking::since(Duration::from_nanos(clock::wall_ns()), until.saturating_sub(now));
            if !is_over && parking::is_off(*marked, since) {
                *marked = since;
                let directory = parking::directory(&self.shared.directory, &destination.name);
                if let Err(error) = parking::mark(&directory, since) {
                    tracing::warn!(destination = %destination.name, %error, "when it was parked could not be written");
                }
            }
            if is_over || destination.has_given_up() {
                destination.tell(Command::End(is_over.then_some(DropReason::Age)));
                *role = Role::Ending;
            }
        }
        let has_ended = |entry: &mut Entry| matches!(entry.role, Role::Ending) && entry.destination.is_finished();
        for ended in self.entries.extract_if(.., has_ended) {
            ended.destination.forget(&self.shared);
        }
    }

    /// From now on everybody sends at once and ends when there is nothing left, or at `deadline` (monotonic); the threads.
    pub fn drain_until(self, deadline: Duration) -> Vec<JoinHandle<()>> {
        self.shared.stop.drain_until(deadline);
        let mut threads: Vec<_> = self.entries.into_iter().map(|entry| entry.destination.into_thread()).collect();
        if let Some(retention) = self.retention {
            retention.stop.skip();
            retention.wake.unpark();
            threads.push(retention.thread);
        }
        threads
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.destination.name == name)
    }

    fn park_unknown(&mut self, config: &Config) -> Result<(), StartError> {
        let failed = |name: &str| {
            let name = name.to_owned();
            move |source| StartError::Io { name, source }
        };
        let known = parking::known(&self.shared.directory).map_err(failed("of the state directory"))?;
        for name in known {
            if config.exporters.iter().any(|settings| settings.name == name) {
                continue;
            }
            let destination = Destination::open(&name, StartAt::Oldest, &self.shared).map_err(failed(&name))?;
            self.entries.push(Entry { destination, role: Role::New });
            self.park(self.entries.len() - 1);
        }
        Ok(())
    }

    fn park(&mut self, index: usize) {
        let max_lag_bytes = self.shared.queue.max_bytes / 2;
        let Entry { destination, role } = &mut self.entries[index];
        let directory = parking::directory(&self.shared.directory, &destination.name);
        let wall = Duration::from_nanos(clock::wall_ns());
        let left = parking::park(&directory, wall).unwrap_or_else(|error| {
            tracing::warn!(destination = %destination.name, %error, "when it was parked could not be written");
            parking::PARKED_FOR
        });
        let until = Timestamp::from_nanosecond((wall + left).as_nanos().cast_signed()).unwrap_or(Timestamp::MAX);
        let why = format!(
            "parked: not configured any more; its place is kept until {until:.0}, or until it lags {} MiB",
            max_lag_bytes >> 20
        );
        tracing::warn!(destination = %destination.name, "{why}");
        self.shared.letters.replay_no_more(&destination.name);
        self.shared.formats.end(PluginPlace::Exporters, &destination.name);
        destination.park(max_lag_bytes, why);
        *role = Role::Parked { until: clock::monotonic() + left, marked: parking::since(wall, left) };
    }

    fn end_retention(&self, retention: RunningRetention) {
        retention.stop.skip();
        retention.wake.unpark();
        retention.thread.join().expect("threads do not panic");
        self.shared.release.leave(retention.member);
        self.shared.metrics.end_destination(RETENTION);
        // What goes through destinations from now on is not the retention's to count.
        if let Err(error) = parking::forget(&parking::directory(&self.shared.directory, RETENTION)) {
            tracing::warn!(%error, "the retention's cursor could not be removed");
        }
    }
}

/// What the files of a destination hold now, its certificate authority and its plugin with the tables: one that was renewed
/// makes it another destination.
fn files(settings: &config::Exporter) -> Held {
    let plugin = match &settings.backend {
        Backend::Plugin(export) => Some(&export.plugin),
        Backend::OtlpHttp(_) | Backend::Influx(_) => None,
    };
    let parts = plugin.map(|plugin| plugin.lookups.iter().map(|(_, path)| path).chain([&plugin.component.path]));
    let digest = |path: &PathBuf| digest::of_file(path);
    settings.backend.http().ca_file.iter().chain(parts.into_iter().flatten()).map(digest).collect()
}

fn start_retention(shared: &Shared, retain: &Arc<Retain>) -> std::io::Result<RunningRetention> {
    let Waiting { thread, wake, work } =
        Waiting::start("retention", |retention: Retention, parker| retention.run(parker))?;
    let Joined { place, states, member } = join(RETENTION, StartAt::Oldest, shared)?;
    let window = Window::new(states, &place.totals_elsewhere());
    let spare_bytes = (shared.queue.pool_segments as u64 + 2) * shared.queue.segment_bytes;
    let counters = Arc::new(ledger::Destination::default());
    counters.show(window.totals());
    let gauges = Arc::new(DestinationGauges::default());
    gauges.words.lock().unwrap_or_else(PoisonError::into_inner).retains = true;
    let source =
        DestinationSource { name: RETENTION.to_owned(), counters: Arc::clone(&counters), gauges: Arc::clone(&gauges) };
    shared.metrics.add_destination(source);
    let stop = Arc::new(EgressStop::default());
    let retention = Retention {
        lanes: shared.lanes.clone(),
        appended: shared.appended.clone(),
        place,
        window,
        retain: Arc::clone(retain),
        ages: Ages::default(),
        lane_bytes: (shared.queue.max_bytes / shared.lanes.len() as u64).saturating_sub(spare_bytes),
        ledger: counters,
        gauges,
        looked_at: Duration::ZERO,
        stop: Arc::clone(&stop),
        tick: shared.health.thread("retention", TICK_LIMIT, clock::monotonic()),
    };
    work.send(retention).expect("the thread waits for it");
    Ok(RunningRetention { stop, wake, thread, member })
}
