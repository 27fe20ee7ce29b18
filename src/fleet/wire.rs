//! The forms in which a row travels: what Fluent Bit writes to TCP, Elasticsearch `_bulk`, and Splunk's raw TCP.
//!
//! Fluent Bit puts `date` first, leaves the other keys in any order, writes slashes for backslashes and `\u` escapes for
//! anything beyond ASCII, whole numbers without a fraction and now and then a binary fraction's noise. It drops the
//! sourcetype of process rows, which tell themselves apart by their columns; other rows keep theirs, since nothing else
//! says what they are. `_bulk` is what uberAgent itself sends. The header line of Splunk's form is an inference.

use std::io::Write;

use fastrand::Rng;

use super::row::{Row, Value};

/// A form in which rows travel. Every rendered row ends with a newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A JSON line of Fluent Bit's TCP output.
    FluentBit,
    /// An action line and a document of Elasticsearch's `_bulk`.
    Bulk,
    /// A `***SPLUNK***` header line and a CSV line.
    SplunkTcp,
}

const CANNOT_FAIL: &str = "writing to a vector cannot fail";

impl Wire {
    /// Appends `row` in this form to `out`.
    pub fn render(self, row: &Row, out: &mut Vec<u8>) {
        match self {
            Wire::FluentBit => fluent_bit(row, out),
            Wire::Bulk => bulk(row, out),
            Wire::SplunkTcp => splunk_tcp(row, out),
        }
    }
}

/// What stands for a key in the shuffled order: a column, or one of the keys that are not columns.
#[derive(Clone, Copy)]
enum Key {
    Column(usize),
    Host,
    Meta,
    Sourcetype,
}

fn fluent_bit(row: &Row, out: &mut Vec<u8>) {
    let columns = row.sourcetype.columns();
    let mut keys: Vec<Key> = (0..columns.len()).filter(|at| row.values[*at].is_some()).map(Key::Column).collect();
    keys.extend([Key::Host, Key::Meta]);
    if !row.sourcetype.is_process() {
        keys.push(Key::Sourcetype);
    }
    // As many orders as the capture showed: the order comes from a hash table, so rows of a kind share some.
    let mut rng = Rng::with_seed(u64::from(row.key_order));
    rng.shuffle(&mut keys);
    write!(out, "{{\"date\":{}.{:03}", row.event_ms / 1000, row.event_ms % 1000).expect(CANNOT_FAIL);
    for key in keys {
        match key {
            Key::Column(at) => {
                write!(out, ",\"{}\":", columns[at]).expect(CANNOT_FAIL);
                match row.values[at].as_ref().expect("absent values were left out") {
                    Value::Text(text) => json_text(text, Escapes::FluentBit, out),
                    Value::Integer(value) => write!(out, "{value}").expect(CANNOT_FAIL),
                    // Which number shows noise hangs on the row, not on chance.
                    Value::Decimal { scaled, digits } if rng.u32(0..50) == 0 => noisy(*scaled, *digits, out),
                    Value::Decimal { scaled, digits } => decimal(*scaled, *digits, out),
                }
            }
            Key::Host => {
                out.extend_from_slice(b",\"host\":");
                json_text(&row.host, Escapes::FluentBit, out);
            }
            Key::Meta => out.extend_from_slice(b",\"@meta\":{\"create\":{}}"),
            Key::Sourcetype => write!(out, ",\"Sourcetype\":\"{}\"", row.sourcetype.name()).expect(CANNOT_FAIL),
        }
    }
    out.extend_from_slice(b"}\n");
}

fn bulk(row: &Row, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"create\":{}}\n");
    let sourcetype = row.sourcetype.name();
    write!(out, "{{\"@timestamp\":{},\"Sourcetype\":\"{sourcetype}\",\"host\":", row.event_ms).expect(CANNOT_FAIL);
    json_text(&row.host, Escapes::Plain, out);
    for (column, value) in row.sourcetype.columns().iter().zip(&row.values) {
        let Some(value) = value else { continue };
        write!(out, ",\"{column}\":").expect(CANNOT_FAIL);
        match value {
            Value::Text(text) => json_text(text, Escapes::Plain, out),
            Value::Integer(value) => write!(out, "{value}").expect(CANNOT_FAIL),
            Value::Decimal { scaled, digits } => decimal(*scaled, *digits, out),
        }
    }
    out.extend_from_slice(b"}\n");
}

fn splunk_tcp(row: &Row, out: &mut Vec<u8>) {
    let (host, sourcetype) = (&row.host, row.sourcetype.name());
    writeln!(out, "***SPLUNK*** host={host} index=uberagent source=uberAgent sourcetype={sourcetype}")
        .expect(CANNOT_FAIL);
    write!(out, "{:013}", row.event_ms).expect(CANNOT_FAIL);
    for value in &row.values {
        out.push(b',');
        match value {
            None => {}
            Some(Value::Text(text)) => csv_text(text, out),
            Some(Value::Integer(value)) => write!(out, "{value}").expect(CANNOT_FAIL),
            Some(Value::Decimal { scaled, digits }) => decimal(*scaled, *digits, out),
        }
    }
    out.push(b'\n');
}

fn decimal(scaled: u64, digits: u32, out: &mut Vec<u8>) {
    let unit = 10u64.pow(digits);
    write!(out, "{}", scaled / unit).expect(CANNOT_FAIL);
    if !scaled.is_multiple_of(unit) {
        write!(out, ".{:0width$}", scaled % unit, width = digits as usize).expect(CANNOT_FAIL);
    }
}

/// The same number as a program prints it that added binary fractions up.
fn noisy(scaled: u64, digits: u32, out: &mut Vec<u8>) {
    write!(
        out,
        "{}.{:0width$}00000000001",
        scaled / 10u64.pow(digits),
        scaled % 10u64.pow(digits),
        width = digits as usize
    )
    .expect(CANNOT_FAIL);
}

/// How strings are written in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// Only what JSON demands.
    Plain,
    /// Slashes for backslashes, `\u` for everything beyond ASCII.
    FluentBit,
}

fn json_text(text: &str, escapes: Escapes, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' if escapes == Escapes::FluentBit => out.push(b'/'),
            '\\' => out.extend_from_slice(b"\\\\"),
            ' '..='~' => out.push(u8::try_from(character).expect("the character is ASCII")),
            _ if escapes == Escapes::FluentBit || character < ' ' => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect(CANNOT_FAIL);
                }
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn csv_text(text: &str, out: &mut Vec<u8>) {
    if !text.contains([',', '"']) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for character in text.chars() {
        if character == '"' {
            out.push(b'\\');
        }
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.push(b'"');
}
