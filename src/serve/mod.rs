//! The management port: `/metrics`, `/livez`, `/readyz`, `/startupz`, and a plain page that lists them.
//!
//! One thread with a current-thread runtime, away from the lanes, so that a scrape costs them nothing but cache misses.
//! Bounded: connections in all and of one peer, time for a request's head, life of a connection. `/`, `/metrics` and health
//! may be read by anyone who reaches the port; what else there is stands behind [`Guard`].
//!
//! `/livez` fails when a thread is stuck, `/readyz` while starting or draining, `/startupz` until everything was once
//! ready; `?verbose` lists what was looked at.

mod api;
mod auth;
mod dead_letters;
mod peers;
mod reload;
mod routes;
mod tap;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Extension;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, oneshot};

use crate::sys::clock;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::moment::Moment;
use crate::telemetry::tap::Tap;

pub use auth::{Guard, MAX_TOKENS, MIN_TOKEN_BYTES, Refused, TokenFileError, Tokens, Trust};
pub use dead_letters::{DeadLetterCall, DeadLetterVerb, DeskSender, desk_channel};
pub use reload::{ReloadAnswer, ReloadRequest, ReloadSender, reload_channel};

/// Open connections; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// Time for a request's head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Life of a connection; scrapers reconnect.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// How often the summaries of the metrics are folded and rates are sampled, whoever scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages are made from.
#[derive(Clone)]
pub struct Sources {
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The health pages.
    pub health: Health,
    /// Who may ask for the rest.
    pub guard: Guard,
    /// Who reads the configuration again when asked.
    pub reload: ReloadSender,
    /// Who knows the dead letters.
    pub desk: DeskSender,
    /// What passes the lanes.
    pub tap: Arc<Tap>,
}

impl Sources {
    /// What is known, who may ask, and who is asked.
    #[must_use]
    pub fn new(
        metrics: &Arc<Metrics>,
        health: &Health,
        guard: &Guard,
        (reload, desk, tap): (ReloadSender, DeskSender, Arc<Tap>),
    ) -> Sources {
        Sources { metrics: Arc::clone(metrics), health: health.clone(), guard: guard.clone(), reload, desk, tap }
    }
}

/// The running management port; it ends when this is dropped.
#[derive(Debug)]
pub struct Management {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Management {
    /// Serves on a listener. Fails when the runtime or its thread cannot be made.
    pub fn start(listener: TcpListener, sources: Sources) -> io::Result<Management> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("management".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, sources) => {}
                    // The sender said stop or is gone: either way this is the end.
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Management { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Management {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the management thread panicked");
        }
    }
}

async fn serve(listener: TcpListener, sources: Sources) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("the management port cannot be served: {error}");
            return;
        }
    };
    let tick = sources.health.thread("management", 30 * UPKEEP_INTERVAL, clock::monotonic());
    let metrics = Arc::clone(&sources.metrics);
    let upkeep = async {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            let now = clock::monotonic();
            metrics.upkeep(Moment { now, wall_ns: clock::wall_ns() });
            tick.tick(now);
        }
    };
    tokio::select! {
        () = accept(listener, routes::router(routes::routes(), sources)) => {}
        () = upkeep => {}
    }
    tick.end();
}

async fn accept(listener: tokio::net::TcpListener, router: axum::Router) {
    let (permits, peers) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), peers::Peers::default());
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("accept on the management port: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = peers.admit(peer.ip()) else {
            tracing::debug!(%peer, "closed: it has as many connections to the management port as one peer may");
            continue;
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(auth::Peer(peer))));
        tokio::spawn(async move {
            let _held = (permit, place);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(CONNECTION_LIFE, connection).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!("connection on the management port: {error}"),
            }
        });
    }
}

/// An answer that says in JSON what is wrong.
fn failure(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "error": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

#[cfg(test)]
mod tests;
