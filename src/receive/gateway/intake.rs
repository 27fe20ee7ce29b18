//! Where the gateway's doors hand payloads in, and learn what became of them.
//!
//! Owned by the gateway's thread and shared by its handlers. It owns the outlet, the open block of each passing source
//! and the encoder of each source of rows. Requests that come in one turn of the loop share a block; the block is closed
//! at [`TARGET_BYTES`], or by the flush task at the end of the turn. A request holds a [`Receipt`], which is settled when
//! every block that may hold something of it has its verdict.
//!
//! Nothing is pushed without room: a request is refused as a whole ([`Busy`]) unless all its blocks fit beside those that
//! are open; only rows may come in several goes. `room` is an estimate for rows, and the ring counts spans besides; what
//! does not fit after all waits in the backlog, and while there is one nobody else gets in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::sync::Notify;

use crate::block::{Block, MAX_BYTES, Made, Meta, Outlet, Refusal, Signal, SourceId, TARGET_BYTES, VerdictOutcome};
use crate::otlp::Summary;
use crate::uberagent::Encoder;

/// Blocks that an encoder may still hold when its rows are final: one a signal.
const OPEN_BLOCKS_OF_ROWS: usize = 2;

/// Blocks that one call of [`Intake::rows`] may fill at most: a bounded turn, and room for others between two calls.
const ROWS_AT_ONCE_BLOCKS: usize = 32;

/// Body buffers kept for the next request, and the largest that is.
const KEPT_BUFFERS: usize = 8;
const KEPT_BUFFER_BYTES: usize = MAX_BYTES;

/// There is no room; nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// What became of everything that a request handed in; the worst of its blocks' verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Acknowledged under the configured durability.
    Durable,
    /// Some of it is not stored.
    Refused(Refusal),
    /// It may be stored.
    Unknown,
}

/// A request's claim to an answer.
#[derive(Debug)]
pub(crate) struct Receipt {
    /// Blocks without verdict, and one while the request may still be in an open block.
    outstanding: Cell<u32>,
    worst: Cell<Settled>,
    waker: RefCell<Option<Waker>>,
}

impl Receipt {
    fn new() -> Rc<Receipt> {
        let worst = Cell::new(Settled::Durable);
        Rc::new(Receipt { outstanding: Cell::new(1), worst, waker: RefCell::new(None) })
    }

    fn settle(&self, outcome: VerdictOutcome) {
        match outcome {
            VerdictOutcome::Durable => {}
            VerdictOutcome::Refused(refusal) if self.worst.get() == Settled::Durable => {
                self.worst.set(Settled::Refused(refusal));
            }
            VerdictOutcome::Refused(_) => {}
            VerdictOutcome::Unknown => self.worst.set(Settled::Unknown),
        }
        self.outstanding.set(self.outstanding.get() - 1);
        if self.outstanding.get() == 0
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    fn add_block(&self) {
        self.outstanding.set(self.outstanding.get() + 1);
    }

    /// Waits for the last verdict.
    pub(crate) async fn settled(&self) -> Settled {
        poll_fn(|context| {
            if self.outstanding.get() == 0 {
                return Poll::Ready(self.worst.get());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

type Receipts = Vec<Rc<Receipt>>;

/// What a source has open.
enum Open {
    /// Requests of this turn, one behind the other.
    Passed(Option<Block>),
    /// Rows.
    Rows(Box<Encoder>),
}

struct Slot {
    source: SourceId,
    open: Open,
    /// Requests that are, at least in part, in what is open.
    receipts: Receipts,
}

struct State<O> {
    outlet: O,
    slots: Vec<Slot>,
    backlog: VecDeque<(Block, Receipts)>,
    /// The receipts of each ticket without verdict, oldest first: tickets are dense.
    asked: VecDeque<Receipts>,
    buffers: Vec<Vec<u8>>,
    room_freed: Rc<Notify>,
}

/// See the module.
pub(crate) struct Intake<O> {
    state: RefCell<State<O>>,
    flush_due: Notify,
    /// Verdicts have come, and with them perhaps room.
    room_freed: Rc<Notify>,
}

impl<O: Outlet> Intake<O> {
    /// An intake without sources.
    pub(crate) fn new(outlet: O) -> Intake<O> {
        let (slots, buffers, room_freed) = (Vec::new(), Vec::new(), Rc::<Notify>::default());
        let (backlog, asked) = (VecDeque::new(), VecDeque::new());
        let state = State { outlet, slots, backlog, asked, buffers, room_freed: room_freed.clone() };
        Intake { state: RefCell::new(state), flush_due: Notify::new(), room_freed }
    }

    /// Adds a source of OTLP payloads; its slot.
    pub(crate) fn add_passed(&self, source: SourceId) -> usize {
        self.add(Slot { source, open: Open::Passed(None), receipts: Vec::new() })
    }

    /// Adds a source of rows; its slot.
    pub(crate) fn add_rows(&self, source: SourceId, encoder: Encoder) -> usize {
        self.add(Slot { source, open: Open::Rows(Box::new(encoder)), receipts: Vec::new() })
    }

    /// Rows of a source become spans in another way from now on; what is open is closed.
    pub(crate) fn remap(&self, slot: usize, encoder: Encoder) {
        let state = &mut *self.state.borrow_mut();
        state.close(slot);
        state.slots[slot].open = Open::Rows(Box::new(encoder));
    }

    fn add(&self, slot: Slot) -> usize {
        let slots = &mut self.state.borrow_mut().slots;
        slots.push(slot);
        slots.len() - 1
    }

    /// An empty buffer for a body.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let state = &mut *self.state.borrow_mut();
        state.buffers.pop().unwrap_or_else(|| state.outlet.spare())
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        let buffers = &mut self.state.borrow_mut().buffers;
        if buffers.len() < KEPT_BUFFERS && buffer.capacity() <= KEPT_BUFFER_BYTES {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// Stores payloads of at most [`MAX_BYTES`] as blocks of their own, all or none.
    pub(crate) fn store(
        &self,
        slot: usize,
        received_ns: u64,
        payloads: Vec<(Vec<u8>, Summary)>,
    ) -> Result<Rc<Receipt>, Busy> {
        let state = &mut *self.state.borrow_mut();
        if state.room() < payloads.len() {
            return Err(Busy);
        }
        let receipt = Receipt::new();
        let source = state.slots[slot].source;
        for (payload, summary) in payloads {
            debug_assert!(payload.len() <= MAX_BYTES, "a payload of {} bytes", payload.len());
            let mut meta = Meta::empty(Signal::Traces, Made::Passed, source, received_ns);
            add_to(&mut meta, summary);
            receipt.add_block();
            state.push(Block { meta, payload, awaited: true }, vec![receipt.clone()]);
        }
        receipt.settle(VerdictOutcome::Durable);
        Ok(receipt)
    }

    /// Appends a payload, much smaller than [`TARGET_BYTES`], to the open block of its source.
    pub(crate) fn merge(
        &self,
        slot: usize,
        received_ns: u64,
        payload: &[u8],
        summary: Summary,
    ) -> Result<Rc<Receipt>, Busy> {
        let state = &mut *self.state.borrow_mut();
        if !matches!(state.slots[slot].open, Open::Passed(Some(_))) {
            if state.room() == 0 {
                return Err(Busy);
            }
            let meta = Meta::empty(Signal::Traces, Made::Passed, state.slots[slot].source, received_ns);
            state.slots[slot].open = Open::Passed(Some(Block::open(meta, state.outlet.spare())));
        }
        let receipt = Receipt::new();
        let slot_state = &mut state.slots[slot];
        slot_state.receipts.push(receipt.clone());
        let Open::Passed(Some(block)) = &mut slot_state.open else { unreachable!("a block was opened above") };
        block.payload.extend_from_slice(payload);
        add_to(&mut block.meta, summary);
        if block.payload.len() >= TARGET_BYTES {
            state.close(slot);
        } else {
            self.flush_due.notify_one();
        }
        Ok(receipt)
    }

    /// Lends the source's encoder to `decode`, with the bytes of rows that it may take: nothing of a row beyond them
    /// may reach the encoder, because its state cannot be taken back.
    pub(crate) fn rows<T>(
        &self,
        slot: usize,
        decode: impl FnOnce(&mut Encoder, usize) -> T,
    ) -> Result<(T, Rc<Receipt>), Busy> {
        let state = &mut *self.state.borrow_mut();
        let room_bytes = state.room_for_rows_bytes();
        if room_bytes == 0 {
            return Err(Busy);
        }
        let spare = state.outlet.spare();
        let slot_state = &mut state.slots[slot];
        let Open::Rows(encoder) = &mut slot_state.open else { unreachable!("rows come to a source of rows") };
        encoder.recycle(spare);
        let decoded = decode(encoder, room_bytes);
        encoder.end_together();
        let receipt = Receipt::new();
        slot_state.receipts.push(receipt.clone());
        let mut closed = Vec::new();
        while let Some(block) = encoder.pop_closed() {
            closed.push(block);
        }
        for block in closed {
            state.push_rows(slot, block);
        }
        self.flush_due.notify_one();
        Ok((decoded, receipt))
    }

    /// Waits until [`Intake::rows`] has room for a row of so many bytes.
    pub(crate) async fn room_for_row(&self, bytes: usize) {
        loop {
            let mut freed = pin!(self.room_freed.notified());
            // From here on a notification is remembered: the look below cannot miss one.
            freed.as_mut().enable();
            let room_bytes = self.state.borrow_mut().room_for_rows_bytes();
            if room_bytes > 0 && room_bytes >= bytes {
                return;
            }
            freed.await;
        }
    }

    /// Waits until somebody waits for what is open.
    pub(crate) async fn flush_due(&self) {
        self.flush_due.notified().await;
    }

    /// Closes everything that is open.
    pub(crate) fn flush(&self) {
        let state = &mut *self.state.borrow_mut();
        for slot in 0..state.slots.len() {
            state.close(slot);
        }
    }

    /// Takes the verdicts that have come; whether there were any.
    pub(crate) fn take_verdicts(&self) -> bool {
        self.state.borrow_mut().take_verdicts()
    }

    /// Asks for the doorbell.
    pub(crate) fn park(&self) {
        self.state.borrow_mut().outlet.park();
    }

    /// Whether everything handed in is in the ring.
    pub(crate) fn is_handed_over(&self) -> bool {
        let state = self.state.borrow();
        state.backlog.is_empty() && state.slots.iter().all(|slot| slot.receipts.is_empty())
    }

    /// Gives up what the ring has no room for, as the process stops: what it was.
    pub(crate) fn abandon(&self) -> Vec<Meta> {
        self.flush();
        self.state.borrow_mut().backlog.drain(..).map(|(block, _)| block.meta).collect()
    }
}

impl<O: Outlet> State<O> {
    /// Blocks that can be pushed beside those that are open.
    fn room(&mut self) -> usize {
        self.take_verdicts();
        if !self.backlog.is_empty() {
            return 0;
        }
        let open = |slot: &Slot| match &slot.open {
            Open::Passed(block) => usize::from(block.is_some()),
            Open::Rows(_) if slot.receipts.is_empty() => 0,
            Open::Rows(_) => OPEN_BLOCKS_OF_ROWS,
        };
        self.outlet.room().saturating_sub(self.slots.iter().map(open).sum())
    }

    /// Bytes of rows that can be encoded now.
    fn room_for_rows_bytes(&mut self) -> usize {
        // The encoder's own blocks count anew: rows can double in size, and what stays open is a block a signal.
        let blocks = self.room().saturating_sub(OPEN_BLOCKS_OF_ROWS);
        blocks.min(ROWS_AT_ONCE_BLOCKS) * TARGET_BYTES / 2
    }

    fn take_verdicts(&mut self) -> bool {
        let mut any = false;
        while let Some(verdict) = self.outlet.verdict() {
            any = true;
            for _ in verdict.first.0..=verdict.last.0 {
                let receipts = self.asked.pop_front().expect("a verdict answers tickets that were given out, in order");
                receipts.iter().for_each(|receipt| receipt.settle(verdict.outcome));
            }
        }
        while self.outlet.room() > 0
            && let Some((block, receipts)) = self.backlog.pop_front()
        {
            self.hand_over(block, receipts);
        }
        if any {
            self.room_freed.notify_waiters();
        }
        any
    }

    fn push(&mut self, block: Block, receipts: Receipts) {
        if self.backlog.is_empty() && self.outlet.room() > 0 {
            self.hand_over(block, receipts);
        } else {
            self.backlog.push_back((block, receipts));
        }
    }

    fn hand_over(&mut self, block: Block, receipts: Receipts) {
        self.outlet.push(block);
        self.asked.push_back(receipts);
    }

    /// Pushes a block of rows. Which requests' rows it holds is not tracked: all that have open rows wait for it.
    fn push_rows(&mut self, slot: usize, mut block: Block) {
        let receipts = self.slots[slot].receipts.clone();
        receipts.iter().for_each(|receipt| receipt.add_block());
        block.awaited = true;
        self.push(block, receipts);
    }

    /// Closes what a slot has open.
    fn close(&mut self, slot: usize) {
        if let Open::Passed(open) = &mut self.slots[slot].open {
            let Some(mut block) = open.take() else { return };
            block.awaited = true;
            let receipts = std::mem::take(&mut self.slots[slot].receipts);
            self.push(block, receipts);
            return;
        }
        while let Open::Rows(encoder) = &mut self.slots[slot].open
            && let Some(block) = encoder.close()
        {
            self.push_rows(slot, block);
        }
        for receipt in std::mem::take(&mut self.slots[slot].receipts) {
            // Settles the claim to the open rows; those of the blocks just pushed remain.
            receipt.settle(VerdictOutcome::Durable);
        }
    }
}

fn add_to(meta: &mut Meta, summary: Summary) {
    meta.spans += summary.spans;
    meta.cover(summary.first_start_ns, summary.last_end_ns);
}
