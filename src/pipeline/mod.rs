//! The joins: the only place where the stages meet.

pub mod outlet;
