//! The process rows of one logon or logoff: a tree as Windows grows it.
//!
//! A parent starts before its children and outlives their start. PIDs are multiples of 4 and unique in a logon, except
//! that in 1 logon of 18 a later process gets the PID of the session's smss.exe, which has ended by then. Rows stand in
//! order of start, now and then one place off; the two phase rows, which have no PID, stand last.

use fastrand::Rng;

use super::catalog::{BEGINNING, INSIDE, LOGOFF, OUTSIDE, Program};
use super::row::{Row, Sourcetype};
use super::session::Session;

/// Rows of a logon that stand for no process.
const PHASES: &[&str] = &["User profile", "Group policy"];

/// Places in [`BEGINNING`].
const SMSS: usize = 0;
const WINLOGON: usize = 2;
const SHELL: usize = 7;

/// Programs that run before anybody logs on.
const OUTSIDE_PARENTS: &[&str] = &["svchost.exe", "services.exe", "UserProfileManager.exe"];

/// Most children of one process.
const MAX_CHILDREN: usize = 20;

#[derive(Debug)]
enum Parent {
    /// A process of the same logon: its place in the list.
    Inside(usize),
    /// A process that is never sent: its PID.
    Outside(u32),
}

#[derive(Debug)]
struct Process {
    program: &'static Program,
    parent: Parent,
    pid: u32,
    start_ms: u64,
    lifetime_ms: u64,
    children: usize,
    sort_order: u64,
}

/// The rows of a logon: about 72, at least 44.
pub(super) fn logon_rows(session: &Session) -> Vec<Row> {
    let mut rng = session.rng(1);
    let processes = logon_processes(session, &mut rng);
    let mut order: Vec<usize> = (0..processes.len()).collect();
    order.sort_by_key(|at| processes[*at].start_ms);
    for _ in 0..rng.usize(0..=2) {
        let at = rng.usize(1..order.len());
        order.swap(at - 1, at);
    }
    let mut rows: Vec<Row> =
        order.iter().map(|at| process_row(session, Sourcetype::LogonProcesses, &processes, *at, &mut rng)).collect();
    for phase in PHASES {
        let mut row = session_row(session, Sourcetype::LogonProcesses, &mut rng);
        let start_ms = rng.u64(200..session.logon_ms / 3);
        row.set_text("LogonProcType", *phase);
        row.set_integer("ProcStartTimeRelativeMs", start_ms);
        row.set_integer("ProcLifetimeMs", rng.u64(300..session.logon_ms / 3));
        row.set_integer("SortOrder2", 0u64);
        rows.push(row);
    }
    rows
}

/// The rows of a logoff: 10 to 30, with the PIDs that the session has had since its logon.
pub(super) fn logoff_rows(session: &Session) -> Vec<Row> {
    let logon = logon_processes(session, &mut session.rng(1));
    let mut rng = session.rng(5);
    let winlogon = Process {
        program: &BEGINNING[WINLOGON],
        parent: Parent::Outside(logon[SMSS].pid),
        pid: logon[WINLOGON].pid,
        start_ms: 0,
        lifetime_ms: session.logoff_ms,
        children: 0,
        sort_order: 0,
    };
    let mut tree = Tree { processes: vec![winlogon], end_ms: session.logoff_ms };
    let outside = OutsidePids::new(&mut rng);
    for _ in 1..rng.usize(10..=30) {
        let program = rng.choice(LOGOFF).expect("the list is not empty");
        let parent = match program.parent {
            "winlogon.exe" => Parent::Inside(0),
            name => Parent::Outside(outside.of(name)),
        };
        let start_ms = rng.u64(0..session.logoff_ms);
        tree.start(program, parent, start_ms, &mut rng);
    }
    let mut processes = tree.processes;
    number_depth_first(&mut processes);
    processes.sort_by_key(|process| process.start_ms);
    (0..processes.len()).map(|at| process_row(session, Sourcetype::LogoffProcesses, &processes, at, &mut rng)).collect()
}

fn logon_processes(session: &Session, rng: &mut Rng) -> Vec<Process> {
    // Twelve draws from 0..=7: mean 42, standard deviation 7.9.
    let rows = (30 + (0..12).map(|_| rng.usize(0..=7)).sum::<usize>()).max(44);
    let mut tree = Tree { processes: Vec::with_capacity(rows), end_ms: session.logon_ms + session.late_ms };
    let outside = OutsidePids::new(rng);
    let mut start_ms = 0;
    for program in BEGINNING {
        let parent = tree.processes.iter().rposition(|process| process.program.name == program.parent);
        let parent = parent.map_or(Parent::Outside(outside.session_manager), Parent::Inside);
        tree.start(program, parent, start_ms, rng);
        start_ms += rng.u64(2..session.logon_ms / 30);
    }
    // The session's smss.exe starts two processes and ends.
    let last_child = tree.processes[WINLOGON].start_ms;
    tree.processes[SMSS].lifetime_ms = last_child + rng.u64(1..10);

    // Phase rows name no parent either, so they count among the 45 %.
    let orphans = rows * 45 / 100 - PHASES.len() - 1;
    let inside = rows - PHASES.len() - BEGINNING.len() - orphans;
    for _ in 0..inside {
        let program = tree.choose(INSIDE, rng);
        let parent = tree.find(program.parent, rng);
        let after_ms = tree.processes[parent].start_ms;
        let start_ms = after_ms + rng.u64(5..(session.logon_ms - after_ms.min(session.logon_ms - 1_000)) / 2);
        tree.start(program, Parent::Inside(parent), start_ms, rng);
    }
    for _ in 0..orphans {
        let program = tree.choose(OUTSIDE, rng);
        let start_ms = rng.u64(200..session.logon_ms * 9 / 10);
        tree.start(program, Parent::Outside(outside.of(program.parent)), start_ms, rng);
    }
    if rng.u32(0..18) == 0 {
        tree.reuse_a_pid();
    }
    number_depth_first(&mut tree.processes);
    tree.processes
}

/// PIDs of processes that started before the session and are never sent.
struct OutsidePids {
    session_manager: u32,
    service_hosts: u32,
    services: u32,
}

impl OutsidePids {
    fn new(rng: &mut Rng) -> OutsidePids {
        let mut pid = || 4 * rng.u32(4000..9000);
        OutsidePids { session_manager: pid(), service_hosts: pid(), services: pid() }
    }

    fn of(&self, name: &str) -> u32 {
        match name {
            "services.exe" => self.services,
            "svchost.exe" => self.service_hosts,
            _ => self.service_hosts + 4,
        }
    }
}

struct Tree {
    processes: Vec<Process>,
    /// When the rows are emitted: lifetimes end here at the latest.
    end_ms: u64,
}

impl Tree {
    fn start(&mut self, program: &'static Program, parent: Parent, start_ms: u64, rng: &mut Rng) {
        let start_ms = start_ms.min(self.end_ms.saturating_sub(10));
        if let Parent::Inside(at) = parent {
            let parent = &mut self.processes[at];
            parent.children += 1;
            parent.lifetime_ms = parent.lifetime_ms.max(start_ms - parent.start_ms + 5);
        }
        let left_ms = self.end_ms - start_ms;
        let brief_ms = super::quantile(rng, &[4, 30, 90, 600, 2_500, 9_000]).min(left_ms);
        let lifetime_ms = if program.stays { left_ms } else { brief_ms };
        let pid = loop {
            let pid = 4 * rng.u32(8..3584);
            if self.processes.iter().all(|process| process.pid != pid) {
                break pid;
            }
        };
        self.processes.push(Process { program, parent, pid, start_ms, lifetime_ms, children: 0, sort_order: 0 });
    }

    /// A program whose parent runs, where it matters, and that is not running if there is only one of it a session;
    /// any program when a few draws have found none.
    fn choose(&self, programs: &'static [Program], rng: &mut Rng) -> &'static Program {
        let runs = |name: &str| self.processes.iter().any(|process| process.program.name == name);
        let draws = || rng.choice(programs).expect("the list is not empty");
        let fits = |program: &&Program| {
            let parent_runs = runs(program.parent) || OUTSIDE_PARENTS.contains(&program.parent);
            parent_runs && !(program.single && runs(program.name))
        };
        let mut drawn = std::iter::repeat_with(draws).take(16).peekable();
        let any = *drawn.peek().expect("there are sixteen draws");
        drawn.find(fits).unwrap_or(any)
    }

    /// A process of this name that may have another child, else the shell, else whoever has fewest.
    fn find(&self, name: &str, rng: &mut Rng) -> usize {
        let open = |at: &usize| self.processes[*at].children < MAX_CHILDREN;
        let named = |at: &usize| self.processes[*at].program.name == name;
        let places: Vec<usize> = (0..self.processes.len()).filter(named).filter(open).collect();
        rng.choice(places).or(Some(SHELL).filter(open)).unwrap_or_else(|| {
            (SHELL..self.processes.len())
                .min_by_key(|at| self.processes[*at].children)
                .expect("the beginning has started")
        })
    }

    /// Gives the PID of the session's smss.exe, which has ended, to a later process with a child if there is one.
    fn reuse_a_pid(&mut self) {
        let ended_ms = self.processes[SMSS].start_ms + self.processes[SMSS].lifetime_ms;
        let later = |process: &&mut Process| process.start_ms > ended_ms;
        let pid = self.processes[SMSS].pid;
        let heir = self.processes.iter_mut().skip(BEGINNING.len()).filter(later).max_by_key(|process| process.children);
        if let Some(process) = heir {
            process.pid = pid;
        }
    }
}

/// Numbers the tree in depth-first pre-order from 2, as `SortOrder2` does.
fn number_depth_first(processes: &mut [Process]) {
    let mut next = 2;
    let mut open: Vec<usize> =
        (0..processes.len()).rev().filter(|at| matches!(processes[*at].parent, Parent::Outside(_))).collect();
    while let Some(at) = open.pop() {
        processes[at].sort_order = next;
        next += 1;
        let child = |other: &usize| matches!(processes[*other].parent, Parent::Inside(parent) if parent == at);
        open.extend((0..processes.len()).rev().filter(child));
    }
}

fn session_row(session: &Session, sourcetype: Sourcetype, rng: &mut Rng) -> Row {
    let mut row = Row::new(sourcetype, session.host.clone(), session.event_ms, rng.u8(0..165));
    row.set_text("SessionGUID", session.guid());
    row.set_integer("SessionID", session.id);
    match sourcetype {
        Sourcetype::LogoffProcesses => row.set_integer("TotalLogoffDurationMs", session.logoff_ms),
        _ => row.set_integer("TotalLogonDurationMs", session.logon_ms),
    }
    row
}

fn process_row(session: &Session, sourcetype: Sourcetype, processes: &[Process], at: usize, rng: &mut Rng) -> Row {
    let process = &processes[at];
    let program = process.program;
    let logoff = sourcetype == Sourcetype::LogoffProcesses;
    let mut row = session_row(session, sourcetype, rng);
    row.set_text("ProcName", program.name);
    row.set_integer("ProcID", process.pid);
    let (parent_name, parent_pid) = match process.parent {
        Parent::Inside(parent) => (processes[parent].program.name, processes[parent].pid),
        Parent::Outside(pid) => (program.parent, pid),
    };
    row.set_text("ProcParentName", parent_name);
    row.set_integer("ProcParentID", parent_pid);
    let of_the_system = program.phase == "Session setup" || rng.u32(0..100) < 11;
    row.set_text("ProcUser", if of_the_system { String::new() } else { session.user.clone() });
    row.set_text("AppId", program.app_id);
    row.set_text("AppVersion", program.version);
    match (logoff, program.phase) {
        (true, "Session setup") => row.set_text("LogoffProcType", "Other"),
        (true, phase) => row.set_text("LogoffProcType", phase),
        (false, phase) => row.set_text("LogonProcType", phase),
    }
    row.set_integer("ProcStartTimeRelativeMs", process.start_ms);
    row.set_integer("ProcLifetimeMs", process.lifetime_ms);
    let path = format!("{}{}", program.folder, program.name);
    row.set_text("ProcCmdline", command_line(&path, program.arguments, rng));
    row.set_text("ProcPath", path);
    if !logoff {
        if program.name != "smss.exe" {
            row.set_integer("ProcCPUTimeMs", rng.u64(0..40) * 15);
        }
        row.set_tenths("ProcWorkingSetMB", if program.name == "smss.exe" { 0 } else { rng.u64(80..1_400) });
    }
    set_io(&mut row, rng);
    row.set_integer("SortOrder2", process.sort_order);
    row
}

/// Most processes read and write nothing worth a number; latencies exist only with the I/O they describe.
fn set_io(row: &mut Row, rng: &mut Rng) {
    let reads = if rng.u32(0..100) < 30 { rng.u64(1..900) } else { 0 };
    let writes = if reads > 0 && rng.u32(0..100) < 60 { rng.u64(1..200) } else { 0 };
    row.set_integer("ProcIOReadCount", reads);
    row.set_integer("ProcIOWriteCount", writes);
    row.set_tenths("ProcIOReadMB", reads / 6);
    row.set_tenths("ProcIOWriteMB", writes / 5);
    if reads > 0 {
        row.set_tenths("ProcIOLatencyReadMs2", rng.u64(2..120));
    }
    if writes > 0 {
        row.set_tenths("ProcIOLatencyWriteMs2", rng.u64(2..60));
    }
    row.set_tenths("ProcNetKBPS", if rng.u32(0..10) == 0 { rng.u64(1..90) } else { 0 });
}

fn command_line(path: &str, arguments: &str, rng: &mut Rng) -> String {
    let mut line = if path.contains(' ') || rng.bool() { format!("\"{path}\"") } else { path.to_owned() };
    if !arguments.is_empty() {
        line.push(' ');
    }
    line.extend(arguments.chars().map(|character| if character == '#' { hex_digit(rng) } else { character }));
    line
}

fn hex_digit(rng: &mut Rng) -> char {
    char::from_digit(rng.u32(0..16), 16).expect("a digit below sixteen")
}
