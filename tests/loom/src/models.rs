//! The models: each a small program over one of the checked modules, run by loom in every order.
//!
//! Memory that an ordering must protect is a cell of loom's, which reports an access that races. Who would sleep is asked
//! whether it would be woken instead: loom's own `unpark` synchronises at once, more than the real one promises.

use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::drain::EgressStop;
use super::extent::Extent;
use super::handshake::{Done, Parked, Request};
use super::lost::Lost;
pub(crate) use super::models_of_a_log::*;
use super::quota::Quota;
use super::ranges::Ranges;

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

pub(crate) fn whatever_is_published_is_in_place() {
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

pub(crate) fn a_sealed_end_is_final_and_complete() {
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

pub(crate) fn a_recovered_segment_is_sealed_from_the_start() {
    loom::model(|| assert_eq!(Extent::sealed(5, 0).load(), (5, true)));
}

/// As the sync thread and two writers. A writer publishes, then makes its request; one that finds it made wakes nobody. The
/// taker takes, then looks at what is published, twice; it would sleep then. Whatever was published by now was seen by a
/// look, or there is a request to be taken, and whoever made it wakes.
pub(crate) fn no_request_is_missed() {
    loom::model(|| {
        let shared = Arc::new((Request::new(false), [AtomicU64::new(0), AtomicU64::new(0)]));
        let writers = [0, 1].map(|index| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                // Relaxed: it is the request that has to order this.
                shared.1[index].store(1, Ordering::Relaxed);
                shared.0.make()
            })
        });
        let mut seen = [false; 2];
        let mut taken = 0;
        for _ in 0..2 {
            if shared.0.take() {
                taken += 1;
                for (published, seen) in shared.1.iter().zip(&mut seen) {
                    *seen |= published.load(Ordering::Relaxed) == 1;
                }
            }
        }
        let wakes = writers.map(|writer| u32::from(writer.join().unwrap())).iter().sum::<u32>();
        let is_left = shared.0.take();
        assert!(is_left || seen == [true; 2], "a request is gone and what it was about was not seen");
        assert_eq!(wakes, taken + u32::from(is_left), "as many wakes as requests to take");
    });
}

/// The producer parks and looks again; the writer publishes and wakes. No sleep here: who would sleep must be woken.
pub(crate) fn no_verdict_is_missed_by_a_producer_that_parks() {
    loom::model(|| {
        let shared = Arc::new((Parked::new(), AtomicU64::new(0)));
        let writer = Arc::clone(&shared);
        let writer = thread::spawn(move || {
            // Relaxed, as in a ring at its weakest: it is the flag that has to order this.
            writer.1.store(1, Ordering::Relaxed);
            writer.0.wake()
        });
        shared.0.park();
        let is_seen = shared.1.load(Ordering::Relaxed) == 1;
        let is_woken = writer.join().unwrap();
        assert!(is_seen || is_woken, "the producer sleeps for ever");
    });
}

pub(crate) fn a_producer_is_woken_at_most_once_a_park() {
    loom::model(|| {
        let parked = Arc::new(Parked::new());
        let writer = Arc::clone(&parked);
        let writer = thread::spawn(move || u8::from(writer.wake()) + u8::from(writer.wake()));
        parked.park();
        let wakes = writer.join().unwrap();
        assert_eq!(wakes + u8::from(parked.wake()), 1);
    });
}

/// A ring that is found empty after the last word stays empty; a thread that begins anew has its last word before it.
pub(crate) fn nothing_is_left_after_the_last_word() {
    loom::model(|| {
        let shared = Arc::new((Done::new(true), AtomicU64::new(0)));
        let producer = Arc::clone(&shared);
        assert!(shared.0.is_said());
        shared.0.begin();
        let producer = thread::spawn(move || {
            // Relaxed, as in a ring at its weakest: it is the last word that has to order this.
            producer.1.store(1, Ordering::Relaxed);
            producer.1.store(2, Ordering::Relaxed);
            producer.0.say();
        });
        if shared.0.is_said() {
            assert_eq!(shared.1.load(Ordering::Relaxed), 2, "the end, and something is left");
        }
        producer.join().unwrap();
        assert!(shared.0.is_said());
    });
}

pub(crate) fn no_more_is_taken_than_there_is() {
    loom::model(|| {
        let quota = Arc::new(Quota::new());
        quota.adopt(1);
        let lanes = [0, 1].map(|_| {
            let quota = Arc::clone(&quota);
            thread::spawn(move || {
                let taken = quota.take(2, 4);
                if taken {
                    quota.give_back(1);
                }
                taken
            })
        });
        let used = quota.used();
        assert!((1..=4).contains(&used), "{used} in use of 4");
        let taken = lanes.map(|lane| u64::from(lane.join().unwrap())).iter().sum::<u64>();
        assert!(taken >= 1, "both were refused");
        assert_eq!(quota.used(), 1 + taken);
    });
}

pub(crate) fn who_waits_for_bytes_finds_them_once_woken() {
    loom::model(|| {
        let quota = Arc::new(Quota::new());
        quota.adopt(4);
        let (waiter, giver) = (thread::current(), Arc::clone(&quota));
        let giver = thread::spawn(move || {
            giver.give_back(2);
            waiter.unpark();
        });
        if !quota.take(2, 4) {
            thread::park();
            assert!(quota.take(2, 4), "woken, and the bytes are not there");
        }
        giver.join().unwrap();
        assert_eq!(quota.used(), 4);
    });
}

/// Two threads hold ranges, of which there is room for one without a new chunk; each finds its own.
pub(crate) fn who_holds_a_range_finds_it() {
    loom::model(|| {
        let ranges: &'static Ranges = Box::leak(Box::new(Ranges::new()));
        let holds = move |page: usize| {
            let held = ranges.hold(page << 12, 8192).unwrap();
            assert!(ranges.has((page << 12) + 8191), "a range that is held is not found");
            assert!(!ranges.has(7 << 12), "a range is found that nobody holds");
            drop(held);
        };
        let other = thread::spawn(move || holds(4));
        holds(1);
        other.join().unwrap();
        assert!((0..8).all(|page| !ranges.has(page << 12)), "a range is found that nobody holds");
    });
}

/// One range takes the place of another while a third address is looked up, that lies between the two.
pub(crate) fn nothing_between_two_ranges_is_found() {
    loom::model(|| {
        let ranges: &'static Ranges = Box::leak(Box::new(Ranges::new()));
        let held = ranges.hold(1 << 12, 4096).unwrap();
        let looking = thread::spawn(move || assert!(!ranges.has(5 << 12), "a page between two ranges is found"));
        drop(held);
        drop(ranges.hold(9 << 12, 4096));
        looking.join().unwrap();
    });
}

/// One thread loses a page while another finds it sound and sends it. The page is as the kernel shows it: whoever sees the
/// zeros sees what was done before they came.
pub(crate) fn no_zeros_are_sent_for_a_page_that_was_sound() {
    loom::model(|| {
        let lost = Lost::new(AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new((lost, AtomicU64::new(7)));
        let sending = Arc::clone(&shared);
        let sending = thread::spawn(move || {
            let (lost, page) = &*sending;
            let noted = lost.count();
            let is_sound = page.load(Ordering::Relaxed) == 7;
            let sent = page.load(Ordering::Relaxed);
            assert!(lost.is_beyond(noted) || !is_sound || sent == 7, "zeros are sent");
        });
        let (lost, page) = &*shared;
        assert!(lost.replace(|| {
            page.store(0, Ordering::Release);
            true
        }));
        assert_eq!(lost.count(), 1);
        sending.join().unwrap();
        assert!(!lost.is_beyond(1), "a fault that is over ends every send");
    });
}

pub(crate) fn the_end_comes_after_all_that_was_before_it() {
    loom::model(|| {
        let stop = Arc::new(EgressStop::default());
        let handed_over = Arc::new(UnsafeCell::new(0));
        let (stopper, before) = (Arc::clone(&stop), Arc::clone(&handed_over));
        let stopper = thread::spawn(move || {
            // SAFETY: written before the end begins, read after; loom reports an access that races.
            before.with_mut(|place| unsafe { *place = 7 });
            stopper.drain_until(Duration::from_nanos(5));
            stopper.skip();
        });
        let early = stop.is_over(Duration::ZERO);
        if stop.is_draining() {
            // SAFETY: as above.
            handed_over.with(|place| assert_eq!(unsafe { *place }, 7));
            assert!(stop.is_over(Duration::from_nanos(5)), "the end has begun and its time is over");
        }
        stopper.join().unwrap();
        assert!(!early || stop.is_draining());
        assert!(stop.is_over(Duration::ZERO));
    });
}
