//! One HTTP POST: the client that all HTTP exporters share.
//!
//! ureq with our resolver, one connection kept alive, every timeout set, no redirects (they would carry credentials and
//! data to wherever a peer points), no proxy from the environment. The body goes out from its slices with a
//! `Content-Length`, so blocks are never copied together; a reply is read up to its cap and no further. Errors that have
//! no HTTP status become outcomes here; a status becomes one in `reply`.

use std::io::{self, Read};
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, SendBody};

use super::SetupError;
use super::compress::compress;
use super::resolver::HostResolver;
use crate::block::Outcome;
use crate::config::{Compression, HttpClient};
use crate::sys::sigbus;

/// A reply to a yes is read up to here.
const SUCCESS_REPLY_BYTES: u64 = 64 * 1024;
/// A reply to a no is read up to here.
const ERROR_REPLY_BYTES: u64 = 8 * 1024;
/// Headers of a reply.
const REPLY_HEADER_BYTES: usize = 16 * 1024;
const REPLY_BUFFER_BYTES: usize = 16 * 1024;
/// One `write` a buffer: large enough for a request of 512 spans, small enough to stay in the cache.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// A client with one connection.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    resolver: HostResolver,
    tls: bool,
}

/// What came back, as far as it was read.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// A client for the host of `url`.
    pub(super) fn open(url: &Uri, settings: &HttpClient) -> Result<Http, SetupError> {
        let refuse = |reason: &str| SetupError::Url { reason: reason.to_owned() };
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse("it begins neither with http:// nor with https://")),
        };
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(|| refuse("it names no host"))?;
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let resolver = HostResolver::start(host, port)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("")
            .timeout_global(Some(settings.timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_resolve(Some(settings.connect_timeout))
            .max_response_header_size(REPLY_HEADER_BYTES)
            .input_buffer_size(REPLY_BUFFER_BYTES)
            .output_buffer_size(SEND_BUFFER_BYTES)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(Duration::from_secs(60))
            .tls_config(TlsConfig::builder().root_certs(root_certs(settings)?).build())
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver.clone());
        Ok(Http { agent, resolver, tls })
    }

    /// A client for the same host with a connection of its own.
    pub(super) fn another(&self) -> Http {
        let config = self.agent.config().clone();
        let agent = Agent::with_parts(config, DefaultConnector::default(), self.resolver.clone());
        Http { agent, resolver: self.resolver.clone(), tls: self.tls }
    }

    /// As [`Http::post`], with the body compressed into `packed` where there is a way to.
    pub(super) fn post_compressed(
        &self,
        (url, headers): (&Uri, &HeaderMap),
        body: &[&[u8]],
        (how, packed): (Compression, &mut Vec<u8>),
        faults: u64,
    ) -> Result<Reply, Outcome> {
        let Some(encoding) = compress(how, body, packed) else { return self.post(url, headers, body, faults) };
        let mut headers = headers.clone();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        self.post(url, &headers, &[packed], faults)
    }

    /// Posts `body`, made while `faults` pages of mapped files had gone. An error is an outcome already; a reply still has to
    /// be understood.
    fn post(&self, url: &Uri, headers: &HeaderMap, body: &[&[u8]], faults: u64) -> Result<Reply, Outcome> {
        let mut reader = SliceReader::new(body, faults);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(reader.left));
        let request = request.map(|()| SendBody::from_reader(&mut reader));
        match self.agent.run(request) {
            Ok(response) => Ok(read_reply(response)),
            Err(error) => {
                let sent_whole = reader.left == 0;
                Err(self.outcome_of(&error, sent_whole))
            }
        }
    }

    fn outcome_of(&self, error: &ureq::Error, sent_whole: bool) -> Outcome {
        let message = format!("no answer: {error}");
        match error {
            // rustls reports a refused certificate or an alert as invalid data; a peer that goes away is another kind.
            ureq::Error::Io(io) if self.tls && io.kind() == io::ErrorKind::InvalidData => {
                Outcome::Misconfigured { message: format!("no TLS connection: {io}") }
            }
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::TlsRequired => {
                Outcome::Misconfigured { message: format!("no TLS connection: {error}") }
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Outcome::Misconfigured { message },
            _ => {
                self.resolver.refresh();
                Outcome::Unavailable { retry_after: None, answer_lost: sent_whole, message }
            }
        }
    }
}

/// Parses a URL that the configuration gave.
pub(super) fn parse_url(url: &str) -> Result<Uri, SetupError> {
    url.parse().map_err(|error: ureq::http::uri::InvalidUri| SetupError::Url { reason: error.to_string() })
}

/// The configured headers. Their values are marked as secrets, so that no debug output shows them.
pub(super) fn parse_headers(settings: &HttpClient) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let refuse = || SetupError::Header { name: name.clone() };
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| refuse())?;
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    Ok(headers)
}

fn root_certs(settings: &HttpClient) -> Result<RootCerts, SetupError> {
    let Some(path) = &settings.ca_file else { return Ok(RootCerts::WebPki) };
    let refuse = |reason: String| SetupError::CaFile { path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| refuse(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(refuse("it holds no certificate in PEM".to_owned()));
    }
    Ok(RootCerts::Specific(certificates.into()))
}

/// Reads a reply up to its cap. Its status has been seen, so a body that ends early or never changes nothing but what can
/// be said of it; a connection with unread bytes is not used again.
fn read_reply(response: ureq::http::Response<ureq::Body>) -> Reply {
    let (parts, mut body) = response.into_parts();
    let status = parts.status.as_u16();
    let cap = if parts.status.is_success() { SUCCESS_REPLY_BYTES } else { ERROR_REPLY_BYTES };
    let mut bytes = Vec::new();
    // One byte more than the cap tells a reply that ends there from one that goes on; reading to the end is also what
    // hands the connection back. What was read before an error stays in `bytes`.
    let read = body.as_reader().take(cap + 1).read_to_end(&mut bytes);
    if read.is_err() || bytes.len() as u64 > cap {
        bytes.truncate(usize::try_from(cap).expect("a small constant"));
    }
    Reply { status, headers: parts.headers, body: bytes }
}

/// Reads several slices as one stream; a read fills the whole buffer it is given, across slices, because every read of
/// ureq becomes one `write` to the socket. It fails as soon as a page of a mapped file has gone: what was read before may be
/// zeros, and a body that ends early is taken by nobody.
#[derive(Debug)]
struct SliceReader<'a> {
    slices: &'a [&'a [u8]],
    offset: usize,
    left: usize,
    faults: u64,
}

impl<'a> SliceReader<'a> {
    fn new(slices: &'a [&'a [u8]], faults: u64) -> SliceReader<'a> {
        SliceReader { slices, offset: 0, left: slices.iter().map(|slice| slice.len()).sum(), faults }
    }
}

impl Read for SliceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some((slice, rest)) = self.slices.split_first() {
            let source = &slice[self.offset..];
            let bytes = source.len().min(buffer.len() - filled);
            buffer[filled..filled + bytes].copy_from_slice(&source[..bytes]);
            filled += bytes;
            if bytes < source.len() {
                self.offset += bytes;
                break;
            }
            (self.slices, self.offset) = (rest, 0);
        }
        if sigbus::has_faulted_since(self.faults) {
            return Err(io::Error::other("a page of the log has gone while it was sent"));
        }
        self.left -= filled;
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_read_as_one_stream_whatever_the_buffer() {
        let slices: [&[u8]; 5] = [b"", b"abc", b"", b"defgh", b"i"];
        for size in 1..12 {
            let mut reader = SliceReader::new(&slices, sigbus::faults());
            let (mut all, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                let bytes = reader.read(&mut buffer).unwrap();
                if bytes == 0 {
                    break;
                }
                assert!(bytes == size || reader.left == 0, "a read in the middle fills its buffer");
                all.extend_from_slice(&buffer[..bytes]);
            }
            assert_eq!(all, b"abcdefghi");
            assert_eq!(reader.left, 0);
        }
    }
}
