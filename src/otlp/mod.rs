//! To be written.

pub mod keys;
pub mod writer;
