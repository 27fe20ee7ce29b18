//! A backend behind a network, as a destination meets it: what it answers, when, and what it really took.
//!
//! Its weather changes every few seconds to minutes: fine, slow, refusing, down, hanging, throttling, closed to our token,
//! cutting off large requests, flapping. A hanging backend may have taken what it never answered, so that the spans come
//! twice. Calm ends the weather for good; that it refuses poison, and whole requests beyond its size, stays. It opens no
//! socket and reads no clock: the caller delivers the answer at its time. One seed decides it all.

use std::time::Duration;

use fastrand::Rng;

use crate::block::Outcome;
use crate::deliver::Request;

/// How the backend and the way to it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fine,
    Slow,
    ServerErrors,
    Down,
    Hanging,
    Throttling,
    Closed,
    /// Requests beyond a size are reset.
    CutsOff,
    /// Five seconds up, five down.
    Flapping,
}

const WEATHERS: [Weather; 12] = [
    Weather::Fine,
    Weather::Fine,
    Weather::Fine,
    Weather::Fine,
    Weather::Slow,
    Weather::ServerErrors,
    Weather::Down,
    Weather::Hanging,
    Weather::Throttling,
    Weather::Closed,
    Weather::CutsOff,
    Weather::Flapping,
];

/// What the backend has of a request, whatever it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// No span.
    Nothing,
    /// Every span but so many of the last.
    AllBut(u64),
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What the exporter makes of the answer, or of its absence.
    pub outcome: Outcome,
    /// What the backend has.
    pub taken: Taken,
    /// When the sender learns of it.
    pub latency: Duration,
}

/// One backend.
#[derive(Debug)]
pub struct Backend {
    random: Rng,
    weather: Weather,
    changes_at: Duration,
    most_bytes: usize,
    is_calm: bool,
}

impl Backend {
    /// A backend in fine weather.
    #[must_use]
    pub fn new(seed: u64) -> Backend {
        let mut random = Rng::with_seed(seed);
        let most_bytes = if random.u8(..) < 64 { random.usize(4_000..40_000) } else { usize::MAX };
        Backend { random, weather: Weather::Fine, changes_at: Duration::ZERO, most_bytes, is_calm: false }
    }

    /// From now on the weather is fine.
    pub fn calm(&mut self) {
        self.is_calm = true;
        self.weather = Weather::Fine;
    }

    /// What becomes of a request that is sent now; `poisoned` when it holds a span that this backend refuses.
    pub fn answer(&mut self, request: &Request, poisoned: bool, now: Duration) -> Reply {
        while now >= self.changes_at && !self.is_calm {
            self.changes_at = now + Duration::from_millis(self.random.u64(2_000..90_000));
            self.weather = self.random.choice(WEATHERS).expect("there is weather");
        }
        let message = || "as the weather has it".to_owned();
        let latency = Duration::from_millis(self.random.u64(3..80));
        let unavailable =
            |retry_after, answer_lost| Outcome::Unavailable { retry_after, answer_lost, message: message() };
        let nothing = |outcome, latency| Reply { outcome, taken: Taken::Nothing, latency };
        match self.weather {
            Weather::Fine => Reply { latency, ..self.served(request, poisoned) },
            Weather::Slow => {
                let latency = Duration::from_millis(self.random.u64(500..20_000));
                Reply { latency, ..self.served(request, poisoned) }
            }
            Weather::ServerErrors if self.random.u8(..) < 180 => {
                let retry_after = (self.random.u8(..) < 40).then(|| Duration::from_secs(self.random.u64(0..20)));
                nothing(unavailable(retry_after, false), latency)
            }
            Weather::Flapping if (now.as_secs() / 5).is_multiple_of(2) => nothing(unavailable(None, false), latency),
            Weather::CutsOff if request.bytes > 6_000 => nothing(unavailable(None, true), latency),
            Weather::ServerErrors | Weather::Flapping | Weather::CutsOff => {
                Reply { latency, ..self.served(request, poisoned) }
            }
            Weather::Down => nothing(unavailable(None, false), Duration::from_millis(1)),
            Weather::Hanging => {
                let served = self.served(request, poisoned);
                let taken = if self.random.bool() { served.taken } else { Taken::Nothing };
                Reply { outcome: unavailable(None, true), taken, latency: Duration::from_secs(30) }
            }
            Weather::Throttling => {
                let asked = [None, Some(0), Some(2), Some(30), Some(86_400)];
                let retry_after = if self.random.u8(..) < 250 { asked[self.random.usize(..4)] } else { asked[4] };
                let retry_after = retry_after.map(Duration::from_secs);
                nothing(Outcome::Throttled { retry_after, message: message() }, latency)
            }
            Weather::Closed => nothing(Outcome::Misconfigured { message: message() }, latency),
        }
    }

    fn served(&mut self, request: &Request, poisoned: bool) -> Reply {
        let reply = |outcome, taken| Reply { outcome, taken, latency: Duration::ZERO };
        if request.bytes > self.most_bytes && request.spans > 1 {
            let too_large = Outcome::TooLarge { payload_bytes: request.bytes, message: "too large".to_owned() };
            return reply(too_large, Taken::Nothing);
        }
        if poisoned {
            return reply(Outcome::BadRequest { message: "poison".to_owned() }, Taken::Nothing);
        }
        if self.random.u8(..) < 4 {
            let refused_spans = self.random.u64(0..=request.spans.min(3));
            let outcome = Outcome::AcceptedPartially { refused_spans, message: "not all".to_owned() };
            return reply(outcome, Taken::AllBut(refused_spans));
        }
        reply(Outcome::Accepted, Taken::AllBut(0))
    }
}
