//! Model checks of the log's published end: what a reader sees below it is in place, and a sealed end is final.
//!
//! The module is taken from the product by path; it imports nothing from its crate. Planting a weak ordering (`Relaxed`
//! for the `Release` in `publish`) makes the first test fail.

#![cfg(test)]

#[path = "../../../src/queue/extent.rs"]
mod extent;

use extent::Extent;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

const ENTRIES: usize = 3;

struct Segment {
    bytes: [UnsafeCell<u64>; ENTRIES],
    extent: Extent,
}

fn segment() -> Arc<Segment> {
    Arc::new(Segment { bytes: std::array::from_fn(|_| UnsafeCell::new(0)), extent: Extent::open(0) })
}

fn write(segment: &Segment, entry: usize) {
    // SAFETY: only the writer writes, and only beyond the published end; loom reports an access that races.
    segment.bytes[entry].with_mut(|place| unsafe { *place = entry as u64 + 1 });
}

fn read_to(segment: &Segment, end: u64) {
    for entry in 0..end as usize {
        // SAFETY: entries below the published end are never written again; loom reports an access that races.
        segment.bytes[entry].with(|place| assert_eq!(unsafe { *place }, entry as u64 + 1));
    }
}

#[test]
fn whatever_is_published_is_in_place() {
    loom::model(|| {
        let shared = segment();
        let writer = Arc::clone(&shared);
        let writer = thread::spawn(move || {
            for entry in 0..ENTRIES {
                write(&writer, entry);
                writer.extent.publish(entry as u64 + 1);
            }
        });
        for _ in 0..2 {
            let (end, sealed) = shared.extent.load();
            assert!(!sealed);
            read_to(&shared, end);
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_sealed_end_is_final_and_complete() {
    loom::model(|| {
        let shared = segment();
        let writer = Arc::clone(&shared);
        let writer = thread::spawn(move || {
            for entry in 0..ENTRIES - 1 {
                write(&writer, entry);
                writer.extent.publish(entry as u64 + 1);
            }
            write(&writer, ENTRIES - 1);
            writer.extent.seal(ENTRIES as u64);
        });
        let (first, sealed) = shared.extent.load();
        read_to(&shared, first);
        let (second, still_sealed) = shared.extent.load();
        assert!(second >= first);
        if sealed {
            assert_eq!((first, still_sealed), (ENTRIES as u64, true), "sealed before its end");
        }
        writer.join().unwrap();
        assert_eq!(shared.extent.load(), (ENTRIES as u64, true));
    });
}

#[test]
fn a_recovered_segment_is_sealed_from_the_start() {
    loom::model(|| assert_eq!(Extent::sealed(5).load(), (5, true)));
}
