//! Transforms: what a block goes through between its lane's ring and its lane's log.
//!
//! A [`Chain`] is the steps in the order of the configuration; it belongs to one thread of one lane. It is told the time and
//! never waits: a block goes in, and out comes that nothing changed, or the pieces that are left, or that it has to be kept
//! aside and why. All of a block's way through the chain is one transaction: the block itself stays as it came until the last
//! step has agreed.

#[cfg(not(feature = "plugins"))]
mod absent;
mod chain;
#[cfg(feature = "plugins")]
pub mod plugin;
#[cfg(test)]
pub mod scripted;

#[cfg(not(feature = "plugins"))]
pub use absent::PluginStep;
pub use chain::{Cause, Chain, Given, Made, Outcome, Piece, Step, Taking};
#[cfg(feature = "plugins")]
pub use plugin::PluginStep;
