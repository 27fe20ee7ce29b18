//! A format of the user: a plugin writes the spans of a request, each message that it makes is one POST.
//!
//! The plugin sees what OTLP would send, joined to one batch, and every sender has an instance of its own. What it fails on, or
//! answers against the rules, is [`Outcome::Unencodable`]: delivery halves the request until the span that is to blame stands
//! alone and keeps that aside. Spans that the format has no words for are booked as refused. Messages go out in order, and
//! the first that is not taken ends the request: those before it are sent again with it, for at least once is the promise.

mod format;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ureq::http::{HeaderMap, Uri, header};

use super::http::{Http, parse_headers, parse_url};
use super::reply::Sent;
use super::{Request, SetupError};
use crate::block::{Outcome, Signal};
use crate::config::{self, Compression};
use crate::plugin::counters::Counters;
use crate::plugin::{CallError, Engine, Generation, World};

pub use format::{Format, Written};

/// One sender of a destination whose format is a plugin's.
pub struct Plugin {
    name: String,
    path: PathBuf,
    http: Http,
    url: Uri,
    headers: HeaderMap,
    compression: Compression,
    format: Format,
    /// Held for as long as there are instances.
    engine: Arc<Engine>,
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
            name: settings.plugin.name.clone(),
            path: component.path.clone(),
            http: Http::open(&url, &settings.http)?,
            url,
            headers: parse_headers(&settings.http)?,
            compression: settings.http.compression,
            format: Format::new(Arc::new(generation), Arc::default()),
            engine,
            batch: Vec::new(),
            packed: Vec::new(),
        })
    }

    pub(super) fn another(&self) -> Plugin {
        Plugin {
            name: self.name.clone(),
            path: self.path.clone(),
            http: self.http.another(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            compression: self.compression,
            format: self.format.another(),
            engine: Arc::clone(&self.engine),
            batch: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Says in the log that it is live.
    pub(super) fn announce(&self) {
        self.format.generation().announce(&self.name, &self.path);
    }

    pub(super) fn accepts(&self, signal: Signal) -> bool {
        self.format.generation().selection(signal).is_some()
    }

    /// What is counted of the plugin on this sender's thread.
    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.format.counters())
    }

    pub(super) fn send(&mut self, request: &Request<'_>) -> Outcome {
        self.batch.clear();
        request.payloads.iter().for_each(|payload| self.batch.extend_from_slice(payload));
        let written = match self.format.write(request.signal, &mut self.batch) {
            Ok(written) => written,
            // There is no instance to be had now; the spans are not to blame.
            Err(error @ CallError::Start(_)) => {
                let message = error.to_string();
                return Outcome::Unavailable { retry_after: None, answer_lost: false, message };
            }
            Err(error) => return Outcome::Unencodable { message: format!("the plugin: {error}") },
        };
        let Some(Written { encoded, messages, content_type }) = written else { return Outcome::NothingToSend };
        if messages.is_empty() {
            return Outcome::NothingToSend;
        }
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
        let generation = self.format.generation();
        f.debug_struct("Plugin").field("plugin", &generation.info).field("url", &self.url).finish_non_exhaustive()
    }
}
