//! What the sync thread does after it has told those who wait: footers, the index, files that were released, the next spare.
//!
//! The order is what crash safety rests on: a footer after a sync of what it speaks of, the index after the footer, and the
//! lane's state before any file goes that it may have to speak for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::budget::Bound;
use super::format::{Footer, segment_name};
use super::log::{Log, SyncSide, lock};
use super::mark::Mark;
use super::pool::NoSpare;
use super::position::Position;
use super::sabotage::{Sabotage, planted};
use super::segment::Segment;
use super::state::State;
use super::storage::Storage;

/// Segments that one call disposes of: the thread that syncs must not unlink a backlog of a hundred thousand in one turn.
const DISPOSED_A_CALL: usize = 64;

impl Log {
    /// What can wait: footers, the lane's state, files that were released, and the next spare. Called by the sync thread
    /// after it has told those who wait for durability; takes some syncs, so at most once a second unless
    /// [`Log::wants_tending`].
    pub fn tend(&self, wall_ns: u64) -> io::Result<()> {
        let mut side = lock(&self.sync_side);
        self.write_footers(&mut side);
        self.close_files();
        self.dispose(&mut side)?;
        // It is what tells damage at the end of the log from the tail of a crash. A hint: without it the next time will do.
        let state = self.state(&side);
        side.state.note(&state).ok();
        match self.pool.prepare(&*self.storage, wall_ns, (1, Bound::Budget)) {
            // A full disk is the writer's to report, when it needs the room.
            Ok(()) | Err(NoSpare::Full) => Ok(()),
            Err(NoSpare::Storage(error)) => Err(error),
        }
    }

    /// Says durably what is durable: nobody will append any more. Called by the sync thread after its last sync.
    pub fn leave(&self) -> io::Result<()> {
        let mut side = lock(&self.sync_side);
        let state = self.state(&side);
        side.state.write(&state)
    }

    fn state(&self, side: &SyncSide) -> State {
        State {
            incarnation: self.incarnation,
            next_segment: self.pool.next_segment(),
            sequence_floor: self.published_sequence(),
            mark: Mark { durable: self.durable_sequence(), totals: side.durable_mark.mark.totals },
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
            let is_early = planted(Sabotage::EarlyFooter) && !segment.extent.is_suspect();
            let is_due = segment.extent.is_complete() || is_early;
            // Relaxed: stored by this thread.
            if !is_due || segment.footer_written.load(Ordering::Relaxed) {
                continue;
            }
            let (Some(footer), Some(file)) = (segment.footer.get(), segment.kept()) else { continue };
            if footer.write(&*file, segment.header.key, segment.id()).is_err() {
                // The entries are durable; without its footer the segment is scanned at the next start.
                self.sync_failures.fetch_add(1, Ordering::Relaxed);
                segment.extent.suspect();
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
        let retired = self.take_disposable(&side.durable_mark.position);
        if retired.is_empty() {
            return Ok(());
        }
        // Whatever was released is durable: recovery must know it, or it would take what is gone for the tail of a crash.
        let state = self.state(side);
        if let Err(error) = side.state.write(&state) {
            lock(&self.retired).extend(retired);
            return Err(error);
        }
        let (mut recycled, mut is_put_aside, mut failure) = (Vec::new(), false, None);
        let (mut retired, mut kept) = (retired.into_iter(), Vec::new());
        while let Some(segment) = retired.next() {
            let taken = if self.is_readable(&segment) {
                self.pool.take_back(&*self.storage, segment, recycled.len())
            } else {
                is_put_aside = true;
                self.put_aside(&segment).map(|()| None).map_err(|error| (segment, error))
            };
            match taken {
                Ok(name) => recycled.extend(name),
                // It is tried again. Those behind a file that blocks were moved from wait for it: without them, what is
                // missing in it would count as lost.
                Err((segment, error)) => {
                    failure = Some(error);
                    let was_moved = segment.extent.is_suspect();
                    kept.push(segment);
                    if was_moved {
                        kept.extend(retired.by_ref());
                    }
                }
            }
        }
        lock(&self.retired).extend(kept);
        if is_put_aside {
            self.storage.sync_directory(&self.options.quarantine)?;
        }
        self.storage.sync_directory(&self.options.directory)?;
        self.storage.sync_directory(&self.options.directory.join("free"))?;
        self.pool.add_free(recycled);
        self.options.budget.wake();
        failure.map_or(Ok(()), Err)
    }

    /// The oldest segments that may go now. What was released without its last mark being durable stays: the totals that
    /// take its place in the lane's state must cover it. A file that blocks were moved from stays until they are durable in
    /// another one. Oldest first, as they go.
    fn take_disposable(&self, covered: &Position) -> Vec<Arc<Segment>> {
        let may_go = |segment: &Arc<Segment>| {
            let moved = segment.extent.is_suspect();
            segment.consumed_at(covered) && (!moved || segment.id() < covered.segment)
        };
        let mut retired = lock(&self.retired);
        retired.sort_unstable_by_key(|segment| segment.id());
        let count = retired.iter().take(DISPOSED_A_CALL).take_while(|segment| may_go(segment)).count();
        retired.drain(..count).collect()
    }

    /// A segment whose key is missing was passed: its file is no longer part of the log, but not ours to destroy.
    fn put_aside(&self, segment: &Segment) -> io::Result<()> {
        let name = format!("lane-{:02}-{}", self.options.lane, segment_name(segment.id()));
        let target = unused(&*self.storage, &self.options.quarantine, name)?;
        self.storage.rename(&segment.path(&self.options.directory), &target)?;
        self.options.budget.give_back(segment.header.file_bytes);
        Ok(())
    }
}

/// A path in `directory` that nothing has: `name`, or with a number behind it.
pub(super) fn unused(storage: &dyn Storage, directory: &Path, name: String) -> io::Result<PathBuf> {
    let taken = storage.list(directory)?;
    let numbered = (1..).map(|number| format!("{name}.{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    let free = names.find(|name| !taken.contains(name)).expect("there are more numbers than files");
    Ok(directory.join(free))
}
