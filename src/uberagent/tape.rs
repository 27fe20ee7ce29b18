//! Reads a JSON row with simd-json: the authority on what is JSON and what it means.
//!
//! Takes any row, however it is nested or escaped; `scan` takes the usual ones faster and must agree with this to the
//! byte. Before parsing, escapes of lone surrogates (legal in Windows names, not in UTF-8) are made U+FFFD: they cost
//! the character, not the row.

use simd_json::{Buffers, Node, StaticNode, Tape};

use super::names::Names;
use super::row::{Row, Value};

/// What a line turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A row: its values were set.
    Row,
    /// An Elasticsearch action line.
    Action,
    /// JSON, but no object.
    NotAnObject,
    /// No JSON.
    Invalid,
}

/// A parser with its buffers.
pub(crate) struct TapeReader {
    buffers: Buffers,
    /// Empty between rows; kept for its room.
    tape: Tape<'static>,
}

impl TapeReader {
    pub(crate) fn new() -> TapeReader {
        TapeReader { buffers: Buffers::new(4096), tape: Tape(Vec::with_capacity(256)) }
    }

    /// Reads `line`, which is scratch afterwards, into an empty row. All texts go to the row's arena.
    pub(crate) fn read(&mut self, line: &mut [u8], names: &Names, row: &mut Row) -> Read {
        mend_surrogates(line);
        let mut tape: Tape<'_> = std::mem::replace(&mut self.tape, Tape(Vec::new()));
        let read = match simd_json::fill_tape(line, &mut self.buffers, &mut tape) {
            Ok(()) => read_nodes(&tape.0, names, row),
            Err(_) => Read::Invalid,
        };
        self.tape = tape.reset();
        read
    }
}

fn read_nodes(nodes: &[Node<'_>], names: &Names, row: &mut Row) -> Read {
    let Some(Node::Object { len, .. }) = nodes.first() else { return Read::NotAnObject };
    let mut at = 1;
    for _ in 0..*len {
        let Some(Node::String(name)) = nodes.get(at) else { return Read::Invalid };
        let Some(value) = nodes.get(at + 1) else { return Read::Invalid };
        if *len == 1
            && matches!(*name, "create" | "index" | "update" | "delete")
            && matches!(value, Node::Object { .. })
        {
            return Read::Action;
        }
        match names.find_name(name.as_bytes()) {
            Some(field) => {
                let value = read_value(value, row);
                row.set(field, value);
            }
            None => row.unknown += 1,
        }
        at += 1 + nodes_of(value);
    }
    Read::Row
}

/// Nodes that a value takes, itself included.
fn nodes_of(value: &Node<'_>) -> usize {
    match value {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        Node::String(_) | Node::Static(_) => 1,
    }
}

fn read_value(value: &Node<'_>, row: &mut Row) -> Value {
    match value {
        Node::String(text) => row.keep(text),
        Node::Static(StaticNode::I64(number)) => Value::Int(*number),
        #[expect(clippy::cast_precision_loss, reason = "beyond the range of what any field holds")]
        Node::Static(StaticNode::U64(number)) => {
            i64::try_from(*number).map_or(Value::Double(*number as f64), Value::Int)
        }
        Node::Static(StaticNode::F64(number)) => Value::Double(*number),
        Node::Static(StaticNode::Bool(value)) => Value::Bool(*value),
        Node::Static(StaticNode::Null) => Value::Null,
        Node::Object { .. } | Node::Array { .. } => Value::Nested,
    }
}

/// Overwrites `\uD800`..`\uDFFF` escapes that are no pair with `\uFFFD`, in place: both take six bytes.
fn mend_surrogates(line: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &line[at..]) {
        at += found;
        match unit(line, at) {
            Some(0xd800..0xdc00) if matches!(unit(line, at + 6), Some(0xdc00..0xe000)) => at += 12,
            Some(0xd800..0xe000) => {
                line[at + 2..at + 6].copy_from_slice(b"fffd");
                at += 6;
            }
            // Any other escape: skip what it escapes, which may be a backslash.
            _ => at = (at + 2).min(line.len()),
        }
    }
}

/// The UTF-16 unit escaped at `at`.
pub(crate) fn unit(line: &[u8], at: usize) -> Option<u16> {
    let escape = line.get(at..at + 6)?;
    let digits = escape.strip_prefix(b"\\u").filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    digits.iter().try_fold(0u16, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

impl std::fmt::Debug for TapeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TapeReader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uberagent::fields::id;

    #[test]
    fn only_lone_surrogates_are_mended() {
        let cases = [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d oops""#, r#""\ufffd oops""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ude00""#, r#""\ufffd""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\ud8"#, r#""\ud8"#),
            (r"\", r"\"),
        ];
        for (sent, mended) in cases {
            let mut line = sent.as_bytes().to_vec();
            mend_surrogates(&mut line);
            assert_eq!(line, mended.as_bytes(), "{sent}");
        }
    }

    #[test]
    fn a_line_is_told_for_what_it_is() {
        let mut reader = TapeReader::new();
        let names = Names::new();
        let mut row = Row::new();
        let cases = [
            (r#"{"ProcID":4,"x":[1,{"y":2}],"ProcName":"a"}"#, Read::Row),
            ("{}", Read::Row),
            (r#"{"create":{}}"#, Read::Action),
            (r#"{"index":{"_index":"uberagent","_id":"1"}}"#, Read::Action),
            ("42", Read::NotAnObject),
            ("[{}]", Read::NotAnObject),
            ("{'a':1}", Read::Invalid),
            (r#"{"a":1}{"a":1}"#, Read::Invalid),
            ("", Read::Invalid),
        ];
        for (line, read) in cases {
            row.clear();
            assert_eq!(reader.read(&mut line.as_bytes().to_vec(), &names, &mut row), read, "{line}");
        }
        row.clear();
        reader.read(&mut br#"{"ProcID":4,"x":[1,{"y":2}],"procname":"a"}"#.to_vec(), &names, &mut row);
        let view = super::super::row::View { row: &row, line: b"" };
        assert_eq!((view.int(id("ProcID")), view.text(id("ProcName")), row.unknown), (Some(4), Some(&b"a"[..]), 1));
    }
}
