//! What of the lanes is shown on `/metrics`: the balances, and everything that reactors and rings count besides.
//!
//! A label's value is a lane's number, a receiver's name, or a word of a fixed set; which words a line receiver has met is
//! known only once it has, so those are read as they are at a scrape.

use std::sync::Arc;

use super::ingest::{Lane, SourceCounters};
use super::outlet::Waiting;
use crate::receive::{ByLabel, LineCounters, ReactorCounters};
use crate::telemetry::ledger::{self, Counter};
use crate::telemetry::metrics::{Extra, ExtraKind, ExtraRead, FrontSource, LaneSource, Metrics};

/// Registers every lane.
pub fn register(metrics: &Metrics, lanes: &[Lane]) {
    for (number, lane) in (0u32..).zip(lanes) {
        metrics.add_lane(LaneSource { lane: number, counters: lane.ledger.clone() });
        show_reactor(metrics, number, &lane.reactor, lane.waiting.clone());
        for source in &lane.sources {
            let counters = source.front.clone();
            let (producer, name) = (source.producer, source.source.clone());
            metrics.add_front(FrontSource { lane: number, producer, source: name, counters });
            if let Some(lines) = &source.lines {
                show_lines(metrics, number, source, lines);
            }
        }
    }
}

/// Registers a lane that no longer runs: destinations count its spans, so its balance belongs beside theirs.
pub fn register_gone(metrics: &Metrics, lane: u32, counters: &Arc<ledger::Lane>) {
    metrics.add_lane(LaneSource { lane, counters: Arc::clone(counters) });
}

fn show_reactor(metrics: &Metrics, lane: u32, reactor: &Arc<ReactorCounters>, waiting: Vec<Waiting>) {
    let show = |name, help, kind, read| {
        metrics.add_extra(Extra {
            name,
            help,
            kind,
            labels: vec![("lane", lane.to_string())],
            read: ExtraRead::One(read),
        });
    };
    let of = |counter: fn(&ReactorCounters) -> &Counter| {
        let reactor = reactor.clone();
        Box::new(move || counter(&reactor).get()) as Box<dyn Fn() -> u64 + Send>
    };
    let spans = Box::new(move || waiting.iter().map(Waiting::spans).sum());
    show("millrace_ring_waiting_spans", "Spans between decode and the writer's answer.", ExtraKind::Gauge, spans);
    let (counter, pauses) = (ExtraKind::Counter, of(|reactor| &reactor.pauses));
    show("millrace_reactor_pauses_total", "Times that reading stopped because the ring was full.", counter, pauses);
    let overloads = of(|reactor| &reactor.overloads);
    show(
        "millrace_reactor_overloads_total",
        "Pauses that lasted, so that connections were closed.",
        counter,
        overloads,
    );
    let lost = of(|reactor| &reactor.records_lost);
    show("millrace_reactor_lost_records_total", "Records decoded that no writer took before the stop.", counter, lost);
}

fn show_lines(metrics: &Metrics, lane: u32, source: &SourceCounters, lines: &Arc<LineCounters>) {
    let show = |name, help, kind, read| {
        let labels = vec![("lane", lane.to_string()), ("source", source.source.clone())];
        metrics.add_extra(Extra { name, help, kind, labels, read });
    };
    let one = |counter: fn(&LineCounters) -> &Counter| {
        let lines = lines.clone();
        ExtraRead::One(Box::new(move || counter(&lines).get()))
    };
    let by = |label, counters: fn(&LineCounters) -> &ByLabel| {
        let lines = lines.clone();
        ExtraRead::ByWord(label, Box::new(move || counters(&lines).iter().collect()))
    };
    let counter = ExtraKind::Counter;
    show("millrace_connections", "Open TCP connections.", ExtraKind::Gauge, one(|lines| &lines.connections));
    show("millrace_connections_accepted_total", "TCP connections accepted.", counter, one(|lines| &lines.accepted));
    let by_reason = |of| by("reason", of);
    show(
        "millrace_connections_refused_total",
        "TCP connections reset at once.",
        counter,
        by_reason(|lines| &lines.refused),
    );
    show("millrace_connections_closed_total", "TCP connections closed.", counter, by_reason(|lines| &lines.closed));
    let wrong = by("protocol", |lines| &lines.wrong_protocol);
    show("millrace_wrong_protocol_total", "TCP connections that spoke something else.", counter, wrong);
    let filtered = by("sourcetype", |lines| &lines.filtered);
    show("millrace_filtered_records_total", "Records understood and not wanted.", counter, filtered);
    let dead = by_reason(|lines| &lines.dead_lettered);
    show("millrace_dead_lettered_records_total", "Records not understood.", counter, dead);
    let not_kept = one(|lines| &lines.dead_letters_not_kept);
    show("millrace_dead_letters_not_kept_total", "Dead letters whose bytes were given up.", counter, not_kept);
}
