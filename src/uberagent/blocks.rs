//! The open block of one signal, and the full ones that wait until their rows are final.
//!
//! Items are appended behind their resource: consecutive items of one host, service and session share the wrappers, whose
//! lengths have a fixed width and are written when the next resource begins or the block is closed. A block is closed before it
//! would pass its target, so it is over the target only when one item alone is. A place stays valid until the block
//! leaves, also when the block was closed in between: parents are patched in afterwards.

use std::collections::VecDeque;

use super::guid::Guid;
use crate::block::{Block, Made, Meta, Signal, SourceId, TARGET_BYTES};
use crate::otlp::keys;
use crate::otlp::writer::{
    Key, close_message, open_message, push_bytes_field, push_int_attribute, push_text_attribute,
};

static HOST_NAME: Key = Key::new(keys::HOST_NAME);
static SERVICE_NAME: Key = Key::new(keys::SERVICE_NAME);
static SESSION_ID: Key = Key::new(keys::SESSION_ID);
static SESSION_NUMBER: Key = Key::new(keys::SESSION_NUMBER);

/// Buffers kept for later blocks.
const MAX_SPARES: usize = 8;

/// Bytes of a wrapper beside host and service, rounded up.
const WRAPPER_BYTES: usize = 256;

/// Whose item it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resource<'a> {
    /// `host.name`; left out when empty.
    pub host: &'a [u8],
    /// `service.name`.
    pub service: &'a [u8],
    /// The session, where all items are one session's.
    pub session: Option<Session>,
}

/// A session as an attribute of the resource: it is said once for all its rows that came in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// `session.id`.
    pub guid: Guid,
    /// `uberagent.session.number`, where the row states it.
    pub number: Option<i64>,
}

/// What is appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    /// A serialized span or log record.
    pub bytes: &'a [u8],
    /// Unix nanoseconds.
    pub start_ns: u64,
    /// Unix nanoseconds.
    pub end_ns: u64,
    /// Records that it stands for: 1, or 0 when it was synthesised.
    pub records: u32,
    /// When its row was received, Unix nanoseconds.
    pub received_ns: u64,
}

/// Where an item's bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    block: u64,
    offset: usize,
}

/// The blocks of one signal that have not left yet.
#[derive(Debug)]
pub(crate) struct Blocks {
    signal: Signal,
    source: SourceId,
    open: Option<Block>,
    /// Closed blocks, oldest first.
    closed: VecDeque<Block>,
    /// Closed blocks whose rows are final.
    final_blocks: usize,
    /// Blocks that have left.
    left: u64,
    /// The resource that items are being appended to.
    host: Vec<u8>,
    service: Vec<u8>,
    session: Option<Session>,
    /// Where the lengths of its two wrappers are to be written; `None` when no resource is open.
    wrappers: Option<(usize, usize)>,
    spares: Vec<Vec<u8>>,
}

impl Blocks {
    pub(crate) fn new(signal: Signal, source: SourceId) -> Blocks {
        Blocks {
            signal,
            source,
            open: None,
            closed: VecDeque::with_capacity(16),
            final_blocks: 0,
            left: 0,
            host: Vec::with_capacity(256),
            service: Vec::with_capacity(64),
            session: None,
            wrappers: None,
            spares: Vec::with_capacity(MAX_SPARES),
        }
    }

    /// Appends an item.
    pub(crate) fn append(&mut self, resource: Resource<'_>, item: Item<'_>) -> Spot {
        let wanted = item.bytes.len() + resource.host.len() + resource.service.len() + WRAPPER_BYTES;
        if self.open.as_ref().is_some_and(|block| block.payload.len() + wanted > TARGET_BYTES) {
            self.close_open();
        }
        let (signal, source) = (self.signal, self.source);
        let spares = &mut self.spares;
        let block = self.open.get_or_insert_with(|| {
            let buffer = spares.pop().unwrap_or_else(|| Vec::with_capacity(TARGET_BYTES));
            Block::open(Meta::empty(signal, Made::Encoded, source, item.received_ns), buffer)
        });
        let same = self.wrappers.is_some()
            && self.session == resource.session
            && self.host == resource.host
            && self.service == resource.service;
        if !same {
            close_wrappers(&mut block.payload, self.wrappers.take());
            self.session = resource.session;
            self.host.clear();
            self.host.extend_from_slice(resource.host);
            self.service.clear();
            self.service.extend_from_slice(resource.service);
            self.wrappers = Some(open_wrappers(&mut block.payload, resource));
        }
        // ScopeSpans.spans and ScopeLogs.log_records are both field 2.
        push_bytes_field(&mut block.payload, 0x12, item.bytes);
        block.meta.spans += 1;
        block.meta.records += item.records;
        block.meta.cover(item.start_ns, item.end_ns);
        let offset = block.payload.len() - item.bytes.len();
        Spot { block: self.left + self.closed.len() as u64, offset }
    }

    /// The bytes from a spot on, of a block that has not left.
    pub(crate) fn at(&mut self, spot: Spot) -> &mut [u8] {
        let index = usize::try_from(spot.block - self.left).expect("closed blocks fit in memory");
        let block = self.closed.get_mut(index).or(self.open.as_mut()).expect("the block of a spot has not left");
        &mut block.payload[spot.offset..]
    }

    /// Makes everything final.
    pub(crate) fn finish(&mut self) {
        self.final_blocks = self.closed.len();
    }

    /// The oldest closed block that is final.
    pub(crate) fn pop_closed(&mut self) -> Option<Block> {
        self.final_blocks = self.final_blocks.checked_sub(1)?;
        self.left += 1;
        self.closed.pop_front()
    }

    /// Closes the open block, full or not.
    pub(crate) fn close_open(&mut self) {
        if let Some(mut block) = self.open.take() {
            close_wrappers(&mut block.payload, self.wrappers.take());
            self.closed.push_back(block);
        }
    }

    /// When the oldest row that has not left was received.
    pub(crate) fn open_since_ns(&self) -> Option<u64> {
        self.closed.front().or(self.open.as_ref()).map(|block| block.meta.received_ns)
    }

    /// Whether the next block has a buffer.
    pub(crate) fn has_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Keeps a buffer for a later block, unless there are enough.
    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spares.len() < MAX_SPARES {
            buffer.clear();
            self.spares.push(buffer);
        }
    }
}

/// Begins `ResourceSpans{resource, ScopeSpans{scope, ...` (or the same of logs: the field numbers are equal).
fn open_wrappers(payload: &mut Vec<u8>, resource: Resource<'_>) -> (usize, usize) {
    let outer = open_message(payload, 0x0a); // ExportTraceServiceRequest.resource_spans
    let attributes = open_message(payload, 0x0a); // ResourceSpans.resource
    push_text_attribute(payload, 0x0a, &SERVICE_NAME, resource.service);
    if !resource.host.is_empty() {
        push_text_attribute(payload, 0x0a, &HOST_NAME, resource.host);
    }
    if let Some(Session { guid, number }) = resource.session {
        push_text_attribute(payload, 0x0a, &SESSION_ID, &guid.to_text());
        if let Some(number) = number {
            push_int_attribute(payload, 0x0a, &SESSION_NUMBER, number);
        }
    }
    close_message(payload, attributes);
    let inner = open_message(payload, 0x12); // ResourceSpans.scope_spans
    let scope = open_message(payload, 0x0a); // ScopeSpans.scope
    push_bytes_field(payload, 0x0a, b"millrace.uberagent"); // InstrumentationScope.name
    push_bytes_field(payload, 0x12, env!("CARGO_PKG_VERSION").as_bytes()); // InstrumentationScope.version
    close_message(payload, scope);
    (outer, inner)
}

fn close_wrappers(payload: &mut [u8], wrappers: Option<(usize, usize)>) {
    if let Some((outer, inner)) = wrappers {
        close_message(payload, inner);
        close_message(payload, outer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;

    fn item(bytes: &[u8]) -> Item<'_> {
        Item { bytes, start_ns: 5, end_ns: 9, records: 1, received_ns: 3 }
    }

    #[test]
    fn neighbours_share_a_resource_and_others_do_not() {
        let mut blocks = Blocks::new(Signal::Traces, SourceId(0));
        for (host, service) in [("a", "x"), ("a", "x"), ("b", "x"), ("a", "x"), ("a", "y"), ("", "y")] {
            blocks.append(
                Resource { host: host.as_bytes(), service: service.as_bytes(), session: None },
                item(b"\x2a\x01n"),
            );
        }
        assert_eq!(blocks.open_since_ns(), Some(3));
        blocks.close_open();
        blocks.finish();
        let block = blocks.pop_closed().unwrap();
        let request = ExportTraceServiceRequest::decode(&block.payload[..]).unwrap();
        let spans = |index: usize| request.resource_spans[index].scope_spans[0].spans.len();
        assert_eq!((0..request.resource_spans.len()).map(spans).collect::<Vec<_>>(), [2, 1, 1, 1, 1]);
        assert_eq!((block.meta.records, block.meta.spans, block.meta.first_span_ns), (6, 6, 5));
        assert!(blocks.pop_closed().is_none() && blocks.open_since_ns().is_none());
    }

    #[test]
    fn blocks_close_at_the_target_and_stay_until_they_are_final() {
        let mut blocks = Blocks::new(Signal::Traces, SourceId(0));
        let resource = Resource { host: b"h", service: b"s", session: None };
        let big = [b"\x2a\xe8\x07".as_slice(), &[b'n'; 1000]].concat();
        let spots: Vec<Spot> = (0..200).map(|_| blocks.append(resource, item(&big))).collect();
        assert!(blocks.pop_closed().is_none(), "nothing is final yet");
        for (number, spot) in (0u8..).zip(&spots) {
            blocks.at(*spot)[3] = number % 128;
        }
        blocks.finish();
        blocks.append(resource, item(&big));
        blocks.close_open();
        let mut names = Vec::new();
        while let Some(block) = blocks.pop_closed() {
            assert!(block.payload.len() <= TARGET_BYTES);
            let request = ExportTraceServiceRequest::decode(&block.payload[..]).unwrap();
            let spans = request.resource_spans.iter().flat_map(|spans| &spans.scope_spans[0].spans);
            names.extend(spans.map(|span| span.name.as_bytes()[0]));
        }
        let expected: Vec<u8> = (0..192).map(|number| number % 128).collect();
        assert_eq!(names, expected, "three blocks of 64 are final, the last was closed after that");
    }
}
