//! What a lane knows beyond its segments: who it is, and numbers that must not be used again.
//!
//! A hint that may lag, never the truth: the segments and their marks win. It outlives them, so the lane balance and the
//! sequence go on when every segment has been consumed, and what is missing at the end of the last one counts as lost.
//! The payload of its slots (`slots` has the frame), little-endian:
//!
//! ```text
//! off size field
//!   0   8  incarnation: random, drawn when the lane's directory was new
//!   8   8  next segment id
//!  16   8  sequence floor: sequences up to here may have been used
//!  24  56  as a commit-mark: durable sequence and lane totals
//! ```

use std::io;
use std::path::Path;

use super::fields::{Fields, Writer};
use super::mark::{MARK_BYTES, Mark};
use super::slots::Slots;
use super::storage::Storage;

const MAGIC: [u8; 8] = *b"MRLANE01";

/// The lane's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) incarnation: u64,
    pub(super) next_segment: u64,
    pub(super) sequence_floor: u64,
    pub(super) mark: Mark,
}

/// The file that holds it.
#[derive(Debug)]
pub(super) struct StateFile {
    slots: Slots,
    /// What it was told last, if that succeeded: a log that rests writes nothing.
    told: Option<State>,
}

impl StateFile {
    pub(super) fn open(storage: &dyn Storage, path: &Path) -> io::Result<(StateFile, Option<State>)> {
        let (slots, payload) = Slots::open(storage, path, MAGIC)?;
        Ok((StateFile { slots, told: None }, payload.and_then(|payload| decode(&payload))))
    }

    /// Durable when it returns `Ok`.
    pub(super) fn write(&mut self, state: &State) -> io::Result<()> {
        self.told = None;
        self.slots.write(&encode(state))
    }

    /// Durable some time later, unless the power goes before.
    pub(super) fn note(&mut self, state: &State) -> io::Result<()> {
        if self.told != Some(*state) {
            self.slots.note(&encode(state))?;
            self.told = Some(*state);
        }
        Ok(())
    }
}

fn encode(state: &State) -> Vec<u8> {
    let mut writer = Writer(Vec::with_capacity(24 + MARK_BYTES));
    writer.u64(state.incarnation);
    writer.u64(state.next_segment);
    writer.u64(state.sequence_floor);
    writer.0.extend_from_slice(&state.mark.encode());
    writer.0
}

fn decode(payload: &[u8]) -> Option<State> {
    let mut fields = Fields(payload);
    Some(State {
        incarnation: fields.u64()?,
        next_segment: fields.count()?,
        sequence_floor: fields.count()?,
        mark: Mark::decode(fields.0)?,
    })
}
