//! `millrace completions SHELL`: what the shell needs to complete our command line, on stdout.
//!
//! Made from the same declarations as `--help`, so it cannot fall behind. Where to put it is the shell's business.

use std::io::Write;

use clap::CommandFactory;

/// Prints the completions.
pub(super) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::Arguments::command(), "millrace", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(())
}
