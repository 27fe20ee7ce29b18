//! The generators: uberAgent rows and OTLP requests over loopback, rendered before the clock starts.
//!
//! Each connection has a thread and its own share of the bytes. Closed loop: as fast as the peer takes them. Open loop:
//! at a rate that does not care how fast the peer is, so that waiting shows as lag and not as a lower rate.
//! Every run is bounded by a count and by time.

pub(crate) mod otlp;
pub(crate) mod rows;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace::sys::clock;
use serde_json::json;

/// How much, how fast, how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Rows or spans in all.
    pub(crate) count: u64,
    /// The run ends here even if the count is not reached.
    pub(crate) limit: Duration,
    /// Rows or spans a second over all connections; closed loop when absent.
    pub(crate) rate: Option<u64>,
}

/// What a generator did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Rows or spans sent; those of requests only when they were answered with success.
    pub(crate) items: u64,
    /// Bytes written.
    pub(crate) bytes: u64,
    /// Answers "try again later", after each of which the request was sent again.
    pub(crate) refusals: u64,
    /// First byte to last answer.
    pub(crate) wall: Duration,
    /// CPU time of the sending threads.
    pub(crate) cpu: Duration,
    /// Ranges of span numbers that were acknowledged: run, first, count.
    pub(crate) acknowledged: Vec<(u64, u64, u64)>,
    /// When each burst's last byte was written, monotonic: its session GUID and the time.
    pub(crate) bursts: Vec<(String, Duration)>,
}

impl Sent {
    fn add(&mut self, other: Sent) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.refusals += other.refusals;
        self.wall = self.wall.max(other.wall);
        self.cpu += other.cpu;
        self.acknowledged.extend(other.acknowledged);
        self.bursts.extend(other.bursts);
    }

    /// For a report.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({
            "items": self.items, "bytes": self.bytes, "refusals": self.refusals,
            "seconds": self.wall.as_secs_f64(), "cpu_seconds": self.cpu.as_secs_f64(),
        })
    }
}

/// Connects to a loopback address; the bench talks to nobody else.
fn connect(target: SocketAddr) -> Result<TcpStream> {
    ensure!(target.ip().is_loopback(), "{target} is not on loopback");
    let stream = TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true)?;
    // A peer that has stopped reading must not hold the run up beyond its limit.
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// Waits until `deadline` on the monotonic clock.
fn wait_until(deadline: Duration) {
    loop {
        let left = deadline.saturating_sub(clock::monotonic());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// When item number `sent` is due after `began`.
fn due(began: Duration, sent: u64, rate: u64) -> Duration {
    began
        + Duration::from_nanos(
            u64::try_from(u128::from(sent) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX),
        )
}

/// Runs `work(connection)` on `connections` threads and adds up what they did.
fn on_threads(connections: usize, work: impl Fn(usize) -> Result<Sent> + Sync) -> Result<Sent> {
    let mut sent = Sent::default();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..connections)
            .map(|connection| {
                scope.spawn({
                    let work = &work;
                    move || work(connection)
                })
            })
            .collect();
        for thread in threads {
            sent.add(thread.join().expect("a generator returns its errors")?);
        }
        Ok(())
    })?;
    Ok(sent)
}
