//! How commands show figures: sizes, counts, times and tables for people; exact figures for programs.
//!
//! Times are local and ISO 8601 with their offset, and come with their age; in JSON they are UTC to the nanosecond, and
//! sizes are bytes. Pure but for the time zone of the host.

use std::io::{self, Write};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::telemetry::moment::iso;

/// A size with one decimal, in the largest binary unit.
pub(super) fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// A number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with the word for one of them.
pub(super) fn counted(number: u64, word: &str) -> String {
    format!("{} {word}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A length of time in its one or two largest units.
pub(super) fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A moment in local time, to the second.
pub(super) fn time(unix_ns: u64) -> String {
    let zoned = timestamp(unix_ns).to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// A moment in local time with its age.
pub(super) fn time_and_age(unix_ns: u64, now_ns: u64) -> String {
    match unix_ns {
        0 => "-".to_owned(),
        _ if unix_ns > now_ns => time(unix_ns),
        _ => format!("{} ({} ago)", time(unix_ns), length(Duration::from_nanos(now_ns - unix_ns))),
    }
}

/// A moment for programs; null for none.
pub(super) fn exact_time(unix_ns: u64) -> serde_json::Value {
    if unix_ns == 0 { serde_json::Value::Null } else { iso(unix_ns).into() }
}

/// Unix nanoseconds of a moment for programs; 0 for what is none.
pub(super) fn moment(text: &str) -> u64 {
    let moment = text.parse::<Timestamp>().map_or(0, |moment| moment.as_nanosecond());
    u64::try_from(moment).unwrap_or(0)
}

fn timestamp(unix_ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::MAX)
}

/// Text that a peer wrote, without what would move a terminal's cursor or change its state.
pub(super) fn harmless(text: &str) -> String {
    text.replace(|character: char| character.is_control() && !['\n', '\t'].contains(&character), "\u{fffd}")
}

/// The same on one line.
pub(super) fn on_one_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

/// A moment as people give it: ISO 8601, local without an offset, or a length of time before `now_ns`, such as `15m`.
pub(super) fn parse_time(text: &str, now_ns: u64) -> Result<u64, String> {
    let unix_ns = if let Ok(ago) = text.parse::<SignedDuration>() {
        i128::from(now_ns) - ago.as_nanos()
    } else if let Ok(moment) = text.parse::<Timestamp>() {
        moment.as_nanosecond()
    } else if let Ok(local) = text.parse::<jiff::civil::DateTime>()
        && let Ok(zoned) = local.to_zoned(TimeZone::system())
    {
        zoned.timestamp().as_nanosecond()
    } else {
        return Err(format!("{text:?} is no time: write 2026-01-31T12:00:00, or 15m for a quarter of an hour ago"));
    };
    Ok(u64::try_from(unix_ns).unwrap_or(0))
}

/// Rows under headings; columns are as wide as what is in them.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these columns; a name that starts with `>` is of a column of figures.
    pub(super) fn new(columns: &[&str]) -> Table {
        let headings = columns.iter().map(|column| column.trim_start_matches('>').to_owned()).collect();
        let right = columns.iter().map(|column| column.starts_with('>')).collect();
        Table { rows: vec![headings], right }
    }

    /// Appends a row; what a peer wrote stays in its cell.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| on_one_line(&cell)).collect());
    }

    /// Writes it.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.right);
            let cells = cells.map(|((cell, width), right)| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (bytes, shown) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")] {
            assert_eq!(size(bytes), shown);
        }
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), shown);
        }
        for (seconds, shown) in [(5, "5 s"), (65, "1 min 5 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(length(Duration::from_secs(seconds)), shown);
        }
        let exact = "2023-11-14T22:13:20.000000001Z";
        assert_eq!((exact_time(1_700_000_000_000_000_001), moment(exact)), (exact.into(), 1_700_000_000_000_000_001));
    }

    #[test]
    fn what_peers_write_does_not_reach_the_terminal_as_commands() {
        assert_eq!(harmless("a\tb\n\u{1b}]0;x\u{7}\u{9b}2J\r"), "a\tb\n\u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}");
    }

    #[test]
    fn times_are_read_as_moments_and_as_ages() {
        let now = 1_700_000_000_000_000_000;
        assert_eq!(parse_time("15m", now), Ok(now - 900_000_000_000));
        assert_eq!(parse_time("2023-11-14T22:13:20Z", now), Ok(now));
        let local = time(now);
        assert_eq!(parse_time(&local[..19], now), Ok(now), "{local}");
        assert!(parse_time("yesterday", now).unwrap_err().contains("yesterday"));
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(&["NAME", ">SPANS"]);
        table.row(["otlphttp".to_owned(), "7".to_owned()]);
        table.row(["a\tb\n\u{1b}[2J".to_owned(), "1".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let expected = "NAME      SPANS\notlphttp      7\na b \u{fffd}[2J      1\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
