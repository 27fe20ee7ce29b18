//! Health: what state each component is in, and whether every thread still turns.
//!
//! Three questions, answered differently on purpose. *Live*: has every thread ticked lately? A stuck thread is the one
//! thing that only a restart mends. *Started*: has every component once been ready? *Ready*: may senders be pointed here
//! now? A degraded component (a backend that is down) keeps both live and ready, for the log takes the data; a log that
//! is full does not.
//!
//! A thread ticks with one relaxed store a turn and must turn at least every third of the limit that it registered with;
//! states change rarely and are under a lock. Time is an argument, from the monotonic clock.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The state of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there yet.
    Starting,
    /// Doing its work.
    Ready,
    /// Doing what it can: with the reason.
    Degraded(String),
    /// Taking nothing for the time being: with the reason.
    Refusing(String),
    /// Finishing what it has.
    Draining,
}

/// An answer to one of the three questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub yes: bool,
    /// A line for each component or thread that was looked at, `[+]` good and `[-]` not.
    pub lines: Vec<String>,
}

/// The health of the process, shared by everyone who has a component or a thread.
#[derive(Clone, Debug, Default)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    draining: AtomicBool,
    components: Mutex<Vec<Entry>>,
    threads: Mutex<Vec<Thread>>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    state: State,
    started: bool,
    /// There is no such component any more; the place is kept for its name.
    retired: bool,
}

#[derive(Debug)]
struct Thread {
    name: String,
    limit: Duration,
    last_ns: Arc<AtomicU64>,
}

/// A component's own handle.
#[derive(Clone, Debug)]
pub struct Component {
    shared: Arc<Shared>,
    index: usize,
}

/// A thread's own handle.
#[derive(Clone, Debug)]
pub struct Tick {
    last_ns: Arc<AtomicU64>,
}

/// What a thread that ended leaves as its last tick: it is expected never to tick again.
const ENDED: u64 = u64::MAX;

impl Health {
    /// The health of a process without components: live, ready, started.
    #[must_use]
    pub fn new() -> Health {
        Health::default()
    }

    /// A new component, starting; one of this name that was retired begins anew.
    #[must_use]
    pub fn component(&self, name: &str) -> Component {
        let mut components = lock(&self.shared.components);
        let entry = Entry { name: name.to_owned(), state: State::Starting, started: false, retired: false };
        let free = components.iter().position(|known| known.retired && known.name == name);
        let index = free.unwrap_or(components.len());
        components.splice(free.map_or(index..index, |index| index..index + 1), [entry]);
        Component { shared: Arc::clone(&self.shared), index }
    }

    /// A new thread, which counts as stuck when it has not ticked for `limit`.
    #[must_use]
    pub fn thread(&self, name: &str, limit: Duration, now: Duration) -> Tick {
        let tick = Tick { last_ns: Arc::default() };
        tick.tick(now);
        let last_ns = Arc::clone(&tick.last_ns);
        let mut threads = lock(&self.shared.threads);
        // Relaxed: whoever ended it has joined it.
        threads.retain(|known| known.name != name || known.last_ns.load(Ordering::Relaxed) != ENDED);
        threads.push(Thread { name: name.to_owned(), limit, last_ns });
        drop(threads);
        tick
    }

    /// The process stops: not ready from now on, whatever its components say.
    pub fn drain(&self) {
        // Relaxed: a flag that nothing is published through.
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Has every thread ticked within its limit?
    #[must_use]
    pub fn live(&self, now: Duration) -> Answer {
        let mut answer = Answer { yes: true, lines: Vec::new() };
        for thread in lock(&self.shared.threads).iter() {
            // Relaxed: a moment's delay is far below any limit.
            let last_ns = thread.last_ns.load(Ordering::Relaxed);
            let silent = now.saturating_sub(Duration::from_nanos(last_ns));
            match last_ns {
                ENDED => answer.add(true, &thread.name, "ended"),
                _ if silent <= thread.limit => answer.add(true, &thread.name, "turns"),
                _ => answer.add(false, &thread.name, &format!("silent for {} s", silent.as_secs())),
            }
        }
        answer
    }

    /// May senders be pointed here now?
    #[must_use]
    pub fn ready(&self) -> Answer {
        let mut answer = Answer { yes: true, lines: Vec::new() };
        // Relaxed: see `drain`.
        if self.shared.draining.load(Ordering::Relaxed) {
            answer.add(false, "process", "draining");
        }
        for entry in lock(&self.shared.components).iter().filter(|entry| !entry.retired) {
            let good = matches!(entry.state, State::Ready | State::Degraded(_));
            answer.add(good, &entry.name, &describe(&entry.state));
        }
        answer
    }

    /// Has every component once been ready?
    #[must_use]
    pub fn started(&self) -> Answer {
        let mut answer = Answer { yes: true, lines: Vec::new() };
        for entry in lock(&self.shared.components).iter().filter(|entry| !entry.retired) {
            answer.add(entry.started, &entry.name, if entry.started { "started" } else { "starting" });
        }
        answer
    }

    /// Every thread that has not ticked within its limit, in words.
    #[must_use]
    pub fn stuck(&self, now: Duration) -> Vec<String> {
        let live = self.live(now);
        live.lines.iter().filter_map(|line| line.strip_prefix("[-] ")).map(str::to_owned).collect()
    }

    /// Every component that does only what it can, with the reason.
    #[must_use]
    pub fn degraded(&self) -> Vec<(String, String)> {
        let components = lock(&self.shared.components);
        let degraded = components.iter().filter_map(|entry| match &entry.state {
            State::Degraded(reason) | State::Refusing(reason) => Some((entry.name.clone(), reason.clone())),
            State::Starting | State::Ready | State::Draining => None,
        });
        degraded.collect()
    }

    /// One line for `systemctl status`: the worst that there is to say, with the names.
    #[must_use]
    pub fn summary(&self) -> String {
        let components = lock(&self.shared.components);
        let mut line = String::from(match () {
            () if self.shared.draining.load(Ordering::Relaxed) => "draining",
            () if components.iter().all(|entry| entry.started || entry.retired) => "ready",
            () => "starting",
        });
        for entry in components.iter().filter(|entry| !entry.retired) {
            if let State::Degraded(reason) | State::Refusing(reason) = &entry.state {
                write!(line, "; {}: {reason}", entry.name).expect("writing to a string cannot fail");
            }
        }
        line
    }
}

impl Component {
    /// Says what state the component is in.
    pub fn set(&self, state: State) {
        let mut components = lock(&self.shared.components);
        let entry = components.get_mut(self.index).expect("components keep their places");
        entry.started |= matches!(state, State::Ready | State::Degraded(_) | State::Refusing(_));
        entry.state = state;
    }
}

impl Health {
    /// There is no such component any more.
    pub fn retire(&self, name: &str) {
        lock(&self.shared.components)
            .iter_mut()
            .filter(|entry| entry.name == name)
            .for_each(|entry| entry.retired = true);
    }
}

impl Tick {
    /// The thread has turned.
    pub fn tick(&self, now: Duration) {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(ENDED - 1);
        // Relaxed: only its own age is read from it.
        self.last_ns.store(now_ns, Ordering::Relaxed);
    }

    /// The thread ends as it should.
    pub fn end(&self) {
        // Relaxed: as in `tick`.
        self.last_ns.store(ENDED, Ordering::Relaxed);
    }
}

impl Answer {
    fn add(&mut self, good: bool, name: &str, what: &str) {
        self.yes &= good;
        self.lines.push(format!("[{}] {name}: {what}", if good { '+' } else { '-' }));
    }
}

fn describe(state: &State) -> String {
    match state {
        State::Starting => "starting".to_owned(),
        State::Ready => "ready".to_owned(),
        State::Degraded(reason) => format!("degraded: {reason}"),
        State::Refusing(reason) => format!("refusing: {reason}"),
        State::Draining => "draining".to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn readiness_follows_the_components_and_draining_ends_it() {
        let health = Health::new();
        let (log, backend) = (health.component("log"), health.component("otlphttp"));
        assert_eq!((health.ready().yes, health.started().yes), (false, false));
        log.set(State::Ready);
        assert_eq!((health.ready().yes, health.started().yes), (false, false));
        backend.set(State::Degraded("connection refused".to_owned()));
        assert_eq!((health.ready().yes, health.started().yes), (true, true));
        assert_eq!(health.summary(), "ready; otlphttp: connection refused");
        backend.set(State::Draining);
        assert_eq!((health.ready().yes, health.started().yes), (false, true));
        backend.set(State::Ready);
        health.drain();
        assert!(!health.ready().yes);
        assert_eq!(health.ready().lines[0], "[-] process: draining");
        assert_eq!(health.summary(), "draining");
    }

    #[test]
    fn a_silent_thread_ends_life_and_an_ended_one_does_not() {
        let health = Health::new();
        let reactor = health.thread("reactor-0", seconds(10), seconds(100));
        let sync = health.thread("sync", seconds(10), seconds(100));
        assert!(health.live(seconds(110)).yes);
        reactor.tick(seconds(109));
        let answer = health.live(seconds(111));
        assert!(!answer.yes);
        assert_eq!(answer.lines, ["[+] reactor-0: turns", "[-] sync: silent for 11 s"]);
        sync.end();
        assert!(health.live(seconds(111)).yes);
        assert!(!health.live(seconds(120)).yes);
    }
}
