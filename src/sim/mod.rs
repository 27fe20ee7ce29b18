//! The simulated world: a disk that can be cut off at any call, and shows what a crash would have left; backends whose
//! weather changes; and campaigns of seeds through it.
//!
//! Nobody imports it but tests.

pub mod backend;
pub mod campaign;
pub mod disk;
