//! The state of everything as one JSON document: what `GET /api/v1/status` answers and `millrace status` shows.
//!
//! Figures are exact, times are ISO 8601 in UTC as in every JSON, rates are over the last ten seconds. `problems` says in
//! words what is wrong, worst first; an empty list is good news. A balance is exact at rest only, so an imbalance is a problem
//! when nothing moves.

use serde_json::{Value, json};

use super::disk::{DiskFigures, Watermark};
use super::rates::Counts;
use super::{DestinationSource, FrontSource, LaneSource, Metrics, Sources, Trouble, TroubleKind, front_imbalance};
use crate::telemetry::health::Health;
use crate::telemetry::ledger::{DropReason, Front};
use crate::telemetry::moment::{Moment, iso};

impl Metrics {
    /// Everything that is known now.
    #[must_use]
    pub fn status(&self, health: &Health, at: Moment) -> Value {
        let rate = |name: String| self.rates().of(&name);
        let balances = self.imbalances();
        let sources = self.sources();
        let disk = sources.disk.as_ref().map(|read| read());
        let mut problems: Vec<Value> = health.stuck(at.now).into_iter().map(|what| problem(&what, None)).collect();
        problems.extend(disk.and_then(|disk| disk_problem(&disk)));
        problems.extend(disk.and_then(|disk| quarantine_problem(&disk)));
        problems.extend(sources.drop_problems(&rate).iter().map(|text| problem(text, None)));
        problems.extend(sources.destinations.iter().filter_map(|destination| destination_problem(destination, at)));
        problems.extend(sources.destinations.iter().filter_map(|destination| {
            let name = &destination.name;
            let dropped = rate(format!("dropped/{name}"));
            (dropped > 0).then(|| problem(&format!("{name}: gives up {dropped} spans a second by policy"), None))
        }));
        // A parked destination says why, and until when, as other components do.
        let is_parked = |name: &str| {
            sources
                .destinations
                .iter()
                .any(|destination| destination.name == name && destination.gauges.parked.get() > 0)
        };
        let others = health.degraded().into_iter();
        let others = others.filter(|(name, _)| name.strip_prefix("destination ").is_none_or(is_parked));
        // Of the disk the figures say as much, and as of now.
        let others = others.filter(|(name, _)| name != "disk" || disk.is_none());
        problems.extend(others.map(|(name, reason)| problem(&format!("{name}: {reason}"), None)));
        let at_rest = sources.counts().keys().all(|name| rate(name.clone()) == 0);
        let off = [balances.front, balances.lane, balances.destination] != [0, 0, 0];
        if at_rest && off {
            problems.push(problem("the ledger is out of balance: this is a fault of millrace, please report it", None));
        }
        let (answer, state) = (health.ready(), health.summary());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "time": iso(at.wall_ns),
            "uptime_seconds": at.now.as_secs(),
            "ready": answer.yes,
            "state": state.split(';').next().unwrap_or_default(),
            "problems": problems,
            "sources": sources.sources_json(&rate),
            "plugins": sources.plugins_json(),
            "lanes": sources.lanes_json(&rate),
            "destinations": sources.destinations_json(&rate, at),
            "disk": disk.as_ref().map(disk_json),
            "balances": {
                "front_records": signed(balances.front),
                "lane_spans": signed(balances.lane),
                "destination_spans": signed(balances.destination),
            },
        })
    }
}

impl Sources {
    /// What rates are made of: items by source and lane, spans by destination.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        self.count_drops(&mut counts);
        for FrontSource { source, counters, .. } in &self.fronts {
            *counts.entry(format!("source/{source}")).or_default() +=
                counters.received.get() + counters.spans_passed.get();
        }
        for LaneSource { lane, counters } in &self.lanes {
            counts.insert(format!("lane/{lane}"), counters.appended.get());
        }
        for DestinationSource { name, counters, .. } in &self.destinations {
            counts.insert(format!("destination/{name}"), counters.delivered.get());
            let dropped = DropReason::ALL.iter().filter(|reason| **reason != DropReason::NoDestination);
            counts.insert(
                format!("dropped/{name}"),
                dropped.map(|reason| counters.dropped[*reason as usize].get()).sum(),
            );
        }
        counts
    }

    fn sources_json(&self, rate: &dyn Fn(String) -> u64) -> Vec<Value> {
        let mut names: Vec<&str> = self.fronts.iter().map(|front| front.source.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let of = |name: &&str| {
            let fronts = self.fronts.iter().filter(|front| front.source == *name);
            let fronts: Vec<&Front> = fronts.map(|front| &*front.counters).collect();
            let sum = |of: fn(&Front) -> u64| fronts.iter().map(|front| of(front)).sum::<u64>();
            json!({
                "name": name,
                "per_second": rate(format!("source/{name}")),
                "records": {
                    "received": sum(|front| front.received.get()),
                    "encoded": sum(|front| front.encoded.get()),
                    "filtered": sum(|front| front.filtered.get()),
                    "rejected": sum(|front| front.rejected.get()),
                    "dead_lettered": sum(|front| front.dead_lettered.get()),
                },
                "spans": {
                    "passed": sum(|front| front.spans_passed.get()),
                    "rejected": sum(|front| front.spans_rejected.get()),
                    "dropped": { "full": self.dropped_of(name) },
                },
                "requests_refused": sum(|front| front.requests_refused.get()),
                "bytes": sum(|front| front.received_bytes.get()),
                "imbalance_records": signed(fronts.iter().map(|front| front_imbalance(front)).sum()),
            })
        };
        names.iter().map(of).collect()
    }

    fn lanes_json(&self, rate: &dyn Fn(String) -> u64) -> Vec<Value> {
        let of = |lane: &LaneSource| {
            let totals = lane.counters.snapshot();
            let log = self.logs.iter().find(|log| log.lane == lane.lane).map(|log| {
                let figures = (log.read)();
                json!({
                    "segments": figures.segments,
                    "pool_segments": figures.pool_segments,
                    "entry_bytes": figures.entry_bytes,
                    "file_bytes": figures.file_bytes,
                    "sync_failures": figures.sync_failures,
                    "unsaved_blocks": figures.unsaved_blocks,
                })
            });
            json!({
                "lane": lane.lane,
                "spans_per_second": rate(format!("lane/{}", lane.lane)),
                "spans": {
                    "encoded": totals.encoded,
                    "passed": totals.passed,
                    "synthesised": totals.synthesised,
                    "transform_dropped": totals.transform_dropped,
                    "refused": totals.refused,
                    "appended": totals.appended,
                },
                "imbalance_spans": signed(totals.imbalance()),
                "log": log,
            })
        };
        self.lanes.iter().map(of).collect()
    }

    fn destinations_json(&self, rate: &dyn Fn(String) -> u64, at: Moment) -> Vec<Value> {
        let of = |destination: &DestinationSource| {
            let DestinationSource { name, counters, gauges } = destination;
            let totals = counters.snapshot();
            let dropped =
                DropReason::ALL.map(|reason| (reason.label().to_owned(), totals.dropped[reason as usize].into()));
            let words = gauges.words();
            let at_ease = if words.retains { "retaining" } else { "delivering" };
            json!({
                "name": name,
                "state": words.trouble.as_ref().map_or(at_ease, |trouble| trouble.kind.word()),
                "trouble": words.trouble.as_ref().map(|trouble| trouble_json(trouble, at)),
                "missing_key": words.missing_key,
                "last_error": words.last_error.map(|(time, message)| json!({ "at": at.wall(time), "message": message })),
                "breaker": breaker_word(gauges.breaker.get()),
                "spans_per_second": rate(format!("destination/{name}")),
                "in_flight_requests": gauges.in_flight.get(),
                "lag_spans": gauges.in_queue.get(),
                "lag_bytes": gauges.lag_bytes.get(),
                "lag_seconds": gauges.lag(at.wall_ns).as_secs(),
                "spans": {
                    "delivered": totals.delivered,
                    "refused_by_peer": totals.refused_by_peer,
                    "dead_lettered": totals.dead_lettered,
                    "dropped": serde_json::Map::from_iter(dropped),
                    "lost": totals.lost,
                    "skipped_at_start": totals.skipped_at_start,
                    "redelivered": totals.redelivered,
                },
                "requests": { "accepted": counters.requests_sent.get(), "failed": counters.request_failures.get() },
                "imbalance_spans": signed(self.imbalance_of(destination)),
            })
        };
        self.destinations.iter().map(of).collect()
    }
}

fn breaker_word(number: u64) -> &'static str {
    match number {
        0 => "closed",
        1 => "half_open",
        _ => "open",
    }
}

impl TroubleKind {
    /// A word for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            TroubleKind::Holding => "holding",
            TroubleKind::Unreachable => "unreachable",
            TroubleKind::Recovering => "recovering",
            TroubleKind::Throttled => "throttled",
            TroubleKind::Parked => "parked",
            TroubleKind::Locked => "waiting for key",
        }
    }
}

fn trouble_json(trouble: &Trouble, at: Moment) -> Value {
    json!({ "since": at.wall(trouble.since), "next_try": trouble.next_try.map(|time| at.wall(time)) })
}

/// One sentence, and since when it is so.
fn problem(text: &str, since: Option<String>) -> Value {
    json!({ "text": text, "since": since })
}

fn destination_problem(destination: &DestinationSource, at: Moment) -> Option<Value> {
    let (name, gauges) = (&destination.name, &destination.gauges);
    let words = gauges.words();
    let trouble = words.trouble?;
    let said = words.last_error.map_or_else(String::new, |(_, message)| message);
    let what = match trouble.kind {
        TroubleKind::Holding => "holding, asked again once a minute",
        TroubleKind::Unreachable => "cannot be reached",
        TroubleKind::Recovering => "coming back",
        TroubleKind::Throttled => "asked to be sent less",
        TroubleKind::Parked => return None,
        TroubleKind::Locked => {
            let (key, spans) = (words.missing_key.unwrap_or_default(), gauges.in_queue.get());
            let text = format!("{name}: waits for key {key}, which is missing; {spans} spans wait in the log");
            return Some(problem(&text, Some(at.wall(trouble.since))));
        }
    };
    let text = format!("{name}: {what}: {said}; {} spans wait in the log", gauges.in_queue.get());
    Some(problem(&text, Some(at.wall(trouble.since))))
}

fn disk_problem(disk: &DiskFigures) -> Option<Value> {
    let full = if disk.is_full { "the log is full: " } else { "" };
    if let Some(starved) = disk.starved() {
        return Some(problem(
            &format!("disk: {full}{starved}; senders will be slowed down or told to come again"),
            None,
        ));
    }
    let percent = disk.percent();
    let what = match disk.watermark() {
        Watermark::Low if !disk.is_full => return None,
        _ if disk.is_full => "the log is full: senders are slowed down or told to come again",
        Watermark::Low | Watermark::Warn => "the log fills up",
        Watermark::High => "the log is nearly full",
        Watermark::Critical => "the log is all but full: senders will be slowed down or told to come again",
    };
    let room = disk.room_bytes() >> 20;
    Some(problem(&format!("disk: {what}, {percent} % of {room} MiB are used"), None))
}

/// Said for as long as the files are there: they are kept for somebody to look at, and nobody else removes them.
fn quarantine_problem(disk: &DiskFigures) -> Option<Value> {
    let (files, mib) = (disk.quarantined_files, disk.quarantined_bytes >> 20);
    let text =
        format!("quarantine: {files} files of {mib} MiB are put aside under the state directory: `millrace queue ls`");
    (files > 0).then(|| problem(&text, None))
}

fn disk_json(disk: &DiskFigures) -> Value {
    json!({
        "is_full": disk.is_full,
        "quarantined_files": disk.quarantined_files,
        "quarantined_bytes": disk.quarantined_bytes,
        "used_bytes": disk.used_bytes,
        "pool_bytes": disk.pool_bytes,
        "max_bytes": disk.max_bytes,
        "free_bytes": disk.free_bytes,
        "reserve_bytes": disk.reserve_bytes,
        "room_bytes": disk.room_bytes(),
        "percent": disk.percent(),
        "watermark_percent": disk.watermark().percent(),
    })
}

fn signed(value: i128) -> Value {
    i64::try_from(value).map_or(Value::Null, Value::from)
}
