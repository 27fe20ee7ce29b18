//! `millrace queue`: what is in the log, whether it is sound, and how to get it out; beside a running process or without one.
//!
//! Everything here reads; only `repair` changes files, under the state directory's lock, and it deletes nothing. Tables
//! are for people, `--json` for programs. `verify` ends with 1 when something is damaged.

mod export;
mod inspect;
mod ls;
mod repair;
mod verify;

use clap::Subcommand;

use super::state::StateArgs;

/// What can be asked of the log.
#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Every lane, and how far each destination has got.
    Ls {
        #[command(flatten)]
        state: StateArgs,
        /// Exact figures for programs.
        #[arg(long)]
        json: bool,
    },
    /// The segments of a lane, or what stands in one of them.
    Inspect(inspect::InspectArgs),
    /// Read everything and say what is damaged, to the span.
    Verify {
        #[command(flatten)]
        state: StateArgs,
        /// Exact figures for programs.
        #[arg(long)]
        json: bool,
    },
    /// Do now what the next start would do to damage; nothing is deleted.
    Repair {
        #[command(flatten)]
        state: StateArgs,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Exact names and figures for programs.
        #[arg(long)]
        json: bool,
    },
    /// Write blocks out as OTLP: JSON lines, or protobuf with lengths.
    Export(export::ExportArgs),
}

/// Runs one.
pub(super) fn queue(command: &QueueCommand) -> anyhow::Result<()> {
    match command {
        QueueCommand::Ls { state, json } => ls::ls(&state.open()?, *json),
        QueueCommand::Inspect(arguments) => inspect::inspect(arguments),
        QueueCommand::Verify { state, json } => verify::verify(&state.open()?, *json),
        QueueCommand::Repair { state, dry_run, json } => {
            repair::repair(&state.open()?, repair::Manner { dry_run: *dry_run, json: *json })
        }
        QueueCommand::Export(arguments) => export::export(arguments),
    }
}
