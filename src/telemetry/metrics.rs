//! The text of `/metrics`: counters of the ledger, read when somebody asks.
//!
//! The six metrics of ProxyTrace keep their exact names and types; ours start with `millrace_`, in base units, one name
//! for all outcomes of a balance with the outcome as label. Threads count in their own atomics and know nothing of this
//! module: [`Metrics`] holds the same `Arc`s and sets the exporter's counters to absolute values at each scrape. Only
//! `batch_latency_seconds` is recorded as it happens, through [`Metrics::batch_latency`], once a request.
//! Label values come from the configuration or from fixed sets, never from peers.

mod disk;
mod drops;
mod plugins;
mod rates;
mod status;
mod words;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Histogram, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use rates::Rates;

use super::ledger::{Counter, Destination, DropReason, Front, Lane};
use super::moment::Moment;

pub use disk::{DiskFigures, DiskRead, LogFigures, LogSource, Watermark};
pub use drops::DropsRead;
pub use plugins::{PluginFigures, PluginPlace, PluginSource};
pub use words::{Trouble, TroubleKind, Words};

/// A front balance with its labels.
#[derive(Clone, Debug)]
pub struct FrontSource {
    /// The lane's number.
    pub lane: u32,
    /// `reactor` or `gateway`.
    pub producer: &'static str,
    /// The receiver's name.
    pub source: String,
    /// The counters.
    pub counters: Arc<Front>,
}

/// A lane balance with its label.
#[derive(Clone, Debug)]
pub struct LaneSource {
    /// The lane's number.
    pub lane: u32,
    /// The counters.
    pub counters: Arc<Lane>,
}

/// A destination's balance and state with its label.
#[derive(Clone, Debug)]
pub struct DestinationSource {
    /// The exporter's name.
    pub name: String,
    /// The counters.
    pub counters: Arc<Destination>,
    /// What is true of it now.
    pub gauges: Arc<DestinationGauges>,
}

/// What is true of a destination now; written by its own thread.
#[derive(Debug, Default)]
pub struct DestinationGauges {
    /// Spans in the log that it has not settled: counted from the log, not from the balance that it closes.
    pub in_queue: Counter,
    /// Bytes of the log that it has not settled.
    pub lag_bytes: Counter,
    /// Requests under way.
    pub in_flight: Counter,
    /// 0 closed, 1 half open, 2 open.
    pub breaker: Counter,
    /// 1 while it waits for an operator: the backend refuses us.
    pub held: Counter,
    /// Receive time of the oldest block that it has not settled, Unix nanoseconds; 0 when there is none.
    pub oldest_ns: Counter,
    /// What there is to say of it; its thread writes it when it changes.
    pub words: Mutex<Words>,
    /// 1 while it is not in the configuration any more and its place is kept.
    pub parked: Counter,
}

/// One more number: its name, help and labels, and how it is read at a scrape.
pub struct Extra {
    /// Its full name, `millrace_...`; a counter's ends in `_total`.
    pub name: &'static str,
    /// Its help.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: ExtraKind,
    /// Its labels.
    pub labels: Vec<(&'static str, String)>,
    /// Reads it.
    pub read: ExtraRead,
}

/// How an [`Extra`] is read.
pub enum ExtraRead {
    /// One number.
    One(Box<dyn Fn() -> u64 + Send>),
    /// A number for each word of a small fixed set that was met so far, under a further label.
    ByWord(&'static str, Box<dyn Fn() -> Vec<(&'static str, u64)> + Send>),
    /// As `ByWord`, of names that somebody has chosen who may choose a few.
    ByName(&'static str, Box<dyn Fn() -> Vec<(String, u64)> + Send>),
}

/// What an [`Extra`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraKind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// What came in and is not accounted for, summed; all 0 at rest or the ledger is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imbalances {
    /// In records, over all fronts.
    pub front: i128,
    /// In spans, over all lanes.
    pub lane: i128,
    /// In spans, over all destinations.
    pub destination: i128,
}

/// Everything that is shown under `/metrics`.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    batch_latency: Histogram,
    sources: Mutex<Sources>,
    rates: Mutex<Rates>,
}

#[derive(Default)]
struct Sources {
    fronts: Vec<FrontSource>,
    lanes: Vec<LaneSource>,
    destinations: Vec<DestinationSource>,
    logs: Vec<LogSource>,
    disk: Option<DiskRead>,
    drops: Option<DropsRead>,
    /// When the last upkeep was.
    at: Moment,
    extras: Vec<Extra>,
    /// By [`PluginPlace`].
    plugins: [Vec<PluginSource>; 3],
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Metrics that show nothing of ours yet.
    #[must_use]
    pub fn new() -> Metrics {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let batch_latency = metrics::with_local_recorder(&recorder, || {
            describe();
            gauge!("millrace_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            histogram!("batch_latency_seconds")
        });
        Metrics { recorder, handle, batch_latency, sources: Mutex::default(), rates: Mutex::default() }
    }

    /// Shows a front from now on.
    pub fn add_front(&self, front: FrontSource) {
        self.sources().fronts.push(front);
    }

    /// Shows a lane from now on.
    pub fn add_lane(&self, lane: LaneSource) {
        self.sources().lanes.push(lane);
    }

    /// Shows a destination from now on.
    pub fn add_destination(&self, destination: DestinationSource) {
        self.sources().destinations.push(destination);
    }

    /// Shows a lane's log from now on.
    pub fn add_log(&self, log: LogSource) {
        self.sources().logs.push(log);
    }

    /// Shows the disk budget from now on.
    pub fn show_disk(&self, read: DiskRead) {
        self.sources().disk = Some(read);
    }

    /// A destination is forgotten: its counters stay at what they are now, nothing waits for it, nothing is in balance.
    pub fn end_destination(&self, name: &str) {
        let sources = &mut *self.sources();
        let mut ended = Sources { lanes: sources.lanes.clone(), ..Sources::default() };
        ended.destinations.extend(sources.destinations.extract_if(.., |destination| destination.name == name));
        for DestinationSource { gauges, .. } in &ended.destinations {
            let DestinationGauges { in_queue, lag_bytes, in_flight, breaker, held, oldest_ns, parked, words: _ } =
                &**gauges;
            [in_queue, lag_bytes, in_flight, breaker, held, oldest_ns, parked].iter().for_each(|gauge| gauge.set(0));
        }
        metrics::with_local_recorder(&self.recorder, || {
            ended.show_destinations();
            gauge!("millrace_destination_imbalance_spans", "destination" => name.to_owned()).set(0.0);
        });
    }

    /// Shows one more number from now on.
    pub fn add_extra(&self, extra: Extra) {
        metrics::with_local_recorder(&self.recorder, || match extra.kind {
            ExtraKind::Counter => describe_counter!(extra.name, extra.help),
            ExtraKind::Gauge => describe_gauge!(extra.name, extra.help),
        });
        self.sources().extras.push(extra);
    }

    /// Where exporter threads record the seconds that each request took.
    pub fn batch_latency(&self) -> Histogram {
        self.batch_latency.clone()
    }

    /// Folds what was recorded into the summary and takes a sample for the rates. To be called about once a second, or
    /// nobody scraping would be a leak.
    pub fn upkeep(&self, at: Moment) {
        self.handle.run_upkeep();
        let mut sources = self.sources();
        sources.at = at;
        let counts = sources.counts();
        drop(sources);
        self.rates().sample(at.now, counts);
    }

    /// The page in Prometheus text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let sources = self.sources();
        metrics::with_local_recorder(&self.recorder, || {
            sources.show_seed();
            sources.show_fronts();
            sources.show_lanes();
            sources.show_destinations();
            disk::show(&sources.logs, sources.disk.as_ref());
            sources.show_dropped();
            sources.show_extras();
        });
        self.handle.render()
    }

    /// The three balances now. Only at rest are they exact: counters of different threads are read one after another.
    #[must_use]
    pub fn imbalances(&self) -> Imbalances {
        let sources = self.sources();
        Imbalances {
            front: sources.fronts.iter().map(|front| front_imbalance(&front.counters)).sum(),
            lane: sources.lanes.iter().map(|lane| lane.counters.snapshot().imbalance()).sum(),
            destination: sources.destinations.iter().map(|destination| sources.imbalance_of(destination)).sum(),
        }
    }

    /// The front balances shown.
    #[must_use]
    pub fn fronts(&self) -> Vec<Arc<Front>> {
        self.sources().fronts.iter().map(|front| front.counters.clone()).collect()
    }

    /// The lane balances shown.
    #[must_use]
    pub fn lanes(&self) -> Vec<Arc<Lane>> {
        self.sources().lanes.iter().map(|lane| lane.counters.clone()).collect()
    }

    /// The destination balances shown.
    #[must_use]
    pub fn destinations(&self) -> Vec<Arc<Destination>> {
        self.sources().destinations.iter().map(|destination| destination.counters.clone()).collect()
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        // A panic while showing numbers leaves them as good as they were.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    /// ProxyTrace's own six; the sixth, `batch_latency_seconds`, is recorded as it happens.
    fn show_seed(&self) {
        let fronts = |of: fn(&Front) -> &Counter| self.fronts.iter().map(|front| of(&front.counters).get()).sum();
        let destinations = |of: fn(&Destination) -> &Counter| {
            self.destinations.iter().map(|destination| of(&destination.counters).get()).sum()
        };
        counter!("records_received_total").absolute(fronts(|front| &front.received));
        counter!("records_parsed_total").absolute(fronts(|front| &front.encoded));
        counter!("batches_sent_total").absolute(destinations(|destination| &destination.requests_sent));
        counter!("export_failures_total").absolute(destinations(|destination| &destination.request_failures));
        // Destinations read one log: the queue is as long as the slowest of them has still to go.
        let waiting = self.destinations.iter().map(|destination| destination.gauges.in_queue.get()).max();
        gauge!("span_queue_size").set(float(waiting.unwrap_or(0)));
    }

    fn show_fronts(&self) {
        for FrontSource { lane, producer, source, counters } in &self.fronts {
            let labels = vec![
                Label::new("lane", lane.to_string()),
                Label::from_static_parts("producer", producer),
                Label::new("source", source.clone()),
            ];
            counter!("millrace_front_received_records_total", labels.clone()).absolute(counters.received.get());
            for (outcome, counter) in [
                ("rejected", &counters.rejected),
                ("filtered", &counters.filtered),
                ("dead_lettered", &counters.dead_lettered),
                ("encoded", &counters.encoded),
            ] {
                let labels = with(&labels, "outcome", outcome);
                counter!("millrace_front_records_total", labels).absolute(counter.get());
            }
            for (outcome, counter) in [("passed", &counters.spans_passed), ("rejected", &counters.spans_rejected)] {
                counter!("millrace_front_spans_total", with(&labels, "outcome", outcome)).absolute(counter.get());
            }
            counter!("millrace_front_received_bytes_total", labels.clone()).absolute(counters.received_bytes.get());
            counter!("millrace_front_dropped_fields_total", labels.clone()).absolute(counters.fields_dropped.get());
            counter!("millrace_front_refused_requests_total", labels.clone()).absolute(counters.requests_refused.get());
            gauge!("millrace_front_imbalance_records", labels).set(signed(front_imbalance(counters)));
        }
    }

    fn show_lanes(&self) {
        for LaneSource { lane, counters } in &self.lanes {
            let labels = vec![Label::new("lane", lane.to_string())];
            for (origin, counter) in
                [("encoded", &counters.encoded), ("passed", &counters.passed), ("synthesised", &counters.synthesised)]
            {
                counter!("millrace_lane_received_spans_total", with(&labels, "origin", origin)).absolute(counter.get());
            }
            for (outcome, counter) in [
                ("transform_dropped", &counters.transform_dropped),
                ("refused", &counters.refused),
                ("appended", &counters.appended),
            ] {
                counter!("millrace_lane_spans_total", with(&labels, "outcome", outcome)).absolute(counter.get());
            }
            counter!("millrace_lane_appended_blocks_total", labels.clone()).absolute(counters.appended_blocks.get());
            counter!("millrace_lane_appended_bytes_total", labels.clone()).absolute(counters.appended_bytes.get());
            gauge!("millrace_lane_imbalance_spans", labels).set(signed(counters.snapshot().imbalance()));
        }
    }

    fn show_destinations(&self) {
        for destination in &self.destinations {
            let DestinationSource { name, counters, gauges } = destination;
            let labels = vec![Label::new("destination", name.clone())];
            for (outcome, counter) in [
                ("delivered", &counters.delivered),
                ("refused_by_peer", &counters.refused_by_peer),
                ("dead_lettered", &counters.dead_lettered),
                ("lost", &counters.lost),
                ("skipped_at_start", &counters.skipped_at_start),
            ] {
                counter!("millrace_destination_spans_total", with(&labels, "outcome", outcome)).absolute(counter.get());
            }
            for reason in DropReason::ALL {
                let labels = with(&labels, "reason", reason.label());
                let dropped = counters.dropped[reason as usize].get();
                counter!("millrace_destination_dropped_spans_total", labels).absolute(dropped);
            }
            counter!("millrace_destination_redelivered_spans_total", labels.clone())
                .absolute(counters.redelivered.get());
            for (outcome, counter) in [("accepted", &counters.requests_sent), ("failed", &counters.request_failures)] {
                counter!("millrace_destination_requests_total", with(&labels, "outcome", outcome))
                    .absolute(counter.get());
            }
            for (state, number) in [("closed", 0), ("half_open", 1), ("open", 2)] {
                let is_now = gauges.breaker.get() == number;
                gauge!("millrace_destination_breaker_state", with(&labels, "state", state)).set(f64::from(is_now));
            }
            gauge!("millrace_destination_held", labels.clone()).set(float(gauges.held.get()));
            gauge!("millrace_destination_parked", labels.clone()).set(float(gauges.parked.get()));
            gauge!("millrace_destination_in_flight_requests", labels.clone()).set(float(gauges.in_flight.get()));
            gauge!("millrace_destination_in_queue_spans", labels.clone()).set(float(gauges.in_queue.get()));
            gauge!("millrace_destination_lag_spans", labels.clone()).set(float(gauges.in_queue.get()));
            gauge!("millrace_destination_lag_bytes", labels.clone()).set(float(gauges.lag_bytes.get()));
            let lag = gauges.lag(self.at.wall_ns).as_secs_f64();
            gauge!("millrace_destination_lag_seconds", labels.clone()).set(lag);
            let failed = gauges.failed_seconds(self.at);
            gauge!("millrace_destination_last_error_timestamp_seconds", labels.clone()).set(float(failed));
            gauge!("millrace_destination_imbalance_spans", labels).set(signed(self.imbalance_of(destination)));
        }
    }

    fn show_extras(&self) {
        for extra in &self.extras {
            let labels: Vec<Label> = extra.labels.iter().map(|(key, value)| Label::new(*key, value.clone())).collect();
            let show = |labels, value| match extra.kind {
                ExtraKind::Counter => counter!(extra.name, labels).absolute(value),
                ExtraKind::Gauge => gauge!(extra.name, labels).set(float(value)),
            };
            match &extra.read {
                ExtraRead::One(read) => show(labels, read()),
                ExtraRead::ByWord(label, read) => {
                    for (word, value) in read() {
                        show([labels.clone(), vec![Label::new(*label, word)]].concat(), value);
                    }
                }
                ExtraRead::ByName(label, read) => {
                    for (name, value) in read() {
                        show([labels.clone(), vec![Label::new(*label, name)]].concat(), value);
                    }
                }
            }
        }
    }

    fn imbalance_of(&self, destination: &DestinationSource) -> i128 {
        let appended: i128 = self.lanes.iter().map(|lane| i128::from(lane.counters.appended.get())).sum();
        let settled = destination.counters.snapshot().settled();
        appended - i128::from(settled) - i128::from(destination.gauges.in_queue.get())
    }
}

fn front_imbalance(front: &Front) -> i128 {
    let settled = [&front.rejected, &front.filtered, &front.dead_lettered, &front.encoded];
    i128::from(front.received.get()) - settled.iter().map(|counter| i128::from(counter.get())).sum::<i128>()
}

fn with(labels: &[Label], key: &'static str, value: &'static str) -> Vec<Label> {
    let mut labels = labels.to_vec();
    labels.push(Label::from_static_parts(key, value));
    labels
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
fn signed(value: i128) -> f64 {
    value as f64
}

/// The help of every metric; `tests` compare it with what is shown.
fn describe() {
    describe_counter!("records_received_total", "Total number of records received");
    describe_counter!("records_parsed_total", "Total number of records parsed into spans");
    describe_counter!("batches_sent_total", "Total number of batches successfully sent");
    describe_counter!("export_failures_total", "Total number of batch export failures");
    describe_gauge!("span_queue_size", "Current size of the span queue");
    describe_histogram!("batch_latency_seconds", Unit::Seconds, "Time spent sending batch");
    describe_gauge!("millrace_build_info", "1, with the version of the program");
    describe_counter!("millrace_front_received_records_total", "Records that peers sent whole");
    describe_counter!("millrace_front_records_total", "What became of the records received");
    describe_counter!(
        "millrace_front_spans_total",
        "Spans of requests that are passed through, by what became of them"
    );
    describe_counter!("millrace_front_received_bytes_total", Unit::Bytes, "Bytes read from peers");
    describe_counter!("millrace_front_dropped_fields_total", "Fields dropped from records that were kept");
    describe_counter!("millrace_front_refused_requests_total", "Requests that were answered: try again later");
    describe_gauge!("millrace_front_imbalance_records", "Records received and not accounted for; 0 at rest");
    describe_counter!("millrace_lane_received_spans_total", "Spans that came to the lane, by how they were made");
    describe_counter!("millrace_lane_spans_total", "What became of the spans that came to the lane");
    describe_counter!("millrace_lane_appended_blocks_total", "Blocks appended to the log");
    describe_counter!("millrace_lane_appended_bytes_total", Unit::Bytes, "Payload bytes appended to the log");
    describe_gauge!(
        "millrace_lane_imbalance_spans",
        "Spans that came to the lane and are not accounted for; 0 at rest"
    );
    describe_counter!("millrace_destination_spans_total", "What became of the spans of the log at this destination");
    describe_counter!("millrace_destination_dropped_spans_total", "Spans given up by policy, by reason");
    describe_counter!("millrace_destination_redelivered_spans_total", "Spans sent again after an answer was lost");
    describe_counter!("millrace_destination_requests_total", "Requests, each attempt");
    describe_gauge!("millrace_destination_breaker_state", "1 for the state that the breaker is in");
    describe_gauge!("millrace_destination_held", "1 while the destination waits for an operator");
    describe_gauge!("millrace_destination_parked", "1 while it is not configured any more and its place is kept");
    describe_gauge!("millrace_destination_in_flight_requests", "Requests under way");
    describe_gauge!("millrace_destination_in_queue_spans", "Spans in the log that wait for this destination");
    describe_gauge!("millrace_destination_lag_spans", "As in_queue_spans, beside the lag in bytes and seconds");
    describe_gauge!("millrace_destination_lag_seconds", Unit::Seconds, "Age of the oldest block not delivered");
    describe_gauge!("millrace_destination_last_error_timestamp_seconds", "Unix seconds of its last error; 0: none");
    describe_gauge!("millrace_destination_lag_bytes", Unit::Bytes, "Bytes of the log that wait for this destination");
    describe_gauge!("millrace_destination_imbalance_spans", "Spans of the log not accounted for; 0 at rest");
    disk::describe();
    drops::describe();
}

#[cfg(test)]
mod tests;
