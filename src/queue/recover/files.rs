//! What recovery does with the files of a lane beside reading them.
//!
//! It finds those of segments, by their headers and not by their names, puts aside what it cannot use, and gives back what
//! nobody uses of those that it ends.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use super::super::format::{segment_id, segment_name};
use super::super::index::Records;
use super::super::scan::{Found, Judged, may_pass, open_segment};
use super::super::tend::unused;
use super::Recovery;

/// Files are given back in these.
const PAGE_BYTES: u64 = 4096;

impl Recovery {
    /// Opens every file with a segment's name; the id in the header counts. Of two with the same id, the one that is named
    /// after it stays. Of a long backlog the newest are opened, and the index tells of those before.
    pub(super) fn find_segments(&mut self, records: &Records) -> io::Result<Vec<Found>> {
        let mut by_id: BTreeMap<u64, Found> = BTreeMap::new();
        let mut names = self.storage.list(&self.options.directory)?;
        names.retain(|name| name.starts_with("seg-"));
        names.sort();
        self.highest_name = names.iter().filter_map(|name| segment_id(name)).max().unwrap_or(0);
        let believed = names.len().saturating_sub(self.options.opened_at_start);
        for (place, name) in names.into_iter().enumerate() {
            let record = segment_id(&name).filter(|_| place < believed).and_then(|id| records.get(&id));
            if let Some((header, footer)) = record {
                by_id.insert(header.id, Found::believed(name, *header, *footer));
                continue;
            }
            let open = || open_segment(&*self.storage, &self.options.directory, (&name, self.options.lane));
            // Twice: what fails once costs no file its place in the log.
            let found = match open().or_else(|_| open()) {
                Ok(Judged::Segment(found)) => found,
                Ok(Judged::Foreign) => {
                    self.set_aside(&name, &"it is no segment of this lane that can be read");
                    continue;
                }
                Err(error) if may_pass(&error) => return Err(error),
                Err(error) => {
                    self.set_aside(&name, &error);
                    continue;
                }
            };
            let id = found.header.id;
            let right_name = name == segment_name(id);
            let stays = match by_id.remove(&id) {
                None => *found,
                Some(other) => {
                    let (stays, goes) = if right_name { (*found, other) } else { (other, *found) };
                    self.set_aside(&goes.name, &"it is a copy of another segment");
                    stays
                }
            };
            by_id.insert(id, stays);
        }
        Ok(by_id.into_values().collect())
    }

    /// Puts a file aside that cannot be used; one that cannot be moved stays, and is left out.
    pub(super) fn set_aside(&mut self, name: &str, why: &dyn Display) {
        self.recovered.quarantined += 1;
        let lane = self.options.lane;
        match self.quarantine(name) {
            Ok(()) => tracing::error!(lane, file = name, %why, "a file of the log was put into quarantine"),
            Err(error) => {
                tracing::error!(lane, file = name, %why, %error, "a file of the log is left out, and cannot be moved");
            }
        }
    }

    fn quarantine(&self, name: &str) -> io::Result<()> {
        let target = format!("lane-{:02}-{name}-{}", self.options.lane, self.options.wall_ns);
        let target = unused(&*self.storage, &self.options.quarantine, target)?;
        self.storage.rename(&self.options.directory.join(name), &target)?;
        self.storage.sync_directory(&self.options.quarantine)?;
        self.storage.sync_directory(&self.options.directory)
    }

    /// Every start ends a segment early: kept whole, a few starts in a row would fill the log with room that nobody uses.
    pub(super) fn give_back_rest(&self, found: &mut Found, end: u64) {
        let (path, bytes) = (self.options.directory.join(&found.name), end.next_multiple_of(PAGE_BYTES));
        match self.storage.shorten(&path, bytes) {
            Ok(true) => {
                found.header.file_bytes = bytes;
                found.misshapen = true;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, file = found.name, "what a segment does not need cannot be given back")
            }
        }
    }
}
