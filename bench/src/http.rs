//! As much HTTP/1.1 as a generator and a sink need on loopback: messages with a length or in chunks, kept-alive.
//!
//! Bodies are bounded. No trailers, no upgrades; whoever sends something else gets an error and a closed connection.

use std::io::{self, Read};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

/// A head may not be longer.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// A body may not be longer.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// The head of a message, as far as anybody here looks at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// Path of a request, or status of a response: the second word of the first line.
    pub(crate) target: String,
    content_length: usize,
    chunked: bool,
    /// `Content-Encoding: gzip`.
    pub(crate) gzip: bool,
    /// `Content-Type` speaks of JSON.
    pub(crate) json: bool,
    /// `Expect: 100-continue`: the peer waits before it sends the body.
    pub(crate) expects_continue: bool,
    /// `Retry-After` in seconds.
    pub(crate) retry_after: Option<u64>,
}

/// Reads messages from a connection. The buffer is reused.
#[derive(Debug)]
pub(crate) struct Messages {
    buffer: Vec<u8>,
    filled: usize,
    consumed: usize,
    chunks: Vec<u8>,
}

impl Messages {
    /// A reader that has read nothing.
    pub(crate) fn new() -> Messages {
        Messages { buffer: vec![0; 128 * 1024], filled: 0, consumed: 0, chunks: Vec::new() }
    }

    /// The head of the next message; `None` when the peer closed between two messages.
    pub(crate) fn head(&mut self, stream: &mut impl Read) -> Result<Option<Head>> {
        self.buffer.copy_within(self.consumed..self.filled, 0);
        self.filled -= self.consumed;
        self.consumed = 0;
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                self.consumed = end + 4;
                return parse_head(&self.buffer[..end]).map(Some);
            }
            ensure!(self.filled < MAX_HEAD_BYTES, "a head of more than {MAX_HEAD_BYTES} bytes");
            if self.fill(stream)? == 0 {
                ensure!(self.filled == 0, "the peer closed in the middle of a head");
                return Ok(None);
            }
        }
    }

    /// The body that belongs to `head`.
    pub(crate) fn body(&mut self, head: &Head, stream: &mut impl Read) -> Result<&[u8]> {
        if !head.chunked {
            let body = self.take(head.content_length, stream)?;
            return Ok(&self.buffer[body]);
        }
        self.chunks.clear();
        loop {
            let size = self.line(stream)?;
            let digits = std::str::from_utf8(&self.buffer[size])?.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).with_context(|| format!("chunk size {digits:?}"))?;
            ensure!(self.chunks.len() + size <= MAX_BODY_BYTES, "a body of more than {MAX_BODY_BYTES} bytes");
            let chunk = self.take(size + 2, stream)?;
            self.chunks.extend_from_slice(&self.buffer[chunk.start..chunk.end - 2]);
            if size == 0 {
                return Ok(&self.chunks);
            }
        }
    }

    fn line(&mut self, stream: &mut impl Read) -> Result<Range<usize>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.consumed..self.filled]) {
                let line = self.consumed..self.consumed + end;
                self.consumed = line.end + 1;
                return Ok(line);
            }
            ensure!(self.fill(stream)? > 0, "the peer closed in the middle of a body");
        }
    }

    fn take(&mut self, length: usize, stream: &mut impl Read) -> Result<Range<usize>> {
        ensure!(length <= MAX_BODY_BYTES, "a body of {length} bytes");
        let end = self.consumed + length;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        while self.filled < end {
            ensure!(self.fill(stream)? > 0, "the peer closed in the middle of a body");
        }
        let taken = self.consumed..end;
        self.consumed = end;
        Ok(taken)
    }

    fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        }
        loop {
            match stream.read(&mut self.buffer[self.filled..]) {
                Ok(bytes) => {
                    self.filled += bytes;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(bytes).context("a head that is not UTF-8")?;
    let mut lines = text.split("\r\n");
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).context("an empty first line")?;
    let mut head = Head { target: target.to_owned(), ..Head::default() };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { bail!("a header without a colon: {line:?}") };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.content_length = value.parse().context("content-length")?,
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "content-encoding" => head.gzip = value.eq_ignore_ascii_case("gzip"),
            "content-type" => head.json = value.contains("json"),
            "expect" => head.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "retry-after" => head.retry_after = value.parse().ok(),
            _ => {}
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out a few bytes at a time, as a slow peer does.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let bytes = self.1.min(self.0.len()).min(out.len());
            out[..bytes].copy_from_slice(&self.0[..bytes]);
            self.0 = &self.0[bytes..];
            Ok(bytes)
        }
    }

    #[test]
    fn pipelined_messages_are_told_apart_however_they_are_cut() {
        let wire = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc\
            POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxyz\r\n2;q=1\r\nuv\r\n0\r\n\r\n\
            HTTP/1.1 503 Busy\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n";
        for step in [1, 2, 7, 1000] {
            let (mut stream, mut messages) = (Drip(wire, step), Messages::new());
            let head = messages.head(&mut stream).unwrap().unwrap();
            assert!(head.target == "/a" && head.gzip);
            assert_eq!(messages.body(&head, &mut stream).unwrap(), b"abc");
            let head = messages.head(&mut stream).unwrap().unwrap();
            assert_eq!(head.target, "/b");
            assert_eq!(messages.body(&head, &mut stream).unwrap(), b"xyzuv");
            let head = messages.head(&mut stream).unwrap().unwrap();
            assert_eq!((head.target.as_str(), head.retry_after), ("503", Some(2)));
            assert_eq!(messages.body(&head, &mut stream).unwrap(), b"");
            assert!(messages.head(&mut stream).unwrap().is_none());
        }
    }

    #[test]
    fn a_message_that_ends_early_is_an_error() {
        let (mut stream, mut messages) =
            (Drip(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", 100), Messages::new());
        let head = messages.head(&mut stream).unwrap().unwrap();
        assert!(messages.body(&head, &mut stream).is_err());
    }
}
