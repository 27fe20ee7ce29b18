//! The receivers whose format a plugin reads: each has a thread and a ring to one lane's writer.
//!
//! They are opened before anything runs and live as long as the process: another plugin, or other bounds, need a restart.
//! [`Decoders::open`] does what can fail of the configuration - addresses, components - and [`Decoders::start`] the rest.

#[cfg(not(feature = "plugins"))]
mod absent;
#[cfg(feature = "plugins")]
mod present;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::doors::BindError;
use crate::sys::digest;
use crate::sys::doorbell::Doorbell;

#[cfg(not(feature = "plugins"))]
pub use absent::Decoders;
#[cfg(feature = "plugins")]
pub use present::Decoders;

/// Why a receiver cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DecodersError {
    /// Its plugin cannot be used.
    #[error("receivers.{receiver}: {why}")]
    Plugin {
        /// The receiver.
        receiver: String,
        /// Why not, with the file.
        why: String,
    },
    /// Its address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The table of source ids cannot be used, or there is no thread or descriptor to be had.
    #[error("receivers cannot be prepared: {0}")]
    Io(#[from] io::Error),
}

/// Decoders that run.
#[derive(Default)]
pub struct Running {
    /// They end when told to stop.
    pub threads: Vec<JoinHandle<()>>,
    /// To wake them when they are.
    pub doorbells: Vec<Doorbell>,
    /// Where each listens.
    pub listening: Vec<(String, SocketAddr)>,
    /// The receiver, file and hash of each plugin that runs.
    pub files: Vec<(String, PathBuf, [u8; 32])>,
}

impl Running {
    /// A line for each receiver whose plugin's file has changed since it was started.
    #[must_use]
    pub fn stale(&self) -> Vec<String> {
        let changed =
            self.files.iter().filter(|(_, path, sha256)| digest::of_file(path).is_none_or(|now| now != *sha256));
        let line = |(receiver, path, _): &(String, PathBuf, _)| {
            format!("receivers.{receiver}: {} has changed, and that needs a restart", path.display())
        };
        changed.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_under_its_receiver_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let path = file.path().to_owned();
        let running =
            Running { files: vec![("lines".to_owned(), path.clone(), digest::sha256(b"one"))], ..Running::default() };
        assert_eq!(running.stale(), Vec::<String>::new());
        std::fs::write(&path, "two").unwrap();
        let line = format!("receivers.lines: {} has changed, and that needs a restart", path.display());
        assert_eq!(running.stale(), [line]);
    }
}
