//! The joins: the only place where the stages meet.
//!
//! ```text
//!  ingest   sockets ─► reactor, gateway ─► outlet (rings) ─► writer ─► log ◄─ sync
//!  egress   log ─► window ─► delivery ─► senders ─► backend;   place: cursor, release
//! ```
//!
//! `ingest` and `egress` are the two files to read first. `appliance` makes everything in one order and ends it in another;
//! `run` is the appliance under an operator: signals, systemd, the watchdog.

mod age;
pub mod appliance;
pub mod dead_letters;
pub mod decoders;
pub mod destination;
pub mod destinations;
pub mod disk;
pub mod doors;
pub mod drain;
pub mod egress;
mod ground;
pub mod ingest;
pub mod lanes;
pub mod logs;
pub mod outlet;
pub mod parking;
pub mod payload;
pub mod place;
#[cfg(feature = "plugins")]
pub mod plugins;
#[cfg(not(feature = "plugins"))]
#[path = "plugins/absent.rs"]
pub mod plugins;
pub mod receivers;
pub mod release;
pub mod reload;
pub mod retention;
pub mod run;
mod sabotage;
pub mod senders;
pub mod shown;
pub mod sources;
pub mod sync;
#[cfg(test)]
mod tests;
#[cfg(feature = "plugins")]
pub mod trial;
pub mod turn;
pub mod watch;
pub mod window;
pub mod writer;
