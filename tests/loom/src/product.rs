//! The product's own files under the models.
//!
//! They are taken by path, so that what is checked is what runs; `--cfg loom` gives them loom's atomics. They import
//! nothing from their crate, and nothing else of it is compiled here.

#[path = "../../../src/pipeline/drain.rs"]
mod drain;
#[path = "../../../src/queue/extent.rs"]
mod extent;
#[path = "../../../src/sys/handshake.rs"]
mod handshake;
#[path = "../../../src/sys/lost.rs"]
mod lost;
#[path = "models.rs"]
pub(crate) mod models;
#[path = "models_of_a_log.rs"]
mod models_of_a_log;
#[path = "../../../src/queue/progress.rs"]
mod progress;
#[path = "../../../src/queue/quota.rs"]
mod quota;
#[path = "../../../src/sys/ranges.rs"]
mod ranges;
