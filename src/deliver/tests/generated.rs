//! Generated histories against the oracle of [`Rig`]: random blocks, random faults in random phases, abandonment, and then
//! the claim that matters: after the faults stop everything is settled within ten virtual minutes.

use super::*;

/// What the peer does during one phase.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Well,
    Down,
    Flaky,
    LosesAnswers,
    Throttling,
    Unauthorised,
    SmallBodies,
    NoCompression,
    Confused,
}

const PHASES: [Phase; 9] = [
    Phase::Well,
    Phase::Down,
    Phase::Flaky,
    Phase::LosesAnswers,
    Phase::Throttling,
    Phase::Unauthorised,
    Phase::SmallBodies,
    Phase::NoCompression,
    Phase::Confused,
];

fn outcome(phase: Phase, request: &Request, rng: &mut fastrand::Rng) -> Outcome {
    let retry_after = rng.bool().then(|| ms(rng.u64(..60_000)));
    let lost = |answer_lost| Outcome::Unavailable { retry_after, answer_lost, message: "timeout".into() };
    let sometimes = |rng: &mut fastrand::Rng, outcome| if rng.u8(..3) == 0 { outcome } else { Outcome::Accepted };
    match phase {
        Phase::Well => Outcome::Accepted,
        Phase::Down => lost(false),
        Phase::Flaky => sometimes(rng, lost(false)),
        Phase::LosesAnswers => sometimes(rng, lost(true)),
        Phase::Throttling => sometimes(rng, throttled(retry_after)),
        Phase::Unauthorised => misconfigured(),
        Phase::SmallBodies if request.bytes > 100_000 => {
            Outcome::TooLarge { payload_bytes: request.bytes, message: "413".into() }
        }
        Phase::NoCompression if !request.uncompressed => bad_request(),
        Phase::SmallBodies | Phase::NoCompression => Outcome::Accepted,
        Phase::Confused => match rng.u8(..7) {
            0 => bad_request(),
            1 => misconfigured(),
            2 => throttled(retry_after),
            3 => lost(rng.bool()),
            4 => Outcome::AcceptedPartially { refused_spans: rng.u64(..3), message: "some".into() },
            5 => Outcome::NothingToSend,
            _ => Outcome::Accepted,
        },
    }
}

/// A span that the peer refuses in every phase in which it reads bodies at all: one in two thousand.
fn is_poison(block: u64, span: u32) -> bool {
    (block * 7_919 + u64::from(span) * 104_729) % 2_000 == 17
}

fn poisoned(request: &Request) -> bool {
    request.parts.iter().any(|part| (part.first..part.end).any(|span| is_poison(part.block, span)))
}

fn history(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut peer_rng = rng.fork();
    let phases: Vec<Phase> = (0..20).map(|_| PHASES[rng.usize(..PHASES.len())]).collect();
    let compression = if rng.bool() { Compression::Gzip } else { Compression::None };
    let (start, faults_end) = (secs(1_000), secs(1_000) + secs(15) * 20);
    let peer = move |request: &Request, now: Duration| {
        let index = (now.saturating_sub(start).as_secs() / 15) as usize;
        let phase = phases.get(index).copied().unwrap_or(Phase::Well);
        let mut outcome = outcome(phase, request, &mut peer_rng);
        if poisoned(request) && matches!(outcome, Outcome::Accepted | Outcome::AcceptedPartially { .. }) {
            outcome = bad_request();
        }
        (outcome, ms(peer_rng.u64(1..1_000)))
    };
    let max_spans = rng.bool().then(|| rng.usize(200..800));
    let batch = Batch { max_spans, ..BATCH };
    let retry = Retry { max_concurrency: rng.usize(1..=4), ..RETRY };
    let mut rig = Rig::with(Delivery::new(retry, batch, compression, seed), Box::new(peer));
    while rig.now < faults_end {
        for _ in 0..rng.u8(..4) {
            if rig.delivery.has_room() {
                let signal = if rng.u8(..4) == 0 { Signal::Logs } else { Signal::Traces };
                rig.offer_of(signal, rng.u32(..400));
            }
        }
        rig.run_for(ms(rng.u64(1..2_000)));
        if rng.u8(..100) == 0 {
            let below = rng.u64(rig.delivery.frontier()..=rig.fates.len() as u64);
            rig.abandon(below);
        }
    }
    rig.settle_within(secs(600));
    let fresh = rig.offer(1);
    rig.settle_within(secs(10));
    let is_letter = |(part, _): &(Part, &'static str)| part.block == fresh || is_poison(part.block, part.first);
    let lost_in_confusion = rig.letters.iter().filter(|letter| !is_letter(letter)).count();
    assert!(lost_in_confusion * 20 <= rig.sent.len(), "{lost_in_confusion} letters that only a confused peer refused");
}

#[test]
fn every_history_ends_with_every_span_settled_once() {
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| history(seed));
        assert!(outcome.is_ok(), "seed {seed} failed; run history({seed})");
    }
}

#[test]
fn a_history_repeats_itself() {
    let trace = || {
        let mut rng = fastrand::Rng::with_seed(11);
        let peer = move |request: &Request, _: Duration| (outcome(Phase::Confused, request, &mut rng), ms(20));
        let mut rig = Rig::new(Compression::Gzip, 11, Box::new(peer));
        for _ in 0..50 {
            rig.offer(300);
            rig.run_for(secs(1));
        }
        rig.sent.iter().map(|(at, request, _)| (*at, request.spans)).collect::<Vec<_>>()
    };
    assert_eq!(trace(), trace());
}
