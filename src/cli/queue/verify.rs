//! `millrace queue verify`: reads every entry of every log, and says what is damaged and how many spans that costs.
//!
//! What counts as lost is what a destination would be told that stands where the slowest one does: the log's own recovery
//! and reader decide it. Blocks that a crash left half-written were never acknowledged; they are named and are no damage.
//! What has no key nobody can judge: that is neither sound nor damaged, and ends the command with 1 as well.

use std::io::Write;

use serde_json::{Value, json};

use crate::block::Kind;
use crate::cli::human;
use crate::cli::state::{Named, State};
use crate::queue::Entry;
use crate::queue::inspect::{self, CursorInfo, EntryFound, EntryInfo, Lane, SegmentInfo};
use crate::sys::clock;

/// What was found in one log.
pub(super) struct Report {
    /// The log's name.
    pub(super) name: String,
    /// Intact blocks, and the spans in them.
    blocks: u64,
    spans: u64,
    /// Spans that were appended and are not there any more.
    pub(super) lost_spans: u64,
    /// Spans whose key is missing, and that key.
    pub(super) locked: Option<(u64, String)>,
    /// Blocks of a crash's tail that are missing.
    tail_blocks: u64,
    /// Files that recovery would put into quarantine.
    pub(super) parked: Vec<String>,
    /// The lane's state cannot be read.
    pub(super) state_lost: bool,
    /// A segment without a footer: what a crash left, or what is being written.
    pub(super) unsealed: bool,
    /// Damaged entries with their segments.
    pub(super) damage: Vec<(SegmentInfo, EntryInfo)>,
}

impl Report {
    pub(super) fn is_damaged(&self) -> bool {
        // Where a crash took blocks that nobody was promised, what it left of them is no damage either.
        let beyond_the_tail = !self.damage.is_empty() && self.tail_blocks == 0;
        self.lost_spans > 0 || !self.parked.is_empty() || self.state_lost || beyond_the_tail
    }

    fn verdict(&self) -> String {
        match &self.locked {
            _ if self.is_damaged() => "DAMAGED".to_owned(),
            Some((_, key)) => format!("not judged: needs key {key}"),
            None => "sound".to_owned(),
        }
    }
}

/// Reads everything; an error when something is damaged.
pub(super) fn verify(state: &State, json: bool) -> anyhow::Result<()> {
    let (reports, cursors) = examine(state, clock::wall_ns())?;
    let damaged: Vec<&CursorInfo> = cursors.iter().filter(|cursor| cursor.is_damaged).collect();
    let is_damaged = !damaged.is_empty() || reports.iter().any(Report::is_damaged);
    let is_judged = reports.iter().all(|report| report.locked.is_none());
    let out = &mut std::io::stdout().lock();
    if json {
        let logs: Vec<Value> = reports.iter().map(report_json).collect();
        let cursors: Vec<&str> = damaged.iter().map(|cursor| cursor.destination.as_str()).collect();
        let all = json!({
            "damaged": is_damaged, "judged": is_judged, "logs": logs, "damaged_cursors": cursors,
            "quarantine": state.quarantine_json()
        });
        writeln!(out, "{all:#}")?;
    } else {
        for report in &reports {
            write_report(report, out)?;
        }
        state.say_quarantined(out)?;
        for cursor in damaged {
            writeln!(out, "destination {}: the cursor cannot be believed", cursor.destination)?;
        }
    }
    if is_damaged {
        anyhow::bail!(
            "the log is damaged: `millrace queue repair` says what can be done (with --dry-run: without doing it)"
        );
    }
    match reports.iter().find_map(|report| report.locked.as_ref()) {
        Some((_, key)) => {
            anyhow::bail!("not everything was judged: key {key} is missing, name its file with --key-file")
        }
        None => Ok(()),
    }
}

/// Looks at every log and cursor; what would be put aside is named by `wall_ns`.
pub(super) fn examine(state: &State, wall_ns: u64) -> anyhow::Result<(Vec<Report>, Vec<CursorInfo>)> {
    let opened = state.logs()?.into_iter().map(|Named { name, place }| {
        let lane = Lane::open(place, wall_ns)?;
        Ok((name, lane))
    });
    let opened = opened.collect::<anyhow::Result<Vec<(String, Lane)>>>()?;
    // Read after the logs, so that what was released before they were opened is behind every cursor.
    let cursors = inspect::cursors(&state.directory)?;
    let reports = opened.into_iter().map(|(name, lane)| report(name, &lane, &cursors)).collect();
    Ok((reports, cursors))
}

fn report(name: String, lane: &Lane, cursors: &[CursorInfo]) -> Report {
    let segments = lane.segments();
    let mut report = Report {
        name,
        blocks: 0,
        spans: 0,
        lost_spans: 0,
        locked: lane.recovered.missing_key.map(|key| (lane.recovered.unreadable_spans, key.to_string())),
        tail_blocks: lane.recovered.tail_blocks,
        parked: lane.parked.clone(),
        state_lost: lane.recovered.state_lost,
        unsealed: segments.iter().any(|segment| !segment.sealed),
        damage: Vec::new(),
    };
    // The slowest destination may stand before the oldest segment that can be read.
    let places = cursors.iter().filter_map(|cursor| lane.position(&cursor.lanes)).map(|place| place.position);
    let from = places.min().map_or(lane.oldest(), |place| place.min(lane.oldest()));
    let mut reader = lane.reader(from);
    while let Some(entry) = reader.next() {
        match entry {
            Entry::Block { meta, .. } => {
                report.blocks += 1;
                report.spans += u64::from(meta.spans);
            }
            Entry::Gap { spans, .. } => report.lost_spans += spans,
        }
    }
    // What has no key is passed over and is not lost.
    report.lost_spans -= report.locked.as_ref().map_or(0, |(spans, _)| report.lost_spans.min(*spans));
    for segment in segments {
        let entries = lane.entries(segment.id).unwrap_or_default();
        let damaged = entries
            .into_iter()
            .filter(|entry| matches!(entry.found, EntryFound::Unreadable | EntryFound::Entry { intact: false, .. }));
        // A file that went while it was read had been delivered.
        if segment.path.exists() {
            report.damage.extend(damaged.map(|entry| (segment.clone(), entry)));
        }
    }
    report
}

fn write_report(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let (blocks, spans) = (human::counted(report.blocks, "block"), human::counted(report.spans, "span"));
    writeln!(out, "{}: {}; intact: {blocks} with {spans}", report.name, report.verdict())?;
    if report.lost_spans > 0 {
        writeln!(out, "  lost: {}, exactly", human::counted(report.lost_spans, "span"))?;
    }
    for file in &report.parked {
        writeln!(out, "  cannot be read, to be parked as {file}")?;
    }
    if let Some((spans, key)) = &report.locked {
        let spans = human::counted(*spans, "span");
        writeln!(out, "  {spans} cannot be read without key {key}: name its file with --key-file")?;
    }
    if report.state_lost {
        writeln!(out, "  the lane's state cannot be read; it is derived from the segments")?;
    }
    for (segment, entry) in &report.damage {
        writeln!(out, "  {}", describe(segment, entry))?;
    }
    if report.tail_blocks > 0 {
        let blocks = human::counted(report.tail_blocks, "block");
        writeln!(out, "  a crash took {blocks}, never acknowledged: no damage")?;
    }
    Ok(())
}

/// One line on one damaged entry.
pub(super) fn describe(segment: &SegmentInfo, entry: &EntryInfo) -> String {
    let file = segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (offset, bytes) = (entry.offset, entry.end - entry.offset);
    match entry.found {
        EntryFound::Unreadable => format!("{file} at {offset}: {bytes} bytes hold no entry that can be believed"),
        EntryFound::Entry { sequence, kind: Kind::Block(meta), .. } => {
            let spans = human::counted(meta.spans.into(), "span");
            format!("{file} at {offset}: block {sequence} with {spans} fails its checksum")
        }
        EntryFound::Entry { sequence, kind: Kind::CommitMark { .. }, .. } => {
            format!("{file} at {offset}: the commit-mark behind block {sequence} fails its checksum")
        }
    }
}

fn report_json(report: &Report) -> Value {
    let damage = report.damage.iter().map(|(segment, entry)| {
        let mut all = json!({
            "segment": segment.id,
            "file": segment.path,
            "offset": entry.offset,
            "bytes": entry.end - entry.offset,
            "what": describe(segment, entry),
        });
        if let EntryFound::Entry { sequence, kind: Kind::Block(meta), .. } = entry.found {
            all["sequence"] = sequence.into();
            all["spans"] = meta.spans.into();
        }
        all
    });
    json!({
        "log": report.name,
        "damaged": report.is_damaged(),
        "judged": report.locked.is_none(),
        "blocks": report.blocks,
        "spans": report.spans,
        "lost_spans": report.lost_spans,
        "locked_spans": report.locked.as_ref().map(|(spans, _)| spans),
        "missing_key": report.locked.as_ref().map(|(_, key)| key),
        "tail_blocks": report.tail_blocks,
        "to_be_parked": report.parked,
        "state_lost": report.state_lost,
        "damage": damage.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::state::tests::{encrypted, keys, without_keys};
    use crate::queue::inspect::Place;

    #[test]
    fn what_has_no_key_is_neither_sound_nor_damaged() {
        let directory = tempfile::tempdir().unwrap();
        encrypted(&Place::of_lane(directory.path(), 0), 5);
        let mut state = without_keys(directory.path());
        let verdict = |state: &State| {
            let (reports, _) = examine(state, 77).unwrap();
            (reports[0].verdict(), verify(state, false).err().map(|error| error.to_string()))
        };
        let key = keys().ids().next().unwrap();
        let why = format!("not everything was judged: key {key} is missing, name its file with --key-file");
        assert_eq!(verdict(&state), (format!("not judged: needs key {key}"), Some(why)));
        state.at_rest.keys = keys();
        assert_eq!(verdict(&state), ("sound".to_owned(), None));
    }
}
