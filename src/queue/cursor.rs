//! How far a destination has got, durably: one file of two slots for all lanes.
//!
//! Written by the destination's thread, at most once a second or 256 requests, and at drain. A position is committed
//! together with the destination's totals *as of exactly that position*, and never past what the lane has made durable.
//! What lay between a crash and the last commit is sent again. The payload of a slot (`slots` has the frame):
//!
//! ```text
//! u32 entries, u32 zero, then for each lane ever seen, 160 bytes:
//! off size field
//!   0   4  lane               16   8  segment     32  8  sequence of the last block before
//!   4   4  zero               24   8  offset      40  8  spans before
//!   8   8  lane incarnation   48 112  delivered, refused_by_peer, dead_lettered, dropped x 8,
//!                                     lost, skipped_at_start, redelivered
//! ```

use std::io;
use std::path::Path;

use super::fields::{Fields, Writer};
use super::log::Log;
use super::position::Position;
use super::sabotage::{Sabotage, planted};
use super::slots::{MAX_PAYLOAD_BYTES, Slots};
use super::storage::Storage;
use crate::telemetry::ledger::{DROP_REASONS, DestinationTotals};

const MAGIC: [u8; 8] = *b"MRCURS01";
const LANE_BYTES: usize = 160;

/// Lanes that fit a cursor, those of earlier configurations included.
pub const MAX_LANES: usize = (MAX_PAYLOAD_BYTES - 8) / LANE_BYTES;

/// A destination's place in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCursor {
    /// The lane.
    pub lane: u32,
    /// The log that the position is in.
    pub incarnation: u64,
    /// Everything before it is settled.
    pub position: Position,
    /// What became of the lane's spans before the position.
    pub totals: DestinationTotals,
}

/// The durable cursor of a destination.
#[derive(Debug)]
pub struct Cursor {
    slots: Slots,
    lanes: Vec<LaneCursor>,
    was_damaged: bool,
}

impl Cursor {
    /// Opens `directory/cursor`, or creates it. A file that cannot be believed is an empty one: everything still in the log
    /// is delivered again. Fails only when the directory cannot be written.
    pub fn open(storage: &dyn Storage, directory: &Path) -> io::Result<Cursor> {
        storage.create_directory(directory)?;
        let existed = storage.list(directory)?.iter().any(|name| name == "cursor");
        let (slots, payload) = Slots::open(storage, &directory.join("cursor"), MAGIC)?;
        let lanes = payload.as_deref().and_then(decode);
        let was_damaged = existed && lanes.is_none();
        Ok(Cursor { slots, lanes: lanes.unwrap_or_default(), was_damaged })
    }

    /// The file was there and neither slot could be believed, or nothing was ever committed to it.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        self.was_damaged
    }

    /// Every lane that was ever committed, vanished ones too: their totals still count.
    #[must_use]
    pub fn lanes(&self) -> &[LaneCursor] {
        &self.lanes
    }

    /// The durable place in this log; `None` when the destination was never there or the lane's log is another one now.
    #[must_use]
    pub fn lane(&self, log: &Log) -> Option<&LaneCursor> {
        self.lanes.iter().find(|entry| entry.lane == log.lane() && entry.incarnation == log.incarnation())
    }

    /// Makes positions durable, each with the totals as of it; lanes that are not named keep theirs. Panics when a position
    /// is past what its lane has made durable: the caller holds it back ([`Log::durable_sequence`]).
    pub fn commit(&mut self, moves: &[(&Log, Position, DestinationTotals)]) -> io::Result<()> {
        let mut lanes = self.lanes.clone();
        for (log, position, totals) in moves {
            let durable = log.durable_sequence();
            let held = position.sequence <= durable || planted(Sabotage::CursorAhead);
            assert!(held, "a cursor at {} of {durable} durable", position.sequence);
            let entry =
                LaneCursor { lane: log.lane(), incarnation: log.incarnation(), position: *position, totals: *totals };
            match lanes.iter_mut().find(|known| known.lane == entry.lane) {
                Some(known) => *known = entry,
                None => lanes.push(entry),
            }
        }
        assert!(lanes.len() <= MAX_LANES, "{} lanes in a cursor", lanes.len());
        self.slots.write(&encode(&lanes))?;
        self.lanes = lanes;
        Ok(())
    }
}

fn encode(lanes: &[LaneCursor]) -> Vec<u8> {
    let mut writer = Writer(Vec::with_capacity(8 + lanes.len() * LANE_BYTES));
    writer.u32(u32::try_from(lanes.len()).expect("at most MAX_LANES"));
    writer.u32(0);
    for entry in lanes {
        writer.u32(entry.lane);
        writer.u32(0);
        let (position, totals) = (&entry.position, &entry.totals);
        for field in [entry.incarnation, position.segment, position.offset, position.sequence, position.spans] {
            writer.u64(field);
        }
        for field in [totals.delivered, totals.refused_by_peer, totals.dead_lettered] {
            writer.u64(field);
        }
        for field in totals.dropped.into_iter().chain([totals.lost, totals.skipped_at_start, totals.redelivered]) {
            writer.u64(field);
        }
    }
    writer.0
}

fn decode(payload: &[u8]) -> Option<Vec<LaneCursor>> {
    let mut fields = Fields(payload);
    let (count, _zero) = (fields.u32()?, fields.u32()?);
    (0..count).map(|_| decode_lane(&mut fields)).collect()
}

fn decode_lane(fields: &mut Fields<'_>) -> Option<LaneCursor> {
    let (lane, _zero, incarnation) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let position = Position {
        segment: fields.count()?,
        offset: fields.count()?,
        sequence: fields.count()?,
        spans: fields.count()?,
    };
    let mut totals = DestinationTotals {
        delivered: fields.count()?,
        refused_by_peer: fields.count()?,
        dead_lettered: fields.count()?,
        ..DestinationTotals::default()
    };
    for reason in 0..DROP_REASONS {
        totals.dropped[reason] = fields.count()?;
    }
    totals.lost = fields.count()?;
    totals.skipped_at_start = fields.count()?;
    totals.redelivered = fields.count()?;
    Some(LaneCursor { lane, incarnation, position, totals })
}
