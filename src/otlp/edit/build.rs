//! Records from nothing but edits: what a decoder says of each row becomes a span or a log record.
//!
//! The edits have been checked against [`Columns::of_rows`](super::super::columns::Columns::of_rows) with a selection
//! [of new records](Selection::of_new). A cell of a resource or scope stands at each row; neighbours that agree share one. What
//! every record has and nobody has said follows from where and when it arrived, so the same bytes at the same place give the
//! same record.

use std::hash::Hasher;
use std::ops::Range;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::super::Summary;
use super::super::columns::selection::Target;
use super::super::columns::{Kind, Level, Selection};
use super::super::ids::read_hex;
use super::super::writer::{close_message, open_message, push_bytes_field};
use super::message::{Editor, Operation};
use super::{Edits, New};
use crate::block::{MAX_BYTES, Signal};

/// Where and when rows arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Unix nanoseconds: the time of a record that states none.
    pub received_ns: u64,
    /// Tells the place from all others: a record without ids gets some that follow from it, the time and the row.
    pub place: u64,
}

/// Why rows do not become a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbuildable {
    /// An id is none.
    #[error("{key:?} of row {row} is not an id of {bytes} bytes, as text in hex")]
    Id {
        /// Which.
        key: String,
        /// The row.
        row: u32,
        /// What it should have.
        bytes: usize,
    },
    /// They are more than a block; fewer of them may fit.
    #[error("records of more than {MAX_BYTES} bytes")]
    TooBig,
}

/// Appends the records of `rows`, which becomes a payload of `signal`.
///
/// # Errors
///
/// See [`Unbuildable`]; what was appended until then is of no use.
pub fn build(
    (signal, selection): (Signal, &Selection),
    edits: &Edits,
    rows: Range<u32>,
    arrival: Arrival,
    out: &mut Vec<u8>,
) -> Result<Summary, Unbuildable> {
    let begin = out.len();
    let mut builder = Builder { signal, selection, arrival, editor: Editor::new(selection), base: Vec::new() };
    let mut summary = Summary::EMPTY;
    let (mut row_now, mut before): (Row<'_>, Option<(Row<'_>, [usize; 2])>) = (Row::default(), None);
    let mut next: Vec<usize> =
        edits.lists.iter().map(|list| list.rows.partition_point(|row| *row < rows.start)).collect();
    for row in rows {
        row_now.clear();
        for (list, next) in edits.lists.iter().zip(&mut next) {
            if list.rows.get(*next) == Some(&row) {
                row_now.push(selection, Operation { field: list.field, new: list.value(*next) });
                *next += 1;
            }
        }
        let open = match before.take() {
            Some((known, open)) if known.resource == row_now.resource && known.scope == row_now.scope => open,
            known => {
                if let Some((_, [scope, resource])) = known {
                    close_message(out, scope);
                    close_message(out, resource);
                }
                builder.open(&row_now, out)
            }
        };
        let (start_ns, end_ns) = builder.record(&row_now, row, out)?;
        // Also the length of a resource is written in a few bytes.
        if out.len() - begin > MAX_BYTES {
            return Err(Unbuildable::TooBig);
        }
        summary.spans += 1;
        summary.first_start_ns = summary.first_start_ns.min(start_ns);
        summary.last_end_ns = summary.last_end_ns.max(end_ns);
        before = Some((row_now.clone(), open));
    }
    if let Some((_, [scope, resource])) = before {
        close_message(out, scope);
        close_message(out, resource);
    }
    Ok(summary)
}

/// What was said of a row, by where it goes.
#[derive(Clone, Debug, Default)]
struct Row<'a> {
    resource: Vec<Operation<'a>>,
    scope: Vec<Operation<'a>>,
    /// What the editor can write of the record itself.
    record: Vec<Operation<'a>>,
    /// Ids and times.
    base: Vec<(Target, Operation<'a>)>,
}

impl<'a> Row<'a> {
    fn clear(&mut self) {
        self.resource.clear();
        self.scope.clear();
        self.record.clear();
        self.base.clear();
    }

    fn push(&mut self, selection: &Selection, operation: Operation<'a>) {
        let target = selection.targets[operation.field];
        match (selection.fields()[operation.field].level, target) {
            (_, Target::Id(_) | Target::Start | Target::End | Target::Duration) => {
                self.base.push((target, operation));
            }
            (Level::Resource, _) => self.resource.push(operation),
            (Level::Scope, _) | (_, Target::ScopeText(_)) => self.scope.push(operation),
            (Level::Record | Level::Intrinsic, _) => self.record.push(operation),
        }
    }

    fn number(&self, wanted: Target) -> Option<u64> {
        self.base.iter().find_map(|(target, operation)| match operation.new {
            New::Num(value) if *target == wanted => u64::try_from(value).ok(),
            _ => None,
        })
    }
}

struct Builder<'a> {
    signal: Signal,
    selection: &'a Selection,
    arrival: Arrival,
    editor: Editor<'a>,
    base: Vec<u8>,
}

impl<'a> Builder<'a> {
    /// Opens the resource and the scope of a row; scope first, as they are closed.
    fn open(&mut self, row: &Row<'a>, out: &mut Vec<u8>) -> [usize; 2] {
        let resource = open_message(out, 0x0a);
        self.editor.operations.clone_from(&row.resource);
        self.editor.group(None, Level::Resource, out);
        let scope = open_message(out, 0x12);
        self.base.clear();
        self.editor.operations.clear();
        for operation in &row.scope {
            match (self.selection.targets[operation.field], operation.new) {
                (Target::ScopeText(number), New::Text(text)) => push_bytes_field(&mut self.base, number << 3 | 2, text),
                _ => self.editor.operations.push(*operation),
            }
        }
        let body = (!self.base.is_empty()).then_some(&self.base[..]);
        self.editor.group(body, Level::Scope, out);
        [scope, resource]
    }

    /// Appends the record; when it starts and ends.
    fn record(&mut self, row: &Row<'a>, number: u32, out: &mut Vec<u8>) -> Result<(u64, u64), Unbuildable> {
        let start_ns = row.number(Target::Start).unwrap_or(self.arrival.received_ns);
        let length = row.number(Target::Duration).map(|length| start_ns.saturating_add(length));
        let end_ns = row.number(Target::End).or(length).unwrap_or(start_ns);
        let fixed = |out: &mut Vec<u8>, tag: u8, value: u64| {
            out.push(tag);
            out.extend_from_slice(&value.to_le_bytes());
        };
        let made = self.made(number);
        self.base.clear();
        match self.signal {
            Signal::Logs => {
                fixed(&mut self.base, 0x09, start_ns);
                fixed(&mut self.base, 0x59, self.arrival.received_ns); // observed_time_unix_nano
                self.id(row, (9, "trace-id"), None, number)?;
                self.id(row, (10, "span-id"), None, number)?;
            }
            Signal::Traces | Signal::Metrics => {
                self.id(row, (1, "trace-id"), Some(&made), number)?;
                self.id(row, (2, "span-id"), Some(&made[..8]), number)?;
                self.id(row, (4, "parent-span-id"), None, number)?;
                fixed(&mut self.base, 0x39, start_ns);
                fixed(&mut self.base, 0x41, end_ns);
            }
        }
        self.editor.operations.clone_from(&row.record);
        self.editor.made(&self.base, out);
        Ok((start_ns, if self.signal == Signal::Logs { start_ns } else { end_ns }))
    }

    /// Puts an id into the record: as it was said, else `made`.
    fn id(
        &mut self,
        row: &Row<'a>,
        (field, key): (u8, &str),
        made: Option<&[u8]>,
        number: u32,
    ) -> Result<(), Unbuildable> {
        let bytes = if key == "trace-id" { 16 } else { 8 };
        let said = row.base.iter().find_map(|(target, operation)| match operation.new {
            New::Text(text) if *target == Target::Id(field) => {
                Some((text, self.selection.fields()[operation.field].kind))
            }
            _ => None,
        });
        let mut parsed = [0; 16];
        let id = match said {
            None | Some((b"", _)) => made,
            Some((id, Kind::Bytes)) if id.len() == bytes => Some(id),
            Some((hex, _)) if read_hex(hex, &mut parsed[..bytes]) => Some(&parsed[..bytes]),
            Some(_) => return Err(Unbuildable::Id { key: key.to_owned(), row: number, bytes }),
        };
        if let Some(id) = id {
            push_bytes_field(&mut self.base, field << 3 | 2, id);
        }
        Ok(())
    }

    /// An id that follows from place, time and row.
    fn made(&self, row: u32) -> [u8; 16] {
        let mut hasher = SipHasher13::new_with_keys(self.arrival.place, self.arrival.received_ns);
        hasher.write_u32(row);
        hasher.finish128().as_u128().to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::TracesData;
    use prost::Message;

    use super::super::super::columns::{Column, Columns, Field, NumColumn, TextColumn};
    use super::super::{NumEdits, Patch, TextEdits, check};
    use super::*;

    fn field(level: Level, key: &str, kind: Kind) -> Field {
        Field { level, key: key.to_owned(), kind, read: false, write: true }
    }

    fn text(field: u16, rows: &[u32], values: &[&str]) -> TextEdits {
        let mut cells = TextColumn { rows: rows.to_vec(), ..TextColumn::default() };
        for value in values {
            cells.bytes.extend_from_slice(value.as_bytes());
            cells.ends.push(u32::try_from(cells.bytes.len()).unwrap());
        }
        TextEdits { field, cells }
    }

    fn num(field: u16, rows: &[u32], values: &[i64]) -> NumEdits {
        NumEdits { field, cells: NumColumn { rows: rows.to_vec(), values: values.to_vec() } }
    }

    fn built(signal: Signal, fields: Vec<Field>, rows: u32, patch: Patch) -> Result<(Vec<u8>, Summary), Unbuildable> {
        let selection = Selection::of_new(signal, fields).unwrap();
        let edits = check(&selection, &Columns::of_rows(rows), patch, usize::MAX).unwrap();
        let (mut out, arrival) = (Vec::new(), Arrival { received_ns: 1_000, place: 7 });
        let summary = build((signal, &selection), &edits, 0..rows, arrival, &mut out)?;
        if signal == Signal::Traces {
            assert!(crate::otlp::check::check(&out).is_ok(), "it passes the check of a request");
        }
        Ok((out, summary))
    }

    #[test]
    fn rows_become_spans_and_neighbours_share_what_they_agree_in() {
        let fields = vec![
            field(Level::Resource, "host.name", Kind::Text),
            field(Level::Intrinsic, "name", Kind::Text),
            field(Level::Intrinsic, "start", Kind::Integer),
            field(Level::Intrinsic, "duration", Kind::Integer),
            field(Level::Intrinsic, "trace-id", Kind::Text),
            field(Level::Intrinsic, "scope-name", Kind::Text),
            field(Level::Intrinsic, "status", Kind::Integer),
            field(Level::Record, "n", Kind::Json),
        ];
        let id = "00112233445566778899aabbccddeeff";
        let patch = Patch {
            text: vec![
                text(0, &[0, 1, 3], &["a", "a", "b"]),
                text(1, &[], &["x", "y", "", "z"]),
                text(4, &[1], &[id]),
                text(5, &[0, 1], &["s", "t"]),
                text(7, &[2], &["[1]"]),
            ],
            num: vec![num(2, &[0, 3], &[500, -1]), num(3, &[0], &[20]), num(6, &[1], &[2])],
            ..Patch::default()
        };
        let (out, summary) = built(Signal::Traces, fields, 4, patch).unwrap();
        assert_eq!((summary.spans, summary.first_start_ns, summary.last_end_ns), (4, 500, 1_000));
        let data = TracesData::decode(&out[..]).unwrap();
        let resources: Vec<_> =
            data.resource_spans.iter().map(|one| one.resource.as_ref().map(|r| r.attributes.len())).collect();
        assert_eq!(resources, [Some(1), Some(1), None, Some(1)], "another scope, no host, another host");
        let spans: Vec<_> = data.resource_spans.iter().flat_map(|one| &one.scope_spans[0].spans).collect();
        let times: Vec<_> = spans.iter().map(|span| (span.start_time_unix_nano, span.end_time_unix_nano)).collect();
        assert_eq!(times, [(500, 520), (1_000, 1_000), (1_000, 1_000), (1_000, 1_000)]);
        assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["x", "y", "", "z"]);
        assert_eq!((spans[1].trace_id[15], spans[1].status.as_ref().unwrap().code), (0xff, 2));
        assert!(spans.iter().all(|span| span.span_id.len() == 8 && span.trace_id.len() == 16));
        assert_ne!(spans[0].span_id, spans[2].span_id);
        assert_eq!(data.resource_spans[0].scope_spans[0].scope.as_ref().unwrap().name, "s");
        assert_eq!(spans[2].attributes.len(), 1);
    }

    #[test]
    fn events_and_links_of_a_span_are_what_reading_them_gives() {
        let fields =
            || vec![field(Level::Intrinsic, "events", Kind::Json), field(Level::Intrinsic, "links", Kind::Any)];
        let events = r#"[{"timeUnixNano":"5","name":"retry","attributes":[{"key":"n","value":{"intValue":"2"}}]},{}]"#;
        let link = |id: &str| format!(r#"[{{"traceId":"00112233445566778899aabbccddeeff","spanId":"{id}"}}]"#);
        let patch = |events: &str, link: &str| Patch {
            text: vec![text(0, &[1, 2], &[events, "null"]), text(1, &[1], &[link])],
            ..Patch::default()
        };
        let (out, _) = built(Signal::Traces, fields(), 3, patch(events, &link("0011223344556677"))).unwrap();
        let data = TracesData::decode(&out[..]).unwrap();
        let spans = &data.resource_spans[0].scope_spans[0].spans;
        let counts: Vec<_> = spans.iter().map(|span| (span.events.len(), span.links.len())).collect();
        assert_eq!(counts, [(0, 0), (2, 1), (0, 0)]);
        let event = &spans[1].events[0];
        assert_eq!((event.time_unix_nano, event.name.as_str(), event.attributes.len()), (5, "retry", 1));
        assert_eq!((spans[1].links[0].trace_id[15], spans[1].links[0].span_id[7]), (0xff, 0x77));
        let mut read = fields();
        read.iter_mut().for_each(|field| (field.read, field.write) = (true, false));
        let mut columns = Columns::default();
        Selection::new(Signal::Traces, read).unwrap().gather(&out, &mut columns);
        let Column::Text(given) = &columns.columns()[0] else { panic!("{columns:?}") };
        assert_eq!(std::str::from_utf8(&given.bytes), Ok(events));
        let selection = Selection::of_new(Signal::Traces, fields()).unwrap();
        for (events, link, why) in [
            ("{}", &link("0011223344556677"), "field events has a value that is not of its kind"),
            (events, &link("xx"), "a link's ids"),
            (events, &link("0000000000000000"), "a link's ids"),
            ("[{\"name\":5}]", &link("0011223344556677"), "field name"),
        ] {
            let error =
                check(&selection, &Columns::of_rows(3), patch(events, link), usize::MAX).unwrap_err().to_string();
            assert!(error.contains(" of row 1 is not JSON that it can hold: ") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn rows_become_log_records_and_an_id_that_is_none_is_named() {
        let fields =
            || vec![field(Level::Intrinsic, "body", Kind::Text), field(Level::Intrinsic, "span-id", Kind::Text)];
        let patch =
            |id| Patch { text: vec![text(0, &[], &["hello", "you"]), text(1, &[1], &[id])], ..Patch::default() };
        let (out, summary) = built(Signal::Logs, fields(), 2, patch("0011223344556677")).unwrap();
        let data = ExportLogsServiceRequest::decode(&out[..]).unwrap();
        let records = &data.resource_logs[0].scope_logs[0].log_records;
        assert_eq!((records.len(), summary.spans, records[0].time_unix_nano), (2, 2, 1_000));
        assert_eq!((records[1].span_id.len(), records[0].span_id.len()), (8, 0));
        let bad = built(Signal::Logs, fields(), 2, patch("00112233")).unwrap_err();
        assert_eq!(bad, Unbuildable::Id { key: "span-id".to_owned(), row: 1, bytes: 8 });
        let big = Patch { text: vec![text(0, &[0], &[&"x".repeat(3 << 20)])], ..Patch::default() };
        assert_eq!(built(Signal::Logs, fields(), 2, big), Err(Unbuildable::TooBig));
    }
}
