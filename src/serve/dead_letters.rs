//! The dead letters over the API: `GET /api/v1/dlq`, `POST /api/v1/dlq/replay` and `POST /api/v1/dlq/purge`.
//!
//! A body says which letters are meant: `{"ids": ["front-12"]}`, `store`, `reason`, `origin` (source or destination), or
//! `"all": true`; a replay takes at most so many at once and says whether `more` are left, and in `last` what to send as
//! `after` to go on behind those that failed again. 400 with what is wrong, 503 when nobody is at the desk. The work is done
//! by the pipeline's thread; here only questions go there and answers come back.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use crossbeam::channel::{Receiver, Sender, bounded};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Sources, api, failure};

/// Questions that may wait.
const WAITING: usize = 16;

/// What is asked of the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterVerb {
    /// What there is.
    List,
    /// Send them again.
    Replay,
    /// Throw them away.
    Purge,
}

/// A question of the API.
#[derive(Debug)]
pub struct DeadLetterCall {
    /// What to do.
    pub verb: DeadLetterVerb,
    /// With which letters.
    pub body: Value,
    /// Where the answer goes; an error says what is wrong with the question.
    pub answer: oneshot::Sender<Result<Value, String>>,
}

/// The API's end of the channel to the desk.
pub type DeskSender = Sender<DeadLetterCall>;

/// The two ends.
#[must_use]
pub fn desk_channel() -> (DeskSender, Receiver<DeadLetterCall>) {
    bounded(WAITING)
}

/// `GET /api/v1/dlq`.
pub(super) async fn list(State(sources): State<Sources>) -> Response {
    ask(&sources, DeadLetterVerb::List, Value::Null).await
}

/// `POST /api/v1/dlq/replay`.
pub(super) async fn replay(State(sources): State<Sources>, body: Bytes) -> Response {
    ask_with(&sources, DeadLetterVerb::Replay, &body).await
}

/// `POST /api/v1/dlq/purge`.
pub(super) async fn purge(State(sources): State<Sources>, body: Bytes) -> Response {
    ask_with(&sources, DeadLetterVerb::Purge, &body).await
}

async fn ask_with(sources: &Sources, verb: DeadLetterVerb, body: &[u8]) -> Response {
    match serde_json::from_slice(body) {
        Ok(body) => ask(sources, verb, body).await,
        Err(error) => failure(StatusCode::BAD_REQUEST, &format!("the body is no JSON: {error}")),
    }
}

async fn ask(sources: &Sources, verb: DeadLetterVerb, body: Value) -> Response {
    let (answer, answered) = oneshot::channel();
    if sources.desk.try_send(DeadLetterCall { verb, body, answer }).is_err() {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "nobody is at the desk of the dead letters now");
    }
    match answered.await {
        Ok(Ok(body)) => api::answer(StatusCode::OK, &body),
        Ok(Err(what)) => failure(StatusCode::BAD_REQUEST, &what),
        Err(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "the appliance is stopping"),
    }
}
