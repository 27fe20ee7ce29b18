//! Environment variables and flags: which setting of the file's language each one is, in one table.
//!
//! The ProxyTrace service is configured by variables alone, so each of its variables is here under its own name, with
//! the variables of the OpenTelemetry exporter specification
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>) and those of the Tracing Service that mean something
//! here. A variable that cannot take effect is a warning, not silence: most such cases are misspelt set-ups.
//! Defaults live where a setting is read, except the endpoints of ProxyTrace, which are in force only by `--proxytrace`.

use super::pipelines::Pipeline;
use super::section::Reader;
use super::tree::{Origin, Value};

/// One setting that can be given outside the file.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: Option<&'static str>,
    /// The flag, without the leading `--`.
    pub flag: Option<&'static str>,
    /// Its key in the file, level by level.
    pub path: &'static [&'static str],
    /// How the outer word becomes the file's.
    pub form: Form,
    /// Whether it brings its receiver or exporter into being.
    pub creates: bool,
}

/// How the word of a variable or flag becomes the word of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Same,
    /// A number without a unit, which means this one.
    Unit(&'static str),
    /// A switch that chooses the log level.
    DebugSwitch,
    /// `key=value,key=value` with percent escapes, as the exporter specification writes headers.
    Headers,
    /// A list of directories parted by colons, as systemd writes them; the first counts.
    FirstDirectory,
}

const TCP: [&str; 4] = ["receivers", "uberagent", "protocols", "tcp"];

/// Every variable and flag. Later rows win over earlier ones when both are given.
pub const SETTINGS: &[Setting] = &[
    // The Tracing Service: its own port served health and metrics.
    plain(Some("SERVICE_HOST"), None, &["service", "telemetry", "metrics", "host"], Form::Same),
    plain(Some("SERVICE_PORT"), None, &["service", "telemetry", "metrics", "port"], Form::Same),
    plain(Some("TRACE_RETENTION_HOURS"), None, &["queue", "retain"], Form::Unit("h")),
    // ProxyTrace.
    creator("LISTEN_HOST", "listen-host", &[TCP[0], TCP[1], TCP[2], TCP[3], "host"]),
    creator("LISTEN_PORT", "listen-port", &[TCP[0], TCP[1], TCP[2], TCP[3], "port"]),
    plain(Some("METRICS_PORT"), Some("metrics-port"), &["service", "telemetry", "metrics", "port"], Form::Same),
    creator("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp-endpoint", &["exporters", "otlphttp", "endpoint"]),
    plain(Some("WORKER_COUNT"), Some("workers"), &["lanes"], Form::Same),
    plain(Some("BATCH_SIZE"), Some("batch-size"), &["processors", "batch", "send_batch_size"], Form::Same),
    plain(Some("BATCH_SIZE"), Some("batch-size"), &["processors", "batch", "send_batch_max_size"], Form::Same),
    plain(Some("BATCH_TIMEOUT"), Some("batch-timeout"), &["processors", "batch", "timeout"], Form::Unit("s")),
    plain(Some("QUEUE_MAXSIZE"), Some("queue-maxsize"), &["queue", "max_spans_in_memory"], Form::Same),
    plain(Some("DEBUG_MODE"), Some("debug"), &["service", "telemetry", "logs", "level"], Form::DebugSwitch),
    creator("INFLUX_URL", "influx-url", &["exporters", "influxdb", "endpoint"]),
    plain(Some("INFLUX_TOKEN"), None, &["exporters", "influxdb", "token"], Form::Same),
    plain(Some("INFLUX_ORG"), Some("influx-org"), &["exporters", "influxdb", "org"], Form::Same),
    plain(Some("INFLUX_BUCKET"), Some("influx-bucket"), &["exporters", "influxdb", "bucket"], Form::Same),
    // The OpenTelemetry exporter specification; the variables of one signal win over the general ones.
    Setting {
        variable: Some("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        flag: None,
        path: &["exporters", "otlphttp", "traces_endpoint"],
        form: Form::Same,
        creates: true,
    },
    otlp("OTEL_EXPORTER_OTLP_HEADERS", &["exporters", "otlphttp", "headers"], Form::Headers),
    otlp("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &["exporters", "otlphttp", "headers"], Form::Headers),
    otlp("OTEL_EXPORTER_OTLP_TIMEOUT", &["exporters", "otlphttp", "timeout"], Form::Unit("ms")),
    otlp("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", &["exporters", "otlphttp", "timeout"], Form::Unit("ms")),
    otlp("OTEL_EXPORTER_OTLP_COMPRESSION", &["exporters", "otlphttp", "compression"], Form::Same),
    otlp("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", &["exporters", "otlphttp", "compression"], Form::Same),
    otlp("OTEL_EXPORTER_OTLP_CERTIFICATE", &["exporters", "otlphttp", "tls", "ca_file"], Form::Same),
    otlp("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", &["exporters", "otlphttp", "tls", "ca_file"], Form::Same),
    otlp("OTEL_EXPORTER_OTLP_PROTOCOL", &["exporters", "otlphttp", "protocol"], Form::Same),
    otlp("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &["exporters", "otlphttp", "protocol"], Form::Same),
    // The API on the management port; the commands that call it read the same file.
    plain(Some("MILLRACE_TOKEN_FILE"), None, &["management", "token_file"], Form::Same),
    // What systemd hands to a unit with LoadCredential=.
    plain(Some("CREDENTIALS_DIRECTORY"), None, &["queue", "encryption", "credentials_directory"], Form::Same),
    // Where everything is kept.
    plain(Some("STATE_DIRECTORY"), Some("state-directory"), &["state_directory"], Form::FirstDirectory),
];

/// Variables of the Tracing Service whose function this version does not have.
const LATER_VARIABLES: [&str; 6] = [
    "JAEGER_ENDPOINT",
    "JAEGER_AGENT_HOST",
    "JAEGER_AGENT_PORT",
    "OTEL_EXPORTER_JAEGER_ENDPOINT",
    "TRACE_SAMPLING_RATE",
    "MAX_TRACES_PER_SECOND",
];

const fn plain(
    variable: Option<&'static str>,
    flag: Option<&'static str>,
    path: &'static [&'static str],
    form: Form,
) -> Setting {
    Setting { variable, flag, path, form, creates: false }
}

const fn creator(variable: &'static str, flag: &'static str, path: &'static [&'static str]) -> Setting {
    Setting { variable: Some(variable), flag: Some(flag), path, form: Form::Same, creates: true }
}

const fn otlp(variable: &'static str, path: &'static [&'static str], form: Form) -> Setting {
    Setting { variable: Some(variable), flag: None, path, form, creates: false }
}

/// The endpoint defaults of the ProxyTrace service, under whatever the file says.
pub(super) fn lay_proxytrace_defaults(tree: &mut Value) {
    let otlp = aliased(tree, &["exporters", "otlphttp"]);
    for (component, endpoint) in
        [(otlp[1], "http://jaeger:4318/v1/traces"), ("influxdb", "http://victoriametrics:8428")]
    {
        let unsaid = tree.at(&["exporters", component, "traces_endpoint"]).is_none();
        if unsaid {
            tree.lay_under(&["exporters", component, "endpoint"], endpoint, &Origin::Proxytrace);
        }
    }
}

/// Lays the environment over the tree.
pub(super) fn lay_environment(
    tree: &mut Value,
    environment: &dyn Fn(&str) -> Option<String>,
    pipeline: &Pipeline,
    reader: &Reader,
) {
    let value = |name: &str| environment(name).filter(|value| !value.is_empty());
    // What creates a component comes first, so that the rest finds it.
    for creates in [true, false] {
        for setting in SETTINGS.iter().filter(|setting| setting.creates == creates) {
            let Some(name) = setting.variable else { continue };
            if let Some(text) = value(name) {
                lay(tree, setting, &text, &Origin::Environment(name), (pipeline, reader));
            }
        }
    }
    for name in LATER_VARIABLES {
        if value(name).is_some() {
            reader.warning(&Origin::Environment(name), "known, but without effect in this version");
        }
    }
}

/// Lays flags over the tree.
pub(super) fn lay_flags(tree: &mut Value, flags: &[(&'static str, String)], pipeline: &Pipeline, reader: &Reader) {
    for creates in [true, false] {
        for setting in SETTINGS.iter().filter(|setting| setting.creates == creates) {
            for (name, text) in flags.iter().filter(|(name, _)| setting.flag == Some(*name)) {
                lay(tree, setting, text, &Origin::Flag(name), (pipeline, reader));
            }
        }
    }
}

fn lay(tree: &mut Value, setting: &Setting, text: &str, origin: &Origin, (pipeline, reader): (&Pipeline, &Reader)) {
    let path = aliased(tree, setting.path);
    let section = path[0];
    if section == "receivers" || section == "exporters" {
        let there = tree.at(&path[..2]).is_some();
        let may_create = setting.creates && pipeline.may_add(section, path[1]);
        if !(there || may_create) {
            let kind = section.trim_end_matches('s');
            reader.warning(origin, &format!("no effect: there is no {kind} {:?}", path[1]));
            return;
        }
    }
    match setting.form {
        Form::Same => tree.lay(&path, text, origin),
        // What is no number is left as it is: it may have its unit, and if not the reading names it as it was written.
        Form::Unit(unit) => match text.parse::<f64>() {
            Ok(_) => tree.lay(&path, &format!("{text}{unit}"), origin),
            Err(_) => tree.lay(&path, text, origin),
        },
        Form::DebugSwitch => {
            let level = match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => "debug",
                "false" | "0" | "no" | "off" => "info",
                _ => text,
            };
            tree.lay(&path, level, origin);
        }
        Form::Headers => {
            for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
                match pair.split_once('=') {
                    Some((name, value)) => {
                        let header: Vec<&str> = path.iter().copied().chain([name.trim()]).collect();
                        tree.lay(&header, &percent_decoded(value.trim()), origin);
                    }
                    None => reader.problem(origin, "headers must be written key=value,key=value".to_owned()),
                }
            }
        }
        Form::FirstDirectory => tree.lay(&path, text.split(':').next().unwrap_or(text), origin),
    }
}

/// The path with the component's other spelling, when that is the one in use.
fn aliased<'p>(tree: &Value, path: &[&'p str]) -> Vec<&'p str> {
    let mut path = path.to_vec();
    let other_is_used = tree.at(&["exporters", "otlphttp"]).is_none() && tree.at(&["exporters", "otlp_http"]).is_some();
    if path.starts_with(&["exporters", "otlphttp"]) && other_is_used {
        path[1] = "otlp_http";
    }
    path
}

/// Undoes percent escapes (W3C Baggage, by which header variables are written); what is no escape stays.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let escape = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], escape) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_unescaped() {
        for (text, expected) in
            [("Bearer%20x", "Bearer x"), ("a%2", "a%2"), ("%zz", "%zz"), ("%+5", "%+5"), ("ü%C3%BC", "üü")]
        {
            assert_eq!(percent_decoded(text), expected);
        }
    }
}
