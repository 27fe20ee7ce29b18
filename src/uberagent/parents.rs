//! Who is whose parent: a bounded table of the processes of recent sessions, and of the traces whose root was written.
//!
//! A row names its parent by PID, and PIDs are reused inside a logon. The parent is the latest row with that PID that is
//! older than the child, where the sort order (depth-first, so a parent precedes its children) does not contradict.
//! "Older" is a total order over (start, sort order, PID), so chains of parents cannot close to a cycle. Sessions are
//! kept in a set-associative table, the least recently used of a set gives way; a session keeps its latest
//! [`PROCESSES`] processes. What was forgotten costs a child its place in the tree, never the span. Owned by one
//! encoder; nothing is allocated after `new`.

/// Processes kept of one session; real logons have up to 84.
const PROCESSES: usize = 128;

/// Chains of the processes of one session: mostly one or two in each.
const CHAINS: usize = 64;

/// Sessions in a set.
const WAYS: usize = 4;

/// Sets of sessions.
const SETS: usize = 64;

/// Traces whose root was written, in a set.
const SEEN_WAYS: usize = 8;

/// Sets of seen traces.
const SEEN_SETS: usize = 2048;

/// A process's place in the order of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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

/// A process that is remembered.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    place: Place,
    turn: u32,
    /// The number of the process before it in its chain; 0 when it is the first.
    before: u32,
}

/// The processes of one session, numbered from 1. A number's remainder is the seat, which the process [`PROCESSES`] later
/// takes. Those whose PIDs have the same hash form a chain from the latest to the first.
#[derive(Clone, Debug)]
struct Session {
    count: u32,
    latest: [u32; CHAINS],
    processes: [Process; PROCESSES],
}

impl Session {
    const EMPTY: Session = Session {
        count: 0,
        latest: [0; CHAINS],
        processes: [Process { place: Place { start_ms: 0, sort: 0, pid: 0 }, turn: 0, before: 0 }; PROCESSES],
    };

    /// The seats of the processes with this PID, latest first.
    fn seats(&self, pid: u32) -> impl Iterator<Item = usize> {
        let mut number = self.latest[chain_of(pid)];
        let chain = std::iter::from_fn(move || {
            // Behind one whose seat was taken all are older, so theirs were too.
            let kept = number != 0 && (self.count.wrapping_sub(number) as usize) < PROCESSES;
            let seat = kept.then_some(number as usize % PROCESSES)?;
            number = self.processes[seat].before;
            Some(seat)
        });
        chain.filter(move |seat| self.processes[*seat].place.pid == pid)
    }

    fn insert(&mut self, place: Place, turn: u32) {
        let known = self.seats(place.pid).find(|seat| self.processes[*seat].place.start_ms == place.start_ms);
        if let Some(seat) = known {
            let before = self.processes[seat].before;
            self.processes[seat] = Process { place, turn, before };
            return;
        }
        self.count = self.count.wrapping_add(1);
        let latest = &mut self.latest[chain_of(place.pid)];
        self.processes[self.count as usize % PROCESSES] = Process { place, turn, before: *latest };
        *latest = self.count;
    }
}

fn chain_of(pid: u32) -> usize {
    (pid.wrapping_mul(0x9e37_79b9) >> (u32::BITS - CHAINS.ilog2())) as usize
}

/// The table of processes.
#[derive(Debug)]
pub(crate) struct Parents {
    /// The keys of each set, apart from what they stand for: looking for one reads one cache line. 0 is none.
    keys: Vec<[u64; WAYS]>,
    used: Vec<[u64; WAYS]>,
    sessions: Vec<Session>,
    clock: u64,
    turn: u32,
}

impl Parents {
    pub(crate) fn new() -> Parents {
        Parents {
            keys: vec![[0; WAYS]; SETS],
            used: vec![[0; WAYS]; SETS],
            sessions: vec![Session::EMPTY; SETS * WAYS],
            clock: 0,
            turn: 1,
        }
    }

    /// Ends the rows decoded together: what comes now is another turn.
    pub(crate) fn next_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Remembers a process of the session `key`. The same process again takes its old place.
    pub(crate) fn insert(&mut self, key: u64, place: Place) {
        self.clock += 1;
        // 0 marks an empty way.
        let (key, set) = (key | 1, set_of(key, SETS));
        let known = self.keys[set].iter().position(|known| *known == key);
        let oldest = || (0..WAYS).min_by_key(|way| self.used[set][*way]).expect("a set has ways");
        let way = known.unwrap_or_else(oldest);
        self.used[set][way] = self.clock;
        let session = &mut self.sessions[set * WAYS + way];
        if known.is_none() {
            self.keys[set][way] = key;
            // Chains end where a number is out of date, but those of a new session begin anew.
            session.count = 0;
            session.latest = [0; CHAINS];
        }
        session.insert(place, self.turn);
    }

    /// The parent with PID `parent_pid` of the process at `child`.
    pub(crate) fn find(&self, key: u64, parent_pid: u32, child: Place) -> Option<Parent> {
        let (key, set) = (key | 1, set_of(key, SETS));
        let way = self.keys[set].iter().position(|known| *known == key)?;
        let session = &self.sessions[set * WAYS + way];
        let candidates = session.seats(parent_pid).map(|seat| &session.processes[seat]);
        let older = candidates.filter(|process| {
            let place = process.place;
            let contradicted = place.sort != 0 && child.sort != 0 && place.sort >= child.sort;
            place < child && !contradicted
        });
        let parent = older.max_by_key(|process| process.place)?;
        Some(Parent { span_id: parent.place.span_id(), together: parent.turn == self.turn })
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
    fn the_table_finds_what_a_plain_list_finds() {
        let seed = 20_261_121;
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut parents, mut list) = (Parents::new(), Vec::<Place>::new());
        for step in 0..20_000 {
            let wide = if step % 2000 < 1000 { 12 } else { 300 };
            let pid = 4 * random.u32(1..wide);
            let place = place(random.u32(..50), random.u32(..9), pid);
            let same = list.iter_mut().find(|known| (known.pid, known.start_ms) == (place.pid, place.start_ms));
            match same {
                Some(known) => *known = place,
                None => list.push(place),
            }
            if list.len() > PROCESSES {
                list.remove(0);
            }
            parents.insert(9, place);
            let (child, pid) = (self::place(random.u32(..50), random.u32(..9), 2), 4 * random.u32(1..wide));
            let fits = |known: &&Place| {
                known.pid == pid && **known < child && (known.sort == 0 || child.sort == 0 || known.sort < child.sort)
            };
            let expected = list.iter().filter(fits).max().map(|parent| parent.span_id());
            let found = parents.find(9, pid, child).map(|parent| parent.span_id);
            assert_eq!(found, expected, "seed {seed}, step {step}");
        }
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
