//! Which cores this process may use, pinning a thread to one of them, and letting others run before it.
//!
//! The mask is read, never assumed: under a cpuset, in a container or with systemd's `CPUAffinity=` the cores are not
//! 0..N. It is the mask of the calling thread, so read it before that thread is pinned. Failing to pin costs speed only;
//! the caller says so and goes on.

pub use core_affinity::CoreId;

/// The cores that the calling thread may run on, ascending; empty when the kernel does not tell.
#[must_use]
pub fn allowed_cores() -> Vec<CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// How much nicer than others: a thread of theirs that wants the same core gets three quarters of it.
const NICER: libc::c_int = 5;

/// Lets other threads have most of a core that they and the calling one want, for as long as that lives; those that it starts
/// do likewise. It goes on as it was when the kernel refuses.
pub fn give_way() {
    // SAFETY: a call that reads and writes no memory of this process. On Linux it is about the calling thread alone.
    #[expect(unsafe_code, reason = "the standard library sets no priorities")]
    unsafe {
        libc::nice(NICER)
    };
}

/// Pins the calling thread to `core`; `false` when the kernel refuses, and the thread then runs where it ran before.
#[must_use]
pub fn pin(core: CoreId) -> bool {
    core_affinity::set_for_current(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_its_core_and_no_other() {
        let pinned = std::thread::spawn(|| {
            let last = *allowed_cores().last().expect("a thread runs somewhere");
            assert!(pin(last));
            (last, allowed_cores())
        });
        let (core, allowed) = pinned.join().unwrap();
        assert_eq!(allowed, [core]);
    }

    #[test]
    fn a_thread_gives_way_and_its_process_does_not() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 19th field; the second is a name in brackets.
            let after_name = stat.rsplit(')').next().unwrap();
            after_name.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = nice();
        let given_way = std::thread::spawn(move || {
            give_way();
            nice()
        });
        assert_eq!((given_way.join().unwrap(), nice()), ((before + NICER).min(19), before));
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(!pin(CoreId { id: 1_000 }));
    }
}
