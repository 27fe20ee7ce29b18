//! Where a configuration comes from: the flags that every command with a configuration takes, and reading it.
//!
//! The file is `--config`, else `$CONFIGURATION_DIRECTORY/millrace.yaml` when there is one (systemd sets the variable),
//! else none. This is the edge at which files, variables and name servers are asked; the reading itself is pure.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;

use crate::config::{self, File, Host, Inputs, Loaded};

/// Bytes of a configuration file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How long a name server is waited for: only the check for loops needs it.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The command line or the configuration cannot be used; the message is complete. Ends the process with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(pub(super) String);

/// A configuration's file and flags.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Source {
    /// The configuration file, in YAML.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Export where ProxyTrace exports by default: http://jaeger:4318/v1/traces and http://victoriametrics:8428.
    #[arg(long)]
    proxytrace: bool,
    /// Where uberAgent's TCP receiver listens [env: LISTEN_HOST] [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    listen_host: Option<String>,
    /// Its port [env: LISTEN_PORT] [default: 5000]
    #[arg(long, value_name = "PORT")]
    listen_port: Option<String>,
    /// The port of /metrics and health [env: METRICS_PORT] [default: 8000]
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<String>,
    /// Export spans to this OTLP/HTTP endpoint [env: OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Write the session map to this InfluxDB or VictoriaMetrics [env: INFLUX_URL]
    #[arg(long, value_name = "URL")]
    influx_url: Option<String>,
    /// Its organisation [env: INFLUX_ORG]
    #[arg(long, value_name = "NAME")]
    influx_org: Option<String>,
    /// Its bucket [env: INFLUX_BUCKET] [default: traces]
    #[arg(long, value_name = "NAME")]
    influx_bucket: Option<String>,
    /// Lanes, each a pinned core [env: WORKER_COUNT] [default: one a core]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Spans of a batch at most [env: BATCH_SIZE] [default: sent at 200, no cap]
    #[arg(long, value_name = "SPANS")]
    batch_size: Option<String>,
    /// Longest wait of a batch [env: BATCH_TIMEOUT] [default: 0.2]
    #[arg(long, value_name = "SECONDS")]
    batch_timeout: Option<String>,
    /// Spans that may wait in memory on their way to the log [env: QUEUE_MAXSIZE] [default: 10000]
    #[arg(long, value_name = "SPANS")]
    queue_maxsize: Option<String>,
    /// Where the log is kept [env: STATE_DIRECTORY] [default: ./millrace-data]
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: Option<String>,
    /// Log verbosely [env: DEBUG_MODE]
    #[arg(long, value_name = "SWITCH", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    debug: Option<String>,
}

impl Source {
    /// The configuration of a file, without flags.
    pub(super) fn of_file(config: Option<PathBuf>) -> Source {
        Source { config, ..Source::default() }
    }

    /// Reads the configuration; warnings are for the caller to show.
    pub(super) fn load(&self) -> anyhow::Result<Loaded> {
        let environment = |name: &str| std::env::var(name).ok();
        let file = match self.file(&environment) {
            Some(path) => Some((path.display().to_string(), read(&path)?)),
            None => None,
        };
        let inputs = Inputs {
            file: file.as_ref().map(|(name, text)| File { name, text }),
            environment: &environment,
            flags: &self.flags(),
            proxytrace: self.proxytrace,
            host: Host { resolve: &resolve, is_local: &is_local },
        };
        Ok(config::load(&inputs).map_err(|error| Unusable(format!("the configuration cannot be used\n{error}")))?)
    }

    fn file(&self, environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        self.config.clone().or_else(|| {
            let directories = environment("CONFIGURATION_DIRECTORY")?;
            let path = Path::new(directories.split(':').next()?).join("millrace.yaml");
            path.exists().then_some(path)
        })
    }

    fn flags(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("listen-host", &self.listen_host),
            ("listen-port", &self.listen_port),
            ("metrics-port", &self.metrics_port),
            ("otlp-endpoint", &self.otlp_endpoint),
            ("influx-url", &self.influx_url),
            ("influx-org", &self.influx_org),
            ("influx-bucket", &self.influx_bucket),
            ("workers", &self.workers),
            ("batch-size", &self.batch_size),
            ("batch-timeout", &self.batch_timeout),
            ("queue-maxsize", &self.queue_maxsize),
            ("state-directory", &self.state_directory),
            ("debug", &self.debug),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

fn read(path: &Path) -> Result<String, Unusable> {
    let failed = |error: std::io::Error| Unusable(format!("{}: {error}", path.display()));
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE_BYTES {
        return Err(Unusable(format!("{}: {length} bytes, more than {MAX_FILE_BYTES}", path.display())));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The addresses of a name. The resolver of the C library has no deadline, so it is asked on a thread that is left alone
/// when it takes too long.
fn resolve(name: &str) -> Vec<IpAddr> {
    let (tx, rx) = mpsc::channel();
    let name = name.to_owned();
    std::thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().map(|all| all.map(|address| address.ip()).collect());
        // Nobody listens any more after the deadline.
        tx.send(found.unwrap_or_default()).ok();
    });
    rx.recv_timeout(RESOLVE_TIMEOUT).unwrap_or_default()
}

/// An address is this host's when a socket can be bound to it.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_one_named_else_the_one_of_the_service_else_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        let environment = |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| path.clone());
        let source = Source::default();
        assert_eq!(source.file(&environment), None);
        let file = directory.path().join("millrace.yaml");
        std::fs::write(&file, "").unwrap();
        assert_eq!(source.file(&environment), Some(file));
        let named = Source { config: Some("other.yaml".into()), ..Source::default() };
        assert_eq!(named.file(&environment), Some("other.yaml".into()));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_configuration_error() {
        let source = Source { config: Some("/nowhere/millrace.yaml".into()), ..Source::default() };
        assert!(source.load().unwrap_err().is::<Unusable>());
    }

    #[test]
    fn the_addresses_of_this_host_are_told_from_others() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        // Documentation's own network (RFC 5737) belongs to nobody.
        assert!(!is_local("192.0.2.1".parse().unwrap()));
        assert!(resolve("localhost").iter().any(IpAddr::is_loopback));
    }
}
