//! The gateway over loopback sockets, by subject.

mod answers;
mod bounds;
mod changes;
mod harness;
mod rows;
