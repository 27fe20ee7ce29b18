//! The encoder: rows in, closed blocks out.
//!
//! A row is read (JSON by the fast scanner where it can, else by simd-json; CSV by its columns), told what it is, and
//! written by the configured mapping to a scratch that is then appended to the open block. Rows stay open until
//! [`Encoder::end_together`], because a parent may come behind its child. Owned by one producer thread; reads no clock;
//! nothing is allocated per row once warm.

use super::blocks::Blocks;
use super::csv::{Columns, CsvHeader};
use super::fields;
use super::marks::Marks;
use super::names::Names;
use super::row::{Row, View};
use super::scan::scan;
use super::session::SessionMapping;
use super::sourcetypes::Sourcetype;
use super::tape::{Read, TapeReader};
use super::{Origin, Outcome, log, original, reason, times};
use crate::block::{Block, Signal, SourceId};
use crate::config::{self, Mapping, OtherSourcetypes};
use crate::otlp::writer::Writer;

/// Bytes at which host names are cut.
const HOST_CAP_BYTES: usize = 255;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A longer line is no row: its texts could not be told by 32-bit ranges, and no receiver lets it through.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// A row with all that is known of it beside its fields.
#[derive(Clone, Copy)]
pub(crate) struct RowContext<'a> {
    /// Its fields.
    pub view: View<'a>,
    /// What it is.
    pub sourcetype: Sourcetype,
    /// Where it comes from; empty when unknown.
    pub host: &'a [u8],
    /// When it was received, Unix nanoseconds.
    pub received_ns: u64,
    /// Its event time, Unix nanoseconds.
    pub event_ns: Option<u64>,
    /// The row as it was sent; empty unless rows may become log records.
    pub raw: &'a [u8],
}

/// Where spans are written.
#[derive(Debug)]
pub(crate) struct Output {
    /// Scratch for one item.
    pub writer: Writer,
    /// Blocks of spans.
    pub traces: Blocks,
    /// Blocks of log records.
    pub logs: Blocks,
}

/// Turns rows of one source into blocks. Owned by one producer thread.
#[derive(Debug)]
pub struct Encoder {
    settings: config::Uberagent,
    reader: Reader,
    mapping: Box<SessionMapping>,
    out: Output,
}

/// What reads rows.
#[derive(Debug)]
struct Reader {
    names: Names,
    columns: Columns,
    marks: Marks,
    tape: TapeReader,
    row: Row,
    /// A copy of the line, with U+FFFD for what was no UTF-8.
    scratch: Vec<u8>,
    /// The line as a log record's body, when rows may become that.
    raw: Vec<u8>,
}

impl Encoder {
    /// An encoder without open rows.
    #[must_use]
    pub fn new(settings: config::Uberagent, source: SourceId) -> Encoder {
        let names = Names::new();
        let columns = Columns::new(&names);
        Encoder {
            settings,
            reader: Reader {
                names,
                columns,
                marks: Marks::default(),
                tape: TapeReader::new(),
                row: Row::new(),
                scratch: Vec::new(),
                raw: Vec::new(),
            },
            mapping: Box::new(SessionMapping::new()),
            out: Output {
                writer: Writer::new(16 * 1024),
                traces: Blocks::new(Signal::Traces, source),
                logs: Blocks::new(Signal::Logs, source),
            },
        }
    }

    /// Takes one line of JSON, with or without its line end. What the row itself says of host and sourcetype wins over
    /// `origin`.
    pub fn json(&mut self, line: &[u8], origin: Origin<'_>, received_ns: u64) -> Outcome {
        let line = line.trim_ascii();
        let blank = line.is_empty();
        if blank || line.len() > MAX_LINE_BYTES {
            return if blank { Outcome::Blank } else { Outcome::DeadLetter(reason::TOO_LONG) };
        }
        self.reader.raw.clear();
        if self.settings.other_sourcetypes == OtherSourcetypes::Logs {
            utf8_into(line, &mut self.reader.raw);
        }
        match self.reader.json(line) {
            Read::Row => {}
            Read::Action => return Outcome::Blank,
            Read::NotAnObject => return Outcome::DeadLetter(reason::NOT_AN_OBJECT),
            Read::Invalid => return Outcome::DeadLetter(reason::INVALID_JSON),
        }
        let Encoder { settings, reader, mapping, out } = self;
        let view = View { row: &reader.row, line };
        let host = view.text(fields::HOST).filter(|host| !host.is_empty());
        let host = host.unwrap_or(origin.host.unwrap_or_default().as_bytes());
        let sourcetype = sourcetype_of(view, origin);
        let row = RowContext { view, sourcetype, host, received_ns, event_ns: None, raw: &reader.raw };
        encode(settings, row, mapping, out)
    }

    /// Takes one line of Splunk CSV that came under `header`.
    pub fn csv(&mut self, line: &[u8], header: &CsvHeader, received_ns: u64) -> Outcome {
        let line = line.trim_ascii_end();
        if line.trim_ascii().is_empty() || line.len() > MAX_LINE_BYTES {
            return if line.len() > MAX_LINE_BYTES { Outcome::DeadLetter(reason::TOO_LONG) } else { Outcome::Blank };
        }
        let Encoder { settings, reader, mapping, out } = self;
        let line = utf8(line, &mut reader.scratch);
        reader.row.clear();
        if let Err(reason) = reader.columns.read(line, header.sourcetype(), &reader.names, &mut reader.row) {
            return Outcome::DeadLetter(reason);
        }
        let view = View { row: &reader.row, line };
        let (host, sourcetype) = (header.host().as_bytes(), header.sourcetype());
        encode(settings, RowContext { view, sourcetype, host, received_ns, event_ns: None, raw: line }, mapping, out)
    }

    /// Ends the rows that were decoded together: parents are resolved and everything open becomes final.
    pub fn end_together(&mut self) {
        self.mapping.end_together(&mut self.out.traces);
        self.out.traces.finish();
        self.out.logs.finish();
    }

    /// The next final block that reached [`crate::block::TARGET_BYTES`].
    pub fn pop_closed(&mut self) -> Option<Block> {
        self.out.traces.pop_closed().or_else(|| self.out.logs.pop_closed())
    }

    /// The next block of all that is open, full or not; `None` when nothing is left. Ends the rows decoded together.
    pub fn close(&mut self) -> Option<Block> {
        self.pop_closed().or_else(|| {
            self.out.traces.close_open();
            self.out.logs.close_open();
            self.end_together();
            self.pop_closed()
        })
    }

    /// When the oldest open row was received, Unix nanoseconds.
    #[must_use]
    pub fn open_since_ns(&self) -> Option<u64> {
        let traces = self.out.traces.open_since_ns();
        traces.into_iter().chain(self.out.logs.open_since_ns()).min()
    }

    /// Gives back a buffer for a later block.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        let logs = self.settings.other_sourcetypes == OtherSourcetypes::Logs && !self.out.logs.has_spare();
        if logs { self.out.logs.recycle(buffer) } else { self.out.traces.recycle(buffer) }
    }
}

impl Reader {
    fn json(&mut self, line: &[u8]) -> Read {
        self.row.clear();
        let known = self.marks.look(line);
        let is_ascii = known && self.marks.found().is_ascii;
        let is_utf8 = is_ascii || std::str::from_utf8(line).is_ok();
        if known && is_utf8 && scan(line, &self.marks, &self.names, &mut self.row).is_some() {
            return Read::Row;
        }
        self.row.clear();
        // Texts go to the arena now, so the line may be mended and parsed in place, in a copy.
        self.scratch.clear();
        utf8_into(line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line), &mut self.scratch);
        self.tape.read(&mut self.scratch, &self.names, &mut self.row)
    }
}

/// The line if it is UTF-8, else a copy with U+FFFD for what is not.
fn utf8<'a>(line: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if std::str::from_utf8(line).is_ok() {
        return line;
    }
    scratch.clear();
    utf8_into(line, scratch);
    scratch
}

/// Appends a line with U+FFFD for what is not UTF-8.
fn utf8_into(line: &[u8], out: &mut Vec<u8>) {
    for chunk in line.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// What a row is: what it says, what its transport said, or what its shape says. A row of both shapes is a logoff.
fn sourcetype_of(view: View<'_>, origin: Origin<'_>) -> Sourcetype {
    let named = view.text(fields::SOURCETYPE).filter(|name| !name.is_empty());
    if let Some(name) = named.or(origin.sourcetype.map(str::as_bytes)) {
        return Sourcetype::from_name(name);
    }
    if view.value(fields::LOGOFF_PROC_TYPE).is_some() {
        Sourcetype::LogoffProcesses
    } else if view.value(fields::LOGON_PROC_TYPE).is_some() {
        Sourcetype::LogonProcesses
    } else {
        Sourcetype::Missing
    }
}

fn encode(
    settings: &config::Uberagent,
    row: RowContext<'_>,
    mapping: &mut SessionMapping,
    out: &mut Output,
) -> Outcome {
    let host = super::attributes::cut(row.host, HOST_CAP_BYTES);
    let row = RowContext { host, event_ns: times::event_ns(row.view), ..row };
    let processes = matches!(row.sourcetype, Sourcetype::LogonProcesses | Sourcetype::LogoffProcesses);
    let encoded = match (row.sourcetype.rule(), settings.mapping) {
        (Some(rule), Mapping::Session) => mapping.encode(row, rule.service, out),
        (Some(_), Mapping::Original) if processes => original::encode(row, out),
        _ => match settings.other_sourcetypes {
            OtherSourcetypes::Filter => return Outcome::Filtered(row.sourcetype),
            OtherSourcetypes::Logs => Ok(log::encode(row, out)),
        },
    };
    match encoded {
        Ok(fields_dropped) => Outcome::Encoded { fields_dropped },
        Err(reason) => Outcome::DeadLetter(reason),
    }
}
