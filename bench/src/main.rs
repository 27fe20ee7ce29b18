//! `millrace-bench`: load, sink, limits of the machine, the log alone, plugins, comparison with peers, report.
//!
//! Every generator and sink is bounded in count and time and talks to loopback only. Results go to standard output as
//! JSON or as a table, everything else to standard error.

mod command;
mod compare;
mod figures;
mod http;
mod limits;
mod load;
mod plugins;
mod queue;
mod report;
mod sink;
mod spans;
mod usage;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    command::run(command::Arguments::parse())
}
