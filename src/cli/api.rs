//! A running appliance, asked over its management port: which one, with which token, and one request.
//!
//! The address is `--url`, else the management address of the configuration, on this host when that listens everywhere. On
//! this host no token is needed.

use std::fmt::Display;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::source::Source;

/// Longest wait for an answer: a replay of dead letters sends requests of its own.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Where the appliance is.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ApiArgs {
    /// Its management port, such as http://collector:8000; without it that of the configuration.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file whose first line is a token; needed from other hosts only [env: MILLRACE_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ApiArgs {
    /// The appliance was named on the command line.
    pub(super) fn names_one(&self) -> bool {
        self.url.is_some()
    }
}

/// The first token of a file; the error names the file.
fn read_token(path: &Path) -> io::Result<String> {
    let named = |kind, what: &dyn Display| io::Error::new(kind, format!("token file {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(error.kind(), &error))?;
    let token = text.lines().map(str::trim).find(|line| !line.is_empty());
    token.map(str::to_owned).ok_or_else(|| named(io::ErrorKind::InvalidData, &"there is no token in it"))
}

/// The way to a running appliance.
pub(super) struct Api {
    /// Its address, without a slash at the end.
    pub(super) url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Api {
    /// Finds the appliance; nothing is asked yet.
    pub(super) fn find(arguments: &ApiArgs, source: &Source) -> anyhow::Result<Api> {
        let (url, configured) = match &arguments.url {
            Some(url) => {
                (url.trim_end_matches('/').to_owned(), std::env::var_os("MILLRACE_TOKEN_FILE").map(PathBuf::from))
            }
            None => {
                let config = source.load()?.config;
                let mut address = config.management;
                match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                    IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                    _ => {}
                }
                (format!("http://{address}"), config.management_token_file)
            }
        };
        let token = match (&arguments.token_file, &configured) {
            (Some(path), _) => Some(read_token(path)?),
            // Whoever may not read the service's own file may still ask from this host, and is told so if not.
            (None, Some(path)) => match read_token(path) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
                read => Some(read?),
            },
            (None, None) => None,
        };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        Ok(Api { url, token, agent: agent.into() })
    }

    /// Asks for a page.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.authorized(self.agent.get(format!("{}{path}", self.url)));
        self.answer(request.call())
    }

    /// Asks for a page that goes on for as long as both sides like.
    pub(super) fn stream(&self, path: &str) -> anyhow::Result<impl Read + use<>> {
        let request = self.authorized(self.agent.get(format!("{}{path}", self.url)));
        match request.config().timeout_global(None).build().call() {
            Ok(response) if response.status().is_success() => Ok(response.into_body().into_reader()),
            refused => match self.answer(refused) {
                Ok(_) => bail!("{} answers something else than a stream", self.url),
                Err(error) => Err(error),
            },
        }
    }

    /// Asks for something to be done.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.url)));
        let request = request.header("content-type", "application/json");
        self.answer(request.send(body.to_string()))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn answer(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Value> {
        let mut response = response.map_err(|error| match error {
            ureq::Error::Timeout(timeout) if timeout != ureq::Timeout::Connect => anyhow!(
                "{} has not answered within {} s; what was asked for may still be under way",
                self.url,
                TIMEOUT.as_secs()
            ),
            error => {
                anyhow!("nobody answers at {}: {error}; is `millrace run` running there? (--url says where)", self.url)
            }
        })?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string()?;
        let answer = serde_json::from_str::<Value>(&text);
        if status.is_success() {
            return answer.with_context(|| format!("{} answers with something that is no JSON", self.url));
        }
        let said = answer.ok().and_then(|answer| Some(answer.get("error")?.as_str()?.to_owned()));
        bail!("{} answers {status}: {}", self.url, said.unwrap_or(text))
    }
}
