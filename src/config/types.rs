//! The checked types of the configuration: what every later stage is built from.
//!
//! One struct a component, units in the names, no raw text left: code that holds one of these does not check again.
//! Nothing here reads files or variables; that is the rest of this module.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that `run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept: `$STATE_DIRECTORY`, else `./millrace-data`.
    pub state_directory: PathBuf,
    /// Lanes; `None` is one a core of the affinity mask. `WORKER_COUNT`.
    pub lanes: Option<usize>,
    /// The receivers, in order; a receiver's index is its source id.
    pub receivers: Vec<Receiver>,
    /// How uberAgent's rows become spans.
    pub uberagent: Uberagent,
    /// The plugins, in the order in which they see a block.
    pub plugins: Vec<super::Plugin>,
    /// The log.
    pub queue: Queue,
    /// The destinations, in order.
    pub exporters: Vec<Exporter>,
    /// `/metrics`, health and later the API and dashboard. `METRICS_PORT`.
    pub management: SocketAddr,
    /// One or two tokens for the API on the management port, a line each; without it only this host may ask.
    /// `MILLRACE_TOKEN_FILE`.
    pub management_token_file: Option<PathBuf>,
    /// Whether peers of this host may ask without a token, unless a proxy or a page is seen to ask through them.
    pub management_trust_loopback: bool,
    /// What `/api/v1/tap` may show of what passes.
    pub management_tap: Tapping,
    /// Text or JSON log lines, and how many. `DEBUG_MODE`.
    pub log: LogOutput,
    /// How long exporters may go on after SIGTERM once everything received is durable.
    pub drain_timeout: Duration,
    /// Bytes that all pools together may take; `None` is by lanes, see [`budget`](super::budget::budget).
    pub memory_limit_bytes: Option<u64>,
}

/// What a tap on the lanes may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tapping {
    /// Nothing.
    Off,
    /// What is in the log: the plugins have been through it.
    Stored,
    /// Also what was received, with everything that the plugins remove.
    Received,
}

impl Tapping {
    /// As the configuration says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Tapping::Off => "off",
            Tapping::Stored => "stored",
            Tapping::Received => "received",
        }
    }
}

/// What happens to a sender when the log is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Slow the sender: stop reading, or answer "try again later".
    Block,
    /// Drop what comes, counted.
    DropNewest,
}

/// One configured receiver: a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its name in the configuration, a label of its metrics.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What a full log does to its senders.
    pub admission: Admission,
    /// What it speaks, with that protocol's settings.
    pub protocol: Protocol,
}

/// What a receiver speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// uberAgent rows as lines over TCP: JSON or Splunk CSV.
    UberagentTcp(TcpLimits),
    /// OTLP/HTTP.
    OtlpHttp(HttpLimits),
    /// Elasticsearch `_bulk`, as uberAgent itself sends.
    Elasticsearch(HttpLimits),
    /// Whatever a plugin reads, over TCP.
    Plugin(Box<PluginReceive>),
}

/// A receiver whose format is a plugin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginReceive {
    /// What reads it.
    pub plugin: super::Plugin,
    /// A connection of which the plugin uses nothing up for so many bytes is closed.
    pub max_record_bytes: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Open connections of one address outside loopback.
    pub max_connections_per_ip: usize,
    /// A connection that sends nothing for so long is closed.
    pub idle_timeout: Duration,
}

/// The bounds of a TCP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpLimits {
    /// A longer line is skipped to its end.
    pub max_line_bytes: usize,
    /// Open connections, over all lanes.
    pub max_connections: usize,
    /// Open connections of one address outside loopback and the trusted networks.
    pub max_connections_per_ip: usize,
    /// A connection that sends nothing for so long is closed.
    pub idle_timeout: Duration,
    /// An unfinished line older than this closes its connection.
    pub partial_line_timeout: Duration,
    /// Reading paused for so long closes connections and listener until there is room.
    pub pause_limit: Duration,
}

/// The bounds of an HTTP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a body as sent.
    pub max_body_bytes: usize,
    /// Bytes of a body after decompression.
    pub max_inflated_bytes: usize,
    /// Open connections, over all lanes.
    pub max_connections: usize,
    /// Open connections of one address outside loopback.
    pub max_connections_per_ip: usize,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Time for a request's body.
    pub body_timeout: Duration,
    /// A body that comes more slowly than so many bytes a second, after a grace of five seconds, is cut off.
    pub min_body_bytes_per_second: usize,
}

/// How uberAgent's rows become spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uberagent {
    /// Which rules.
    pub mapping: Mapping,
    /// What becomes of sourcetypes that make no span.
    pub other_sourcetypes: OtherSourcetypes,
}

/// The two mappings of rows to spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// One tree a session: unique ids, a synthesised root, conventions' names.
    Session,
    /// ProxyTrace's rules bit for bit, with its bugs mended.
    Original,
}

/// What becomes of sourcetypes that make no span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherSourcetypes {
    /// Counted as filtered.
    Filter,
    /// Passed on as OTLP log records.
    Logs,
}

/// When a sender is told yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckPolicy {
    /// After the sync that covers the data.
    Durable,
    /// After the append: survives a kill, not a power cut.
    Appended,
}

/// How segments are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// Memory mappings.
    Mmap,
    /// `pread` and `pwrite`.
    File,
}

/// How blocks are compressed in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockCompression {
    /// As they are.
    #[default]
    None,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd {
        /// -7 (fastest) to 19 (smallest).
        level: i32,
    },
}

/// What becomes of segments whose key is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// Destinations wait in front of them, until the key is back.
    #[default]
    Hold,
    /// Destinations pass them over; their spans count as lost.
    Skip,
}

/// Encryption of the log at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// The file with the keys: the first writes, all read. `None` for a credential outside the unit that it is handed to:
    /// whoever does not open the log can do without.
    pub key_file: Option<PathBuf>,
    /// What becomes of segments whose key is not in it.
    pub missing_key: MissingKey,
}

/// The log of every lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// When senders are told yes.
    pub ack: AckPolicy,
    /// How segments are read and written.
    pub storage: StorageKind,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Segments a lane keeps preallocated and recycles.
    pub pool_segments: usize,
    /// Bytes on disk over all lanes, pool included.
    pub max_bytes: u64,
    /// Bytes that stay free on the file system.
    pub reserve_bytes: u64,
    /// How long blocks are kept when there is no destination.
    pub retain: Duration,
    /// Spans that may wait in memory between decode and log. `QUEUE_MAXSIZE`.
    pub max_spans_in_memory: usize,
    /// Time between syncs when nobody waits.
    pub sync_interval: Duration,
    /// Unsynced bytes at which a sync starts.
    pub sync_bytes: u64,
    /// How blocks are compressed.
    pub compression: BlockCompression,
    /// Encryption at rest; `None` is none.
    pub encryption: Option<Encryption>,
    /// Keep the log on a file system of another machine, whatever its promises are worth.
    pub allow_remote: bool,
}

/// Whether a destination may hold senders up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A full log waits for it.
    Required,
    /// Its cursor jumps when it lags by more than this; the spans are counted as dropped.
    Optional {
        /// Bytes of the log that it may lag behind.
        max_lag_bytes: u64,
    },
}

/// Where a destination that was never seen before starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With what is still in the log.
    Oldest,
    /// With what comes from now on.
    Tail,
}

/// One configured destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Its name in the configuration: its cursor's directory and its metrics' label.
    pub name: String,
    /// Whether it may hold senders up.
    pub requirement: Requirement,
    /// Where it starts when new.
    pub start_at: StartAt,
    /// When and how much is sent at once.
    pub batch: Batch,
    /// How failures are met.
    pub retry: Retry,
    /// What it speaks, with that protocol's settings.
    pub backend: Backend,
}

/// What a destination speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// OTLP/HTTP.
    OtlpHttp(OtlpHttp),
    /// The session map in InfluxDB line protocol.
    Influx(Influx),
    /// What a plugin writes, over HTTP.
    Plugin(Box<PluginExport>),
}

impl Backend {
    /// How it is reached.
    #[must_use]
    pub fn http(&self) -> &HttpClient {
        match self {
            Backend::OtlpHttp(otlp) => &otlp.http,
            Backend::Influx(influx) => &influx.http,
            Backend::Plugin(plugin) => &plugin.http,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Backend::OtlpHttp(otlp) => &otlp.traces_url,
            Backend::Influx(influx) => &influx.url,
            Backend::Plugin(plugin) => &plugin.url,
        }
    }
}

/// A destination whose format is a plugin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginExport {
    /// Where messages are posted to.
    pub url: String,
    /// What writes them.
    pub plugin: super::Plugin,
    /// The client.
    pub http: HttpClient,
}

/// When a waiting batch is sent, and how much a request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Spans at which a waiting batch is sent. `BATCH_SIZE`.
    pub send_spans: usize,
    /// Longest wait of a batch. `BATCH_TIMEOUT`, seconds.
    pub timeout: Duration,
    /// A hard cap of spans a request, cut at span boundaries: only when `BATCH_SIZE` was set explicitly.
    pub max_spans: Option<usize>,
    /// A request's payload bytes are at most this.
    pub max_request_bytes: usize,
}

/// How failures are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// First back-off.
    pub initial: Duration,
    /// Longest back-off.
    pub max: Duration,
    /// Requests in flight at most.
    pub max_concurrency: usize,
}

/// Body compression of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// The OTLP encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// What every HTTP destination has.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpClient {
    /// Headers of each request; values may be secrets and are never shown.
    pub headers: Vec<(String, String)>,
    /// A certificate authority file in PEM, instead of the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// Body compression.
    pub compression: Compression,
    /// Whole request, connect to last byte of the answer.
    pub timeout: Duration,
    /// Connecting alone.
    pub connect_timeout: Duration,
}

/// An OTLP/HTTP destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpHttp {
    /// The full URL, `/v1/traces` included. `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub traces_url: String,
    /// Protobuf or JSON.
    pub encoding: Encoding,
    /// The client.
    pub http: HttpClient,
}

/// Which write path of InfluxDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InfluxWrite {
    /// `POST /write?db=`.
    V1 {
        /// Database.
        database: String,
    },
    /// `POST /api/v2/write?org=&bucket=`.
    V2 {
        /// Organisation. `INFLUX_ORG`.
        org: String,
        /// Bucket. `INFLUX_BUCKET`.
        bucket: String,
    },
}

/// How the session map is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfluxSchema {
    /// ProxyTrace's lines: guid and trace id as tags.
    Tags,
    /// The host as tag, guid and trace id as string fields: no series a session.
    Fields,
}

/// The InfluxDB destination.
#[derive(Clone, PartialEq, Eq)]
pub struct Influx {
    /// The server. `INFLUX_URL`.
    pub url: String,
    /// The token, never shown. `INFLUX_TOKEN`.
    pub token: Option<String>,
    /// Which write path.
    pub write: InfluxWrite,
    /// How the map is written.
    pub schema: InfluxSchema,
    /// The client.
    pub http: HttpClient,
}

/// Log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOutput {
    /// JSON instead of text.
    pub json: bool,
    /// Debug lines too. `DEBUG_MODE`.
    pub debug: bool,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("HttpClient")
            .field("headers", &names)
            .field("ca_file", &self.ca_file)
            .field("compression", &self.compression)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

impl std::fmt::Debug for Influx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Influx")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("write", &self.write)
            .field("schema", &self.schema)
            .field("http", &self.http)
            .finish()
    }
}
