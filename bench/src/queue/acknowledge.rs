//! How long a producer waits until its block is durable, through ring, writer and sync thread, and what the disk alone
//! needs for the same bytes.
//!
//! One block at a time, so that nothing is shared and nothing waits for company.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use crossbeam::sync::Parker;
use millrace::block::{Block, Outlet, VerdictOutcome};
use millrace::config::AckPolicy;
use millrace::pipeline::outlet::{self, RingOutlet};
use millrace::pipeline::sources::Admissions;
use millrace::pipeline::sync::Syncer;
use millrace::pipeline::writer::{LaneWriter, Transforms, WriterOptions};
use millrace::queue::StoredFile;
use millrace::sys::clock;
use millrace::sys::doorbell::Doorbell;
use millrace::telemetry::health::Health;
use millrace::telemetry::ledger;
use rustix::event::{PollFd, PollFlags, poll};

use super::disk::Places;
use super::lane::Lane;

const WARM_UP: usize = 50;
const WAITS: usize = 1000;

/// Longer than any thread here is silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times to wait.
pub(super) struct Waits {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// A block written to `file` and synced by nobody but us, and one pushed by a producer, until its verdict is there.
pub(super) fn beside_disk(file: &dyn StoredFile, lane: Lane) -> Result<[Waits; 2]> {
    let Lane { log, appender, meta, payload, _directory } = lane;
    let (health, parker) = (Health::new(), Parker::new());
    let tick = |name| health.thread(name, PATIENCE, clock::monotonic());
    let lanes = vec![(Arc::clone(&log), parker.unparker().clone())];
    let syncer = Syncer::new(Duration::from_millis(100), lanes, health.component("log"));
    let doorbell = Doorbell::new()?;
    let (mut outlet, end, _) = outlet::pair(64, u64::MAX, doorbell.clone(), parker.unparker().clone());
    let options = WriterOptions {
        log,
        appender,
        ledger: Arc::new(ledger::Lane::default()),
        ack: AckPolicy::Durable,
        admission: Admissions::default(),
        sync_bytes: 8 << 20,
        sync: syncer.request(),
        give_up: Arc::new(AtomicBool::new(false)),
        tap: Arc::default(),
    };
    let transforms = Transforms::none(parker.unparker().clone());
    let (stop, writing, syncing) = (syncer.stopper(), tick("writer"), tick("sync"));
    std::thread::scope(|scope| {
        scope.spawn(|| syncer.run(&syncing));
        let writer = scope.spawn(move || LaneWriter::new(options, transforms, vec![end]).run(&parker, &writing));
        let mut places = Places::new(payload.len());
        let disk = || {
            file.write_at(places.next(), &payload)?;
            Ok(file.sync()?)
        };
        let through_the_log = || {
            let mut block = Block::open(meta, outlet.spare());
            block.payload.extend_from_slice(&payload);
            block.awaited = true;
            outlet.push(block);
            until_durable(&mut outlet, &doorbell)
        };
        let measured = by_turns(disk, through_the_log);
        drop(outlet);
        writer.join().expect("the writer does not panic");
        stop.stop();
        measured
    })
}

fn until_durable(outlet: &mut RingOutlet, doorbell: &Doorbell) -> Result<()> {
    loop {
        outlet.park();
        if let Some(verdict) = outlet.verdict() {
            ensure!(verdict.outcome == VerdictOutcome::Durable, "{:?}", verdict.outcome);
            return Ok(());
        }
        poll(&mut [PollFd::from_borrowed_fd(doorbell.as_fd(), PollFlags::IN)], None)?;
        doorbell.answer();
    }
}

/// Runs each of two by turns, so that a busy neighbour hits both, and sorts their times.
fn by_turns(mut one: impl FnMut() -> Result<()>, mut other: impl FnMut() -> Result<()>) -> Result<[Waits; 2]> {
    let mut waits_ms = [Vec::with_capacity(WAITS), Vec::with_capacity(WAITS)];
    for number in 0..WARM_UP + WAITS {
        let began = clock::monotonic();
        one()?;
        let between = clock::monotonic();
        other()?;
        let ended = clock::monotonic();
        if number >= WARM_UP {
            waits_ms[0].push((between - began).as_secs_f64() * 1e3);
            waits_ms[1].push((ended - between).as_secs_f64() * 1e3);
        }
    }
    Ok(waits_ms.map(|mut waits_ms| {
        waits_ms.sort_by(f64::total_cmp);
        Waits { p50_ms: waits_ms[WAITS / 2], p99_ms: waits_ms[WAITS * 99 / 100] }
    }))
}
