//! The durable table of source ids: `sources` in the state directory, one receiver's name a line.
//!
//! Blocks in the log name their source by a number, and the log outlives the configuration; so a receiver keeps its number
//! for ever: the index of its name's line. New names are appended, lines are never removed, numbers never reused.
//!
//! And what threads ask while reloads change the answer: a source's name and admission, and how rows become spans.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::block::SourceId;
use crate::config::{Admission, Uberagent};

/// The file of the table, in the state directory.
const TABLE: &str = "sources";

/// The names of all sources that this process has met, by id; a reload adds to them.
#[derive(Clone, Debug, Default)]
pub struct SourceNames(Arc<RwLock<Vec<(SourceId, String)>>>);

impl SourceNames {
    /// One more source, unless it is known.
    pub fn add(&self, id: SourceId, name: &str) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !names.iter().any(|(known, _)| *known == id) {
            names.push((id, name.to_owned()));
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(SourceId, String)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name of a source; empty for one that nobody has met.
    #[must_use]
    pub fn of(&self, id: SourceId) -> String {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone()).unwrap_or_default()
    }
}

/// What a full log does, by source; a reload changes it. Looked at only when the log is full.
#[derive(Clone, Debug, Default)]
pub struct Admissions(Arc<RwLock<HashMap<SourceId, (Admission, Lost)>>>);

/// Spans that were dropped although their sender could not be told. Every lane adds to it.
type Lost = Arc<AtomicU64>;

impl Admissions {
    /// So from now on.
    pub fn set(&self, source: SourceId, admission: Admission) {
        let mut admissions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        admissions.entry(source).or_insert((admission, Lost::default())).0 = admission;
    }

    /// Whether senders of this source are slowed; those of a source that nobody has met are not.
    #[must_use]
    pub fn blocks(&self, source: SourceId) -> bool {
        let admissions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        admissions.get(&source).is_some_and(|(admission, _)| *admission == Admission::Block)
    }

    /// Spans of this source are lost: the log is full.
    pub fn dropped(&self, source: SourceId, spans: u64) {
        let admissions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, lost)) = admissions.get(&source) {
            // Relaxed: a statistic.
            lost.fetch_add(spans, Ordering::Relaxed);
        }
    }

    /// Spans lost so far, of every source that loses some when the log is full, or did.
    #[must_use]
    pub fn lost(&self) -> Vec<(SourceId, u64)> {
        let admissions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: as above.
        let lost = admissions.iter().map(|(id, (admission, lost))| (*id, *admission, lost.load(Ordering::Relaxed)));
        let lost = lost.filter(|(_, admission, lost)| *admission == Admission::DropNewest || *lost > 0);
        lost.map(|(id, _, lost)| (id, lost)).collect()
    }
}

/// How rows become spans now; a reload changes it. For whoever is not told of it as the lanes are.
#[derive(Clone, Debug)]
pub struct RowRules(Arc<RwLock<Uberagent>>);

impl RowRules {
    /// So, for the time being.
    #[must_use]
    pub fn new(rules: Uberagent) -> RowRules {
        RowRules(Arc::new(RwLock::new(rules)))
    }

    /// So from now on.
    pub fn set(&self, rules: Uberagent) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// How they do now.
    #[must_use]
    pub fn now(&self) -> Uberagent {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids for receivers, of which the new ones hold once they are written down.
pub struct Assigned {
    /// In the order of the names.
    pub ids: Vec<SourceId>,
    state_directory: PathBuf,
    /// The whole table, when it has grown.
    grown: Option<Vec<String>>,
}

impl Assigned {
    /// Writes new ids down, durably. To be done before any is used.
    pub fn keep(&self) -> io::Result<()> {
        self.grown.as_ref().map_or(Ok(()), |names| write_durably(&self.state_directory, names))
    }
}

/// The names that have ids, in the order of these; none when there is no table. Fails when it cannot be read.
pub fn table(state_directory: &Path) -> io::Result<Vec<String>> {
    // A name that has rotted keeps its line: the numbers of the others are those of theirs.
    match fs::read(state_directory.join(TABLE)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The ids of `names`, in their order; names not seen before are given new ids. Writes nothing. Fails when the table cannot
/// be read, or when it is full.
pub fn assign(state_directory: &Path, names: &[&str]) -> io::Result<Assigned> {
    let mut known = table(state_directory)?;
    let before = known.len();
    let mut ids = Vec::with_capacity(names.len());
    for name in names {
        let index = known.iter().position(|k| k == name).unwrap_or_else(|| {
            known.push((*name).to_owned());
            known.len() - 1
        });
        let id = u16::try_from(index).ok().map(SourceId).filter(|id| *id != SourceId::MIXED);
        ids.push(id.ok_or_else(|| {
            io::Error::other(format!("{} holds too many sources", state_directory.join(TABLE).display()))
        })?);
    }
    let grown = (known.len() > before).then_some(known);
    Ok(Assigned { ids, state_directory: state_directory.to_owned(), grown })
}

/// Replaces the table by rename, so that a crash leaves the old one or the new one.
fn write_durably(directory: &Path, names: &[String]) -> io::Result<()> {
    let path = directory.join(TABLE);
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    for name in names {
        writeln!(file, "{name}")?;
    }
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_keeps_its_id_whatever_happens_to_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let assign = |names: &[&str]| {
            let assigned = assign(directory.path(), names).unwrap();
            assigned.keep().unwrap();
            assigned.ids
        };
        assert_eq!(assign(&["uberagent", "otlp"]), [SourceId(0), SourceId(1)]);
        assert_eq!(assign(&["otlp"]), [SourceId(1)]);
        assert_eq!(assign(&["elasticsearch", "uberagent"]), [SourceId(2), SourceId(0)]);
        assert_eq!(assign(&["otlp", "elasticsearch"]), [SourceId(1), SourceId(2)]);
    }

    #[test]
    fn a_name_that_has_rotted_takes_no_number_from_the_others() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(TABLE), b"uberag\xe5nt\notlp\n").unwrap();
        for _ in 0..2 {
            let assigned = assign(directory.path(), &["uberagent", "otlp"]).unwrap();
            assert_eq!(assigned.ids, [SourceId(2), SourceId(1)]);
            assigned.keep().unwrap();
        }
    }
}
