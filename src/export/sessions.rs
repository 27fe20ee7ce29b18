//! Finding sessions in payloads: which logon and logoff traces are in these spans that were not seen before.
//!
//! A session's trace id is the digit 1 (logon) or 2 (logoff) and the first 31 digits of the session GUID; the GUID's last
//! digit is the top digit of a FILETIME and is 1 until the year 2057. Other traces have hashed ids that may begin with the same
//! digit, so a span must prove what it is: by a session GUID with the same digits, its own or its resource's (`session`
//! mapping), or by an `event_type` attribute (`original` mapping, which makes session traces only and has no GUID).
//!
//! Every span passes here at full speed, so the walk reads lengths and trace ids only: spans of one trace lie together,
//! and what is remembered is not looked at again. The memory is bounded: when it is full the older half is forgotten, and
//! a session seen again after that is written again, which overwrites the same point.

use std::collections::HashSet;

use crate::otlp::fields::{Field, Fields, Value};

/// Sessions remembered at least; twice as many at most, about 5 MiB.
const REMEMBERED: usize = 64 * 1024;

/// Keys of the attribute that holds the session GUID.
const GUID_KEYS: [&[u8]; 2] = [b"session.id", b"uberagent.session.guid"];
const EVENT_TYPE_KEY: &[u8] = b"event_type";
const HOST_NAME_KEY: &[u8] = b"host.name";

const SPAN_START: u32 = 7;
const SPAN_ATTRIBUTES: u32 = 9;

/// 1970-01-01 in FILETIME's units of 100 ns since 1601.
const UNIX_EPOCH_FILETIME: u64 = 116_444_736_000_000_000;
/// 2000-01-01 and 2100-01-01, Unix nanoseconds: a GUID whose time is outside was not made by Windows.
const BELIEVABLE_NS: std::ops::Range<u64> = 946_684_800_000_000_000..4_102_444_800_000_000_000;

/// The bytes of a trace id.
pub(super) type TraceId = [u8; 16];

/// Logging on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionKind {
    Logon,
    Logoff,
}

/// One session's trace, at first sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session<'a> {
    pub(super) kind: SessionKind,
    pub(super) trace_id: TraceId,
    /// 32 lower-case hex digits.
    pub(super) guid_digits: [u8; 32],
    pub(super) host: Option<&'a [u8]>,
    /// When: the logon's own time out of the GUID, else the start of the span that was seen first; Unix nanoseconds.
    pub(super) at_ns: u64,
}

/// The sessions seen lately.
#[derive(Debug)]
pub(super) struct Recent {
    young: HashSet<TraceId>,
    old: HashSet<TraceId>,
    /// Where spans of many sessions alternate, one of these spares the hash; all zeros is no session.
    latest: [TraceId; LATEST],
}

const LATEST: usize = 256;
const NO_SESSION: TraceId = [0; 16];

impl Default for Recent {
    fn default() -> Recent {
        Recent { young: HashSet::new(), old: HashSet::new(), latest: [NO_SESSION; LATEST] }
    }
}

/// Its place among the latest: the low bytes of the GUID's time differ between sessions.
fn latest_index(id: &TraceId) -> usize {
    usize::from(id[8] ^ id[9].rotate_left(4) ^ id[10])
}

impl Recent {
    fn remember(&mut self, id: TraceId) {
        if self.young.len() >= REMEMBERED {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.latest = [NO_SESSION; LATEST];
        }
        self.young.insert(id);
        self.latest[latest_index(&id)] = id;
    }

    fn remembers(&mut self, id: &TraceId) -> bool {
        let latest = &mut self.latest[latest_index(id)];
        if latest == id {
            return true;
        }
        let remembered = self.young.contains(id) || self.old.contains(id);
        if remembered {
            *latest = *id;
        }
        remembered
    }

    /// Forgets a session, because its line was not taken.
    pub(super) fn forget(&mut self, id: &TraceId) {
        self.young.remove(id);
        self.old.remove(id);
        self.latest[latest_index(id)] = NO_SESSION;
    }
}

/// Appends the sessions of `payload` that are not in `recent`, and remembers them.
pub(super) fn find<'a>(payload: &'a [u8], recent: &mut Recent, found: &mut Vec<Session<'a>>) {
    let mut last = NO_SESSION;
    for resource_spans in Fields::of(payload).each(1) {
        for scope_spans in Fields::of(resource_spans).each(2) {
            for span in Fields::of(scope_spans).each(2) {
                let Some(id) = trace_id(span) else { continue };
                if id == last {
                    continue;
                }
                last = id;
                let kind = match id[0] >> 4 {
                    1 => SessionKind::Logon,
                    2 => SessionKind::Logoff,
                    _ => continue,
                };
                if recent.remembers(&id) {
                    continue;
                }
                match session(kind, id, span, resource_spans) {
                    Some(session) => {
                        recent.remember(id);
                        found.push(session);
                    }
                    // A synthesised root proves nothing; the next span of the trace may.
                    None => last = NO_SESSION,
                }
            }
        }
    }
}

/// The trace id, which every writer puts first; else wherever it is.
fn trace_id(span: &[u8]) -> Option<TraceId> {
    match span {
        [0x0a, 16, rest @ ..] => rest.first_chunk::<16>().copied(),
        _ => Fields::of(span).bytes(1)?.try_into().ok(),
    }
}

fn session<'a>(kind: SessionKind, trace_id: TraceId, span: &[u8], resource_spans: &'a [u8]) -> Option<Session<'a>> {
    let derived = guid_of(trace_id);
    let resource = Fields::of(resource_spans).bytes(1).unwrap_or(b"");
    let of_resource = |keys: &[&[u8]]| {
        let mut attributes = Fields::of(resource).each(1);
        let found = attributes.find(|attribute| Fields::of(attribute).bytes(1).is_some_and(|key| keys.contains(&key)));
        found.and_then(attribute_text)
    };
    let mut stated = of_resource(&GUID_KEYS).and_then(guid_digits);
    let mut original = false;
    let mut start_ns = 0;
    for Field { number, value, .. } in Fields::of(span) {
        match (number, value) {
            (SPAN_START, Value::Fixed64(start)) => start_ns = start,
            (SPAN_ATTRIBUTES, Value::Bytes(attribute)) => match Fields::of(attribute).bytes(1) {
                Some(key) if GUID_KEYS.contains(&key) => stated = stated.or(guid_digits(attribute_text(attribute)?)),
                Some(EVENT_TYPE_KEY) => original = true,
                _ => {}
            },
            _ => {}
        }
    }
    let (guid_digits, at_ns) = match stated {
        Some(guid) if guid[..31] == derived[..31] => match kind {
            SessionKind::Logon => (guid, filetime_ns(&guid).unwrap_or(start_ns)),
            SessionKind::Logoff => (guid, start_ns),
        },
        None if original && derived[..31] != [b'0'; 31] => (derived, start_ns),
        _ => return None,
    };
    Some(Session { kind, trace_id, guid_digits, host: of_resource(&[HOST_NAME_KEY]), at_ns })
}

/// The string value of a `KeyValue`.
fn attribute_text(attribute: &[u8]) -> Option<&[u8]> {
    Fields::of(Fields::of(attribute).bytes(2)?).bytes(1)
}

/// The digits of a written GUID in lower case, if it has 32.
fn guid_digits(text: &[u8]) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.iter().filter(|byte| **byte != b'-').map(u8::to_ascii_lowercase).collect();
    digits.try_into().ok().filter(|digits: &[u8; 32]| digits.iter().all(u8::is_ascii_hexdigit))
}

/// The GUID whose trace this is.
fn guid_of(id: TraceId) -> [u8; 32] {
    let mut digits = [b'1'; 32];
    let hex = hex_digits(id);
    digits[..31].copy_from_slice(&hex[1..]);
    digits
}

/// A trace id as it is written.
pub(super) fn hex_digits(id: TraceId) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(id) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    digits
}

/// The time of the session's creation, which Windows puts into the GUID's last eight bytes, little-endian.
fn filetime_ns(guid: &[u8; 32]) -> Option<u64> {
    let low_half = std::str::from_utf8(&guid[16..]).ok()?;
    let filetime = u64::from_str_radix(low_half, 16).ok()?.swap_bytes();
    let at_ns = filetime.checked_sub(UNIX_EPOCH_FILETIME)?.checked_mul(100)?;
    BELIEVABLE_NS.contains(&at_ns).then_some(at_ns)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;

    use super::*;

    const GUID: &str = "00000023-7165-2c71-b690-607404b9db01";
    const LOGON: TraceId = *b"\x10\x00\x00\x02\x37\x16\x52\xc7\x1b\x69\x06\x07\x40\x4b\x9d\xb0";

    fn text(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Any::StringValue(value.into())) }) }
    }

    fn span(trace_id: TraceId, attributes: &[(&str, &str)]) -> Span {
        let attributes = attributes.iter().map(|(key, value)| text(key, value)).collect();
        Span { trace_id: trace_id.into(), start_time_unix_nano: 5, attributes, ..Default::default() }
    }

    fn payload(spans: Vec<Span>) -> Vec<u8> {
        payload_under(vec![text("host.name", "h1")], spans)
    }

    fn payload_under(attributes: Vec<KeyValue>, spans: Vec<Span>) -> Vec<u8> {
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        let resource = Some(Resource { attributes, ..Default::default() });
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..Default::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    fn found(spans: Vec<Span>) -> Vec<(String, Option<String>, u64)> {
        found_in(&payload(spans))
    }

    fn found_in(payload: &[u8]) -> Vec<(String, Option<String>, u64)> {
        let mut sessions = Vec::new();
        find(payload, &mut Recent::default(), &mut sessions);
        let host = |session: &Session<'_>| session.host.map(|host| String::from_utf8(host.to_vec()).unwrap());
        let guid = |session: &Session<'_>| String::from_utf8(session.guid_digits.to_vec()).unwrap();
        sessions.iter().map(|session| (guid(session), host(session), session.at_ns)).collect()
    }

    #[test]
    fn a_logon_has_its_guid_its_host_and_the_time_out_of_the_guid() {
        let spans = vec![span(LOGON, &[]), span(LOGON, &[("session.id", GUID)]), span(LOGON, &[("session.id", GUID)])];
        // The vendor's capture: session 35, 2025-04-29 12:44:32.105 UTC.
        let expected = (GUID.replace('-', ""), Some("h1".to_owned()), 1_745_930_672_105);
        let found: Vec<_> =
            found(spans).into_iter().map(|(guid, host, at_ns)| (guid, host, at_ns / 1_000_000)).collect();
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_guid_of_the_resource_is_that_of_its_spans() {
        let of_host = found(vec![span(LOGON, &[("session.id", GUID)])]);
        let resource = vec![text("session.id", GUID), text("host.name", "h1")];
        let other = [0x17; 16];
        assert_eq!(found_in(&payload_under(resource, vec![span(other, &[]), span(LOGON, &[])])), of_host);
    }

    #[test]
    fn a_logoff_and_the_original_mapping_have_the_time_of_their_first_span() {
        let logoff = {
            let mut id = LOGON;
            id[0] += 0x10;
            id
        };
        let spans = vec![span(logoff, &[("session.id", GUID)]), span(LOGON, &[("event_type", "logon")])];
        let digits = GUID.replace('-', "");
        assert_eq!(found(spans), [(digits.clone(), Some("h1".into()), 5), (digits, Some("h1".into()), 5)]);
    }

    #[test]
    fn what_proves_nothing_is_no_session() {
        let hashed = {
            let mut id = LOGON;
            id[7] ^= 1;
            id
        };
        let missing = {
            let mut id = [0; 16];
            id[0] = 0x10;
            id
        };
        let spans = vec![
            span(LOGON, &[("process.pid", "1")]),
            span(hashed, &[("session.id", GUID)]),
            span(LOGON, &[("session.id", "No GUID found for SessionID")]),
            span(missing, &[("event_type", "logon")]),
            span([0x41; 16], &[("event_type", "logon")]),
        ];
        assert_eq!(found(spans), []);
    }

    #[test]
    fn a_made_up_guid_keeps_its_last_digit_and_the_spans_time() {
        let guid = "12345678-1234-4234-8234-12345678901e";
        let id = *b"\x11\x23\x45\x67\x81\x23\x44\x23\x48\x23\x41\x23\x45\x67\x89\x01";
        assert_eq!(found(vec![span(id, &[("session.id", guid)])]), [(guid.replace('-', ""), Some("h1".into()), 5)]);
    }

    #[test]
    fn a_session_is_found_once_until_it_is_forgotten_and_the_memory_is_bounded() {
        let payload = payload(vec![span(LOGON, &[("session.id", GUID)])]);
        let mut recent = Recent::default();
        let count = |recent: &mut Recent| {
            let mut sessions = Vec::new();
            find(&payload, recent, &mut sessions);
            sessions.len()
        };
        assert_eq!((count(&mut recent), count(&mut recent)), (1, 0));
        recent.forget(&LOGON);
        assert_eq!((count(&mut recent), count(&mut recent)), (1, 0));
        for number in 0..(4 * REMEMBERED as u64) {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            recent.remember(id);
            assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED);
        }
        assert_eq!(count(&mut recent), 1, "forgotten long ago");
    }
}
