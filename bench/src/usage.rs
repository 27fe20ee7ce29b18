//! What a process or a thread has cost: CPU time, and memory from `/proc`.
//!
//! A process's CPU time covers threads that have ended, but counts in ticks of 10 ms; a thread's own time is exact.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks of `/proc/PID/stat` a second: USER_HZ, part of Linux' interface to programs on every architecture we run on.
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process in bytes. What a peer's mappings hold in the page cache is `file`, which the kernel may take back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// RssAnon.
    pub(crate) anonymous: u64,
    /// RssShmem.
    pub(crate) shared: u64,
    /// RssFile.
    pub(crate) file: u64,
}

impl Memory {
    /// The larger of each part.
    pub(crate) fn peak(self, other: Memory) -> Memory {
        Memory {
            anonymous: self.anonymous.max(other.anonymous),
            shared: self.shared.max(other.shared),
            file: self.file.max(other.file),
        }
    }
}

/// CPU time of a whole process, user and system, ended threads included.
pub(crate) fn process_cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name in parentheses may hold anything, so fields are counted from its end; utime and stime are 14 and 15.
    let after_name = stat.rsplit_once(") ").context("no process name in stat")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: u64 =
        fields.get(11).context("no utime")?.parse::<u64>()? + fields.get(12).context("no stime")?.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Memory of a process now.
pub(crate) fn process_memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Memory { anonymous: kib("RssAnon") * 1024, shared: kib("RssShmem") * 1024, file: kib("RssFile") * 1024 })
}

/// CPU time of the calling thread, to the nanosecond: `schedstat` would be a scheduler tick old.
pub(crate) fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).expect("CPU time is never negative")
}
