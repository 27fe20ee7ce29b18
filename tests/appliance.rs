//! The appliance in one process against backends that fail: what a full log, a stop and a changed configuration do.
//!
//! Every test ends with balances of exactly zero, and with the spans of the backend counted on the backend's side.

#[path = "appliance/dead_letters.rs"]
mod dead_letters;
#[path = "appliance/feeder.rs"]
mod feeder;
#[cfg(feature = "plugins")]
#[path = "appliance/hostile.rs"]
mod hostile;
#[cfg(feature = "plugins")]
#[path = "appliance/kit.rs"]
mod kit;
#[cfg(feature = "plugins")]
#[path = "appliance/plugins.rs"]
mod plugins;
#[path = "appliance/reload.rs"]
mod reload;
#[path = "appliance/rig.rs"]
mod rig;
#[path = "appliance/sink.rs"]
mod sink;
#[cfg(feature = "plugins")]
#[path = "appliance/tap.rs"]
mod tap;
#[cfg(feature = "plugins")]
#[path = "appliance/worlds.rs"]
mod worlds;

use std::time::Duration;

use feeder::{Feeder, post_span};
use millrace::config::{Admission, Requirement, StartAt};
use millrace::sys::clock;
use millrace::telemetry::ledger::DropReason;
use millrace::telemetry::metrics::Imbalances;
use rig::{LOG_BYTES, Rig, appended, config, dropped, exporter, until};
use sink::Sink;

const ENDLESS: u64 = u64::MAX;

#[test]
fn without_a_destination_the_oldest_goes_and_rows_keep_coming() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.exporters.clear();
    let rig = Rig::start(&config);
    let feeder = Feeder::start(rig.receiver("uberagent"), ENDLESS);
    until("drops", || rig.metrics.destinations().first().is_some_and(|none| none.dropped[3].get() > 0));
    let (dropped_before, rows_before) = (dropped(&rig.destination(0), DropReason::NoDestination), rig.received());
    until("more drops", || dropped(&rig.destination(0), DropReason::NoDestination) > dropped_before);
    assert!(rig.received() > rows_before, "rows keep coming");
    feeder.stop();
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    rig.rest();
    let metrics = rig.metrics.clone();
    rig.stop();
    // Only now: what waited for room in a full log is appended while the process stops, and older spans go for it.
    let none = metrics.destinations()[0].snapshot();
    assert_eq!(none.settled(), dropped(&none, DropReason::NoDestination), "nothing else became of them");
    assert_eq!(metrics.imbalances(), Imbalances::default());

    let again = Rig::start(&config);
    again.rest();
    // The segment that was being written is a whole file of the budget now, so one more may have had to go.
    let opened = again.destination(0);
    assert!(dropped(&opened, DropReason::NoDestination) >= none.settled(), "durable: {opened:?}");
    assert_eq!(opened.settled(), dropped(&opened, DropReason::NoDestination), "nothing else became of them");
    again.stop();
}

#[test]
fn a_dead_backend_slows_senders_and_gets_everything_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::down();
    let mut config = config(directory.path());
    config.exporters = vec![exporter(&config, "required", sink.address)];
    let rig = Rig::start(&config);
    let otlp = rig.receiver("otlp");
    assert_eq!(post_span(otlp).status, 200, "there is room");
    let feeder = Feeder::start(rig.receiver("uberagent"), ENDLESS);
    rig.full();
    assert!(!feeder.is_done(), "slowed, not dropped");
    let reply = post_span(otlp);
    assert_eq!((reply.status, reply.retry_after), (503, true), "told to come again");
    feeder.stop();
    sink.bring_up();
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    until("every row, the roots and the first request", || {
        sink.spans() == rig.appended() && sink.spans() > feeder.rows()
    });
    rig.rest();
    let totals = rig.destination(0);
    assert_eq!((totals.delivered, totals.settled()), (sink.spans(), sink.spans()));
    assert_eq!(post_span(otlp).status, 200, "there is room again");
    rig.stop();
}

#[test]
fn drop_newest_refuses_the_surplus_and_counts_it() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::down();
    let mut config = config(directory.path());
    config.exporters = vec![exporter(&config, "required", sink.address)];
    config.receivers.iter_mut().for_each(|receiver| receiver.admission = Admission::DropNewest);
    let rig = Rig::start(&config);
    let feeder = Feeder::start(rig.receiver("uberagent"), ENDLESS);
    let refused = || rig.metrics.lanes().iter().map(|lane| lane.refused.get()).sum::<u64>();
    until("refusals", || refused() > 1000);
    let reply = post_span(rig.receiver("otlp"));
    assert_eq!((reply.status, reply.retry_after), (503, true));
    feeder.stop();
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    sink.bring_up();
    until("delivery", || sink.spans() == rig.appended());
    rig.rest();
    assert_eq!(rig.destination(0).delivered, sink.spans());
    let came: u64 = rig.metrics.lanes().iter().map(|lane| lane.encoded.get()).sum();
    let encoded: u64 = rig.metrics.fronts().iter().map(|front| front.encoded.get()).sum();
    assert_eq!(came, encoded, "every record came to a writer");
    rig.stop();
}

#[test]
fn an_optional_destination_that_lags_jumps_and_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let (works, lags) = (Sink::up(), Sink::down());
    let mut config = config(directory.path());
    let mut optional = exporter(&config, "optional", lags.address);
    optional.requirement = Requirement::Optional { max_lag_bytes: LOG_BYTES / 3 };
    config.exporters = vec![exporter(&config, "required", works.address), optional];
    let rig = Rig::start(&config);
    let feeder = Feeder::start(rig.receiver("uberagent"), ENDLESS);
    let lag = || dropped(&rig.destination(1), DropReason::Lag);
    until("a jump", || lag() > 0);
    let first = lag();
    until("another jump", || lag() > first);
    feeder.stop();
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    until("the required destination has everything", || works.spans() == rig.appended());
    rig.rest();
    lags.bring_up();
    until("the optional destination has the rest", || lags.spans() + lag() == rig.appended());
    rig.rest();
    let totals = rig.destination(1);
    assert_eq!((totals.delivered, totals.settled()), (lags.spans(), rig.appended()));
    assert!(lags.spans() > 0, "what it may lag behind was kept for it");
    assert_eq!(rig.destination(0).delivered, works.spans());
    rig.stop();
}

#[test]
fn a_stop_with_a_full_log_is_quick_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::down();
    let mut config = config(directory.path());
    config.exporters = vec![exporter(&config, "required", sink.address)];
    let rig = Rig::start(&config);
    let feeder = Feeder::start(rig.receiver("uberagent"), ENDLESS);
    rig.full();
    let metrics = rig.metrics.clone();
    let took = rig.stop();
    assert!(took < Duration::from_secs(5), "the stop took {took:?}");
    until("the feeder's end", || feeder.is_done());
    let kept = appended(&metrics);
    assert!(kept > 0);
    assert_eq!((metrics.imbalances().front, metrics.imbalances().lane), (0, 0));

    sink.bring_up();
    let rig = Rig::start(&config);
    assert_eq!(rig.appended(), kept, "the balance opens from what was durable");
    until("delivery", || sink.spans() == kept);
    rig.rest();
    let feeder = Feeder::start(rig.receiver("uberagent"), 2000);
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    until("delivery of what is new", || rig.appended() > kept && sink.spans() == rig.appended());
    rig.rest();
    assert_eq!(rig.destination(0).delivered, sink.spans());
    rig.stop();
}

#[test]
fn the_backlog_of_a_lane_that_is_gone_is_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::down();
    let mut config = config(directory.path());
    config.lanes = Some(2);
    config.exporters = vec![exporter(&config, "required", sink.address)];
    let rig = Rig::start(&config);
    let both = || rig.metrics.lanes().iter().all(|lane| lane.appended.get() > 0);
    let mut feeders = Vec::new();
    until("rows in both lanes", || {
        // The kernel chooses the lane of a connection.
        let feeder = Feeder::start(rig.receiver("uberagent"), 100);
        until("the feeder's end", || feeder.is_done());
        feeders.push(feeder);
        both()
    });
    until("everything received", || rig.received() == feeders.iter().map(Feeder::rows).sum::<u64>());
    rig.rest();
    let kept = rig.appended();
    rig.stop();

    config.lanes = Some(1);
    sink.bring_up();
    let rig = Rig::start(&config);
    until("delivery", || sink.spans() == kept);
    rig.rest();
    assert_eq!((rig.appended(), rig.destination(0).delivered), (kept, kept));
    rig.stop();
}

#[test]
fn a_destination_that_starts_at_the_tail_counts_what_was_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Sink::up(), Sink::down());
    let mut config = config(directory.path());
    config.exporters = vec![exporter(&config, "old", old.address)];
    let rig = Rig::start(&config);
    let feeder = Feeder::start(rig.receiver("uberagent"), 2000);
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    rig.rest();
    until("delivery", || old.spans() == rig.appended());
    let before = rig.appended();
    rig.stop();

    let mut tail = exporter(&config, "new", new.address);
    tail.start_at = StartAt::Tail;
    config.exporters.push(tail);
    let rig = Rig::start(&config);
    let feeder = Feeder::start(rig.receiver("uberagent"), 1000);
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    rig.rest();
    assert_eq!(rig.destination(1).skipped_at_start, before);
    let after = rig.appended();
    assert!(after > before);
    rig.stop();

    // Its place is its own from the first start on, although nothing was ever delivered there.
    new.bring_up();
    let rig = Rig::start(&config);
    until("delivery", || new.spans() == after - before);
    rig.rest();
    let totals = rig.destination(1);
    assert_eq!((totals.skipped_at_start, totals.delivered), (before, after - before));
    assert_eq!(old.spans(), after);
    rig.stop();
}

#[test]
fn a_log_that_only_a_removed_destination_filled_is_free_again() {
    let directory = tempfile::tempdir().unwrap();
    let (dead, works) = (Sink::down(), Sink::up());
    let mut config = config(directory.path());
    let stays = exporter(&config, "stays", works.address);
    config.exporters = vec![exporter(&config, "goes", dead.address), stays.clone()];
    let rig = Rig::start(&config);
    let feeder = Feeder::start(rig.receiver("uberagent"), ENDLESS);
    rig.full();
    let metrics = rig.metrics.clone();
    rig.stop();
    until("the feeder's end", || feeder.is_done());
    assert_eq!(works.spans(), appended(&metrics), "nothing is left for the one that stays");

    config.exporters = vec![stays];
    let rig = Rig::start(&config);
    assert_eq!(rig.metrics.destinations().len(), 2, "its place is kept");
    until("it is forgotten: it lags by more than half of the budget", || {
        rig.look(clock::monotonic());
        rig.metrics.destinations().len() == 1
    });
    let feeder = Feeder::start(rig.receiver("uberagent"), 2000);
    until("the feeder's end", || feeder.is_done() && rig.received() == feeder.rows());
    assert!(feeder.rows() >= 2000, "every row was taken");
    until("delivery", || rig.appended() > appended(&metrics) && works.spans() == rig.appended());
    rig.rest();
    rig.stop();
}
