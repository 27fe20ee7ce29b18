//! The clock of the guests: a thread that advances the epoch every millisecond while any of them runs.
//!
//! That alone stops nobody: it makes running guests look at their processor time (`sandbox`). When none has run for a while
//! the thread sleeps until one does, so that plugins cost nothing where no spans come. Who enters first counts itself and
//! then looks for a sleeper, who goes to sleep first says so and then looks at the count (`sys::handshake`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::handshake::Parked;

/// How often running plugins look at their processor time: half of what the shortest budget may be overdrawn by.
const TICK: Duration = Duration::from_millis(1);

/// Ticks in a row at which no guest ran, before the thread sleeps: under load it hardly ever does.
const QUIET_TICKS: u32 = 100;

/// The guests that run.
#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    parked: Parked,
}

/// One that runs, for as long as this lives.
#[derive(Debug)]
#[must_use]
pub(super) struct Guest(Arc<Running>);

impl Running {
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

/// See the module. It ends with the last of those who hold it: the engine, and all whose guests may run.
#[derive(Debug)]
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
        Ok(Ticker { running, stop, thread: Some(thread) })
    }

    /// A guest begins to run: time passes for it.
    pub(super) fn enter(&self) -> Guest {
        // Relaxed: the handshake publishes it.
        self.running.count.fetch_add(1, Ordering::Relaxed);
        if self.running.parked.wake() {
            self.thread.as_ref().inspect(|thread| thread.thread().unpark());
        }
        Guest(Arc::clone(&self.running))
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
            let (guest, other) = (ticker.enter(), ticker.enter());
            drop(other);
            assert!((0..3 * QUIET_TICKS).all(|_| passes(20_000)), "it sleeps though a guest runs");
            drop(guest);
            assert!((0..10_000).any(|_| !passes(500)), "it does not sleep though no guest runs");
        }
    }
}
