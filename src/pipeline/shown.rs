//! What of the lanes is shown on `/metrics`: the balances, and everything that reactors and rings count besides.
//!
//! A label's value is a lane's number, a receiver's name, or a word of a fixed set; which words a receiver has met is
//! known only once it has, so those are read as they are at a scrape.

use std::sync::Arc;

use super::ingest::{Lane, OtherCounters, SourceCounters};
use super::outlet::Waiting;
use super::receivers::Receivers;
use crate::receive::{ByLabel, ConnectionCounters, HttpCounters, LineCounters, ReactorCounters};
use crate::telemetry::ledger::{self, Counter};
use crate::telemetry::metrics::{Extra, ExtraKind, ExtraRead, FrontSource, LaneSource, Metrics};

/// Registers every lane, and what a full log makes sources lose; what a lane counts of a receiver is registered when it first
/// serves it.
pub fn register(metrics: &Metrics, lanes: &[Lane], receivers: &Receivers) {
    let (admissions, names) = (receivers.admissions.clone(), receivers.names.clone());
    let read = move || admissions.lost().into_iter().map(|(id, spans)| (names.of(id), spans)).collect();
    metrics.show_drops(Box::new(read));
    for (number, lane) in (0u32..).zip(lanes) {
        metrics.add_lane(LaneSource { lane: number, counters: lane.ledger.clone() });
        show_reactor(metrics, number, &lane.reactor, lane.waiting.clone());
    }
}

/// Registers a receiver on a lane, once.
pub fn register_source(metrics: &Metrics, lane: u32, source: &SourceCounters) {
    let counters = source.front.clone();
    let (producer, name) = (source.producer, source.source.clone());
    metrics.add_front(FrontSource { lane, producer, source: name, counters });
    match &source.other {
        OtherCounters::Lines(lines) => show_lines(metrics, lane, source, lines),
        OtherCounters::Http(http) => show_http(metrics, lane, source, http),
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
    let shown = Shown { metrics, lane, source, counters: lines };
    show_connections(&shown, |lines| &lines.connections);
    shown.by("millrace_wrong_protocol_total", "TCP connections that spoke something else.", "protocol", |lines| {
        &lines.wrong_protocol
    });
    shown.by("millrace_filtered_records_total", "Records understood and not wanted.", "sourcetype", |lines| {
        &lines.filtered
    });
    shown.by("millrace_dead_lettered_records_total", "Records not understood.", "reason", |lines| &lines.dead_lettered);
    shown.one("millrace_dead_letters_not_kept_total", "Dead letters whose bytes were given up.", |lines| {
        &lines.dead_letters_not_kept
    });
}

fn show_http(metrics: &Metrics, lane: u32, source: &SourceCounters, http: &Arc<HttpCounters>) {
    let shown = Shown { metrics, lane, source, counters: http };
    show_connections(&shown, |http| &http.connections);
    shown.by("millrace_refused_requests_total", "HTTP requests that were not taken.", "reason", |http| {
        &http.refused_requests
    });
    let help = "Records decoded, and not acknowledged, that no writer took before the stop.";
    shown.one("millrace_gateway_lost_records_total", help, |http| &http.records_lost);
    let help = "Spans taken, and not acknowledged, that no writer took before the stop.";
    shown.one("millrace_gateway_lost_spans_total", help, |http| &http.spans_lost);
}

fn show_connections<C: Send + Sync + 'static>(shown: &Shown<'_, C>, of: fn(&C) -> &ConnectionCounters) {
    shown.add("millrace_connections", "Open connections.", ExtraKind::Gauge, move |counters| {
        ExtraRead::One(Box::new(move || of(&counters).open.get()))
    });
    let counter = |name, help, field: fn(&ConnectionCounters) -> &Counter| {
        shown.add(name, help, ExtraKind::Counter, move |counters| {
            ExtraRead::One(Box::new(move || field(of(&counters)).get()))
        });
    };
    counter("millrace_connections_accepted_total", "Connections accepted.", |connections| &connections.accepted);
    let help = "Failures to accept a connection that were the machine's.";
    counter("millrace_accept_failures_total", help, |connections| &connections.accept_failures);
    let by_reason = |name, help, field: fn(&ConnectionCounters) -> &ByLabel| {
        shown.add(name, help, ExtraKind::Counter, move |counters| {
            ExtraRead::ByWord("reason", Box::new(move || field(of(&counters)).iter().collect()))
        });
    };
    by_reason("millrace_connections_refused_total", "Connections reset at once.", |connections| &connections.refused);
    by_reason("millrace_connections_closed_total", "Connections closed.", |connections| &connections.closed);
}

/// One receiver's counters on one lane, on their way to the page.
struct Shown<'a, C> {
    metrics: &'a Metrics,
    lane: u32,
    source: &'a SourceCounters,
    counters: &'a Arc<C>,
}

impl<C: Send + Sync + 'static> Shown<'_, C> {
    fn add(&self, name: &'static str, help: &'static str, kind: ExtraKind, read: impl FnOnce(Arc<C>) -> ExtraRead) {
        let labels = vec![("lane", self.lane.to_string()), ("source", self.source.source.clone())];
        self.metrics.add_extra(Extra { name, help, kind, labels, read: read(self.counters.clone()) });
    }

    fn one(&self, name: &'static str, help: &'static str, of: fn(&C) -> &Counter) {
        self.add(name, help, ExtraKind::Counter, |counters| ExtraRead::One(Box::new(move || of(&counters).get())));
    }

    fn by(&self, name: &'static str, help: &'static str, label: &'static str, of: fn(&C) -> &ByLabel) {
        self.add(name, help, ExtraKind::Counter, |counters| {
            ExtraRead::ByWord(label, Box::new(move || of(&counters).iter().collect()))
        });
    }
}
