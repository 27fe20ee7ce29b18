//! Plugins that change over and over under full load: nothing is lost, senders hardly notice, and nothing is left behind.
//!
//! A process of its own, for its memory is measured. `MILLRACE_SWAPS` says how many reloads; 50 unless told. They come in
//! windows, each followed by one as long without any: whatever else the machine does meets both alike, and so do the chains.
#![cfg(feature = "plugins")]

#[path = "appliance/feeder.rs"]
#[expect(dead_code, reason = "tests of the appliance use more of it")]
mod feeder;
#[path = "appliance/kit.rs"]
#[expect(dead_code, reason = "tests of the appliance use more of it")]
mod kit;
#[path = "appliance/rig.rs"]
#[expect(dead_code, reason = "tests of the appliance use more of it")]
mod rig;
#[path = "appliance/sink.rs"]
#[expect(dead_code, reason = "tests of the appliance use more of it")]
mod sink;

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use feeder::{Feeder, post};
use kit::{component, dropped_and_refused, plugin, spans, with};
use millrace::config::{Config, Plugin, PluginClass};
use millrace::sys::clock;
use millrace::telemetry::metrics::Imbalances;
use rig::{Rig, config, until};
use sink::Sink;

/// Windows with reloads at most, and as many without.
const WINDOWS: usize = 20;

/// Pairs of windows that come first and are not measured: until then buffers and the allocator's arenas grow.
const WARM_UP: usize = 4;

/// How many different chains there are.
const CHAINS: usize = 5;

/// Spans of a request whose answer is timed.
const SPANS: u8 = 20;

/// A sender that posts one request after the other and times the answers.
#[derive(Default)]
struct Timed {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Which kind of window it is: 1 with reloads, 0 without, 2 before anything is measured.
    window: AtomicUsize,
    took: [Mutex<Vec<Duration>>; 3],
}

impl Timed {
    fn run(&self, target: SocketAddr) {
        let payload = spans(SPANS);
        while !self.stop.load(Ordering::SeqCst) {
            let (window, begin) = (self.window.load(Ordering::SeqCst), clock::monotonic());
            if post(target, "/v1/traces", &payload).status == 200 {
                self.acknowledged.fetch_add(u64::from(SPANS), Ordering::SeqCst);
                let took = clock::monotonic() - begin;
                self.took[window].lock().expect("nobody panics with it").push(took);
            }
        }
    }

    /// How many were answered in windows of this kind, and the 99th of a hundred.
    fn p99(&self, window: usize) -> (usize, Duration) {
        let mut took = self.took[window].lock().expect("nobody panics with it").clone();
        took.sort_unstable();
        (took.len(), took[(took.len() * 99 / 100).min(took.len() - 1)])
    }
}

/// What this process holds.
#[derive(Debug)]
struct Held {
    anonymous_kib: u64,
    threads: u64,
    mappings: u64,
}

fn held() -> Held {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let number = |key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("Linux has it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let mappings = fs::read_to_string("/proc/self/maps").expect("Linux has it").lines().count() as u64;
    Held { anonymous_kib: number("RssAnon:"), threads: number("Threads:"), mappings }
}

/// What the lane runs, one after the other.
fn chains() -> [Vec<Plugin>; CHAINS] {
    let (redact, drops) = (plugin(&component("redact.wasm"), ""), plugin(&component("transform.wasm"), ""));
    let heavy = Plugin { class: PluginClass::Heavy, ..redact.clone() };
    [vec![redact], vec![drops.clone()], Vec::new(), vec![heavy], vec![drops]]
}

fn swap(rig: &Rig, template: &Config, sink: &Sink, chains: &mut dyn Iterator<Item = &Vec<Plugin>>) {
    let chain = chains.next().expect("it goes on for ever");
    rig.reload(&with(template, sink, chain)).expect("each of them may be run");
}

#[test]
fn plugins_change_under_full_load_and_nothing_is_lost_or_left_behind() {
    let wanted: usize = std::env::var("MILLRACE_SWAPS").ok().and_then(|swaps| swaps.parse().ok()).unwrap_or(50);
    // All the chains so many times, and one: the windows without reloads have all of them in turn too.
    let in_a_window = wanted.div_ceil(WINDOWS).next_multiple_of(CHAINS) + 1;
    let windows = wanted.div_ceil(in_a_window);
    let swaps = windows * in_a_window;
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::up());
    let mut template = config(directory.path());
    template.queue.max_bytes *= 8;
    let rig = Rig::start(&with(&template, &sink, &[]));
    let feeder = Feeder::start(rig.receiver("uberagent"), u64::MAX);
    let (timed, otlp) = (Arc::new(Timed::default()), rig.receiver("otlp"));
    timed.window.store(2, Ordering::SeqCst);
    let for_thread = Arc::clone(&timed);
    let poster = thread::spawn(move || for_thread.run(otlp));

    let chains = chains();
    let mut chains = chains.iter().cycle();
    let (mut kept, mut swapping) = (Vec::new(), Duration::ZERO);
    for window in 0..WARM_UP + windows {
        let measured = window >= WARM_UP;
        timed.window.store(if measured { 1 } else { 2 }, Ordering::SeqCst);
        let begin = clock::monotonic();
        (0..in_a_window).for_each(|_| swap(&rig, &template, &sink, &mut chains));
        let end = clock::monotonic();
        timed.window.store(if measured { 0 } else { 2 }, Ordering::SeqCst);
        until("as long without", || clock::monotonic() - end >= end - begin);
        rig.look(clock::monotonic());
        if measured {
            swapping += end - begin;
            kept.push(held());
        }
    }
    timed.stop.store(true, Ordering::SeqCst);
    poster.join().unwrap();
    feeder.stop();
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    until("delivery", || sink.spans() == rig.appended());
    rig.rest();

    balances(&rig, &sink, timed.acknowledged.load(Ordering::SeqCst));
    assert!(rig.stop() < Duration::from_secs(5));

    eprintln!("{swaps} swaps of {:.1} ms", swapping.as_secs_f64() * 1e3 / swaps as f64);
    is_hardly_noticed(&timed);
    // Over a few swaps buffers and the allocator's arenas still grow, by a MiB or two.
    is_not_left_behind(&kept, if swaps < 500 { 10 << 10 } else { 2 << 10 });
}

/// Every span came, and each sender was told what became of it.
fn balances(rig: &Rig, sink: &Sink, acknowledged: u64) {
    let (dropped, refused) = dropped_and_refused(rig);
    let came = |lane: &Arc<millrace::telemetry::ledger::Lane>| {
        (lane.encoded.get() + lane.synthesised.get() + lane.passed.get(), lane.passed.get())
    };
    let (came, passed) = rig.metrics.lanes().iter().map(came).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert_eq!(came, rig.appended() + dropped + refused);
    assert_eq!(passed, acknowledged + refused);
    assert_eq!((rig.imbalances(), rig.destination(0).delivered), (Imbalances::default(), sink.spans()));
}

/// Answers take about as long while plugins change as while they do not.
fn is_hardly_noticed(timed: &Timed) {
    let ((quiet, without), (busy, with)) = (timed.p99(0), timed.p99(1));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    eprintln!("p99 of {busy} acknowledgements {with:?}, of {quiet} without swaps {without:?}: ratio {ratio:.2}");
    // Twice is aimed at; a machine that does other things beside gets five times that, and what its disk needs.
    assert!(with <= 10 * without.max(Duration::from_millis(20)), "{with:?} and {without:?}");
}

/// Threads and mappings do not grow with the number of swaps, nor does memory by more than so many KiB.
fn is_not_left_behind(kept: &[Held], most_kib: u64) {
    let (first, second) = kept.split_at(kept.len() / 2);
    let most = |held: &[Held], of: fn(&Held) -> u64| held.iter().map(of).max().expect("there are windows");
    let both = |of: fn(&Held) -> u64| (most(first, of), most(second, of));
    let (anonymous_kib, threads, mappings) =
        (both(|held| held.anonymous_kib), both(|held| held.threads), both(|held| held.mappings));
    eprintln!("first and second half: {anonymous_kib:?} KiB anonymous, {threads:?} threads, {mappings:?} mappings");
    assert!(anonymous_kib.1 <= anonymous_kib.0 + most_kib, "{kept:?}");
    assert!(threads.1 <= threads.0 && mappings.1 <= mappings.0 + 64, "{kept:?}");
}
