//! The gateway: a lane's HTTP half, on one pinned thread with its own current-thread runtime.
//!
//! hyper speaks HTTP/1.1; a door ([`DoorKind`]) speaks one protocol over it, one file each. Doors hand what they have checked
//! or decoded to the intake, and answer yes only when everything of the request is durable. The gateway does not create
//! sockets, pin its thread or know what stands behind the outlet: all of that is handed in.
//!
//! Tasks of the thread: one accept loop a listener, one task a connection, one that closes open blocks at the end of a
//! turn of the loop in which somebody waits, one that takes verdicts when the doorbell rings, one that ticks.

mod allowance;
mod body;
mod connection;
mod doors;
pub(crate) mod intake;

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, watch};

use crate::block::{Made, Meta, Outlet, SourceId};
use crate::config::{self, HttpLimits};
use crate::receive::admission::{ConnectionTable, Place};
use crate::receive::{DoorChanges, HttpCounters, elasticsearch, otlp_http};
use crate::sys::clock;
use crate::sys::doorbell::Doorbell;
use crate::sys::socket::reset_on_close;
use crate::telemetry::health::Tick;
use crate::telemetry::ledger::Front;

use allowance::Allowance;
pub(crate) use body::{Body, BodyError};
use doors::Doors;
pub(crate) use intake::{Busy, Intake, Settled};

/// Pause after an accept that failed, as when the process is out of descriptors: the listener must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between ticks.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// The answer of a door.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorKind {
    /// OTLP/HTTP.
    OtlpHttp,
    /// Elasticsearch's `_bulk`, with uberAgent's rows as documents.
    Elasticsearch,
}

/// A listener and what is behind it.
pub struct Listener {
    /// Bound and listening.
    pub socket: TcpListener,
    /// The receiver that it belongs to.
    pub source: SourceId,
    /// What it speaks.
    pub kind: DoorKind,
    /// The receiver's limits.
    pub limits: HttpLimits,
    /// This producer's front balance of the source.
    pub front: Arc<Front>,
    /// The receiver's connections over all lanes.
    pub table: Arc<ConnectionTable>,
    /// What this producer counts of the source besides.
    pub counters: Arc<HttpCounters>,
    /// How rows become spans.
    pub uberagent: config::Uberagent,
}

/// Everything that a gateway needs.
pub struct GatewayOptions<O> {
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// Its ring.
    pub outlet: O,
    /// Rung for verdicts, and after `stop` was set.
    pub doorbell: Doorbell,
    /// Bytes of request bodies, as sent and inflated, that it may hold at once.
    pub body_bytes: usize,
    /// Its tick: stands still when the runtime does.
    pub tick: Tick,
    /// Set once to drain: no new connections, requests in flight are finished.
    pub stop: Arc<AtomicBool>,
    /// The longest drain; connections that are open after it are cut.
    pub drain_timeout: Duration,
    /// Changes of the doors.
    pub changes: mpsc::UnboundedReceiver<DoorChanges<Listener>>,
}

/// One lane's gateway.
pub struct Gateway<O> {
    options: GatewayOptions<O>,
}

impl<O: Outlet + 'static> Gateway<O> {
    /// A gateway that does nothing yet.
    #[must_use]
    pub fn new(options: GatewayOptions<O>) -> Gateway<O> {
        Gateway { options }
    }

    /// Serves until `stop` is set and everything in flight is answered, or the drain took too long. Blocks its thread.
    ///
    /// # Errors
    /// When the runtime cannot be had or a listener cannot be registered.
    pub fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tick = self.options.tick.clone();
        let result = tokio::task::LocalSet::new().block_on(&runtime, serve(self.options));
        tick.end();
        result
    }
}

async fn serve<O: Outlet + 'static>(options: GatewayOptions<O>) -> io::Result<()> {
    let intake = Rc::new(Intake::new(options.outlet));
    let idle = Rc::new(Notify::new());
    let allowance = Allowance::new(options.body_bytes);
    let mut doors = Doors::new(doors::Shared { intake: intake.clone(), allowance, idle: idle.clone() });
    for listener in options.listeners {
        doors.open(listener)?;
    }
    tokio::task::spawn_local(close_at_end_of_turn(intake.clone()));
    tokio::task::spawn_local(keep_ticking(options.tick));
    let bell = register(options.doorbell)?;
    let mut changes = options.changes;
    while !options.stop.load(Ordering::Acquire) {
        tokio::select! {
            result = answer_doorbell(&intake, &bell) => result?,
            Some(change) = changes.recv() => doors.adopt(change).await,
        }
    }
    doors.stop();
    // Each accept loop and each connection holds its door: when no door is held, everything is answered.
    let drained = async {
        while !doors.are_idle() || !intake.is_handed_over() {
            tokio::select! {
                result = answer_doorbell(&intake, &bell) => result?,
                () = idle.notified() => {}
            }
        }
        Ok(())
    };
    let result = tokio::time::timeout(options.drain_timeout, drained).await.unwrap_or_else(|_| {
        tracing::warn!("connections were cut: the drain took longer than {:?}", options.drain_timeout);
        Ok(())
    });
    for meta in intake.abandon() {
        if let Some(counters) = doors.counters(meta.source) {
            count_lost(counters, &meta);
        }
    }
    result
}

/// Counts a block that nobody takes any more. Its senders have not been told yes.
fn count_lost(counters: &HttpCounters, meta: &Meta) {
    match meta.made {
        Made::Passed => counters.spans_lost.add(u64::from(meta.spans)),
        Made::Encoded => counters.records_lost.add(u64::from(meta.records)),
    }
}

/// The doorbell in the runtime's epoll.
#[expect(deprecated, reason = "the new way is unsafe; a doorbell owns its descriptor for as long as it lives")]
fn register(doorbell: Doorbell) -> io::Result<AsyncFd<Doorbell>> {
    AsyncFd::with_interest(doorbell, Interest::READABLE)
}

/// Takes verdicts, sleeps until the doorbell rings, and takes verdicts.
async fn answer_doorbell<O: Outlet>(intake: &Intake<O>, bell: &AsyncFd<Doorbell>) -> io::Result<()> {
    intake.take_verdicts();
    intake.park();
    if intake.take_verdicts() {
        return Ok(());
    }
    let mut ready = bell.readable().await?;
    bell.get_ref().answer();
    ready.clear_ready();
    intake.take_verdicts();
    Ok(())
}

/// Closes open blocks once every request that has come in this turn of the loop has been appended.
async fn close_at_end_of_turn<O: Outlet>(intake: Rc<Intake<O>>) {
    loop {
        intake.flush_due().await;
        // Runs again after the runtime has polled the sockets and the tasks that were ready.
        tokio::task::yield_now().await;
        intake.flush();
    }
}

/// Says that the thread's loop turns, whether or not anything comes.
async fn keep_ticking(tick: Tick) {
    loop {
        tick.tick(clock::monotonic());
        tokio::time::sleep(TICK_INTERVAL).await;
    }
}

async fn accept<O: Outlet + 'static>(
    door: Rc<Door<O>>,
    socket: tokio::net::TcpListener,
    mut stopping: watch::Receiver<bool>,
) {
    let connections = stopping.clone();
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            door.counters.connections.accept_failures.add(1);
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let place = match door.table.admit(peer.ip()) {
            Ok(place) => place,
            Err(refused) => {
                door.counters.connections.refused.add(refused.label(), 1);
                // It fails for a connection that is gone; then there is nobody to notice.
                reset_on_close(&stream).ok();
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            door.counters.connections.accept_failures.add(1);
            continue;
        }
        door.counters.connections.opened();
        tokio::task::spawn_local(serve_connection(door.clone(), stream, place, connections.clone()));
    }
}

async fn serve_connection<O: Outlet + 'static>(
    door: Rc<Door<O>>,
    stream: tokio::net::TcpStream,
    _place: Place,
    stopping: watch::Receiver<bool>,
) {
    let reason = connection::serve(door.clone(), stream, stopping).await;
    door.counters.connections.ended(reason);
}

/// What a listener's handlers share.
pub(crate) struct Door<O> {
    pub(crate) intake: Rc<Intake<O>>,
    pub(crate) slot: usize,
    pub(crate) limits: HttpLimits,
    pub(crate) front: Arc<Front>,
    pub(crate) counters: Arc<HttpCounters>,
    kind: DoorKind,
    table: Arc<ConnectionTable>,
    allowance: Rc<Allowance>,
    idle: Rc<Notify>,
}

impl<O: Outlet> Door<O> {
    /// Answers a request; the edge at which the gateway reads the clocks.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self.kind {
            DoorKind::OtlpHttp => otlp_http::answer(self, request, clock::wall_ns()).await,
            DoorKind::Elasticsearch => {
                let arrival = elasticsearch::Arrival { wall_ns: clock::wall_ns(), monotonic: clock::monotonic() };
                elasticsearch::answer(self, request, arrival).await
            }
        }
    }

    /// Reads a body under the door's limits and inflates it to at most `max_inflated_bytes`.
    pub(crate) async fn read(&self, request: Request<Incoming>, max_inflated_bytes: usize) -> Result<Body, BodyError> {
        let (head, incoming) = request.into_parts();
        let place =
            body::Place { limits: &self.limits, max_inflated_bytes, intake: &self.intake, allowance: &self.allowance };
        let (body, sent_bytes) = body::read(&head.headers, incoming, place).await?;
        self.front.received_bytes.add(sent_bytes as u64);
        Ok(body)
    }

    /// Reads the body of a request that is refused by its head alone.
    pub(crate) async fn pass_over(&self, request: Request<Incoming>) {
        body::pass_over(request.into_body(), &self.limits).await;
    }
}

impl<O> Drop for Door<O> {
    fn drop(&mut self) {
        self.idle.notify_one();
    }
}

#[cfg(test)]
mod tests;
