//! A tap on the lanes: copies of blocks for whoever looks at what passes, as far as there is room for them.
//!
//! A lane offers what it receives and what it has stored; while nobody listens that costs it one relaxed load each. With a
//! listener it copies the block into the listener's queue, which has so many bytes. It waits for nothing: a full queue, or
//! a lock that another lane holds, loses the block for the tap alone, and that is counted. The operator says which stages may
//! be listened to at all: what is received has not been through the plugins that remove what must not be seen.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::block::{Meta, Signal, SourceId};
use crate::config::Tapping;

/// Listeners at a time. Together they hold what [`config::budget::TAP_BYTES`](crate::config::budget::TAP_BYTES) says.
pub const MAX_LISTENERS: usize = 4;

/// Blocks and bytes that wait for a listener. One block is always taken, so that a large one can be seen too.
const QUEUE_BLOCKS: usize = 64;
const QUEUE_BYTES: usize = 1 << 20;

/// Where on its way a block is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// As it came from its sender.
    Received,
    /// As it was appended to the log, after the plugins.
    Stored,
}

impl Stage {
    fn bit(self) -> u8 {
        match self {
            Stage::Received => 1,
            Stage::Stored => 2,
        }
    }

    fn is_allowed(self, by: Tapping) -> bool {
        match by {
            Tapping::Off => false,
            Tapping::Stored => self == Stage::Stored,
            Tapping::Received => true,
        }
    }
}

/// A copy of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tapped {
    /// What its rows are.
    pub signal: Signal,
    /// How many rows.
    pub rows: u32,
    /// OTLP bytes.
    pub payload: Bytes,
}

/// Why nobody may listen so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapRefusal {
    /// The operator has said so.
    #[error("management.tap is `{0}`; `stored` shows what is in the log, `received` also what no plugin has seen yet")]
    NotAllowed(&'static str),
    /// There is no such receiver.
    #[error("there is no receiver {0:?}; there are {1}")]
    NoSource(String, String),
    /// Enough others do.
    #[error("{MAX_LISTENERS} others listen already")]
    TooMany,
}

/// The receivers that there are, by their names.
pub type SourcesRead = Box<dyn Fn() -> Vec<(SourceId, String)> + Send + Sync>;

struct Place {
    number: u64,
    stage: Stage,
    source: Option<SourceId>,
    waiting_bytes: Arc<AtomicUsize>,
    blocks: mpsc::Sender<Tapped>,
}

struct Places {
    allowed: Tapping,
    made: u64,
    listening: Vec<Place>,
}

/// See the module.
pub struct Tap {
    /// The stages that somebody listens to, by their bits.
    stages: AtomicU8,
    places: Mutex<Places>,
    sources: SourcesRead,
    /// Blocks that were copied, and that were lost for the tap.
    taken: AtomicU64,
    lost: AtomicU64,
}

/// One who listens, until this is dropped.
pub struct Listener {
    tap: Arc<Tap>,
    number: u64,
    waiting_bytes: Arc<AtomicUsize>,
    blocks: mpsc::Receiver<Tapped>,
}

impl Default for Tap {
    fn default() -> Self {
        Tap::new(Tapping::Stored, Box::new(Vec::new))
    }
}

impl Tap {
    /// A tap that nobody listens to yet.
    #[must_use]
    pub fn new(allowed: Tapping, sources: SourcesRead) -> Tap {
        let places = Places { allowed, made: 0, listening: Vec::new() };
        let (taken, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        Tap { stages: AtomicU8::new(0), places: Mutex::new(places), sources, taken, lost }
    }

    /// Shows a block to whoever listens.
    pub fn offer(&self, stage: Stage, meta: &Meta, payload: &[u8]) {
        // Relaxed: a listener may miss the blocks of the moment in which it comes.
        if self.stages.load(Ordering::Relaxed) & stage.bit() != 0 {
            self.copy(stage, meta, payload);
        }
    }

    #[cold]
    fn copy(&self, stage: Stage, meta: &Meta, payload: &[u8]) {
        // Relaxed for all counts: nothing else hangs on them.
        let Ok(places) = self.places.try_lock() else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut copy = None;
        let is_meant = |place: &&Place| place.stage == stage && place.source.is_none_or(|source| source == meta.source);
        for place in places.listening.iter().filter(is_meant) {
            // Only whoever holds the lock adds: there is at least as much room as this says.
            let waiting = place.waiting_bytes.load(Ordering::Relaxed);
            let mut sent = waiting == 0 || waiting + payload.len() <= QUEUE_BYTES;
            if sent {
                let payload = copy.get_or_insert_with(|| Bytes::copy_from_slice(payload)).clone();
                place.waiting_bytes.fetch_add(payload.len(), Ordering::Relaxed);
                let length = payload.len();
                sent = place.blocks.try_send(Tapped { signal: meta.signal, rows: meta.spans, payload }).is_ok();
                if !sent {
                    place.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
                }
            }
            let count = if sent { &self.taken } else { &self.lost };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Listens to a stage of every source, or of the one with this name.
    ///
    /// # Errors
    ///
    /// See [`TapRefusal`].
    pub fn listen(self: &Arc<Self>, stage: Stage, source: Option<&str>) -> Result<Listener, TapRefusal> {
        let source = source.map(|name| self.source(name)).transpose()?;
        let mut places = self.places();
        if !stage.is_allowed(places.allowed) {
            return Err(TapRefusal::NotAllowed(places.allowed.word()));
        }
        if places.listening.len() >= MAX_LISTENERS {
            return Err(TapRefusal::TooMany);
        }
        places.made += 1;
        let (number, waiting_bytes) = (places.made, Arc::new(AtomicUsize::new(0)));
        let (sender, blocks) = mpsc::channel(QUEUE_BLOCKS);
        let place = Place { number, stage, source, waiting_bytes: Arc::clone(&waiting_bytes), blocks: sender };
        places.listening.push(place);
        self.show(&places);
        drop(places);
        Ok(Listener { tap: Arc::clone(self), number, waiting_bytes, blocks })
    }

    /// Allows this from now on; who listens to what is no longer allowed hears nothing more.
    pub fn allow(&self, allowed: Tapping) {
        let mut places = self.places();
        places.allowed = allowed;
        places.listening.retain(|place| place.stage.is_allowed(allowed));
        self.show(&places);
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> u64 {
        self.places().listening.len() as u64
    }

    /// Blocks that were copied for listeners.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Blocks that listeners had no room for.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn source(&self, name: &str) -> Result<SourceId, TapRefusal> {
        let sources = (self.sources)();
        let names = || sources.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ");
        let found = sources.iter().find(|(_, known)| known == name);
        found.map(|(id, _)| *id).ok_or_else(|| TapRefusal::NoSource(name.to_owned(), names()))
    }

    fn show(&self, places: &Places) {
        let stages = places.listening.iter().fold(0, |bits, place| bits | place.stage.bit());
        // Relaxed: see `offer`.
        self.stages.store(stages, Ordering::Relaxed);
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // The list is whole at every moment.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The next block; `None` once listening is no longer allowed.
    pub async fn next(&mut self) -> Option<Tapped> {
        let tapped = self.blocks.recv().await?;
        // Relaxed: see `Tap::copy`.
        self.waiting_bytes.fetch_sub(tapped.payload.len(), Ordering::Relaxed);
        Some(tapped)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut places = self.tap.places();
        places.listening.retain(|place| place.number != self.number);
        self.tap.show(&places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Made;

    fn block(source: u16) -> Meta {
        Meta::empty(Signal::Traces, Made::Passed, SourceId(source), 1)
    }

    fn tap(allowed: Tapping) -> Arc<Tap> {
        let sources = || vec![(SourceId(0), "uberagent".to_owned()), (SourceId(1), "otlp".to_owned())];
        Arc::new(Tap::new(allowed, Box::new(sources)))
    }

    fn waiting(listener: &mut Listener) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while let Ok(tapped) = listener.blocks.try_recv() {
            listener.waiting_bytes.fetch_sub(tapped.payload.len(), Ordering::Relaxed);
            payloads.push(tapped.payload.to_vec());
        }
        payloads
    }

    #[test]
    fn listeners_hear_their_stage_and_source_while_they_are_there() {
        let tap = tap(Tapping::Received);
        tap.offer(Stage::Stored, &block(0), b"before");
        let mut all = tap.listen(Stage::Stored, None).unwrap();
        let mut one = tap.listen(Stage::Received, Some("otlp")).unwrap();
        for (stage, source, payload) in
            [(Stage::Stored, 0, b"a"), (Stage::Stored, 1, b"b"), (Stage::Received, 0, b"c"), (Stage::Received, 1, b"d")]
        {
            tap.offer(stage, &block(source), payload);
        }
        assert_eq!((waiting(&mut all), waiting(&mut one)), (vec![b"a".to_vec(), b"b".to_vec()], vec![b"d".to_vec()]));
        drop((all, one));
        assert_eq!((tap.listeners(), tap.stages.load(Ordering::Relaxed)), (0, 0));
        tap.offer(Stage::Stored, &block(0), b"after");
        assert_eq!((tap.taken(), tap.lost()), (3, 0));
    }

    #[test]
    fn a_full_queue_loses_blocks_for_its_listener_alone_and_counts_them() {
        let tap = tap(Tapping::Stored);
        let (mut slow, mut quick) =
            (tap.listen(Stage::Stored, None).unwrap(), tap.listen(Stage::Stored, None).unwrap());
        let large = vec![7; QUEUE_BYTES * 2 / 3];
        for _ in 0..3 {
            tap.offer(Stage::Stored, &block(0), &large);
            assert_eq!(waiting(&mut quick).len(), 1);
        }
        assert_eq!((waiting(&mut slow).len(), tap.taken(), tap.lost()), (1, 4, 2));
        // One that is larger than the queue is seen all the same, and many small ones are bounded too.
        tap.offer(Stage::Stored, &block(0), &vec![7; QUEUE_BYTES + 1]);
        assert_eq!(waiting(&mut slow).len(), 1);
        (0..QUEUE_BLOCKS + 5).for_each(|_| tap.offer(Stage::Stored, &block(0), b"x"));
        assert_eq!(waiting(&mut slow).len(), QUEUE_BLOCKS);
        // Whoever holds the lock holds no lane up.
        let held = tap.places();
        let lost = tap.lost();
        tap.offer(Stage::Stored, &block(0), b"x");
        assert_eq!(tap.lost(), lost + 1);
        drop(held);
    }

    #[test]
    fn what_the_operator_does_not_allow_is_not_shown_and_ends_when_it_is_no_longer() {
        let tap = tap(Tapping::Stored);
        let refused = tap.listen(Stage::Received, None).err().unwrap();
        assert!(refused.to_string().starts_with("management.tap is `stored`"), "{refused}");
        let refused = tap.listen(Stage::Stored, Some("zipkin")).err().unwrap();
        assert_eq!(refused.to_string(), "there is no receiver \"zipkin\"; there are uberagent, otlp");
        let mut listener = tap.listen(Stage::Stored, None).unwrap();
        let others: Vec<_> = (1..MAX_LISTENERS).map(|_| tap.listen(Stage::Stored, None).unwrap()).collect();
        assert_eq!(tap.listen(Stage::Stored, None).err(), Some(TapRefusal::TooMany));
        tap.allow(Tapping::Off);
        tap.offer(Stage::Stored, &block(0), b"x");
        assert_eq!(
            (listener.blocks.try_recv().err(), tap.listeners()),
            (Some(mpsc::error::TryRecvError::Disconnected), 0)
        );
        assert_eq!(tap.listen(Stage::Stored, None).err(), Some(TapRefusal::NotAllowed("off")));
        drop(others);
    }
}
