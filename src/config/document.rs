//! YAML to the tree of words, with `${env:NAME}` and `${env:NAME:-default}` put in.
//!
//! Built from parser events, so that a key given twice is an error and every node has its line and column. Anchors and
//! aliases work; merge keys, tags and several documents do not. The tree is bounded in nodes (aliases count each time)
//! and depth. `${NAME}` is `${env:NAME}`, `$$` is `$`; an unset variable without a default is an error, because an empty
//! token or endpoint is never what was meant.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::section::Reader;
use super::tree::{Data, Entry, Origin, Value};

/// Nodes of a document, each use of an alias counted.
const MAX_NODES: usize = 20_000;

/// Maps and lists in each other.
const MAX_DEPTH: usize = 32;

/// Reads a document. Problems go to the reader; the tree holds what could be read.
pub(super) fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>, reader: &Reader) -> Value {
    let events = Parser::new_from_str(text);
    let mut builder = Builder { events, environment, reader, anchors: HashMap::new(), nodes: 0, documents: 0 };
    match builder.document() {
        Ok(value) => value,
        Err(Stop { at, message }) => {
            reader.problem(&at, message);
            Value::empty_map()
        }
    }
}

/// Reading cannot go on.
struct Stop {
    at: Origin,
    message: String,
}

struct Builder<'t> {
    events: Parser<'t, StrInput<'t>>,
    environment: &'t dyn Fn(&str) -> Option<String>,
    reader: &'t Reader,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
    documents: usize,
}

impl<'t> Builder<'t> {
    fn document(&mut self) -> Result<Value, Stop> {
        let mut root = Value::empty_map();
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) => {
                    self.documents += 1;
                    if self.documents > 1 {
                        return Err(Stop { at, message: "a second document: a configuration is one".to_owned() });
                    }
                }
                other => root = self.node(other, at, 0)?,
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Origin), Stop> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((event, place(span.start))),
            Some(Err(error)) => Err(Stop { at: place(*error.marker()), message: error.info().to_owned() }),
            None => Ok((Event::StreamEnd, Origin::Default)),
        }
    }

    fn node(&mut self, event: Event<'t>, at: Origin, depth: usize) -> Result<Value, Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            let message = format!("too large: at most {MAX_NODES} nodes in {MAX_DEPTH} levels");
            return Err(Stop { at, message });
        }
        let before = self.nodes;
        let quoted = matches!(event, Event::Scalar(_, style, ..) if style != ScalarStyle::Plain);
        let (anchor, data) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, self.scalar(&text, style, &at)),
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => return Err(Stop { at, message: "a value was expected here".to_owned() }),
        };
        let value = Value { data, origin: at, quoted };
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), self.nodes - before + 1));
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize, at: Origin) -> Result<Value, Stop> {
        let Some((value, nodes)) = self.anchors.get(&anchor) else {
            return Err(Stop { at, message: "an alias inside the node that it names".to_owned() });
        };
        self.nodes += nodes;
        Ok(value.clone())
    }

    fn list(&mut self, depth: usize) -> Result<Data, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Data::List(items));
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Data, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Data::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Stop { at, message: "a key must be a plain word".to_owned() }),
            };
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            if entries.iter().any(|entry| entry.key == key) {
                self.reader.problem(&at, format!("the key {key:?} is given twice"));
                continue;
            }
            entries.push(Entry { key, at, value });
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, at: &Origin) -> Data {
        if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Data::Null;
        }
        match substitute(text, self.environment) {
            Ok(text) => Data::Text(text),
            Err(message) => {
                self.reader.problem(at, message);
                Data::Text(text.to_owned())
            }
        }
    }
}

/// `saphyr_parser` counts lines from 1 and columns from 0; people count both from 1.
fn place(marker: Marker) -> Origin {
    Origin::File { line: marker.line(), column: marker.col() + 1 }
}

/// Puts variables in. The value of a variable is not looked at again.
fn substitute(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or_else(|| format!("\"${{\" without \"}}\" in {text:?}"))?;
            out.push_str(&variable(&after[..end], environment)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of what stands between the braces.
fn variable(inside: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match inside.strip_prefix("env:").unwrap_or(inside).split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside.strip_prefix("env:").unwrap_or(inside), None),
    };
    let well_formed = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !well_formed {
        return Err(format!("${{{inside}}} is not ${{env:NAME}} or ${{env:NAME:-default}}"));
    }
    match (environment(name).filter(|value| !value.is_empty()), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("the environment variable {name} is not set; ${{env:{name}:-}} would allow an empty value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("collector".to_owned()),
            "MONEY" => Some("$HOST".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_put_in() {
        let cases = [
            ("http://${env:HOST}:4318", Ok("http://collector:4318")),
            ("${HOST}", Ok("collector")),
            ("${env:PORT:-4318}", Ok("4318")),
            ("${env:PORT:-}", Ok("")),
            ("${env:HOST:-other}", Ok("collector")),
            ("${env:MONEY}", Ok("$HOST")),
            ("5$$ and $5", Ok("5$ and $5")),
        ];
        for (text, expected) in cases {
            assert_eq!(substitute(text, &environment), expected.map(str::to_owned), "{text}");
        }
        for (text, part) in [("${env:PORT}", "PORT is not set"), ("${file:x}", "is not"), ("${HOST", "without")] {
            let message = substitute(text, &environment).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
