//! `millrace queue inspect`: the segments of a lane, or every entry of one.
//!
//! A segment is named by its id, as `queue inspect` shows it, or by its file's name.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::ls::say_unreadable;
use crate::block::{Kind, Signal};
use crate::cli::human::{self, Table};
use crate::cli::source::Unusable;
use crate::cli::state::{StateArgs, sources};
use crate::queue::inspect::{EntryFound, EntryInfo, Lane, SegmentInfo};
use crate::sys::clock;

/// What to look at.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// The lane; all of them without it.
    lane: Option<u32>,
    /// The segment: its id or its file's name; all of the lane without it.
    segment: Option<String>,
    /// Every entry too.
    #[arg(long)]
    blocks: bool,
    /// Exact figures for programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// Shows segments, and what stands in them.
pub(super) fn inspect(arguments: &InspectArgs) -> anyhow::Result<()> {
    let state = arguments.state.open()?;
    let now_ns = clock::wall_ns();
    let places = state.lanes_or(arguments.lane)?;
    let names = sources(&state.directory);
    let mut found = Vec::new();
    for place in places {
        let lane = Lane::open(place, now_ns)?;
        let mut segments = lane.segments();
        if let Some(wanted) = &arguments.segment {
            segments.retain(|segment| is_named(segment, wanted));
        }
        found.push((lane, segments));
    }
    if let Some(wanted) = &arguments.segment
        && found.iter().all(|(_, segments)| segments.is_empty())
    {
        return Err(
            Unusable(format!("there is no segment {wanted}: `millrace queue inspect` shows which there are")).into()
        );
    }
    let out = &mut std::io::stdout().lock();
    if arguments.json {
        let shown = found.iter().flat_map(|(lane, segments)| segments.iter().map(move |segment| (lane, segment)));
        let all: Vec<Value> = shown.map(|(lane, segment)| whole_json(lane, segment, arguments.blocks)).collect();
        let parked: Vec<Value> = found
            .iter()
            .flat_map(|(lane, _)| lane.parked.iter().map(|file| json!({ "lane": lane.place.lane, "as": file })))
            .collect();
        writeln!(out, "{:#}", json!({ "segments": all, "to_be_parked": parked }))?;
        return Ok(());
    }
    for (lane, segments) in &found {
        writeln!(out, "lane {}", lane.place.lane)?;
        segment_table(segments, now_ns).write(out)?;
        say_unreadable(lane, out)?;
        for segment in segments.iter().filter(|_| arguments.blocks) {
            writeln!(out, "\nsegment {}: {}", segment.id, segment.path.display())?;
            writeln!(out, "{}", header_and_footer(segment, now_ns))?;
            entry_table(&lane.entries(segment.id).unwrap_or_default(), &names, now_ns).write(out)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What the file says of itself besides its entries.
fn header_and_footer(segment: &SegmentInfo, now_ns: u64) -> String {
    let key = segment.key.map_or_else(|| "not encrypted".to_owned(), |key| format!("encrypted with key {key}"));
    let footer = if segment.sealed { "a footer ends it" } else { "it has no footer yet" };
    format!("in use since {}, {key}, {footer}", human::time_and_age(segment.created_ns, now_ns))
}

fn is_named(segment: &SegmentInfo, wanted: &str) -> bool {
    let file = segment.path.file_name().unwrap_or_default().to_string_lossy();
    segment.id.to_string() == wanted || file == wanted || file.trim_end_matches(".log") == wanted
}

fn segment_table(segments: &[SegmentInfo], now_ns: u64) -> Table {
    let mut table = Table::new(&[
        ">SEGMENT",
        "STATE",
        ">BLOCKS",
        ">RECORDS",
        ">SPANS",
        ">PAYLOAD",
        ">OF FILE",
        ">SEQUENCES",
        "OLDEST",
        "NEWEST",
    ]);
    for segment in segments {
        table.row([
            segment.id.to_string(),
            if segment.sealed { "sealed" } else { "open" }.to_owned(),
            human::count(segment.blocks),
            human::count(segment.records),
            human::count(segment.spans),
            human::size(segment.stored_bytes),
            human::size(segment.file_bytes),
            format!("{}-{}", segment.before_sequence.saturating_add(1), segment.last_sequence),
            human::time_and_age(segment.oldest_ns, now_ns),
            human::time_and_age(segment.newest_ns, now_ns),
        ]);
    }
    table
}

fn entry_table(entries: &[EntryInfo], names: &[String], now_ns: u64) -> Table {
    let mut table =
        Table::new(&[">OFFSET", ">BYTES", "KIND", ">SEQUENCE", "SOURCE", ">RECORDS", ">SPANS", "TIME", "CRC"]);
    for EntryInfo { offset, end, found } in entries {
        let place = [offset.to_string(), (end - offset).to_string()];
        let rest = match found {
            EntryFound::Unreadable => ["unreadable", "", "", "", "", "", ""].map(str::to_owned),
            EntryFound::Entry { sequence, kind, intact, .. } => {
                let crc = if *intact { "ok" } else { "BAD" }.to_owned();
                match kind {
                    Kind::Block(meta) => [
                        signal(meta.signal).to_owned(),
                        sequence.to_string(),
                        source(names, meta.source.0),
                        meta.records.to_string(),
                        meta.spans.to_string(),
                        human::time_and_age(meta.received_ns, now_ns),
                        crc,
                    ],
                    Kind::CommitMark { written_ns } => {
                        let time = human::time_and_age(*written_ns, now_ns);
                        let none = String::new;
                        ["commit-mark".to_owned(), sequence.to_string(), none(), none(), none(), time, crc]
                    }
                }
            }
        };
        table.row(place.into_iter().chain(rest));
    }
    table
}

/// A signal's word.
pub(super) fn signal(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "traces",
        Signal::Metrics => "metrics",
        Signal::Logs => "logs",
    }
}

fn source(names: &[String], id: u16) -> String {
    names.get(usize::from(id)).map_or_else(|| format!("#{id}"), Clone::clone)
}

/// A segment for programs.
pub(super) fn segment_json(segment: &SegmentInfo) -> Value {
    json!({
        "id": segment.id,
        "file": segment.path,
        "sealed": segment.sealed,
        "created": human::exact_time(segment.created_ns),
        "file_bytes": segment.file_bytes,
        "entry_bytes": segment.entry_bytes,
        "blocks": segment.blocks,
        "records": segment.records,
        "spans": segment.spans,
        "payload_bytes": segment.stored_bytes,
        "before_sequence": segment.before_sequence,
        "last_sequence": segment.last_sequence,
        "oldest": human::exact_time(segment.oldest_ns),
        "newest": human::exact_time(segment.newest_ns),
    })
}

fn whole_json(lane: &Lane, segment: &SegmentInfo, blocks: bool) -> Value {
    let mut all = segment_json(segment);
    all["lane"] = lane.place.lane.into();
    if blocks {
        let entries = lane.entries(segment.id).unwrap_or_default();
        all["entries"] = entries.iter().map(entry_json).collect();
    }
    all
}

fn entry_json(entry: &EntryInfo) -> Value {
    let EntryInfo { offset, end, found } = entry;
    let mut all = json!({ "offset": offset, "bytes": end - offset });
    let EntryFound::Entry { sequence, kind, stored_bytes, intact, durable } = found else {
        all["kind"] = "unreadable".into();
        return all;
    };
    all["sequence"] = (*sequence).into();
    all["stored_bytes"] = (*stored_bytes).into();
    all["crc_ok"] = (*intact).into();
    match kind {
        Kind::Block(meta) => {
            all["kind"] = "block".into();
            all["signal"] = signal(meta.signal).into();
            all["source"] = meta.source.0.into();
            all["records"] = meta.records.into();
            all["spans"] = meta.spans.into();
            all["received"] = human::exact_time(meta.received_ns);
            all["last_span_end"] = human::exact_time(meta.last_span_ns);
        }
        Kind::CommitMark { written_ns } => {
            all["kind"] = "commit_mark".into();
            all["written"] = human::exact_time(*written_ns);
            all["durable_sequence"] = (*durable).into();
        }
    }
    all
}
