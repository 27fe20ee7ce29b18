//! A lane on loopback without its threads: real sockets, a ring that the test answers, and time that the test moves.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard};

use crossbeam::channel::Receiver;

use super::super::*;
use crate::block::{Block, FrontDeadLetter, Ticket, Verdict, VerdictOutcome};
use crate::config::{Mapping, OtherSourcetypes, Uberagent};

pub(super) const ROWS: &[u8] = include_bytes!("../../../../tests/data/uberagent/proxytrace_wire.ndjson");
pub(super) const ROW_COUNT: u64 = 376;

/// One turn of the test's clock.
const TICK: Duration = Duration::from_millis(1);
const WALL_NS: u64 = 1_747_033_200_000_000_000;

/// The ring: blocks that were pushed, of which the first `answered` have their verdicts.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) capacity: usize,
    /// Answer each block when it is pushed.
    pub(super) answers: bool,
    pub(super) blocks: Vec<Block>,
    answered: usize,
    untaken: VecDeque<Verdict>,
    taken: usize,
    pub(super) parked: bool,
}

impl Ring {
    /// Answers everything that was pushed.
    pub(super) fn answer_all(&mut self) {
        if self.answered < self.blocks.len() {
            let (first, last) = (Ticket(self.answered as u64), Ticket(self.blocks.len() as u64 - 1));
            self.untaken.push_back(Verdict { first, last, outcome: VerdictOutcome::Durable });
            self.answered = self.blocks.len();
        }
    }

    pub(super) fn records(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.meta.records)).sum()
    }
}

#[derive(Clone, Default)]
pub(super) struct RingOutlet(Arc<Mutex<Ring>>);

impl RingOutlet {
    pub(super) fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap()
    }
}

impl Outlet for RingOutlet {
    fn room(&self) -> usize {
        let ring = self.lock();
        ring.capacity - (ring.blocks.len() - ring.taken)
    }

    fn push(&mut self, block: Block) -> Ticket {
        assert!(self.room() > 0, "the caller asked");
        let mut ring = self.lock();
        ring.blocks.push(block);
        let ticket = Ticket(ring.blocks.len() as u64 - 1);
        if ring.answers {
            ring.answer_all();
        }
        ticket
    }

    fn spare(&mut self) -> Vec<u8> {
        Vec::with_capacity(crate::block::TARGET_BYTES)
    }

    fn verdict(&mut self) -> Option<Verdict> {
        let mut ring = self.lock();
        let verdict = ring.untaken.pop_front()?;
        ring.taken = usize::try_from(verdict.last.0).unwrap() + 1;
        Some(verdict)
    }

    fn park(&mut self) {
        self.lock().parked = true;
    }
}

/// What differs between tests.
pub(super) struct Setting {
    pub(super) limits: TcpLimits,
    pub(super) ring_blocks: usize,
    pub(super) ring_answers: bool,
    pub(super) dead_letters: usize,
    pub(super) overload: Arc<Overload>,
    pub(super) listeners: Vec<Listener>,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            limits: TcpLimits {
                max_line_bytes: 1024 * 1024,
                max_connections: 10_000,
                max_connections_per_ip: 256,
                idle_timeout: Duration::from_secs(300),
                partial_line_timeout: Duration::from_secs(30),
                pause_limit: Duration::from_secs(10),
            },
            ring_blocks: 64,
            ring_answers: true,
            dead_letters: 1_000,
            overload: Arc::default(),
            listeners: listening(),
        }
    }
}

pub(super) struct Lane {
    pub(super) reactor: Reactor<RingOutlet>,
    pub(super) ring: RingOutlet,
    pub(super) front: Arc<Front>,
    pub(super) counters: Arc<LineCounters>,
    pub(super) reactor_counters: Arc<ReactorCounters>,
    pub(super) dead_letters: Receiver<FrontDeadLetter>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) doorbell: Doorbell,
    pub(super) changer: crossbeam::channel::Sender<DoorChanges<Door>>,
    pub(super) address: SocketAddr,
    pub(super) now: Duration,
    pub(super) last_turn: Turn,
}

impl Lane {
    pub(super) fn new(setting: Setting) -> Lane {
        let address = setting.listeners[0].socket.local_addr().unwrap();
        let (dead_letter_sender, dead_letters) = crossbeam::channel::bounded(setting.dead_letters);
        let ring = RingOutlet::default();
        ring.lock().capacity = setting.ring_blocks;
        ring.lock().answers = setting.ring_answers;
        let (front, counters, reactor_counters, stop) =
            (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let doorbell = Doorbell::new().unwrap();
        let uberagent = Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };
        let door = Door {
            listeners: setting.listeners,
            source: SourceId(3),
            table: ConnectionTable::new(setting.limits.max_connections, setting.limits.max_connections_per_ip),
            limits: setting.limits,
            encoder: Encoder::new(uberagent, SourceId(3)),
            front: Arc::clone(&front),
            counters: Arc::clone(&counters),
        };
        let (changer, changes) = crossbeam::channel::unbounded();
        let reactor = Reactor::new(ReactorOptions {
            doors: vec![door],
            outlet: ring.clone(),
            doorbell: doorbell.clone(),
            dead_letters: dead_letter_sender,
            overload: setting.overload,
            counters: Arc::clone(&reactor_counters),
            stop: Arc::clone(&stop),
            changes,
        })
        .unwrap();
        let (now, last_turn) = (Duration::ZERO, Turn::Going);
        Lane {
            reactor,
            ring,
            front,
            counters,
            reactor_counters,
            dead_letters,
            stop,
            doorbell,
            changer,
            address,
            now,
            last_turn,
        }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Connects, and waits until the lane has the connection.
    pub(super) fn connected(&mut self) -> TcpStream {
        let (stream, accepted) = (self.connect(), self.counters.connections.accepted.get());
        self.until("the connection is accepted", |lane| lane.counters.connections.accepted.get() > accepted);
        stream
    }

    /// One wait and one turn; the front balance holds after each.
    pub(super) fn step(&mut self) {
        let timeout = self.reactor.timeout(self.now);
        self.reactor.wait(timeout.min(TICK)).unwrap();
        self.now += TICK;
        let since_start_ns = u64::try_from(self.now.as_nanos()).unwrap();
        self.last_turn = self.reactor.turn(self.now, WALL_NS + since_start_ns);
        let front = &self.front;
        let booked = front.rejected.get() + front.filtered.get() + front.dead_lettered.get() + front.encoded.get();
        assert_eq!(front.received.get(), booked);
        assert_eq!(front.filtered.get(), self.counters.filtered.iter().map(|(_, count)| count).sum::<u64>());
        assert_eq!(front.dead_lettered.get(), self.counters.dead_lettered.iter().map(|(_, count)| count).sum::<u64>());
    }

    pub(super) fn until(&mut self, what: &str, is_so: impl Fn(&Lane) -> bool) {
        for _ in 0..10_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("not within ten seconds: {what}; {:?} {:?}", self.front, self.counters);
    }

    pub(super) fn until_received(&mut self, records: u64) {
        self.until("the records are received", |lane| lane.front.received.get() >= records);
        assert_eq!(self.front.received.get(), records);
    }

    /// Runs until every open block is in the ring.
    pub(super) fn settle(&mut self) {
        self.until("the records are in the ring", |lane| lane.ring.lock().records() == lane.front.encoded.get());
    }

    /// Moves the clock, with turns on the way as a sleeping lane would have them.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_secs(1)).min(end);
            self.step();
        }
    }

    pub(super) fn count(&self, by_label: impl Fn(&LineCounters) -> &crate::receive::ByLabel, label: &str) -> u64 {
        by_label(&self.counters).iter().find(|(name, _)| *name == label).map_or(0, |(_, count)| count)
    }

    /// The lane's door again, under these limits, with a listener of its own.
    pub(super) fn door(&self, limits: TcpLimits, mapping: Mapping) -> Door {
        let uberagent = Uberagent { mapping, other_sourcetypes: OtherSourcetypes::Filter };
        Door {
            listeners: listening(),
            source: SourceId(3),
            table: ConnectionTable::new(limits.max_connections, limits.max_connections_per_ip),
            limits,
            encoder: Encoder::new(uberagent, SourceId(3)),
            front: Arc::clone(&self.front),
            counters: Arc::clone(&self.counters),
        }
    }

    /// Has a change adopted.
    pub(super) fn change(&mut self, close: Vec<SourceId>, serve: Vec<Door>, remap: bool) {
        let (adopted, adoption) = crossbeam::channel::bounded(1);
        if let Some(door) = serve.last() {
            self.address = door.listeners[0].socket.local_addr().unwrap();
        }
        self.changer.send(DoorChanges { close, serve, remap, adopted }).unwrap();
        self.doorbell.ring();
        self.step();
        assert!(adoption.try_recv().is_ok(), "adopted at the next turn");
    }

    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.doorbell.ring();
        self.until("drained", |lane| lane.last_turn == Turn::Drained);
    }
}

/// Sends from a thread of its own, for senders that are made to wait.
fn listening() -> Vec<Listener> {
    let listeners = Listener::for_lanes("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    listeners.iter().for_each(|listener| listener.listen().unwrap());
    listeners
}

pub(super) fn send_in_background(mut stream: TcpStream, bytes: Vec<u8>) -> std::thread::JoinHandle<bool> {
    std::thread::spawn(move || stream.write_all(&bytes).is_ok())
}
