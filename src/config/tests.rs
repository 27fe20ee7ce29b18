//! The configuration as people write it: the seeds' examples, precedence, and every message that has to help.
//!
//! Each test goes through [`load`] with the whole text, variables and flags of a set-up; host and names are made up, so
//! that no test depends on the machine. Messages are compared whole, place included.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::budget::{budget, pools};
use super::*;

/// One set-up: a file, variables and flags.
#[derive(Default)]
struct Case<'a> {
    file: Option<&'a str>,
    variables: &'a [(&'a str, &'a str)],
    flags: &'a [(&'static str, &'a str)],
    proxytrace: bool,
}

impl Case<'_> {
    fn load(&self) -> Result<Loaded, ConfigError> {
        let flags: Vec<(&'static str, String)> =
            self.flags.iter().map(|(name, value)| (*name, (*value).into())).collect();
        let variable =
            |name: &str| self.variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let here: IpAddr = "192.0.2.7".parse().unwrap();
        let inputs = Inputs {
            file: self.file.map(|text| File { name: "millrace.yaml", text }),
            environment: &variable,
            flags: &flags,
            proxytrace: self.proxytrace,
            host: Host {
                resolve: &|name| if name == "collector.example" { vec![here] } else { Vec::new() },
                is_local: &|address| address == here,
            },
        };
        load(&inputs)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}")).config
    }

    /// The problems, one a line.
    fn problems(&self) -> String {
        self.load().map(|loaded| loaded.config).unwrap_err().to_string()
    }
}

fn file(text: &str) -> Case<'_> {
    Case { file: Some(text), ..Case::default() }
}

fn variables<'a>(variables: &'a [(&'a str, &'a str)]) -> Case<'a> {
    Case { variables, ..Case::default() }
}

fn otlp(exporter: &Exporter) -> &OtlpHttp {
    match &exporter.backend {
        Backend::OtlpHttp(otlp) => otlp,
        _ => panic!("{} is no OTLP exporter", exporter.name),
    }
}

fn influx(exporter: &Exporter) -> &Influx {
    match &exporter.backend {
        Backend::Influx(influx) => influx,
        _ => panic!("{} is no InfluxDB exporter", exporter.name),
    }
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = Case::default().config();
    let listens: Vec<String> = config.receivers.iter().map(|r| format!("{} {}", r.name, r.listen)).collect();
    assert_eq!(listens, ["uberagent 0.0.0.0:5000", "otlp 127.0.0.1:4318", "elasticsearch 127.0.0.1:9200"]);
    assert_eq!(config.management.to_string(), "0.0.0.0:8000");
    assert!(config.exporters.is_empty(), "exports only where told");
    assert_eq!(config.state_directory, PathBuf::from("millrace-data"));
    assert_eq!(config.uberagent, Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter });
    assert_eq!((config.queue.ack, config.queue.max_spans_in_memory), (AckPolicy::Durable, 10_000));
    assert_eq!(config.lanes, None);
}

#[test]
fn every_variable_of_proxytrace_works_without_a_file() {
    let config = variables(&[
        ("LISTEN_HOST", "127.0.0.1"),
        ("LISTEN_PORT", "5001"),
        ("METRICS_PORT", "8001"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4318/v1/traces"),
        ("WORKER_COUNT", "3"),
        ("BATCH_SIZE", "50"),
        ("BATCH_TIMEOUT", "0.5"),
        ("QUEUE_MAXSIZE", "777"),
        ("DEBUG_MODE", "true"),
        ("INFLUX_URL", "http://victoriametrics:8428"),
        ("INFLUX_TOKEN", "secret"),
        ("INFLUX_ORG", "acme"),
        ("INFLUX_BUCKET", "maps"),
        ("STATE_DIRECTORY", "/var/lib/millrace:/other"),
    ])
    .config();
    assert_eq!(config.receivers[0].listen.to_string(), "127.0.0.1:5001");
    assert_eq!(config.management.port(), 8001);
    assert_eq!((config.lanes, config.queue.max_spans_in_memory), (Some(3), 777));
    assert!(config.log.debug);
    assert_eq!(config.state_directory, PathBuf::from("/var/lib/millrace"));
    let [first, second] = &config.exporters[..] else { panic!("{:?}", config.exporters) };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("otlphttp", "influxdb"));
    assert_eq!(otlp(first).traces_url, "http://jaeger:4318/v1/traces");
    assert_eq!(first.requirement, Requirement::Required);
    let half = config.queue.max_bytes / 2;
    assert_eq!(second.requirement, Requirement::Optional { max_lag_bytes: half });
    let batch =
        Batch { send_spans: 50, timeout: Duration::from_millis(500), max_spans: Some(50), max_request_bytes: 1 << 20 };
    assert_eq!((first.batch, second.batch), (batch, batch));
    let map = influx(second);
    assert_eq!((map.url.as_str(), map.token.as_deref()), ("http://victoriametrics:8428", Some("secret")));
    assert_eq!(map.write, InfluxWrite::V2 { org: "acme".into(), bucket: "maps".into() });
    assert_eq!(map.schema, InfluxSchema::Tags);
}

#[test]
fn only_the_first_otlp_destination_may_hold_senders_up() {
    let requirements = |text: &str| -> Vec<bool> {
        let exporters = file(text).config().exporters;
        exporters.iter().map(|exporter| exporter.requirement == Requirement::Required).collect()
    };
    assert_eq!(requirements("exporters: {influxdb: {endpoint: 'http://i'}}"), [false]);
    let both = "exporters: {influxdb: {endpoint: 'http://i'}, otlphttp: {endpoint: 'http://a'}, otlphttp/b: {endpoint: 'http://b'}}";
    assert_eq!(requirements(both), [false, true, false]);
    assert_eq!(requirements("exporters: {otlphttp: {endpoint: 'http://a', required: false}}"), [false]);
}

#[test]
fn the_batch_size_is_a_cap_only_when_it_is_set() {
    let config = variables(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4318")]).config();
    let batch = config.exporters[0].batch;
    assert_eq!((batch.send_spans, batch.max_spans, batch.timeout), (200, None, Duration::from_millis(200)));
}

#[test]
fn the_endpoints_of_proxytrace_are_defaults_only_when_asked_for() {
    let asked = Case { proxytrace: true, ..Case::default() };
    let config = asked.config();
    assert_eq!(otlp(&config.exporters[0]).traces_url, "http://jaeger:4318/v1/traces");
    assert_eq!(influx(&config.exporters[1]).url, "http://victoriametrics:8428");
    let over = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("INFLUX_URL", "http://i:8086")];
    let config = Case { proxytrace: true, variables: &over, ..Case::default() }.config();
    assert_eq!(otlp(&config.exporters[0]).traces_url, "http://c:4318/v1/traces");
    assert_eq!(influx(&config.exporters[1]).url, "http://i:8086");
    let text = "exporters: {otlp_http: {endpoint: 'http://mine:4318'}}";
    let config = Case { file: Some(text), proxytrace: true, ..Case::default() }.config();
    let names: Vec<&str> = config.exporters.iter().map(|exporter| exporter.name.as_str()).collect();
    assert_eq!(names, ["otlp_http", "influxdb"]);
    assert_eq!(otlp(&config.exporters[0]).traces_url, "http://mine:4318/v1/traces");
}

#[test]
fn the_variables_of_the_exporter_specification_work() {
    let config = variables(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://special/as/is"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20abc, x-scope=a=b"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ])
    .config();
    let otlp = otlp(&config.exporters[0]);
    assert_eq!(otlp.traces_url, "https://special/as/is");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(otlp.http.headers, [header("Authorization", "Bearer abc"), header("x-scope", "a=b")]);
    assert_eq!((otlp.http.timeout, otlp.http.compression), (Duration::from_millis(2500), Compression::Gzip));
    assert_eq!(otlp.http.ca_file, Some(PathBuf::from("/etc/ca.pem")));
    assert_eq!(otlp.encoding, Encoding::Json);
    let grpc = variables(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert_eq!(
        grpc.problems(),
        "environment OTEL_EXPORTER_OTLP_PROTOCOL: OTLP over gRPC is not available in this version: use http/protobuf"
    );
}

#[test]
fn the_tracing_service_has_its_variables_too() {
    let tracing_service = [("SERVICE_HOST", "127.0.0.1"), ("SERVICE_PORT", "8009"), ("TRACE_RETENTION_HOURS", "24")];
    let config = variables(&tracing_service).config();
    assert_eq!(config.management.to_string(), "127.0.0.1:8009");
    assert_eq!(config.queue.retain, Duration::from_secs(24 * 3600));
    assert_eq!(variables(&[("SERVICE_PORT", "8009"), ("METRICS_PORT", "8001")]).config().management.port(), 8001);
    let loaded = variables(&[("TRACE_SAMPLING_RATE", "0.1")]).load().unwrap();
    assert_eq!(loaded.warnings, ["environment TRACE_SAMPLING_RATE: known, but without effect in this version"]);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let text = "
receivers:
  uberagent:
    protocols:
      tcp: {endpoint: '10.0.0.1:6000'}
processors:
  batch: {send_batch_size: 300}
exporters:
  otlphttp:
    endpoint: http://file:4318
    sending_queue: {batch: {min_size: 400}}
";
    let listen = |variables, flags| {
        let case = Case { file: Some(text), variables, flags, ..Case::default() };
        case.config().receivers[0].listen.to_string()
    };
    assert_eq!(listen(&[], &[]), "10.0.0.1:6000");
    assert_eq!(listen(&[("LISTEN_PORT", "6001")], &[]), "10.0.0.1:6001");
    assert_eq!(listen(&[("LISTEN_PORT", "6001"), ("LISTEN_HOST", "0.0.0.0")], &[]), "0.0.0.0:6001");
    assert_eq!(listen(&[("LISTEN_PORT", "6001")], &[("listen-port", "6002")]), "10.0.0.1:6002");
    let sends =
        |variables| Case { file: Some(text), variables, ..Case::default() }.config().exporters[0].batch.send_spans;
    assert_eq!(sends(&[]), 400, "of one layer the more specific");
    assert_eq!(sends(&[("BATCH_SIZE", "50")]), 50, "the stronger layer, though less specific");
    let url = |variables| {
        otlp(&Case { file: Some(text), variables, ..Case::default() }.config().exporters[0]).traces_url.clone()
    };
    assert_eq!(url(&[]), "http://file:4318/v1/traces");
    assert_eq!(url(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318")]), "http://env:4318/v1/traces");
    assert_eq!(url(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), "http://file:4318/v1/traces", "empty is unset");
    let as_is = "exporters: {otlphttp: {traces_endpoint: 'http://file/x'}}";
    let over = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318")];
    let config = Case { file: Some(as_is), variables: &over, ..Case::default() }.config();
    assert_eq!(otlp(&config.exporters[0]).traces_url, "http://env:4318/v1/traces");
}

#[test]
fn a_pipeline_chooses_and_orders_its_components() {
    let text = "
receivers:
  otlp: {protocols: {http: {endpoint: 'localhost:14318'}}}
  otlp/second: {protocols: {http: {endpoint: '127.0.0.1:24318', max_connections: 7}}, admission: drop_newest}
  uberagent: {protocols: {tcp: }}
processors:
  batch: {timeout: 10s, send_batch_size: 1024}
exporters:
  influxdb: {endpoint: 'http://i:8086', token: t, v1_compatibility: {enabled: true, db: maps}, schema: fields}
  otlphttp: {endpoint: 'http://a:4318'}
  otlphttp/second: {endpoint: 'http://b:4318', required: true, start_at: tail, headers: {x-key: v}}
  otlphttp/unused: {endpoint: 'http://c:4318'}
service:
  pipelines:
    traces:
      receivers: [otlp/second, uberagent]
      processors: [batch]
      exporters: [otlphttp/second, otlphttp, influxdb]
";
    let over = [("LISTEN_PORT", "5005"), ("INFLUX_BUCKET", "x")];
    let loaded = Case { file: Some(text), variables: &over, ..Case::default() }.load().unwrap();
    let config = loaded.config;
    let receivers: Vec<&str> = config.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
    assert_eq!(receivers, ["otlp/second", "uberagent"]);
    assert_eq!(config.receivers[0].admission, Admission::DropNewest);
    assert_eq!(config.receivers[1].listen.port(), 5005);
    let exporters: Vec<&str> = config.exporters.iter().map(|exporter| exporter.name.as_str()).collect();
    assert_eq!(exporters, ["otlphttp/second", "otlphttp", "influxdb"]);
    assert_eq!((config.exporters[0].requirement, config.exporters[0].start_at), (Requirement::Required, StartAt::Tail));
    assert_ne!(config.exporters[1].requirement, Requirement::Required);
    assert_eq!(config.exporters[1].batch.timeout, Duration::from_secs(10));
    assert_eq!(influx(&config.exporters[2]).write, InfluxWrite::V1 { database: "maps".into() });
    assert_eq!(
        loaded.warnings,
        [
            "millrace.yaml:3:3: receivers.otlp is defined, but no pipeline uses it",
            "millrace.yaml:12:3: exporters.otlphttp/unused is defined, but no pipeline uses it",
            "millrace.yaml:4:16: receivers.otlp/second.admission: drop_newest is as block here: when the queue is full, \
             requests are told to come again, and nothing is dropped",
        ]
    );
}

#[test]
fn a_variable_does_not_add_to_an_explicit_pipeline() {
    let text = "
receivers: {otlp: {protocols: {http: }}}
exporters: {influxdb: {endpoint: 'http://i:8086'}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [influxdb]}}}
";
    let over = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("LISTEN_PORT", "5001")];
    let loaded = Case { file: Some(text), variables: &over, ..Case::default() }.load().unwrap();
    assert_eq!((loaded.config.receivers.len(), loaded.config.exporters.len()), (1, 1));
    assert_eq!(
        loaded.warnings,
        [
            "environment LISTEN_PORT: no effect: there is no receiver \"uberagent\"",
            "environment OTEL_EXPORTER_OTLP_ENDPOINT: no effect: there is no exporter \"otlphttp\"",
        ]
    );
    let without_pipeline = "receivers: {otlp: {protocols: {http: }}}";
    let config = Case { file: Some(without_pipeline), variables: &over, ..Case::default() }.config();
    assert_eq!((config.receivers.len(), config.exporters.len()), (2, 1));
}

#[test]
fn the_example_of_tracecore_names_what_is_not_there_yet() {
    let text = include_str!("../../tests/data/config/tracecore.yaml");
    let case = Case { file: Some(text), variables: &[("AIRDIG_API_KEY", "k")], ..Case::default() };
    let expected = [
        "millrace.yaml:5:7: receivers.otlp.protocols.grpc is not available in this version: senders can use OTLP/HTTP (protocols.http); remove it",
        "millrace.yaml:15:3: the processor \"airdig\" is not available in this version: remove it",
        "millrace.yaml:26:3: the exporter \"tempo\" is not available in this version: Tempo takes OTLP over HTTP: use otlphttp with endpoint http://HOST:4318",
        "millrace.yaml:30:3: the exporter \"airdig_engine\" is not available in this version: remove it",
    ];
    assert_eq!(case.problems(), expected.join("\n"));
    let unset = Case { file: Some(text), ..Case::default() };
    let problems = unset.problems();
    assert!(problems.contains("millrace.yaml:32:14: the environment variable AIRDIG_API_KEY is not set"), "{problems}");
}

#[test]
fn every_problem_is_named_with_its_place_and_what_was_meant() {
    let cases = [
        ("qeue: {}", "millrace.yaml:1:1: unknown key \"qeue\"; did you mean \"queue\"?"),
        ("queue: {max_byte: 1GiB}", "millrace.yaml:1:9: unknown key \"queue.max_byte\"; did you mean \"max_bytes\"?"),
        (
            "queue:\n  retain: 5",
            "millrace.yaml:2:11: queue.retain: \"5\" is not a duration of more than 0 with a unit, such as 200ms, 5s or 1h30m",
        ),
        (
            "queue: {ack: durably}",
            "millrace.yaml:1:14: queue.ack: \"durably\" is none of durable, appended; did you mean \"durable\"?",
        ),
        ("queue: [1]", "millrace.yaml:1:8: queue must be a map of keys"),
        ("queue: {ack: {a: b}}", "millrace.yaml:1:14: queue.ack must be one word"),
        ("queue: {ack: durable, ack: durable}", "millrace.yaml:1:23: the key \"ack\" is given twice"),
        ("lanes: 0", "millrace.yaml:1:8: lanes: \"0\" is not a whole number from 1"),
        ("receivers: {otlpp: }", "millrace.yaml:1:13: unknown receiver \"otlpp\"; did you mean \"otlp\"?"),
        ("receivers:", "millrace.yaml:1:10: receivers: there must be one, or no such key for the usual ones"),
        ("receivers: {zipkin: }", "millrace.yaml:1:13: the receiver \"zipkin\" is not available in this version"),
        ("receivers: {otlp: }", "millrace.yaml:1:17: receivers.otlp.protocols must name a protocol: http"),
        (
            "receivers: {otlp/../x: {protocols: {http: }}}",
            "millrace.yaml:1:13: the name \"otlp/../x\" is not KIND or KIND/NAME of letters, digits, '.', '_' and '-'",
        ),
        ("exporters: {otlphttp: }", "millrace.yaml:1:13: exporters.otlphttp.endpoint is missing"),
        (
            "exporters: {otlphttp: {endpoint: 'c:4318'}}",
            "millrace.yaml:1:34: endpoint \"c:4318/v1/traces\" is not http://HOST[:PORT] or https://...",
        ),
        (
            "exporters: {otlp: {endpoint: 'c:4317'}}",
            "millrace.yaml:1:13: the exporter \"otlp\" is not available in this version: OTLP over gRPC; use otlphttp with the backend's HTTP port, usually 4318",
        ),
        (
            "exporters: {otlphttp: {endpoint: 'http://c', tls: {insecure_skip_verify: true}}}",
            "millrace.yaml:1:52: exporters.otlphttp.tls.insecure_skip_verify is not available in this version: a certificate that is not checked protects nothing; use ca_file",
        ),
        (
            "service: {pipelines: {metrics: }}",
            "millrace.yaml:1:23: the pipeline \"metrics\" is not available in this version: there is one, \"traces\"",
        ),
        (
            "service: {pipelines: {traces: {exporters: [otlphttp]}}}",
            "millrace.yaml:1:44: \"otlphttp\" is not defined under exporters",
        ),
        ("a: 1\n---\nb: 1", "millrace.yaml:2:1: a second document: a configuration is one"),
        (
            "state_directory: ${env:NOWHERE}",
            "millrace.yaml:1:18: the environment variable NOWHERE is not set; ${env:NOWHERE:-} would allow an empty value",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(file(text).problems(), expected, "{text}");
    }
    let problems = file("receivers:\n  otlp:\n   - x\n  otlp2: }").problems();
    assert!(problems.starts_with("millrace.yaml:4:"), "a syntax error has its place: {problems}");
    let variable = variables(&[("BATCH_TIMEOUT", "soon"), ("LISTEN_PORT", "70000")]).problems();
    assert!(
        variable.contains("environment BATCH_TIMEOUT: processors.batch.timeout: \"soon\" is not a duration"),
        "{variable}"
    );
    assert!(
        variable.contains("environment LISTEN_PORT: receivers.uberagent.protocols.tcp.port: \"70000\" is not a port")
    );
}

#[test]
fn all_problems_come_at_once() {
    let text =
        "service: {drain_timeout: z, foo: 1}\nqueue: {retain: y}\nlanes: x\nexporters: {otlphttp: {timeout: 0s}}";
    let problems = Case { file: Some(text), variables: &[("BATCH_SIZE", "0")], ..Case::default() }.problems();
    let places: Vec<&str> = problems.lines().filter_map(|line| line.split(": ").next()).collect();
    let expected = ["1:26", "1:29", "2:17", "3:8", "4:13", "4:33"].map(|place| format!("millrace.yaml:{place}"));
    assert_eq!(places[..6], expected, "{problems}");
    assert_eq!(places[6..], ["environment BATCH_SIZE"], "{problems}");
}

#[test]
fn a_destination_that_is_one_of_ours_is_refused() {
    let leads_back = |url: &str| {
        let over = [("OTEL_EXPORTER_OTLP_ENDPOINT", url)];
        variables(&over).load().err().map(|error| error.to_string())
    };
    for url in
        ["http://127.0.0.1:4318", "http://127.0.0.1:5000", "http://192.0.2.7:8000", "http://collector.example:5000"]
    {
        let message = leads_back(url).unwrap_or_else(|| panic!("{url} was taken"));
        assert!(message.contains("leads back to"), "{message}");
    }
    for url in
        ["http://192.0.2.7:4318", "http://127.0.0.1:14318", "http://unknown.example:5000", "http://198.51.100.1:5000"]
    {
        assert_eq!(leads_back(url), None, "{url}");
    }
    let twice = variables(&[("LISTEN_PORT", "8000")]).problems();
    assert_eq!(twice, "configuration: the management port and uberagent both listen on 0.0.0.0:8000");
    assert!(variables(&[("LISTEN_PORT", "0"), ("METRICS_PORT", "0")]).load().is_ok(), "any free port is no collision");
}

#[test]
fn explain_says_who_said_so_and_keeps_secrets() {
    let text = "
queue:
  max_bytes: 20GiB
exporters:
  influxdb: {endpoint: 'http://i:8086', token: hunter2, headers: {x-key: hunter3}}
";
    let case = Case {
        file: Some(text),
        variables: &[("BATCH_SIZE", "50")],
        flags: &[("listen-port", "6000")],
        ..Case::default()
    };
    let loaded = case.load().unwrap();
    let explained = |key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("no {key}"));
        format!("{} from {}", setting.value, setting.source)
    };
    assert_eq!(explained("queue.max_bytes"), "20GiB from millrace.yaml:3:14");
    assert_eq!(explained("queue.retain"), "3600s from default");
    assert_eq!(explained("processors.batch.send_batch_max_size"), "50 from environment BATCH_SIZE");
    assert_eq!(explained("receivers.uberagent.protocols.tcp.port"), "6000 from flag --listen-port");
    assert_eq!(explained("exporters.influxdb.token"), "*** from millrace.yaml:5:48");
    let everything = format!("{loaded:?}");
    assert!(!everything.contains("hunter"), "a secret is shown: {everything}");
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(file(&text).problems().contains("too large"));
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(file(&deep).problems().contains("too large"));
    let shared = "x: &endpoint 127.0.0.1:7001\nreceivers: {otlp: {protocols: {http: {endpoint: *endpoint}}}}";
    let problems = file(shared).problems();
    assert!(
        problems.starts_with("millrace.yaml:1:1: unknown key \"x\"") && problems.lines().count() == 1,
        "{problems}"
    );
}

#[test]
fn the_budget_adds_up_and_holds_the_limit() {
    let config =
        variables(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("INFLUX_URL", "http://i:8086")]).config();
    for lanes in [1, 2, 4, 16, 64] {
        let budget = budget(&config, lanes).unwrap_or_else(|over| panic!("{lanes} lanes do not fit\n{over}"));
        assert_eq!(budget.total_bytes, budget.lines.iter().map(|line| line.bytes).sum::<u64>());
        assert!(budget.lines.iter().all(|line| line.bytes > 0 && !line.reason.is_empty()), "{budget}");
    }
    assert_eq!(budget(&config, 2).unwrap().limit_bytes, 516 << 20);
    // Each of these limits is one that could be forgotten in the sum.
    let large = [
        "receivers: {uberagent: {protocols: {tcp: {max_connections: 1000000}}}}",
        "receivers: {uberagent: {protocols: {tcp: {max_connections: 18446744073709551615}}}}",
        "receivers: {uberagent: {protocols: {tcp: {max_line_bytes: 1GiB}}}}",
        "receivers: {otlp: {protocols: {http: {max_inflated_bytes: 1GiB}}}}",
        "receivers: {elasticsearch: {max_connections: 100000}}",
        "exporters: {otlphttp: {endpoint: 'http://c', max_request_bytes: 64MiB, encoding: json}}",
        "exporters: {otlphttp: {endpoint: 'http://c', sending_queue: {num_consumers: 1000}}}",
        "queue: {sync_bytes: 1GiB}",
        "memory_limit: 64MiB",
    ];
    for text in large {
        assert!(budget(&file(text).config(), 2).is_err(), "{text} fits");
    }
    let plugin = "processors: {plugin: {path: a.wasm}}\nservice: {pipelines: {traces: {processors: [plugin]}}}\n";
    assert!(
        budget(&file(plugin).config(), 2).unwrap().limit_bytes > 516 << 20,
        "the limit grows with what plugins may have"
    );
    // Also those that read and write formats, each beside what there is by default.
    let formats = "receivers: {plugin/in: {path: a.wasm, endpoint: '127.0.0.1:7000'}, otlp: {protocols: {http: {}}}}\n\
                   exporters: {plugin/out: {path: b.wasm, endpoint: 'http://c'}}\n";
    let without = "receivers: {otlp: {protocols: {http: {}}}}\n";
    let room = |text: &str| {
        let budget = budget(&file(text).config(), 2).unwrap_or_else(|error| panic!("{error}"));
        budget.limit_bytes - budget.total_bytes
    };
    assert!(room(formats) + (8 << 20) > room(without), "{} and {}", room(formats), room(without));
    assert!(budget(&file(&format!("{plugin}memory_limit: 512MiB")).config(), 2).is_err());
    let small = variables(&[("QUEUE_MAXSIZE", "1")]).config();
    assert_eq!((pools(&small, 8).ring_spans, pools(&config, 2).ring_spans), (1, 2500));
}
