//! From one connection's bytes to rows in open blocks, with an exact count of everything that was no row.
//!
//! One decoder a door: it owns the encoder of its source and keeps the front balance. Bytes pass three stages: sniffing (is
//! it lines at all), framing, and the line itself (JSON row, Splunk header, CSV row, or a dead letter with its reason). The
//! complete lines of one read are decoded together. Counts are gathered in plain integers and published once a read.
//! Does no I/O but the non-blocking send of a dead letter. Owned by the reactor thread.

use std::sync::Arc;

use super::connection::{Phase, SplunkHeader, StreamState};
use crate::block::{DeadLetterSender, FrontDeadLetter, SourceId};
use crate::receive::LineCounters;
use crate::receive::lines::{Framed, LineBuffers};
use crate::receive::sniff::{SNIFF_BYTES, Shape, Sniff, WrongProtocol, shape, sniff};
use crate::telemetry::ledger::Front;
use crate::uberagent::{CsvHeader, Encoder, Origin, Outcome};

/// Bytes of a Splunk header line that a connection may hold on to.
const MAX_HEADER_BYTES: usize = 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// Lines; whether any of them ended.
    Lines { any_ended: bool },
    /// Not lines: the connection is of no use.
    Wrong(WrongProtocol),
}

/// Whether there is room for what rows become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Rows are decoded.
    Open,
    /// A connection is being closed and its last rows find no room: they are dead letters.
    Full,
}

/// The decoder of one source.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) encoder: Encoder,
    pub(super) front: Arc<Front>,
    pub(super) counters: Arc<LineCounters>,
    source: SourceId,
    dead_letters: DeadLetterSender,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    received: u64,
    encoded: u64,
    filtered: u64,
    dead_lettered: u64,
    fields_dropped: u64,
    not_records: u64,
}

impl Decoder {
    /// A decoder without open rows.
    pub(super) fn new(
        encoder: Encoder,
        source: SourceId,
        front: Arc<Front>,
        counters: Arc<LineCounters>,
        dead_letters: DeadLetterSender,
    ) -> Decoder {
        let tally = Tally::default();
        Decoder { encoder, front, counters, source, dead_letters, tally }
    }

    /// Takes the next bytes of a stream, received at `wall_ns`.
    pub(super) fn feed(
        &mut self,
        stream: &mut StreamState,
        chunk: &mut [u8],
        buffers: &mut LineBuffers,
        at: At,
    ) -> Fed {
        let Phase::Sniffing { mut held, held_bytes } = stream.phase else {
            return Fed::Lines { any_ended: self.lines(stream, chunk, buffers, at) };
        };
        let taken = chunk.len().min(SNIFF_BYTES - held_bytes);
        held[held_bytes..held_bytes + taken].copy_from_slice(&chunk[..taken]);
        match sniff(&held[..held_bytes + taken]) {
            Sniff::Wrong(protocol) => Fed::Wrong(protocol),
            Sniff::NeedMore => {
                stream.phase = Phase::Sniffing { held, held_bytes: held_bytes + taken };
                Fed::Lines { any_ended: false }
            }
            Sniff::Lines => {
                stream.phase = Phase::FirstLine;
                let mut any_ended = self.lines(stream, &mut held[..held_bytes], buffers, at);
                any_ended |= self.lines(stream, chunk, buffers, at);
                Fed::Lines { any_ended }
            }
        }
    }

    /// Takes the end of a stream: an unterminated last line is a line.
    pub(super) fn end(&mut self, stream: &mut StreamState, buffers: &mut LineBuffers, at: At) {
        self.end_sniffing(stream, buffers, at);
        let StreamState { phase, lines, header } = stream;
        lines.end(buffers, |framed| self.framed(framed, phase, header, at));
    }

    /// Gives up the unfinished line of a stream that is closed before its end, for `reason`.
    pub(super) fn cut(&mut self, stream: &mut StreamState, buffers: &mut LineBuffers, at: At, reason: &'static str) {
        self.end_sniffing(stream, buffers, at);
        stream.lines.cut(buffers, |line| self.dead_letter(line, reason, at.received_ns));
    }

    /// Ends the rows that were decoded together and publishes their counts.
    pub(super) fn end_together(&mut self) {
        self.encoder.end_together();
        let tally = std::mem::take(&mut self.tally);
        self.front.received.add(tally.received);
        self.front.encoded.add(tally.encoded);
        self.front.filtered.add(tally.filtered);
        self.front.dead_lettered.add(tally.dead_lettered);
        self.front.fields_dropped.add(tally.fields_dropped);
        self.counters.not_records.add(tally.not_records);
    }

    /// What is held for sniffing is lines after all.
    fn end_sniffing(&mut self, stream: &mut StreamState, buffers: &mut LineBuffers, at: At) {
        if let Phase::Sniffing { mut held, held_bytes } = stream.phase {
            stream.phase = Phase::FirstLine;
            self.lines(stream, &mut held[..held_bytes], buffers, at);
        }
    }

    fn lines(&mut self, stream: &mut StreamState, chunk: &mut [u8], buffers: &mut LineBuffers, at: At) -> bool {
        let StreamState { phase, lines, header } = stream;
        lines.feed(chunk, buffers, |framed| self.framed(framed, phase, header, at))
    }

    fn framed(&mut self, framed: Framed<'_>, phase: &mut Phase, header: &mut Option<Box<SplunkHeader>>, at: At) {
        let is_first = matches!(std::mem::replace(phase, Phase::Lines), Phase::FirstLine);
        match framed {
            Framed::TooLong(beginning) => self.dead_letter(beginning, "line_too_long", at.received_ns),
            Framed::NotKept(beginning) => self.dead_letter(beginning, "line_memory_exhausted", at.received_ns),
            Framed::Line(line) if is_first && line.starts_with(BYTE_ORDER_MARK) => {
                self.line(&mut line[BYTE_ORDER_MARK.len()..], header, at);
            }
            Framed::Line(line) => self.line(line, header, at),
        }
    }

    fn line(&mut self, line: &mut [u8], header: &mut Option<Box<SplunkHeader>>, at: At) {
        match (shape(line), &*header) {
            (Shape::Blank, _) => self.tally.not_records += 1,
            (Shape::SplunkHeader, _) => self.header(line, header, at),
            (_, _) if at.intake == Intake::Full => self.dead_letter(line, "overload", at.received_ns),
            (Shape::Csv, None) => self.dead_letter(line, "csv_without_header", at.received_ns),
            (Shape::Csv | Shape::Text, Some(header)) => {
                let outcome = self.encoder.csv(line, &header.parsed, at.received_ns);
                self.book(outcome, line, at);
            }
            (Shape::Object | Shape::Text, _) => {
                let outcome = self.encoder.json(line, Origin::default(), at.received_ns);
                self.book(outcome, line, at);
            }
        }
    }

    /// A header line holds for the rows after it. It is no record, unless it cannot be read.
    fn header(&mut self, line: &[u8], header: &mut Option<Box<SplunkHeader>>, at: At) {
        let line = line.trim_ascii();
        if header.as_ref().is_some_and(|header| header.line == line) {
            self.tally.not_records += 1;
            return;
        }
        let parsed = if line.len() <= MAX_HEADER_BYTES { CsvHeader::parse(line) } else { None };
        // A header that cannot be read must not leave the rows after it to the one before.
        *header = parsed.map(|parsed| Box::new(SplunkHeader { line: line.to_vec(), parsed }));
        match header {
            Some(_) => self.tally.not_records += 1,
            None => self.dead_letter(line, "splunk_header", at.received_ns),
        }
    }

    fn book(&mut self, outcome: Outcome, line: &[u8], at: At) {
        match outcome {
            Outcome::Encoded { fields_dropped } => {
                self.tally.received += 1;
                self.tally.encoded += 1;
                self.tally.fields_dropped += u64::from(fields_dropped);
            }
            Outcome::Filtered(sourcetype) => {
                self.tally.received += 1;
                self.tally.filtered += 1;
                self.counters.filtered.add(sourcetype.name(), 1);
            }
            Outcome::DeadLetter(reason) => self.dead_letter(line, reason, at.received_ns),
            Outcome::Blank => self.tally.not_records += 1,
        }
    }

    fn dead_letter(&mut self, line: &[u8], reason: &'static str, received_ns: u64) {
        self.tally.received += 1;
        self.tally.dead_lettered += 1;
        self.counters.dead_lettered.add(reason, 1);
        // Looked at first, so that a flood of bad lines costs no copies once the channel is full.
        let kept = !self.dead_letters.is_full()
            && self
                .dead_letters
                .try_send(FrontDeadLetter {
                    source: self.source,
                    reason,
                    detail: String::new(),
                    received_ns,
                    bytes: line.to_vec(),
                })
                .is_ok();
        if !kept {
            self.counters.dead_letters_not_kept.add(1);
        }
    }
}

/// When a read happened, and whether its rows find room.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) received_ns: u64,
    pub(super) intake: Intake,
}
