//! Spans on which plugins are tried: typical ones, and such as endpoints send on a bad day.
//!
//! They are made, not stored, and are the same on every machine; so are the bytes that decoders are tried on. A typical
//! span has twelve attributes, of which most have names that plugins ask for: command lines, URLs, users, programs, codes
//! and durations.

use serde_json::{Value, json};

use crate::otlp::from_json;

/// Spans of a typical batch.
pub(super) const TYPICAL_SPANS: usize = 512;

/// Spans of one resource.
const SPANS_A_RESOURCE: usize = 64;

/// When the first span started, Unix nanoseconds.
const START_NS: u64 = 1_767_225_600_000_000_000;

/// A batch with a name.
pub(super) struct Sample {
    /// What is particular about it.
    pub(super) name: &'static str,
    /// A request of OTLP.
    pub(super) payload: Vec<u8>,
}

/// The batches of a check.
pub(super) fn samples() -> Vec<Sample> {
    let sample = |name, spans| Sample { name, payload: payload(spans) };
    vec![
        Sample { name: "typical", payload: batch() },
        sample("one span", vec![typical(0)]),
        sample("no attributes", (0..8).map(|index| span(index, "bare", Vec::new())).collect()),
        sample("other kinds", (0..8).map(other_kinds).collect()),
        sample("odd texts", (0..8).map(odd_texts).collect()),
        sample("long texts", (0..8).map(long_texts).collect()),
    ]
}

/// Bytes that strangers send to whoever listens, and decoders have to survive.
pub(super) fn connections() -> Vec<(&'static str, Vec<u8>)> {
    let mut state = 1_u64;
    let noise = (0..4096).map(|_| {
        // Knuth's MMIX generator: the same bytes on every machine.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    vec![
        ("no bytes", Vec::new()),
        ("text lines", b"hello world\n\r\n \n{\"a\": 1}\n1 2 3 4\nk=v k=\"v w\"\n".to_vec()),
        ("half a line", b"the peer went away in the mid".to_vec()),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: millrace\r\nUser-Agent: scanner\r\n\r\n".to_vec()),
        ("noise", noise.collect()),
        ("zeros", vec![0; 4096]),
        ("no end", vec![b'x'; 8 << 10]),
    ]
}

/// A typical batch.
pub(super) fn batch() -> Vec<u8> {
    payload((0..TYPICAL_SPANS).map(typical).collect())
}

const USERS: [&str; 4] = ["CORP\\alice", "CORP\\bob", "NT AUTHORITY\\SYSTEM", "CORP\\carol"];
const PROGRAMS: [&str; 4] = ["outlook.exe", "chrome.exe", "powershell.exe", "svchost.exe"];
const AGENTS: [&str; 2] = ["Mozilla/5.0 (Windows NT 10.0) Chrome/141.0 Safari/537.36", "curl/8.11.1"];

/// The keys whose values the odd spans replace.
const KEYS: [&str; 6] = [
    "process.command_line",
    "url.full",
    "user.name",
    "process.executable.name",
    "user_agent.original",
    "http.response.status_code",
];

fn typical(index: usize) -> Value {
    let text = |key: &str, value: String| json!({ "key": key, "value": { "stringValue": value } });
    let integer = |key: &str, value: usize| json!({ "key": key, "value": { "intValue": value.to_string() } });
    let program = PROGRAMS[index % PROGRAMS.len()];
    let command = format!("C:\\Program Files\\App\\{program} --session {index} --token s3cret{index} /quiet");
    let attributes = vec![
        text("process.command_line", command),
        text("process.executable.name", program.to_owned()),
        integer("process.pid", 1000 + index),
        text("user.name", USERS[index % USERS.len()].to_owned()),
        text("url.full", format!("https://shop.example/item/{index}?token=abc{index}&page=2")),
        text("user_agent.original", AGENTS[index % AGENTS.len()].to_owned()),
        integer("http.response.status_code", if index.is_multiple_of(16) { 500 } else { 200 }),
        text("server.address", format!("host-{}.example", index % 32)),
        text("client.address", format!("10.0.{}.{}", index % 8, index % 251)),
        json!({ "key": "app.ratio", "value": { "doubleValue": 0.25 } }),
        json!({ "key": "app.interactive", "value": { "boolValue": index.is_multiple_of(2) } }),
        text("session.id", format!("{:016x}", index / 8)),
    ];
    span(index, "GET /item", attributes)
}

/// What is text elsewhere is something else here.
fn other_kinds(index: usize) -> Value {
    let values = [
        json!({ "intValue": "-9223372036854775808" }),
        json!({ "doubleValue": -0.0 }),
        json!({ "boolValue": true }),
        json!({ "bytesValue": "AP//" }),
        json!({ "arrayValue": { "values": [{ "stringValue": "a" }, { "intValue": "1" }] } }),
        json!({ "kvlistValue": { "values": [{ "key": "k", "value": { "stringValue": "v" } }] } }),
    ];
    replaced(index, |key| values[(key + index) % values.len()].clone())
}

fn odd_texts(index: usize) -> Value {
    let texts =
        ["", " ", "grüße 🦀 你好", "\u{0}\u{1}\n\t\"\\", "--token=", "?", "\u{feff}\u{202e}x", "a=b&token=%F0%28"];
    replaced(index, |key| json!({ "stringValue": texts[(key + index) % texts.len()] }))
}

fn long_texts(index: usize) -> Value {
    let part = ["x", "-", "--token ", "?a=b&"][index % 4];
    replaced(index, |_| json!({ "stringValue": part.repeat((8 << 10) / part.len()) }))
}

/// A span whose usual keys have other values.
fn replaced(index: usize, value: impl Fn(usize) -> Value) -> Value {
    let attribute = |(number, key): (usize, &&str)| json!({ "key": key, "value": value(number) });
    span(index, "odd", KEYS.iter().enumerate().map(attribute).collect())
}

fn span(index: usize, name: &str, attributes: Vec<Value>) -> Value {
    let start_ns = START_NS + 1_000_000 * index as u64;
    json!({
        "traceId": format!("{:032x}", 1 + index / 8),
        "spanId": format!("{:016x}", 1 + index),
        "parentSpanId": if index.is_multiple_of(8) { String::new() } else { format!("{:016x}", 1 + index / 8 * 8) },
        "name": name,
        "kind": 2,
        "startTimeUnixNano": start_ns.to_string(),
        "endTimeUnixNano": (start_ns + 2_500_000).to_string(),
        "status": { "code": if index.is_multiple_of(16) { 2 } else { 0 } },
        "attributes": attributes,
    })
}

fn payload(spans: Vec<Value>) -> Vec<u8> {
    let resource = |(number, spans): (usize, &[Value])| {
        json!({
            "resource": { "attributes": [
                { "key": "service.name", "value": { "stringValue": format!("service-{number}") } },
                { "key": "host.name", "value": { "stringValue": format!("host-{number}") } },
            ] },
            "scopeSpans": [{ "scope": { "name": "sample", "version": "1" }, "spans": spans }],
        })
    };
    let resources: Vec<Value> = spans.chunks(SPANS_A_RESOURCE).enumerate().map(resource).collect();
    let mut payload = Vec::new();
    let text = json!({ "resourceSpans": resources }).to_string();
    from_json::traces(text.as_bytes(), &mut payload).expect("what is made here is OTLP");
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::check;

    #[test]
    fn samples_are_what_a_receiver_would_take() {
        for Sample { name, payload } in samples() {
            let checked = check::check(&payload).unwrap();
            assert!(checked.cut_out.is_none(), "{name}: {:?}", checked.cut_out);
        }
        assert_eq!(check::check(&batch()).unwrap().summary.spans, 512);
    }
}
