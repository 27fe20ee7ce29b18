//! The world `decode`: make spans from the bytes of a connection.
//!
//! The host keeps the bytes: a plugin says how many it has used and gets the rest again, in front of what comes next. So it
//! holds nothing between two calls, and a reload in the middle of a line loses nothing.

use crate::bindings::types::{Field, NumEdits, TextEdits};
use crate::cell::Edits;
use crate::extra::Extra;
use crate::fields::Fields;
use crate::plugin::Plugin;
use crate::rows::At;

/// The intrinsics that may be written here.
pub const WRITABLE: &[&str] = &[
    "name",
    "status",
    "status-message",
    "trace-id",
    "span-id",
    "parent-span-id",
    "kind",
    "trace-state",
    "start",
    "end",
    "duration",
    "scope-name",
    "scope-version",
    "events",
    "links",
    "body",
    "severity",
    "severity-text",
];

/// A plugin that reads a format. `#[decode]` on the impl exports it.
pub trait Decode: Plugin {
    /// The fields that it fills in, all of them [`Write`](crate::Write).
    type Span: Fields<'static>;

    /// Called for each line, without its end; fills in the fields of `output`. Formats that are no lines implement
    /// [`Decode::chunk`] instead.
    ///
    /// # Errors
    /// The reason for which the line is rejected. What was filled in is forgotten with it.
    fn line(&mut self, _line: &[u8], _output: &mut Output<Self::Span>) -> Result<Taken, String> {
        Err("this plugin reads no lines".to_owned())
    }

    /// A peer has connected; `about` has keys and values, among them "peer" and "transport".
    ///
    /// # Errors
    /// The reason for which it is refused.
    fn opened(&mut self, _connection: u64, _about: &[(String, String)]) -> Result<(), String> {
        Ok(())
    }

    /// A connection has gone, however it ended.
    fn closed(&mut self, _connection: u64) {}

    /// Called for each chunk; cuts it into lines unless the plugin does something else. Returns the bytes used.
    ///
    /// # Errors
    /// Concern the whole chunk; the operator's policy decides what becomes of it.
    fn chunk(&mut self, input: &Input<'_>, output: &mut Output<Self::Span>) -> Result<usize, String> {
        let mut used = 0;
        while let Some(line) = input.line(used) {
            let next = line.next;
            let text = &input.bytes[used..line.end];
            if !text.is_empty() {
                output.begin();
                match self.line(text, output) {
                    Ok(Taken::Span) => {}
                    Ok(Taken::Nothing) => output.filter(),
                    Err(reason) => output.reject(used, line.end, reason),
                }
            }
            used = next;
        }
        Ok(used)
    }
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// A span.
    Span,
    /// It is understood and not wanted: counted as filtered.
    Nothing,
}

/// Bytes of one connection.
#[derive(Debug)]
pub struct Input<'c> {
    /// Which connection; the same number means the same one.
    pub connection: u64,
    /// What is not used yet.
    pub bytes: &'c [u8],
    /// Nothing comes after this.
    pub is_last: bool,
}

struct Line {
    end: usize,
    next: usize,
}

impl Input<'_> {
    /// The line that begins at `start`, if all of it is here.
    fn line(&self, start: usize) -> Option<Line> {
        let rest = &self.bytes[start..];
        let (length, next) = match memchr::memchr(b'\n', rest) {
            Some(at) => (at, start + at + 1),
            None if self.is_last && !rest.is_empty() => (rest.len(), self.bytes.len()),
            None => return None,
        };
        let carriage_return = usize::from(rest[..length].ends_with(b"\r"));
        Some(Line { end: start + length - carriage_return, next })
    }
}

/// The spans made of a chunk.
#[derive(Debug)]
pub struct Output<R> {
    /// The fields of the span begun last.
    pub fields: R,
    /// Bytes for the peer, sent once the spans are safe.
    pub reply: Vec<u8>,
    extra: Extra,
    spans: u32,
    filtered: u32,
    rejected: Vec<(u32, u32, String)>,
}

impl<R: Fields<'static>> Output<R> {
    /// Begins another span; `fields` then are its own.
    pub fn begin(&mut self) {
        let row = self.spans;
        self.fields.seek(&At { row, resource: row, scope: row, begins_resource: true, begins_scope: true });
        self.spans += 1;
    }

    /// Sets an attribute of the span begun last under a key that is not declared.
    ///
    /// # Errors
    /// When there are too many different keys in the chunk.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.extra.set(self.spans - 1, key, value)
    }

    /// Gives up the span begun last: it is understood and not wanted.
    pub fn filter(&mut self) {
        self.take_back();
        self.filtered += 1;
    }

    /// Gives up the span begun last: the bytes from `first` to `end` of the chunk cannot be used, and why.
    pub fn reject(&mut self, first: usize, end: usize, reason: String) {
        self.take_back();
        self.rejected.push((offset(first), offset(end), reason));
    }

    fn take_back(&mut self) {
        self.spans -= 1;
        self.fields.forget();
        self.extra.forget(self.spans);
    }
}

/// What [`run`] made of a chunk.
#[derive(Debug)]
pub struct Decoded {
    /// Bytes used.
    pub consumed: u32,
    /// Spans made.
    pub rows: u32,
    /// Fields of this chunk alone.
    pub extra: Vec<Field>,
    /// What to fill in.
    pub text: Vec<TextEdits>,
    /// What to fill in.
    pub num: Vec<NumEdits>,
    /// Records understood and not wanted.
    pub filtered: u32,
    /// Bytes for the peer.
    pub reply: Vec<u8>,
    /// Where the bytes begin and end that could not be used, and why.
    pub rejected: Vec<(u32, u32, String)>,
}

/// Decodes one chunk.
///
/// # Errors
/// The plugin's own.
pub fn run<P: Decode>(plugin: &mut P, input: &Input<'_>) -> Result<Decoded, String> {
    let fields = P::Span::open(&mut [].iter())?;
    let extra = Extra::after(<P::Span as Fields<'static>>::FIELDS.len());
    let mut output = Output { fields, reply: Vec::new(), extra, spans: 0, filtered: 0, rejected: Vec::new() };
    let consumed = offset(plugin.chunk(input, &mut output)?);
    let Output { fields, reply, extra, spans, filtered, rejected } = output;
    let mut edits = Edits::default();
    fields.finish(&mut edits);
    let extra = extra.finish(&mut edits.text);
    Ok(Decoded { consumed, rows: spans, extra, text: edits.text, num: edits.num, filtered, reply, rejected })
}

/// An offset in a chunk, as the interface counts.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("memory of 32 bits holds no more")
}
