//! Since when a destination is parked: a line in its directory, so that the time runs on across restarts.
//!
//! A destination that is not in the configuration any more keeps its cursor for a day, holding the log like an optional one
//! that may lag by half the budget: a removal by mistake can be undone. Then it is forgotten, and its directory goes.
//! Clocks are arguments: the wall clock, because no other runs on while the process does not. While it does, the monotonic
//! clock decides, and the line is written again when somebody has set the other one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a place is kept.
pub const PARKED_FOR: Duration = Duration::from_hours(24);

/// What two clocks may differ by without one of them having been set.
const TOLERANCE: Duration = Duration::from_mins(1);

/// The name of the file that holds the second of the wall clock.
const FILE: &str = "parked";

/// The name of a destination's cursor.
pub const CURSOR: &str = "cursor";

/// The retention plays a destination of this name; no exporter is called so, for exporters have the names of their kinds.
pub const RETENTION: &str = "none";

/// The directory of a destination: an instance is `type/name`, and a file name has no slash.
#[must_use]
pub fn directory(destinations: &Path, name: &str) -> PathBuf {
    destinations.join(name.replace('/', "~"))
}

/// The names of all destinations that have a cursor, but for the retention.
pub fn known(destinations: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(destinations) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().replace('~', "/");
        if name != RETENTION && entry.path().join(CURSOR).exists() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Parks a destination at `wall`, unless it is; how long it still has.
pub fn park(directory: &Path, wall: Duration) -> io::Result<Duration> {
    let path = directory.join(FILE);
    let since = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    // A time that is still to come was written under another clock: a day from now is the most that it can mean.
    if let Some(since) = since.filter(|since| *since <= wall) {
        return Ok(PARKED_FOR.saturating_sub(wall.saturating_sub(since)));
    }
    mark(directory, wall)?;
    Ok(PARKED_FOR)
}

/// When a destination was parked that has `left`, by the wall clock as it goes now.
#[must_use]
pub fn since(wall: Duration, left: Duration) -> Duration {
    wall.saturating_sub(PARKED_FOR.saturating_sub(left))
}

/// Whether the clock was set since a destination was `marked`: the next process must not take that for time that has passed.
#[must_use]
pub fn is_off(marked: Duration, since: Duration) -> bool {
    marked.abs_diff(since) > TOLERANCE
}

/// Writes down since when a destination is parked.
pub fn mark(directory: &Path, since: Duration) -> io::Result<()> {
    let mut file = File::create(directory.join(FILE))?;
    writeln!(file, "{}", since.as_secs())?;
    file.sync_all()?;
    sync(directory)
}

/// The destination is in the configuration again.
pub fn unpark(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync(directory)),
    }
}

/// Forgets a destination: its cursor goes first, for a directory without one is nobody's.
pub fn forget(directory: &Path) -> io::Result<()> {
    for name in [CURSOR, FILE] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| directory.parent().map_or(Ok(()), sync)),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_runs_on_across_restarts_and_ends_with_a_return() {
        let directory = tempfile::tempdir().unwrap();
        let at = |hours: u64| Duration::from_hours(480_000 + hours);
        let left = |hours| park(directory.path(), at(hours)).unwrap();
        assert_eq!((left(0), left(5), left(23)), (PARKED_FOR, Duration::from_hours(19), Duration::from_hours(1)));
        assert_eq!(left(100), Duration::ZERO);
        let set_back = park(directory.path(), at(0) - PARKED_FOR).unwrap();
        assert_eq!(set_back, PARKED_FOR, "at most a day from now, whatever the clock was");
        unpark(directory.path()).unwrap();
        unpark(directory.path()).unwrap();
        assert_eq!(left(200), PARKED_FOR);
    }

    #[test]
    fn a_clock_that_is_set_takes_no_time_away() {
        let directory = tempfile::tempdir().unwrap();
        // Parked by a clock that had lost its battery; an hour later it is set.
        let (lost, right) = (Duration::from_secs(100), Duration::from_hours(480_000));
        let left = park(directory.path(), lost).unwrap() - Duration::from_hours(1);
        let since = since(right, left);
        assert!(!is_off(lost, lost + Duration::from_secs(3)) && is_off(lost, since));
        mark(directory.path(), since).unwrap();
        assert_eq!(park(directory.path(), right).unwrap(), Duration::from_hours(23));
    }

    #[test]
    fn destinations_are_found_by_their_cursors_and_forgotten_with_them() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(known(&root.path().join("destinations")).unwrap(), Vec::<String>::new());
        for name in ["otlphttp", "otlphttp/second", RETENTION] {
            fs::create_dir(directory(root.path(), name)).unwrap();
            fs::write(directory(root.path(), name).join("cursor"), "").unwrap();
        }
        fs::create_dir(root.path().join("empty")).unwrap();
        assert_eq!(known(root.path()).unwrap(), ["otlphttp", "otlphttp/second"]);
        park(&directory(root.path(), "otlphttp/second"), Duration::from_secs(1)).unwrap();
        forget(&directory(root.path(), "otlphttp/second")).unwrap();
        forget(&directory(root.path(), "otlphttp/second")).unwrap();
        assert_eq!(known(root.path()).unwrap(), ["otlphttp"]);
    }
}
