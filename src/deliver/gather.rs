//! Gathering: fresh blocks wait here until they are worth a request.
//!
//! A request is due at `send_spans` spans, or when its oldest block has waited for `timeout`, or when a request is full
//! anyway, or at once while draining. That is the point of sending, not a cap: the request takes all that waits, up to
//! the byte limit. Only `max_spans`, and a block above the byte limit, cut a block. Signals are gathered apart.

use std::collections::VecDeque;
use std::time::Duration;

use super::Part;
use super::work::{Work, cut};
use crate::block::Signal;
use crate::config::Batch;

/// Fresh blocks of every signal.
#[derive(Debug)]
pub(super) struct Gather {
    batch: Batch,
    draining: bool,
    queues: [Queue; 3],
}

/// Fresh blocks of one signal.
#[derive(Debug)]
struct Queue {
    signal: Signal,
    parts: VecDeque<(Part, Duration)>,
    spans: u64,
    bytes: usize,
}

impl Gather {
    /// Nothing waits.
    pub(super) fn new(batch: Batch) -> Gather {
        let queues = [Signal::Traces, Signal::Metrics, Signal::Logs].map(|signal| Queue {
            signal,
            parts: VecDeque::new(),
            spans: 0,
            bytes: 0,
        });
        Gather { batch, draining: false, queues }
    }

    /// The same blocks, sent under other settings.
    pub(super) fn adopted(self, batch: Batch) -> Gather {
        Gather { batch, ..self }
    }

    /// A fresh block.
    pub(super) fn push(&mut self, signal: Signal, part: Part, now: Duration) {
        let queue = &mut self.queues[signal as usize - 1];
        queue.spans += part.spans();
        queue.bytes += part.bytes;
        queue.parts.push_back((part, now));
    }

    /// From now on nothing waits for company.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Where the oldest request that is due at `now` stands in the order of the log.
    pub(super) fn due(&self, limit_bytes: usize, now: Duration) -> Option<(u64, u32)> {
        self.due_queue(limit_bytes, now).map(|(key, _)| key)
    }

    /// When the next request becomes due by itself, if one waits.
    pub(super) fn due_at(&self) -> Option<Duration> {
        let oldest = self.queues.iter().filter_map(|queue| queue.parts.front());
        oldest.map(|(_, since)| *since + self.batch.timeout).min()
    }

    /// Takes the oldest request that is due.
    pub(super) fn take(&mut self, limit_bytes: usize, now: Duration) -> Option<Work> {
        let (_, index) = self.due_queue(limit_bytes, now)?;
        let most_spans = self.most_spans();
        Some(self.queues[index].take(limit_bytes, most_spans))
    }

    /// The hard cap of spans in a request.
    pub(super) fn most_spans(&self) -> u64 {
        self.batch.max_spans.map_or(u64::MAX, |spans| spans.max(1) as u64)
    }

    /// Gives up what belongs to blocks below `block`.
    pub(super) fn abandon(&mut self, block: u64, mut given_up: impl FnMut(&Part)) {
        for queue in &mut self.queues {
            while let Some((part, _)) = queue.parts.pop_front_if(|(part, _)| part.block < block) {
                queue.spans -= part.spans();
                queue.bytes -= part.bytes;
                given_up(&part);
            }
        }
    }

    fn due_queue(&self, limit_bytes: usize, now: Duration) -> Option<((u64, u32), usize)> {
        let due = self.queues.iter().enumerate().filter_map(|(index, queue)| {
            let (part, since) = queue.parts.front()?;
            let full = queue.spans >= self.batch.send_spans as u64 || queue.bytes >= limit_bytes;
            (full || self.draining || *since + self.batch.timeout <= now).then_some(((part.block, part.first), index))
        });
        due.min()
    }
}

impl Queue {
    fn take(&mut self, limit_bytes: usize, most_spans: u64) -> Work {
        let mut parts = Vec::new();
        let (mut spans, mut bytes) = (0u64, 0usize);
        while let Some((part, since)) = self.parts.pop_front() {
            let fits = fitting_spans(&part, limit_bytes.saturating_sub(bytes), most_spans - spans, parts.is_empty());
            if fits == 0 {
                self.parts.push_front((part, since));
                break;
            }
            let taken = if u64::from(fits) < part.spans() {
                let (front, back) = cut(&part, part.first + fits);
                self.parts.push_front((back, since));
                front
            } else {
                part
            };
            spans += taken.spans();
            bytes += taken.bytes;
            parts.push(taken);
        }
        self.spans -= spans;
        self.bytes -= bytes;
        Work::fresh(self.signal, parts.into())
    }
}

/// How many spans of `part` go into a request with so much room. The first part of a request always gives at least one
/// span; bytes never cut a later one, it waits for the next request instead.
fn fitting_spans(part: &Part, room_bytes: usize, room_spans: u64, first: bool) -> u32 {
    let by_count = u32::try_from(room_spans.min(part.spans())).expect("not more than the spans of a part");
    if part.bytes <= room_bytes {
        return by_count;
    }
    if !first {
        return 0;
    }
    let by_bytes = part.spans() as u128 * room_bytes as u128 / part.bytes as u128;
    by_count.min(u32::try_from(by_bytes).expect("a share is not more than the whole")).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    fn batch(max_spans: Option<usize>) -> Batch {
        Batch { send_spans: 200, timeout: TIMEOUT, max_spans, max_request_bytes: 1 << 20 }
    }

    fn part(block: u64, spans: u32, bytes: usize) -> Part {
        Part { block, first: 0, end: spans, of: spans, bytes }
    }

    fn sizes(gather: &mut Gather, limit: usize) -> Vec<(usize, u64)> {
        let mut sizes = Vec::new();
        while let Some(work) = gather.take(limit, Duration::MAX / 2) {
            sizes.push((work.parts.len(), work.spans));
        }
        sizes
    }

    #[test]
    fn a_batch_waits_for_spans_or_for_its_time() {
        let mut gather = Gather::new(batch(None));
        let at = Duration::from_millis;
        assert_eq!((gather.due(1 << 20, at(0)), gather.due_at()), (None, None));
        gather.push(Signal::Traces, part(0, 199, 100), at(1_000));
        assert_eq!((gather.due(1 << 20, at(1_199)), gather.due_at()), (None, Some(at(1_200))));
        assert_eq!(gather.due(1 << 20, at(1_200)), Some((0, 0)));
        gather.push(Signal::Logs, part(1, 500, 100), at(1_001));
        assert_eq!(gather.due(1 << 20, at(1_001)), Some((1, 0)), "signals are gathered apart");
        gather.push(Signal::Traces, part(2, 1, 100), at(1_002));
        assert_eq!(gather.due(1 << 20, at(1_002)), Some((0, 0)), "two hundred spans wait");
        let work = gather.take(1 << 20, at(1_002)).unwrap();
        assert_eq!((work.signal, work.spans, work.bytes, work.parts.len()), (Signal::Traces, 200, 200, 2));
        assert_eq!(gather.due(1 << 20, at(1_002)), Some((1, 0)), "the logs still wait");
    }

    #[test]
    fn what_is_full_by_bytes_and_what_drains_is_due_at_once() {
        let mut gather = Gather::new(batch(None));
        gather.push(Signal::Traces, part(0, 1, 1000), Duration::ZERO);
        assert_eq!(gather.due(1001, Duration::ZERO), None);
        assert_eq!(gather.due(1000, Duration::ZERO), Some((0, 0)));
        gather.drain();
        assert_eq!(gather.due(1001, Duration::ZERO), Some((0, 0)));
    }

    #[test]
    fn a_lagging_destination_takes_whole_blocks_up_to_the_byte_limit() {
        let mut gather = Gather::new(batch(None));
        for block in 0..40 {
            gather.push(Signal::Traces, part(block, 300, 64 << 10), Duration::ZERO);
        }
        assert_eq!(sizes(&mut gather, 1 << 20), [(16, 4800), (16, 4800), (8, 2400)]);
    }

    #[test]
    fn an_explicit_batch_size_is_a_hard_cap_cut_at_span_boundaries() {
        let mut gather = Gather::new(batch(Some(200)));
        gather.push(Signal::Traces, part(0, 90, 900), Duration::ZERO);
        gather.push(Signal::Traces, part(1, 350, 3500), Duration::ZERO);
        assert_eq!(sizes(&mut gather, 1 << 20), [(2, 200), (1, 200), (1, 40)]);
    }

    #[test]
    fn a_block_above_the_byte_limit_is_cut_and_a_huge_span_goes_alone() {
        let mut gather = Gather::new(batch(None));
        gather.push(Signal::Traces, part(0, 10, 1000), Duration::ZERO);
        gather.push(Signal::Traces, part(1, 1, 1000), Duration::ZERO);
        assert_eq!(sizes(&mut gather, 450), [(1, 4), (1, 4), (1, 2), (1, 1)]);
    }

    #[test]
    fn what_is_abandoned_is_given_up_once_and_nothing_else() {
        let mut gather = Gather::new(batch(None));
        for block in 0..6 {
            let signal = if block % 2 == 0 { Signal::Traces } else { Signal::Logs };
            gather.push(signal, part(block, 10, 100), Duration::ZERO);
        }
        let mut given_up = Vec::new();
        gather.abandon(3, |part| given_up.push(part.block));
        given_up.sort_unstable();
        assert_eq!(given_up, [0, 1, 2]);
        assert_eq!(sizes(&mut gather, 1 << 20), [(2, 20), (1, 10)]);
    }
}
