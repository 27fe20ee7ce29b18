//! What a scraper sees: the seed's names and types to the letter, help on everything, balances that show a hole.

use std::time::Duration;

use super::*;
use crate::telemetry::health::{Health, State};

fn filled() -> Metrics {
    let metrics = Metrics::new();
    for lane in 0..2 {
        let front = Arc::new(Front::default());
        front.received.add(10);
        front.encoded.add(7);
        front.filtered.add(2);
        front.dead_lettered.add(1);
        let source = "uberagent".to_owned();
        metrics.add_front(FrontSource { lane, producer: "reactor", source, counters: front });
        let counters = Arc::new(Lane::default());
        counters.encoded.add(7);
        counters.synthesised.add(1);
        counters.appended.add(8);
        metrics.add_lane(LaneSource { lane, counters });
    }
    let counters = Arc::new(Destination::default());
    counters.delivered.add(10);
    counters.dropped[DropReason::Lag as usize].add(2);
    counters.requests_sent.add(3);
    counters.request_failures.add(1);
    let gauges = Arc::new(DestinationGauges::default());
    gauges.in_queue.set(4);
    metrics.add_destination(DestinationSource { name: "otlphttp/second".to_owned(), counters, gauges });
    let figures = LogFigures { segments: 2, entry_bytes: 4096, ..LogFigures::default() };
    metrics.add_log(LogSource { lane: 0, read: Box::new(move || figures) });
    metrics.show_disk(Box::new(|| DiskFigures {
        used_bytes: 900,
        max_bytes: 1000,
        free_bytes: 1 << 30,
        ..DiskFigures::default()
    }));
    metrics.add_extra(Extra {
        name: "millrace_log_disk_bytes",
        help: "Bytes of the log on disk",
        kind: ExtraKind::Gauge,
        labels: vec![("lane", "0".to_owned())],
        read: ExtraRead::One(Box::new(|| 4096)),
    });
    metrics.show_drops(Box::new(|| vec![("uberagent".to_owned(), 3)]));
    metrics.batch_latency().record(0.25);
    metrics
}

#[test]
fn the_six_metrics_of_proxytrace_have_their_names_and_types() {
    let page = filled().render();
    for line in [
        "# TYPE records_received_total counter",
        "records_received_total 20",
        "# TYPE records_parsed_total counter",
        "records_parsed_total 14",
        "# TYPE batches_sent_total counter",
        "batches_sent_total 3",
        "# TYPE export_failures_total counter",
        "export_failures_total 1",
        "# TYPE span_queue_size gauge",
        "span_queue_size 4",
        "# TYPE batch_latency_seconds summary",
        "batch_latency_seconds_sum 0.25",
        "batch_latency_seconds_count 1",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line:?} is missing in\n{page}");
    }
}

#[test]
fn they_are_there_before_anything_happened() {
    let page = Metrics::new().render();
    for line in ["records_received_total 0", "span_queue_size 0", "batch_latency_seconds_count 0"] {
        assert!(page.lines().any(|shown| shown == line), "{line:?} is missing in\n{page}");
    }
}

#[test]
fn everything_has_help_and_type_and_every_counter_its_suffix() {
    let page = filled().render();
    let types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(types.len() > 25, "{types:?}");
    for (name, kind) in types.iter().filter_map(|line| line.split_once(' ')) {
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
}

#[test]
fn every_described_metric_is_shown() {
    let page = filled().render();
    let source = [include_str!("../metrics.rs"), include_str!("disk.rs"), include_str!("drops.rs")].concat();
    let described = source.lines().filter_map(|line| line.trim().strip_prefix("describe_")?.split('"').nth(1));
    let described: Vec<&str> = described.filter(|name| name.contains('_') && !name.contains(' ')).collect();
    assert!(described.len() > 25, "{described:?}");
    for name in described {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name} is described and never shown");
    }
}

#[test]
fn a_hole_in_a_balance_is_seen() {
    let metrics = filled();
    assert_eq!(metrics.imbalances(), Imbalances::default());
    assert!(metrics.render().contains("millrace_destination_imbalance_spans{destination=\"otlphttp/second\"} 0"));
    metrics.sources().fronts[0].counters.received.add(5);
    metrics.sources().lanes[1].counters.appended.add(3);
    assert_eq!(metrics.imbalances(), Imbalances { front: 5, lane: -3, destination: 3 });
}

#[test]
fn counters_follow_the_ledger_between_scrapes() {
    let metrics = filled();
    assert!(metrics.render().contains("records_received_total 20"));
    metrics.sources().fronts[0].counters.received.add(5);
    assert!(metrics.render().lines().any(|line| line == "records_received_total 25"));
}

#[test]
fn the_status_says_in_words_what_is_wrong() {
    let (metrics, health) = (filled(), Health::new());
    let second = Duration::from_secs;
    let at = |seconds| Moment { now: second(seconds), wall_ns: 1_700_000_000_000_000_000 + seconds * 1_000_000_000 };
    metrics.upkeep(at(100));
    let problems = |status: &serde_json::Value| status["problems"].as_array().unwrap().len();
    let status = metrics.status(&health, at(100));
    assert_eq!(status["problems"][0]["text"], "disk: the log is nearly full, 90 % of 0 MiB are used");
    health.component("disk").set(State::Degraded("more than 85 % of 0 MiB are used".to_owned()));
    assert_eq!(problems(&metrics.status(&health, at(100))), 1, "once is enough");
    metrics.show_disk(Box::new(|| DiskFigures { is_full: true, ..DiskFigures::default() }));
    let status = metrics.status(&health, at(100));
    assert!(status["problems"][0]["text"].as_str().unwrap().starts_with("disk: the log is full"));
    metrics.show_disk(Box::new(DiskFigures::default));
    assert_eq!(problems(&metrics.status(&health, at(100))), 0);

    let gauges = Arc::clone(&metrics.sources().destinations[0].gauges);
    gauges.oldest_ns.set(at(70).wall_ns);
    *gauges.words.lock().unwrap() = Words {
        trouble: Some(Trouble { kind: TroubleKind::Holding, since: second(80), next_try: Some(second(140)) }),
        last_error: Some((second(90), "401 unauthorized".to_owned())),
        ..Words::default()
    };
    metrics.sources().destinations[0].counters.delivered.add(500);
    metrics.sources().lanes[0].counters.encoded.add(500);
    metrics.sources().lanes[0].counters.appended.add(500);
    metrics.upkeep(at(110));
    let status = metrics.status(&health, at(110));
    let problem = &status["problems"][0];
    let text = "otlphttp/second: holding, asked again once a minute: 401 unauthorized; 4 spans wait in the log";
    assert_eq!(
        (problem["text"].as_str(), problem["since"].as_str()),
        (Some(text), Some("2023-11-14T22:14:40.000000000Z"))
    );
    let destination = &status["destinations"][0];
    assert_eq!((destination["state"].as_str(), &destination["lag_seconds"]), (Some("holding"), &40.into()));
    assert_eq!(destination["trouble"]["next_try"], "2023-11-14T22:15:40.000000000Z");
    assert_eq!(destination["spans_per_second"], 50);
    assert!(metrics.render().contains("millrace_destination_lag_seconds{destination=\"otlphttp/second\"} 40\n"));
    let failed = "millrace_destination_last_error_timestamp_seconds{destination=\"otlphttp/second\"} 1700000090";
    assert!(metrics.render().lines().any(|line| line == failed), "{}", metrics.render());
    assert_eq!(status["sources"][0]["records"]["received"], 20);
    assert_eq!(problems(&status), 1);

    health.component("log").set(State::Degraded("lane 0: disk gone".to_owned()));
    let status = metrics.status(&health, at(110));
    assert_eq!(status["problems"][1]["text"], "log: lane 0: disk gone");
    // A hole is shown at rest only: while spans move, counters are read one after another.
    metrics.sources().fronts[0].counters.received.add(1);
    assert_eq!(problems(&metrics.status(&health, at(110))), 2);
    [120, 130].iter().for_each(|seconds| metrics.upkeep(at(*seconds)));
    let status = metrics.status(&health, at(130));
    assert!(status["problems"][2]["text"].as_str().unwrap().contains("out of balance"), "{status:#}");
}

#[test]
fn what_a_full_queue_drops_is_told_from_what_will_come_again() {
    let (metrics, health) = (filled(), Health::new());
    let at = |seconds| Moment { now: Duration::from_secs(seconds), wall_ns: 1_700_000_000_000_000_000 };
    metrics.show_disk(Box::new(DiskFigures::default));
    metrics.upkeep(at(100));
    let status = metrics.status(&health, at(100));
    assert_eq!(status["sources"][0]["spans"]["dropped"]["full"], 3);
    assert_eq!(status["problems"], serde_json::json!([]), "that is over");
    let line = "millrace_source_dropped_spans_total{source=\"uberagent\",reason=\"full\"} 3";
    assert!(metrics.render().lines().any(|shown| shown == line));
    metrics.show_drops(Box::new(|| vec![("uberagent".to_owned(), 40)]));
    metrics.upkeep(at(105));
    let status = metrics.status(&health, at(105));
    let said = "rows of uberagent are being dropped: the queue is full (drop_newest)";
    assert_eq!(status["problems"][0]["text"], said);
}

#[test]
fn what_was_put_aside_is_a_problem_until_it_is_gone() {
    let (metrics, health) = (filled(), Health::new());
    metrics.show_disk(Box::new(|| DiskFigures {
        quarantined_files: 2,
        quarantined_bytes: 9 << 20,
        ..DiskFigures::default()
    }));
    let status = metrics.status(&health, Moment { now: Duration::from_secs(9), wall_ns: 1 });
    let said = status["problems"][0]["text"].as_str().unwrap();
    assert!(said.starts_with("quarantine: 2 files of 9 MiB are put aside"), "{said}");
    assert!(metrics.render().lines().any(|line| line == "millrace_disk_quarantined_files 2"));
}
