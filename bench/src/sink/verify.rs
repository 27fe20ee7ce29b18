//! Exactly once? The spans that a sink has got against those that it should have got.
//!
//! An expectation is a list of ranges of span numbers (see `spans`), one a line: `run first count`, as the OTLP generator
//! writes it for requests that were answered with success. Spans outside of it are no fault: a request whose answer was
//! lost may have been stored.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::spans::SpanId;

/// Ids of missing or doubled spans that a verdict names.
const EXAMPLES: usize = 5;

/// Spans that must have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation {
    /// Run, first number, count.
    pub(crate) ranges: Vec<(u64, u64, u64)>,
}

impl Expectation {
    /// Reads a file as written by [`Self::write`].
    pub(crate) fn read(path: &Path) -> Result<Expectation> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let mut ranges = Vec::new();
        for line in text.lines() {
            let numbers: Vec<u64> =
                line.split(' ').map(str::parse).collect::<Result<_, _>>().with_context(|| format!("line {line:?}"))?;
            let [run, first, count] = numbers[..] else { anyhow::bail!("line {line:?} has not three numbers") };
            ranges.push((run, first, count));
        }
        Ok(Expectation { ranges })
    }

    /// Writes the ranges, joined where they touch.
    pub(crate) fn write(mut self, path: &Path) -> Result<()> {
        self.ranges.sort_unstable();
        let mut joined: Vec<(u64, u64, u64)> = Vec::new();
        for (run, first, count) in self.ranges {
            match joined.last_mut() {
                Some(last) if last.0 == run && last.1 + last.2 == first => last.2 += count,
                _ => joined.push((run, first, count)),
            }
        }
        let text: String = joined.iter().map(|(run, first, count)| format!("{run} {first} {count}\n")).collect();
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// What became of the spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Different spans that came.
    pub(crate) unique: u64,
    /// Arrivals beyond the first of a span.
    pub(crate) doubled: u64,
    /// Expected and not come.
    pub(crate) missing: u64,
    missing_examples: Vec<SpanId>,
    doubled_examples: Vec<SpanId>,
}

impl Verdict {
    /// For a report.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let hex =
            |ids: &[SpanId]| ids.iter().map(|id| format!("{:032x}/{:016x}", id.trace, id.span)).collect::<Vec<_>>();
        json!({
            "unique": self.unique, "doubled": self.doubled, "missing": self.missing,
            "missing_examples": hex(&self.missing_examples), "doubled_examples": hex(&self.doubled_examples),
        })
    }
}

/// Compares what came, in any order, with what was expected.
pub(crate) fn verify(mut came: Vec<SpanId>, expectation: &Expectation) -> Verdict {
    came.sort_unstable();
    let mut verdict = Verdict::default();
    for pair in came.windows(2) {
        if pair[0] == pair[1] {
            verdict.doubled += 1;
            if verdict.doubled_examples.len() < EXAMPLES && verdict.doubled_examples.last() != Some(&pair[0]) {
                verdict.doubled_examples.push(pair[0]);
            }
        }
    }
    verdict.unique = came.len() as u64 - verdict.doubled;
    for (run, first, count) in &expectation.ranges {
        for id in (*first..first + count).map(|n| SpanId::new(*run, n)) {
            if came.binary_search(&id).is_err() {
                verdict.missing += 1;
                if verdict.missing_examples.len() < EXAMPLES {
                    verdict.missing_examples.push(id);
                }
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_doubled_spans_are_named_and_strangers_are_no_fault() {
        let id = |n| SpanId::new(1, n);
        let came = vec![id(3), id(0), id(1), id(3), id(99), id(3)];
        let verdict = verify(came, &Expectation { ranges: vec![(1, 0, 4)] });
        assert_eq!((verdict.unique, verdict.doubled, verdict.missing), (4, 2, 1));
        assert_eq!(verdict.missing_examples, [id(2)]);
        assert_eq!(verdict.doubled_examples, [id(3)]);
    }
}
