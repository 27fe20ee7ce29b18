//! The appliance under an operator: started, watched, reloaded and stopped by signals, and known to systemd.
//!
//! The calling thread does nothing else: once a second it looks at the reactors' turns, tells systemd that every thread
//! lives (or does not, and then systemd restarts us), and waits for a signal or for the API to ask for a reload.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded, select};

use super::appliance::{Appliance, StartError};
use super::reload::{Load, Reloader};
use crate::config::{Config, Loaded};
use crate::serve::{ReloadAnswer, ReloadRequest};
use crate::sys::clock;
use crate::sys::signals::{self, Request};
use crate::sys::systemd::{self, Notifier};

/// Time between looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// More time to stop in than systemd's own limit, asked for again and again while the destinations still send.
const STOP_EXTENSION: Duration = Duration::from_secs(10);

/// The longest reload that does not count as a hang: plugins are compiled, and names resolved that nobody knows.
const RELOAD_LIMIT: Duration = Duration::from_mins(5);

/// What asks the thread to do something.
struct Asked {
    signals: Receiver<Request>,
    api: Receiver<ReloadRequest>,
}

/// Runs until a signal asks for the end; `load` reads the configuration again. Errors: what keeps it from starting, or from
/// going on.
pub fn run(loaded: Loaded, load: &Load<'_>) -> Result<(), StartError> {
    let environment = |name: &str| std::env::var(name).ok();
    let inherited = systemd::inherited(&environment)?;
    let notifier = Notifier::from_environment(&environment);
    let signals = signals::watch()?;
    let (mut appliance, api) = Appliance::start_reloadable(&loaded.config, inherited)?;
    announce(&loaded.config, &appliance);
    let mut reloader = Reloader::new(loaded, load, &appliance);
    notifier.ready(&appliance.health.summary());
    let asked = Asked { signals, api };
    let failed = serve(&mut appliance, &mut reloader, &notifier, &asked);
    // Whoever still asks for a reload is told that there is none.
    let Asked { signals, api } = asked;
    drop(api);
    tracing::info!("stopping: what was received becomes durable, then the destinations have their time");
    notifier.stopping("draining");
    let hurry = || matches!(signals.try_recv(), Ok(Request::StopNow));
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
fn serve(appliance: &mut Appliance, reloader: &mut Reloader<'_>, notifier: &Notifier, asked: &Asked) -> bool {
    let interval = notifier.watchdog_interval().map_or(INTERVAL, |watchdog| watchdog.min(INTERVAL));
    loop {
        select! {
            recv(asked.signals) -> request => match request {
                Ok(Request::Reload) => drop(reload(appliance, reloader, notifier, false)),
                Ok(Request::Stop | Request::StopNow) | Err(_) => return false,
            },
            recv(asked.api) -> request => if let Ok(ReloadRequest { dry_run, answer }) = request {
                // Nobody waits any more when the connection has gone; the reload holds all the same.
                answer.send(reload(appliance, reloader, notifier, dry_run)).ok();
            },
            default(interval) => {}
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

/// One reload, of which systemd is told.
fn reload(appliance: &mut Appliance, reloader: &mut Reloader<'_>, notifier: &Notifier, dry_run: bool) -> ReloadAnswer {
    let interval = notifier.watchdog_interval().map_or(INTERVAL, |watchdog| watchdog.min(INTERVAL));
    let (health, mut look) = (appliance.health.clone(), appliance.look_meanwhile());
    let mut alive = || {
        let now = clock::monotonic();
        look(now);
        if health.live(now).yes {
            notifier.alive();
        }
    };
    let times = (interval, RELOAD_LIMIT);
    if dry_run {
        return meanwhile(times, &mut alive, || reloader.reload(appliance, true));
    }
    notifier.reloading(clock::since_boot());
    let answer = meanwhile(times, &mut alive, || reloader.reload(appliance, false));
    notifier.ready(&appliance.health.summary());
    answer
}

/// Does something, and calls `alive` in every interval while it takes its time, up to a limit: beyond that it hangs.
fn meanwhile<T>(
    (interval, limit): (Duration, Duration),
    alive: &mut (dyn FnMut() + Send),
    work: impl FnOnce() -> T,
) -> T {
    let (done, is_done) = bounded::<()>(0);
    thread::scope(|scope| {
        let watch = move || {
            let mut waited = Duration::ZERO;
            while waited < limit && is_done.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                waited += interval;
                alive();
            }
        };
        if let Err(error) = thread::Builder::new().name("reload".to_owned()).spawn_scoped(scope, watch) {
            tracing::warn!(%error, "no thread says that the process lives while it reloads");
        }
        let worked = work();
        drop(done);
        worked
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_are_given_while_something_takes_its_time_and_not_for_ever() {
        let second = Duration::from_secs(1);
        assert_eq!(meanwhile((60 * second, 60 * second), &mut || panic!("it took no time"), || 7), 7);
        let (sign, signs) = bounded(9);
        let mut given = 0;
        let mut alive = || {
            given += 1;
            sign.send(()).unwrap();
        };
        let tick = Duration::from_millis(1);
        meanwhile((tick, 3 * tick), &mut alive, || {
            (0..3).for_each(|_| signs.recv_timeout(20 * second).unwrap());
            assert!(signs.recv_timeout(50 * tick).is_err(), "it hangs");
        });
        assert_eq!(given, 3);
    }
}
