//! What a hostile peer, disk or backend may hand to Millrace: one plain function a target, each with an oracle.
//!
//! libFuzzer calls them with what it makes up (`tests/fuzz`), `tests/corpus.rs` with what was kept of it. A target panics
//! when something is wrong, and when its oracle disagrees: another reader of the same format, the same bytes cut
//! differently, counts that must add up.

mod disk;
mod state;

use std::io::Read;
use std::net::IpAddr;

use millrace::block::{Block, MAX_BYTES, Meta, Signal, SourceId};
use millrace::config::{self, Mapping, OtherSourcetypes, Uberagent, budget};
use millrace::export::reply;
use millrace::otlp::columns::{Columns, Field, Kind, Level, NumColumn, Selection, TextColumn};
use millrace::otlp::edit::{self, Applied, NumEdits, Patch, TextEdits, Unset};
use millrace::otlp::view::AnyValue;
use millrace::otlp::{check, from_json, json, slice, view};
use millrace::receive::elasticsearch::bulk::Items;
use millrace::receive::inflate::{ContentEncoding, inflate};
use millrace::receive::lines::{Framed, LineBuffers, Lines};
use millrace::receive::sniff;
use millrace::uberagent::{CsvHeader, Encoder, Origin, Outcome};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;

/// A target's name, which is that of its corpus in `tests/data/fuzz`, and what is called with each input.
type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 18] = [
    ("row_json", row_json),
    ("row_csv", row_csv),
    ("lines", lines),
    ("otlp_protobuf", otlp_protobuf),
    ("otlp_json", otlp_json),
    ("edits", edits),
    ("bulk", bulk),
    ("content_encoding", content_encoding),
    ("log_files", disk::log_files),
    ("log_files_packed", disk::log_files_packed),
    ("log_blocks", disk::log_blocks),
    ("cursor", disk::cursor),
    ("dead_letters", state::dead_letters),
    ("keys", state::keys),
    ("sources", state::sources),
    ("parked", state::parked),
    ("reply", reply),
    ("configuration", configuration),
];

const RECEIVED_NS: u64 = 1_747_033_166_563_000_000;

fn encoder(choice: u8) -> Encoder {
    let mapping = if choice & 1 == 0 { Mapping::Session } else { Mapping::Original };
    let other_sourcetypes = if choice & 2 == 0 { OtherSourcetypes::Filter } else { OtherSourcetypes::Logs };
    Encoder::new(Uberagent { mapping, other_sourcetypes }, SourceId(1))
}

/// Everything that an encoder has made, checked by another protobuf reader; with the outcomes' count of records.
fn blocks(encoder: &mut Encoder, encoded: usize) -> Vec<(Meta, Vec<u8>)> {
    let blocks: Vec<Block> = std::iter::from_fn(|| encoder.close()).collect();
    let mut records = 0;
    for block in &blocks {
        assert!(block.payload.len() <= MAX_BYTES, "a block of {} bytes", block.payload.len());
        records += block.meta.records as usize;
        if block.meta.signal == Signal::Traces {
            let checked = check::check(&block.payload).expect("what we write passes our own check");
            assert_eq!((checked.cut_out, checked.summary.spans), (None, block.meta.spans));
            ExportTraceServiceRequest::decode(&block.payload[..]).expect("what we write is protobuf");
        } else {
            ExportLogsServiceRequest::decode(&block.payload[..]).expect("what we write is protobuf");
        }
    }
    assert_eq!(records, encoded, "records in blocks");
    blocks.into_iter().map(|block| (block.meta, block.payload)).collect()
}

fn is_encoded(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Encoded { .. })
}

/// Lines of JSON rows. A byte order mark keeps a line from the fast scanner, so simd-json reads it: both must agree.
fn row_json(data: &[u8]) {
    let Some((&choice, rows)) = data.split_first() else { return };
    let (mut fast, mut slow) = (encoder(choice), encoder(choice));
    let (mut encoded, mut comparable) = (0, choice & 2 == 0);
    for row in rows.split(|byte| *byte == b'\n') {
        let outcome = fast.json(row, Origin::default(), RECEIVED_NS);
        encoded += usize::from(is_encoded(outcome));
        // A mark behind a mark is text, and one before nothing is no blank line.
        comparable &= !row.starts_with(b"\xef\xbb\xbf") && !row.trim_ascii().is_empty();
        let marked = [b"\xef\xbb\xbf", row].concat();
        let other = slow.json(&marked, Origin::default(), RECEIVED_NS);
        assert!(!comparable || outcome == other, "{outcome:?} and {other:?} of {}", row.escape_ascii());
    }
    let made = blocks(&mut fast, encoded);
    if comparable {
        assert_eq!(made, blocks(&mut slow, encoded), "scanner and simd-json differ");
    }
}

/// Lines of Splunk CSV under their headers.
fn row_csv(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let mut encoder = encoder(choice);
    let (mut header, mut encoded) = (None, 0);
    for line in rest.split(|byte| *byte == b'\n') {
        if let Some(found) = CsvHeader::parse(line) {
            header = Some(found);
        } else if let Some(header) = &header {
            encoded += usize::from(is_encoded(encoder.csv(line, header, RECEIVED_NS)));
        }
    }
    blocks(&mut encoder, encoded);
}

/// A stream of lines, whole and cut: the same lines. What they are is told without a panic.
fn lines(data: &[u8]) {
    let [max_line_bytes, cut_bytes, stream @ ..] = data else { return };
    let framed = |cut_bytes: usize| {
        let mut lines = Lines::new(usize::from(*max_line_bytes) + 1);
        let mut buffers = LineBuffers::new(1 << 16);
        let mut seen = Vec::new();
        let mut see = |framed: Framed<'_>| {
            seen.push(match framed {
                Framed::Line(line) => (0, line.to_vec()),
                Framed::TooLong(beginning) => (1, beginning.to_vec()),
                Framed::NotKept(beginning) => (2, beginning.to_vec()),
            });
        };
        for chunk in stream.to_vec().chunks_mut(cut_bytes) {
            lines.feed(chunk, &mut buffers, &mut see);
        }
        lines.end(&mut buffers, &mut see);
        seen
    };
    let whole = framed(stream.len().max(1));
    assert_eq!(whole, framed(usize::from(*cut_bytes) + 1), "cut differently");
    let is_decided = |first: &[u8]| sniff::sniff(first) != sniff::Sniff::NeedMore;
    assert!(stream.len() < sniff::SNIFF_BYTES || is_decided(stream), "enough bytes do not decide");
    for (_, line) in &whole {
        sniff::shape(line);
    }
}

/// OTLP protobuf: what the check lets through is what another reader reads, in every way that we look at it.
fn otlp_protobuf(data: &[u8]) {
    let Ok(checked) = check::check(data) else { return };
    let payload = &checked.payload[..];
    let read = ExportTraceServiceRequest::decode(payload).expect("the check is stricter than prost");
    let spans = |request: &ExportTraceServiceRequest| -> Vec<_> {
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    };
    let wanted = spans(&read);
    assert_eq!(wanted.len(), checked.summary.spans as usize);
    assert_eq!(slice::count_spans(payload), checked.summary.spans);
    assert_eq!(check::check(payload).expect("what passed once passes again").cut_out, None);
    for ((_, _, seen), wanted) in view::spans(payload).zip(&wanted) {
        let fields = seen.read();
        assert_eq!(fields.name.as_bytes(), wanted.name.as_bytes());
        assert_eq!(seen.times(), (wanted.start_time_unix_nano, wanted.end_time_unix_nano));
        assert_eq!(seen.attributes().count(), wanted.attributes.len());
        assert_eq!(seen.links().count(), wanted.links.len());
        seen.attributes().for_each(|attribute| walk(attribute.value));
    }
    let cut = slice::pieces(payload, slice::Bounds { max_bytes: 300, max_spans: 2 });
    let mut pieces = Vec::new();
    for piece in &cut.pieces {
        assert!(piece.payload.len() <= 300 && piece.summary.spans <= 2);
        pieces.extend(spans(&ExportTraceServiceRequest::decode(&piece.payload[..]).expect("a piece is a request")));
    }
    assert_eq!(pieces.len() + cut.too_big_spans as usize, wanted.len());
    assert!(cut.too_big_spans > 0 || pieces == wanted, "pieces are other spans");
    let mut text = Vec::new();
    json::encode(Signal::Traces, &[payload], &mut text);
    serde_json::from_slice::<serde_json::Value>(&text).expect("JSON that we write is JSON");
}

/// A patch and the payload that it is for: it is refused, or what it makes passes the check and has the rows that it left.
/// The first byte chooses the signal, the second says how many bytes are the patch.
fn edits(data: &[u8]) {
    let [choice, patch_bytes, rest @ ..] = data else { return };
    let Some((patch, payload)) = rest.split_at_checked(usize::from(*patch_bytes)) else { return };
    let signal = if choice & 1 == 0 { Signal::Traces } else { Signal::Logs };
    // Log records have no check of ours: those that another encoder has written are as good as checked.
    let good = match signal {
        Signal::Traces => {
            check::check(payload).is_ok_and(|checked| checked.cut_out.is_none()).then(|| payload.to_vec())
        }
        _ => ExportLogsServiceRequest::decode(payload).ok().map(|request| request.encode_to_vec()),
    };
    edit_with(signal, patch, payload, false);
    if let Some(good) = good {
        edit_with(signal, patch, &good, true);
    }
}

/// Applies a raw patch without a panic, whatever the payload; one that is `good` becomes another.
fn edit_with(signal: Signal, patch: &[u8], payload: &[u8], good: bool) {
    let selection = Selection::new(signal, fields_to_edit(signal)).expect("all of them are there");
    let (mut columns, mut again, mut out) = (Columns::default(), Columns::default(), Vec::new());
    selection.gather(payload, &mut columns);
    let patch = raw_patch(patch);
    let Ok(edits) = edit::check(&selection, &columns, patch.clone(), 4096) else { return };
    let applied = edit::apply(payload, &selection, &columns, &edits, &mut out);
    let Applied::Changed { summary, edited, dropped } = applied else { return assert!(edits.is_empty()) };
    if !good {
        return;
    }
    assert_eq!((summary.spans, dropped), (columns.rows() - edits.dropped(), edits.dropped()));
    assert!(edited <= summary.spans);
    selection.gather(&out, &mut again);
    assert_eq!(again.summary(), summary);
    if signal == Signal::Traces {
        let checked = check::check(&out).expect("what we write passes our own check");
        assert_eq!((checked.cut_out, checked.summary), (None, summary));
        ExportTraceServiceRequest::decode(&out[..]).expect("what we write is protobuf");
    }
    // Nothing is left to do the second time: what was to be removed is gone.
    let removals = Patch { unset: patch.unset, ..Patch::default() };
    if patch.drop.is_empty() && edit::check(&selection, &again, removals.clone(), 4096).is_ok() {
        let edits = edit::check(&selection, &again, removals, 4096).expect("it has just passed");
        let mut twice = Vec::new();
        edit::apply(&out, &selection, &again, &edits, &mut twice);
        let (mut once, mut then) = (Columns::default(), Columns::default());
        selection.gather(&out, &mut once);
        selection.gather(if edits.is_empty() { &out } else { &twice }, &mut then);
        assert_eq!(once.columns(), then.columns());
    }
}

fn fields_to_edit(signal: Signal) -> Vec<Field> {
    let field = |level, key: &str, kind| Field { level, key: key.to_owned(), kind, read: true, write: true };
    let (text, number) = if signal == Signal::Traces { ("name", "status") } else { ("body", "severity") };
    vec![
        field(Level::Record, "a", Kind::Text),
        field(Level::Resource, "a", Kind::Json),
        field(Level::Scope, "a", Kind::Bytes),
        field(Level::Intrinsic, text, Kind::Text),
        field(Level::Intrinsic, number, Kind::Integer),
        field(Level::Record, "b", Kind::Double),
        field(Level::Record, "c", Kind::Any),
    ]
}

/// Any bytes as a patch: lists with a byte for what they are, one for their field, one for how many rows and values, one
/// for how many bytes.
fn raw_patch(mut bytes: &[u8]) -> Patch {
    let mut patch = Patch::default();
    while let [what, field, counts, length, rest @ ..] = bytes {
        let mut rest = rest;
        let mut take = |count: u8| {
            let (taken, left) = rest.split_at(usize::from(count).min(rest.len()));
            rest = left;
            taken.to_vec()
        };
        let numbers = |bytes: Vec<u8>| -> Vec<u32> { bytes.into_iter().map(u32::from).collect() };
        let (rows, cells, field) = (numbers(take(counts & 15)), take(counts >> 4), u16::from(*field));
        match what % 4 {
            0 => patch.drop = rows,
            1 => {
                let cells = TextColumn { rows, ends: numbers(cells), bytes: take(*length) };
                patch.text.push(TextEdits { field, cells });
            }
            2 => {
                let values = cells.into_iter().map(|value| i64::from(value) - 1).collect();
                patch.num.push(NumEdits { field, cells: NumColumn { rows, values } });
            }
            _ => patch.unset.push(Unset { field, rows }),
        }
        bytes = rest;
    }
    patch
}

fn walk(value: AnyValue<'_>) {
    match value {
        AnyValue::Array(array) => array.values().for_each(walk),
        AnyValue::Map(map) => map.entries().for_each(|entry| walk(entry.value)),
        _ => {}
    }
}

/// OTLP JSON: what is taken is protobuf, and not larger than the text.
fn otlp_json(data: &[u8]) {
    let mut payload = Vec::new();
    if from_json::traces(data, &mut payload).is_err() {
        return;
    }
    assert!(payload.len() <= data.len(), "{} bytes of {}", payload.len(), data.len());
    ExportTraceServiceRequest::decode(&payload[..]).expect("what we write is protobuf");
    if let Ok(checked) = check::check(&payload) {
        let mut text = Vec::new();
        json::encode(Signal::Traces, &[&checked.payload], &mut text);
        let mut again = Vec::new();
        from_json::traces(&text, &mut again).expect("JSON that we write is JSON that we read");
        let spans = |payload: &[u8]| check::check(payload).map(|checked| checked.summary.spans);
        assert_eq!(spans(&again), Ok(checked.summary.spans));
    }
}

/// A `_bulk` body: every item is counted once and answered once, in however many goes it is decoded.
fn bulk(data: &[u8]) {
    let Some((&room, body)) = data.split_first() else { return };
    let Ok(mut items) = Items::read(body, 1 << 20) else { return };
    let mut encoder = encoder(room);
    let mut body = body.to_vec();
    let (mut encoded, mut decided) = (0, 0);
    while let Some(next_bytes) = items.next_bytes() {
        let counts = if room == 0 {
            items.refuse_rest()
        } else {
            items.decode(&mut body, &mut encoder, next_bytes.max(usize::from(room) * 16), RECEIVED_NS)
        };
        encoded += counts.encoded;
        decided += counts.encoded + counts.filtered + counts.rejected;
    }
    let answer = items.answer("index", std::time::Duration::ZERO, RECEIVED_NS);
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("the answer is JSON");
    let answered = answer["items"].as_array().expect("it lists items");
    assert_eq!(answered.len() as u64, decided, "items counted and answered");
    let taken = answered.iter().filter_map(|item| item.as_object()?.values().next()?["status"].as_u64());
    assert!(taken.filter(|status| *status == 201).count() as u64 >= encoded);
    blocks(&mut encoder, usize::try_from(encoded).expect("few"));
}

/// A compressed body: nothing beyond its limit comes out, and what comes out is what another decoder says.
fn content_encoding(data: &[u8]) {
    const MAX_INFLATED_BYTES: usize = 1 << 20;
    let Some((&choice, body)) = data.split_first() else { return };
    let encoding = if choice & 1 == 0 { ContentEncoding::Gzip } else { ContentEncoding::Zstd };
    let mut out = Vec::new();
    if inflate(body, encoding, MAX_INFLATED_BYTES, &mut out).is_err() {
        return;
    }
    assert!(out.len() <= MAX_INFLATED_BYTES);
    assert!(out.len() <= 64 * 1024 || out.len() / 200 <= body.len(), "{} bytes of {}", out.len(), body.len());
    if encoding == ContentEncoding::Gzip {
        let mut other = Vec::new();
        let limit = MAX_INFLATED_BYTES as u64 + 1;
        flate2::bufread::MultiGzDecoder::new(body).take(limit).read_to_end(&mut other).expect("it was inflated once");
        assert_eq!(out, other);
    }
}

/// The body of a backend's reply, and its Retry-After.
fn reply(data: &[u8]) {
    let ours = reply::partial_success(data);
    if let (Ok(read), Ok(theirs)) = (ours, ExportTraceServiceResponse::decode(data)) {
        let theirs = theirs.partial_success.map(|partial| partial.rejected_spans.max(0).cast_unsigned());
        assert_eq!(read.map(|(rejected, _)| rejected), theirs);
    }
    drop(reply::partial_success_json(data));
    let shown = reply::printable(data);
    assert!(shown.chars().all(|character| !character.is_control()) && shown.len() <= 3 * 256);
    if let Ok(value) = ureq::http::HeaderValue::from_bytes(data) {
        let headers = [(ureq::http::header::RETRY_AFTER, value.clone()), (ureq::http::header::DATE, value)];
        reply::retry_after(&headers.into_iter().collect(), RECEIVED_NS);
    }
}

/// A configuration file: refused with a reason, or the limits of what it asks for can be added up.
fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let host = config::Host { resolve: &|_: &str| Vec::<IpAddr>::new(), is_local: &|_| false };
    let file = Some(config::File { name: "millrace.yaml", text });
    let environment = |name: &str| (name == "NAME").then(|| "value".to_owned());
    let inputs = config::Inputs { file, environment: &environment, flags: &[], proxytrace: false, host };
    match config::load(&inputs) {
        Ok(loaded) => drop(budget::budget(&loaded.config, 2)),
        Err(refused) => assert!(!refused.problems.is_empty(), "refused without a reason"),
    }
}
