//! To be written.

pub mod keys;
pub mod writer;
pub mod fields;
pub mod json;
