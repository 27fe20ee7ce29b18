//! The one place where the demo meets the appliance: start it on given addresses, read its ledger, stop it.
//!
//! The appliance is configured as any other, by the variables of the ProxyTrace service; only what has no variable (the
//! size of the log, so that the demo fits into a temporary directory) is set on the checked types.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::config::{self, Config, Host, Inputs};
use crate::pipeline::appliance::Appliance;
use crate::telemetry::ledger::{DestinationTotals, LaneTotals};
use crate::telemetry::metrics::Metrics;

/// Bytes of a segment, and of the whole log.
const SEGMENT_BYTES: u64 = 16 << 20;
const LOG_BYTES: u64 = 512 << 20;

/// Readings of the ledger until one balances.
const READINGS: usize = 100;

/// Where the demo wants everything.
pub(super) struct Places<'a> {
    /// The log and the cursors.
    pub(super) state_directory: &'a Path,
    /// uberAgent's rows over TCP.
    pub(super) rows: SocketAddr,
    /// `/metrics` and health.
    pub(super) management: SocketAddr,
    /// Who takes the spans.
    pub(super) backend: SocketAddr,
    /// No usual port for the other receivers either.
    pub(super) any_ports: bool,
}

/// The front balance over all sources, in records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrontTotals {
    /// Records received.
    pub(super) received: u64,
    /// Refused with an answer.
    pub(super) rejected: u64,
    /// Not wanted.
    pub(super) filtered: u64,
    /// Kept aside.
    pub(super) dead_lettered: u64,
    /// Became a span.
    pub(super) encoded: u64,
}

/// The three balances over all sources, lanes and destinations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// In records.
    pub(super) front: FrontTotals,
    /// In spans.
    pub(super) lane: LaneTotals,
    /// In spans.
    pub(super) destination: DestinationTotals,
}

impl Totals {
    /// What is not accounted for at the front, in the lanes and at the destination; zeros at rest.
    pub(super) fn imbalances(&self) -> [i128; 3] {
        let front = &self.front;
        let left = front.rejected + front.filtered + front.dead_lettered + front.encoded;
        [
            i128::from(front.received) - i128::from(left),
            self.lane.imbalance(),
            i128::from(self.lane.appended) - i128::from(self.destination.settled()),
        ]
    }
}

/// A running appliance.
pub(super) struct Running {
    appliance: Appliance,
    metrics: Arc<Metrics>,
}

/// Starts an appliance in this process.
pub(super) fn start(places: &Places<'_>) -> Result<Running> {
    let appliance = Appliance::start(&configuration(places)?, Vec::new())?;
    let metrics = appliance.metrics.clone();
    Ok(Running { appliance, metrics })
}

fn configuration(places: &Places<'_>) -> Result<Config> {
    let variable = |name: &str| match name {
        "STATE_DIRECTORY" => Some(places.state_directory.display().to_string()),
        "LISTEN_HOST" => Some(places.rows.ip().to_string()),
        "LISTEN_PORT" => Some(places.rows.port().to_string()),
        "METRICS_PORT" => Some(places.management.port().to_string()),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("http://{}/v1/traces", places.backend)),
        _ => None,
    };
    let nobody = |_: &str| Vec::new();
    let is_local = |address: IpAddr| address.is_loopback();
    let inputs = Inputs {
        file: None,
        environment: &variable,
        flags: &[],
        proxytrace: false,
        host: Host { resolve: &nobody, is_local: &is_local },
    };
    let mut config = config::load(&inputs)?.config;
    config.management = places.management;
    config.queue.segment_bytes = SEGMENT_BYTES;
    config.queue.max_bytes = LOG_BYTES;
    for receiver in &mut config.receivers {
        let usual = receiver.listen.port();
        let is_for_rows = usual == places.rows.port();
        receiver.listen = if is_for_rows { places.rows } else { super::address(usual, places.any_ports)? };
    }
    Ok(config)
}

impl Running {
    /// The ledger now. Both sides of a balance are a turn apart for a moment, so a reading that does not balance is
    /// taken again; one that never does is shown as it is.
    pub(super) fn totals(&self) -> Totals {
        totals(&self.metrics)
    }

    /// Drains and stops the appliance. Returns the ledger at rest.
    pub(super) fn stop(self) -> Totals {
        self.appliance.stop(&|| false, &|| ());
        totals(&self.metrics)
    }
}

fn totals(metrics: &Metrics) -> Totals {
    let mut totals = read(metrics);
    for _ in 0..READINGS {
        if totals.imbalances()[..2] == [0, 0] {
            break;
        }
        std::thread::yield_now();
        totals = read(metrics);
    }
    totals
}

fn read(metrics: &Metrics) -> Totals {
    let mut totals = Totals::default();
    for front in metrics.fronts() {
        totals.front.received += front.received.get();
        totals.front.rejected += front.rejected.get();
        totals.front.filtered += front.filtered.get();
        totals.front.dead_lettered += front.dead_lettered.get();
        totals.front.encoded += front.encoded.get();
    }
    for lane in metrics.lanes() {
        let lane = lane.snapshot();
        totals.lane.encoded += lane.encoded;
        totals.lane.passed += lane.passed;
        totals.lane.synthesised += lane.synthesised;
        totals.lane.transform_dropped += lane.transform_dropped;
        totals.lane.refused += lane.refused;
        totals.lane.appended += lane.appended;
    }
    for destination in metrics.destinations() {
        let destination = destination.snapshot();
        totals.destination.delivered += destination.delivered;
        totals.destination.refused_by_peer += destination.refused_by_peer;
        totals.destination.dead_lettered += destination.dead_lettered;
        for (sum, dropped) in totals.destination.dropped.iter_mut().zip(destination.dropped) {
            *sum += dropped;
        }
        totals.destination.lost += destination.lost;
        totals.destination.skipped_at_start += destination.skipped_at_start;
        totals.destination.redelivered += destination.redelivered;
    }
    totals
}
