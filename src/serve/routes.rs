//! The routes of the management port: one table that says of each whether anyone may ask or only who passes the guard.
//!
//! Adding a page is a row of [`routes`] and a line in [`INDEX`]; a test calls every row as everybody. Each page is made when
//! it is asked for. Clocks are read here, at the edge, for the age of the threads' last ticks.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use super::{Sources, api, auth, dead_letters, reload, tap};
use crate::sys::clock;
use crate::telemetry::health::Answer;

/// The content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page under `/`, to be kept in step with [`routes`].
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
<li>GET /api/v1/status: everything that is known, in JSON; from this host, or with a token
<li>GET /api/v1/tap: what passes the lanes, as lines of OTLP in JSON
<li>GET /api/v1/dlq, POST /api/v1/dlq/replay, POST /api/v1/dlq/purge: the dead letters
<li>POST /api/v1/reload: read the configuration again; from this host, or with a token
</ul>
</html>
";

/// Who may ask for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Anyone who reaches the port.
    Open,
    /// Who passes [`super::Guard`].
    Guarded,
}

/// One row of the table.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) access: Access,
    handler: MethodRouter<Sources>,
}

/// Every route.
pub(super) fn routes() -> Vec<Route> {
    let route = |access, path, handler| Route { path, access, handler };
    vec![
        route(Access::Open, "/", get(async || Html(INDEX))),
        route(Access::Open, "/metrics", get(metrics)),
        route(Access::Open, "/livez", get(live)),
        route(Access::Open, "/readyz", get(ready)),
        route(Access::Open, "/startupz", get(started)),
        route(Access::Guarded, "/api/v1/reload", post(reload::reload)),
        route(Access::Guarded, "/api/v1/status", get(api::status)),
        route(Access::Guarded, "/api/v1/tap", get(tap::tap)),
        route(Access::Guarded, "/api/v1/dlq", get(dead_letters::list)),
        route(Access::Guarded, "/api/v1/dlq/replay", post(dead_letters::replay)),
        route(Access::Guarded, "/api/v1/dlq/purge", post(dead_letters::purge)),
    ]
}

/// The table as a router, each guarded row behind the guard.
pub(super) fn router(routes: Vec<Route>, sources: Sources) -> Router {
    let mut router = Router::new();
    for Route { path, access, handler } in routes {
        let handler = match access {
            Access::Open => handler,
            Access::Guarded => handler.layer(from_fn_with_state(sources.guard.clone(), auth::guarded)),
        };
        router = router.route(path, handler);
    }
    router.with_state(sources)
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
