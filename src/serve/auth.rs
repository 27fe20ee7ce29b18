//! Who may ask the management port for more than `/metrics` and health: a peer of this host, or somebody with a token.
//!
//! A peer on loopback needs no token, for it can read the files of the service as well as we can; but browsers run on this
//! host too, and proxies. So without a token the `Host` must be a name of this host (a page whose own name was led to
//! 127.0.0.1 has another one) and the request must not have been passed on, as far as that can be seen: where a proxy says
//! nothing of it, `management.trust_loopback: false` asks everybody for a token. Whoever asks, a page of another origin is
//! refused. A token that is wrong is refused from everywhere.
//!
//! Tokens come from a file, one or two lines: two, so that they can be changed without a moment in which neither the old
//! nor the new one is taken. Only their SHA-256 is kept; all are compared, in a time that does not depend on what was sent.
//! Peer and headers are arguments; nothing here reads sockets or clocks.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// Tokens that a file may hold: the present one and the next.
pub const MAX_TOKENS: usize = 2;

/// A shorter token can be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;

/// Bytes of a token file.
const MAX_FILE_BYTES: u64 = 4096;

/// Headers of a request that a proxy has passed on: who really asks is not the peer.
const PASSED_ON: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Where the page stands that asks, as a browser says it.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where a request came from; the server puts it into every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("token file {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds something else than one or two tokens.
    #[error("token file {path}: {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong; no token is in it.
        what: String,
    },
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Whoever has one of these.
    pub tokens: Tokens,
    /// Peers of this host without a token.
    pub loopback: bool,
}

/// The SHA-256 of each token that is taken.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<[u8; SHA256_OUTPUT_LEN]>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

impl Tokens {
    /// Reads a token file: a token a line, blank lines left out. With the tokens comes a warning when every user of this
    /// host may read the file.
    pub fn read(path: &Path) -> Result<(Tokens, Option<String>), TokenFileError> {
        let failed = |source| TokenFileError::Read { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text)).map_err(failed)?;
        let tokens = Tokens::parse(&text).map_err(|what| TokenFileError::Content { path: path.to_owned(), what })?;
        let warning = (mode & 0o004 != 0)
            .then(|| format!("token file {}: every user of this host may read it; chmod o-r", path.display()));
        Ok((tokens, warning))
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        let mut tokens = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.len() < MIN_TOKEN_BYTES || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
                let number = tokens.len() + 1;
                return Err(format!("token {number} is not {MIN_TOKEN_BYTES} or more printable characters"));
            }
            tokens.push(hash(line));
        }
        match tokens.len() {
            1..=MAX_TOKENS => Ok(Tokens(tokens)),
            count => Err(format!("{count} tokens, not one or two, a line each")),
        }
    }

    /// Whether `token` is one of these.
    fn has(&self, token: &str) -> bool {
        let offered = hash(token);
        let mut found = false;
        for known in &self.0 {
            let differ = known.iter().zip(&offered).fold(0, |differ, (one, other)| differ | (one ^ other));
            found |= differ == 0;
        }
        found
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The peer is not on this host, and there is no token.
    NoToken,
    /// The token is none of ours.
    WrongToken,
    /// The name under which a local peer has reached us is not this host's.
    ForeignHost,
    /// A page of another origin asks.
    ForeignOrigin,
}

impl Refused {
    fn status(self) -> StatusCode {
        match self {
            Refused::NoToken | Refused::WrongToken => StatusCode::UNAUTHORIZED,
            Refused::ForeignHost | Refused::ForeignOrigin => StatusCode::FORBIDDEN,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Refused::NoToken => {
                "ask with a token of management.token_file (Authorization: Bearer ...), or from this host if \
                 management.trust_loopback allows it"
            }
            Refused::WrongToken => "the token is none of management.token_file",
            Refused::ForeignHost => "without a token only under a name of this host: localhost, 127.0.0.1 or [::1]",
            Refused::ForeignOrigin => "a page of another origin may not ask",
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut answer = super::failure(self.status(), self.message());
        if self.status() == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// Stands before every guarded route. Cheap to clone; all clones take the same tokens.
#[derive(Clone, Debug)]
pub struct Guard {
    bound: IpAddr,
    trust: Arc<RwLock<Trust>>,
}

impl Guard {
    /// A guard for a port bound to `bound`.
    #[must_use]
    pub fn new(bound: IpAddr, trust: Trust) -> Guard {
        Guard { bound, trust: Arc::new(RwLock::new(trust)) }
    }

    /// Whether other tokens than now would be taken.
    #[must_use]
    pub fn has_other_tokens(&self, trust: &Trust) -> bool {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).tokens != trust.tokens
    }

    /// Lets these in from now on, and no others.
    pub fn replace(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
    }

    /// Decides about a request of `peer`.
    pub fn admit(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(header::HOST).unwrap_or_default();
        if let Some(origin) = text(header::ORIGIN)
            && !is_own(origin, host)
        {
            return Err(Refused::ForeignOrigin);
        }
        // Browsers say it of requests without an Origin too, such as those of an image (Fetch Metadata).
        if text(SITE).is_some_and(|site| !["same-origin", "none"].contains(&site)) {
            return Err(Refused::ForeignOrigin);
        }
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(authorization) = text(header::AUTHORIZATION) {
            let token = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            return match token {
                Some((_, token)) if trust.tokens.has(token.trim()) => Ok(()),
                _ => Err(Refused::WrongToken),
            };
        }
        let is_local = peer.to_canonical().is_loopback() && !PASSED_ON.iter().any(|name| headers.contains_key(*name));
        if !(trust.loopback && is_local) {
            return Err(Refused::NoToken);
        }
        if self.is_name_of_this_host(host) { Ok(()) } else { Err(Refused::ForeignHost) }
    }

    fn is_name_of_this_host(&self, host: &str) -> bool {
        let name = without_port(host);
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback() || (address == self.bound && !address.is_unspecified()))
    }
}

/// The middleware of guarded routes.
pub(super) async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Peer(peer) = request.extensions().get().copied().expect("the server says of every request where it came from");
    match guard.admit(peer.ip(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            tracing::debug!(%peer, path = request.uri().path(), ?refused, "the management port refused a request");
            refused.into_response()
        }
    }
}

/// Whether a page of `origin` came from the same host and port that it asks now.
fn is_own(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    !host.is_empty() && authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn hash(token: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let digest = digest(&SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("a SHA-256 has its length")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const OLD: &str = "old-token-0123456789";
    const NEW: &str = "new-token-0123456789";

    fn guard(tokens: &str) -> Guard {
        Guard::new("192.0.2.1".parse().unwrap(), trust(tokens))
    }

    fn trust(tokens: &str) -> Trust {
        Trust { tokens: Tokens::parse(tokens).unwrap_or_default(), loopback: true }
    }

    fn admit(guard: &Guard, peer: &str, headers: &[(&'static str, &str)]) -> Result<(), Refused> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        guard.admit(peer.parse().unwrap(), &map)
    }

    #[test]
    fn a_peer_of_this_host_needs_no_token_unless_a_page_or_a_proxy_asks_through_it() {
        let guard = guard(OLD);
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "192.0.2.1:8000"] {
            for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
                assert_eq!(admit(&guard, peer, &[("host", host)]), Ok(()), "{peer} asks {host}");
            }
            let origin = format!("http://{host}");
            assert_eq!(admit(&guard, "::1", &[("host", host), ("origin", &origin)]), Ok(()), "{origin}");
        }
        for host in
            ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "198.51.100.1", "", "0.0.0.0"]
        {
            assert_eq!(admit(&guard, "127.0.0.1", &[("host", host)]), Err(Refused::ForeignHost), "{host}");
        }
        assert_eq!(admit(&guard, "127.0.0.1", &[]), Err(Refused::ForeignHost));
        for origin in ["http://evil.example", "null", "http://localhost:3000", "file://localhost:8000", ""] {
            let headers = [("host", "localhost:8000"), ("origin", origin)];
            assert_eq!(admit(&guard, "127.0.0.1", &headers), Err(Refused::ForeignOrigin), "{origin}");
        }
        for (site, expected) in [
            ("none", Ok(())),
            ("same-origin", Ok(())),
            ("same-site", Err(Refused::ForeignOrigin)),
            ("cross-site", Err(Refused::ForeignOrigin)),
        ] {
            let headers = [("host", "localhost:8000"), ("sec-fetch-site", site)];
            assert_eq!(admit(&guard, "127.0.0.1", &headers), expected, "{site}");
        }
        for name in PASSED_ON {
            let headers = [("host", "localhost"), (name, "198.51.100.1")];
            assert_eq!(admit(&guard, "127.0.0.1", &headers), Err(Refused::NoToken), "{name}");
        }
    }

    #[test]
    fn others_need_one_of_the_tokens_and_a_wrong_one_is_refused_to_everybody() {
        let guard = guard(&format!("{OLD}\n\n{NEW}\n"));
        let bearer = |token: &str| format!("Bearer {token}");
        for token in [OLD, NEW] {
            let headers = [("host", "millrace.example"), ("authorization", &bearer(token))];
            assert_eq!(admit(&guard, "198.51.100.1", &headers), Ok(()));
            let from_a_page = [headers[0], headers[1], ("origin", "https://evil.example")];
            assert_eq!(admit(&guard, "198.51.100.1", &from_a_page), Err(Refused::ForeignOrigin));
        }
        assert_eq!(admit(&guard, "198.51.100.1", &[("host", "localhost")]), Err(Refused::NoToken));
        let wrong = [bearer(&OLD[1..]), bearer(""), format!("Basic {OLD}"), OLD.to_owned(), bearer(&format!("{OLD}x"))];
        for wrong in &wrong {
            for peer in ["198.51.100.1", "127.0.0.1"] {
                let headers = [("host", "localhost"), ("authorization", wrong)];
                assert_eq!(admit(&guard, peer, &headers), Err(Refused::WrongToken), "{wrong} of {peer}");
            }
        }
        assert!(guard.has_other_tokens(&trust(NEW)));
        guard.clone().replace(trust(NEW));
        assert!(!guard.has_other_tokens(&trust(NEW)));
        assert_eq!(admit(&guard, "::1", &[("authorization", &bearer(OLD))]), Err(Refused::WrongToken), "rotated out");
        assert_eq!(admit(&guard, "2001:db8::1", &[("authorization", &bearer(NEW))]), Ok(()));
    }

    #[test]
    fn a_host_that_is_not_trusted_needs_a_token_like_any_other() {
        let guard = guard(OLD);
        guard.replace(Trust { loopback: false, ..trust(OLD) });
        assert_eq!(admit(&guard, "127.0.0.1", &[("host", "localhost")]), Err(Refused::NoToken));
        let bearer = format!("Bearer {OLD}");
        assert_eq!(admit(&guard, "127.0.0.1", &[("host", "localhost"), ("authorization", &bearer)]), Ok(()));
    }

    #[test]
    fn a_token_file_holds_one_or_two_tokens_and_says_nothing_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let read = |text: &str, mode: u32| {
            File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Tokens::read(&path)
        };
        let (tokens, warning) = read(&format!("\n {OLD} \r\n{NEW}"), 0o640).unwrap();
        assert_eq!((tokens.0.len(), tokens.has(OLD), tokens.has(NEW), warning), (2, true, true, None));
        assert!(read(OLD, 0o644).unwrap().1.is_some_and(|warning| warning.contains("chmod o-r")));
        for text in ["", "\n", "short", &format!("{OLD} {NEW}"), &format!("{OLD}\n{NEW}\n{OLD}2")] {
            let error = read(text, 0o600).unwrap_err().to_string();
            assert!(error.contains("tokens") && !error.contains("0123456789"), "{error}");
        }
        assert!(matches!(Tokens::read(&directory.path().join("none")), Err(TokenFileError::Read { .. })));
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }
}
