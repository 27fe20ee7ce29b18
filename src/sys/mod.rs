//! The edge to the kernel: clocks, doorbells, mappings, affinity, socket options, systemd.
//!
//! One of the two modules that may use `unsafe`; one mechanism a file. Time enters the program here and nowhere else:
//! everything above takes `now` as an argument.

pub mod affinity;
pub mod bytes;
pub mod clock;
pub mod digest;
pub mod doorbell;
pub mod executable;
pub mod file;
pub mod handshake;
mod lost;
pub mod mapping;
pub mod owner;
#[allow(unsafe_code, reason = "a list that is never freed is followed by its pointers")]
mod ranges;
pub mod sigbus;
pub mod signals;
pub mod socket;
pub mod systemd;
