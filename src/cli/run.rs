//! `millrace run`: load, say what is odd, and hand over to the pipeline until it has drained.
//!
//! A panic in any thread is a broken invariant: it is logged and ends the process at once, by SIGABRT, so that systemd
//! restarts it. Unwinding would leave an appliance that lives by half: a lane that accepts and never answers. The log is
//! recovered as after any crash.

use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;

use crate::config::Loaded;
use crate::telemetry::log;

use super::source::Source;

/// Runs the appliance until it is told to stop.
pub(super) fn run(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    log::init(loaded.config.log);
    panic::set_hook(Box::new(end_loudly));
    for warning in loaded.warnings.iter().chain(&loaded.unresolved) {
        tracing::warn!("{warning}");
    }
    super::check::fit(&loaded.config)?;
    appliance(source, loaded)
}

/// The one place where the command line meets the pipeline.
fn appliance(source: &Source, loaded: Loaded) -> anyhow::Result<()> {
    let load = || {
        let loaded = source.load().map_err(|error| format!("{error:#}"))?;
        super::check::fit(&loaded.config).map_err(|over| over.to_string())?;
        Ok(loaded)
    };
    Ok(crate::pipeline::run::run(loaded, &load)?)
}

/// Says which thread panicked, where and why, and ends the process. It runs in the thread, before anything unwinds.
fn end_loudly(panic: &PanicHookInfo<'_>) {
    let current = thread::current();
    let name = current.name().unwrap_or("unnamed");
    let why = panic.payload_as_str().unwrap_or("a panic without words");
    let at = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
    tracing::error!(thread = name, %at, "a broken invariant ends the process: {why}");
    if !tracing::enabled!(tracing::Level::ERROR) {
        // Not even a filter that lets nothing through makes this silent.
        eprintln!("thread {name} at {at}: a broken invariant ends the process: {why}");
    }
    process::abort();
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set for the process that is to die.
    const DOOMED: &str = "MILLRACE_TEST_OF_PANICS";

    #[test]
    fn a_panic_in_any_thread_ends_the_process_and_says_why() {
        if std::env::var_os(DOOMED).is_some() {
            log::init(crate::config::LogOutput { json: false, debug: false });
            panic::set_hook(Box::new(end_loudly));
            let lane = thread::Builder::new().name("writer-7".to_owned());
            drop(lane.spawn(|| panic!("ticket {} was answered twice", 3)).unwrap().join());
            return;
        }
        for filter in ["info", "off"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let name = "cli::run::tests::a_panic_in_any_thread_ends_the_process_and_says_why";
            child.args(["--exact", name, "--nocapture"]).env(DOOMED, "1").env("RUST_LOG", filter);
            let output = child.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.signal(), Some(6), "SIGABRT; it said {said}");
            for part in ["writer-7", "src/cli/run.rs", "ticket 3 was answered twice"] {
                assert!(said.contains(part), "{part} is not in {said}");
            }
        }
    }
}
