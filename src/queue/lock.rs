//! One process for a state directory: a lock on the file `LOCK` in it.
//!
//! The kernel drops the lock with the process, however that ends, so a stale file holds nobody up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Held as long as the process uses the state directory.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock of `state_directory`, which must exist; `WouldBlock` when another process has it.
    pub fn take(state_directory: &Path) -> io::Result<StateLock> {
        let path = state_directory.join("LOCK");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(io::ErrorKind::WouldBlock, "another process uses it")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once() {
        let directory = tempfile::tempdir().unwrap();
        let lock = StateLock::take(directory.path()).unwrap();
        assert_eq!(StateLock::take(directory.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        StateLock::take(directory.path()).unwrap();
    }
}
