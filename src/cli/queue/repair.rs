//! `millrace queue repair`: does now, and says, what the next start would do to damage.
//!
//! Files that cannot be read and cursors that cannot be believed are moved into quarantine; segments that a crash left
//! open are judged and sealed. Nothing is deleted, and no intact block is touched: what is damaged inside a segment stays
//! where it is, for its neighbours are delivered and its spans are counted as lost by whoever comes there.
//! Looking and doing go by one time, for the names of what is put aside have it in them.

use std::io::Write;

use serde_json::{Value, json};

use super::verify::{self, Report};
use crate::cli::human;
use crate::cli::source::Unusable;
use crate::cli::state::{State, lock};
use crate::queue::inspect;
use crate::sys::clock;

/// How it is done and said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Only say what would be done.
    pub(super) dry_run: bool,
    /// For programs.
    pub(super) json: bool,
}

/// What became, or would become, of everything that is not as it should be.
struct Outcome {
    /// Destinations whose cursor cannot be believed, with the name of its file in quarantine once it is there.
    cursors: Vec<(String, Option<String>)>,
    /// Every log, with the name of its state in quarantine if that was put there.
    logs: Vec<(Report, Option<String>)>,
}

/// Repairs everything, or says what it would do.
pub(super) fn repair(state: &State, manner: Manner) -> anyhow::Result<()> {
    let held = if manner.dry_run { None } else { Some(lock(&state.directory)?) };
    let outcome = mend(state, manner.dry_run, clock::wall_ns())?;
    drop(held);
    let out = &mut std::io::stdout().lock();
    if manner.json {
        writeln!(out, "{:#}", outcome.json(manner.dry_run))?;
        return Ok(());
    }
    Ok(outcome.say(manner.dry_run, out)?)
}

fn mend(state: &State, dry_run: bool, wall_ns: u64) -> anyhow::Result<Outcome> {
    let (reports, cursors) = verify::examine(state, wall_ns)?;
    if let Some((_, key)) = reports.iter().find_map(|report| report.locked.as_ref()) {
        let message =
            format!("key {key} of the log is missing: name its file with --key-file, or nothing can be judged");
        return Err(Unusable(message).into());
    }
    let mut outcome = Outcome { cursors: Vec::new(), logs: Vec::new() };
    for cursor in cursors.into_iter().filter(|cursor| cursor.is_damaged) {
        let (file, quarantine) = (cursor.directory.join("cursor"), state.directory.join("log/quarantine"));
        let parked = if dry_run { None } else { Some(inspect::park(&file, &quarantine, wall_ns)?) };
        outcome.cursors.push((cursor.destination, parked));
    }
    for (named, report) in state.logs()?.iter().zip(reports) {
        let mut parked = None;
        if report.changes() && !dry_run {
            let file = named.place.directory.join("state");
            if report.state_lost && file.exists() {
                parked = Some(inspect::park(&file, &named.place.quarantine, wall_ns)?);
            }
            inspect::repair(&named.place, wall_ns)?;
        }
        outcome.logs.push((report, parked));
    }
    Ok(outcome)
}

impl Report {
    /// Whether a start would change something.
    fn changes(&self) -> bool {
        self.state_lost || self.unsealed || !self.parked.is_empty()
    }
}

impl Outcome {
    fn json(&self, dry_run: bool) -> Value {
        let cursors =
            self.cursors.iter().map(|(name, parked)| json!({ "destination": name, "cursor_parked_as": parked }));
        let logs = self.logs.iter().map(|(report, state)| {
            let damage: Vec<String> =
                report.damage.iter().map(|(segment, entry)| verify::describe(segment, entry)).collect();
            json!({
                "log": report.name,
                "parked": report.parked,
                "state_lost": report.state_lost,
                "state_parked_as": state,
                "sealed": report.unsealed,
                "damage_that_stays": damage,
                "lost_spans": report.lost_spans,
            })
        });
        let (cursors, logs) = (cursors.collect::<Vec<_>>(), logs.collect::<Vec<_>>());
        json!({ "dry_run": dry_run, "damaged_cursors": cursors, "logs": logs })
    }

    fn say(&self, dry_run: bool, out: &mut dyn Write) -> std::io::Result<()> {
        let would = if dry_run { "would be " } else { "" };
        let name_of =
            |parked: &Option<String>| parked.as_ref().map_or(String::new(), |name| format!(" as quarantine/{name}"));
        for (name, parked) in &self.cursors {
            let parked = name_of(parked);
            writeln!(
                out,
                "destination {name}: its cursor {would}parked{parked}; it starts again with the oldest block"
            )?;
        }
        for (report, state) in &self.logs {
            let name = &report.name;
            for file in &report.parked {
                writeln!(out, "{name}: a file that cannot be read {would}parked as quarantine/{file}")?;
            }
            if report.state_lost {
                writeln!(out, "{name}: its state {would}parked{} and derived anew from the segments", name_of(state))?;
            }
            if report.unsealed {
                writeln!(out, "{name}: what the last run left open {would}judged and sealed")?;
            }
            for (segment, entry) in &report.damage {
                writeln!(
                    out,
                    "{name}: {}; it stays, what is beside it is delivered",
                    verify::describe(segment, entry)
                )?;
            }
            if report.lost_spans > 0 {
                writeln!(out, "{name}: lost for good: {}", human::counted(report.lost_spans, "span"))?;
            }
            if !report.changes() && report.damage.is_empty() {
                writeln!(out, "{name}: nothing to do")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::queue::ls::say_unreadable;
    use crate::cli::state::tests::{encrypted, keys, without_keys};
    use crate::queue::inspect::{Lane, Place};

    #[test]
    fn what_is_said_to_be_in_quarantine_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of_lane(directory.path(), 0);
        encrypted(&place, 5);
        let mut state = without_keys(directory.path());
        state.at_rest.keys = keys();
        let destination = directory.path().join("destinations/a");
        fs::create_dir_all(&destination).unwrap();
        fs::write(destination.join("cursor"), [7; 8192]).unwrap();
        fs::write(place.directory.join("seg-00000000000000ff.log"), vec![7; 4 << 20]).unwrap();
        fs::write(place.directory.join("state"), [7; 8192]).unwrap();
        let planned = mend(&state, true, 77).unwrap();
        let mut out = Vec::new();
        say_unreadable(&Lane::open(place.clone(), 77).unwrap(), &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("lane 0: a segment cannot be read"));
        let outcome = mend(&state, false, 77).unwrap();
        let (report, of_state) = &outcome.logs[0];
        assert_eq!(report.parked, planned.logs[0].0.parked);
        assert!(!report.parked.is_empty() && report.state_lost, "{:?}", report.parked);
        let named = [outcome.cursors[0].1.clone().unwrap(), of_state.clone().unwrap()];
        let mut out = Vec::new();
        outcome.say(false, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        for name in report.parked.iter().chain(&named) {
            assert!(said.contains(&format!("quarantine/{name}")), "{said}");
            assert!(place.quarantine.join(name).exists(), "{name} is not there");
        }
        assert_eq!(outcome.json(false)["damaged_cursors"][0]["cursor_parked_as"], named[0].as_str());
        let mut out = Vec::new();
        state.say_quarantined(&mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        let files = report.parked.len() + named.len();
        assert!(said.starts_with(&format!("QUARANTINE: {files} files of 4.0 MiB were put aside in ")), "{said}");
    }
}
