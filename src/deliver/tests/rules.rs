//! One rule a test: what follows from each outcome.

use super::*;

/// A peer that answers from a list, then takes everything.
fn script(outcomes: impl IntoIterator<Item = Outcome>) -> Peer {
    let mut outcomes: VecDeque<Outcome> = outcomes.into_iter().collect();
    Box::new(move |_, _| (outcomes.pop_front().unwrap_or(Outcome::Accepted), ms(10)))
}

fn times(rig: &Rig) -> Vec<Duration> {
    rig.sent.iter().map(|(at, ..)| *at).collect()
}

#[test]
fn partial_success_is_settled_and_never_sent_again() {
    let partly = |refused_spans| Outcome::AcceptedPartially { refused_spans, message: "attribute too long".into() };
    let mut rig = Rig::new(Compression::None, 1, script([partly(3), partly(u64::MAX), partly(0)]));
    for _ in 0..3 {
        rig.offer(200);
        rig.run_for(secs(1));
    }
    assert_eq!((rig.sent.len(), rig.unsettled, rig.refused_by_peer), (3, 0, 203), "a lie is cut to what was sent");
}

#[test]
fn retry_after_pauses_the_whole_destination_and_the_breaker_does_not_mind() {
    let answers = (0..30).map(|_| throttled(Some(secs(7))));
    let mut rig = Rig::new(Compression::None, 1, script(answers));
    rig.offer(200);
    rig.run_for(ms(100));
    assert_eq!(rig.delivery.state(rig.now).paused_until.map(|until| until >= rig.now + ms(6_900)), Some(true));
    rig.offer(200);
    rig.settle_within(secs(30 * 8));
    let gaps: Vec<Duration> = times(&rig).windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[..30].iter().all(|gap| *gap >= secs(7) && *gap <= ms(7_800)), "{gaps:?}");
    assert_eq!(rig.delivery.state(rig.now).breaker, BreakerState::Closed);
}

#[test]
fn absurd_wishes_are_clamped() {
    for (asked, least, most) in [(Duration::ZERO, ms(100), ms(130)), (Duration::MAX, secs(900), secs(901))] {
        let mut rig = Rig::new(Compression::None, 1, script([throttled(Some(asked))]));
        rig.offer(200);
        rig.settle_within(secs(1_000));
        let times = times(&rig);
        assert!((least..=most).contains(&(times[1] - times[0])), "{asked:?}: {times:?}");
    }
}

#[test]
fn a_throttle_without_a_wish_never_waits_close_to_nothing() {
    for seed in 0..50 {
        let mut rig = Rig::new(Compression::None, seed, script((0..6).map(|_| throttled(None))));
        rig.offer(200);
        rig.settle_within(secs(120));
        let gaps: Vec<Duration> = times(&rig).windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (count, gap) in gaps.iter().enumerate() {
            assert!(*gap >= ms(250) * (1 << count), "{gaps:?}");
        }
    }
}

#[test]
fn five_failures_open_the_breaker_and_the_oldest_request_probes() {
    let mut rig = Rig::new(Compression::None, 3, script((0..7).map(|_| unavailable())));
    for _ in 0..40 {
        rig.offer(4_000);
    }
    let mut openings = Vec::new();
    let end = rig.now + secs(60);
    while rig.unsettled > 0 {
        let before = rig.delivery.state(rig.now).breaker;
        assert!(rig.step(end));
        let after = rig.delivery.state(rig.now).breaker;
        match after {
            BreakerState::Open { until } if before != after => openings.push(until - rig.now),
            BreakerState::HalfOpen { .. } => assert!(rig.in_flight.len() <= 1, "one probe at a time"),
            _ => {}
        }
    }
    assert_eq!(openings.len(), 3, "five failures, then two failed probes: {openings:?}");
    for (count, opening) in openings.iter().enumerate() {
        assert!((secs(1 << count)..=secs(2 << count)).contains(opening), "{openings:?}");
    }
    let probes = &rig.sent[5..10];
    assert!(probes.windows(2).all(|pair| pair[0].0 < pair[1].0), "probes one after the other");
    assert_eq!(probes[0].1.parts[0].block, 0, "the oldest probes");
}

#[test]
fn half_of_twenty_calls_open_the_breaker_too() {
    let mut call = 0;
    let peer = move |_: &Request, _: Duration| {
        call += 1;
        (if call % 2 == 0 { unavailable() } else { Outcome::Accepted }, ms(10))
    };
    let mut rig = Rig::new(Compression::None, 3, Box::new(peer));
    let mut opened_after = None;
    for _ in 0..40 {
        rig.offer(200);
        rig.run_for(ms(50));
        if matches!(rig.delivery.state(rig.now).breaker, BreakerState::Open { .. }) {
            opened_after = opened_after.or(Some(rig.sent.len()));
        }
    }
    assert!(opened_after.is_some_and(|calls| (20..=21).contains(&calls)), "{opened_after:?}");
}

#[test]
fn what_cannot_be_written_is_kept_aside_alone_though_the_peer_has_taken_nothing_yet() {
    let poison = |request: &Request| request.parts.iter().any(|part| part.first <= 77 && 77 < part.end);
    let peer = move |request: &Request, _: Duration| {
        let unencodable = Outcome::Unencodable { message: "trapped".into() };
        (if poison(request) { unencodable } else { Outcome::Accepted }, ms(10))
    };
    let mut rig = Rig::new(Compression::Gzip, 3, Box::new(peer));
    rig.offer(200);
    rig.run_for(secs(5));
    assert_eq!((rig.unsettled, rig.letters.len()), (0, 1), "{:?}", rig.delivery.state(rig.now));
    assert_eq!((rig.letters[0].0.first, rig.letters[0].1), (77, "unencodable"));
    assert!(rig.sent.iter().all(|(_, request, ..)| !request.uncompressed), "compression has nothing to do with it");
}

#[test]
fn what_is_too_large_is_halved_and_the_limit_is_learned() {
    let peer = |request: &Request, _: Duration| {
        let refuse = request.bytes > 300_000;
        let too_large = Outcome::TooLarge { payload_bytes: request.bytes, message: "413".into() };
        (if refuse { too_large } else { Outcome::Accepted }, ms(10))
    };
    let mut rig = Rig::new(Compression::None, 3, Box::new(peer));
    for _ in 0..400 {
        rig.offer(300);
    }
    rig.settle_within(secs(60));
    let refused = rig.sent.iter().filter(|(_, request, _)| request.bytes > 300_000).count();
    assert!(refused <= 6, "{refused} requests were too large before the limit was learned");
    assert!((150_000..=300_000).contains(&rig.delivery.state(rig.now).request_limit_bytes));
    assert_eq!(rig.delivered(), 120_000);
}

#[test]
fn one_huge_span_is_a_dead_letter_and_does_not_spoil_the_limit() {
    let peer = |request: &Request, _: Duration| {
        let bytes = request.bytes + if contains(request, 2, 5) { 500_000 } else { 0 };
        let too_large = Outcome::TooLarge { payload_bytes: bytes, message: "413".into() };
        (if bytes > 400_000 { too_large } else { Outcome::Accepted }, ms(10))
    };
    let mut rig = Rig::new(Compression::None, 3, Box::new(peer));
    for _ in 0..20 {
        rig.offer(300);
    }
    rig.settle_within(secs(60));
    assert_eq!(rig.letters.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), ["too_large"]);
    assert!(rig.delivery.state(rig.now).request_limit_bytes >= 200_000);
}

#[test]
fn a_refused_body_is_repeated_uncompressed_once_and_that_is_remembered() {
    let peer =
        |request: &Request, _: Duration| (if request.uncompressed { Outcome::Accepted } else { bad_request() }, ms(10));
    let mut rig = Rig::new(Compression::Gzip, 3, Box::new(peer));
    for _ in 0..10 {
        rig.offer(200);
        rig.run_for(secs(1));
    }
    let uncompressed: Vec<bool> = rig.sent.iter().map(|(_, request, _)| request.uncompressed).collect();
    assert_eq!(uncompressed[..2], [false, true]);
    assert!(uncompressed[1..].iter().all(|uncompressed| *uncompressed) && uncompressed.len() == 11);
    assert!(rig.delivery.state(rig.now).compression_given_up);
    assert_eq!((rig.delivered(), rig.held()), (2_000, None));
}

#[test]
fn a_wrong_token_holds_everything_and_is_looked_at_once_a_minute() {
    let fixed_at = secs(1_000) + secs(3_600);
    let peer =
        move |_: &Request, now: Duration| (if now < fixed_at { misconfigured() } else { Outcome::Accepted }, ms(10));
    let mut rig = Rig::new(Compression::None, 3, Box::new(peer));
    for _ in 0..100 {
        rig.offer(500);
    }
    rig.run_until(fixed_at - ms(1));
    assert_eq!((rig.held(), rig.unsettled), (Some(HoldReason::Misconfigured), 50_000));
    let gaps: Vec<Duration> = times(&rig).windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() <= 60 && gaps.iter().all(|gap| *gap >= secs(60)), "{gaps:?}");
    let state = rig.delivery.state(rig.now);
    assert_eq!(state.last_error.map(|error| error.message), Some("401 unauthorized".to_owned()));
    assert_eq!(state.breaker, BreakerState::Closed);
    rig.settle_within(secs(70));
    assert_eq!((rig.delivered(), rig.held()), (50_000, None));
}

#[test]
fn a_peer_that_refuses_everything_from_the_start_is_held_not_emptied() {
    let mut rig = Rig::new(Compression::Gzip, 3, Box::new(|_, _| (bad_request(), ms(10))));
    for _ in 0..20 {
        rig.offer(500);
    }
    rig.run_for(secs(3_600));
    assert_eq!((rig.held(), rig.letters.len(), rig.unsettled), (Some(HoldReason::NothingAccepted), 0, 10_000));
    assert!(rig.sent.len() <= 2 * 62, "{} requests in an hour", rig.sent.len());
}

#[test]
fn a_peer_that_begins_to_refuse_everything_is_held_after_a_few_letters() {
    let broken_at = secs(1_100);
    let peer =
        move |_: &Request, now: Duration| (if now < broken_at { Outcome::Accepted } else { bad_request() }, ms(10));
    let mut rig = Rig::new(Compression::None, 3, Box::new(peer));
    rig.offer(2_000);
    rig.run_until(broken_at - secs(70));
    rig.offer(2_000);
    rig.run_until(broken_at);
    rig.offer(5_000);
    rig.run_for(secs(10));
    assert_eq!(rig.held(), Some(HoldReason::TooManyDeadLetters));
    assert!((1..=100).contains(&rig.letters.len()), "{} letters", rig.letters.len());
    assert_eq!(rig.unsettled + rig.letters.len() as u64, 5_000);
    let before = rig.letters.len();
    rig.run_for(secs(600));
    assert!(rig.letters.len() - before <= 10, "{} letters while held", rig.letters.len() - before);
}

#[test]
fn a_lost_answer_is_counted_as_redelivered_and_nothing_else() {
    let lost = Outcome::Unavailable { retry_after: None, answer_lost: true, message: "timeout".into() };
    let mut rig = Rig::new(Compression::None, 3, script([lost, unavailable()]));
    rig.offer(200);
    rig.settle_within(secs(60));
    rig.offer(300);
    rig.settle_within(secs(60));
    assert_eq!((rig.delivered(), rig.redelivered), (500, 200));
}

#[test]
fn what_the_driver_abandons_is_settled_once_wherever_it_is() {
    let mut rig = Rig::new(Compression::None, 3, script([misconfigured(), Outcome::Accepted, misconfigured()]));
    for _ in 0..6 {
        rig.offer(4_000);
    }
    rig.run_for(ms(50));
    assert_eq!(rig.held(), Some(HoldReason::Misconfigured));
    assert_eq!(rig.abandon(3), 12_000);
    assert_eq!(rig.delivery.frontier(), 3);
    rig.run_for(secs(61));
    rig.run_for(ms(5));
    assert_eq!(rig.abandon(5), 4_000, "block 3 was delivered by the probe, block 4 waits");
    rig.settle_within(secs(200));
    assert_eq!(rig.delivered(), 8_000);
}

/// The session map has nothing to say of most requests: that must not look like a database that is well.
#[test]
fn a_held_destination_probes_again_though_all_of_its_probe_was_given_up() {
    let too_large = Outcome::TooLarge { payload_bytes: 44_000, message: "413".into() };
    for outcome in [unavailable(), throttled(None), bad_request(), misconfigured(), too_large] {
        let mut rig = Rig::new(Compression::None, 1, script([misconfigured(), outcome.clone()]));
        rig.offer(200);
        rig.run_for(ms(60_015));
        assert_eq!((rig.sent.len(), rig.in_flight.len()), (2, 1), "the probe is under way");
        rig.abandon(1);
        rig.offer(200);
        rig.run_for(secs(150));
        assert_eq!(rig.unsettled, 0, "after {outcome:?}");
    }
}

/// The span that is left may be a good one: only what is refused alone is a dead letter.
#[test]
fn what_is_left_of_a_refused_request_goes_again_alone() {
    let too_large = Outcome::TooLarge { payload_bytes: 440, message: "413".into() };
    for outcome in [too_large, bad_request()] {
        let mut rig = Rig::new(Compression::None, 1, script([Outcome::Accepted, outcome.clone()]));
        rig.offer(200);
        rig.settle_within(secs(1));
        let first = rig.offer(1);
        rig.offer(1);
        rig.run_for(BATCH.timeout + ms(5));
        assert_eq!((rig.in_flight.len(), rig.sent.last().map(|(_, sent, _)| sent.spans)), (1, Some(2)));
        rig.abandon(first + 1);
        rig.settle_within(secs(5));
        assert_eq!((rig.delivered(), rig.letters.len()), (201, 0), "after {outcome:?}");
    }
}

#[test]
fn what_needed_no_sending_says_nothing_of_the_peer() {
    let peer = |request: &Request, _: Duration| {
        (if request.parts[0].block.is_multiple_of(8) { unavailable() } else { Outcome::NothingToSend }, ms(10))
    };
    let mut rig = Rig::new(Compression::None, 3, Box::new(peer));
    for _ in 0..800 {
        rig.offer(200);
        rig.run_for(ms(100));
    }
    assert!(!matches!(rig.delivery.state(rig.now).breaker, BreakerState::Closed), "five failures and no success");
    let cut = rig.sent.iter().filter(|(_, request, retry)| *retry && !request.parts[0].is_whole()).count();
    assert_eq!(cut, 0, "requests are halved although nothing else was accepted");

    let answers = [misconfigured(), Outcome::NothingToSend, misconfigured()];
    let mut rig = Rig::new(Compression::None, 3, script(answers));
    rig.offer(6_000);
    rig.run_for(secs(61));
    assert_eq!(rig.held(), Some(HoldReason::Misconfigured), "a probe that was not sent releases nothing");
    rig.settle_within(secs(200));
}

#[test]
fn the_window_bounds_what_is_taken_on() {
    let mut rig = Rig::new(Compression::None, 3, Box::new(|_, _| (unavailable(), ms(10))));
    let mut blocks = 0;
    while rig.delivery.has_room() {
        rig.offer(300);
        blocks += 1;
    }
    assert!(blocks * 66_000 <= 2 * 4 * (1 << 20) + 66_000, "{blocks} blocks taken on");
    let mut empty = Rig::new(Compression::None, 3, Box::new(|_, _| (unavailable(), ms(10))));
    empty.offer(1);
    let mut blocks = 0;
    while empty.delivery.has_room() {
        empty.offer(0);
        blocks += 1;
    }
    assert!(blocks < 20_000, "blocks without spans behind a stuck one are bounded too");
}
