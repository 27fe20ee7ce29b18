//! Signals as messages: stop, stop at once, reload.
//!
//! SIGTERM and SIGINT ask for a drain; a second one of either skips the time that exporters are given, never the sync of
//! what was received. SIGHUP asks for a reload. A thread of its own waits for them, so that no handler does more than
//! signal-hook's write to a pipe; the receiving thread chooses how long it waits.

use std::io;
use std::thread;

use crossbeam::channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Drain and stop.
    Stop,
    /// Stop as soon as what was received is durable.
    StopNow,
    /// Read the configuration again.
    Reload,
}

/// Requests that may wait to be read; further ones of the same burst say nothing new.
const WAITING: usize = 16;

/// Takes the process's signals over; to be called once, before other threads start. Fails when a handler cannot be set.
pub fn watch() -> io::Result<Receiver<Request>> {
    watch_for(&[SIGTERM, SIGINT, SIGHUP])
}

fn watch_for(signals: &[i32]) -> io::Result<Receiver<Request>> {
    let mut signals = Signals::new(signals)?;
    let (tx, rx) = bounded(WAITING);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stops = 0;
        for signal in &mut signals {
            let request = request(signal, &mut stops);
            if let Err(error) = tx.try_send(request) {
                if error.is_disconnected() {
                    return;
                }
                tracing::warn!("signal {signal} came while {WAITING} others wait; it is not looked at");
            }
        }
    })?;
    Ok(rx)
}

fn request(signal: i32, stops: &mut u32) -> Request {
    if signal == SIGHUP {
        return Request::Reload;
    }
    *stops += 1;
    if *stops == 1 { Request::Stop } else { Request::StopNow }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_second_stop_is_at_once_and_a_reload_does_not_count() {
        let mut stops = 0;
        let requests = [SIGHUP, SIGTERM, SIGHUP, SIGINT, SIGTERM].map(|signal| request(signal, &mut stops));
        let (stop, now, reload) = (Request::Stop, Request::StopNow, Request::Reload);
        assert_eq!(requests, [reload, stop, reload, now, now]);
    }

    #[test]
    fn a_raised_signal_arrives() {
        // Not SIGINT: the test binary must still end by it.
        let requests = watch_for(&[SIGHUP]).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(requests.recv_timeout(Duration::from_secs(10)), Ok(Request::Reload));
    }
}
