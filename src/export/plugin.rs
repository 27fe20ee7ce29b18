//! A format of the user: a plugin writes the spans of a request, each message that it makes is one POST.
//!
//! The plugin sees what OTLP would send, joined to one batch, and every sender has an instance of its own. What it fails on, or
//! answers against the rules, is [`Outcome::Unencodable`]: delivery halves the request until the span that is to blame stands
//! alone and keeps that aside. Spans that the format has no words for are booked as refused. Messages go out in order, and
//! the first that is not taken ends the request: those before it are sent again with it, for at least once is the promise.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ureq::http::{HeaderMap, HeaderValue, Uri, header};

use super::http::{Http, parse_headers, parse_url};
use super::reply::{Sent, printable};
use super::{Request, SetupError};
use crate::block::{Outcome, Signal};
use crate::config::{self, Compression};
use crate::otlp::columns::Columns;
use crate::plugin::answers::Encoded;
use crate::plugin::counters::Counters;
use crate::plugin::{Call, CallError, Engine, Generation, Instance, World};

/// One sender of a destination whose format is a plugin's.
pub struct Plugin {
    http: Http,
    url: Uri,
    headers: HeaderMap,
    compression: Compression,
    instance: Instance,
    /// Held for as long as there are instances.
    engine: Arc<Engine>,
    columns: Columns,
    batch: Vec<u8>,
    packed: Vec<u8>,
}

impl Plugin {
    pub(super) fn open(settings: &config::PluginExport) -> Result<Plugin, SetupError> {
        let url = parse_url(&settings.url)?;
        let unusable = |why: String| SetupError::Plugin { reason: why };
        let engine = Engine::outside_lanes().map_err(|error| unusable(error.to_string()))?;
        let component = &settings.plugin.component;
        let generation = Generation::load(&engine, &settings.plugin, component, 1)
            .map_err(|error| unusable(format!("{}: {error}", component.path.display())))?;
        if generation.world != World::Encode {
            let (path, world) = (component.path.display(), generation.world.name());
            return Err(unusable(format!(
                "{path}: an exporter takes a plugin of the world encode; this one is of {world}"
            )));
        }
        Ok(Plugin {
            http: Http::open(&url, &settings.http)?,
            url,
            headers: parse_headers(&settings.http)?,
            compression: settings.http.compression,
            instance: Instance::new(Arc::new(generation), Arc::new(Counters::default())),
            engine,
            columns: Columns::default(),
            batch: Vec::new(),
            packed: Vec::new(),
        })
    }

    pub(super) fn another(&self) -> Plugin {
        Plugin {
            http: self.http.another(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            compression: self.compression,
            instance: Instance::new(Arc::clone(self.instance.generation()), Arc::new(Counters::default())),
            engine: Arc::clone(&self.engine),
            columns: Columns::default(),
            batch: Vec::new(),
            packed: Vec::new(),
        }
    }

    pub(super) fn accepts(&self, signal: Signal) -> bool {
        self.instance.generation().selection(signal).is_some()
    }

    /// What is counted of the plugin on this sender's thread.
    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.instance.counters())
    }

    pub(super) fn send(&mut self, request: &Request<'_>) -> Outcome {
        self.batch.clear();
        request.payloads.iter().for_each(|payload| self.batch.extend_from_slice(payload));
        let written = match self.write(request.signal) {
            Ok(written) => written,
            // There is no instance to be had now; the spans are not to blame.
            Err(error @ CallError::Start(_)) => {
                let message = error.to_string();
                return Outcome::Unavailable { retry_after: None, answer_lost: false, message };
            }
            Err(error) => return Outcome::Unencodable { message: format!("the plugin: {error}") },
        };
        let Some(Written { encoded, messages, content_type }) = written else { return Outcome::NothingToSend };
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, content_type);
        for message in messages {
            if let Err(failure) = self.post(&encoded.bytes[message], &headers, request) {
                return failure;
            }
        }
        match encoded.unencodable.len() as u64 {
            0 => Outcome::Accepted,
            refused_spans => {
                let message = format!("{refused_spans} spans cannot be said in {}", encoded.content_type);
                Outcome::AcceptedPartially { refused_spans, message }
            }
        }
    }

    /// What the plugin makes of the batch; nothing when no span of it can be said.
    fn write(&mut self, signal: Signal) -> Result<Option<Written>, CallError> {
        let generation = Arc::clone(self.instance.generation());
        let Some(selection) = generation.selection(signal) else { return Ok(None) };
        selection.gather(&self.batch, &mut self.columns);
        if self.columns.rows() == 0 {
            return Ok(None);
        }
        let call = Call { signal, columns: &self.columns, received_ns: 0 };
        let encoded = self.instance.encode(&call, &mut self.batch)?;
        match Written::check(encoded, self.columns.rows()) {
            Ok(written) => {
                self.instance.accept();
                Ok((!written.messages.is_empty()).then_some(written))
            }
            Err(why) => {
                self.instance.reject();
                self.instance.counters().bad_patches.add(1);
                Err(CallError::Refused(format!("its answer breaks a rule: {why}")))
            }
        }
    }

    fn post(&mut self, message: &[u8], headers: &HeaderMap, request: &Request<'_>) -> Result<(), Outcome> {
        let compression = request.compression(self.compression);
        let packing = (compression, &mut self.packed);
        let reply = self.http.post_compressed((&self.url, headers), &[message], packing, request.faults)?;
        let compressed = compression != Compression::None;
        let sent = Sent { payload_bytes: self.batch.len(), compressed, wall_ns: request.wall_ns };
        reply.refusal(sent).map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.instance.generation();
        f.debug_struct("Plugin").field("plugin", &generation.info).field("url", &self.url).finish_non_exhaustive()
    }
}

/// An answer that keeps the rules.
struct Written {
    encoded: Encoded,
    messages: Vec<Range<usize>>,
    content_type: HeaderValue,
}

impl Written {
    fn check(encoded: Encoded, rows: u32) -> Result<Written, String> {
        let Encoded { bytes, ends, rows: last_rows, unencodable, content_type } = &encoded;
        let ascends = |list: &[u32]| list.array_windows().all(|[before, next]| before < next);
        let is_in = |list: &[u32]| ascends(list) && list.last().is_none_or(|last| *last < rows);
        if ends.len() != last_rows.len() || !is_in(last_rows) {
            return Err(format!("{} messages do not end after rows in order, of {rows}", ends.len()));
        }
        if !ascends(ends) || ends.first() == Some(&0) || ends.last().copied().unwrap_or(0) as usize != bytes.len() {
            return Err(format!("{} messages do not take {} bytes in order", ends.len(), bytes.len()));
        }
        if !is_in(unencodable) {
            return Err(format!("{} rows that cannot be said are not in order, or not of {rows}", unencodable.len()));
        }
        let content_type = HeaderValue::from_str(content_type)
            .ok()
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("{:?} is no content type", printable(content_type.as_bytes())))?;
        let starts = [0].into_iter().chain(ends.iter().copied());
        let messages = starts.zip(ends).map(|(start, end)| start as usize..*end as usize).collect();
        Ok(Written { messages, content_type, encoded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(ends: &[u32], rows: &[u32], unencodable: &[u32], content_type: &str) -> Encoded {
        let (ends, rows, unencodable) = (ends.to_vec(), rows.to_vec(), unencodable.to_vec());
        Encoded { bytes: b"abcdef".to_vec(), ends, rows, unencodable, content_type: content_type.to_owned() }
    }

    #[test]
    fn messages_lie_behind_each_other_and_take_all_bytes() {
        let written = Written::check(encoded(&[2, 6], &[0, 3], &[1], "a/b"), 4).map_err(drop).unwrap();
        assert_eq!(written.messages, [0..2, 2..6]);
        for (ends, rows, unencodable, content_type) in [
            (&[2][..], &[0][..], &[][..], "a/b"),
            (&[2, 7], &[0, 3], &[], "a/b"),
            (&[4, 2, 6], &[0, 1, 2], &[], "a/b"),
            (&[0, 6], &[0, 1], &[], "a/b"),
            (&[6], &[], &[], "a/b"),
            (&[6], &[4], &[], "a/b"),
            (&[2, 6], &[3, 3], &[], "a/b"),
            (&[6], &[3], &[4], "a/b"),
            (&[6], &[3], &[2, 1], "a/b"),
            (&[6], &[3], &[], "a/b\r\nx: y"),
            (&[6], &[3], &[], ""),
        ] {
            assert!(Written::check(encoded(ends, rows, unencodable, content_type), 4).is_err(), "{ends:?} {rows:?}");
        }
    }
}
