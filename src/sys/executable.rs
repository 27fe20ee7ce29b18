//! Whether this process may run machine code that it makes itself.
//!
//! Under systemd's `MemoryDenyWriteExecute=yes`, and under some policies of SELinux, it may not: pages that were written are
//! refused `PROT_EXEC`. Asked once, before anything is compiled, so that the answer is an error that says what to do rather
//! than a failure in the middle of a load. Nothing is executed here.

#![allow(unsafe_code, reason = "this file asks by the system calls that compilers use")]

use std::io;
use std::ptr;

const PAGE_BYTES: usize = 4096;

/// Whether a page that was written can be made executable; the error is the kernel's.
pub fn may_be_made() -> io::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping, placed by the kernel, touches no memory of ours.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE_BYTES, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was mapped above, is writable and as long as this.
    unsafe { ptr::write_bytes(page.cast::<u8>(), 0, PAGE_BYTES) };
    // SAFETY: the range is the mapping made above.
    let outcome = match unsafe { libc::mprotect(page, PAGE_BYTES, libc::PROT_READ | libc::PROT_EXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the range is the mapping made above; nothing points into it.
    unsafe { libc::munmap(page, PAGE_BYTES) };
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_restrictions_may() {
        may_be_made().unwrap();
    }

    #[test]
    fn a_process_that_denied_it_to_itself_may_not() {
        // The child denies it to itself for good; prctl is all that it does beside asking.
        // SAFETY: the child makes system calls only and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            const PR_SET_MDWE: libc::c_int = 65;
            // SAFETY: a plain system call on numbers.
            let denied = unsafe { libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) } == 0;
            // Kernels before 6.3 do not know it: nothing to see then.
            let code = if denied && may_be_made().is_ok() { 1 } else { 0 };
            // SAFETY: ends the child at once, without destructors of the parent's copies.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: the pointer is to a local that lives through the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "a page became executable in a process that denied it");
    }
}
