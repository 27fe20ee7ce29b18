//! `millrace plugin bench`: what a plugin costs, beside one that does nothing.
//!
//! Batches of 512 typical spans, first the plugin's, then those of a plugin that reads one field and changes nothing (it is
//! inside of this binary), by turns: what disturbs the machine disturbs both. What an enricher or a sampler has said of a value
//! or a trace is remembered by its host, so they are shown twice: when everything is new, and when nothing is. Decoders get
//! bytes of their own format. Figures are processor time of the thread that a lane would spend; medians, and of the
//! call the 99th percentile too.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::product::READ_BYTES;
use super::sample;
use super::trial::{ComponentArgs, Trial};
use crate::block::Signal;
use crate::cli::human::{self, Table};
use crate::cli::source::Unusable;
use crate::pipeline::trial::Spent;
use crate::plugin::World;
use crate::plugin::load::Source;

/// Batches before those that count.
const WARM_UP: usize = 50;

/// Reads `url.full`, answers with an empty patch: `nop.c`, built by `millrace plugin build`.
const NOP: &[u8] = include_bytes!("bench/nop.wasm");

/// Bytes of a connection at least: what is in the file is sent again and again.
const CONNECTION_BYTES: usize = 64 << 10;

/// What to measure.
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// Batches of 512 spans; for a decoder connections of at least 64 KiB.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    batches: usize,
    /// What a peer sends to a decoder, such as tests/first/in.txt: its format is its own.
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Measures a plugin.
pub(super) fn bench(arguments: &BenchArgs) -> anyhow::Result<()> {
    if arguments.batches == 0 {
        return Err(Unusable("--batches 0: nothing to measure".to_owned()).into());
    }
    let trial = Trial::load(&arguments.component, &Source::read(&arguments.component.file)?)?;
    let columns = match (trial.world(), &arguments.input) {
        (World::Decode, Some(input)) => vec![decoder(trial, input, arguments.batches)?],
        (World::Decode, None) => {
            let what = "a decoder is measured on bytes of its own format: --in FILE, such as tests/first/in.txt";
            return Err(Unusable(what.to_owned()).into());
        }
        (_, Some(_)) => return Err(Unusable("--in is for decoders: others get batches of spans".to_owned()).into()),
        (..) if !trial.hand.wants(Signal::Traces) => {
            return Err(Unusable("batches are of spans, and this plugin is shown none".to_owned()).into());
        }
        (..) => batches(trial, arguments.batches)?,
    };
    let mut out = std::io::stdout().lock();
    match arguments.json {
        true => {
            let columns = columns.iter().map(|column| (column.name.to_owned(), column.figures.json(column.parts)));
            writeln!(out, "{:#}", Value::Object(columns.collect()))?;
        }
        false => show(&columns, &mut out)?,
    }
    Ok(())
}

/// Something that was measured.
struct Column {
    name: &'static str,
    /// What the parts of a call are called here.
    parts: &'static [Part],
    /// What a figure is of.
    of: &'static str,
    figures: Figures,
}

/// A part of a call, and where it stands in [`Figures::each`].
type Part = (&'static str, usize);

const OF_BLOCKS: &[Part] = &[("gather", 0), ("call", 1), ("check", 2), ("apply", 3), ("all", 4)];
const OF_ENCODERS: &[Part] = &[("gather, check", 0), ("call", 1), ("all", 4)];
const OF_DECODERS: &[Part] = &[("call", 1), ("build", 3), ("all", 4)];

/// A plugin that is given batches, beside the one that does nothing; one that remembers also when everything is new to it.
fn batches(mut trial: Trial, count: usize) -> anyhow::Result<Vec<Column>> {
    let mut nop = Trial::of_bytes(NOP)?;
    let remembers = matches!(trial.world(), World::Enrich | World::Sample);
    let payload = sample::batch();
    let (mut new, mut usual, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    for batch in 0..WARM_UP + count {
        if remembers {
            trial.hand.forget();
            new.push(trial.hand.block(Signal::Traces, &payload)?.spent);
        }
        usual.push(match trial.world() {
            World::Encode => trial.hand.batch(Signal::Traces, &payload)?.spent,
            _ => trial.hand.block(Signal::Traces, &payload)?.spent,
        });
        nothing.push(nop.hand.block(Signal::Traces, &payload)?.spent);
        if batch < WARM_UP {
            [&mut new, &mut usual, &mut nothing].into_iter().for_each(Vec::clear);
        }
    }
    let parts = if trial.world() == World::Encode { OF_ENCODERS } else { OF_BLOCKS };
    let column = |name, costs: &[Spent]| Column { name, parts, of: "span", figures: Figures::of(costs) };
    Ok(match trial.world() {
        World::Enrich | World::Sample => {
            vec![column("all new", &new), column("all known", &usual), column("nop", &nothing)]
        }
        // What it does to a batch is something else than what a transform does.
        World::Encode => vec![column("plugin", &usual)],
        World::Transform | World::Decode => vec![column("plugin", &usual), column("nop", &nothing)],
    })
}

fn decoder(mut trial: Trial, input: &Path, count: usize) -> anyhow::Result<Column> {
    let file = std::fs::read(input).map_err(|error| Unusable(format!("{}: {error}", input.display())))?;
    anyhow::ensure!(!file.is_empty(), "{} is empty", input.display());
    let bytes = file.repeat(CONNECTION_BYTES.div_ceil(file.len()));
    let mut costs = Vec::new();
    for connection in 0..WARM_UP + count {
        let received = trial.hand.connection(&bytes, READ_BYTES)?;
        anyhow::ensure!(received.spent.rows > 0, "no record came of {}", input.display());
        if connection >= WARM_UP {
            costs.push(received.spent);
        }
    }
    Ok(Column { name: "plugin", parts: OF_DECODERS, of: "record", figures: Figures::of(&costs) })
}

/// Nanoseconds a span or record, and of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    /// Rows of a batch.
    rows: u32,
    /// Gather, call, check, apply, all: medians, a row.
    each: [f64; 5],
    /// Of a call with a whole batch: median and 99th percentile.
    call: [u64; 2],
}

impl Figures {
    /// Of at least one batch.
    fn of(costs: &[Spent]) -> Figures {
        let all = |cost: &Spent| cost.gather_ns + cost.call_ns + cost.check_ns + cost.apply_ns;
        let parts: [fn(&Spent) -> u64; 4] =
            [|cost| cost.gather_ns, |cost| cost.call_ns, |cost| cost.check_ns, |cost| cost.apply_ns];
        let sorted = |of: &dyn Fn(&Spent) -> u64| {
            let mut values: Vec<u64> = costs.iter().map(of).collect();
            values.sort_unstable();
            values
        };
        let rows = costs[0].rows;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a batch are far below 2^52")]
        let a_row = |of: &dyn Fn(&Spent) -> u64| percentile(&sorted(of), 50) as f64 / f64::from(rows);
        let call = sorted(&|cost: &Spent| cost.call_ns);
        Figures {
            rows,
            each: [a_row(&parts[0]), a_row(&parts[1]), a_row(&parts[2]), a_row(&parts[3]), a_row(&all)],
            call: [percentile(&call, 50), percentile(&call, 99)],
        }
    }

    fn json(&self, parts: &[Part]) -> Value {
        let each = parts.iter().map(|(part, index)| ((*part).to_owned(), self.each[*index].into()));
        json!({
            "rows": self.rows,
            "ns_per_row": each.collect::<serde_json::Map<_, _>>(),
            "call_ns": { "p50": self.call[0], "p99": self.call[1] },
        })
    }
}

/// The value below which so many of a hundred are; of sorted values, at least one.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn show(columns: &[Column], out: &mut dyn Write) -> std::io::Result<()> {
    let Column { parts, of, figures, .. } = &columns[0];
    let head = std::iter::once(format!("ns a {of}")).chain(columns.iter().map(|column| format!(">{}", column.name)));
    let head: Vec<String> = head.collect();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for (part, index) in *parts {
        let cells = columns.iter().map(|column| format!("{:.1}", column.figures.each[*index]));
        table.row(std::iter::once((*part).to_owned()).chain(cells));
    }
    table.write(out)?;
    let [p50, p99] = figures.call.map(|ns| ns / 1000);
    writeln!(out, "calls for {}: {p50} us, {p99} us at p99", human::counted(u64::from(figures.rows), of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_part_by_part() {
        let cost = |call_ns| Spent { rows: 512, gather_ns: 512, call_ns, check_ns: 0, apply_ns: 1024 };
        let costs: Vec<Spent> = (0..100).map(|number| cost(number * 512)).collect();
        let figures = Figures::of(&costs);
        assert_eq!(figures.each, [1.0, 50.0, 0.0, 2.0, 53.0]);
        assert_eq!(figures.call, [50 * 512, 99 * 512]);
        assert_eq!(percentile(&[7], 99), 7);
    }

    #[test]
    fn the_plugin_to_compare_with_changes_nothing() {
        let mut nop = Trial::of_bytes(NOP).unwrap();
        let payload = sample::batch();
        let outcome = nop.hand.block(Signal::Traces, &payload).unwrap();
        assert_eq!((outcome.spent.rows, outcome.edited, outcome.dropped), (512, 0, 0));
        assert_eq!(outcome.payload, payload);
    }
}
