//! The session map in InfluxDB line protocol: one line a session and kind, so that a dashboard finds the trace of a logon.
//!
//! ```text
//! tags    uberAgent:logonTraceMap,guid=<36>,trace_id=<32> value=0i <ns>              ProxyTrace's bytes
//! fields  uberAgent:logonTraceMap,host=<host> guid="<36>",trace_id="<32>" <ns>       no series a session
//! ```
//!
//! The spans themselves are not sent. A request whose sessions are all known needs no line and is not sent. A
//! session's line is durable like every delivery: it is forgotten when the request fails, so the repeated request finds
//! it again; after a restart it may be written twice, as the same point where the time comes out of the GUID.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::{HeaderMap, HeaderValue, Uri, header};

use super::http::{Http, parse_headers, parse_url};
use super::reply::Sent;
use super::sessions::{Recent, Session, SessionKind, TraceId, find, hex_digits};
use super::{Request, SetupError};
use crate::block::Outcome;
use crate::config::{self, Compression, InfluxSchema, InfluxWrite};

/// One sender of an InfluxDB destination; the sessions already written are shared by all its senders.
#[derive(Debug)]
pub struct Influx {
    http: Http,
    url: Uri,
    headers: HeaderMap,
    schema: InfluxSchema,
    compression: Compression,
    recent: Arc<Mutex<Recent>>,
    lines: Vec<u8>,
    packed: Vec<u8>,
}

impl Influx {
    pub(super) fn open(settings: &config::Influx) -> Result<Influx, SetupError> {
        let url = parse_url(&write_url(settings))?;
        let mut headers = parse_headers(&settings.http)?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(token) = &settings.token {
            let refuse = |_| SetupError::Header { name: "Authorization".to_owned() };
            let mut value = HeaderValue::from_str(&format!("Token {token}")).map_err(refuse)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Influx {
            http: Http::open(&url, &settings.http)?,
            url,
            headers,
            schema: settings.schema,
            compression: settings.http.compression,
            recent: Arc::default(),
            lines: Vec::new(),
            packed: Vec::new(),
        })
    }

    pub(super) fn another(&self) -> Influx {
        Influx {
            http: self.http.another(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            recent: Arc::clone(&self.recent),
            lines: Vec::new(),
            packed: Vec::new(),
            ..*self
        }
    }

    pub(super) fn send(&mut self, request: &Request<'_>) -> Outcome {
        let new = self.write_lines(request.payloads);
        if new.is_empty() {
            return Outcome::NothingToSend;
        }
        let payload_bytes = request.payloads.iter().map(|payload| payload.len()).sum();
        let compression = request.compression(self.compression);
        let (to, packing) = ((&self.url, &self.headers), (compression, &mut self.packed));
        let answer = self.http.post_compressed(to, &[self.lines.as_slice()], packing, request.faults);
        let sent = Sent { payload_bytes, compressed: compression != Compression::None, wall_ns: request.wall_ns };
        let outcome = answer.map_or_else(
            |failure| failure,
            |reply| match reply.refusal(sent) {
                Some(refusal) => refusal,
                None if reply.is_of_type("html") => {
                    Outcome::Misconfigured { message: format!("{}, a web page and no database", reply.status) }
                }
                None => Outcome::Accepted,
            },
        );
        if outcome != Outcome::Accepted {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            new.iter().for_each(|id| recent.forget(id));
        }
        outcome
    }

    /// Fills `lines` with the sessions that are new, and says which they are.
    fn write_lines(&mut self, payloads: &[&[u8]]) -> Vec<TraceId> {
        let mut sessions = Vec::new();
        // Held while the payloads are walked, some tens of microseconds: senders that wait for it walk next.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        payloads.iter().for_each(|payload| find(payload, &mut recent, &mut sessions));
        drop(recent);
        self.lines.clear();
        sessions.iter().for_each(|session| write_line(session, self.schema, &mut self.lines));
        sessions.iter().map(|session| session.trace_id).collect()
    }
}

fn write_line(session: &Session<'_>, schema: InfluxSchema, out: &mut Vec<u8>) {
    let measurement = match session.kind {
        SessionKind::Logon => "uberAgent:logonTraceMap",
        SessionKind::Logoff => "uberAgent:logoffTraceMap",
    };
    let trace_id = hex_digits(session.trace_id);
    let trace_id = std::str::from_utf8(&trace_id).expect("hex digits are ASCII");
    let digits = std::str::from_utf8(&session.guid_digits).expect("hex digits are ASCII");
    let guid = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
    let written = match schema {
        InfluxSchema::Tags => {
            writeln!(out, "{measurement},guid={guid},trace_id={trace_id} value=0i {}", session.at_ns)
        }
        InfluxSchema::Fields => {
            let host = session.host.map(tag_value).filter(|host| !host.is_empty());
            let host = host.map(|host| format!(",host={host}")).unwrap_or_default();
            // Points of one series at one time overwrite each other, and FILETIME counts in steps of 100 ns: the digits
            // below come from the session, the same ones every time.
            let at_ns = session.at_ns / 100 * 100 + u64::from(session.trace_id[7]) % 100;
            writeln!(out, "{measurement}{host} guid=\"{guid}\",trace_id=\"{trace_id}\" {at_ns}")
        }
    };
    written.expect("writing to memory does not fail");
}

/// A tag value of line protocol: comma, equals sign and space escaped. What would end the line is left out, and so are
/// backslashes: servers disagree on one in front of an escaped character, and no host name has any.
fn tag_value(text: &[u8]) -> String {
    let mut value = String::new();
    let unwanted = |character: &char| character.is_control() || *character == '\\';
    for character in String::from_utf8_lossy(text).chars().filter(|character| !unwanted(character)) {
        if matches!(character, ',' | '=' | ' ') {
            value.push('\\');
        }
        value.push(character);
    }
    value
}

fn write_url(settings: &config::Influx) -> String {
    let base = settings.url.trim_end_matches('/');
    match &settings.write {
        InfluxWrite::V1 { database } => format!("{base}/write?db={}&precision=n", percent_encoded(database)),
        InfluxWrite::V2 { org, bucket } => {
            let (org, bucket) = (percent_encoded(org), percent_encoded(bucket));
            format!("{base}/api/v2/write?org={org}&bucket={bucket}&precision=ns")
        }
    }
}

/// RFC 3986: everything but the unreserved characters.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(host: Option<&[u8]>) -> Session<'_> {
        Session {
            kind: SessionKind::Logoff,
            trace_id: *b"\x20\x00\x00\x01\x14\xb1\xe9\x3a\x7f\x07\x75\xd3\x90\xbc\x3d\xb0",
            guid_digits: *b"000000114b1e93a7f0775d390bc3db01",
            host,
            at_ns: 1_795_230_395_192_884_224,
        }
    }

    fn line(schema: InfluxSchema, host: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        write_line(&session(host), schema, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tags_are_the_bytes_that_proxytrace_writes() {
        let expected = "uberAgent:logoffTraceMap,guid=00000011-4b1e-93a7-f077-5d390bc3db01,\
                        trace_id=2000000114b1e93a7f0775d390bc3db0 value=0i 1795230395192884224\n";
        assert_eq!(line(InfluxSchema::Tags, Some(b"h")), expected);
    }

    #[test]
    fn fields_make_no_series_a_session_and_escape_the_host() {
        let fields = "guid=\"00000011-4b1e-93a7-f077-5d390bc3db01\",trace_id=\"2000000114b1e93a7f0775d390bc3db0\"";
        for (host, tag) in [
            (None, ""),
            (Some(b"".as_slice()), ""),
            (Some(b"VDI\\ 1,a=b\n\\".as_slice()), ",host=VDI\\ 1\\,a\\=b"),
            (Some("r\u{e4}chner".as_bytes()), ",host=r\u{e4}chner"),
        ] {
            let expected = format!("uberAgent:logoffTraceMap{tag} {fields} 1795230395192884258\n");
            assert_eq!(line(InfluxSchema::Fields, host), expected);
        }
    }

    #[test]
    fn urls_carry_their_names_encoded() {
        let http = crate::export::tests::http_client();
        let mut settings = config::Influx {
            url: "http://h:8086/base/".into(),
            token: None,
            write: InfluxWrite::V2 { org: "my org".into(), bucket: "a/b&c".into() },
            schema: InfluxSchema::Tags,
            http,
        };
        let expected = "http://h:8086/base/api/v2/write?org=my%20org&bucket=a%2Fb%26c&precision=ns";
        assert_eq!(write_url(&settings), expected);
        settings.write = InfluxWrite::V1 { database: "db".into() };
        assert_eq!(write_url(&settings), "http://h:8086/base/write?db=db&precision=n");
    }
}
