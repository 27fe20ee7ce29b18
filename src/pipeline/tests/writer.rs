//! A lane's writer when a sync has failed and there is no room for a move: who waits is told, and the stop does not wait.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{self, Receiver};
use crossbeam::sync::Parker;

use crate::block::{Block, Made, Meta, Outlet, Refusal, Signal, SourceId, VerdictOutcome};
use crate::config::{AckPolicy, Admission};
use crate::pipeline::outlet::{self, RingOutlet, WriterEnd};
use crate::pipeline::sources::Admissions;
use crate::pipeline::sync::Syncer;
use crate::pipeline::turn::Turn;
use crate::pipeline::writer::{Kept, LaneWriter, Quarantined, Transforms, WriterOptions};
use crate::queue::{Budget, Log, Options};
use crate::sim::disk::SimDisk;
use crate::sys::doorbell::Doorbell;
use crate::telemetry::health::Health;
use crate::telemetry::ledger;
use crate::transform::scripted::Scripted;
use crate::transform::{Chain, Step};

const SEGMENT_BYTES: u64 = 16 * 1024;

/// More than two segments hold.
const BLOCKS: u32 = 60;

struct Lane {
    disk: SimDisk,
    log: Arc<Log>,
    ledger: Arc<ledger::Lane>,
    outlet: RingOutlet,
    writer: LaneWriter,
    give_up: Arc<AtomicBool>,
    admissions: Admissions,
}

/// A lane whose log has room for two segments.
fn lane() -> Lane {
    let parker = Parker::new();
    let writer = parker.unparker().clone();
    let (outlet, end, _) = outlet::pair(BLOCKS as usize, u64::MAX, Doorbell::new().unwrap(), writer.clone());
    lane_of(outlet, end, Transforms::none(writer))
}

fn lane_of(outlet: RingOutlet, end: WriterEnd, transforms: Transforms) -> Lane {
    let disk = SimDisk::new(1);
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        max_payload_bytes: 2048,
        pool_segments: 1,
        budget: Arc::new(Budget::new(2 * SEGMENT_BYTES, 0)),
        ..Options::of_a_test(Path::new(""))
    };
    let (log, appender, _) = Log::open(Arc::new(disk.clone()), options).unwrap();
    let syncer = Syncer::new(Duration::MAX, Vec::new(), Health::new().component("log"));
    let (ledger, give_up) = (Arc::<ledger::Lane>::default(), Arc::<AtomicBool>::default());
    let admissions = Admissions::default();
    let options = WriterOptions {
        log: Arc::clone(&log),
        appender,
        ledger: Arc::clone(&ledger),
        ack: AckPolicy::Durable,
        admission: admissions.clone(),
        sync_bytes: u64::MAX,
        sync: syncer.request(),
        give_up: Arc::clone(&give_up),
        tap: Arc::default(),
    };
    Lane { disk, log, ledger, outlet, writer: LaneWriter::new(options, transforms, vec![end]), give_up, admissions }
}

impl Lane {
    /// Blocks that are awaited, until the log is full; then the next sync fails on a full disk.
    fn fill_and_fail(&mut self) {
        for _ in 0..BLOCKS {
            let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 1);
            meta.spans = 1;
            self.outlet.push(Block { meta, payload: vec![7; 1000], awaited: true });
        }
        self.turn();
        self.turn();
        assert!(self.outlet.verdict().is_none(), "the first has to wait for its sync");
        self.disk.set_free_bytes(0);
        self.disk.fail_sync_after(0);
    }

    fn turn(&mut self) -> Turn {
        self.writer.turn(Duration::ZERO, 1)
    }

    /// Spans that were answered so.
    fn answered(&mut self) -> Vec<(u64, VerdictOutcome)> {
        let verdicts = std::iter::from_fn(|| self.outlet.verdict());
        verdicts.map(|verdict| (verdict.last.0 - verdict.first.0 + 1, verdict.outcome)).collect()
    }
}

#[test]
fn who_waits_for_a_move_without_room_is_told_that_nothing_is_known() {
    let mut lane = lane();
    lane.fill_and_fail();
    lane.log.sync().unwrap();
    lane.turn();
    lane.turn();
    let (appended, refused) = (lane.ledger.appended.get(), lane.ledger.refused.get());
    let told = [(appended, VerdictOutcome::Unknown), (refused, VerdictOutcome::Refused(Refusal::Full))];
    assert_eq!(lane.answered(), told);
    assert!(appended > 7 && appended + refused == u64::from(BLOCKS) && !lane.log.has_failed());
}

#[test]
fn what_is_dropped_is_counted_apart_from_what_will_come_again() {
    for (awaited, admission) in [(true, Admission::DropNewest), (false, Admission::DropNewest)] {
        let mut lane = lane();
        lane.admissions.set(SourceId(0), admission);
        for _ in 0..BLOCKS {
            let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 1);
            meta.spans = 3;
            lane.outlet.push(Block { meta, payload: vec![7; 1000], awaited });
        }
        lane.turn();
        lane.turn();
        let refused = lane.ledger.refused.get();
        assert!(refused > 0 && lane.ledger.is_full.get() == 1, "the log is full");
        assert_eq!(lane.admissions.lost(), [(SourceId(0), if awaited { 0 } else { refused })]);
    }
}

#[test]
fn a_stop_does_not_wait_for_room() {
    let mut lane = lane();
    lane.fill_and_fail();
    lane.log.sync().unwrap();
    lane.give_up.store(true, Ordering::Relaxed);
    let Lane { outlet, mut writer, .. } = lane;
    drop(outlet);
    let turns = (0..3).map(|_| writer.turn(Duration::ZERO, 1)).collect::<Vec<_>>();
    assert!(turns.contains(&Turn::Ended), "{turns:?}");
}

#[test]
fn the_log_is_not_well_while_a_move_waits_for_room() {
    let mut lane = lane();
    let (health, writer) = (Health::new(), Parker::new().unparker().clone());
    let mut syncer = Syncer::new(Duration::ZERO, vec![(Arc::clone(&lane.log), writer)], health.component("log"));
    lane.fill_and_fail();
    for _ in 0..2 {
        syncer.turn(Duration::ZERO, 1);
        lane.turn();
        assert_eq!(
            health.summary(),
            "ready; log: lane 0: a sync failed, and its blocks wait to be moved to another file"
        );
    }
    lane.disk.set_free_bytes(u64::MAX);
    lane.turn();
    syncer.turn(Duration::ZERO, 1);
    assert_eq!((health.summary(), lane.log.unsynced_bytes()), ("ready".to_owned(), 0));
}

/// A lane whose only transform fails on every block, and the keeper's end.
fn failing_lane(of_letters: bool) -> (Lane, Receiver<Quarantined>) {
    let parker = Parker::new();
    let writer = parker.unparker().clone();
    let (outlet, mut end, _) = outlet::pair(BLOCKS as usize, u64::MAX, Doorbell::new().unwrap(), writer.clone());
    end.of_letters = of_letters;
    let (aside, kept) = channel::bounded(1);
    let fails = Step::Scripted(Scripted { aside_every: 1, ..Scripted::default() });
    (lane_of(outlet, end, Transforms::new(Chain::new(vec![fails]), channel::never(), aside, writer)), kept)
}

#[test]
fn a_letter_that_a_transform_fails_on_again_is_refused_and_not_kept_aside_a_second_time() {
    // A request with one span, whose name is "a".
    let payload = vec![0x0a, 7, 0x12, 5, 0x12, 3, 0x2a, 1, b'a'];
    let mut meta = Meta::empty(Signal::Traces, Made::Passed, SourceId(0), 1);
    meta.spans = 1;
    for of_letters in [false, true] {
        let (mut lane, keeper) = failing_lane(of_letters);
        lane.outlet.push(Block { meta, payload: payload.clone(), awaited: true });
        lane.turn();
        if let Ok(quarantined) = keeper.try_recv() {
            quarantined.kept.send(Kept::Durably).unwrap();
        }
        lane.turn();
        let (outcome, booked) = match of_letters {
            false => (VerdictOutcome::Durable, (1, 0)),
            true => (VerdictOutcome::Refused(Refusal::Transforms), (0, 1)),
        };
        assert_eq!(lane.answered(), [(1, outcome)]);
        assert_eq!((lane.ledger.transform_dropped.get(), lane.ledger.refused.get()), booked);
        assert_eq!(lane.ledger.appended.get(), 0);
    }
}
