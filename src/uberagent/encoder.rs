//! The encoder: rows in, closed blocks out.

use super::{CsvHeader, Origin, Outcome};
use crate::block::{Block, SourceId};
use crate::config;

/// Turns rows of one source into blocks. Owned by one producer thread.
#[derive(Debug)]
pub struct Encoder {
    settings: config::Uberagent,
    source: SourceId,
}

impl Encoder {
    /// An encoder without open rows.
    #[must_use]
    pub fn new(settings: config::Uberagent, source: SourceId) -> Encoder {
        Encoder { settings, source }
    }

    /// Takes one line of JSON; `line` is scratch afterwards.
    pub fn json(&mut self, line: &mut [u8], origin: Origin<'_>, received_ns: u64) -> Outcome {
        let _ = (line, origin, received_ns, self.settings, self.source);
        Outcome::Blank
    }

    /// Takes one line of Splunk CSV that came under `header`.
    pub fn csv(&mut self, line: &[u8], header: &CsvHeader, received_ns: u64) -> Outcome {
        let _ = (line, header, received_ns);
        Outcome::Blank
    }

    /// Ends the rows that were decoded together: parents are resolved and everything open becomes final.
    pub fn end_together(&mut self) {}

    /// The next final block that reached [`crate::block::TARGET_BYTES`].
    pub fn pop_closed(&mut self) -> Option<Block> {
        None
    }

    /// The next block of all that is open, full or not; `None` when nothing is left.
    pub fn close(&mut self) -> Option<Block> {
        None
    }

    /// When the oldest open row was received, Unix nanoseconds.
    #[must_use]
    pub fn open_since_ns(&self) -> Option<u64> {
        None
    }

    /// Gives back a buffer for a later block.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        drop(buffer);
    }
}
