//! Figures beside the limits that they have to keep, as a table.
//!
//! A figure that misses its limit is marked, not hidden.

use std::fmt::Write as _;

/// A figure and what it must keep.
pub(crate) struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
    limit: Option<Limit>,
}

/// What a figure must keep.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Row {
    fn is_kept(&self) -> bool {
        match self.limit {
            None => true,
            Some(Limit::AtLeast(limit)) => self.value >= limit,
            Some(Limit::AtMost(limit)) => self.value <= limit,
        }
    }
}

/// A figure.
pub(crate) fn row(what: &'static str, value: f64, unit: &'static str, limit: Option<Limit>) -> Row {
    Row { what, value, unit, limit }
}

/// The figures as Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut out = String::from("| what | measured | limit | |\n|---|--:|--:|---|\n");
    for row in rows {
        let limit = match row.limit {
            None => String::new(),
            Some(Limit::AtLeast(limit)) => format!(">= {limit:.2}"),
            Some(Limit::AtMost(limit)) => format!("<= {limit:.2}"),
        };
        let verdict = if row.is_kept() { "" } else { "**missed**" };
        writeln!(out, "| {} | {:.2} {} | {limit} | {verdict} |", row.what, row.value, row.unit)
            .expect("writing to memory does not fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_misses_its_limit_is_marked() {
        let rows = [
            row("fast", 1.0, "GB/s", Some(Limit::AtLeast(1.0))),
            row("slow", 0.9, "GB/s", Some(Limit::AtLeast(1.0))),
            row("late", 2.1, "ms", Some(Limit::AtMost(2.0))),
        ];
        assert_eq!(rows.iter().map(Row::is_kept).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(table(&rows).matches("**missed**").count(), 2);
    }
}
