//! Which cores this process may use, and pinning a thread to one of them.
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
    fn a_core_that_does_not_exist_is_refused() {
        assert!(!pin(CoreId { id: 1_000 }));
    }
}
