//! The host's side of what a plugin may import, one file an interface of `wit/host.wit`.
//!
//! Every function here is called by code that nobody trusts: each bounds what it takes, what it keeps and what it gives. A
//! limit that a careful plugin can reach is an answer; asking for what no careful plugin asks for is a trap.

mod clock;
pub(super) mod log;
pub(super) mod lookup;
mod metrics;
pub(super) mod rest;
pub(super) mod state;

use super::bindings::millrace::plugin::types;
use super::host::Host;

impl types::Host for Host {}
