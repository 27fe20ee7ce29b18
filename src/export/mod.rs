//! Exporters: one file a protocol; each only says how one request is sent and what the answer means.
//!
//! An exporter belongs to one sender thread of its destination and blocks it: one request, one answer, one keep-alive
//! connection. When to send, what to do with a failure and what is settled is decided elsewhere, by delivery; the shared
//! word is [`Outcome`]. Nothing here retries, follows a redirect, uses a proxy, or reads more of a reply than its cap.
//!
//! Adding a protocol is a file, a variant of [`Exporter`] and of `config::Backend`.

mod compress;
mod http;
mod influx;
mod otlp_http;
#[cfg(feature = "plugins")]
pub mod plugin;
pub mod reply;
mod resolver;
mod sessions;

#[cfg(test)]
mod tests;

use crate::block::{Outcome, Signal};
use crate::config::{Backend, Compression};

/// One request to a backend: payloads of whole blocks (or cut ones) of one signal.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The signal of all payloads.
    pub signal: Signal,
    /// OTLP protobuf bytes; concatenated they are one export request.
    pub payloads: &'a [&'a [u8]],
    /// Send without compression although the destination is configured with one.
    pub uncompressed: bool,
    /// The wall clock, Unix nanoseconds: for a `Retry-After` that is a date in a reply that has none of its own.
    pub wall_ns: u64,
    /// [`crate::sys::sigbus::faults`] when the payloads were last known to be sound. A send in which it has moved on is broken
    /// off, for the bytes may be those of a file that was cut off.
    pub faults: u64,
}

impl Request<'_> {
    /// How this one is compressed, to a destination with this setting.
    fn compression(&self, configured: Compression) -> Compression {
        if self.uncompressed { Compression::None } else { configured }
    }
}

/// Why an exporter cannot be made: a fault of the configuration, found at start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL of the destination cannot be used.
    #[error("the url cannot be used: {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// A header's name or value is not allowed in HTTP.
    #[error("the header `{name}` is not a valid HTTP header")]
    Header {
        /// The header's name; its value may be a secret.
        name: String,
    },
    /// The certificate authority file cannot be used.
    #[error("the certificate authority file {} cannot be used: {reason}", path.display())]
    CaFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The plugin that writes the format cannot be used.
    #[error("{reason}")]
    Plugin {
        /// Why not, with the file.
        reason: String,
    },
    /// The thread that resolves the host name cannot be started.
    #[error("cannot start the resolver's thread: {0}")]
    Thread(std::io::Error),
}

/// How one sender of a destination reaches its backend.
#[derive(Debug)]
pub enum Exporter {
    /// OTLP/HTTP, protobuf or JSON.
    OtlpHttp(otlp_http::OtlpHttp),
    /// The session map, InfluxDB line protocol.
    Influx(influx::Influx),
    /// What a plugin writes, over HTTP.
    #[cfg(feature = "plugins")]
    Plugin(Box<plugin::Plugin>),
}

impl Exporter {
    /// The first sender of a destination. Reads the certificate authority file and starts to resolve the host name, but
    /// connects only when something is sent.
    pub fn open(backend: &Backend) -> Result<Exporter, SetupError> {
        match backend {
            Backend::OtlpHttp(settings) => otlp_http::OtlpHttp::open(settings).map(Exporter::OtlpHttp),
            Backend::Influx(settings) => influx::Influx::open(settings).map(Exporter::Influx),
            #[cfg(feature = "plugins")]
            Backend::Plugin(settings) => plugin::Plugin::open(settings).map(Box::new).map(Exporter::Plugin),
            #[cfg(not(feature = "plugins"))]
            Backend::Plugin(_) => {
                Err(SetupError::Plugin { reason: "this build of millrace has no plugins".to_owned() })
            }
        }
    }

    /// A further sender of the same destination: a connection of its own, the rest shared.
    #[must_use]
    pub fn another(&self) -> Exporter {
        match self {
            Exporter::OtlpHttp(exporter) => Exporter::OtlpHttp(exporter.another()),
            Exporter::Influx(exporter) => Exporter::Influx(exporter.another()),
            #[cfg(feature = "plugins")]
            Exporter::Plugin(exporter) => Exporter::Plugin(Box::new(exporter.another())),
        }
    }

    /// Whether the backend has a place for this signal. Blocks of others are not sent: their outcome is
    /// [`Outcome::NothingToSend`].
    #[must_use]
    pub fn accepts(&self, signal: Signal) -> bool {
        match self {
            Exporter::OtlpHttp(exporter) => exporter.accepts(signal),
            Exporter::Influx(_) => signal == Signal::Traces,
            #[cfg(feature = "plugins")]
            Exporter::Plugin(exporter) => exporter.accepts(signal),
        }
    }

    /// Whether only what came from uberAgent concerns the backend: payloads of other sources are left out of requests,
    /// and a request without payloads is [`Outcome::NothingToSend`].
    #[must_use]
    pub fn wants_uberagent_only(&self) -> bool {
        matches!(self, Exporter::Influx(_))
    }

    /// What is counted of the plugin that writes its format, if one does.
    #[cfg(feature = "plugins")]
    #[must_use]
    pub fn counters(&self) -> Option<std::sync::Arc<crate::plugin::counters::Counters>> {
        match self {
            Exporter::Plugin(exporter) => Some(exporter.counters()),
            Exporter::OtlpHttp(_) | Exporter::Influx(_) => None,
        }
    }

    /// Says in the log that the plugin that writes its format is live, if one does.
    pub fn announce(&self) {
        match self {
            Exporter::OtlpHttp(_) | Exporter::Influx(_) => {}
            #[cfg(feature = "plugins")]
            Exporter::Plugin(exporter) => exporter.announce(),
        }
    }

    /// Sends one request and blocks until its answer, at most for the configured timeout.
    pub fn send(&mut self, request: &Request<'_>) -> Outcome {
        match self {
            Exporter::OtlpHttp(exporter) => exporter.send(request),
            Exporter::Influx(exporter) => exporter.send(request),
            #[cfg(feature = "plugins")]
            Exporter::Plugin(exporter) => exporter.send(request),
        }
    }
}
