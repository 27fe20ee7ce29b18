//! A destination's place: its durable cursor over all lanes, how far it may lag, and who is told when it has moved.
//!
//! Owned by the destination's thread. A commit takes only what is settled and durable; afterwards the segments that nobody
//! needs any more are released.

use std::io;
use std::sync::Arc;

use super::release::{Member, Release};
use super::sabotage::{Sabotage, planted};
use super::window::{LaneState, Window};
use crate::config::{Requirement, StartAt};
use crate::queue::{Cursor, Log, Position};
use crate::telemetry::ledger::DestinationTotals;

/// The cursor and what belongs to it.
pub struct Place {
    cursor: Cursor,
    lanes: Vec<Arc<Log>>,
    max_lag_bytes: Option<u64>,
    release: Option<(Arc<Release>, Member)>,
}

impl Place {
    /// The place of a destination over `lanes`, with the state of each: as committed, or where a new one starts. One that was
    /// there before is owed all that is in a log of which its cursor says nothing, wherever it started. The start is
    /// committed at once: a place at the tail would be another one after a restart, and what lay between be skipped.
    pub fn open(
        mut cursor: Cursor,
        lanes: &[Arc<Log>],
        requirement: Requirement,
        start: StartAt,
    ) -> io::Result<(Place, Vec<LaneState<Position>>)> {
        let is_new = cursor.lanes().is_empty() && !cursor.was_damaged();
        let start = if is_new { start } else { StartAt::Oldest };
        let (mut states, mut moves) = (Vec::with_capacity(lanes.len()), Vec::new());
        for log in lanes {
            let state = match cursor.lane(log) {
                Some(entry) => LaneState { position: entry.position, totals: entry.totals },
                None => start_state(log, start),
            };
            if cursor.lane(log).is_none() {
                moves.push((&**log, state.position, state.totals));
            }
            states.push(state);
        }
        if !moves.is_empty() {
            cursor.commit(&moves)?;
        }
        let mut place = Place { cursor, lanes: lanes.to_vec(), max_lag_bytes: None, release: None };
        place.require(requirement);
        Ok((place, states))
    }

    /// From now on the destination may hold senders up, or may not.
    pub fn require(&mut self, requirement: Requirement) {
        // A destination may lag so far over all lanes together; lanes are filled alike.
        self.max_lag_bytes = match requirement {
            Requirement::Required => None,
            Requirement::Optional { max_lag_bytes } => Some(max_lag_bytes / self.lanes.len().max(1) as u64),
        };
    }

    /// What lanes without any log still count.
    #[must_use]
    pub fn totals_elsewhere(&self) -> Vec<DestinationTotals> {
        let here = |lane: u32| self.lanes.iter().any(|log| log.lane() == lane);
        let elsewhere = self.cursor.lanes().iter().filter(|entry| !here(entry.lane));
        elsewhere.map(|entry| entry.totals).collect()
    }

    /// Segments are released as this destination moves.
    pub fn release_with(&mut self, release: Arc<Release>, member: Member) {
        self.release = Some((release, member));
    }

    /// Where a lane's cursor has to jump to, if the destination lags further than it may.
    #[must_use]
    pub fn jump(&self, lane: usize, window: &Window<Position>) -> Option<Position> {
        let to = self.lanes[lane].position_at_lag(self.max_lag_bytes?);
        (window.front(lane) < to).then_some(to)
    }

    /// A lane has come to another segment since the last commit: committing now lets the one before be written again while
    /// it is still in the page cache.
    #[must_use]
    pub fn frees_a_segment(&self, window: &Window<Position>) -> bool {
        let mut lanes = window.committable().enumerate();
        lanes.any(|(lane, committed)| window.front(lane).segment > committed.position.segment)
    }

    /// The end of a lane's log, as of its last commit-mark.
    #[must_use]
    pub fn tail(&self, lane: usize) -> Position {
        self.lanes[lane].tail()
    }

    /// The start of a lane's newest segment.
    #[must_use]
    pub fn newest(&self, lane: usize) -> Position {
        self.lanes[lane].position_at_lag(0)
    }

    /// Makes what is settled and durable the destination's place.
    pub fn commit(&mut self, window: &mut Window<Position>) -> io::Result<()> {
        if planted(Sabotage::EarlyRelease)
            && let Some((release, member)) = &self.release
        {
            release.moved(*member, (0..self.lanes.len()).map(|lane| window.front(lane)));
            if !window.front(0).sequence.is_multiple_of(4) {
                return Ok(());
            }
        }
        let durable = |lane: usize| {
            if planted(Sabotage::CursorPastDurable) { u64::MAX } else { self.lanes[lane].durable_sequence() }
        };
        if !window.catch_up(durable) {
            return Ok(());
        }
        let moves: Vec<(&Log, Position, DestinationTotals)> = self
            .lanes
            .iter()
            .zip(window.committable())
            .map(|(log, state)| {
                let totals = if planted(Sabotage::TotalsAhead) { window.totals() } else { state.totals };
                (&**log, state.position, totals)
            })
            .collect();
        self.cursor.commit(&moves)?;
        window.committed();
        if let Some((release, member)) = &self.release {
            release.moved(*member, window.committable().map(|state| state.position));
        }
        Ok(())
    }
}

fn start_state(log: &Log, start: StartAt) -> LaneState<Position> {
    let position = match start {
        StartAt::Oldest => log.oldest(),
        // Not the newest mark: a reload may come between two syncs.
        StartAt::Tail => log.durable_tail(),
    };
    LaneState {
        position,
        totals: DestinationTotals { skipped_at_start: position.spans, ..DestinationTotals::default() },
    }
}
