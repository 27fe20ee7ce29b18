//! The disk as operators see it: each lane's log on `/metrics`, and the watermarks of the budget over all of them.
//!
//! Looked at once a second by the thread that owns the appliance. A watermark is logged when it is reached, louder the
//! higher it is, and shown as a degraded component until the log has clearly fallen below it again. It changes nothing
//! that senders see: a log that is full does that by itself, and then the process says that it is not ready.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dead_letters::{self, StoreName};
use crate::queue::{Budget, Log, Storage};
use crate::telemetry::health::{Component, Health, State};
use crate::telemetry::ledger;
use crate::telemetry::metrics::{DiskFigures, LogFigures, LogSource, Metrics, Watermark};

/// Points by which the log falls below a watermark before that is over.
const CLEARLY: u64 = 5;

/// What the disk is known by.
#[derive(Clone)]
pub struct DiskParts {
    /// The logs of all lanes.
    pub logs: Vec<Arc<Log>>,
    /// What the writers of the lanes that run say of theirs.
    pub ledgers: Vec<Arc<ledger::Lane>>,
    /// Their budget.
    pub budget: Arc<Budget>,
    /// Where they are stored.
    pub storage: Arc<dyn Storage>,
    /// On which file system.
    pub directory: PathBuf,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes that stay free on the file system.
    pub reserve_bytes: u64,
}

/// The watermarks at work.
pub struct Disk {
    parts: DiskParts,
    component: Component,
    shown: Watermark,
    /// Nor was there room for another segment, in words.
    starved: Option<String>,
    /// Nothing was taken.
    is_full: bool,
}

impl DiskParts {
    fn figures(&self) -> DiskFigures {
        let spares: Vec<u64> = self.logs.iter().map(|log| log.stats().pool_segments).collect();
        let quarantined: Vec<u64> = quarantines(&self.directory).iter().flat_map(|place| file_bytes(place)).collect();
        DiskFigures {
            used_bytes: self.budget.used_bytes(),
            pool_bytes: spares.iter().sum::<u64>() * self.segment_bytes,
            max_bytes: self.budget.max_bytes(),
            // What cannot be asked is no reason for alarm.
            free_bytes: self.storage.free_bytes(&self.directory).unwrap_or(u64::MAX),
            reserve_bytes: self.reserve_bytes,
            segment_bytes: self.segment_bytes,
            is_full: !self.ledgers.is_empty() && self.ledgers.iter().all(|ledger| ledger.is_full.get() > 0),
            quarantined_files: quarantined.len() as u64,
            quarantined_bytes: quarantined.iter().sum(),
            logs_without_spare: spares.iter().filter(|spares| **spares == 0).count() as u64,
        }
    }
}

impl Disk {
    /// Shows logs and budget from now on.
    #[must_use]
    pub fn show(parts: DiskParts, metrics: &Metrics, health: &Health) -> Disk {
        for log in &parts.logs {
            let (lane, log) = (log.lane(), Arc::clone(log));
            metrics.add_log(LogSource { lane, read: Box::new(move || figures_of(&log)) });
        }
        let read = parts.clone();
        metrics.show_disk(Box::new(move || read.figures()));
        let component = health.component("disk");
        component.set(State::Ready);
        let mut disk = Disk { parts, component, shown: Watermark::Low, starved: None, is_full: false };
        // What a start finds is said by it, before the first sender is told to come again.
        disk.look();
        disk
    }

    /// One look: says what has changed.
    pub fn look(&mut self) {
        self.turn(&self.parts.figures());
    }

    fn turn(&mut self, figures: &DiskFigures) {
        let (percent, mark) = (figures.percent(), figures.watermark());
        let rose = mark > self.shown;
        let fell = mark < self.shown && percent + CLEARLY <= self.shown.percent();
        let starves = figures.is_starved() != self.starved.is_some();
        if !rose && !fell && !starves && figures.is_full == self.is_full {
            return;
        }
        if rose || fell {
            self.shown = mark;
        }
        if starves {
            self.starved = figures.starved();
        }
        let room_mib = figures.room_bytes() >> 20;
        match (&self.starved, mark) {
            (Some(starved), _) if starves => tracing::error!("{starved}: senders will be slowed or told to come again"),
            (_, Watermark::Critical) if rose => {
                tracing::error!(
                    percent,
                    room_mib,
                    "the log is all but full: senders will be slowed or told to come again"
                );
            }
            (_, Watermark::High) if rose => tracing::error!(percent, room_mib, "the log is nearly full"),
            _ if rose => tracing::warn!(percent, room_mib, "the log fills up"),
            _ if fell || starves => tracing::info!(percent, room_mib, "the log has room again"),
            _ => {}
        }
        if figures.is_full && !self.is_full {
            tracing::error!(percent, room_mib, "the log is full: senders are slowed or told to come again");
        }
        self.is_full = figures.is_full;
        self.component.set(self.state(room_mib));
    }

    fn state(&self, room_mib: u64) -> State {
        let why = match (&self.starved, self.shown) {
            (Some(starved), _) => Some(starved.clone()),
            (None, Watermark::Low) => None,
            (None, mark) => Some(format!("more than {} % of {room_mib} MiB are used", mark.percent())),
        };
        match why {
            Some(why) if self.is_full => State::Refusing(format!("the log is full: {why}")),
            None if self.is_full => State::Refusing("the log is full".to_owned()),
            Some(why) => State::Degraded(why),
            None => State::Ready,
        }
    }
}

/// Where files are put aside under a state directory.
#[must_use]
pub fn quarantines(state_directory: &Path) -> Vec<PathBuf> {
    let stores = StoreName::ALL.into_iter().map(|store| dead_letters::place(state_directory, store).quarantine);
    std::iter::once(state_directory.join("log/quarantine")).chain(stores).collect()
}

/// The bytes of each file of a directory; none when there is no such directory.
#[must_use]
pub fn file_bytes(directory: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).collect()
}

fn figures_of(log: &Log) -> LogFigures {
    let stats = log.stats();
    LogFigures {
        segments: stats.segments,
        pool_segments: stats.pool_segments,
        entry_bytes: stats.entry_bytes,
        file_bytes: stats.file_bytes,
        sync_failures: stats.sync_failures,
        unsaved_blocks: stats.unsaved_blocks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{FileStorage, Options};
    use crate::sim::disk::SimDisk;

    #[test]
    fn a_watermark_is_said_when_it_is_reached_and_until_it_is_clearly_over() {
        let health = Health::new();
        let parts = DiskParts {
            logs: Vec::new(),
            ledgers: Vec::new(),
            budget: Arc::new(Budget::new(1000 << 20, 0)),
            storage: Arc::new(FileStorage),
            directory: PathBuf::from("/"),
            segment_bytes: 1 << 20,
            reserve_bytes: 0,
        };
        let mut disk = Disk::show(parts, &Metrics::new(), &health);
        let mut said = Vec::new();
        for percent in [10, 71, 69, 66, 86, 96, 91, 90, 64] {
            let used_bytes = percent * (10 << 20);
            disk.turn(&DiskFigures {
                used_bytes,
                max_bytes: 1000 << 20,
                free_bytes: u64::MAX,
                ..DiskFigures::default()
            });
            said.push(disk.shown.percent());
        }
        assert_eq!(said, [0, 70, 70, 70, 85, 95, 95, 85, 0]);
        assert_eq!(health.summary(), "ready");
        disk.turn(&DiskFigures { used_bytes: 900, max_bytes: 1000, free_bytes: u64::MAX, ..DiskFigures::default() });
        assert_eq!(health.summary(), "ready; disk: more than 85 % of 0 MiB are used");
    }

    #[test]
    fn a_start_without_room_for_a_segment_says_so_at_once_and_until_there_is_some() {
        let health = Health::new();
        let (storage, ledger) = (SimDisk::new(7), Arc::<ledger::Lane>::default());
        let budget = Arc::new(Budget::new(1 << 30, 200 << 20));
        let options = Options { budget: Arc::clone(&budget), ..Options::of_a_test(Path::new("")) };
        storage.set_free_bytes(30 << 20);
        let (log, _appender, _) = Log::open(Arc::new(storage.clone()), options).unwrap();
        let parts = DiskParts {
            logs: vec![log],
            ledgers: vec![Arc::clone(&ledger)],
            budget,
            storage: Arc::new(storage.clone()),
            directory: PathBuf::from("log"),
            segment_bytes: 4 << 20,
            reserve_bytes: 200 << 20,
        };
        let mut disk = Disk::show(parts, &Metrics::new(), &health);
        let said = "ready; disk: queue.reserve_bytes is 200 MiB, free are 30 MiB: no segment can be made";
        assert_eq!(health.summary(), said);
        ledger.is_full.set(1);
        disk.look();
        let line = "[-] disk: refusing: the log is full: queue.reserve_bytes is 200 MiB, free are 30 MiB: no segment can be made";
        assert_eq!((health.ready().yes, health.ready().lines), (false, vec![line.to_owned()]));
        assert_eq!(health.degraded().len(), 1, "and it is a problem");
        ledger.is_full.set(0);
        disk.look();
        assert!(health.ready().yes);
        storage.set_free_bytes(300 << 20);
        disk.look();
        assert_eq!(health.summary(), "ready");
    }
}
