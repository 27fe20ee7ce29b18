//! `GET /api/v1/status`: everything that is known of the running appliance, as one JSON document.
//!
//! Made when it is asked for; `telemetry::metrics` says what is in it. Clocks are read here, at the edge.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Sources;
use crate::sys::clock;
use crate::telemetry::moment::Moment;

/// The route.
pub(super) async fn status(State(sources): State<Sources>) -> Response {
    let at = Moment { now: clock::monotonic(), wall_ns: clock::wall_ns() };
    answer(StatusCode::OK, &sources.metrics.status(&sources.health, at))
}

/// A JSON document that nobody may keep.
pub(super) fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}
