//! `compare`: Millrace and its peers at the same work on the same machine in the same run, beside the machine's limits.
//!
//! Each scenario runs several times and the median by CPU time counts; runs of different subjects alternate, so that a
//! busy neighbour hits all of them. Results are JSON for `report`, and a table for people.

mod process;
mod scenario;
mod subjects;

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use scenario::Measurement;
pub(crate) use scenario::Setup;
use subjects::Batch;

use crate::limits::Limits;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Rows over TCP to OTLP in requests of at least 512 spans, and with BATCH_SIZE=200.
    Rows,
    /// OTLP/HTTP in and out, 512 and 100 spans a request, beside rotel.
    Otlp,
    /// The backend is down while rows come in, then up.
    Spill,
    /// Time of a burst from its last byte to the sink at half the full load.
    Latency,
    /// One lane and two at equal load.
    Lanes,
}

/// One run of a case.
type Run = Box<dyn Fn(&Setup) -> Result<Measurement>>;

/// One case of a scenario: a subject in a situation.
struct Case {
    scenario: &'static str,
    subject: &'static str,
    unit: &'static str,
    run: Run,
}

/// Measures `scenarios`, `runs` times each. Returns what `report` reads.
pub(crate) fn compare(setup: &Setup, scenarios: &[Scenario], runs: usize) -> Result<Value> {
    writeln!(std::io::stderr(), "limits of this machine")?;
    let limits = Limits::measure(&setup.directory)?;
    let mut results = Vec::new();
    // Rows a second on this machine, generator and sink included: half of it is the load for latency.
    let mut full_rate = 200_000;
    for scenario in scenarios {
        let cases = cases(*scenario, setup, full_rate);
        let mut measured: Vec<Vec<Measurement>> = cases.iter().map(|_| Vec::new()).collect();
        for run in 1..=runs {
            for (case, measured) in cases.iter().zip(&mut measured) {
                let measurement = (case.run)(setup).with_context(|| format!("{}: {}", case.scenario, case.subject))?;
                writeln!(
                    std::io::stderr(),
                    "{}: {}, run {run}: {:.3} us a {}, {:.1} s",
                    case.scenario,
                    case.subject,
                    measurement.cpu_us(),
                    case.unit,
                    measurement.wall.as_secs_f64()
                )?;
                measured.push(measurement);
            }
        }
        for (case, measured) in cases.iter().zip(measured) {
            let median = median(measured);
            if *scenario == Scenario::Rows {
                full_rate = u64::try_from(u128::from(median.items) * 1000 / median.wall.as_millis().max(1))?;
            }
            results.push(result(case, &median, &limits));
        }
    }
    Ok(json!({ "limits": limits.to_json(), "runs": runs, "results": results }))
}

fn cases(scenario: Scenario, setup: &Setup, full_rate: u64) -> Vec<Case> {
    let case = |scenario, subject, unit, run: Run| Case { scenario, subject, unit, run };
    match scenario {
        Scenario::Rows => {
            let run = |batch| Box::new(move |setup: &Setup| scenario::rows_to_otlp(setup, batch));
            let large = "rows to OTLP, requests of 512 spans and more";
            let redacted = Box::new(|setup: &Setup| scenario::rows_redacted(setup, Batch::AtLeast(512)));
            let mut cases = vec![
                case("rows to OTLP, BATCH_SIZE=200", "millrace", "row", run(Batch::AtMost(200))),
                case(large, "millrace", "row", run(Batch::AtLeast(512))),
            ];
            if setup.redactor.is_some() {
                cases.push(case(large, "millrace with a redactor", "row", redacted));
            }
            cases
        }
        Scenario::Otlp => {
            let mut cases = Vec::new();
            for (name, spans) in
                [("OTLP to OTLP, 512 spans a request", 512), ("OTLP to OTLP, 100 spans a request", 100)]
            {
                cases.push(case(name, "millrace", "span", Box::new(move |setup| scenario::otlp_to_otlp(setup, spans))));
                if let Some(rotel) = setup.rotel.clone() {
                    let run = move |setup: &Setup| scenario::otlp_through_rotel(setup, &rotel, spans);
                    cases.push(case(name, "rotel", "span", Box::new(run)));
                }
            }
            cases
        }
        Scenario::Spill => {
            vec![case("rows while the backend is down, then drained", "millrace", "row", Box::new(scenario::spill))]
        }
        Scenario::Latency => {
            let run = move |setup: &Setup| scenario::latency(setup, full_rate / 2);
            vec![case("latency of bursts at half load", "millrace", "row", Box::new(run))]
        }
        Scenario::Lanes => {
            let run = |lanes| Box::new(move |setup: &Setup| scenario::lanes(setup, lanes, full_rate / 2));
            vec![
                case("equal load on 16 connections", "millrace, 1 lane", "row", run(1)),
                case("equal load on 16 connections", "millrace, 2 lanes", "row", run(2)),
            ]
        }
    }
}

fn median(mut measured: Vec<Measurement>) -> Measurement {
    measured.sort_by(|a, b| a.cpu_us().total_cmp(&b.cpu_us()));
    measured.swap_remove(measured.len() / 2)
}

fn result(case: &Case, median: &Measurement, limits: &Limits) -> Value {
    let cpu_us = median.cpu_us();
    let floor_us = if case.unit == "row" { limits.row() / 1e3 } else { limits.span() / 1e3 };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let more: serde_json::Map<String, Value> =
        median.more.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "scenario": case.scenario, "subject": case.subject, "unit": case.unit,
        "items": median.items, "cpu_us": cpu_us, "items_per_cpu_second": 1e6 / cpu_us,
        "times_the_floor": cpu_us / floor_us, "wall_seconds": median.wall.as_secs_f64(),
        "spans_a_request": median.spans_a_request,
        "rss_anon_mib": mib(median.memory.anonymous), "rss_shmem_mib": mib(median.memory.shared),
        "rss_file_mib": mib(median.memory.file), "more": more,
    })
}
