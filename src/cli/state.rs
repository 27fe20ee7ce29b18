//! The state directory that a tool looks into: `--state`, else the one of the configuration.
//!
//! Tools look while a process runs and after it has ended alike; only what changes files asks for the directory's lock.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::human;
use super::source::{Source, Unusable};
use crate::config::MissingKey;
use crate::pipeline::dead_letters::{self, StoreName};
use crate::pipeline::disk::{file_bytes, quarantines};
use crate::pipeline::logs::read_keys;
use crate::pipeline::sources::table;
use crate::queue::inspect::Place;
use crate::queue::{AtRest, StateLock};
use crate::sys::owner::become_owner_of;

/// Where the state is.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct StateArgs {
    /// The state directory; without it that of the configuration [env: STATE_DIRECTORY].
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// The configuration file that names it.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The keys of an encrypted log; without it those of the configuration, when that is asked.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// A state directory with what it takes to read it.
pub(super) struct State {
    /// The directory.
    pub(super) directory: PathBuf,
    /// The keys of its blocks; what they do not open is passed over.
    pub(super) at_rest: AtRest,
}

impl StateArgs {
    /// The directory and its keys. Fails when there is no log in it.
    pub(super) fn open(&self) -> anyhow::Result<State> {
        let asked = self.state.is_none() || self.config.is_some();
        let config = if asked { Some(self.source().load()?.config) } else { None };
        let directory = match (&self.state, &config) {
            (Some(directory), _) => directory.clone(),
            (None, config) => config.as_ref().expect("asked for without a directory").state_directory.clone(),
        };
        if !directory.join("log").is_dir() {
            let shown = directory.display();
            let message = format!("{shown} holds no log: name the state directory of `millrace run` with --state");
            return Err(Unusable(message).into());
        }
        let encryption = config.and_then(|config| config.queue.encryption);
        let key_file = self.key_file.clone().or(encryption.and_then(|encryption| encryption.key_file));
        let mut at_rest = AtRest { missing_key: MissingKey::Skip, ..AtRest::default() };
        if let Some(path) = key_file {
            at_rest.keys =
                read_keys(&path).map_err(|reason| Unusable(format!("key file {}: {reason}", path.display())))?;
        }
        Ok(State { directory, at_rest })
    }

    /// The configuration that the directory belongs to.
    pub(super) fn source(&self) -> Source {
        Source::of_file(self.config.clone())
    }
}

/// Takes the lock of a state directory, to change what is in it, as the user whose it is: the service has to be able to
/// open what is made there.
pub(super) fn lock(directory: &Path) -> anyhow::Result<StateLock> {
    let shown = directory.display();
    become_owner_of(directory).with_context(|| format!("the owner of {shown} cannot be played"))?;
    match StateLock::take(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(anyhow::anyhow!("a running millrace uses {shown}: stop it first (systemctl stop millrace)"))
        }
        other => other.with_context(|| format!("{shown} cannot be locked")),
    }
}

/// The process that uses a state directory, if there is one. It asks the kernel's list of locks: trying to take the lock
/// would be in the way of a start.
pub(super) fn user(directory: &Path) -> Option<String> {
    let inode = std::fs::metadata(directory.join("LOCK")).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 708 08:01:5333065 0 EOF`, see proc_locks(5).
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, file, ..] = words[..] else { return None };
        let found = file.rsplit(':').next()?.parse::<u64>().ok()?;
        (found == inode).then(|| process.to_owned())
    })
}

/// The names of the sources by their ids; none when they cannot be read.
pub(super) fn sources(directory: &Path) -> Vec<String> {
    table(directory).unwrap_or_default()
}

/// A log with its name.
pub(super) struct Named {
    /// `lane 0`, `dead letters front`.
    pub(super) name: String,
    /// Where it is.
    pub(super) place: Place,
}

impl State {
    /// Every lane.
    pub(super) fn lanes(&self) -> anyhow::Result<Vec<Place>> {
        let shown = self.directory.display();
        let lanes = Place::lanes(&self.directory).with_context(|| format!("{shown} cannot be read"))?;
        Ok(lanes.into_iter().map(|place| Place { at_rest: self.at_rest.clone(), ..place }).collect())
    }

    /// The lane that is named, which has to be there, or every lane.
    pub(super) fn lanes_or(&self, named: Option<u32>) -> anyhow::Result<Vec<Place>> {
        let mut lanes = self.lanes()?;
        let Some(lane) = named else { return Ok(lanes) };
        lanes.retain(|place| place.lane == lane);
        if lanes.is_empty() {
            return Err(Unusable(format!("there is no lane {lane}: `millrace queue ls` shows which there are")).into());
        }
        Ok(lanes)
    }

    /// Every directory with files that were put aside: itself, how many files, and their bytes.
    pub(super) fn quarantined(&self) -> Vec<(PathBuf, u64, u64)> {
        let found = quarantines(&self.directory).into_iter().map(|directory| {
            let files = file_bytes(&directory);
            (directory, files.len() as u64, files.iter().sum())
        });
        found.filter(|(_, files, _)| *files > 0).collect()
    }

    /// Writes a line for each of them.
    pub(super) fn say_quarantined(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for (directory, files, bytes) in self.quarantined() {
            let (files, bytes) = (human::counted(files, "file"), human::size(bytes));
            writeln!(out, "QUARANTINE: {files} of {bytes} were put aside in {}", directory.display())?;
        }
        Ok(())
    }

    /// They for programs.
    pub(super) fn quarantine_json(&self) -> Value {
        let one = |(directory, files, bytes)| json!({ "directory": directory, "files": files, "bytes": bytes });
        self.quarantined().into_iter().map(one).collect()
    }

    /// A store of dead letters.
    pub(super) fn store(&self, store: StoreName) -> Place {
        Place { at_rest: self.at_rest.clone(), ..dead_letters::place(&self.directory, store) }
    }

    /// Every log: the lanes', then the stores of dead letters.
    pub(super) fn logs(&self) -> anyhow::Result<Vec<Named>> {
        let lanes = self.lanes()?.into_iter();
        let mut logs: Vec<Named> = lanes.map(|place| Named { name: format!("lane {}", place.lane), place }).collect();
        for store in StoreName::ALL {
            let place = self.store(store);
            if place.directory.is_dir() {
                logs.push(Named { name: format!("dead letters {}", store.word()), place });
            }
        }
        Ok(logs)
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::block::{Made, Meta, Signal, SourceId};
    use crate::queue::{Keys, Log, MmapStorage, Options};

    /// The keys of [`encrypted`].
    pub(in crate::cli) fn keys() -> Keys {
        Keys::parse(&"0f".repeat(32)).unwrap()
    }

    #[test]
    fn a_credential_of_the_unit_is_not_needed_to_look_and_a_key_file_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        encrypted(&Place::of_lane(directory.path(), 0), 1);
        let text = format!(
            "state_directory: '{}'\nqueue: {{encryption: {{credential: queue.key}}}}\n",
            directory.path().display()
        );
        std::fs::write(path("m.yaml"), text).unwrap();
        std::fs::write(path("keys"), "0f".repeat(32)).unwrap();
        let open = |key_file| StateArgs { state: None, config: Some(path("m.yaml")), key_file }.open().unwrap();
        assert_eq!(open(None).at_rest.keys.ids().count(), 0);
        assert!(open(Some(path("keys"))).at_rest.keys.ids().eq(keys().ids()));
        let config = Source::of_file(Some(path("m.yaml"))).load().unwrap().config;
        let start = crate::pipeline::logs::at_rest(&config.queue).unwrap_err().to_string();
        assert!(start.contains("$CREDENTIALS_DIRECTORY is not set"), "{start}");
    }

    /// A state directory as it is opened by somebody who has not got them.
    pub(in crate::cli) fn without_keys(directory: &Path) -> State {
        let at_rest = AtRest { missing_key: MissingKey::Skip, ..AtRest::default() };
        State { directory: directory.to_owned(), at_rest }
    }

    /// Writes an encrypted log of blocks with three spans each.
    pub(in crate::cli) fn encrypted(place: &Place, blocks: u32) {
        let Place { directory, quarantine, lane, .. } = place.clone();
        let at_rest = AtRest { keys: keys(), ..AtRest::default() };
        let options = Options { directory, quarantine, lane, at_rest, ..Options::of_a_test(Path::new("")) };
        let (log, mut appender, _) = Log::open(Arc::new(MmapStorage), options).unwrap();
        let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(3), 100);
        meta.spans = 3;
        for _ in 0..blocks {
            appender.append(&meta, &[7; 1000]).unwrap();
        }
        log.sync().unwrap();
    }
}
