//! Signals as messages: stop, stop at once, reload.
//!
//! SIGTERM and SIGINT ask for a drain; a second one of either skips the time that exporters are given, never the sync of
//! what was received. SIGHUP asks for a reload. A thread of its own waits for them, so that no handler does more than
//! signal-hook's write to a pipe; the receiving thread chooses how long it waits. However many SIGHUPs come while it is busy,
//! a stop finds room.

use std::io;
use std::thread;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
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

/// Requests that may wait to be read: a reload, a stop and a stop at once. Further ones say nothing new.
const WAITING: usize = 3;

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
            if !pass_on(&tx, request) {
                return;
            }
        }
    })?;
    Ok(rx)
}

/// Passes a request on, unless it says nothing new. False when nobody listens any more.
fn pass_on(tx: &Sender<Request>, request: Request) -> bool {
    // A reload that has not begun will read what is there then, and after a stop there is none.
    if request == Request::Reload && !tx.is_empty() {
        return true;
    }
    !matches!(tx.try_send(request), Err(TrySendError::Disconnected(_)))
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

    #[test]
    fn a_stop_is_heard_behind_any_number_of_reloads() {
        let (tx, rx) = bounded(WAITING);
        let (reload, stop, now) = (Request::Reload, Request::Stop, Request::StopNow);
        let burst = [vec![reload; 100], vec![stop], vec![reload; 100], vec![now; 100]].concat();
        assert!(burst.into_iter().all(|request| pass_on(&tx, request)));
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [reload, stop, now]);
        drop(rx);
        assert!(!pass_on(&tx, stop));
    }
}
