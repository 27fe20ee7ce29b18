//! The table of statuses, both forms of `Retry-After`, and replies that are no replies.

use ureq::http::HeaderValue;

use super::*;

const SENT: Sent = Sent { payload_bytes: 77, compressed: false, wall_ns: 1_700_000_000_000_000_000 };

fn reply(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Reply {
    let headers = headers
        .iter()
        .map(|(name, value)| (ureq::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
    Reply { status, headers: headers.collect(), body: body.to_vec() }
}

/// The outcome by its name.
fn meaning(status: u16, headers: &[(&'static str, &str)], sent: Sent) -> &'static str {
    match reply(status, headers, b"").refusal(sent) {
        None => "yes",
        Some(Outcome::Throttled { .. }) => "throttled",
        Some(Outcome::Unavailable { answer_lost: false, .. }) => "unavailable",
        Some(Outcome::TooLarge { payload_bytes: 77, .. }) => "too large",
        Some(Outcome::BadRequest { .. }) => "bad request",
        Some(Outcome::Misconfigured { .. }) => "misconfigured",
        Some(other) => panic!("{status} means {other:?}"),
    }
}

#[test]
fn every_status_has_its_meaning() {
    for status in 100..=999 {
        let expected = match status {
            200..=299 => "yes",
            400 | 422 => "bad request",
            413 => "too large",
            429 => "throttled",
            100..=199 | 408 | 425 | 500..=999 => "unavailable",
            _ => "misconfigured",
        };
        assert_eq!(meaning(status, &[], SENT), expected, "{status}");
    }
    assert_eq!(meaning(503, &[("retry-after", "3")], SENT), "throttled");
    assert_eq!(meaning(502, &[("retry-after", "3")], SENT), "unavailable");
    assert_eq!(meaning(415, &[], Sent { compressed: true, ..SENT }), "bad request");
}

#[test]
fn retry_after_comes_as_seconds_and_as_a_date() {
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    for (headers, expected) in [
        (vec![], None),
        (vec![("retry-after", "0")], Some(0)),
        (vec![("retry-after", " 120 ")], Some(120)),
        (vec![("retry-after", "99999999999999999999999")], Some(u64::MAX)),
        (vec![("retry-after", "-1")], None),
        (vec![("retry-after", "soon")], None),
        (vec![("retry-after", "")], None),
        (vec![("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT"), ("date", date)], Some(30)),
        (vec![("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT"), ("date", date)], Some(0)),
        // Without a date of its own our clock counts: 2023-11-14 22:13:20.
        (vec![("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT")], Some(60)),
    ] {
        let headers = reply(503, &headers, b"").headers;
        assert_eq!(retry_after(&headers, SENT.wall_ns), expected.map(Duration::from_secs), "{headers:?}");
    }
}

#[test]
fn a_message_is_one_short_line_of_text() {
    let text = reply(400, &[("content-type", "text/plain")], b"bad\r\n \x1b[31mthing\xff");
    assert_eq!(text.message(), "400 bad request: bad [31mthing");
    // google.rpc.Status: code 3, message "no id".
    let status = reply(400, &[("content-type", "application/x-protobuf")], b"\x08\x03\x12\x05no id");
    assert_eq!(status.message(), "400 bad request: no id");
    assert_eq!(reply(599, &[], b"").message(), "599");
    let long = reply(500, &[], &[b'x'; 10_000]);
    assert_eq!(long.message().len(), "500 internal server error: ".len() + MESSAGE_BYTES);
}

#[test]
fn partial_success_is_read_from_both_encodings() {
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
    use prost::Message;
    let encoded = |rejected_spans, error_message: &str| {
        let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message: error_message.into() });
        ExportTraceServiceResponse { partial_success }.encode_to_vec()
    };
    assert_eq!(partial_success(b""), Ok(None));
    assert_eq!(partial_success(&encoded(3, "too long")), Ok(Some((3, "too long".into()))));
    assert_eq!(partial_success(&encoded(-3, "")), Ok(Some((0, String::new()))));
    assert_eq!(partial_success(&encoded(0, "warning")), Ok(Some((0, "warning".into()))));
    assert_eq!(partial_success(b"OK\n"), Err(NotAReply));
    assert_eq!(partial_success(b"\x08\x01"), Err(NotAReply), "field 1 is a message");

    let json = |text: &str| partial_success_json(text.as_bytes());
    assert_eq!(json("{}"), Ok(None));
    assert_eq!(json(r#"{"partialSuccess":{}}"#), Ok(Some((0, String::new()))));
    let text = r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"x"}}"#;
    assert_eq!(json(text), Ok(Some((2, "x".into()))));
    assert_eq!(json(r#"{"partialSuccess":{"rejectedLogRecords":5}}"#), Ok(Some((5, String::new()))));
    assert_eq!(json("<html>"), Err(NotAReply));
}

#[test]
fn no_reply_panics_whatever_its_bytes() {
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..20_000 {
        let body: Vec<u8> = (0..rng.usize(..64)).map(|_| if rng.bool() { rng.u8(..32) } else { rng.u8(..) }).collect();
        let content_type = ["application/x-protobuf", "application/json", "text/plain"][rng.usize(..3)];
        let reply = reply(rng.u16(100..1000), &[("content-type", content_type)], &body);
        assert!(reply.message().len() < 3 * MESSAGE_BYTES + 64);
        drop((reply.refusal(SENT), partial_success(&body), partial_success_json(&body)));
    }
}
