//! The exporters: `otlphttp` (also spelt `otlp_http`), `influxdb` and `plugin/NAME`, whose format a plugin writes.
//!
//! Keys are those of the Collector's exporters where the meaning is the same. Where two settings say the same thing
//! (`processors.batch` and an exporter's `sending_queue.batch`; `endpoint` and `traces_endpoint`) the stronger layer
//! wins, and in one layer the more specific. Settings that would have to lose spans (`max_elapsed_time`, a sending queue
//! in memory) have no effect and say so; those that would change what is sent or trusted are refused.

use std::time::Duration;

use ureq::http::Uri;

use super::pipelines::Pipeline;
use super::plugins;
use super::processors::BatchDefaults;
use super::receivers::{check_name, kind};
use super::section::{Reader, Section, Sourced, hint};
use super::tree::Origin;
use super::words::{AT_LEAST_ONE, BYTES, COUNT, DURATION, PATH, SWITCH, TEXT, TIMEOUT};
use super::{
    Backend, Batch, Compression, Encoding, Exporter, HttpClient, Influx, InfluxSchema, InfluxWrite, OtlpHttp,
    PluginClass, PluginExport, Requirement, Retry, StartAt,
};

/// The kinds that exist.
const KINDS: [&str; 4] = ["otlphttp", "otlp_http", "influxdb", "plugin"];

/// Kinds that this version lacks, each with what to do instead.
const LATER: [(&str, &str); 10] = [
    ("otlp", "OTLP over gRPC; use otlphttp with the backend's HTTP port, usually 4318"),
    ("otlp_grpc", "OTLP over gRPC; use otlphttp with the backend's HTTP port, usually 4318"),
    ("tempo", "Tempo takes OTLP over HTTP: use otlphttp with endpoint http://HOST:4318"),
    ("jaeger", "Jaeger takes OTLP over HTTP: use otlphttp with endpoint http://HOST:4318"),
    ("airdig_engine", "remove it"),
    ("zipkin", "remove it"),
    ("clickhouse", "remove it"),
    ("kafka", "remove it"),
    ("file", "remove it"),
    ("debug", "use `service.telemetry.logs.level: debug`"),
];

/// Reads `exporters`, in the order of the pipeline.
pub(super) fn read(
    mut section: Section<'_>,
    pipeline: &Pipeline,
    batch: &BatchDefaults,
    queue_max_bytes: u64,
) -> Vec<Exporter> {
    let reader = section.reader();
    let mut children = section.children();
    children.sort_by_key(|(name, ..)| pipeline.order("exporters", name));
    let mut exporters: Vec<Exporter> = Vec::new();
    for (name, at, mut settings) in children {
        if let Err(message) = check_name(name) {
            reader.problem(at, message);
            continue;
        }
        let kind = kind(name);
        if let Some((later, instead)) = LATER.iter().find(|(later, _)| *later == kind) {
            reader.problem(at, format!("the exporter {later:?} is not available in this version: {instead}"));
            continue;
        }
        if !KINDS.contains(&kind) {
            reader.problem(at, format!("unknown exporter {kind:?}{}", hint(kind, &KINDS)));
            continue;
        }
        // The first OTLP destination is what the appliance is for; a slow second one must not hold senders up.
        let is_otlp = kind.starts_with("otlp");
        let required = is_otlp && !exporters.iter().any(|other| matches!(other.backend, Backend::OtlpHttp(_)));
        let backend = match kind {
            "influxdb" => read_influx(&mut settings, at),
            "plugin" => read_plugin(name, &mut settings, at),
            _ => read_otlp_http(&mut settings, at),
        };
        let start_at = [("oldest", StartAt::Oldest), ("tail", StartAt::Tail)];
        exporters.push(Exporter {
            name: name.to_owned(),
            requirement: read_requirement(&mut settings, required, queue_max_bytes),
            start_at: settings.choice("start_at", &start_at, "oldest").value,
            batch: read_batch(&mut settings, batch),
            retry: read_retry(&mut settings),
            backend,
        });
        settings.finish();
    }
    section.finish();
    exporters
}

fn read_requirement(section: &mut Section<'_>, default: bool, queue_max_bytes: u64) -> Requirement {
    let required = section.read("required", &SWITCH, default).value;
    let max_lag = section.read("max_lag", &BYTES, queue_max_bytes / 2);
    if max_lag.value > queue_max_bytes {
        let message = format!("{} is more than queue.max_bytes, {queue_max_bytes}", section.key("max_lag"));
        section.reader().problem(&max_lag.origin, message);
    }
    if required && max_lag.origin != Origin::Default {
        let message = format!("{} has no effect: the destination is required", section.key("max_lag"));
        section.reader().warning(&max_lag.origin, &message);
    }
    if required { Requirement::Required } else { Requirement::Optional { max_lag_bytes: max_lag.value } }
}

fn read_retry(settings: &mut Section<'_>) -> Retry {
    let mut section = settings.section("retry_on_failure");
    let enabled = section.read("enabled", &SWITCH, true);
    if !enabled.value {
        let message = format!("{}: what is in the log is sent until it is taken", section.key("enabled"));
        section.reader().problem(&enabled.origin, message);
    }
    let initial = section.read("initial_interval", &TIMEOUT, Duration::from_millis(500));
    let max = section.read("max_interval", &TIMEOUT, Duration::from_secs(60));
    if initial.value > max.value {
        let message = format!("{} must be at most max_interval", section.key("initial_interval"));
        section.reader().problem(&initial.origin, message);
    }
    section.ignore("max_elapsed_time", "nothing is dropped because of time");
    section.ignore("multiplier", "back-off doubles");
    section.ignore("randomization_factor", "back-off has full jitter");
    section.finish();
    let max_concurrency = settings.section("sending_queue").read("num_consumers", &AT_LEAST_ONE, 4).value;
    Retry { initial: initial.value, max: max.value, max_concurrency }
}

/// The batch and the size of a request: `sending_queue` where it means the same.
fn read_batch(settings: &mut Section<'_>, defaults: &BatchDefaults) -> Batch {
    let mut queue = settings.section("sending_queue");
    queue.ignore("enabled", "the log is the queue");
    queue.ignore("queue_size", "the log is the queue; see queue.max_bytes");
    queue.ignore("storage", "the log is the queue");
    queue.ignore("sizer", "the log is the queue");
    queue.ignore("block_on_overflow", "see admission of the receivers");
    queue.has("num_consumers");
    let mut batch = queue.section("batch");
    batch.ignore("sizer", "batches are measured in spans");
    let send_spans = batch.read_optional("min_size", &AT_LEAST_ONE);
    let timeout = batch.read_optional("flush_timeout", &DURATION);
    let max_spans = batch.read_optional("max_size", &COUNT);
    batch.finish();
    queue.finish();

    let max_request = settings.read("max_request_bytes", &BYTES, 1 << 20);
    // Whole blocks go into a request, and the largest is a mebibyte.
    if !((1 << 20)..=(64 << 20)).contains(&max_request.value) {
        let message = format!("{} must be from 1MiB to 64MiB", settings.key("max_request_bytes"));
        settings.reader().problem(&max_request.origin, message);
    }
    let max_spans = defaults.max_spans.clone().or_stronger(max_spans);
    let send_spans = defaults.send_spans.clone().or_stronger(send_spans);
    if max_spans.value > 0 && max_spans.value < send_spans.value {
        let message = format!("at most {} spans a batch, but sent at {}", max_spans.value, send_spans.value);
        settings.reader().problem(&max_spans.origin, message);
    }
    Batch {
        send_spans: send_spans.value,
        timeout: defaults.timeout.clone().or_stronger(timeout).value,
        max_spans: Some(max_spans.value).filter(|spans| *spans > 0),
        max_request_bytes: usize::try_from(max_request.value).unwrap_or(usize::MAX),
    }
}

fn read_otlp_http(section: &mut Section<'_>, at: &Origin) -> Backend {
    let reader = section.reader();
    let base = section.read_optional("endpoint", &TEXT);
    let traces = section.read_optional("traces_endpoint", &TEXT);
    let whole = base.map(|base| Sourced { value: traces_url(&base.value), origin: base.origin });
    let url = match (whole, traces) {
        (Some(base), traces) => Some(base.or_stronger(traces)),
        (None, traces) => traces,
    };
    let traces_url = match url {
        Some(url) => {
            check_url(&url, reader);
            url.value
        }
        None => {
            reader.problem(at, format!("{} is missing", section.key("endpoint")));
            String::new()
        }
    };
    section.refuse("logs_endpoint", "this version sends traces only");
    section.refuse("metrics_endpoint", "this version sends traces only");
    let encoding = [("proto", Encoding::Protobuf), ("json", Encoding::Json)];
    let encoding = section.choice("encoding", &encoding, "proto");
    // The word of OTEL_EXPORTER_OTLP_PROTOCOL; gRPC falls through to the complaint.
    let protocol = section.read_optional("protocol", &TEXT).and_then(|protocol| match protocol.value.as_str() {
        "http/protobuf" => Some(Sourced { value: Encoding::Protobuf, origin: protocol.origin }),
        "http/json" => Some(Sourced { value: Encoding::Json, origin: protocol.origin }),
        "grpc" => {
            reader.problem(
                &protocol.origin,
                "OTLP over gRPC is not available in this version: use http/protobuf".to_owned(),
            );
            None
        }
        other => {
            reader.problem(&protocol.origin, format!("protocol {other:?} is none of http/protobuf, http/json"));
            None
        }
    });
    let http = read_http_client(section);
    Backend::OtlpHttp(OtlpHttp { traces_url, encoding: encoding.or_stronger(protocol).value, http })
}

/// The base URL with `/v1/traces`, unless it has it already, as ProxyTrace's default does.
fn traces_url(base: &str) -> String {
    let base = base.trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

fn check_url(url: &Sourced<String>, reader: &Reader) {
    let parsed: Option<Uri> = url.value.parse().ok();
    let is_good = parsed.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    let has_credentials = parsed.as_ref().and_then(Uri::authority).is_some_and(|a| a.as_str().contains('@'));
    if has_credentials {
        // The value is not repeated: it holds a password.
        reader.problem(&url.origin, "an endpoint must not hold a user or password; use headers".to_owned());
    } else if !is_good {
        reader.problem(&url.origin, format!("endpoint {:?} is not http://HOST[:PORT] or https://...", url.value));
    }
}

/// The endpoint as it is written; empty when it is missing, which is a problem.
fn read_endpoint(section: &mut Section<'_>, at: &Origin) -> String {
    let reader = section.reader();
    let Some(url) = section.read_optional("endpoint", &TEXT) else {
        reader.problem(at, format!("{} is missing", section.key("endpoint")));
        return String::new();
    };
    check_url(&url, reader);
    url.value
}

fn read_plugin(name: &str, section: &mut Section<'_>, at: &Origin) -> Backend {
    let plugin = plugins::read_plain(name, section);
    if plugin.class == PluginClass::Heavy {
        let message = format!("{}: the threads of an exporter have no room for a heavy plugin", section.key("class"));
        section.reader().problem(section.at(), message);
    }
    let url = read_endpoint(section, at);
    Backend::Plugin(Box::new(PluginExport { url, plugin, http: read_http_client(section) }))
}

fn read_influx(section: &mut Section<'_>, at: &Origin) -> Backend {
    let url = read_endpoint(section, at);
    let org = section.read("org", &TEXT, String::new()).value;
    let bucket = section.read("bucket", &TEXT, "traces".to_owned()).value;
    let mut v1 = section.section("v1_compatibility");
    let is_v1 = v1.read("enabled", &SWITCH, false).value;
    let database = v1.read("db", &TEXT, "traces".to_owned()).value;
    v1.refuse("username", "write an authorization header under headers");
    v1.refuse("password", "write an authorization header under headers");
    v1.finish();
    section.refuse("precision", "times are written in nanoseconds");
    let schema = [("tags", InfluxSchema::Tags), ("fields", InfluxSchema::Fields)];
    Backend::Influx(Influx {
        url: url.trim_end_matches('/').to_owned(),
        token: section.read_secret("token"),
        write: if is_v1 { InfluxWrite::V1 { database } } else { InfluxWrite::V2 { org, bucket } },
        schema: section.choice("schema", &schema, "tags").value,
        http: read_http_client(section),
    })
}

fn read_http_client(section: &mut Section<'_>) -> HttpClient {
    let reader = section.reader();
    let mut tls = section.section("tls");
    let ca_file = tls.read_optional("ca_file", &PATH).map(|path| path.value);
    tls.refuse("insecure_skip_verify", "a certificate that is not checked protects nothing; use ca_file");
    tls.refuse("cert_file", "client certificates");
    tls.refuse("key_file", "client certificates");
    tls.ignore("insecure", "the scheme of the endpoint decides");
    tls.finish();
    let mut headers = Vec::new();
    let mut written = section.section("headers");
    for (name, at) in written.names() {
        let is_token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        let value = written.read_secret(name).unwrap_or_default();
        // A line break in a value would start another header: the value is refused and not shown.
        if !is_token || value.bytes().any(|b| b.is_ascii_control()) {
            reader.problem(at, format!("the header {name:?} has a name or value that no request can carry"));
            continue;
        }
        headers.push((name.to_owned(), value));
    }
    let words = [
        ("none", Compression::None),
        ("", Compression::None),
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
    ];
    HttpClient {
        headers,
        ca_file,
        compression: section.choice("compression", &words, "none").value,
        timeout: section.read("timeout", &TIMEOUT, Duration::from_secs(10)).value,
        connect_timeout: section.read("connect_timeout", &TIMEOUT, Duration::from_secs(5)).value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traces_path_is_put_on_once() {
        let cases = [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
            ("http://c:4318/v1/traces/", "http://c:4318/v1/traces"),
            ("http://c/otlp", "http://c/otlp/v1/traces"),
        ];
        for (base, expected) in cases {
            assert_eq!(traces_url(base), expected, "{base}");
        }
    }
}
