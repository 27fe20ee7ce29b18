//! Log lines of plugins, among ours, with the plugin's name.
//!
//! So many a second (`log_lines_per_second`), and those of ten seconds at once, for each plugin and lane: a plugin that
//! logs for each row would fill the journal. What is over the rate is counted, and the next line that goes through says how
//! many there were. Time is that of the batches, so that the same batches log the same. Lines are cut, and control
//! characters shown as escapes: no line can pretend to be another, or reach a terminal.

use crate::plugin::bindings::millrace::plugin::log;
use crate::plugin::error::clean;
use crate::plugin::host::Host;

/// Seconds whose lines may be written at once.
const BURST_SECONDS: u64 = 10;

const SECOND_NS: u64 = 1_000_000_000;

/// Bytes of a line at most.
const LINE_BYTES: usize = 4096;

/// The severity of an error; what is above it is one too.
const ERROR: u8 = 4;

/// Bytes of such a line in the message of a trap, where the way to the trap has to fit too.
const SAID_BYTES: usize = 512;

/// How many lines may still be written, and how many could not.
#[derive(Debug, Default)]
pub(in crate::plugin) struct Lines {
    /// Lines that were written and not yet given back.
    written: u64,
    /// Batch time up to which lines were given back.
    counted_ns: u64,
    suppressed: u64,
}

impl Lines {
    /// Whether a line may be written at this batch time; then, how many could not since the last.
    fn admit(&mut self, per_second: u64, now_ns: u64) -> Option<u64> {
        let interval_ns = (SECOND_NS / per_second).max(1);
        let earned = now_ns.saturating_sub(self.counted_ns) / interval_ns;
        self.written = self.written.saturating_sub(earned);
        self.counted_ns += earned * interval_ns;
        if self.written >= per_second.saturating_mul(BURST_SECONDS) {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl log::Host for Host {
    fn log(&mut self, severity: u8, message: String) -> wasmtime::Result<()> {
        if severity >= ERROR {
            // What panicked and why are lines of one message.
            self.last_error = Some(clean(&message.replace('\n', " "), SAID_BYTES));
        }
        if !is_enabled(severity) {
            return Ok(());
        }
        let per_second = self.environment.limits.log_lines_per_second as u64;
        let Some(suppressed) = self.kept.lines.admit(per_second, self.received_ns) else {
            self.kept.counters.lines_suppressed.add(1);
            return Ok(());
        };
        let (plugin, message) = (self.environment.name.as_str(), clean(&message, LINE_BYTES));
        if suppressed > 0 {
            tracing::warn!(plugin, suppressed, "log lines of the plugin were over its rate");
        }
        match severity {
            0 => tracing::trace!(plugin, "{message}"),
            1 => tracing::debug!(plugin, "{message}"),
            2 => tracing::info!(plugin, "{message}"),
            3 => tracing::warn!(plugin, "{message}"),
            _ => tracing::error!(plugin, "{message}"),
        }
        Ok(())
    }

    fn enabled(&mut self, severity: u8) -> wasmtime::Result<bool> {
        Ok(is_enabled(severity))
    }
}

fn is_enabled(severity: u8) -> bool {
    match severity {
        0 => tracing::enabled!(tracing::Level::TRACE),
        1 => tracing::enabled!(tracing::Level::DEBUG),
        2 => tracing::enabled!(tracing::Level::INFO),
        3 => tracing::enabled!(tracing::Level::WARN),
        _ => tracing::enabled!(tracing::Level::ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_NS: u64 = 1_747_033_200_000_000_000;

    #[test]
    fn a_flood_gets_its_burst_and_then_ten_a_second() {
        let mut lines = Lines::default();
        let written = |lines: &mut Lines, now_ns| (0..1000).filter_map(|_| lines.admit(10, now_ns)).count();
        assert_eq!(written(&mut lines, START_NS), 100);
        assert_eq!(written(&mut lines, START_NS + 99_999_999), 0);
        assert_eq!(written(&mut lines, START_NS + 1_000_000_000), 10);
        assert_eq!(written(&mut lines, START_NS + 3_600_000_000_000), 100);
    }

    #[test]
    fn what_was_suppressed_is_told_once_by_the_next_line() {
        let mut lines = Lines::default();
        let told: Vec<u64> = (0..130).filter_map(|_| lines.admit(10, START_NS)).collect();
        assert!(told.iter().all(|suppressed| *suppressed == 0));
        assert_eq!([1, 2].map(|second| lines.admit(10, START_NS + second * 1_000_000_000)), [Some(30), Some(0)]);
    }

    #[test]
    fn a_clock_that_steps_back_gives_no_lines_and_takes_none() {
        let mut lines = Lines::default();
        assert!((0..100).all(|_| lines.admit(10, START_NS).is_some()));
        assert_eq!(lines.admit(10, START_NS - 3_600_000_000_000), None);
        assert_eq!(lines.admit(10, START_NS + SECOND_NS / 10), Some(1));
    }
}
