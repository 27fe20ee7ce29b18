//! The pages of the management port. Each is made when it is asked for; none reads a body.
//!
//! Adding a page is a route here and a line in [`INDEX`]; a test compares the two. Clocks are read here, at the edge, for
//! the age of the threads' last ticks.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::sys::clock;
use crate::telemetry::health::Answer;

use super::Sources;

/// The content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page under `/`, to be kept in step with [`router`].
const INDEX: &str = "\
<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Millrace</title>
<h1>Millrace</h1>
<ul>
<li><a href=\"/metrics\">/metrics</a>: Prometheus metrics, the ledger among them
<li><a href=\"/livez?verbose\">/livez</a>: does every thread still turn?
<li><a href=\"/readyz?verbose\">/readyz</a>: may senders be pointed here now?
<li><a href=\"/startupz?verbose\">/startupz</a>: has every component been ready once?
</ul>
</html>
";

/// Every route.
pub(super) fn router(sources: Sources) -> Router {
    Router::new()
        .route("/", get(async || Html(INDEX)))
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .with_state(sources)
}

async fn metrics(State(sources): State<Sources>) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], sources.metrics.render()).into_response()
}

async fn live(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    page(&sources.health.live(clock::monotonic()), query.as_deref())
}

async fn ready(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    page(&sources.health.ready(), query.as_deref())
}

async fn started(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    page(&sources.health.started(), query.as_deref())
}

/// `ok` or what is wrong; with `?verbose`, everything that was looked at.
fn page(answer: &Answer, query: Option<&str>) -> Response {
    let is_verbose = query.is_some_and(|query| query.split('&').any(|word| word.split('=').next() == Some("verbose")));
    let mut text = String::new();
    for line in answer.lines.iter().filter(|line| is_verbose || line.starts_with("[-]")) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(if answer.yes { "ok\n" } else { "failed\n" });
    let status = if answer.yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}
