//! `millrace demo`: a synthetic fleet, the appliance and a backend in one process.
//!
//! This file stands for the command until the fleet is joined to the appliance; it only says so.

use super::DemoArgs;

/// Runs the demo until its time is over.
pub(super) fn demo(_arguments: &DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
