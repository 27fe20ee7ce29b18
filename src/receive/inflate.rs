//! Decompression of bodies, with the bomb taken out: the only inflating reader that a handler can get.
//!
//! [`Bounded`] wraps the *output* of whatever decoder and stops it at the configured size, or at 200 times the body once
//! the first 64 KiB are out. A request has one Content-Encoding: chains are refused, as is everything but gzip and zstd.
//! A zstd frame may not ask for a window over 8 MiB. Runs on the gateway's thread.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// Output up to which no ratio is looked at.
const FREE_BYTES: usize = 64 * 1024;
/// Output bytes for one byte of input at most.
const MAX_RATIO: usize = 200;
/// log2 of the largest zstd window: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;

/// A Content-Encoding that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// None, or `identity`.
    Identity,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
}

impl ContentEncoding {
    /// The encoding that a header's value names; `None` for a chain or an unknown one.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<ContentEncoding> {
        match value.trim_ascii() {
            b"" => Some(ContentEncoding::Identity),
            name if name.eq_ignore_ascii_case(b"identity") => Some(ContentEncoding::Identity),
            name if name.eq_ignore_ascii_case(b"gzip") => Some(ContentEncoding::Gzip),
            name if name.eq_ignore_ascii_case(b"zstd") => Some(ContentEncoding::Zstd),
            _ => None,
        }
    }
}

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// More than the configured size comes out.
    #[error("the body inflates to more than {0} bytes")]
    TooLarge(usize),
    /// Out of all proportion to its input.
    #[error("the body inflates to more than 200 times its size")]
    Ratio,
    /// Not what its encoding says.
    #[error("the body is not what its content encoding says")]
    Corrupt,
}

/// A decoder that cannot give more than it may.
pub struct Bounded<R> {
    decoder: R,
    given_bytes: usize,
    body_bytes: usize,
    max_bytes: usize,
    exceeded: Option<InflateError>,
}

impl<R: Read> Bounded<R> {
    fn new(decoder: R, body_bytes: usize, max_bytes: usize) -> Bounded<R> {
        Bounded { decoder, given_bytes: 0, body_bytes, max_bytes, exceeded: None }
    }

    /// Appends everything to `out`.
    fn read_into(mut self, out: &mut Vec<u8>) -> Result<(), InflateError> {
        self.read_to_end(out).map(drop).map_err(|_| self.exceeded.unwrap_or(InflateError::Corrupt))
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let given = self.decoder.read(buffer)?;
        self.given_bytes += given;
        if self.given_bytes > self.max_bytes {
            self.exceeded = Some(InflateError::TooLarge(self.max_bytes));
        } else if self.given_bytes > FREE_BYTES && self.given_bytes / MAX_RATIO > self.body_bytes {
            self.exceeded = Some(InflateError::Ratio);
        }
        self.exceeded.map_or(Ok(given), |error| Err(io::Error::other(error)))
    }
}

/// Appends what `body` inflates to, at most `max_bytes`, to `out`.
pub fn inflate(
    body: &[u8],
    encoding: ContentEncoding,
    max_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), InflateError> {
    match encoding {
        ContentEncoding::Identity => Bounded::new(body, body.len(), max_bytes).read_into(out),
        ContentEncoding::Gzip => Bounded::new(MultiGzDecoder::new(body), body.len(), max_bytes).read_into(out),
        ContentEncoding::Zstd => {
            let decoder = zstd::Decoder::with_buffer(body).and_then(|mut decoder| {
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Ok(decoder)
            });
            Bounded::new(decoder.map_err(|_| InflateError::Corrupt)?, body.len(), max_bytes).read_into(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn run(body: &[u8], encoding: ContentEncoding, max_bytes: usize) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        inflate(body, encoding, max_bytes, &mut out).map(|()| out)
    }

    #[test]
    fn what_was_compressed_comes_out() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        assert_eq!(run(&gzip(&text), ContentEncoding::Gzip, 1 << 20).unwrap(), text);
        assert_eq!(run(&zstd::encode_all(text.as_slice(), 1).unwrap(), ContentEncoding::Zstd, 1 << 20).unwrap(), text);
    }

    #[test]
    fn bombs_are_stopped_by_ratio_and_by_size() {
        let zeros = vec![0u8; 4 << 20];
        let packed = gzip(&zeros);
        assert_eq!(run(&packed, ContentEncoding::Gzip, 32 << 20), Err(InflateError::Ratio));
        let packed = zstd::encode_all(zeros.as_slice(), 1).unwrap();
        assert_eq!(run(&packed, ContentEncoding::Zstd, 32 << 20), Err(InflateError::Ratio));
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        assert_eq!(run(&gzip(&text), ContentEncoding::Gzip, 1000), Err(InflateError::TooLarge(1000)));
    }

    #[test]
    fn small_bodies_may_be_dense() {
        let zeros = vec![0u8; FREE_BYTES];
        assert_eq!(run(&gzip(&zeros), ContentEncoding::Gzip, 32 << 20).unwrap().len(), FREE_BYTES);
    }

    #[test]
    fn cut_and_wrong_bodies_are_corrupt() {
        let packed = gzip(b"hello, world");
        for end in 0..packed.len() {
            assert_eq!(run(&packed[..end], ContentEncoding::Gzip, 1000), Err(InflateError::Corrupt), "{end}");
        }
        assert_eq!(run(b"not zstd at all", ContentEncoding::Zstd, 1000), Err(InflateError::Corrupt));
    }

    #[test]
    fn a_zstd_window_over_8_mib_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[7; 100]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(run(&packed, ContentEncoding::Zstd, 1 << 20), Err(InflateError::Corrupt));
    }

    #[test]
    fn one_encoding_only() {
        assert_eq!(ContentEncoding::parse(b"GZIP"), Some(ContentEncoding::Gzip));
        assert_eq!(ContentEncoding::parse(b"gzip, gzip"), None);
        assert_eq!(ContentEncoding::parse(b"deflate"), None);
    }
}
