//! The command line: what can be asked of `millrace`, one file a command.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 it failed, 2 the command line or the
//! configuration is wrong. Commands read the outside world (files, variables, clock) so that nothing below has to.

mod api;
mod check;
mod completions;
mod demo;
mod dlq;
mod explain;
mod human;
#[cfg(feature = "plugins")]
mod plugin;
mod queue;
mod reload;
mod run;
mod source;
mod state;
mod status;
mod tap;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use source::Source;

/// What `--version` prints: who reports a fault of a plugin has to know the sandbox too.
#[cfg(feature = "plugins")]
const VERSION: &str = crate::plugin::VERSION;
#[cfg(not(feature = "plugins"))]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (without plugins)");

/// What stands at the end of `--help`.
const AFTER_HELP: &str = "\
Every setting of the ProxyTrace service works as an environment variable, without a file:
LISTEN_HOST, LISTEN_PORT, METRICS_PORT, OTEL_EXPORTER_OTLP_ENDPOINT, WORKER_COUNT, BATCH_SIZE,
BATCH_TIMEOUT, QUEUE_MAXSIZE, DEBUG_MODE, INFLUX_URL, INFLUX_TOKEN, INFLUX_ORG, INFLUX_BUCKET.
Precedence: flag > environment > file > default; `millrace config explain` shows who said what.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.";

/// The command line of `millrace`.
#[derive(Debug, Parser)]
#[command(name = "millrace", version = VERSION, about = "An ingest appliance for traces: uberAgent and OpenTelemetry in, durable \
    log, every backend out.", after_help = AFTER_HELP, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the appliance until SIGTERM or Ctrl-C.
    Run(Source),
    /// Check the configuration and print what would run.
    Check(Source),
    /// Watch a synthetic fleet log on: appliance and backend in this process, nothing to install.
    Demo(DemoArgs),
    /// How a running appliance does: what is wrong, lags, rates, balances.
    Status(status::StatusArgs),
    /// Have the running appliance read its configuration again.
    Reload(reload::ReloadArgs),
    /// What passes the lanes of a running appliance, as OTLP in JSON.
    Tap(tap::TapArgs),
    /// Look into the log, check it, repair it, get blocks out of it.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Dead letters: look at them, send them again, throw them away.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Plugins: make one, build it, test it, measure it, put it into place.
    #[cfg(feature = "plugins")]
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Questions about the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print settings with their values and where each came from.
    Explain {
        /// A key such as queue.max_bytes, a part of one, or an environment variable; all settings without it.
        key: Option<String>,
        #[command(flatten)]
        source: Source,
    },
}

/// The flags of `millrace demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Hosts of the fleet.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub hosts: usize,
    /// Seconds until the demo ends by itself.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub seconds: u64,
    /// Take any free ports instead of 5000, 4318, 9200 and 8000.
    #[arg(long)]
    pub any_ports: bool,
}

/// Runs a command; what went wrong is on stderr when this returns.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let outcome = match arguments.command {
        Command::Run(source) => run::run(&source),
        Command::Check(source) => check::check(&source),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Reload(arguments) => reload::reload(&arguments),
        Command::Tap(arguments) => tap::tap(&arguments),
        Command::Queue(command) => queue::queue(&command),
        Command::Dlq(command) => dlq::dlq(&command),
        #[cfg(feature = "plugins")]
        Command::Plugin(command) => plugin::plugin(&command),
        Command::Config(ConfigCommand::Explain { key, source }) => explain::explain(key.as_deref(), &source),
        Command::Completions { shell } => completions::completions(shell),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace: {error:#}");
            ExitCode::from(if error.is::<source::Unusable>() { 2 } else { 1 })
        }
    }
}

/// A reader such as `head` that has seen enough is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_flag_of_the_table_exists_and_no_other() {
        let command = Arguments::command();
        let run = command.find_subcommand("run").unwrap();
        let given: Vec<&str> = run.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let table: Vec<&str> = crate::config::SETTINGS.iter().filter_map(|setting| setting.flag).collect();
        for flag in &table {
            assert!(given.contains(flag), "--{flag} is in the table and not on the command line");
        }
        for flag in given.iter().filter(|flag| !["config", "proxytrace", "help", "version"].contains(flag)) {
            assert!(table.contains(flag), "--{flag} is on the command line and not in the table");
        }
    }
}
