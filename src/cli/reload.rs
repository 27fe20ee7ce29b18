//! `millrace reload`: has the running appliance read its configuration again, and shows what came of it.
//!
//! The appliance reads its own file and environment, not this command's; `--dry-run` only says what would change.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::api::{Api, ApiArgs};
use super::source::Source;

/// The flags of `millrace reload`.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// Check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// The configuration file that says where it listens.
    #[arg(long, short, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

/// Asks for the reload; what is wrong with the configuration is the error.
pub(super) fn reload(arguments: &ReloadArgs) -> anyhow::Result<()> {
    let api = Api::find(&arguments.api, &Source::of_file(arguments.config.clone()))?;
    let answer =
        api.post(if arguments.dry_run { "/api/v1/reload?dry_run=1" } else { "/api/v1/reload" }, &Value::Null)?;
    let lines = |key: &str| answer[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let mut out = std::io::stdout().lock();
    for change in lines("changes") {
        writeln!(out, "{change}")?;
    }
    for warning in lines("warnings") {
        eprintln!("warning: {warning}");
    }
    let (generation, changes) = (&answer["generation"], lines("changes").len());
    let what = if arguments.dry_run { "would change" } else { "changed" };
    writeln!(out, "{changes} {what}; configuration {generation} is in force")?;
    Ok(())
}
