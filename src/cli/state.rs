//! The state directory that a tool looks into: `--state`, else the one of the configuration.
//!
//! Tools look while a process runs and after it has ended alike; only what changes files asks for the directory's lock.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::source::{Source, Unusable};
use crate::pipeline::dead_letters::{self, StoreName};
use crate::queue::StateLock;
use crate::queue::inspect::Place;

/// Where the state is.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct StateArgs {
    /// The state directory; without it that of the configuration [env: STATE_DIRECTORY].
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// The configuration file that names it.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl StateArgs {
    /// The directory. Fails when there is no log in it.
    pub(super) fn directory(&self) -> anyhow::Result<PathBuf> {
        let directory = match &self.state {
            Some(directory) => directory.clone(),
            None => self.source().load()?.config.state_directory,
        };
        if !directory.join("log").is_dir() {
            let shown = directory.display();
            let message = format!("{shown} holds no log: name the state directory of `millrace run` with --state");
            return Err(Unusable(message).into());
        }
        Ok(directory)
    }

    /// The configuration that the directory belongs to.
    pub(super) fn source(&self) -> Source {
        Source::of_file(self.config.clone())
    }
}

/// Takes the lock of a state directory, to change what is in it.
pub(super) fn lock(directory: &Path) -> anyhow::Result<StateLock> {
    match StateLock::take(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(anyhow::anyhow!(
            "a running millrace uses {}: stop it first (systemctl stop millrace)",
            directory.display()
        )),
        other => other.with_context(|| format!("{} cannot be locked", directory.display())),
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
    let names = std::fs::read_to_string(directory.join("sources")).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// A log with its name.
pub(super) struct Named {
    /// `lane 0`, `dead letters front`.
    pub(super) name: String,
    /// Where it is.
    pub(super) place: Place,
}

/// Every log under a state directory: the lanes', then the stores of dead letters.
pub(super) fn logs(directory: &Path) -> anyhow::Result<Vec<Named>> {
    let lanes = Place::lanes(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut logs: Vec<Named> =
        lanes.into_iter().map(|place| Named { name: format!("lane {}", place.lane), place }).collect();
    for store in StoreName::ALL {
        let place = dead_letters::place(directory, store);
        if place.directory.is_dir() {
            logs.push(Named { name: format!("dead letters {}", store.word()), place });
        }
    }
    Ok(logs)
}
