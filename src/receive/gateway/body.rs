//! Reads a request's body under its limits, and undoes its content encoding.
//!
//! A body that came in one frame is lent as it is; a longer one is collected in a recycled buffer, which can become a
//! block's payload without another copy. A declared length is checked before anything is read and never trusted for
//! an allocation beyond [`MAX_BYTES`]. What all bodies hold together is bounded by the [`Allowance`].

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use tokio::time::{Instant, timeout_at};

use super::allowance::{Allowance, Exhausted, Permit};
use super::intake::Intake;
use crate::block::{MAX_BYTES, Outlet};
use crate::config::HttpLimits;
use crate::receive::inflate::{ContentEncoding, InflateError, inflate};

/// A body may be as slow as it likes for so long.
const GRACE: Duration = Duration::from_secs(5);

/// Why a body is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// As it was sent or as it inflates.
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    /// There is no room for it beside the other requests' bodies.
    #[error("no room for the body at the moment, try again")]
    NoRoom,
    /// Not all of it came in time.
    #[error("the body did not come in time")]
    TimedOut,
    /// The connection broke, or its framing.
    #[error("the body broke off")]
    Broken,
    /// A content encoding that is not understood, or several.
    #[error("the content encoding is none of gzip, zstd and identity")]
    Encoding,
    /// What was sent does not inflate.
    #[error(transparent)]
    Inflate(#[from] InflateError),
}

impl BodyError {
    /// The reason as a metric's label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            BodyError::TooLarge(_) | BodyError::Inflate(InflateError::TooLarge(_)) => "too_large",
            BodyError::NoRoom => "no_room",
            BodyError::TimedOut => "slow_body",
            BodyError::Broken => "broken",
            BodyError::Encoding => "encoding",
            BodyError::Inflate(InflateError::Ratio) => "inflates_too_much",
            BodyError::Inflate(InflateError::Corrupt) => "corrupt",
        }
    }
}

impl From<Exhausted> for BodyError {
    fn from(_: Exhausted) -> BodyError {
        BodyError::NoRoom
    }
}

/// A body, inflated, with its part of the allowance.
pub(crate) struct Body {
    data: Data,
    /// Given back with the body.
    permit: Permit,
}

/// Where a body lies.
enum Data {
    /// In the connection's own buffer.
    Lent(Bytes),
    /// In a buffer of the intake.
    Owned(Vec<u8>),
}

impl Body {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Lent(bytes) => bytes,
            Data::Owned(bytes) => bytes,
        }
    }

    /// Counts bytes that the request holds beside its body, until the body goes.
    pub(crate) fn cover_beside(&mut self, bytes: usize) -> Result<(), BodyError> {
        Ok(self.permit.add(bytes)?)
    }

    /// Bytes for which [`Body::cover_beside`] has room now, and for which it would have without other requests.
    pub(crate) fn room_beside(&self) -> (usize, usize) {
        (self.permit.left_bytes(), self.permit.room_bytes())
    }

    /// Its bytes, to be changed, in a buffer of the intake.
    pub(crate) fn bytes_mut<O: Outlet>(&mut self, intake: &Intake<O>) -> &mut [u8] {
        if let Data::Lent(bytes) = &self.data {
            let mut buffer = intake.buffer();
            buffer.extend_from_slice(bytes);
            self.data = Data::Owned(buffer);
        }
        let Data::Owned(bytes) = &mut self.data else { unreachable!("it was made so above") };
        bytes
    }

    /// Puts other bytes, not more, in place of its own.
    pub(crate) fn replace<O: Outlet>(&mut self, intake: &Intake<O>, bytes: Vec<u8>) {
        if let Data::Owned(before) = std::mem::replace(&mut self.data, Data::Owned(bytes)) {
            intake.give_back(before);
        }
    }

    /// Its bytes in a buffer of the intake, which is about to be a block: the ring counts it from here.
    pub(crate) fn into_owned<O: Outlet>(self, intake: &Intake<O>) -> Vec<u8> {
        match self.data {
            Data::Lent(bytes) => {
                let mut buffer = intake.buffer();
                buffer.extend_from_slice(&bytes);
                buffer
            }
            Data::Owned(bytes) => bytes,
        }
    }

    /// Gives its buffer back.
    pub(crate) fn discard<O: Outlet>(self, intake: &Intake<O>) {
        if let Data::Owned(bytes) = self.data {
            intake.give_back(bytes);
        }
    }
}

/// Where a body is read to, and how much of it.
pub(super) struct Place<'a, O> {
    pub(super) limits: &'a HttpLimits,
    pub(super) max_inflated_bytes: usize,
    pub(super) intake: &'a Intake<O>,
    pub(super) allowance: &'a Rc<Allowance>,
}

/// Reads a body and inflates it; also its size as it was sent.
pub(super) async fn read<O: Outlet>(
    headers: &HeaderMap,
    mut incoming: Incoming,
    place: Place<'_, O>,
) -> Result<(Body, usize), BodyError> {
    let Place { limits, max_inflated_bytes, intake, allowance } = place;
    let collected = match content_encoding(headers) {
        Ok(encoding) => collect(&mut incoming, limits, intake, allowance.permit()).await.map(|body| (encoding, body)),
        Err(error) => Err(error),
    };
    let (encoding, body) = match collected {
        Ok(collected) => collected,
        Err(error @ (BodyError::TooLarge(_) | BodyError::NoRoom | BodyError::Encoding)) => {
            pass_over(incoming, limits).await;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let sent_bytes = body.bytes().len();
    if encoding == ContentEncoding::Identity {
        return Ok((body, sent_bytes));
    }
    let inflated = inflate_within(&body, encoding, max_inflated_bytes, (intake, allowance));
    body.discard(intake);
    Ok((inflated?, sent_bytes))
}

/// Inflates a body into what is left of the allowance. It is done in one go, so nobody else takes of it meanwhile.
fn inflate_within<O: Outlet>(
    body: &Body,
    encoding: ContentEncoding,
    max_bytes: usize,
    (intake, allowance): (&Intake<O>, &Rc<Allowance>),
) -> Result<Body, BodyError> {
    let room_bytes = allowance.left_bytes().min(max_bytes);
    let mut inflated = intake.buffer();
    let result = match inflate(body.bytes(), encoding, room_bytes, &mut inflated) {
        Err(InflateError::TooLarge(_)) if room_bytes < max_bytes => Err(BodyError::NoRoom),
        result => result.map_err(BodyError::from),
    };
    let mut permit = allowance.permit();
    match result.and_then(|()| Ok(permit.cover(inflated.len())?)) {
        Ok(()) => Ok(Body { data: Data::Owned(inflated), permit }),
        Err(error) => {
            intake.give_back(inflated);
            Err(error)
        }
    }
}

/// Reads a refused body and forgets it, within bounds. A server that closes with bytes unread resets the connection, and the
/// client may never see the refusal: it would send the same again for ever.
pub(crate) async fn pass_over(mut incoming: Incoming, limits: &HttpLimits) {
    let rest = async {
        let mut left_bytes = limits.max_inflated_bytes;
        while let Ok(Some(data)) = next_frame(&mut incoming).await
            && data.len() <= left_bytes
        {
            left_bytes -= data.len();
        }
    };
    // Whether it ended or the time did, the refusal is sent.
    drop(tokio::time::timeout(limits.body_timeout, rest).await);
}

fn content_encoding(headers: &HeaderMap) -> Result<ContentEncoding, BodyError> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(ContentEncoding::Identity),
        (Some(value), None) => ContentEncoding::parse(value.as_bytes()).ok_or(BodyError::Encoding),
        (Some(_), Some(_)) => Err(BodyError::Encoding),
    }
}

/// How long a body may take of which so many bytes have come.
fn patience(limits: &HttpLimits, bytes: usize) -> Duration {
    let earned_ms = bytes as u64 * 1000 / limits.min_body_bytes_per_second as u64;
    limits.body_timeout.min(GRACE + Duration::from_millis(earned_ms))
}

async fn collect<O: Outlet>(
    incoming: &mut Incoming,
    limits: &HttpLimits,
    intake: &Intake<O>,
    mut permit: Permit,
) -> Result<Body, BodyError> {
    let (began, max_bytes) = (Instant::now(), limits.max_body_bytes);
    let next_frame = async |incoming: &mut Incoming, bytes| {
        let deadline = began + patience(limits, bytes);
        timeout_at(deadline, next_frame(incoming)).await.unwrap_or(Err(BodyError::TimedOut))
    };
    let declared = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > max_bytes {
        return Err(BodyError::TooLarge(max_bytes));
    }
    permit.cover(declared)?;
    let first = next_frame(incoming, 0).await?.unwrap_or_default();
    if first.len() > max_bytes {
        return Err(BodyError::TooLarge(max_bytes));
    }
    permit.cover(first.len())?;
    if incoming.is_end_stream() || first.len() == declared {
        return Ok(Body { data: Data::Lent(first), permit });
    }
    let mut buffer = intake.buffer();
    buffer.reserve(declared.clamp(first.len(), MAX_BYTES));
    buffer.extend_from_slice(&first);
    drop(first);
    while let Some(data) = next_frame(incoming, buffer.len()).await? {
        let bytes = buffer.len() + data.len();
        let covered = permit.cover(bytes).map_err(BodyError::from);
        if let Err(error) = if bytes > max_bytes { Err(BodyError::TooLarge(max_bytes)) } else { covered } {
            intake.give_back(buffer);
            return Err(error);
        }
        buffer.extend_from_slice(&data);
    }
    Ok(Body { data: Data::Owned(buffer), permit })
}

/// The next data of a body; trailers are passed over.
async fn next_frame(incoming: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
