//! The suites of the log: a model over all three storages, crash states, planted bugs, bit rot, shared sums, and small cases.

mod cases;
mod crash;
mod cut;
mod forged;
mod golden;
mod keys;
mod model;
pub(crate) mod packed;
mod room;
mod rot;
mod scale;
mod shared;
mod unreadable;

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::block::{Made, Meta, Signal, SourceId};
use crate::config::BlockCompression;

/// The directories and sizes of a small lane under `root`.
fn small_options(root: &str, budget: &Arc<Budget>) -> Options {
    let root = PathBuf::from(root);
    Options {
        directory: root.join("log/lane-00"),
        quarantine: root.join("log/quarantine"),
        lane: 0,
        segment_bytes: 16 * 1024,
        max_payload_bytes: 2048,
        pool_segments: 2,
        opened_at_start: 1024,
        budget: Arc::clone(budget),
        wall_ns: 1,
        at_rest: AtRest::default(),
    }
}

/// How blocks lie on the disk with some of two keys, the first of them writing.
fn at_rest(compression: BlockCompression, keys: &[u8]) -> AtRest {
    let lines: Vec<String> = keys.iter().map(|key| format!("{key:02x}").repeat(32)).collect();
    let keys = if lines.is_empty() { Keys::default() } else { Keys::parse(&lines.join("\n")).unwrap() };
    AtRest { compression, keys, ..AtRest::default() }
}

fn meta(spans: u32) -> Meta {
    let mut meta = Meta::empty(Signal::Traces, Made::Encoded, SourceId(1), 7);
    meta.records = spans.saturating_sub(1);
    meta.spans = spans;
    meta
}
