//! Spans that a full log made us give up because the configuration says so (`drop_newest`), by source.
//!
//! They stand beside the balances, not in them: a lane books them as refused together with those whose sender was told to
//! come again, and only this says which of the refused are lost. Counted since the start of the process.

use metrics::{Label, counter, describe_counter};

use super::rates::Counts;
use super::{Metrics, Sources};

/// The only reason there is.
const REASON: &str = "full";

/// Reads the spans dropped of each source that may lose some.
pub type DropsRead = Box<dyn Fn() -> Vec<(String, u64)> + Send>;

impl Metrics {
    /// Shows what is dropped by policy from now on.
    pub fn show_drops(&self, read: DropsRead) {
        self.sources().drops = Some(read);
    }
}

impl Sources {
    fn drops(&self) -> Vec<(String, u64)> {
        self.drops.as_ref().map(|read| read()).unwrap_or_default()
    }

    /// Spans of a source that were dropped.
    pub(super) fn dropped_of(&self, source: &str) -> u64 {
        self.drops().into_iter().filter(|(name, _)| name == source).map(|(_, spans)| spans).sum()
    }

    pub(super) fn count_drops(&self, counts: &mut Counts) {
        counts.extend(self.drops().into_iter().map(|(name, spans)| (key(&name), spans)));
    }

    /// A sentence for each source that loses spans now.
    pub(super) fn drop_problems(&self, rate: &dyn Fn(String) -> u64) -> Vec<String> {
        let losing = self.drops().into_iter().filter(|(name, _)| rate(key(name)) > 0);
        let said = losing.map(|(name, _)| format!("rows of {name} are being dropped: the queue is full (drop_newest)"));
        said.collect()
    }

    /// Shows them as metrics.
    pub(super) fn show_dropped(&self) {
        for (source, spans) in self.drops() {
            let labels = vec![Label::new("source", source), Label::from_static_parts("reason", REASON)];
            counter!("millrace_source_dropped_spans_total", labels).absolute(spans);
        }
    }
}

/// The name of its rate.
fn key(source: &str) -> String {
    format!("source dropped/{source}")
}

/// The help.
pub(super) fn describe() {
    describe_counter!(
        "millrace_source_dropped_spans_total",
        "Spans lost because the queue was full and the source says drop_newest"
    );
}
