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
const NICER: i32 = 5;

/// Nanoseconds that it keeps a core while others wait for theirs, the least that Linux knows; from 6.12 on, others keep to
/// the slice of all threads.
const SLICE_NS: u64 = 100_000;

/// Lets other threads have most of a core that they and the calling one want, and have it soon, for as long as that lives;
/// those that it starts do likewise. It goes on as it was when the kernel refuses.
pub fn give_way() {
    if let Some(mut attr) = scheduling() {
        attr.sched_nice = (attr.sched_nice + NICER).min(19);
        attr.sched_runtime = SLICE_NS;
        // SAFETY: the kernel reads as many bytes as the structure says it has; 0 is the calling thread.
        #[expect(unsafe_code, reason = "the standard library sets no priorities")]
        unsafe {
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0)
        };
    }
}

/// How the calling thread is scheduled, where the kernel tells.
fn scheduling() -> Option<libc::sched_attr> {
    let mut attr = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).ok()?,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes no more bytes than it is told that the structure has; 0 is the calling thread.
    #[expect(unsafe_code, reason = "the standard library tells no priorities")]
    let told = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, attr.size, 0) };
    (told == 0).then_some(attr)
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
        let now = || {
            let attr = scheduling().unwrap();
            (attr.sched_policy, attr.sched_nice, attr.sched_runtime)
        };
        let before = now();
        let given_way = std::thread::spawn(move || {
            give_way();
            now()
        });
        let (policy, nice, slice) = given_way.join().unwrap();
        assert_eq!((policy, nice, now()), (before.0, (before.1 + NICER).min(19), before));
        // Older kernels tell no slice.
        assert!(slice == SLICE_NS || before.2 == 0, "{slice}");
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(!pin(CoreId { id: 1_000 }));
    }
}
