//! OTLP/HTTP: the payloads of the log are the body of the request, byte for byte.
//!
//! Protobuf without compression goes out from the blocks themselves; compression and JSON go through a buffer that is kept
//! from request to request. A yes may carry `partial_success`: counted, shown, and by the protocol never sent again. A
//! yes with a body that is no answer is still a yes, but for a web page: that is a web server, not a receiver of traces,
//! and believing it would throw the stream away.

use ureq::http::{HeaderMap, HeaderValue, Uri, header};

use super::http::{Http, Reply, parse_headers, parse_url};
use super::reply::{NotAReply, Sent, partial_success, partial_success_json};
use super::{Request, SetupError};
use crate::block::{Outcome, Signal};
use crate::config::{self, Compression, Encoding};
use crate::otlp::json;

/// The path that the protocol gives to traces; the other signals' URLs are derived where the configured one ends so.
const TRACES_PATH: &str = "/v1/traces";
const LOGS_PATH: &str = "/v1/logs";

/// One sender of an OTLP/HTTP destination.
#[derive(Debug)]
pub struct OtlpHttp {
    http: Http,
    traces: Uri,
    logs: Option<Uri>,
    headers: HeaderMap,
    encoding: Encoding,
    compression: Compression,
    json: Vec<u8>,
    packed: Vec<u8>,
}

impl OtlpHttp {
    pub(super) fn open(settings: &config::OtlpHttp) -> Result<OtlpHttp, SetupError> {
        let traces = parse_url(&settings.traces_url)?;
        let logs = settings.traces_url.strip_suffix(TRACES_PATH).map(|base| parse_url(&format!("{base}{LOGS_PATH}")));
        let mut headers = parse_headers(&settings.http)?;
        let content_type = match settings.encoding {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(OtlpHttp {
            http: Http::open(&traces, &settings.http)?,
            traces,
            logs: logs.transpose()?,
            headers,
            encoding: settings.encoding,
            compression: settings.http.compression,
            json: Vec::new(),
            packed: Vec::new(),
        })
    }

    pub(super) fn another(&self) -> OtlpHttp {
        OtlpHttp {
            http: self.http.another(),
            traces: self.traces.clone(),
            logs: self.logs.clone(),
            headers: self.headers.clone(),
            json: Vec::new(),
            packed: Vec::new(),
            ..*self
        }
    }

    pub(super) fn accepts(&self, signal: Signal) -> bool {
        self.url(signal).is_some() && (self.encoding == Encoding::Protobuf || json::knows(signal))
    }

    pub(super) fn send(&mut self, request: &Request<'_>) -> Outcome {
        let payload_bytes: usize = request.payloads.iter().map(|payload| payload.len()).sum();
        if payload_bytes == 0 {
            return Outcome::NothingToSend;
        }
        let Some(url) = self.url(request.signal).cloned() else {
            return Outcome::Misconfigured { message: format!("there is no url for {:?}", request.signal) };
        };
        self.json.clear();
        let json;
        let plain = match self.encoding {
            Encoding::Protobuf => request.payloads,
            Encoding::Json => {
                json::encode(request.signal, request.payloads, &mut self.json);
                json = [self.json.as_slice()];
                &json
            }
        };
        let compression = request.compression(self.compression);
        let (to, packing) = ((&url, &self.headers), (compression, &mut self.packed));
        let answer = self.http.post_compressed(to, plain, packing, request.faults);
        let compressed = compression != Compression::None;
        let sent = Sent { payload_bytes, compressed, wall_ns: request.wall_ns };
        answer.map_or_else(|failure| failure, |reply| meaning(&reply, sent))
    }

    fn url(&self, signal: Signal) -> Option<&Uri> {
        match signal {
            Signal::Traces => Some(&self.traces),
            Signal::Logs => self.logs.as_ref(),
            Signal::Metrics => None,
        }
    }
}

fn meaning(reply: &Reply, sent: Sent) -> Outcome {
    if let Some(refusal) = reply.refusal(sent) {
        return refusal;
    }
    if reply.is_of_type("html") {
        return Outcome::Misconfigured { message: format!("{}, a web page and no receiver of traces", reply.status) };
    }
    let partial = if reply.body.is_empty() {
        Ok(None)
    } else if reply.is_of_type("json") {
        partial_success_json(&reply.body)
    } else if reply.is_of_type("protobuf") {
        partial_success(&reply.body)
    } else {
        Err(NotAReply)
    };
    match partial {
        Ok(None) => Outcome::Accepted,
        Ok(Some((0, message))) if message.is_empty() => Outcome::Accepted,
        Ok(Some((refused_spans, message))) => Outcome::AcceptedPartially { refused_spans, message },
        Err(NotAReply) => {
            let message = format!("a yes that is no answer of this protocol: {}", reply.message());
            Outcome::AcceptedPartially { refused_spans: 0, message }
        }
    }
}
