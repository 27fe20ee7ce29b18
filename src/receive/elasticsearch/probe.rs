//! What clients and installers ask an Elasticsearch before they send: constant answers, nothing is kept.
//!
//! Enough for the official clients, Beats-like shippers and uberAgent's installer to believe that they may send; not an
//! Elasticsearch. Whatever is not listed has no route.

use hyper::Method;

/// The version that is claimed: clients refuse what is much older than they are.
const VERSION: &str = "8.17.0";

/// The body of the answer to a probe; `None` when there is no such route.
pub(super) fn answer(method: &Method, path: &str) -> Option<Vec<u8>> {
    let mut segments = path.trim_matches('/').split('/');
    let first = segments.next().unwrap_or_default();
    let is_index = !first.is_empty() && !first.starts_with('_');
    let body = match (method, first) {
        (&Method::GET | &Method::HEAD, "") => version(),
        (&Method::GET, "_license" | "_xpack") => serde_json::json!({
            "license": { "status": "active", "type": "basic", "mode": "basic", "uid": "millrace" },
            "features": {},
        }),
        (&Method::GET, "_cluster") if segments.next() == Some("health") => serde_json::json!({
            "cluster_name": "millrace", "status": "green", "timed_out": false,
            "number_of_nodes": 1, "number_of_data_nodes": 1, "active_shards_percent_as_number": 100.0,
        }),
        (&Method::GET, "_nodes") => serde_json::json!({
            "_nodes": { "total": 1, "successful": 1, "failed": 0 },
            "cluster_name": "millrace",
            "nodes": {},
        }),
        (
            &Method::PUT | &Method::POST,
            "_template" | "_index_template" | "_component_template" | "_ingest" | "_ilm",
        ) => {
            serde_json::json!({ "acknowledged": true })
        }
        (
            &Method::GET | &Method::HEAD,
            "_template" | "_index_template" | "_component_template" | "_ingest" | "_ilm",
        ) => {
            serde_json::json!({})
        }
        (&Method::HEAD, _) if is_index => serde_json::json!({}),
        (&Method::PUT, index) if is_index => {
            serde_json::json!({ "acknowledged": true, "shards_acknowledged": true, "index": index })
        }
        _ => return None,
    };
    Some(body.to_string().into_bytes())
}

fn version() -> serde_json::Value {
    serde_json::json!({
        "name": "millrace",
        "cluster_name": "millrace",
        "cluster_uuid": "bWlsbHJhY2UtbWlsbHJhY2U",
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "build_type": "tar",
            "lucene_version": "9.12.0",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_of_the_clients_have_answers_and_the_rest_has_none() {
        for (method, path) in [
            (Method::GET, "/"),
            (Method::HEAD, "/"),
            (Method::GET, "/_license"),
            (Method::GET, "/_xpack"),
            (Method::GET, "/_cluster/health"),
            (Method::GET, "/_nodes/http"),
            (Method::PUT, "/_template/uberagent"),
            (Method::HEAD, "/_template/uberagent"),
            (Method::PUT, "/_index_template/uberagent"),
            (Method::PUT, "/_ingest/pipeline/x"),
            (Method::HEAD, "/uberagent"),
        ] {
            assert!(answer(&method, path).is_some(), "{method} {path}");
        }
        for (method, path) in [(Method::GET, "/_search"), (Method::DELETE, "/uberagent"), (Method::GET, "/_cluster/x")]
        {
            assert!(answer(&method, path).is_none(), "{method} {path}");
        }
    }
}
