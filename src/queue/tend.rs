//! What the sync thread does after it has told those who wait: footers, the index, files that were released, the next spare.
//!
//! The order is what crash safety rests on: a footer after a sync of what it speaks of, the index after the footer, and the
//! lane's state before any file goes that it may have to speak for.

use std::io;
use std::sync::atomic::Ordering;

use super::format::{Footer, segment_name};
use super::log::{Log, SyncSide, lock};
use super::mark::Mark;
use super::pool::NoSpare;
use super::sabotage::{Sabotage, planted};
use super::segment::Segment;
use super::state::State;

impl Log {
    /// What can wait: footers, the lane's state, files that were released, and the next spare. Called by the sync thread
    /// after it has told those who wait for durability; takes some syncs, so at most once a second unless
    /// [`Log::wants_tending`].
    pub fn tend(&self, wall_ns: u64) -> io::Result<()> {
        let mut side = lock(&self.sync_side);
        self.write_footers(&mut side);
        self.close_files();
        self.dispose(&mut side)?;
        match self.pool.prepare(&*self.storage, wall_ns) {
            // A full disk is the writer's to report, when it needs the room.
            Ok(()) | Err(NoSpare::Full) => Ok(()),
            Err(NoSpare::Storage(error)) => Err(error),
        }
    }

    /// Whether [`Log::tend`] has something to do at once: the spare was taken, or segments were released.
    #[must_use]
    pub fn wants_tending(&self) -> bool {
        !lock(&self.retired).is_empty() || self.pool.free_segments() == 0
    }

    fn write_footers(&self, side: &mut SyncSide) {
        let unfinished = lock(&self.segments).unfinished();
        for segment in unfinished {
            if let Some(footer) = segment.footer.get()
                && planted(Sabotage::IndexEarly)
            {
                self.record(side, &segment, footer);
            }
            let durable = !segment.needs_sync() || planted(Sabotage::EarlyFooter);
            if segment.suspect.load(Ordering::Relaxed) || !durable || segment.footer_written.load(Ordering::Relaxed) {
                continue;
            }
            let (Some(footer), Some(file)) = (segment.footer.get(), segment.kept()) else { continue };
            if footer.write(&*file, segment.header.key, segment.id()).is_err() {
                // The entries are durable; without its footer the segment is scanned at the next start.
                self.sync_failures.fetch_add(1, Ordering::Relaxed);
                segment.suspect.store(true, Ordering::Relaxed);
            } else {
                self.record(side, &segment, footer);
            }
            segment.footer_written.store(true, Ordering::Relaxed);
        }
    }

    /// Closes the files behind the newest: as long as destinations keep up, a file goes back to the pool open and mapped.
    fn close_files(&self) {
        let segments = lock(&self.segments);
        let older = segments.iter().rev().skip(self.options.pool_segments + 1);
        for segment in older.take_while(|segment| segment.kept().is_some()) {
            if segment.footer_written.load(Ordering::Relaxed) {
                segment.let_go();
            }
        }
    }

    fn record(&self, side: &mut SyncSide, segment: &Segment, footer: &Footer) {
        let lives = |id| lock(&self.segments).from(id).is_some_and(|segment| segment.id() == id);
        side.index.record(&*self.storage, (&segment.header, footer), lives);
    }

    fn dispose(&self, side: &mut SyncSide) -> io::Result<()> {
        // After a failed sync the files that blocks were moved from must stay until a sync of the new ones succeeded.
        if lock(&self.retired).is_empty() || side.failures_in_a_row > 0 {
            return Ok(());
        }
        // Whatever was released is durable: recovery must know it, or it would take what is gone for the tail of a crash.
        let mark = Mark { durable: self.durable_sequence(), totals: side.durable_mark.mark.totals };
        side.state.write(&State {
            incarnation: self.incarnation,
            next_segment: self.pool.next_segment(),
            sequence_floor: self.published_sequence(),
            mark,
        })?;
        let retired = std::mem::take(&mut *lock(&self.retired));
        let mut recycled = Vec::new();
        let mut failure = None;
        for segment in retired {
            let taken = if self.is_readable(&segment) {
                self.pool.take_back(&*self.storage, segment, recycled.len())
            } else {
                self.put_aside(&segment).map(|()| None)
            };
            match taken {
                Ok(name) => recycled.extend(name),
                // Its file stays until the next start, counted in the budget; the others go.
                Err(error) => failure = Some(error),
            }
        }
        self.storage.sync_directory(&self.options.directory)?;
        self.storage.sync_directory(&self.options.directory.join("free"))?;
        self.pool.add_free(recycled);
        self.options.budget.wake();
        failure.map_or(Ok(()), Err)
    }

    /// A segment whose key is missing was passed: its file is no longer part of the log, but not ours to destroy.
    fn put_aside(&self, segment: &Segment) -> io::Result<()> {
        let name = format!("lane-{:02}-{}", self.options.lane, segment_name(segment.id()));
        self.storage.rename(&segment.path(&self.options.directory), &self.options.quarantine.join(name))?;
        self.storage.sync_directory(&self.options.quarantine)?;
        self.options.budget.give_back(segment.header.file_bytes);
        Ok(())
    }
}
