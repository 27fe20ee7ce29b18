//! Millrace: an ingest appliance for traces.
//!
//! One binary takes what endpoints and services send, turns it into OpenTelemetry spans, keeps them safe in a
//! memory-mapped log and delivers them to every backend. The modules below are in the order in which a record
//! travels; each stage is a stranger to the others, and only [`pipeline`] joins them.
//!
//! ```text
//!  uberAgent TCP ── reactor ─┐  lane (one per core, pinned)
//!                            ├─ decode ─ block ─► ring ─► writer ─► log (segments)
//!  OTLP, _bulk ──── gateway ─┘  to OTLP                 │               │ cursors
//!                       ▲                               └─ ack after sync ◄─ sync
//!                       └───────────── verdicts ◄───────┘               ▼
//!                                        destinations: gather ─ breaker ─ retry ─ send ─ commit
//! ```

// The ground: imports nothing above it.
pub mod block;
pub mod config;
pub mod otlp;
pub mod sys;
pub mod telemetry;

// The record model of uberAgent, and the doors through which bytes come in.
pub mod receive;
pub mod uberagent;

// The sandbox in which the user's transforms run.
#[cfg(feature = "plugins")]
pub mod plugin;

// What changes blocks on their way to the log.
pub mod transform;

// The log, and what carries blocks out of it.
pub mod deliver;
pub mod export;
pub mod queue;

// The joins.
pub mod pipeline;

// What people see.
pub mod cli;
pub mod fleet;
pub mod serve;

// The simulated world: nobody imports it but tests.
pub mod sim;
