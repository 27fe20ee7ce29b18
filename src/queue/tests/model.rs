//! The log against a `VecDeque`, by the same operations on every storage.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{meta, small_options};
use crate::queue::{Appender, Budget, Entry, FileStorage, Log, MmapStorage, Position, Reader, Storage};
use crate::sim::disk::SimDisk;

#[derive(Clone, Debug)]
enum Operation {
    Append { bytes: usize, spans: u32 },
    Read(usize),
    Sync,
    Tend,
    Maintain,
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0usize..2048, 0u32..50).prop_map(|(bytes, spans)| Operation::Append { bytes, spans }),
        3 => (1usize..20).prop_map(Operation::Read),
        2 => Just(Operation::Sync),
        1 => Just(Operation::Tend),
        1 => Just(Operation::Maintain),
        1 => Just(Operation::Reopen),
    ]
}

struct Model {
    storage: Arc<dyn Storage>,
    root: String,
    waiting: VecDeque<(u64, u32, Vec<u8>)>,
    appended: u64,
    at: Position,
}

impl Model {
    fn open(&self) -> (Arc<Log>, Appender, Reader) {
        let options = small_options(&self.root, &Arc::new(Budget::new(4 << 20, 0)));
        let (log, appender, recovered) = Log::open(Arc::clone(&self.storage), options).expect("the disk is sound");
        assert_eq!(recovered.totals.appended, self.appended);
        assert_eq!((recovered.lost_blocks, recovered.tail_blocks, recovered.quarantined), (0, 0, 0));
        let reader = log.reader(self.at);
        (log, appender, reader)
    }

    fn run(&mut self, operations: Vec<Operation>) {
        let (mut log, mut appender, mut reader) = self.open();
        for (step, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Append { bytes, spans } => {
                    let payload = vec![step.to_le_bytes()[0]; bytes];
                    let sequence = appender.append(&meta(spans), &payload).expect("there is room");
                    self.appended += u64::from(spans);
                    self.waiting.push_back((sequence, spans, payload));
                }
                Operation::Read(blocks) => {
                    for _ in 0..blocks {
                        self.read(&mut reader);
                    }
                    if self.at.sequence <= log.durable_sequence() {
                        log.release(&self.at);
                    }
                }
                Operation::Sync => assert_eq!(log.sync().expect("the disk is sound"), log.published_sequence()),
                Operation::Tend => log.tend(1).expect("the disk is sound"),
                Operation::Maintain => {
                    appender.maintain(Duration::from_secs(step as u64), 1).expect("the disk is sound")
                }
                Operation::Reopen => {
                    drop((log, appender, reader));
                    (log, appender, reader) = self.open();
                }
            }
        }
        while !self.waiting.is_empty() {
            self.read(&mut reader);
        }
        assert_eq!(reader.next(), None);
        let backlog = log.segments();
        assert!(backlog.len() <= 70, "{} segments", backlog.len());
    }

    fn read(&mut self, reader: &mut Reader) {
        match (reader.next(), self.waiting.pop_front()) {
            (Some(Entry::Block { meta, sequence, payload, end, .. }), Some(expected)) => {
                assert_eq!((sequence, meta.spans, payload.to_vec()), expected);
                assert_eq!(end, reader.position());
                self.at = end;
            }
            (None, None) => {}
            (found, expected) => panic!("found {found:?}, expected {expected:?}"),
        }
    }
}

fn model(storage: Arc<dyn Storage>, root: &Path) -> Model {
    let root = root.to_string_lossy().into_owned();
    Model { storage, root, waiting: VecDeque::new(), appended: 0, at: Position::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mapped_log_is_a_queue(operations in prop::collection::vec(operation(), 1..120)) {
        let root = tempfile::tempdir().unwrap();
        model(Arc::new(MmapStorage), root.path()).run(operations);
    }

    #[test]
    fn a_plain_log_is_a_queue(operations in prop::collection::vec(operation(), 1..120)) {
        let root = tempfile::tempdir().unwrap();
        model(Arc::new(FileStorage), root.path()).run(operations);
    }

    #[test]
    fn a_simulated_log_is_a_queue(operations in prop::collection::vec(operation(), 1..120)) {
        model(Arc::new(SimDisk::new(1)), Path::new("state")).run(operations);
    }
}
