//! The lanes at start: what each writer is made with, and a lane on each core in turn.
//!
//! Logs beyond the lanes belong to lanes that no longer run: destinations read them to their end, nobody writes to them.

use std::io;

use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender};
use crossbeam::sync::Parker;

use super::ingest::{self, Lane, LaneParts, Shared};
use super::logs::OpenLog;
use super::outlet::WriterEnd;
use super::plugins::Plugins;
use super::writer::{Quarantined, Swap, Transforms};

/// What a lane's writer is made with.
pub struct WriterSeat {
    /// The sync thread and the budget know its other half.
    pub parker: Parker,
    /// Ends of producers besides reactor and gateway.
    pub others: Vec<WriterEnd>,
    transforms: Transforms,
}

/// A seat for each lane that has a receiver of changes. `aside` is where blocks go that its plugins cannot do.
///
/// # Errors
///
/// When there is no thread for heavy plugins.
pub fn seats(
    parkers: Vec<Parker>,
    plugins: &Plugins,
    swaps: Vec<Receiver<Swap>>,
    aside: &Sender<Quarantined>,
) -> io::Result<Vec<WriterSeat>> {
    let seat = |(number, (parker, swaps)): (usize, (Parker, Receiver<Swap>))| {
        let here = Transforms::new(plugins.chain(number), swaps, aside.clone(), parker.unparker().clone());
        let transforms = if plugins.any_heavy() { here.away()? } else { here };
        Ok(WriterSeat { parker, others: Vec::new(), transforms })
    };
    parkers.into_iter().zip(swaps).enumerate().map(seat).collect()
}

/// Starts `count` lanes, on each of the cores in turn.
///
/// # Errors
///
/// When a thread or one of its doorbells cannot be had.
pub fn start(
    logs: Vec<OpenLog>,
    writers: Vec<WriterSeat>,
    (cores, count): (&[CoreId], usize),
    shared: &Shared<'_>,
) -> io::Result<Vec<Lane>> {
    let mut lanes = Vec::with_capacity(count);
    for ((open, seat), number) in logs.into_iter().zip(writers).zip(0u32..).take(count) {
        let WriterSeat { parker: writer, others, transforms } = seat;
        let core = cores.get(number as usize % cores.len().max(1)).copied();
        let OpenLog { log, appender, ledger, unreadable: _ } = open;
        let parts = LaneParts { number, core, log, appender, ledger, others, transforms, writer };
        lanes.push(ingest::start(parts, shared)?);
    }
    Ok(lanes)
}
