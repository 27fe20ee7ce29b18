//! A page of a mapped log file that cannot be read becomes zeros instead of the end of the process.
//!
//! Another process may truncate a file that is mapped, and a disk may fail under a page that was there a moment ago: the
//! next access then raises SIGBUS. The handler puts an anonymous zero page in the place of that page, if it lies in a
//! registered mapping, and the access goes on. Zeros pass neither the keyed check of a header nor the CRC of a payload, so
//! the reader sees damage and counts it like any other. Every other SIGBUS goes to whoever handled it before (the standard
//! library, a plugin runtime), or kills the process as it always did.
//!
//! The handler only loads atomics, calls `mmap` and counts: no allocation, no lock. It runs on the alternate
//! stack that the standard library gives each of its threads. Mappings are listed in [`super::ranges`].

#![allow(unsafe_code, reason = "this file is the signal handler")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, compiler_fence};

use libc::{c_int, c_void, sigaction, siginfo_t};

use super::lost::Lost;
use super::ranges::{Held, Ranges};

/// The guarded mappings. Made before the first of them, so that the handler only looks.
static GUARDED: OnceLock<Ranges> = OnceLock::new();
static FAULTS: Lost = Lost::new(AtomicU64::new(0), AtomicU64::new(0));
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static PREVIOUS: OnceLock<sigaction> = OnceLock::new();

/// Pages that were replaced by zeros since the process started: to be noted before bytes are found sound.
#[must_use]
pub fn faults() -> u64 {
    FAULTS.count()
}

/// Whether a page was replaced since [`faults`] was that, or is being replaced: bytes that were read meanwhile may be zeros.
#[must_use]
pub fn has_faulted_since(faults: u64) -> bool {
    FAULTS.is_beyond(faults)
}

/// Reads a byte of every page, so that a page of a guarded mapping that cannot be read is replaced now, and not when the
/// kernel is handed the bytes: a system call answers `EFAULT` where an access of ours is mended.
pub fn touch(bytes: &[u8]) {
    for page in bytes.chunks(PAGE_BYTES.load(Ordering::Relaxed)) {
        std::hint::black_box(page.first().copied());
    }
    std::hint::black_box(bytes.last().copied());
}

/// A mapping in which a page that cannot be read becomes zeros, as long as this lives. Drop it before the mapping goes.
#[derive(Debug)]
pub struct Guard {
    _range: Held,
}

impl Guard {
    /// Guards `bytes` of memory from `start`, which must be a file mapped for reading that only the holder of this unmaps.
    /// The first guard installs the handler; fails when the kernel refuses that.
    pub(super) fn new(start: *const u8, bytes: usize) -> io::Result<Guard> {
        install()?;
        let held = GUARDED.get_or_init(Ranges::new).hold(start as usize, bytes);
        let range = held.ok_or_else(|| io::Error::other("a mapping of more than 1 TiB, or beyond 48 bits"))?;
        // The handler runs on the thread that reads: no read of the mapping may come before its range is held. Other threads
        // are given the guard by something that synchronises.
        compiler_fence(Ordering::SeqCst);
        Ok(Guard { _range: range })
    }
}

/// Whether `address` lies in a guarded mapping. Async-signal-safe.
fn is_guarded(address: usize) -> bool {
    GUARDED.get().is_some_and(|ranges| ranges.has(address))
}

fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED.get_or_init(install_once).map_err(io::Error::from_raw_os_error)
}

fn install_once() -> Result<(), i32> {
    let last_error = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: sysconf takes no pointers.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE_BYTES.store(usize::try_from(page_bytes).map_err(|_| last_error())?, Ordering::Relaxed);
    let mut previous = MaybeUninit::<sigaction>::uninit();
    // SAFETY: only asks; there is room for the answer.
    if unsafe { sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(last_error());
    }
    // SAFETY: the call before succeeded, so it filled this in.
    let previous = PREVIOUS.get_or_init(|| unsafe { previous.assume_init() });
    let mut ours = *previous;
    ours.sa_sigaction = on_sigbus as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a whole action, whose handler is async-signal-safe; the mask is that of the action before.
    let result = unsafe { sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// The handler. A SIGBUS that a process sent has no address that faulted: it is passed on.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel hands over a valid siginfo.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code > 0 && is_guarded(address) && FAULTS.replace(|| replace_page(address)) {
        return;
    }
    pass_on(signal, info, context);
}

/// Puts a page of zeros in the place of the page of `address`; errno is as it was before.
fn replace_page(address: usize) -> bool {
    let bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let page = address - address % bytes;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: errno belongs to this thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else has a reference to it.
    let before = unsafe { *errno };
    // SAFETY: the page lies in a mapping whose guard lives, so it is mapped and stays ours: the thread that faults is reading
    // it through a borrow of the mapping's owner, which drops the guard before it unmaps.
    let mapped = unsafe { libc::mmap(page as *mut c_void, bytes, libc::PROT_READ, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *errno = before };
    mapped != libc::MAP_FAILED
}

/// Does what would have been done without us.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(previous) = PREVIOUS.get() else { return };
    match previous.sa_sigaction {
        // Ignoring a fault would repeat it for ever: it kills, as without a handler.
        libc::SIG_DFL | libc::SIG_IGN => {
            let mut default = *previous;
            default.sa_sigaction = libc::SIG_DFL;
            // SAFETY: restores an action that the kernel knows; the access that faulted is repeated, and kills.
            unsafe { sigaction(signal, &raw const default, ptr::null_mut()) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the action was installed with SA_SIGINFO, so it is a function of these three arguments.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the action was installed without SA_SIGINFO, so it is a function of the signal alone.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use memmap2::MmapOptions;

    use super::*;
    use crate::sys::mapping::ReadMapping;

    const FILE_BYTES: u64 = 64 * 4096;

    /// Set for a process that is to meet a fault.
    const FAULTY: &str = "MILLRACE_TEST_OF_SIGBUS";

    /// Runs the test `name` in a process of its own, where `body` runs: a fault is counted for the whole process, and other
    /// tests break their requests off when they see one. `None` in that process.
    fn apart(name: &str, body: impl FnOnce()) -> Option<ExitStatus> {
        if std::env::var_os(FAULTY).is_some() {
            body();
            return None;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("sys::sigbus::tests::{name}")]).env(FAULTY, "1");
        Some(child.output().unwrap().status)
    }

    #[test]
    fn what_was_truncated_under_a_mapping_reads_as_zeros_and_is_counted() {
        let status = apart("what_was_truncated_under_a_mapping_reads_as_zeros_and_is_counted", || {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[7; 64 * 4096], 0).unwrap();
            let mapping = ReadMapping::new(&file, FILE_BYTES).unwrap();
            // SAFETY: nobody writes while the slice lives; the file is truncated, which is the fault to be survived.
            let bytes = unsafe { mapping.slice(0, 64 * 4096) }.unwrap();
            assert!(bytes.iter().all(|&byte| byte == 7));
            file.set_len(10 * 4096).unwrap();
            assert!(bytes[..10 * 4096].iter().all(|&byte| byte == 7));
            assert!(bytes[10 * 4096..].iter().all(|&byte| byte == 0));
            assert_eq!(faults(), 54, "one a page");
        });
        assert!(status.is_none_or(|status| status.success()), "{status:?}");
    }

    #[test]
    fn a_touch_finds_every_page_that_is_gone() {
        let status = apart("a_touch_finds_every_page_that_is_gone", || {
            let file = tempfile::tempfile().unwrap();
            file.set_len(FILE_BYTES).unwrap();
            let mapping = ReadMapping::new(&file, FILE_BYTES).unwrap();
            // SAFETY: nobody writes while the slice lives.
            let bytes = unsafe { mapping.slice(100, 3 * 4096) }.unwrap();
            file.set_len(0).unwrap();
            touch(bytes);
            assert_eq!(faults(), 4, "three pages of bytes in four pages of memory");
        });
        assert!(status.is_none_or(|status| status.success()), "{status:?}");
    }

    #[test]
    fn more_mappings_than_a_chunk_holds_are_all_guarded_and_forgotten_when_they_go() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let maps: Vec<_> = (0..3 * 128).map(|_| MmapOptions::new().map_raw_read_only(&file).unwrap()).collect();
        let guards: Vec<_> = maps.iter().map(|map| Guard::new(map.as_ptr(), map.len()).unwrap()).collect();
        assert!(maps.iter().all(|map| is_guarded(map.as_ptr() as usize + 4095)));
        drop(guards);
        // Other tests guard mappings of their own, at other addresses: these are still mapped.
        assert!(!maps.iter().any(|map| is_guarded(map.as_ptr() as usize)));
    }

    #[test]
    fn a_fault_in_memory_that_is_not_guarded_still_kills() {
        let status = apart("a_fault_in_memory_that_is_not_guarded_still_kills", || {
            install().unwrap();
            let file = tempfile::tempfile().unwrap();
            file.set_len(FILE_BYTES).unwrap();
            let map = MmapOptions::new().map_raw_read_only(&file).unwrap();
            file.set_len(0).unwrap();
            // SAFETY: inside of the mapping; the read faults.
            let byte = unsafe { ptr::read_volatile(map.as_ptr()) };
            panic!("read {byte} from a file that has no byte");
        });
        assert_eq!(status.map(|status| status.signal()), Some(Some(libc::SIGBUS)), "{status:?}");
    }
}
