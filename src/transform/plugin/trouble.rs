//! What is said of the blocks that a plugin failed on: a line in the log, the last failure in words, and whether there are
//! many.
//!
//! A line for the first failure of each kind, and for the next one after a minute: a plugin may fail on every block. Whether it
//! fails is a share of its last blocks, so that one that fails below what opens its circuit, or refuses everything, is seen
//! too. Blocks that it was not shown say nothing of it. A block that goes well costs a shift and a store.

use std::time::Duration;

use super::counters::StepCounters;
use super::live::Failure;

/// How long nothing is said of a kind of failure after it was.
const SILENCE: Duration = Duration::from_secs(60);

/// Of the last 16 blocks, so many failed ones make a plugin that fails.
const FAILS: u32 = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Trouble {
    /// By kind of failure.
    said_at: Vec<(&'static str, Duration)>,
    /// The last blocks, the newest lowest: 1 for one that failed.
    blocks: u16,
}

impl Trouble {
    /// A block went well.
    pub(super) fn done(&mut self, counters: &StepCounters) {
        self.block(0, counters);
    }

    /// The plugin of this name failed on a block at `now`.
    pub(super) fn failed(&mut self, plugin: &str, failure: &Failure, now: Duration, counters: &StepCounters) {
        self.block(1, counters);
        let (reason, text) = (failure.word(), failure.to_string());
        let is_silent = |(word, at): &(&str, Duration)| *word == reason && now.saturating_sub(*at) < SILENCE;
        if !self.said_at.iter().any(is_silent) {
            self.said_at.retain(|(word, _)| *word != reason);
            self.said_at.push((reason, now));
            tracing::warn!(plugin, reason, "the plugin failed on a block: {text}");
        }
        counters.set_last_failure(text);
    }

    fn block(&mut self, failed: u16, counters: &StepCounters) {
        self.blocks = self.blocks << 1 | failed;
        counters.fails.set(u64::from(self.blocks.count_ones() >= FAILS));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::plugin::CallError;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_kind_of_failure_is_said_once_a_minute_with_plugin_and_reason() {
        let lines = Lines::default();
        let to = lines.clone();
        let log = tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(move || to.clone()).finish();
        let (mut trouble, counters) = (Trouble::default(), StepCounters::default());
        let refused = |text: &str| Failure::Refused(CallError::Refused(text.to_owned()));
        tracing::subscriber::with_default(log, || {
            for (seconds, failure) in [
                (0, refused("one")),
                (1, refused("two")),
                (2, Failure::Call(CallError::StackOverflow)),
                (59, Failure::Call(CallError::StackOverflow)),
                (60, refused("three")),
            ] {
                trouble.failed("plugin/a", &failure, Duration::from_secs(seconds), &counters);
            }
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let said: Vec<&str> = said.lines().map(|line| line.split_once("block: ").unwrap().1).collect();
        let expected = ["refused: one", "its stack overflowed", "refused: three"];
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected) && said.contains("plugin=\"plugin/a\" reason="), "{said}");
        }
        assert_eq!((said.len(), counters.last_failure().as_deref()), (3, Some("refused: three")));
    }
}
