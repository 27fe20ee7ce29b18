//! The lock on the state directory: one process at a time.
//!
//! An advisory `flock` on the file `LOCK`: the kernel releases it when the process ends, however it ends, so a stale lock
//! cannot be. A second process gets an error, never a share of the log.

#![allow(unsafe_code, reason = "flock is not in the standard library of every supported version")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Held as long as it lives.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// Creates the directory if need be and takes its lock. Errors: it cannot be written, or another process holds it.
pub fn take(directory: &Path) -> io::Result<StateLock> {
    fs::create_dir_all(directory)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("LOCK"))?;
    // SAFETY: flock takes no pointer, and the descriptor is open as long as `file` lives.
    let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if taken != 0 {
        let error = io::Error::last_os_error();
        return Err(match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another process uses it"),
            _ => error,
        });
    }
    Ok(StateLock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_refused_until_the_first_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let first = take(&state).unwrap();
        assert_eq!(take(&state).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(take(&state).is_ok());
    }
}
