//! What of the disk is shown: each lane's log, and how far the budget over all of them is used up.
//!
//! The watermarks say early what a full log would say late: at 70 % an operator should know, at 85 and 95 % somebody has
//! to act, and at 100 % senders are slowed or told to come again. A segment that waits for reuse counts as free. The room is
//! the budget, or what the file system has left beside its reserve when that is less. Without room for one more segment it is
//! all used up, whatever the percentage of bytes would be: a log can be empty and full.

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};

use super::float;

/// What a lane's log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// Segments that hold entries.
    pub segments: u64,
    /// Segments that wait for reuse.
    pub pool_segments: u64,
    /// Bytes of entries.
    pub entry_bytes: u64,
    /// Bytes of segment files, pool left out.
    pub file_bytes: u64,
    /// Syncs that failed.
    pub sync_failures: u64,
    /// Blocks that could not be saved from a file whose sync failed.
    pub unsaved_blocks: u64,
}

/// A lane's log with its label.
pub struct LogSource {
    /// The lane's number.
    pub lane: u32,
    /// Reads it.
    pub read: Box<dyn Fn() -> LogFigures + Send>,
}

/// The disk budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFigures {
    /// Bytes of segment files over all lanes, pools included.
    pub used_bytes: u64,
    /// Bytes of segments that wait for reuse.
    pub pool_bytes: u64,
    /// Bytes that segments may use.
    pub max_bytes: u64,
    /// Bytes that are free on the file system.
    pub free_bytes: u64,
    /// Bytes of them that stay free.
    pub reserve_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Logs that have no segment ready for use.
    pub logs_without_spare: u64,
    /// No lane takes anything.
    pub is_full: bool,
    /// Files that were put aside because they could not be believed or read.
    pub quarantined_files: u64,
    /// Their bytes, which the budget does not count.
    pub quarantined_bytes: u64,
}

/// Reads the disk budget.
pub type DiskRead = Box<dyn Fn() -> DiskFigures + Send>;

/// How urgent it is, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watermark {
    /// Below 70 %.
    #[default]
    Low,
    /// From 70 %.
    Warn,
    /// From 85 %.
    High,
    /// From 95 %.
    Critical,
}

impl Watermark {
    /// The percentage from which on it holds.
    #[must_use]
    pub fn percent(self) -> u64 {
        match self {
            Watermark::Low => 0,
            Watermark::Warn => 70,
            Watermark::High => 85,
            Watermark::Critical => 95,
        }
    }
}

impl DiskFigures {
    /// Bytes that the log can come to hold.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let spare = self.free_bytes.saturating_sub(self.reserve_bytes);
        self.max_bytes.min(self.used_bytes.saturating_add(spare))
    }

    /// Whether a log that needs another segment cannot have it because of the file system's reserve.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.logs_without_spare > 0 && self.free_bytes < self.reserve_bytes.saturating_add(self.segment_bytes)
    }

    /// How much of the room is used up.
    #[must_use]
    pub fn percent(&self) -> u64 {
        if self.is_starved() {
            return 100;
        }
        self.used_bytes.saturating_sub(self.pool_bytes).saturating_mul(100) / self.room_bytes().max(1)
    }

    /// What is wrong, in words, when there is no room for another segment.
    #[must_use]
    pub fn starved(&self) -> Option<String> {
        let (reserve, free) = (self.reserve_bytes >> 20, self.free_bytes >> 20);
        self.is_starved()
            .then(|| format!("queue.reserve_bytes is {reserve} MiB, free are {free} MiB: no segment can be made"))
    }

    /// The highest watermark that is reached.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        let all = [Watermark::Critical, Watermark::High, Watermark::Warn];
        all.into_iter().find(|mark| self.percent() >= mark.percent()).unwrap_or_default()
    }
}

/// Shows them as metrics.
pub(super) fn show(logs: &[LogSource], disk: Option<&DiskRead>) {
    for LogSource { lane, read } in logs {
        let labels = vec![Label::new("lane", lane.to_string())];
        let figures = read();
        gauge!("millrace_log_segments", labels.clone()).set(float(figures.segments));
        gauge!("millrace_log_pool_segments", labels.clone()).set(float(figures.pool_segments));
        gauge!("millrace_log_entry_bytes", labels.clone()).set(float(figures.entry_bytes));
        gauge!("millrace_log_file_bytes", labels.clone()).set(float(figures.file_bytes));
        counter!("millrace_log_sync_failures_total", labels.clone()).absolute(figures.sync_failures);
        counter!("millrace_log_unsaved_blocks_total", labels).absolute(figures.unsaved_blocks);
    }
    let Some(disk) = disk else { return };
    let figures = disk();
    gauge!("millrace_disk_used_bytes").set(float(figures.used_bytes));
    gauge!("millrace_disk_pool_bytes").set(float(figures.pool_bytes));
    gauge!("millrace_disk_max_bytes").set(float(figures.max_bytes));
    gauge!("millrace_disk_free_bytes").set(float(figures.free_bytes));
    gauge!("millrace_disk_quarantined_files").set(float(figures.quarantined_files));
    gauge!("millrace_disk_quarantined_bytes").set(float(figures.quarantined_bytes));
    gauge!("millrace_disk_watermark_percent").set(float(figures.watermark().percent()));
}

/// The help of each.
pub(super) fn describe() {
    describe_gauge!("millrace_log_segments", "Segments that hold entries");
    describe_gauge!("millrace_log_pool_segments", "Segments that wait for reuse");
    describe_gauge!("millrace_log_entry_bytes", Unit::Bytes, "Bytes of entries in the log");
    describe_gauge!("millrace_log_file_bytes", Unit::Bytes, "Bytes of segment files that hold entries");
    describe_counter!("millrace_log_sync_failures_total", "Syncs of the log that failed");
    describe_counter!("millrace_log_unsaved_blocks_total", "Blocks lost with a file whose sync failed");
    describe_gauge!("millrace_disk_used_bytes", Unit::Bytes, "Bytes of segment files, those that wait for reuse too");
    describe_gauge!("millrace_disk_pool_bytes", Unit::Bytes, "Bytes of segment files that wait for reuse");
    describe_gauge!("millrace_disk_max_bytes", Unit::Bytes, "Bytes that segment files may use");
    describe_gauge!("millrace_disk_free_bytes", Unit::Bytes, "Bytes that are free on the log's file system");
    describe_gauge!("millrace_disk_quarantined_files", "Files put aside that could not be believed or read");
    describe_gauge!("millrace_disk_quarantined_bytes", Unit::Bytes, "Bytes of files put aside, outside the budget");
    describe_gauge!(
        "millrace_disk_watermark_percent",
        "The highest of 70, 85 and 95 % of its room that the log has reached; else 0"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_go_by_what_is_in_use_and_by_what_there_is_room_for() {
        let figures = |used_bytes, pool_bytes, free_bytes| DiskFigures {
            used_bytes,
            pool_bytes,
            max_bytes: 1000,
            free_bytes,
            reserve_bytes: 100,
            ..DiskFigures::default()
        };
        for (used, pool, free, percent, mark) in [
            (0, 0, 10_000, 0, Watermark::Low),
            (699, 0, 10_000, 69, Watermark::Low),
            (700, 0, 10_000, 70, Watermark::Warn),
            (900, 200, 10_000, 70, Watermark::Warn),
            (850, 0, 10_000, 85, Watermark::High),
            (950, 0, 10_000, 95, Watermark::Critical),
            // The file system has less room than the budget says.
            (300, 0, 200, 75, Watermark::Warn),
            (300, 0, 50, 100, Watermark::Critical),
        ] {
            let figures = figures(used, pool, free);
            assert_eq!((figures.percent(), figures.watermark()), (percent, mark), "{figures:?}");
        }
    }

    #[test]
    fn no_room_for_a_segment_is_critical_however_little_is_used() {
        let mib = |n: u64| n << 20;
        let figures = |free_bytes, logs_without_spare| DiskFigures {
            max_bytes: mib(1000),
            free_bytes,
            reserve_bytes: mib(200),
            segment_bytes: mib(64),
            logs_without_spare,
            ..DiskFigures::default()
        };
        for (free, without, starved) in
            [(mib(264), 1, false), (mib(263), 1, true), (mib(30), 2, true), (mib(30), 0, false), (u64::MAX, 2, false)]
        {
            let figures = figures(free, without);
            let expected = if starved { (100, Watermark::Critical) } else { (0, Watermark::Low) };
            assert_eq!((figures.percent(), figures.watermark()), expected, "{figures:?}");
            assert_eq!(figures.starved().is_some(), starved);
        }
        let said = "queue.reserve_bytes is 200 MiB, free are 30 MiB: no segment can be made";
        assert_eq!(figures(mib(30), 1).starved().as_deref(), Some(said));
    }
}
