//! What Millrace says of itself: the ledger of records and spans, counters, log lines, health.
//!
//! Counters are plain atomics owned by the thread that counts; nothing here formats or locks on the hot path. The text of
//! `/metrics` is made when somebody asks.

pub mod health;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod moment;
pub mod tap;
