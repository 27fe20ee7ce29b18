//! `millrace queue repair`: does now, and says, what the next start would do to damage.
//!
//! Files that cannot be read and cursors that cannot be believed are moved into quarantine; segments that a crash left
//! open are judged and sealed. Nothing is deleted, and no intact block is touched: what is damaged inside a segment stays
//! where it is, for its neighbours are delivered and its spans are counted as lost by whoever comes there.

use std::io::Write;

use super::verify::{self, Report};
use crate::cli::human;
use crate::cli::source::Unusable;
use crate::cli::state::{State, lock};
use crate::queue::inspect;
use crate::sys::clock;

/// Repairs everything, or says what it would do.
pub(super) fn repair(state: &State, dry_run: bool) -> anyhow::Result<()> {
    let directory = &state.directory;
    let held = if dry_run { None } else { Some(lock(directory)?) };
    let wall_ns = clock::wall_ns();
    let (reports, cursors) = verify::examine(state)?;
    if let Some((_, key)) = reports.iter().find_map(|report| report.locked.as_ref()) {
        let message =
            format!("key {key} of the log is missing: name its file with --key-file, or nothing can be judged");
        return Err(Unusable(message).into());
    }
    let out = &mut std::io::stdout().lock();
    let would = if dry_run { "would be " } else { "" };
    for cursor in cursors.iter().filter(|cursor| cursor.is_damaged) {
        let (name, file) = (&cursor.destination, cursor.directory.join("cursor"));
        if !dry_run {
            inspect::park(&file, &directory.join("log/quarantine"), wall_ns)?;
        }
        writeln!(out, "destination {name}: its cursor {would}parked; it starts again with the oldest block")?;
    }
    for (named, report) in state.logs()?.iter().zip(&reports) {
        let changes = report.state_lost || report.unsealed || !report.parked.is_empty();
        if changes && !dry_run {
            let file = named.place.directory.join("state");
            if report.state_lost && file.exists() {
                inspect::park(&file, &named.place.quarantine, wall_ns)?;
            }
            inspect::repair(&named.place, wall_ns)?;
        }
        say(report, would, out)?;
        if !changes && report.damage.is_empty() {
            writeln!(out, "{}: nothing to do", report.name)?;
        }
    }
    drop(held);
    Ok(())
}

fn say(report: &Report, would: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let name = &report.name;
    for file in &report.parked {
        writeln!(out, "{name}: a file that cannot be read {would}parked as quarantine/{file}")?;
    }
    if report.state_lost {
        writeln!(out, "{name}: its state {would}parked and derived anew from the segments")?;
    }
    if report.unsealed {
        writeln!(out, "{name}: what the last run left open {would}judged and sealed")?;
    }
    for (segment, entry) in &report.damage {
        writeln!(out, "{name}: {}; it stays, what is beside it is delivered", verify::describe(segment, entry))?;
    }
    if report.lost_spans > 0 {
        writeln!(out, "{name}: {} spans are lost and cannot be repaired", human::count(report.lost_spans))?;
    }
    Ok(())
}
