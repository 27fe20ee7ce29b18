//! The only time that a plugin sees: when its batch was received.
//!
//! The same when the batch is run again. Outside of a batch it is 0, so that nothing about the start of an instance
//! depends on when it starts.

use crate::plugin::bindings::millrace::plugin::clock;
use crate::plugin::host::Host;

impl clock::Host for Host {
    fn batch_time(&mut self) -> wasmtime::Result<u64> {
        Ok(self.received_ns)
    }
}
