//! An appliance in the process, with small limits and ports that the kernel chooses, and its ledger as a test reads it.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use millrace::config::{self, Backend, Compression, Config, Exporter, Host, Inputs, Protocol};
use millrace::pipeline::appliance::Appliance;
use millrace::sys::clock;
use millrace::sys::systemd::Inherited;
use millrace::telemetry::ledger::{DestinationTotals, DropReason};
use millrace::telemetry::metrics::{Imbalances, Metrics};

/// Nothing here takes longer on a machine that works.
pub(crate) const LIMIT: Duration = Duration::from_secs(25);

pub(crate) const SEGMENT_BYTES: u64 = 2 << 20;
pub(crate) const LOG_BYTES: u64 = 12 << 20;

/// Any free port of loopback.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A configuration of one lane with a log of six segments, without destinations.
pub(crate) fn config(state_directory: &Path) -> Config {
    let variable = |name: &str| match name {
        "STATE_DIRECTORY" => Some(state_directory.display().to_string()),
        // The template of every destination: see `exporter`.
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://127.0.0.1:9/v1/traces".to_owned()),
        _ => None,
    };
    let nobody = |_: &str| Vec::new();
    let is_local = |address: IpAddr| address.is_loopback();
    let host = Host { resolve: &nobody, is_local: &is_local };
    let inputs = Inputs { file: None, environment: &variable, flags: &[], proxytrace: false, host };
    let mut config = config::load(&inputs).expect("a good configuration").config;
    config.lanes = Some(1);
    config.management = ANY;
    for receiver in &mut config.receivers {
        receiver.listen = ANY;
        if let Protocol::UberagentTcp(limits) = &mut receiver.protocol {
            // Senders are slowed for as long as it takes, never sent away.
            limits.pause_limit = 10 * LIMIT;
        }
    }
    config.queue.segment_bytes = SEGMENT_BYTES;
    config.queue.pool_segments = 2;
    config.queue.max_bytes = LOG_BYTES;
    config.queue.reserve_bytes = 0;
    config.queue.max_spans_in_memory = 2000;
    config.drain_timeout = Duration::from_millis(500);
    let mut template = config.exporters.remove(0);
    template.retry.initial = Duration::from_millis(20);
    template.retry.max = Duration::from_millis(100);
    config.exporters = vec![template];
    config
}

/// A destination like the configuration's own, under this name, at this address.
pub(crate) fn exporter(config: &Config, name: &str, backend: SocketAddr) -> Exporter {
    let mut exporter = config.exporters[0].clone();
    exporter.name = name.to_owned();
    let Backend::OtlpHttp(otlp) = &mut exporter.backend else { panic!("the default destination speaks OTLP") };
    otlp.traces_url = format!("http://{backend}/v1/traces");
    otlp.http.compression = Compression::None;
    exporter
}

/// Waits until `is_so`; panics with what was waited for.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = clock::monotonic() + LIMIT;
    while !is_so() {
        assert!(clock::monotonic() < end, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A running appliance.
pub(crate) struct Rig {
    appliance: RefCell<Appliance>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Rig {
    pub(crate) fn start(config: &Config) -> Rig {
        Rig::start_inheriting(config, Vec::new())
    }

    /// As [`Rig::start`], with sockets that were passed in.
    pub(crate) fn start_inheriting(config: &Config, inherited: Vec<Inherited>) -> Rig {
        let appliance = Appliance::start(config, inherited).expect("the appliance starts");
        let metrics = Arc::clone(&appliance.metrics);
        Rig { appliance: RefCell::new(appliance), metrics }
    }

    /// Why an appliance does not start.
    #[cfg(feature = "plugins")]
    pub(crate) fn refusal(config: &Config) -> String {
        Appliance::start(config, Vec::new()).map(drop).expect_err("it does not start").to_string()
    }

    /// What the operator's thread does once a second.
    pub(crate) fn look(&self, now: Duration) {
        self.appliance.borrow_mut().look(now);
    }

    /// Puts another configuration into force; what is wrong with it, if it is not.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), String> {
        self.renew(config).map(drop)
    }

    /// The same; what is new that no setting shows.
    pub(crate) fn renew(&self, config: &Config) -> Result<Vec<String>, String> {
        self.appliance.borrow_mut().reload(config, false).map_err(|error| error.to_string())
    }

    /// Where the management port listens.
    pub(crate) fn management(&self) -> SocketAddr {
        self.appliance.borrow().management()
    }

    /// Where the receiver whose name starts so listens.
    pub(crate) fn receiver(&self, name: &str) -> SocketAddr {
        let appliance = self.appliance.borrow();
        let mut receivers = appliance.receivers().into_iter();
        receivers.find(|(receiver, _)| receiver.starts_with(name)).expect("a receiver of that name").1
    }

    /// Stops it; how long that took.
    pub(crate) fn stop(self) -> Duration {
        let began = clock::monotonic();
        self.appliance.into_inner().stop(&|| false, &|| ());
        clock::monotonic() - began
    }

    /// Spans in the log, ever.
    pub(crate) fn appended(&self) -> u64 {
        appended(&self.metrics)
    }

    /// Records received.
    pub(crate) fn received(&self) -> u64 {
        self.metrics.fronts().iter().map(|front| front.received.get()).sum()
    }

    /// The destinations' balances, in the order of the configuration.
    pub(crate) fn destination(&self, index: usize) -> DestinationTotals {
        self.metrics.destinations()[index].snapshot()
    }

    /// Waits until nothing moves and everything balances.
    pub(crate) fn rest(&self) {
        let mut last = (0, 0);
        let mut same = 0;
        until("rest", || {
            let now = (self.received(), self.appended());
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same > 20 && self.imbalances() == Imbalances::default()
        });
    }

    pub(crate) fn imbalances(&self) -> Imbalances {
        self.metrics.imbalances()
    }

    /// Waits until the log takes nothing more.
    pub(crate) fn full(&self) {
        let (mut last, mut since) = (0, clock::monotonic());
        until("a full log", || {
            let (appended, now) = (self.appended(), clock::monotonic());
            if appended != last {
                (last, since) = (appended, now);
            }
            last > 0 && now - since > Duration::from_millis(700)
        });
    }
}

pub(crate) fn appended(metrics: &Metrics) -> u64 {
    metrics.lanes().iter().map(|lane| lane.appended.get()).sum()
}

/// Spans dropped for this reason.
pub(crate) fn dropped(totals: &DestinationTotals, reason: DropReason) -> u64 {
    totals.dropped[reason as usize]
}
