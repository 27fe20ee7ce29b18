//! HOLD: nothing is sent and nothing is lost, because no request could succeed; one probe a minute looks again.
//!
//! Repeating forever what a peer refuses blocks everything; dead-lettering what a wrong token refuses empties everything.
//! So a fault that is not in the data holds the destination, visibly and with its reason, until a probe is accepted.

use std::time::Duration;

/// Time between two probes of a held destination.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// Why a destination is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// Credentials, path, certificate or redirect: a configuration has to change.
    Misconfigured,
    /// The peer refuses requests and has not accepted one since this configuration began: the data is not suspect yet.
    NothingAccepted,
    /// The peer refuses so many spans that it is not the spans.
    TooManyDeadLetters,
}

impl HoldReason {
    /// The reason as a metric's label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            HoldReason::Misconfigured => "misconfigured",
            HoldReason::NothingAccepted => "nothing_accepted",
            HoldReason::TooManyDeadLetters => "too_many_dead_letters",
        }
    }
}

/// A destination on hold.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) reason: HoldReason,
    pub(super) since: Duration,
    next_probe: Duration,
    next_repetition: Duration,
    probing: bool,
}

/// What a hold allows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldGate {
    /// One probe.
    Probe,
    /// A probe is in flight; wait for its answer.
    AwaitProbe,
    /// Nothing before this time.
    Shut(Duration),
}

impl Hold {
    /// A hold that begins now. Where no request has been accepted yet the first refused one may just hold a bad span, so
    /// a first probe with something else may go at once; every later one waits its minute.
    pub(super) fn begin(reason: HoldReason, now: Duration) -> Hold {
        let wait = if reason == HoldReason::NothingAccepted { Duration::ZERO } else { PROBE_INTERVAL };
        Hold { reason, since: now, next_probe: now + wait, next_repetition: now + PROBE_INTERVAL, probing: false }
    }

    /// From when on a probe may repeat what the peer has refused already.
    pub(super) fn next_repetition(&self) -> Duration {
        self.next_repetition
    }

    /// What may be sent.
    pub(super) fn gate(&self, now: Duration) -> HoldGate {
        if self.probing {
            HoldGate::AwaitProbe
        } else if now < self.next_probe {
            HoldGate::Shut(self.next_probe)
        } else {
            HoldGate::Probe
        }
    }

    /// The probe is under way.
    pub(super) fn probe_sent(&mut self) {
        debug_assert!(!self.probing, "two probes at once");
        self.probing = true;
    }

    /// The probe was not accepted; `reason` is what its answer says now.
    pub(super) fn probe_refused(&mut self, reason: HoldReason, now: Duration) {
        self.reason = reason;
        self.next_probe = now + PROBE_INTERVAL;
        self.next_repetition = self.next_probe;
        self.probing = false;
    }

    /// The probe was throttled or did not get through, or it was refused half-way to a verdict: ask again at `at`.
    pub(super) fn probe_undecided(&mut self, at: Duration) {
        self.next_probe = at;
        self.probing = false;
    }
}
