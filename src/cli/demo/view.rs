//! What the demo shows while it runs: a block of lines redrawn in place on a terminal, one line a second elsewhere.
//!
//! Frames are plain numbers; `Frame::lines` is a pure function, `Screen` alone writes. Colour only on a terminal and
//! only without `NO_COLOR`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use super::appliance::Totals;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Over how long rates are taken.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Looks at the log that the lag meter remembers.
const MAX_MARKS: usize = 4096;

/// The numbers of one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame {
    /// Since the demo began.
    pub(super) now: Duration,
    /// Rows that the fleet has written.
    pub(super) rows_sent: u64,
    /// The ledger.
    pub(super) totals: Totals,
    /// Spans that the backend has counted.
    pub(super) spans_received: u64,
    /// How far the backend is behind the log.
    pub(super) lag: Duration,
}

impl Frame {
    /// All that was sent has been decoded, logged and delivered.
    pub(super) fn has_settled(&self) -> bool {
        self.totals.front.received == self.rows_sent && self.totals.imbalances() == [0, 0, 0]
    }

    /// Spans in the log that the backend has not got yet.
    fn waiting(&self) -> u64 {
        self.totals.lane.appended.saturating_sub(self.totals.destination.settled())
    }

    /// The frame for a terminal; `rows_per_second` and `spans_per_second` are over the last second.
    fn lines(&self, rates: [u64; 2], paint: Paint) -> Vec<String> {
        let (front, lane, destination) = (&self.totals.front, &self.totals.lane, &self.totals.destination);
        let [in_front, in_lane, _] = self.totals.imbalances();
        let [rows_per_second, spans_per_second] = rates;
        vec![
            String::new(),
            format!(
                "  {:>5.1} s   rows in {:>10}   {:>9}/s     spans out {:>10}   {:>9}/s     lag {:>6.0} ms",
                self.now.as_secs_f64(),
                grouped(front.received),
                grouped(rows_per_second),
                grouped(self.spans_received),
                grouped(spans_per_second),
                self.lag.as_secs_f64() * 1000.0,
            ),
            String::new(),
            format!(
                "  {}  received {} = rejected {} + filtered {} + dead letters {} + encoded {}   {}",
                paint.dim("front      "),
                grouped(front.received),
                grouped(front.rejected),
                grouped(front.filtered),
                grouped(front.dead_lettered),
                grouped(front.encoded),
                paint.imbalance(in_front),
            ),
            format!(
                "  {}  encoded {} + passed {} + roots {} = dropped {} + refused {} + appended {}   {}",
                paint.dim("lanes      "),
                grouped(lane.encoded),
                grouped(lane.passed),
                grouped(lane.synthesised),
                grouped(lane.transform_dropped),
                grouped(lane.refused),
                grouped(lane.appended),
                paint.imbalance(in_lane),
            ),
            format!(
                "  {}  appended {} = delivered {} + given up {} + in queue {}",
                paint.dim("destination"),
                grouped(lane.appended),
                grouped(destination.delivered),
                grouped(destination.settled() - destination.delivered),
                grouped(self.waiting()),
            ),
        ]
    }

    /// The frame where there is no terminal.
    fn plain_line(&self, rates: [u64; 2]) -> String {
        let [in_front, in_lane, _] = self.totals.imbalances();
        format!(
            "{:.1} s: rows in {} ({}/s), spans out {} ({}/s), waiting {}, lag {} ms, imbalance {in_front} records {in_lane} \
             spans",
            self.now.as_secs_f64(),
            self.totals.front.received,
            rates[0],
            self.spans_received,
            rates[1],
            self.waiting(),
            self.lag.as_millis(),
        )
    }
}

/// How far a destination is behind: the age of the oldest moment at which the log held more than it has settled by now.
#[derive(Debug, Default)]
pub(super) struct LagMeter {
    /// When, and how much the log held.
    marks: VecDeque<(Duration, u64)>,
    settled: u64,
}

impl LagMeter {
    /// Notes how much was appended and settled at `now`.
    pub(super) fn note(&mut self, now: Duration, appended: u64, settled: u64) {
        self.settled = settled;
        if self.marks.back().is_none_or(|(_, last)| *last < appended) {
            self.marks.push_back((now, appended));
        }
        while self.marks.front().is_some_and(|(_, mark)| *mark <= settled) || self.marks.len() > MAX_MARKS {
            self.marks.pop_front();
        }
    }

    /// The lag at `now`, to the precision of the looks.
    pub(super) fn lag(&self, now: Duration) -> Duration {
        self.marks.front().map_or(Duration::ZERO, |(then, _)| now.saturating_sub(*then))
    }
}

/// Where frames go.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    paint: Paint,
    /// Lines of the last frame, to be drawn over.
    drawn: usize,
    last_plain: Option<Duration>,
    /// Frames of the last second, for rates.
    history: VecDeque<(Duration, [u64; 2])>,
}

impl Screen {
    /// A screen on standard output.
    pub(super) fn new(terminal: bool, colour_allowed: bool) -> Screen {
        let paint = Paint { colour: terminal && colour_allowed };
        Screen { terminal, paint, drawn: 0, last_plain: None, history: VecDeque::new() }
    }

    /// Whether colour may be used.
    pub(super) fn colour(&self) -> bool {
        self.paint.colour
    }

    /// Prints a line above all frames.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(io::stdout(), "{text}")?;
        Ok(())
    }

    /// Draws a frame over the last one, or prints a line if a second has gone by.
    pub(super) fn show(&mut self, frame: Frame) -> anyhow::Result<()> {
        let rates = self.rates(&frame);
        let mut out = io::stdout().lock();
        if !self.terminal {
            if self.last_plain.is_none_or(|last| frame.now - last >= RATE_WINDOW) {
                self.last_plain = Some(frame.now);
                writeln!(out, "{}", frame.plain_line(rates))?;
            }
            return Ok(());
        }
        if self.drawn > 0 {
            // Back to the first line of the last frame, and clear from there.
            write!(out, "\x1b[{}A\x1b[J", self.drawn)?;
        }
        let lines = frame.lines(rates, self.paint);
        self.drawn = lines.len();
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        Ok(())
    }

    /// No frame will be drawn over what is there.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.drawn = 0;
        io::stdout().flush()?;
        Ok(())
    }

    fn rates(&mut self, frame: &Frame) -> [u64; 2] {
        let counts = [frame.totals.front.received, frame.spans_received];
        self.history.push_back((frame.now, counts));
        while self.history.len() > 2 && frame.now - self.history[0].0 > RATE_WINDOW {
            self.history.pop_front();
        }
        let (then, before) = self.history[0];
        let elapsed_ms = u64::try_from((frame.now - then).as_millis()).unwrap_or(u64::MAX).max(1);
        [0, 1].map(|index| (counts[index] - before[index]) * 1000 / elapsed_ms)
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn dim(self, text: &str) -> String {
        if self.colour { format!("{DIM}{text}{PLAIN}") } else { text.to_owned() }
    }

    fn imbalance(self, imbalance: i128) -> String {
        let colour = if imbalance == 0 { GREEN } else { RED };
        if self.colour { format!("{colour}imbalance {imbalance}{PLAIN}") } else { format!("imbalance {imbalance}") }
    }
}

/// A number with its thousands apart: `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ledger::{DestinationTotals, LaneTotals};

    fn frame() -> Frame {
        let mut totals = Totals::default();
        totals.front.received = 1_234_567;
        totals.front.encoded = 1_234_560;
        totals.front.dead_lettered = 7;
        totals.lane = LaneTotals { encoded: 1_234_560, synthesised: 40, appended: 1_234_600, ..LaneTotals::default() };
        totals.destination = DestinationTotals { delivered: 1_234_600, ..DestinationTotals::default() };
        Frame { rows_sent: 1_234_567, totals, spans_received: 1_234_600, ..Frame::default() }
    }

    #[test]
    fn a_frame_has_settled_only_when_nothing_is_anywhere_in_between() {
        assert!(frame().has_settled());
        assert!(!Frame { rows_sent: 1_234_568, ..frame() }.has_settled());
        let mut waiting = frame();
        waiting.totals.destination.delivered -= 1;
        assert!(!waiting.has_settled());
        assert_eq!(waiting.waiting(), 1);
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let plain = frame().lines([0, 0], Paint { colour: false }).join("\n");
        assert!(plain.contains("received 1,234,567 = rejected 0") && plain.contains("imbalance 0"));
        assert!(!plain.contains('\x1b'));
        let coloured = frame().lines([0, 0], Paint { colour: true }).join("\n");
        assert_eq!(coloured.replace(GREEN, "").replace(DIM, "").replace(PLAIN, ""), plain);
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_unsettled_mark() {
        let seconds = Duration::from_secs;
        let mut lag = LagMeter::default();
        lag.note(seconds(1), 100, 0);
        lag.note(seconds(2), 200, 50);
        assert_eq!(lag.lag(seconds(2)), seconds(1));
        lag.note(seconds(3), 200, 100);
        assert_eq!(lag.lag(seconds(3)), seconds(1));
        lag.note(seconds(4), 200, 200);
        assert_eq!(lag.lag(seconds(9)), Duration::ZERO);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1_000, 12_345_678].map(grouped).map(|text| text).each_ref().map(String::as_str)
        );
    }
}
