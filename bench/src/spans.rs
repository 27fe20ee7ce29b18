//! OTLP trace requests as bytes: one rendered request whose ids are rewritten for each send, and a walk over spans.
//!
//! Span number `n` of a run has trace id `run ‖ n / 16` and span id `n + 1`, both big-endian, so that a set of numbers is
//! all a sink needs to tell which spans are missing or came twice. The walk trusts nothing: it stops with an error at the
//! first field that does not fit.

use anyhow::{Result, bail, ensure};

/// Spans that share a trace.
const SPANS_PER_TRACE: u64 = 16;

/// A request of a fixed number of spans, about 430 bytes and 12 attributes each.
#[derive(Clone, Debug)]
pub(crate) struct RequestTemplate {
    /// The serialized `ExportTraceServiceRequest`.
    pub(crate) body: Vec<u8>,
    /// Where each span's 16 bytes of trace id and 8 bytes of span id are.
    ids: Vec<(usize, usize)>,
}

impl RequestTemplate {
    /// A request of `spans` spans that started around `start_ns`, Unix nanoseconds.
    pub(crate) fn new(spans: usize, start_ns: u64) -> RequestTemplate {
        let mut scope = Vec::new();
        put(&mut scope, 1, b"\x0a\x0fmillrace-bench1");
        let mut ids = Vec::with_capacity(spans);
        for number in 0..spans {
            let (span, trace_at, span_at) = span(number as u64, start_ns);
            put(&mut scope, 2, &span);
            let starts_at = scope.len() - span.len();
            ids.push((starts_at + trace_at, starts_at + span_at));
        }
        let mut resource_spans = Vec::new();
        let mut resource = Vec::new();
        put_attribute(&mut resource, 1, "service.name", "checkout");
        put_attribute(&mut resource, 1, "host.name", "bench-host-001");
        put(&mut resource_spans, 1, &resource);
        put(&mut resource_spans, 2, &scope);
        let scope_at = resource_spans.len() - scope.len();
        let mut body = Vec::new();
        put(&mut body, 1, &resource_spans);
        let base = body.len() - resource_spans.len() + scope_at;
        for (trace_at, span_at) in &mut ids {
            *trace_at += base;
            *span_at += base;
        }
        RequestTemplate { body, ids }
    }

    /// Spans of the request.
    pub(crate) fn spans(&self) -> usize {
        self.ids.len()
    }

    /// Makes the copy of the body in `bytes` that of the spans from number `first` of `run` on.
    pub(crate) fn number(&self, bytes: &mut [u8], run: u64, first: u64) {
        for (n, (trace_at, span_at)) in (first..).zip(&self.ids) {
            let id = SpanId::new(run, n);
            bytes[*trace_at..*trace_at + 16].copy_from_slice(&id.trace.to_be_bytes());
            bytes[*span_at..*span_at + 8].copy_from_slice(&id.span.to_be_bytes());
        }
    }
}

/// What names a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpanId {
    /// Trace id.
    pub(crate) trace: u128,
    /// Span id.
    pub(crate) span: u64,
}

impl SpanId {
    /// The id of span number `n` of `run`.
    pub(crate) fn new(run: u64, n: u64) -> SpanId {
        SpanId { trace: (u128::from(run) << 64) | u128::from(n / SPANS_PER_TRACE), span: n + 1 }
    }

    /// The id in a serialized span.
    pub(crate) fn of(span: &[u8]) -> Result<SpanId> {
        let mut id = SpanId { trace: 0, span: 0 };
        walk_fields(span, |field, bytes| {
            match field {
                1 => id.trace = u128::from_be_bytes(bytes.try_into()?),
                2 => id.span = u64::from_be_bytes(bytes.try_into()?),
                _ => {}
            }
            Ok(())
        })?;
        ensure!(id.trace != 0 && id.span != 0, "a span without ids");
        Ok(id)
    }
}

fn span(number: u64, start_ns: u64) -> (Vec<u8>, usize, usize) {
    let mut span = Vec::with_capacity(448);
    put(&mut span, 1, &[0; 16]);
    let trace_at = span.len() - 16;
    put(&mut span, 2, &[0; 8]);
    let span_at = span.len() - 8;
    put(&mut span, 4, &(number / 2 + 1).to_be_bytes());
    put(&mut span, 5, NAME);
    span.extend_from_slice(&[6 << 3, 2]);
    let start_ns = start_ns + number * 1_000;
    for (field, time_ns) in [(7u8, start_ns), (8, start_ns + 1_250_000 + number * 77)] {
        span.push((field << 3) | 1);
        span.extend_from_slice(&time_ns.to_le_bytes());
    }
    for (key, value) in ATTRIBUTES {
        put_attribute(&mut span, 9, key, value);
    }
    put(&mut span, 15, &[3 << 3, 1]);
    (span, trace_at, span_at)
}

const NAME: &[u8] = b"GET /carts/{id}";

const ATTRIBUTES: [(&str, &str); 12] = [
    ("http.request.method", "GET"),
    ("http.route", "/carts/{id}"),
    ("url.scheme", "https"),
    ("server.address", "shop.example"),
    ("http.response.status", "200"),
    ("network.protocol.name", "http"),
    ("client.port", "51324"),
    ("client.address", "10.12.7.141"),
    ("enduser.id", "u-48151623"),
    ("thread.name", "worker-7"),
    ("k8s.pod.name", "cart-7d9f-x2x"),
    ("cloud.zone", "eu-1"),
];

fn put_attribute(out: &mut Vec<u8>, field: u8, key: &str, value: &str) {
    let (mut attribute, mut any) = (Vec::new(), Vec::new());
    put(&mut any, 1, value.as_bytes());
    put(&mut attribute, 1, key.as_bytes());
    put(&mut attribute, 2, &any);
    put(out, field, &attribute);
}

/// Appends one span as a field of its scope, without a buffer in between: every length is known before its bytes.
pub(crate) fn write_span(number: u64, out: &mut Vec<u8>) {
    const IDS_AND_TIMES: usize = 18 + 10 + 10 + 2 + NAME.len() + 2 + 9 + 9;
    let attributes: usize = ATTRIBUTES.iter().map(|(key, value)| 2 + attribute_bytes(key, value)).sum();
    out.push((2 << 3) | 2);
    put_varint(out, IDS_AND_TIMES + attributes + 4);
    let id = SpanId::new(1, number);
    out.extend_from_slice(&[(1 << 3) | 2, 16]);
    out.extend_from_slice(&id.trace.to_be_bytes());
    out.extend_from_slice(&[(2 << 3) | 2, 8]);
    out.extend_from_slice(&id.span.to_be_bytes());
    put(out, 4, &number.to_be_bytes());
    put(out, 5, NAME);
    out.extend_from_slice(&[6 << 3, 2]);
    for field in [7u8, 8] {
        out.push((field << 3) | 1);
        out.extend_from_slice(&number.to_le_bytes());
    }
    for (key, value) in ATTRIBUTES {
        out.push((9 << 3) | 2);
        put_varint(out, attribute_bytes(key, value));
        put(out, 1, key.as_bytes());
        out.push((2 << 3) | 2);
        put_varint(out, 2 + value.len());
        put(out, 1, value.as_bytes());
    }
    put(out, 15, &[3 << 3, 1]);
}

/// Bytes of an attribute whose parts are all shorter than 128.
fn attribute_bytes(key: &str, value: &str) -> usize {
    2 + key.len() + 2 + 2 + value.len()
}

/// Appends a length-delimited field.
fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push((field << 3) | 2);
    put_varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(seven_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(seven_bits(value));
}

fn seven_bits(value: usize) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit a byte")
}

/// Calls `visit` with the bytes of every span of a trace request. Fails where the bytes are not such a request.
pub(crate) fn walk(request: &[u8], mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    walk_fields(request, |field, resource_spans| {
        if field != 1 {
            return Ok(());
        }
        walk_fields(resource_spans, |field, scope_spans| {
            if field != 2 {
                return Ok(());
            }
            walk_fields(scope_spans, |field, span| if field == 2 { visit(span) } else { Ok(()) })
        })
    })
}

/// Walks every field of a span and of its attributes: what any check of a span must do at least.
pub(crate) fn walk_whole(span: &[u8]) -> Result<()> {
    walk_fields(span, |field, attribute| match field {
        9 => walk_fields(attribute, |part, value| if part == 2 { walk_fields(value, |_, _| Ok(())) } else { Ok(()) }),
        _ => Ok(()),
    })
}

/// Calls `visit` with number and bytes of every length-delimited field of a message, and skips the others.
fn walk_fields<'a>(message: &'a [u8], mut visit: impl FnMut(u64, &'a [u8]) -> Result<()>) -> Result<()> {
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let skip = match tag & 7 {
            0 => {
                varint(&mut rest)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?)?,
            5 => 4,
            other => bail!("wire type {other}"),
        };
        ensure!(skip <= rest.len(), "a field of {skip} bytes where {} are left", rest.len());
        let (field, after) = rest.split_at(skip);
        rest = after;
        if tag & 7 == 2 {
            visit(tag >> 3, field)?;
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for (index, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    bail!("a varint without an end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_size_and_the_ids_that_were_asked_for() {
        let template = RequestTemplate::new(512, 1_747_033_200_000_000_000);
        let per_span = template.body.len() / 512;
        assert!((420..=440).contains(&per_span), "{per_span} bytes a span");
        let mut body = template.body.clone();
        template.number(&mut body, 7, 1_000);
        let mut ids = Vec::new();
        walk(&body, |span| {
            ids.push(SpanId::of(span)?);
            Ok(())
        })
        .unwrap();
        assert_eq!(ids, (1_000..1_512).map(|n| SpanId::new(7, n)).collect::<Vec<_>>());
    }

    #[test]
    fn a_span_written_without_buffers_is_as_long_as_it_says() {
        let mut scope = Vec::new();
        write_span(41, &mut scope);
        write_span(42, &mut scope);
        let mut resource_spans = Vec::new();
        put(&mut resource_spans, 2, &scope);
        let mut request = Vec::new();
        put(&mut request, 1, &resource_spans);
        let mut ids = Vec::new();
        walk(&request, |span| {
            ids.push(SpanId::of(span)?);
            Ok(())
        })
        .unwrap();
        assert_eq!(ids, [SpanId::new(1, 41), SpanId::new(1, 42)]);
    }

    #[test]
    fn damage_is_an_error() {
        let template = RequestTemplate::new(2, 1);
        let cut = &template.body[..template.body.len() - 1];
        assert!(walk(cut, |_| Ok(())).is_err());
        assert!(SpanId::of(&[]).is_err());
    }
}
