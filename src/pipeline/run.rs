//! The appliance under an operator: started, watched, stopped by signals, and known to systemd.
//!
//! The calling thread does nothing else: once a second it looks at the reactors' turns, tells systemd that every thread
//! lives (or does not, and then systemd restarts us), and waits for a signal.

use std::cell::Cell;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::appliance::{Appliance, StartError};
use crate::config::Config;
use crate::sys::clock;
use crate::sys::signals::{self, Request};
use crate::sys::systemd::{self, Notifier};

/// Time between looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// More time to stop in than systemd's own limit, asked for again and again while the destinations still send.
const STOP_EXTENSION: Duration = Duration::from_secs(10);

/// Runs until a signal asks for the end. Errors: what keeps it from starting, or from going on.
pub fn run(config: &Config) -> Result<(), StartError> {
    let environment = |name: &str| std::env::var(name).ok();
    let inherited = systemd::inherited(&environment)?;
    let notifier = Notifier::from_environment(&environment);
    let requests = signals::watch()?;
    let mut appliance = Appliance::start(config, &inherited)?;
    drop(inherited);
    announce(config, &appliance);
    notifier.ready(&appliance.health.summary());
    let failed = serve(&mut appliance, &notifier, &requests);
    tracing::info!("stopping: what was received becomes durable, then the destinations have their time");
    notifier.stopping("draining");
    let hurry = || matches!(requests.try_recv(), Ok(Request::StopNow));
    let (health, extended_at) = (appliance.health.clone(), Cell::new(Duration::ZERO));
    appliance.stop(&hurry, &|| {
        let now = clock::monotonic();
        if now.saturating_sub(extended_at.get()) >= INTERVAL {
            extended_at.set(now);
            // A stop that hangs is not given more time: systemd ends it.
            if health.live(now).yes {
                notifier.extend_timeout(STOP_EXTENSION);
                notifier.alive();
            }
        }
    });
    tracing::info!("stopped");
    if failed { Err(StartError::StorageFailed) } else { Ok(()) }
}

/// Watches until a stop is asked for, or the log has failed for good: true for that.
fn serve(appliance: &mut Appliance, notifier: &Notifier, requests: &Receiver<Request>) -> bool {
    let interval = notifier.watchdog_interval().map_or(INTERVAL, |watchdog| watchdog.min(INTERVAL));
    loop {
        match requests.recv_timeout(interval) {
            Ok(Request::Stop | Request::StopNow) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(Request::Reload) => {
                tracing::warn!("a reload was asked for; this version reads its configuration at start only")
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = clock::monotonic();
        appliance.look(now);
        if appliance.has_failed() {
            return true;
        }
        if appliance.health.live(now).yes {
            notifier.alive();
        }
        notifier.status(&appliance.health.summary());
    }
}

fn announce(config: &Config, appliance: &Appliance) {
    for (name, address) in appliance.receivers() {
        tracing::info!(receiver = %name, %address, "listening");
    }
    tracing::info!(address = %appliance.management(), "serving /metrics and health");
    if config.exporters.is_empty() {
        tracing::info!(
            retain_seconds = config.queue.retain.as_secs(),
            "no destination is configured: the log keeps what comes, the oldest goes"
        );
    }
    for exporter in &config.exporters {
        tracing::info!(destination = %exporter.name, "delivering");
    }
}
