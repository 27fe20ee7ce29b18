//! One HTTP connection: hyper does the protocol, this file its patience.
//!
//! [`Paced`] closes a connection whose request head is not complete after `header_timeout`, whose peer has not read an
//! answer after `body_timeout`, and one that is idle for [`IDLE_TIMEOUT`]. hyper's own header timeout starts with the end of
//! the previous request, so that it could not tell a slow head from a client that exports once a minute. A body's time is
//! the handler's business. Owned by the gateway's thread; one timer a connection, reset when it reads or writes in vain.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::Door;
use crate::block::Outlet;
use crate::config::HttpLimits;
use crate::config::budget::HTTP_READ_BUFFER_BYTES;

/// A connection without a request for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request.
    Idle,
    /// The rest of a request's head.
    Head,
    /// Its handler.
    Request,
    /// The peer, to read the answer.
    Answer,
}

/// Shared between a connection's socket and its handler.
struct Pace {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// The phase that lasted too long.
    expired: Cell<Option<Phase>>,
}

impl Pace {
    fn new() -> Rc<Pace> {
        Rc::new(Pace { phase: Cell::new(Phase::Idle), since: Cell::new(Instant::now()), expired: Cell::new(None) })
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }
}

/// Serves a connection to its end, and says why it ended; after `stopping` it ends with the request in flight.
pub(super) async fn serve<O: Outlet + 'static>(
    door: Rc<Door<O>>,
    stream: TcpStream,
    mut stopping: watch::Receiver<bool>,
) -> &'static str {
    let pace = Pace::new();
    let io = TokioIo::new(Paced::new(stream, pace.clone(), &door.limits));
    let service = service_fn(|request| {
        pace.enter(Phase::Request);
        let (door, pace) = (door.clone(), pace.clone());
        async move {
            let response = door.answer(request).await;
            pace.enter(Phase::Answer);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(MAX_HEAD_BYTES);
    http.max_buf_size(HTTP_READ_BUFFER_BYTES);
    let mut connection = pin!(http.serve_connection(io, service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopping.wait_for(|stopping| *stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended(result, pace.expired.get())
}

/// Why a connection ended, as a metric's label.
fn ended(result: hyper::Result<()>, expired: Option<Phase>) -> &'static str {
    match (result, expired) {
        (_, Some(Phase::Idle)) => "idle",
        (_, Some(Phase::Head)) => "slow_head",
        (_, Some(Phase::Request | Phase::Answer)) => "slow_reader",
        (Ok(()), None) => "done",
        (Err(error), None) if error.is_parse_too_large() => "head_too_large",
        (Err(error), None) if error.is_parse() => "malformed_head",
        (Err(_), None) => "broken",
    }
}

/// A socket that does not wait for ever.
struct Paced {
    stream: TcpStream,
    pace: Rc<Pace>,
    header_timeout: Duration,
    answer_timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Paced {
    fn new(stream: TcpStream, pace: Rc<Pace>, limits: &HttpLimits) -> Paced {
        let (header_timeout, answer_timeout) = (limits.header_timeout, limits.body_timeout);
        Paced { stream, pace, header_timeout, answer_timeout, timer: Box::pin(tokio::time::sleep(header_timeout)) }
    }

    /// Ready when the phase has lasted too long; called when the socket has nothing to do.
    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<Phase> {
        let phase = self.pace.phase.get();
        let limit = match phase {
            Phase::Idle => IDLE_TIMEOUT,
            Phase::Head => self.header_timeout,
            Phase::Answer => self.answer_timeout,
            Phase::Request => return Poll::Pending,
        };
        let deadline = self.pace.since.get() + limit;
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(context).map(|()| {
            self.pace.expired.set(Some(phase));
            phase
        })
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, into) {
            if into.filled().len() > before && self.pace.phase.get() == Phase::Idle {
                self.pace.enter(Phase::Head);
            }
            return Poll::Ready(result);
        }
        match ready!(self.poll_expired(context)) {
            // The end of the stream is what closes an idle connection without an error.
            Phase::Idle => Poll::Ready(Ok(())),
            Phase::Head | Phase::Request | Phase::Answer => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            return Poll::Ready(result);
        }
        self.poll_expired(context).map(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            return Poll::Ready(result);
        }
        self.poll_expired(context).map(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once everything of the answer is written.
        if self.pace.phase.get() == Phase::Answer {
            self.pace.phase.set(Phase::Idle);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
