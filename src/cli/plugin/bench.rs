//! `millrace plugin bench`: what a plugin costs, beside one that does nothing.
//!
//! Batches of 512 typical spans, first the plugin's, then those of a plugin that reads one field and changes nothing (it is
//! inside of this binary), by turns: what disturbs the machine disturbs both. Figures are processor time of the thread
//! that a lane would spend; medians, and of the call the 99th percentile too.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::sample;
use super::trial::{ComponentArgs, Cost, Trial};
use crate::block::Signal;
use crate::cli::human::Table;
use crate::cli::source::Unusable;
use crate::plugin::load::Source;

/// Batches before those that count.
const WARM_UP: usize = 50;

/// Reads `url.full`, answers with an empty patch: `nop.c`, built by `millrace plugin build`.
const NOP: &[u8] = include_bytes!("bench/nop.wasm");

/// What to measure.
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// Batches of 512 spans.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    batches: usize,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Measures a plugin.
pub(super) fn bench(arguments: &BenchArgs) -> anyhow::Result<()> {
    if arguments.batches == 0 {
        return Err(Unusable("--batches 0: nothing to measure".to_owned()).into());
    }
    let mut trial = Trial::load(&arguments.component, &Source::read(&arguments.component.file)?)?;
    if !trial.wants(Signal::Traces) {
        return Err(Unusable("only transforms of spans are measured, and this is none".to_owned()).into());
    }
    let mut nop = Trial::of_bytes(NOP)?;
    let payload = sample::batch();
    let mut measured = [Vec::new(), Vec::new()];
    for batch in 0..WARM_UP + arguments.batches {
        for (trial, costs) in [&mut trial, &mut nop].into_iter().zip(&mut measured) {
            let cost = trial.run(Signal::Traces, &payload)?.cost;
            if batch >= WARM_UP {
                costs.push(cost);
            }
        }
    }
    let [plugin, nop] = measured.map(|costs| Figures::of(&costs));
    let mut out = std::io::stdout().lock();
    match arguments.json {
        true => writeln!(out, "{:#}", json!({ "plugin": plugin.json(), "nop": nop.json() }))?,
        false => show(&plugin, &nop, &mut out)?,
    }
    Ok(())
}

/// Nanoseconds a span, and of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    /// Gather, call, check, apply, all: medians, a span.
    span: [f64; 5],
    /// Of a call with a whole batch: median and 99th percentile.
    call: [u64; 2],
}

const PARTS: [&str; 5] = ["gather", "call", "check", "apply", "all"];

impl Figures {
    fn of(costs: &[Cost]) -> Figures {
        let all = |cost: &Cost| cost.gather_ns + cost.call_ns + cost.check_ns + cost.apply_ns;
        let parts: [fn(&Cost) -> u64; 4] =
            [|cost| cost.gather_ns, |cost| cost.call_ns, |cost| cost.check_ns, |cost| cost.apply_ns];
        let sorted = |of: &dyn Fn(&Cost) -> u64| {
            let mut values: Vec<u64> = costs.iter().map(of).collect();
            values.sort_unstable();
            values
        };
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a batch are far below 2^52")]
        let a_span = |of: &dyn Fn(&Cost) -> u64| percentile(&sorted(of), 50) as f64 / sample::TYPICAL_SPANS as f64;
        let call = sorted(&|cost: &Cost| cost.call_ns);
        Figures {
            span: [a_span(&parts[0]), a_span(&parts[1]), a_span(&parts[2]), a_span(&parts[3]), a_span(&all)],
            call: [percentile(&call, 50), percentile(&call, 99)],
        }
    }

    fn json(&self) -> Value {
        let spans = PARTS.iter().zip(self.span).map(|(part, ns)| ((*part).to_owned(), ns.into()));
        json!({
            "ns_per_span": spans.collect::<serde_json::Map<_, _>>(),
            "call_ns": { "p50": self.call[0], "p99": self.call[1] },
        })
    }
}

/// The value below which so many of a hundred are; of sorted values, at least one.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn show(plugin: &Figures, nop: &Figures, out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = Table::new(&["ns a span", ">plugin", ">nop"]);
    for (index, part) in PARTS.iter().enumerate() {
        table.row([(*part).to_owned(), format!("{:.1}", plugin.span[index]), format!("{:.1}", nop.span[index])]);
    }
    table.write(out)?;
    let [p50, p99] = plugin.call.map(|ns| ns / 1000);
    writeln!(out, "a call with {} spans: {p50} us, {p99} us at p99", sample::TYPICAL_SPANS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_part_by_part() {
        let cost = |call_ns| Cost { gather_ns: 512, call_ns, check_ns: 0, apply_ns: 1024 };
        let costs: Vec<Cost> = (0..100).map(|number| cost(number * 512)).collect();
        let figures = Figures::of(&costs);
        assert_eq!(figures.span, [1.0, 50.0, 0.0, 2.0, 53.0]);
        assert_eq!(figures.call, [50 * 512, 99 * 512]);
        assert_eq!(percentile(&[7], 99), 7);
    }

    #[test]
    fn the_plugin_to_compare_with_changes_nothing() {
        let mut nop = Trial::of_bytes(NOP).unwrap();
        let payload = sample::batch();
        let outcome = nop.run(Signal::Traces, &payload).unwrap();
        assert_eq!((outcome.rows, outcome.edited, outcome.dropped), (512, 0, 0));
        assert_eq!(outcome.payload, payload);
    }
}
