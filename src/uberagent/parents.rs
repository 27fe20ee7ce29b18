//! Who is whose parent: a bounded table of the processes of recent sessions, and of the traces whose root was written.
//!
//! A row names its parent by PID, and PIDs are reused inside a logon. The parent is the latest row with that PID that is
//! older than the child, where the sort order (depth-first, so a parent precedes its children) does not contradict.
//! "Older" is a total order over (start, sort order, PID), so chains of parents cannot close to a cycle. Sessions are
//! kept in a set-associative table, the least recently used of a set gives way; a session keeps its latest
//! [`PROCESSES`] processes. What was forgotten costs a child its place in the tree, never the span. Owned by one
//! encoder; nothing is allocated after `new`.

/// Processes kept of one session; real logons have up to 84.
pub(crate) const PROCESSES: usize = 128;

/// Sessions in a set.
const WAYS: usize = 4;

/// Sets of sessions.
const SETS: usize = 64;

/// Traces whose root was written, in a set.
const SEEN_WAYS: usize = 8;

/// Sets of seen traces.
const SEEN_SETS: usize = 2048;

/// A process's place in the order of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Milliseconds after the base.
    pub start_ms: u32,
    /// Depth-first order; 0 when the row has none.
    pub sort: u32,
    /// Process id, not 0.
    pub pid: u32,
}

impl Place {
    /// The span id of this process.
    pub(crate) fn span_id(self) -> [u8; 8] {
        ((u64::from(self.start_ms) + 1) << 32 | u64::from(self.pid)).to_be_bytes()
    }
}

/// A parent that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Its span id.
    pub span_id: [u8; 8],
    /// Whether it came among the rows decoded together with the child.
    pub together: bool,
}

/// One session. Parallel arrays, because looking for a PID reads only the first.
#[derive(Debug)]
struct Session {
    key: u64,
    used: u64,
    count: usize,
    pids: [u32; PROCESSES],
    starts: [u32; PROCESSES],
    sorts: [u32; PROCESSES],
    turns: [u32; PROCESSES],
}

/// The table of processes.
#[derive(Debug)]
pub(crate) struct Parents {
    sessions: Vec<Session>,
    clock: u64,
    turn: u32,
}

impl Parents {
    pub(crate) fn new() -> Parents {
        let empty = || Session {
            key: 0,
            used: 0,
            count: 0,
            pids: [0; PROCESSES],
            starts: [0; PROCESSES],
            sorts: [0; PROCESSES],
            turns: [0; PROCESSES],
        };
        Parents { sessions: (0..WAYS * SETS).map(|_| empty()).collect(), clock: 0, turn: 1 }
    }

    /// Ends the rows decoded together: what comes now is another turn.
    pub(crate) fn next_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Remembers a process of the session `key`. The same process again takes its old place.
    pub(crate) fn insert(&mut self, key: u64, place: Place) {
        let turn = self.turn;
        self.clock += 1;
        let session = self.session_for(key);
        let same = (0..session.count.min(PROCESSES))
            .find(|at| session.pids[*at] == place.pid && session.starts[*at] == place.start_ms);
        let at = same.unwrap_or(session.count % PROCESSES);
        session.pids[at] = place.pid;
        session.starts[at] = place.start_ms;
        session.sorts[at] = place.sort;
        session.turns[at] = turn;
        session.count += usize::from(same.is_none());
    }

    /// The parent with PID `parent_pid` of the process at `child`.
    pub(crate) fn find(&self, key: u64, parent_pid: u32, child: Place) -> Option<Parent> {
        let session = self.set(key).iter().find(|session| session.key == key && session.count > 0)?;
        let mut best: Option<(Place, u32)> = None;
        for (at, pid) in session.pids[..session.count.min(PROCESSES)].iter().enumerate() {
            if *pid != parent_pid {
                continue;
            }
            let place = Place { start_ms: session.starts[at], sort: session.sorts[at], pid: *pid };
            let contradicted = place.sort != 0 && child.sort != 0 && place.sort >= child.sort;
            if place < child && !contradicted && best.is_none_or(|(best, _)| place > best) {
                best = Some((place, session.turns[at]));
            }
        }
        best.map(|(place, turn)| Parent { span_id: place.span_id(), together: turn == self.turn })
    }

    fn set(&self, key: u64) -> &[Session] {
        let first = set_of(key, SETS) * WAYS;
        &self.sessions[first..first + WAYS]
    }

    /// The session `key`, which takes the place of the least recently used one of its set when it is new.
    fn session_for(&mut self, key: u64) -> &mut Session {
        let first = set_of(key, SETS) * WAYS;
        let set = &mut self.sessions[first..first + WAYS];
        let known = set.iter().position(|session| session.key == key && session.count > 0);
        let oldest = || (0..WAYS).min_by_key(|way| set[*way].used).expect("a set has ways");
        let way = known.unwrap_or_else(oldest);
        let session = &mut set[way];
        if known.is_none() {
            session.key = key;
            session.count = 0;
        }
        session.used = self.clock;
        session
    }
}

/// The traces whose root was written, most recent first in each set.
#[derive(Debug)]
pub(crate) struct Seen {
    sets: Vec<[u64; SEEN_WAYS]>,
}

impl Seen {
    pub(crate) fn new() -> Seen {
        Seen { sets: vec![[0; SEEN_WAYS]; SEEN_SETS] }
    }

    /// Marks a trace as seen; true when it was not.
    pub(crate) fn first_time(&mut self, key: u64) -> bool {
        // 0 marks an empty way.
        let key = key | 1;
        let set = &mut self.sets[set_of(key, SEEN_SETS)];
        let known = set.iter().position(|seen| *seen == key);
        let upto = known.unwrap_or(SEEN_WAYS - 1);
        set[..=upto].rotate_right(1);
        set[0] = key;
        known.is_none()
    }
}

fn set_of(key: u64, sets: usize) -> usize {
    (key >> 8) as usize % sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(start_ms: u32, sort: u32, pid: u32) -> Place {
        Place { start_ms, sort, pid }
    }

    #[test]
    fn a_reused_pid_means_the_latest_older_process() {
        let mut parents = Parents::new();
        parents.insert(7, place(0, 2, 1892));
        parents.insert(7, place(22_100, 30, 1892));
        let find = |start, sort| parents.find(7, 1892, place(start, sort, 40)).map(|parent| parent.span_id);
        assert_eq!(find(6, 3), Some(place(0, 2, 1892).span_id()));
        assert_eq!(find(22_200, 31), Some(place(22_100, 30, 1892).span_id()));
        // Started after the second, but sorted before it: a child of the first.
        assert_eq!(find(22_200, 5), Some(place(0, 2, 1892).span_id()));
        // Without sort order the start decides.
        assert_eq!(find(22_200, 0), Some(place(22_100, 30, 1892).span_id()));
        assert_eq!(parents.find(8, 1892, place(6, 3, 40)), None);
    }

    #[test]
    fn parents_never_form_a_cycle() {
        let mut parents = Parents::new();
        let rows = [place(5222, 9, 40), place(5222, 9, 44), place(5222, 0, 48), place(5222, 3, 52)];
        for row in rows {
            parents.insert(1, row);
        }
        for child in rows {
            assert_eq!(parents.find(1, child.pid, child), None, "its own parent");
            for parent in rows {
                let one = parents.find(1, parent.pid, child).is_some();
                let other = parents.find(1, child.pid, parent).is_some();
                assert!(!(one && other), "{child:?} and {parent:?} are each other's parent");
            }
        }
    }

    #[test]
    fn a_turn_ends_and_the_table_remembers() {
        let mut parents = Parents::new();
        parents.insert(1, place(0, 0, 4));
        assert!(parents.find(1, 4, place(1, 0, 8)).unwrap().together);
        parents.next_turn();
        assert!(!parents.find(1, 4, place(1, 0, 8)).unwrap().together);
        parents.insert(1, place(0, 0, 4));
        assert!(parents.find(1, 4, place(1, 0, 8)).unwrap().together, "sent again");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let mut parents = Parents::new();
        for key in 0..100_000u64 {
            parents.insert(key << 8, place(0, 0, 4));
        }
        assert!(parents.find(99_999 << 8, 4, place(1, 0, 8)).is_some());
        assert!(parents.find(0, 4, place(1, 0, 8)).is_none());
        for pid in 1..=1000 {
            parents.insert(5, place(0, 0, pid));
        }
        assert!(parents.find(5, 1000, place(1, 0, 1)).is_some());
        assert!(parents.find(5, 1, place(1, 0, 8)).is_none());
    }

    #[test]
    fn a_trace_is_new_once_while_it_is_remembered() {
        let mut seen = Seen::new();
        assert!(seen.first_time(42 << 16));
        assert!(!seen.first_time(42 << 16));
        for key in 0..1_000_000u64 {
            seen.first_time(key << 8);
        }
        assert!(seen.first_time(42 << 16), "forgotten in a bounded table");
    }
}
