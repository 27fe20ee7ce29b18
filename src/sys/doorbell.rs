//! A doorbell: an eventfd by which one thread wakes another that sleeps in epoll.
//!
//! The ringer writes, the sleeper polls the descriptor for reading and answers. Rings between two answers merge.

#![allow(unsafe_code, reason = "this file is the eventfd mechanism")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// One eventfd, shared between the thread that rings and the one that sleeps on it.
#[derive(Clone, Debug)]
pub struct Doorbell {
    fd: Arc<OwnedFd>,
}

impl Doorbell {
    /// A doorbell that nobody has rung. Fails when the process is out of descriptors.
    pub fn new() -> io::Result<Doorbell> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Doorbell { fd: Arc::new(fd) })
    }

    /// Makes the descriptor readable.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is eight readable bytes, as eventfd demands, and the descriptor is open.
        let written = unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        // A full counter (EAGAIN) is a doorbell that has been rung: nothing is lost.
        debug_assert!(written == 8 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock);
    }

    /// Makes the descriptor unreadable until the next ring.
    pub fn answer(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is eight writable bytes and the descriptor is open.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        debug_assert!(read == 8 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock);
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
