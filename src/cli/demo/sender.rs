//! The fleet's side of the demo: a thread that writes bursts to a few TCP connections when they are due.
//!
//! Rows go out as Fluent Bit writes them. The window of the storm is the demo's duration; logoffs that lie hours after it
//! are not sent. The count of rows is that of lines written whole.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::DemoArgs;
use crate::fleet::{Burst, BurstKind, Fleet, FleetOptions, Wire};
use crate::otlp::ids::TraceId;
use crate::sys::clock;

/// Fluent Bit sends over few connections that live long.
const CONNECTIONS: usize = 4;

/// Logons of a host in the demo: enough that a small fleet makes a storm.
const LOGONS_PER_HOST: usize = 20;

/// Rows of a burst with its summaries, roughly.
const ROWS_PER_BURST: u64 = 82;

/// The logon that is printed at the end should be one that a screen can hold.
const WATCHED_ROWS: std::ops::Range<usize> = 60..80;

/// Bursts among which it is looked for: the earliest, so that it is there when somebody ends the demo early.
const MAX_CANDIDATES: usize = 200;

const SEED: u64 = 1;

/// What will be sent.
#[derive(Debug)]
pub(super) struct Storm {
    fleet: Fleet,
    window: Duration,
    /// Logons in it.
    pub(super) logons: usize,
    /// Rows, roughly.
    pub(super) rows_estimate: u64,
    /// The trace of the logon that is printed at the end.
    pub(super) watched: Option<TraceId>,
}

/// The storm that the command line asks for, opening now.
pub(super) fn storm(arguments: &DemoArgs) -> Storm {
    let logons = arguments.hosts.max(1) * LOGONS_PER_HOST;
    let window = Duration::from_secs(arguments.seconds.max(1));
    let opens_wall_ns = clock::wall_ns();
    let options = FleetOptions {
        hosts: u32::try_from(arguments.hosts.max(1)).unwrap_or(u32::MAX),
        ..FleetOptions::storm(logons, window, opens_wall_ns)
    };
    let fits = |burst: &Burst| burst.kind == BurstKind::Logon && WATCHED_ROWS.contains(&burst.rows.len());
    let watched = Fleet::new(SEED, options.clone()).take(MAX_CANDIDATES).find(fits);
    let watched = watched.and_then(|burst| logon_trace(&burst));
    let rows_estimate = (logons as u64 + logons as u64 / 20) * ROWS_PER_BURST;
    Storm { fleet: Fleet::new(SEED, options), window, logons, rows_estimate, watched }
}

/// The trace of a logon: the digit 1 and the first 31 digits of the session's GUID.
fn logon_trace(burst: &Burst) -> Option<TraceId> {
    let digits: String = burst.guid.chars().filter(|character| *character != '-').take(31).collect();
    TraceId::from_hex(&format!("1{digits}"))
}

#[derive(Debug, Default)]
struct Shared {
    rows: AtomicU64,
    stopping: AtomicBool,
    done: AtomicBool,
    error: Mutex<Option<String>>,
}

/// A running sender.
#[derive(Debug)]
pub(super) struct Sender {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Sender {
    /// Connects, and starts to send.
    pub(super) fn start(target: SocketAddr, storm: Storm) -> Result<Sender> {
        let mut streams = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
            // The appliance may slow us down; it may not hold the demo up for ever.
            stream.set_write_timeout(Some(Duration::from_secs(10)))?;
            streams.push(stream);
        }
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let handle = std::thread::Builder::new().name("demo-fleet".into()).spawn(move || {
            if let Err(error) = send(streams, storm, &for_thread) {
                *for_thread.error.lock().expect("no thread panics while it holds the lock") = Some(error.to_string());
            }
            // Release: whoever sees that it is done sees the last rows counted.
            for_thread.done.store(true, Ordering::Release);
        })?;
        Ok(Sender { shared, thread: handle.thread().clone() })
    }

    /// Rows written.
    pub(super) fn rows(&self) -> u64 {
        // Relaxed: a statistic until `is_done`.
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// Everything is written, or nothing more will be.
    pub(super) fn is_done(&self) -> bool {
        // Acquire: pairs with the store at the thread's end.
        self.shared.done.load(Ordering::Acquire)
    }

    /// Sends no further burst.
    pub(super) fn stop(&self) {
        // Relaxed: nothing is read through it.
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }

    /// Why sending failed, if it did.
    pub(super) fn error(&self) -> Option<String> {
        self.shared.error.lock().expect("no thread panics while it holds the lock").clone()
    }
}

/// Writes every burst of the window when it is due; connections are closed at the end, so no line stays unfinished.
fn send(mut streams: Vec<TcpStream>, storm: Storm, shared: &Shared) -> std::io::Result<()> {
    let began = clock::monotonic();
    let mut lines = Vec::with_capacity(128 * 1024);
    for (index, burst) in storm.fleet.take_while(|burst| burst.at < storm.window).enumerate() {
        lines.clear();
        for row in &burst.rows {
            Wire::FluentBit.render(row, &mut lines);
        }
        loop {
            if shared.stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
            let early = (began + burst.at).saturating_sub(clock::monotonic());
            if early.is_zero() {
                break;
            }
            std::thread::park_timeout(early);
        }
        streams[index % CONNECTIONS].write_all(&lines)?;
        shared.rows.fetch_add(burst.rows.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
