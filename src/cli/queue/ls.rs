//! `millrace queue ls`: each lane's log, and each destination's place in it with its lag and totals.
//!
//! The lag of a destination is what lies behind its durable cursor: in spans, in bytes of entries, and as the age of the
//! oldest block there. Cursors are read after the logs, so beside a running process a lag is never overstated.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::human::{self, Table};
use crate::cli::state::{State, user};
use crate::queue::inspect::{self, CursorInfo, Lane, Place};
use crate::queue::{Entry, LaneCursor};
use crate::sys::clock;
use crate::telemetry::ledger::{DestinationTotals, DropReason};

/// A destination in one lane.
struct Lag {
    destination: String,
    lane: u32,
    cursor: LaneCursor,
    spans: u64,
    bytes: u64,
    /// Receive time of the oldest block behind the cursor; 0 when there is none.
    oldest_ns: u64,
}

/// Shows every lane and destination.
pub(super) fn ls(state: &State, json: bool) -> anyhow::Result<()> {
    let (directory, now_ns) = (&state.directory, clock::wall_ns());
    let open = |place: Place| Lane::open(place, now_ns);
    let lanes = state.lanes()?.into_iter().map(open).collect::<Result<Vec<Lane>, _>>()?;
    let cursors = inspect::cursors(directory)?;
    let lags: Vec<Lag> = cursors.iter().flat_map(|cursor| lags(cursor, &lanes)).collect();
    let out = &mut std::io::stdout().lock();
    if json {
        let lanes = lanes.iter().map(|lane| Ok(lane_json(lane)?)).collect::<anyhow::Result<Vec<Value>>>()?;
        let damaged: Vec<&str> = damaged(&cursors).collect();
        let destinations: Vec<Value> = lags.iter().map(lag_json).collect();
        let quarantine = state.quarantine_json();
        let all = json!({
            "lanes": lanes, "destinations": destinations, "damaged_cursors": damaged, "quarantine": quarantine
        });
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    let process = user(directory).map(|process| format!(": in use by process {process}"));
    writeln!(out, "{}{}\n", directory.display(), process.unwrap_or_default())?;
    lane_table(&lanes, now_ns)?.write(out)?;
    writeln!(out)?;
    lag_table(&lags, now_ns).write(out)?;
    state.say_quarantined(out)?;
    for lane in &lanes {
        say_unreadable(lane, out)?;
    }
    for name in damaged(&cursors) {
        writeln!(out, "\nThe cursor of {name} cannot be believed: at the next start it delivers the whole log again.")?;
    }
    Ok(())
}

/// Files of a lane that are no part of its tables.
pub(super) fn say_unreadable(lane: &Lane, out: &mut dyn Write) -> std::io::Result<()> {
    for file in &lane.parked {
        let number = lane.place.lane;
        writeln!(out, "lane {number}: a segment cannot be read; the next start puts it aside as quarantine/{file}")?;
    }
    Ok(())
}

fn damaged(cursors: &[CursorInfo]) -> impl Iterator<Item = &str> {
    cursors.iter().filter(|cursor| cursor.is_damaged).map(|cursor| cursor.destination.as_str())
}

fn lags(cursor: &CursorInfo, lanes: &[Lane]) -> Vec<Lag> {
    let lag = |lane: &Lane| {
        let place = lane.position(&cursor.lanes)?;
        let mut reader = lane.reader(place.position);
        let mut behind = std::iter::from_fn(|| reader.next()).peekable();
        // The marks that the log itself writes are nobody's to deliver.
        let has_all = behind.peek().is_none();
        let oldest = behind.find_map(|entry| match entry {
            Entry::Block { meta, .. } => Some(meta.received_ns),
            Entry::Gap { .. } => None,
        });
        Some(Lag {
            destination: cursor.destination.clone(),
            lane: lane.place.lane,
            cursor: place,
            spans: lane.tail().spans_since(&place.position),
            bytes: if has_all { 0 } else { lane.bytes_behind(&place.position) },
            oldest_ns: oldest.unwrap_or(0),
        })
    };
    lanes.iter().filter_map(lag).collect()
}

fn lane_table(lanes: &[Lane], now_ns: u64) -> anyhow::Result<Table> {
    let mut table =
        Table::new(&[">LANE", ">SEGMENTS", ">BLOCKS", ">RECORDS", ">SPANS", ">SIZE", "OLDEST", "NEWEST", ">POOL"]);
    for lane in lanes {
        let segments = lane.segments();
        let sum = |of: fn(&inspect::SegmentInfo) -> u64| segments.iter().map(of).sum::<u64>();
        let oldest_ns = segments.iter().map(|segment| segment.oldest_ns).find(|oldest| *oldest > 0).unwrap_or(0);
        let newest_ns = segments.iter().map(|segment| segment.newest_ns).max().unwrap_or(0);
        let (_, pool_bytes) = lane.pool()?;
        table.row([
            lane.place.lane.to_string(),
            human::count(segments.len() as u64),
            human::count(sum(|segment| segment.blocks)),
            human::count(sum(|segment| segment.records)),
            human::count(sum(|segment| segment.spans)),
            human::size(sum(|segment| segment.entry_bytes)),
            human::time_and_age(oldest_ns, now_ns),
            human::time_and_age(newest_ns, now_ns),
            human::size(pool_bytes),
        ]);
    }
    Ok(table)
}

fn lag_table(lags: &[Lag], now_ns: u64) -> Table {
    let mut table = Table::new(&[
        "DESTINATION",
        ">LANE",
        ">LAG SPANS",
        ">LAG BYTES",
        ">LAG AGE",
        ">DELIVERED",
        ">REFUSED",
        ">DEAD LETTERS",
        ">DROPPED",
        ">LOST",
        "CURSOR",
    ]);
    for lag in lags {
        let totals = &lag.cursor.totals;
        let age = Duration::from_nanos(now_ns.saturating_sub(lag.oldest_ns));
        table.row([
            lag.destination.clone(),
            lag.lane.to_string(),
            human::count(lag.spans),
            human::size(lag.bytes),
            if lag.oldest_ns == 0 { "-".to_owned() } else { human::length(age) },
            human::count(totals.delivered),
            human::count(totals.refused_by_peer),
            human::count(totals.dead_lettered),
            human::count(totals.dropped.iter().sum()),
            human::count(totals.lost),
            format!("segment {} at {}", lag.cursor.position.segment, lag.cursor.position.offset),
        ]);
    }
    table
}

fn lane_json(lane: &Lane) -> std::io::Result<Value> {
    let (pool_files, pool_bytes) = lane.pool()?;
    let segments: Vec<Value> = lane.segments().iter().map(super::inspect::segment_json).collect();
    let tail = lane.tail();
    Ok(json!({
        "lane": lane.place.lane,
        "incarnation": lane.incarnation(),
        "segments": segments,
        "to_be_parked": lane.parked,
        "spans_ever": tail.spans,
        "pool_files": pool_files,
        "pool_bytes": pool_bytes,
    }))
}

fn lag_json(lag: &Lag) -> Value {
    let position = &lag.cursor.position;
    json!({
        "destination": lag.destination,
        "lane": lag.lane,
        "lag_spans": lag.spans,
        "lag_bytes": lag.bytes,
        "oldest_undelivered": human::exact_time(lag.oldest_ns),
        "cursor": {
            "segment": position.segment,
            "offset": position.offset,
            "sequence": position.sequence,
            "spans": position.spans,
        },
        "totals": totals_json(&lag.cursor.totals),
    })
}

fn totals_json(totals: &DestinationTotals) -> Value {
    let dropped = DropReason::ALL.map(|reason| (reason.label().to_owned(), totals.dropped[reason as usize].into()));
    json!({
        "delivered": totals.delivered,
        "refused_by_peer": totals.refused_by_peer,
        "dead_lettered": totals.dead_lettered,
        "dropped": serde_json::Map::from_iter(dropped),
        "lost": totals.lost,
        "skipped_at_start": totals.skipped_at_start,
        "redelivered": totals.redelivered,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::block::{Made, Meta, Signal, SourceId};
    use crate::queue::{Cursor, Log, MmapStorage, Options};

    #[test]
    fn who_has_everything_lags_by_nothing_and_who_has_not_by_its_entries() {
        let directory = tempfile::tempdir().unwrap();
        let place = || Place::of_lane(directory.path(), 0);
        let options = Options::of_a_test(directory.path());
        let (log, mut appender, _) = Log::open(Arc::new(MmapStorage), options).unwrap();
        let commit = |name: &str, position| {
            let mut cursor = Cursor::open(&MmapStorage, &directory.path().join("destinations").join(name)).unwrap();
            cursor.commit(&[(&*log, position, DestinationTotals::default())]).unwrap();
        };
        commit("nothing", log.oldest());
        let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(3), 100);
        meta.spans = 3;
        appender.append(&meta, &[7; 1000]).unwrap();
        log.sync().unwrap();
        let mut reader = log.reader(log.oldest());
        let Some(Entry::Block { end, .. }) = reader.next() else { panic!("a block was appended") };
        commit("everything", end);
        appender.maintain(Duration::ZERO, 9).unwrap();
        log.sync().unwrap();
        let lanes = [Lane::open(place(), 77).unwrap()];
        let lag = |cursor: &CursorInfo| lags(cursor, &lanes).iter().map(|lag| (lag.spans, lag.bytes)).next().unwrap();
        let cursors = inspect::cursors(directory.path()).unwrap();
        assert_eq!(cursors[0].destination, "everything");
        assert_eq!(lag(&cursors[0]), (0, 0));
        assert!(lag(&cursors[1]).0 == 3 && lag(&cursors[1]).1 >= 1000, "{:?}", lag(&cursors[1]));
    }
}
