//! `report`: the results of `compare` as a Markdown table and one SVG, both written by hand from the numbers alone.
//!
//! Nothing is measured here, and little more is computed than the scale of the bars: a number in the report is one in the
//! file. A result that lacks a column is an error, not a gap.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::Value;

/// Geometry of the picture, in its own units.
const WIDTH: f64 = 860.0;
const LABEL_WIDTH: f64 = 430.0;
const BAR_HEIGHT: f64 = 22.0;
const ROW_HEIGHT: f64 = 34.0;
const TOP: f64 = 46.0;

/// The table, with the machine's limits below it.
pub(crate) fn markdown(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| scenario | subject | CPU us an item | items a CPU-second | times the floor | spans a request | wall s | \
         RssAnon+Shmem MiB | RssFile MiB | besides |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for result in list(results)? {
        let besides: Vec<String> = result["more"]
            .as_object()
            .context("a result without `more`")?
            .iter()
            .map(|(name, value)| format!("{name} {:.2}", value.as_f64().unwrap_or_default()))
            .collect();
        writeln!(
            text,
            "| {} | {} | {:.2} | {:.0} | {:.1} | {:.0} | {:.1} | {:.1} | {:.1} | {} |",
            word(result, "scenario")?,
            word(result, "subject")?,
            number(result, "cpu_us")?,
            number(result, "items_per_cpu_second")?,
            number(result, "times_the_floor")?,
            number(result, "spans_a_request")?,
            number(result, "wall_seconds")?,
            number(result, "rss_anon_mib")? + number(result, "rss_shmem_mib")?,
            number(result, "rss_file_mib")?,
            besides.join(", "),
        )?;
    }
    let limits = &results["limits"];
    writeln!(
        text,
        "\nMedian of {} runs. The floor is the sum of these, measured in the same run on one thread:\n",
        results["runs"]
    )?;
    writeln!(text, "| step | ns |\n|---|--:|")?;
    for (step, ns) in limits["ns"].as_object().context("no limits")? {
        writeln!(text, "| {step} | {:.0} |", ns.as_f64().unwrap_or_default())?;
    }
    writeln!(text, "| **a row, {} bytes** | **{:.0}** |", limits["row_bytes"], number(limits, "row_ns")?)?;
    writeln!(
        text,
        "| **a span passed through, {} bytes** | **{:.0}** |",
        limits["span_bytes"],
        number(limits, "span_ns")?
    )?;
    Ok(text)
}

/// A bar a result: CPU time an item, with the floor as a line across it.
pub(crate) fn svg(results: &Value) -> Result<String> {
    let list = list(results)?;
    let mut longest: f64 = 0.0;
    for result in list {
        longest = longest.max(number(result, "cpu_us")?);
    }
    let scale = (WIDTH - LABEL_WIDTH - 90.0) / longest.max(f64::MIN_POSITIVE);
    let height = TOP + ROW_HEIGHT * list.len() as f64 + 16.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" fill=\"#222\">CPU microseconds an item; the line is the machine's floor</text>\n"
    );
    for (index, result) in list.iter().enumerate() {
        let y = TOP + ROW_HEIGHT * index as f64;
        let cpu_us = number(result, "cpu_us")?;
        let floor = cpu_us / number(result, "times_the_floor")?;
        let subject = word(result, "subject")?;
        let colour = if subject.starts_with("millrace") { "#1f6f8b" } else { "#b9b9b9" };
        let label = escaped(&format!("{}: {subject}", word(result, "scenario")?));
        let (bar, mark) = (cpu_us * scale, LABEL_WIDTH + floor * scale);
        writeln!(
            text,
            "<text x=\"12\" y=\"{:.1}\" fill=\"#222\">{label}</text>\
             <rect x=\"{LABEL_WIDTH}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>\
             <line x1=\"{mark:.1}\" x2=\"{mark:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#c0392b\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#222\">{cpu_us:.2}</text>",
            y + 16.0,
            y - 3.0,
            y + BAR_HEIGHT + 3.0,
            LABEL_WIDTH + bar.max(floor * scale) + 8.0,
            y + 16.0,
        )?;
    }
    text.push_str("</svg>\n");
    Ok(text)
}

fn list(results: &Value) -> Result<&Vec<Value>> {
    results["results"].as_array().context("no results")
}

fn word<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("a result without {key}"))
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("a result without {key}"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table_and_picture_hold_every_result() {
        let result = |subject: &str, cpu_us: f64| {
            json!({
                "scenario": "a < b", "subject": subject, "unit": "row", "items": 10, "cpu_us": cpu_us,
                "items_per_cpu_second": 1e6 / cpu_us, "times_the_floor": 2.0, "wall_seconds": 1.0, "spans_a_request": 512.0,
                "rss_anon_mib": 10.0, "rss_shmem_mib": 1.0, "rss_file_mib": 5.0, "more": {"p99": 3.0},
            })
        };
        let limits =
            json!({ "ns": {"scan": 30.0}, "row_ns": 1400.0, "span_ns": 400.0, "row_bytes": 711, "span_bytes": 430 });
        let results =
            json!({ "runs": 3, "limits": limits, "results": [result("millrace", 2.0), result("rotel", 5.0)] });
        let table = markdown(&results).unwrap();
        assert!(table.contains("| a < b | millrace | 2.00 | 500000 | 2.0 | 512 | 1.0 | 11.0 | 5.0 | p99 3.00 |"));
        assert!(table.contains("| scan | 30 |"));
        let picture = svg(&results).unwrap();
        assert_eq!(picture.matches("<rect x=").count(), 2);
        assert!(picture.contains("a &lt; b: rotel"));
        assert!(markdown(&json!({})).is_err());
    }
}
