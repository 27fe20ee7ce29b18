//! Cuts a stream of bytes into lines, without I/O: chunks of any size in, the same lines out.
//!
//! A line ends at LF; one CR before it belongs to the line end. A line that lies in one chunk is handed out in place. Only an
//! unfinished line is kept, and its buffer goes back when it ends, so a connection between two lines owns no buffer. A
//! line longer than it may be is handed out once, by its beginning, and skipped to its end without growing anything.
//! What a lane keeps of unfinished lines is bounded over all its connections: a line for which nothing is left is
//! treated like one that is too long. What a line means is not known here.

use memchr::memchr;

/// Bytes of a too long line that are handed out.
pub const BEGINNING_BYTES: usize = 1024;

/// Buffers kept for the next unfinished lines, and the capacity up to which one is worth keeping.
const SPARES: usize = 32;
const SPARE_BYTES: usize = 64 * 1024;

/// The smallest capacity of a buffer: most rows fit.
const SMALLEST_BYTES: usize = 1024;

/// One line, or what is known of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A whole line without its end.
    Line(&'a mut [u8]),
    /// The beginning of a line that is longer than it may be.
    TooLong(&'a [u8]),
    /// The beginning of a line that could not be kept until its end.
    NotKept(&'a [u8]),
}

/// Where one connection stands between two reads.
#[derive(Debug)]
pub struct Lines {
    max_line_bytes: usize,
    unfinished: Vec<u8>,
    skipping: bool,
}

/// The buffers of a lane's unfinished lines.
#[derive(Debug)]
pub struct LineBuffers {
    left_bytes: usize,
    spares: Vec<Vec<u8>>,
}

impl Lines {
    /// The state before the first byte. A line is at most `max_line_bytes` long, a CR before its LF included.
    pub fn new(max_line_bytes: usize) -> Lines {
        Lines { max_line_bytes, unfinished: Vec::new(), skipping: false }
    }

    /// Takes the next bytes of the stream and hands out what ends in them. Says whether any line ended.
    pub fn feed(&mut self, mut chunk: &mut [u8], buffers: &mut LineBuffers, mut each: impl FnMut(Framed<'_>)) -> bool {
        let mut any_ended = false;
        while let Some(end) = memchr(b'\n', chunk) {
            let (line, rest) = chunk.split_at_mut(end + 1);
            self.end_line(&mut line[..end], buffers, &mut each);
            chunk = rest;
            any_ended = true;
        }
        if !chunk.is_empty() {
            self.keep(chunk, buffers, &mut each);
        }
        any_ended
    }

    /// Takes the end of the stream: an unterminated last line is a line.
    pub fn end(&mut self, buffers: &mut LineBuffers, mut each: impl FnMut(Framed<'_>)) {
        if self.is_unfinished() {
            self.end_line(&mut [], buffers, &mut each);
        }
    }

    /// Gives the unfinished line up; `None` when there is none, or its beginning was handed out already.
    pub fn cut(&mut self, buffers: &mut LineBuffers, each: impl FnOnce(&[u8])) {
        self.skipping = false;
        if !self.unfinished.is_empty() {
            each(&self.unfinished);
            self.give_back(buffers);
        }
    }

    /// Whether a line has begun and not ended.
    pub fn is_unfinished(&self) -> bool {
        self.skipping || !self.unfinished.is_empty()
    }

    /// Ends the current line with `last`, its bytes in this chunk.
    fn end_line(&mut self, last: &mut [u8], buffers: &mut LineBuffers, each: &mut impl FnMut(Framed<'_>)) {
        if self.skipping {
            self.skipping = false;
        } else if self.unfinished.len() + last.len() > self.max_line_bytes {
            self.beginning(last, buffers, |beginning| each(Framed::TooLong(beginning)));
        } else if self.unfinished.is_empty() {
            each(Framed::Line(without_cr(last)));
        } else {
            // Bounded by the check above, and gone when this call returns.
            let booked_bytes = self.unfinished.capacity();
            self.unfinished.extend_from_slice(last);
            buffers.left_bytes = buffers.left_bytes.saturating_sub(self.unfinished.capacity() - booked_bytes);
            each(Framed::Line(without_cr(&mut self.unfinished)));
            self.give_back(buffers);
        }
    }

    /// Keeps `part`, which holds no line end.
    fn keep(&mut self, part: &[u8], buffers: &mut LineBuffers, each: &mut impl FnMut(Framed<'_>)) {
        if self.skipping {
            return;
        }
        if self.unfinished.len() + part.len() > self.max_line_bytes {
            self.beginning(part, buffers, |beginning| each(Framed::TooLong(beginning)));
            self.skipping = true;
        } else if buffers.make_room(&mut self.unfinished, part.len()) {
            self.unfinished.extend_from_slice(part);
        } else {
            self.beginning(part, buffers, |beginning| each(Framed::NotKept(beginning)));
            self.skipping = true;
        }
    }

    /// Hands out the beginning of the current line, the same however it was cut, and lets its buffer go.
    fn beginning(&mut self, next: &[u8], buffers: &mut LineBuffers, each: impl FnOnce(&[u8])) {
        let mut beginning = [0u8; BEGINNING_BYTES];
        let wanted = BEGINNING_BYTES.min(self.max_line_bytes);
        let mut filled = 0;
        for part in [&self.unfinished[..], next] {
            let taken = part.len().min(wanted - filled);
            beginning[filled..filled + taken].copy_from_slice(&part[..taken]);
            filled += taken;
        }
        each(&beginning[..filled]);
        self.give_back(buffers);
    }

    fn give_back(&mut self, buffers: &mut LineBuffers) {
        buffers.take_back(std::mem::take(&mut self.unfinished));
    }
}

impl LineBuffers {
    /// Nothing kept, and at most `max_bytes` at any time.
    pub fn new(max_bytes: usize) -> LineBuffers {
        LineBuffers { left_bytes: max_bytes, spares: Vec::with_capacity(SPARES) }
    }

    /// Bytes that may still be kept.
    #[cfg(test)]
    pub fn left_bytes(&self) -> usize {
        self.left_bytes
    }

    /// Makes room for `more` bytes in `buffer`, booked; `false` when too little is left.
    fn make_room(&mut self, buffer: &mut Vec<u8>, more: usize) -> bool {
        if buffer.capacity() == 0
            && let Some(spare) = self.spares.pop_if(|spare| spare.capacity() <= self.left_bytes)
        {
            self.left_bytes -= spare.capacity();
            *buffer = spare;
        }
        let needed_bytes = buffer.len() + more;
        let had_bytes = buffer.capacity();
        if needed_bytes <= had_bytes {
            return true;
        }
        // Doubling makes a line that comes byte by byte linear; the booking is by capacity, so it is no way around the bound.
        let wanted_bytes = needed_bytes.max(had_bytes * 2).max(SMALLEST_BYTES);
        if wanted_bytes - had_bytes > self.left_bytes {
            return false;
        }
        buffer.reserve_exact(wanted_bytes - buffer.len());
        self.left_bytes = self.left_bytes.saturating_sub(buffer.capacity() - had_bytes);
        true
    }

    fn take_back(&mut self, mut buffer: Vec<u8>) {
        self.left_bytes += buffer.capacity();
        if (1..=SPARE_BYTES).contains(&buffer.capacity()) && self.spares.len() < SPARES {
            buffer.clear();
            self.spares.push(buffer);
        }
    }
}

fn without_cr(line: &mut [u8]) -> &mut [u8] {
    match line {
        [start @ .., b'\r'] => start,
        line => line,
    }
}

#[cfg(test)]
mod tests;
