//! The clock of the guests: a thread that advances the epoch every millisecond while any of them runs.
//!
//! That alone stops nobody: it makes running guests look at their processor time (`sandbox`). When none has run for a while
//! the thread sleeps until one does, so that plugins cost nothing where no spans come. Who enters first counts itself and
//! then looks for a sleeper, who goes to sleep first says so and then looks at the count (`sys::handshake`).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crate::sys::handshake::Parked;

/// How often running plugins look at their processor time: half of what the shortest budget may be overdrawn by.
const TICK: Duration = Duration::from_millis(1);

/// Ticks in a row at which no guest ran, before the thread sleeps: under load it never does.
const QUIET_TICKS: u32 = 100;

/// The guests that run.
#[derive(Debug, Default)]
pub(super) struct Running {
    count: AtomicUsize,
    parked: Parked,
    ticker: OnceLock<Thread>,
}

/// One that runs, for as long as this lives.
#[derive(Debug)]
#[must_use]
pub(super) struct Guest(Arc<Running>);

impl Running {
    /// A guest begins to run: time passes for it.
    pub(super) fn enter(self: &Arc<Running>) -> Guest {
        // Relaxed: the handshake publishes it.
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.parked.wake() {
            self.ticker.get().inspect(|ticker| ticker.unpark());
        }
        Guest(Arc::clone(self))
    }

    fn any(&self) -> bool {
        // Relaxed: a number that publishes nothing; before the thread sleeps the handshake makes it current.
        self.count.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Relaxed: seen late, it costs a tick.
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
pub(super) struct Ticker {
    running: Arc<Running>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread, which calls `advance` at every tick. Fails when the system has no thread to give.
    pub(super) fn start(advance: impl Fn() + Send + 'static) -> io::Result<Ticker> {
        let (running, stop) = (Arc::new(Running::default()), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&running), Arc::clone(&stop));
        let thread =
            thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || tick(&seen, &stopped, &advance))?;
        running.ticker.get_or_init(|| thread.thread().clone());
        Ok(Ticker { running, stop, thread: Some(thread) })
    }

    /// Where guests enter.
    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // Relaxed: the thread is joined below.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does nothing that could panic.
            thread.join().ok();
        }
    }
}

/// The thread's body.
fn tick(running: &Running, stop: &AtomicBool, advance: &dyn Fn()) {
    let mut quiet = 0;
    // Relaxed: a flag that publishes nothing; `drop` unparks the thread after setting it.
    while !stop.load(Ordering::Relaxed) {
        if quiet < QUIET_TICKS {
            thread::park_timeout(TICK);
        } else {
            quiet = 0;
            running.parked.park();
            if !running.any() {
                thread::park();
            }
        }
        advance();
        quiet = if running.any() { 0 } else { quiet + 1 };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn time_passes_while_a_guest_runs_and_only_then() {
        let (advance, advanced) = mpsc::channel();
        let ticker = Ticker::start(move || advance.send(()).unwrap()).unwrap();
        let passes = |within| advanced.recv_timeout(Duration::from_millis(within)).is_ok();
        for _ in 0..3 {
            let (guest, other) = (ticker.running().enter(), ticker.running().enter());
            drop(other);
            assert!((0..3 * QUIET_TICKS).all(|_| passes(20_000)), "it sleeps though a guest runs");
            drop(guest);
            assert!(!(0..3 * QUIET_TICKS).all(|_| passes(500)), "it does not sleep though no guest runs");
        }
    }
}
