//! `millrace plugin`: everything that whoever writes or runs a plugin needs, beside a running appliance or without one.
//!
//! What a plugin does here it does in the sandbox of the appliance, under the same limits, on the same columns and with the
//! same check of its answers. Exit codes: 0 it is good, 1 it is not and the text names why, 2 the command line is wrong.

mod bench;
mod build;
mod check;
mod diff;
mod golden;
#[cfg(test)]
mod guide;
mod inspect;
mod install;
mod new;
mod otlp;
mod product;
mod run;
mod sample;
mod trial;

use std::thread;

use clap::Subcommand;

use crate::config::LogOutput;
use crate::telemetry::log;

/// Bytes of stack of the thread on which plugins are called: interpreters need more than a main thread may have.
const STACK_BYTES: usize = 16 << 20;

/// What can be done with plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Make a plugin's directory from a template: it builds, and has a test.
    New(new::NewArgs),
    /// Make a component of a plugin's sources, or of a module of WebAssembly.
    Build(build::BuildArgs),
    /// Run a plugin's tests: what goes in, and what has to come out.
    Test(golden::TestArgs),
    /// What a component is: world, version, imports, size, hash, and what it reads and writes.
    Inspect(inspect::InspectArgs),
    /// Whether a component would run: names, limits, configuration, and batches of every kind.
    Check(check::CheckArgs),
    /// Put requests through a plugin, from a file or a pipe: OTLP as JSON comes out.
    Run(run::RunArgs),
    /// What a plugin costs a span, beside one that does nothing.
    Bench(bench::BenchArgs),
    /// Put a component into place, and print its configuration.
    Install(install::InstallArgs),
}

/// Runs one.
pub(super) fn plugin(command: &PluginCommand) -> anyhow::Result<()> {
    // What the plugin logs is meant for its author; on data of the author's choice, every word of it.
    match command {
        PluginCommand::Run(_) => log::init(LogOutput { json: false, debug: true }),
        PluginCommand::Test(_) | PluginCommand::Check(_) => log::init(LogOutput { json: false, debug: false }),
        _ => {}
    }
    let run = || match command {
        PluginCommand::New(arguments) => new::new(arguments),
        PluginCommand::Build(arguments) => build::build(arguments),
        PluginCommand::Test(arguments) => golden::test(arguments),
        PluginCommand::Run(arguments) => run::run(arguments),
        PluginCommand::Bench(arguments) => bench::bench(arguments),
        PluginCommand::Install(arguments) => install::install(arguments),
        PluginCommand::Inspect(arguments) => inspect::inspect(arguments),
        PluginCommand::Check(arguments) => check::check(arguments),
    };
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name("plugin".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests;
