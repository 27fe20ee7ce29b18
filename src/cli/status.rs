//! `millrace status`: how a running appliance does, on one screen; first what is wrong, in words.
//!
//! Everything shown comes from `GET /api/v1/status`, which `--json` prints as it is. `--watch` shows it anew every second.

use std::io::{IsTerminal, Write};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::api::{Api, ApiArgs};
use super::human::{self, Table};
use super::source::Source;
use crate::sys::clock;

/// Time between pictures.
const INTERVAL: Duration = Duration::from_secs(1);

/// The flags of `millrace status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The document as it is, for programs.
    #[arg(long)]
    json: bool,
    /// Show it anew every second, until interrupted.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// The configuration file that says where it listens.
    #[arg(long, short, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

/// Shows the status, once or again and again.
pub(super) fn status(arguments: &StatusArgs) -> anyhow::Result<()> {
    let api = Api::find(&arguments.api, &Source::of_file(arguments.config.clone()))?;
    loop {
        let status = match api.get("/api/v1/status") {
            Ok(status) => status,
            // It may be restarted while somebody watches.
            Err(error) if arguments.watch => {
                eprintln!("millrace: {error:#}");
                thread::park_timeout(INTERVAL);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut out = std::io::stdout().lock();
        if arguments.json {
            writeln!(out, "{status:#}")?;
        } else {
            if arguments.watch && out.is_terminal() {
                // Home, and clear to the end: what is on the screen is replaced at once.
                write!(out, "\x1b[H\x1b[J")?;
            }
            show(&status, &api.url, clock::wall_ns(), &mut out)?;
        }
        out.flush()?;
        drop(out);
        if !arguments.watch {
            return Ok(());
        }
        thread::park_timeout(INTERVAL);
    }
}

fn show(status: &Value, url: &str, now_ns: u64, out: &mut dyn Write) -> std::io::Result<()> {
    let uptime = human::length(Duration::from_secs(number(&status["uptime_seconds"])));
    writeln!(out, "millrace {} at {url}: {}, up {uptime}", text(&status["version"]), text(&status["state"]))?;
    let problems = list(&status["problems"]);
    if problems.is_empty() {
        writeln!(out, "Nothing is wrong.")?;
    }
    for problem in problems {
        let said = human::on_one_line(text(&problem["text"]));
        match problem["since"].as_str().map(human::moment) {
            Some(since) => writeln!(out, "! {said} (since {})", human::time_and_age(since, now_ns))?,
            None => writeln!(out, "! {said}")?,
        }
    }
    let plugins = (!list(&status["plugins"]).is_empty()).then(|| plugins(status));
    for table in [Some(sources(status)), plugins, Some(lanes(status)), Some(destinations(status))].into_iter().flatten()
    {
        writeln!(out)?;
        table.write(out)?;
    }
    writeln!(out)?;
    let disk = &status["disk"];
    if !disk.is_null() {
        let (used, pool, room) =
            (number(&disk["used_bytes"]), number(&disk["pool_bytes"]), number(&disk["room_bytes"]));
        let (used, pool) = (human::size(used.saturating_sub(pool)), human::size(pool));
        writeln!(out, "disk      {} % of {}: {used} used, {pool} ready for reuse", disk["percent"], human::size(room))?;
    }
    let balances = &status["balances"];
    let [front, lane, destination] = ["front_records", "lane_spans", "destination_spans"].map(|key| &balances[key]);
    writeln!(out, "balances  front {front} records, lanes {lane} spans, destinations {destination} spans (0 at rest)")
}

fn sources(status: &Value) -> Table {
    let mut table = Table::new(&[
        "SOURCE",
        ">ITEMS/S",
        ">RECORDS",
        ">ENCODED",
        ">FILTERED",
        ">REJECTED",
        ">DEAD LETTERS",
        ">SPANS PASSED",
        ">SPANS REJECTED",
        ">SPANS DROPPED",
        ">TOLD TO WAIT",
    ]);
    for source in list(&status["sources"]) {
        let records = &source["records"];
        table.row([
            text(&source["name"]).to_owned(),
            count(&source["per_second"]),
            count(&records["received"]),
            count(&records["encoded"]),
            count(&records["filtered"]),
            count(&records["rejected"]),
            count(&records["dead_lettered"]),
            count(&source["spans"]["passed"]),
            count(&source["spans"]["rejected"]),
            count(&source["spans"]["dropped"]["full"]),
            count(&source["requests_refused"]),
        ]);
    }
    table
}

fn plugins(status: &Value) -> Table {
    let mut table = Table::new(&[
        "PLUGIN",
        "STATE",
        ">GENERATION",
        ">ROWS",
        ">EDITED",
        ">DROPPED",
        ">NS A ROW",
        ">FAILURES",
        ">QUARANTINED",
        ">MEMORY",
        "LAST FAILURE",
    ]);
    for plugin in list(&status["plugins"]) {
        let rows = &plugin["rows"];
        table.row([
            text(&plugin["name"]).to_owned(),
            text(&plugin["state"]).to_owned(),
            count(&plugin["generation"]),
            count(&rows["shown"]),
            count(&rows["edited"]),
            count(&rows["dropped"]),
            count(&plugin["nanoseconds_a_row"]),
            count(&plugin["failures"]),
            count(&plugin["quarantined_blocks"]),
            human::size(number(&plugin["memory_bytes"])),
            plugin["last_failure"].as_str().map_or_else(|| "-".to_owned(), short),
        ]);
    }
    table
}

/// As much of a text as a table has room for.
fn short(text: &str) -> String {
    const MOST: usize = 60;
    let line = human::on_one_line(text);
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn lanes(status: &Value) -> Table {
    let mut table =
        Table::new(&[">LANE", ">SPANS/S", ">APPENDED", ">REFUSED", ">SEGMENTS", ">LOG", ">POOL", ">SYNC FAILURES"]);
    for lane in list(&status["lanes"]) {
        let log = &lane["log"];
        table.row([
            lane["lane"].to_string(),
            count(&lane["spans_per_second"]),
            count(&lane["spans"]["appended"]),
            count(&lane["spans"]["refused"]),
            count(&log["segments"]),
            human::size(number(&log["entry_bytes"])),
            count(&log["pool_segments"]),
            count(&log["sync_failures"]),
        ]);
    }
    table
}

fn destinations(status: &Value) -> Table {
    let mut table = Table::new(&[
        "DESTINATION",
        "STATE",
        ">SPANS/S",
        ">LAG SPANS",
        ">LAG BYTES",
        ">LAG AGE",
        ">IN FLIGHT",
        ">DELIVERED",
        ">REFUSED",
        ">DEAD LETTERS",
        ">DROPPED",
        ">LOST",
    ]);
    for destination in list(&status["destinations"]) {
        let spans = &destination["spans"];
        let dropped: u64 = spans["dropped"].as_object().into_iter().flatten().map(|(_, dropped)| number(dropped)).sum();
        table.row([
            text(&destination["name"]).to_owned(),
            match destination["missing_key"].as_str() {
                Some(key) => format!("waits for key {key}"),
                None => text(&destination["state"]).to_owned(),
            },
            count(&destination["spans_per_second"]),
            count(&destination["lag_spans"]),
            human::size(number(&destination["lag_bytes"])),
            human::length(Duration::from_secs(number(&destination["lag_seconds"]))),
            count(&destination["in_flight_requests"]),
            count(&spans["delivered"]),
            count(&spans["refused_by_peer"]),
            count(&spans["dead_lettered"]),
            human::count(dropped),
            count(&spans["lost"]),
        ]);
    }
    table
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn count(value: &Value) -> String {
    human::count(number(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_stands_first_and_in_words() {
        let status = json!({
            "version": "1.0", "state": "ready", "uptime_seconds": 65,
            "problems": [{ "text": "otlphttp: holding: 401 unauthorized", "since": "2023-11-14T22:13:20.000000000Z" }],
            "sources": [{ "name": "uberagent", "records": { "received": 1234 } }],
            "destinations": [{ "name": "otlphttp", "state": "holding", "lag_spans": 1234567, "lag_bytes": 2048 }],
            "plugins": [{ "name": "plugin/redact", "state": "resting", "failures": 17, "last_failure": "trap: a\nb" }],
            "lanes": [{ "lane": 0 }],
            "balances": { "front_records": 0, "lane_spans": 0, "destination_spans": 0 },
        });
        let mut out = Vec::new();
        show(&status, "http://here", 1_700_000_060_000_000_000, &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "millrace 1.0 at http://here: ready, up 1 min 5 s");
        assert!(lines[1].starts_with("! otlphttp: holding: 401 unauthorized (since 2023-11-1"), "{shown}");
        assert!(lines[1].ends_with("(1 min 0 s ago))"), "{shown}");
        assert!(shown.contains("1,234,567    2.0 KiB"), "{shown}");
        assert!(shown.contains("plugin/redact  resting"), "{shown}");
        assert!(lines.iter().any(|line| line.ends_with("trap: a b")), "{shown}");
        assert_eq!(short(&"é".repeat(70)), format!("{}...", "é".repeat(60)));
        assert!(lines.len() <= 24, "more than a screen: {shown}");
    }
}
