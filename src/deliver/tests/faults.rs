//! Peers that come and go: what flows, and what it costs them.

use super::*;

/// Offers `spans` every 100 ms for `time`, as far as there is room.
fn feed(rig: &mut Rig, spans: u32, time: Duration) {
    let end = rig.now + time;
    while rig.now < end {
        if rig.delivery.has_room() {
            rig.offer(spans);
        }
        rig.run_for(ms(100));
    }
}

#[test]
fn a_flapping_peer_gets_everything_and_few_retries() {
    for seed in 0..10 {
        let up = |now: Duration| now.as_secs() % 10 < 5;
        let peer = move |_: &Request, now: Duration| (if up(now) { Outcome::Accepted } else { unavailable() }, ms(20));
        let mut rig = Rig::new(Compression::None, seed, Box::new(peer));
        feed(&mut rig, 300, secs(600));
        // A probe has to meet one of the five good seconds, and an unlucky opening lasts a minute.
        rig.settle_within(secs(600));
        let retries = rig.sent.iter().filter(|(.., retry)| *retry).count();
        assert!(retries * 5 <= rig.sent.len(), "seed {seed}: {retries} retries of {} requests", rig.sent.len());
        let failed = rig.sent.iter().filter(|(at, ..)| !up(*at)).count();
        assert!(failed <= 60 * 12, "seed {seed}: {failed} requests in 60 outages");
        assert!(rig.delivered() >= 300 * 1_000, "seed {seed}: {} spans in ten minutes", rig.delivered());
    }
}

#[test]
fn a_peer_that_fails_now_and_then_is_retried_within_the_budget() {
    for seed in 0..10 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let peer = move |_: &Request, _: Duration| {
            (if rng.u8(..100) < 30 { unavailable() } else { Outcome::Accepted }, ms(20))
        };
        let mut rig = Rig::new(Compression::None, seed, Box::new(peer));
        feed(&mut rig, 300, secs(300));
        rig.settle_within(secs(300));
        let retries = rig.sent.iter().filter(|(.., retry)| *retry).count();
        assert!(retries * 5 <= rig.sent.len() + 5 * 4, "seed {seed}: {retries} of {}", rig.sent.len());
    }
}

/// A token bucket that says exactly when to come back is met with patience, not with a breaker or an empty budget.
#[test]
fn a_rate_limited_peer_is_used_to_its_rate() {
    let mut allowed_at = Duration::ZERO;
    let peer = move |_: &Request, now: Duration| {
        if now < allowed_at {
            return (throttled(Some(secs(1))), ms(5));
        }
        allowed_at = now + secs(1);
        (Outcome::Accepted, ms(5))
    };
    let mut rig = Rig::new(Compression::None, 5, Box::new(peer));
    feed(&mut rig, 300, secs(300));
    let accepted = rig.sent.len() - rig.sent.iter().filter(|(_, request, _)| request.spans == 0).count();
    assert!(rig.delivered() >= 250 * 300, "{} spans by {accepted} requests in 300 s", rig.delivered());
    assert_eq!(rig.delivery.state(rig.now).breaker, BreakerState::Closed);
    assert!(rig.delivery.state(rig.now).concurrency <= 2);
}

#[test]
fn concurrency_grows_while_a_slow_but_well_peer_lags_and_shrinks_when_it_is_overloaded() {
    let mut rig = Rig::new(Compression::None, 5, Box::new(|_, _| (Outcome::Accepted, ms(100))));
    for _ in 0..1_000 {
        rig.offer(300);
    }
    rig.run_for(secs(1));
    assert_eq!(rig.delivery.state(rig.now).concurrency, RETRY.max_concurrency);
    rig.peer = Box::new(|_, _| (throttled(Some(ms(100))), ms(100)));
    rig.run_for(secs(3));
    assert_eq!(rig.delivery.state(rig.now).concurrency, 1);
}

/// Many proxies answer 413 and reset the connection before the body is through: all that is seen is a broken connection.
#[test]
fn a_peer_that_cuts_large_bodies_off_gets_them_in_pieces() {
    let peer = |request: &Request, _: Duration| {
        (if request.bytes > 300_000 { unavailable() } else { Outcome::Accepted }, ms(20))
    };
    let mut rig = Rig::new(Compression::None, 5, Box::new(peer));
    for _ in 0..60 {
        rig.offer(300);
    }
    for _ in 0..600 {
        rig.offer(200);
        rig.run_for(ms(500));
    }
    rig.settle_within(secs(300));
    assert_eq!(rig.letters, []);
}

/// A span that makes the backend crash must not take the others with it; it is kept, because no peer ever refused it.
#[test]
fn a_span_that_kills_the_peer_waits_alone() {
    let peer = |request: &Request, _: Duration| {
        (if contains(request, 3, 7) { unavailable() } else { Outcome::Accepted }, ms(20))
    };
    let mut rig = Rig::new(Compression::None, 5, Box::new(peer));
    feed(&mut rig, 300, secs(1_800));
    rig.run_for(secs(300));
    assert_eq!((rig.unsettled, rig.fates[3][7], rig.delivery.frontier()), (1, Fate::Unsettled, 3));
}
