//! `POST /api/v1/reload`: asks whoever runs the appliance to read its configuration again, and says what came of it.
//!
//! 200 with what changed, 422 with what is wrong and where, 503 when nobody can reload now. `?dry_run=1` checks everything
//! and changes nothing. The work is done by the thread that owns the appliance; here only a question goes there and an
//! answer comes back, so a second reload waits for the first.

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

use super::{Sources, failure};

/// Reloads that may wait for the one under way.
const WAITING: usize = 4;

/// A question of the API.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Check only.
    pub dry_run: bool,
    /// Where the answer goes.
    pub answer: oneshot::Sender<ReloadAnswer>,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadAnswer {
    /// The configuration is good, and in force unless only that was asked.
    Good {
        /// Number of the configuration that is in force now; the one at start is 1.
        generation: u64,
        /// What changed, or would: one line each, without secrets.
        changes: Vec<String>,
        /// What is legal and probably not meant, one line each.
        warnings: Vec<String>,
    },
    /// Nothing has changed: what is wrong, one line each, with its place.
    Refused {
        /// Number of the configuration that stays in force.
        generation: u64,
        /// At least one.
        problems: Vec<String>,
    },
}

/// The API's end of the channel to the thread that reloads.
pub type ReloadSender = Sender<ReloadRequest>;

/// The two ends.
#[must_use]
pub fn reload_channel() -> (ReloadSender, Receiver<ReloadRequest>) {
    bounded(WAITING)
}

/// The route.
pub(super) async fn reload(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let dry_run = match query.as_deref() {
        None | Some("" | "dry_run=0" | "dry_run=false") => false,
        Some("dry_run" | "dry_run=1" | "dry_run=true") => true,
        Some(_) => return failure(StatusCode::BAD_REQUEST, "the only parameter is dry_run=1"),
    };
    let (answer, answered) = oneshot::channel();
    if sources.reload.try_send(ReloadRequest { dry_run, answer }).is_err() {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "nobody can reload now");
    }
    match answered.await {
        Ok(answer) => page(answer, dry_run),
        Err(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "the appliance is stopping"),
    }
}

fn page(answer: ReloadAnswer, dry_run: bool) -> Response {
    let (status, body) = match answer {
        ReloadAnswer::Good { generation, changes, warnings } => (
            StatusCode::OK,
            serde_json::json!({
                "generation": generation, "dry_run": dry_run, "changes": changes, "warnings": warnings
            }),
        ),
        ReloadAnswer::Refused { generation, problems } => (
            StatusCode::UNPROCESSABLE_ENTITY,
            serde_json::json!({ "generation": generation, "error": problems.join("\n"), "problems": problems }),
        ),
    };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}
