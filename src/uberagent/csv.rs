//! Splunk's raw TCP form: a header line, then lines of CSV without field names.
//!
//! The header says host and sourcetype; the sourcetype's columns are positional, the first is the time in epoch
//! milliseconds. Quoted values may hold commas; a quote inside is written `\"` or `""`, any other backslash is itself. A
//! few sourcetypes have no columns and write `name=value` instead. More columns than are known are fine and counted.

use super::names::Names;
use super::row::{Row, Value};
use super::sourcetypes::{Csv, Rule, Sourcetype};
use super::{fields, reason};

/// The `***SPLUNK***` line in front of rows: where they come from and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvHeader {
    host: String,
    sourcetype: Sourcetype,
}

impl CsvHeader {
    /// Reads a header line, as in `***SPLUNK*** host=VDA-014 sourcetype=uberAgent:Process:LogonProcesses`; `None` when
    /// it is none. Unknown names in it are passed over.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<CsvHeader> {
        let mut rest = line.trim_ascii().strip_prefix(b"***SPLUNK***")?;
        let mut header = CsvHeader { host: String::new(), sourcetype: Sourcetype::Missing };
        while let Some(equals) = memchr::memchr(b'=', rest) {
            let name = rest[..equals].trim_ascii();
            let (value, after) = header_value(&rest[equals + 1..]);
            if name.eq_ignore_ascii_case(b"host") {
                header.host = String::from_utf8_lossy(value).into_owned();
            } else if name.eq_ignore_ascii_case(b"sourcetype") {
                header.sourcetype = Sourcetype::from_name(value);
            }
            rest = after;
        }
        Some(header)
    }

    /// The host that the rows come from; empty when the header does not say.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the rows are.
    #[must_use]
    pub fn sourcetype(&self) -> Sourcetype {
        self.sourcetype
    }
}

/// A value of a header, quoted or up to the next blank, and what follows it.
fn header_value(text: &[u8]) -> (&[u8], &[u8]) {
    let (text, end) = match text.strip_prefix(b"\"") {
        Some(quoted) => (quoted, memchr::memchr(b'"', quoted)),
        None => (text, memchr::memchr2(b' ', b'\t', text)),
    };
    let end = end.unwrap_or(text.len());
    (&text[..end], text.get(end + 1..).unwrap_or_default())
}

/// The columns of each sourcetype as fields, made once.
#[derive(Debug)]
pub(crate) struct Columns(Vec<Vec<usize>>);

impl Columns {
    pub(crate) fn new(names: &Names) -> Columns {
        let field = |name: &&str| names.find_name(name.as_bytes()).expect("every column is a known field");
        let columns = |rule: &Rule| match rule.csv {
            Csv::Columns(columns) => columns.iter().map(field).collect(),
            Csv::Pairs | Csv::Unknown => Vec::new(),
        };
        Columns(super::sourcetypes::RULES.iter().map(columns).collect())
    }

    /// Reads a UTF-8 line of `sourcetype` into an empty row, or says why it cannot.
    pub(crate) fn read(
        &self,
        line: &[u8],
        sourcetype: Sourcetype,
        names: &Names,
        row: &mut Row,
    ) -> Result<(), &'static str> {
        let mut cells = Cells { line, at: 0, done: false };
        let time = cells.next(row).ok_or(reason::INVALID_CSV)?;
        if !cell_text(line, time).is_some_and(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit)) {
            return Err(reason::INVALID_CSV);
        }
        row.set(fields::AT_TIMESTAMP, time);
        // A sourcetype without rule makes no span: its columns do not matter.
        let Some(rule) = sourcetype.rule() else { return Ok(()) };
        match rule.csv {
            Csv::Columns(_) => self.read_columns(&mut cells, sourcetype, row),
            Csv::Pairs => read_pairs(line, cells.at, names, row),
            Csv::Unknown => return Err(reason::COLUMNS_UNKNOWN),
        }
        Ok(())
    }

    fn read_columns(&self, cells: &mut Cells<'_>, sourcetype: Sourcetype, row: &mut Row) {
        for field in &self.0[sourcetype as usize] {
            match cells.next(row) {
                Some(value) => row.set(*field, value),
                None => return,
            }
        }
        while cells.next(row).is_some() {
            row.unknown += 1;
        }
    }
}

/// The bytes of a cell that had no escapes.
fn cell_text(line: &[u8], value: Value) -> Option<&[u8]> {
    match value {
        Value::Text { start, bytes } => line.get(start as usize..(start + bytes) as usize),
        _ => None,
    }
}

/// A walk over the cells of a line.
struct Cells<'a> {
    line: &'a [u8],
    at: usize,
    done: bool,
}

impl Cells<'_> {
    /// The next cell; those with an escaped quote go to the row's arena.
    fn next(&mut self, row: &mut Row) -> Option<Value> {
        if self.done {
            return None;
        }
        let rest = &self.line[self.at..];
        let value = match rest.strip_prefix(b"\"") {
            Some(quoted) => {
                let (bytes, escaped) = quoted_bytes(quoted);
                let start = self.at + 1;
                self.at = start + bytes + 1;
                if escaped { unescape(&quoted[..bytes], row) } else { text_at(start, bytes) }
            }
            None => {
                let bytes = memchr::memchr(b',', rest).unwrap_or(rest.len());
                let start = self.at;
                self.at += bytes;
                text_at(start, bytes)
            }
        };
        // Whatever stands between a closing quote and the comma belongs to no value.
        match memchr::memchr(b',', self.line.get(self.at..).unwrap_or_default()) {
            Some(skipped) => self.at += skipped + 1,
            None => self.done = true,
        }
        Some(value)
    }
}

/// Bytes up to the closing quote, and whether there are escaped quotes among them.
fn quoted_bytes(text: &[u8]) -> (usize, bool) {
    let mut escaped = false;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'"', &text[at..]) {
        let quote = at + found;
        let behind_backslash = quote > at && text[quote - 1] == b'\\';
        if behind_backslash {
            escaped = true;
            at = quote + 1;
        } else if text.get(quote + 1) == Some(&b'"') {
            escaped = true;
            at = quote + 2;
        } else {
            return (quote, escaped);
        }
    }
    (text.len(), escaped)
}

fn unescape(text: &[u8], row: &mut Row) -> Value {
    let start = row.arena.len();
    let mut at = 0;
    while at < text.len() {
        let pair = matches!(text.get(at..at + 2), Some(b"\\\"" | b"\"\""));
        at += usize::from(pair);
        row.arena.push(text[at]);
        at += 1;
    }
    row.kept_since(start)
}

fn text_at(start: usize, bytes: usize) -> Value {
    match (u32::try_from(start), u32::try_from(bytes)) {
        (Ok(start), Ok(bytes)) => Value::Text { start, bytes },
        _ => Value::Nested,
    }
}

/// Reads `name=value` pairs, separated by blanks or commas; values may be quoted.
fn read_pairs(line: &[u8], from: usize, names: &Names, row: &mut Row) {
    let mut at = from;
    while let Some(equals) = memchr::memchr(b'=', line.get(at..).unwrap_or_default()) {
        let separator = |byte: &u8| matches!(byte, b' ' | b',' | b'\t');
        let name = line[at..at + equals].trim_ascii();
        let name = name.rsplit(separator).next().unwrap_or(name);
        let start = at + equals + 1;
        let (start, bytes) = match line[start..].strip_prefix(b"\"") {
            Some(quoted) => (start + 1, quoted_bytes(quoted).0),
            None => (start, line[start..].iter().position(separator).unwrap_or(line.len() - start)),
        };
        match names.find_name(name) {
            Some(field) => row.set(field, text_at(start, bytes)),
            None => row.unknown += 1,
        }
        at = start + bytes;
    }
}
