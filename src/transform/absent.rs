//! In the place of plugins in a build without them: a step that nobody can make.
//!
//! So the chain reads the same with plugins and without, and the compiler knows that nothing of this is ever called.

use std::time::Duration;

use super::{Given, Made, Taking};

/// See the module.
pub enum PluginStep {}

impl PluginStep {
    pub(super) fn taking(&self) -> &Taking {
        match *self {}
    }

    pub(super) fn spent(&mut self) -> Duration {
        match *self {}
    }

    pub(super) fn run(&mut self, _given: Given<'_>, _out: &mut Vec<u8>) -> Made {
        match *self {}
    }
}
