//! The three ordinary situations in which the original ProxyTrace loses data, measured by running it, and what becomes of
//! the same spans here.

use super::*;

/// Collector down for 15 s: the original drops batch after batch, 37,600 of 37,600 spans.
#[test]
fn a_collector_that_is_down_for_fifteen_seconds_loses_nothing() {
    let up_at = secs(1_015);
    let peer = move |_: &Request, now: Duration| {
        if now < up_at { (unavailable(), ms(5)) } else { (Outcome::Accepted, ms(5)) }
    };
    let mut rig = Rig::new(Compression::None, 7, Box::new(peer));
    for _ in 0..188 {
        rig.offer(200);
        rig.run_for(ms(20));
    }
    rig.run_until(up_at);
    let while_down = rig.sent.len();
    assert!(while_down <= 15, "{while_down} requests at a collector that is down");
    rig.settle_within(secs(30));
    assert_eq!((rig.delivered(), rig.letters.len()), (37_600, 0));
    assert_eq!(rig.delivery.state(rig.now).breaker, BreakerState::Closed);
}

fn poisoned(block: u64, span: u32) -> impl FnMut(&Request, Duration) -> (Outcome, Duration) {
    move |request, _| if contains(request, block, span) { (bad_request(), ms(5)) } else { (Outcome::Accepted, ms(5)) }
}

/// One bad id: the original loses the 57 spans of its batch.
#[test]
fn one_bad_id_costs_one_span() {
    let mut rig = Rig::new(Compression::None, 7, Box::new(poisoned(1, 23)));
    rig.offer(200);
    rig.run_for(secs(1));
    rig.offer(57);
    rig.settle_within(secs(1));
    assert_eq!((rig.delivered(), rig.count(Fate::DeadLetter)), (256, 1));
    assert_eq!(rig.fates[1][23], Fate::DeadLetter);
    assert_eq!(rig.letters[0].1, "refused_by_peer");
    assert!(rig.sent.len() <= 14, "{} requests to find one span among 57", rig.sent.len());
}

/// The same as the very first thing that a destination is sent: only a success makes the data suspect, and a single span
/// is enough for one.
#[test]
fn one_bad_id_at_the_very_beginning_gets_a_second_opinion() {
    let mut rig = Rig::new(Compression::None, 7, Box::new(poisoned(0, 23)));
    rig.offer(57);
    rig.settle_within(secs(2));
    assert_eq!((rig.delivered(), rig.count(Fate::DeadLetter), rig.held()), (56, 1, None));
}

/// A bad span all alone could as well be a peer that refuses everything: it waits for anything that is accepted.
#[test]
fn a_bad_span_all_alone_waits_for_another() {
    let mut rig = Rig::new(Compression::None, 7, Box::new(poisoned(0, 0)));
    rig.offer(1);
    rig.run_for(secs(200));
    assert_eq!((rig.held(), rig.unsettled), (Some(HoldReason::NothingAccepted), 1));
    assert!(rig.sent.len() <= 5, "{} probes in 200 s", rig.sent.len());
    rig.offer(57);
    rig.settle_within(secs(62));
    assert_eq!((rig.delivered(), rig.count(Fate::DeadLetter), rig.held()), (57, 1, None));
}

/// SIGTERM with 7,320 queued spans and a slow collector: the original hangs and its backlog dies with it.
#[test]
fn a_stop_with_a_backlog_ends_in_time_and_the_rest_is_delivered_by_the_next_process() {
    let slow = |_: &Request, _: Duration| (Outcome::Accepted, secs(5));
    let batch = Batch { max_spans: Some(200), ..BATCH };
    let retry = Retry { max_concurrency: 1, ..RETRY };
    let mut rig = Rig::with(Delivery::new(retry, batch, Compression::None, 7), Box::new(slow));
    for _ in 0..61 {
        rig.offer(120);
    }
    rig.delivery.drain();
    rig.run_for(secs(30));
    assert_eq!(rig.delivered(), 6 * 200);
    let frontier = rig.delivery.frontier();
    assert_eq!(frontier, 1_200 / 120, "the cursor keeps what was delivered");
    // The next process opens at the cursor; the request in flight at the stop is sent again: at least once.
    let mut next = Rig::new(Compression::None, 8, Box::new(well));
    for _ in frontier..61 {
        next.offer(120);
    }
    next.settle_within(secs(5));
    assert_eq!(rig.delivered() + next.delivered(), 7_320);
}

/// A tail smaller than a batch is not left behind by a stop.
#[test]
fn draining_sends_the_last_few_spans_at_once() {
    let mut rig = Rig::new(Compression::None, 7, Box::new(well));
    rig.offer(3);
    rig.delivery.drain();
    rig.run_for(ms(10));
    assert_eq!(rig.delivered(), 3);
}
