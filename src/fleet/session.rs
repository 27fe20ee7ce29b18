//! Who logs on where and when: the schedule of a window, and the identity of one session.
//!
//! A session is a pure function of the fleet's seed and its number, so its logoff hours later finds the same host, user,
//! GUID and process ids without anybody having kept them.
//!
//! A session GUID holds the session's number on its host (big-endian), a constant of the host and the session's creation
//! as a Windows FILETIME (little-endian, 100 ns since 1601, UTC).

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::{BurstKind, FleetOptions, mix, quantile};

/// 100 ns steps between 1601 and 1970.
const FILETIME_OF_UNIX_EPOCH: u64 = 116_444_736_000_000_000;

/// Sites: name, offset from UTC in minutes.
pub(super) const SITES: &[(&str, i32)] = &[("NBG", 120), ("KRK", 120), ("OSA", 540), ("LIS", 60), ("DEN", -360)];

#[rustfmt::skip]
const USERS: &[&str] = &[
    "anna.müller", "jan.kowalski", "maria.lopes", "t.okafor", "佐藤.健", "j.smith", "łukasz.żak", "p.ferreira",
    "claire.dubois", "s.lindqvist", "d.novak", "h.yamada", "o.brien", "k.weiß", "m.rossi", "svc.kiosk",
];

/// One burst to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Since the window opened.
    pub(super) at: Duration,
    /// Event time of its rows: Unix milliseconds.
    pub(super) event_ms: u64,
    /// When the session was created: Unix milliseconds.
    pub(super) created_ms: u64,
    /// The session's number in the fleet.
    pub(super) session: u32,
    /// Its host's number.
    pub(super) host: u32,
    /// Logon or logoff.
    pub(super) kind: BurstKind,
}

/// Every burst of the window, unordered, with the logoffs that follow it.
pub(super) fn schedule(seed: u64, options: &FleetOptions) -> Vec<Arrival> {
    let mut rng = Rng::with_seed(mix(seed));
    let mut hosts = places(&mut rng, options, options.logons + options.earlier_sessions);
    rng.shuffle(&mut hosts);
    let opens_ms = options.opens_wall_ns / 1_000_000;
    let mut arrivals = Vec::with_capacity(2 * options.logons + options.earlier_sessions);
    for (session, host) in (0u32..).zip(hosts) {
        let durations = Durations::new(seed, options, session);
        // A host that was cut off flushes everything at one moment, drawn from the host instead of the session.
        let host_seed = host_seed(seed, host);
        let stale = host_seed % 1000 < u64::from(options.stale_host_permille);
        let mut host_rng = Rng::with_seed(host_seed);
        let at = bell(if stale { &mut host_rng } else { &mut rng }, options);
        let age_ms = if stale { durations.age_ms } else { 0 };
        let event_ms = (opens_ms + millis(at)).saturating_sub(age_ms);
        if (session as usize) < options.logons {
            let created_ms = event_ms.saturating_sub(durations.logon_ms + durations.late_ms);
            arrivals.push(Arrival { at, event_ms, created_ms, session, host, kind: BurstKind::Logon });
            let (at, event_ms) = (at + Duration::from_millis(durations.stay_ms), event_ms + durations.stay_ms);
            arrivals.push(Arrival { at, event_ms, created_ms, session, host, kind: BurstKind::Logoff });
        } else {
            let created_ms = event_ms.saturating_sub(durations.stay_ms + durations.logon_ms);
            arrivals.push(Arrival { at, event_ms, created_ms, session, host, kind: BurstKind::Logoff });
        }
    }
    arrivals
}

/// How long things take in one session: a pure function of the fleet's seed and the session's number.
#[derive(Debug)]
struct Durations {
    logon_ms: u64,
    logoff_ms: u64,
    /// From the end of the logon until its rows are emitted.
    late_ms: u64,
    /// From logon to logoff.
    stay_ms: u64,
    /// Age of what a host flushes that was cut off.
    age_ms: u64,
}

impl Durations {
    fn new(seed: u64, options: &FleetOptions, session: u32) -> Durations {
        let mut rng = Rng::with_seed(session_seed(seed, session));
        let late = rng.u32(0..1000) < options.late_permille;
        Durations {
            logon_ms: quantile(&mut rng, &[14_500, 26_000, 45_000, 80_000, 216_700]),
            logoff_ms: rng.u64(2_000..20_000),
            late_ms: if late { rng.u64(60_000..900_000) } else { 0 },
            stay_ms: between_ms(&mut rng, &options.logoff_after),
            age_ms: rng.u64(2 * 3_600_000..12 * 3_600_000),
        }
    }
}

/// A host for each of `sessions` sessions: every host gets as many as it carries, again and again.
fn places(rng: &mut Rng, options: &FleetOptions, sessions: usize) -> Vec<u32> {
    let mut places = Vec::with_capacity(sessions);
    while places.len() < sessions {
        for host in 0..options.hosts {
            let multi = rng.u32(0..100) < options.multi_session_percent;
            let carries = if multi { rng.u32(2..=options.max_sessions.max(2)) } else { 1 };
            places.extend(std::iter::repeat_n(host, carries as usize));
            if places.len() >= sessions {
                break;
            }
        }
    }
    places.truncate(sessions);
    places
}

/// A moment of the window. The mean of three uniform draws has a standard deviation of a sixth of the window, which
/// puts 40 % of the arrivals into the middle sixth, as VMware's sizing guide for logon storms assumes.
fn bell(rng: &mut Rng, options: &FleetOptions) -> Duration {
    let window_us = u64::try_from(options.window.as_micros()).unwrap_or(u64::MAX / 4).max(1);
    Duration::from_micros((rng.u64(0..window_us) + rng.u64(0..window_us) + rng.u64(0..window_us)) / 3)
}

fn between_ms(rng: &mut Rng, range: &Range<Duration>) -> u64 {
    let start = millis(range.start);
    rng.u64(start..millis(range.end).max(start + 1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

fn host_seed(seed: u64, host: u32) -> u64 {
    mix(seed ^ (u64::from(host) << 32) ^ 0x0005_7a1e)
}

fn session_seed(seed: u64, session: u32) -> u64 {
    mix(seed.wrapping_add(mix(u64::from(session) + 1)))
}

/// One session and one of its two bursts.
#[derive(Debug)]
pub(super) struct Session {
    seed: u64,
    /// The host's name.
    pub(super) host: Arc<str>,
    /// The host's site.
    pub(super) site: &'static str,
    /// Minutes that the host's clock is ahead of UTC.
    pub(super) utc_offset_minutes: i32,
    /// The session's number on its host.
    pub(super) id: u32,
    host_constant: u32,
    /// `DOMAIN\user`.
    pub(super) user: String,
    /// Event time of the burst: Unix milliseconds.
    pub(super) event_ms: u64,
    /// Session creation: Unix milliseconds.
    pub(super) created_ms: u64,
    /// The whole logon.
    pub(super) logon_ms: u64,
    /// The whole logoff.
    pub(super) logoff_ms: u64,
    /// From the end of the logon until its rows were emitted.
    pub(super) late_ms: u64,
}

impl Session {
    /// The session of `arrival`.
    pub(super) fn new(fleet_seed: u64, options: &FleetOptions, arrival: &Arrival) -> Session {
        let durations = Durations::new(fleet_seed, options, arrival.session);
        let seed = session_seed(fleet_seed, arrival.session);
        let (site, utc_offset_minutes) = SITES[arrival.host as usize % SITES.len()];
        let machine = if arrival.host.is_multiple_of(3) { "VDA" } else { "PC" };
        let user = Rng::with_seed(seed ^ 1).choice(USERS).copied().expect("the list is not empty");
        Session {
            seed,
            host: format!("{site}-{machine}-{:05}", arrival.host).into(),
            site,
            utc_offset_minutes,
            id: 2 + arrival.session % 4000,
            host_constant: u32::try_from(host_seed(fleet_seed, arrival.host) >> 32).expect("32 bits are left"),
            user: format!("CORP\\{user}"),
            event_ms: arrival.event_ms,
            created_ms: arrival.created_ms,
            logon_ms: durations.logon_ms,
            logoff_ms: durations.logoff_ms,
            late_ms: durations.late_ms,
        }
    }

    /// A generator for one purpose: the same for every burst of the session.
    pub(super) fn rng(&self, purpose: u64) -> Rng {
        Rng::with_seed(mix(self.seed ^ (purpose << 48)))
    }

    /// The session's GUID: lower case, with dashes.
    pub(super) fn guid(&self) -> String {
        let steps_in_ms = self.seed % 10_000;
        let filetime = FILETIME_OF_UNIX_EPOCH + self.created_ms * 10_000 + steps_in_ms;
        let mut bytes = [0u8; 16];
        bytes[0..4].copy_from_slice(&self.id.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.host_constant.to_be_bytes());
        bytes[8..16].copy_from_slice(&filetime.to_le_bytes());
        let mut guid = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                guid.push('-');
            }
            write!(guid, "{byte:02x}").expect("writing to a string cannot fail");
        }
        guid
    }
}
