//! One trace as a tree with times: pure text from what the backend got.
//!
//! Children stand below their parent by start. A span whose parent never came stands at the top beside the root, so a
//! lost parent shows. Long trees are cut, and say by how much.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::receiver::WatchedSpan;
use crate::otlp::ids::SpanId;

/// Lines at most: a logon of 80 processes fits.
const MAX_LINES: usize = 100;

/// Columns of the names and of the bars.
const NAME_COLUMNS: usize = 46;
const BAR_COLUMNS: usize = 32;

const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// The tree of `spans`, sorted by start; each line ends with a newline.
pub(super) fn render(spans: &[WatchedSpan], colour: bool) -> String {
    let (Some(first_ns), Some(last_ns)) =
        (spans.iter().map(|span| span.start_ns).min(), spans.iter().map(|span| span.end_ns).max())
    else {
        return "No logon arrived whole.\n".to_owned();
    };
    let mut children: HashMap<Option<SpanId>, Vec<&WatchedSpan>> = HashMap::new();
    let known: HashSet<SpanId> = spans.iter().map(|span| span.id).collect();
    for span in spans {
        let parent = span.parent.filter(|parent| known.contains(parent) && *parent != span.id);
        children.entry(parent).or_default().push(span);
    }
    let mut tree =
        Tree { children, first_ns, length_ns: (last_ns - first_ns).max(1), colour, text: String::new(), lines: 0 };
    tree.text = format!("One logon as the backend got it: {} spans, {}.\n\n", spans.len(), seconds(last_ns - first_ns));
    tree.draw(None, "");
    if spans.len() > tree.lines {
        writeln!(tree.text, "  ... and {} more", spans.len() - tree.lines).expect("writing to a string cannot fail");
    }
    tree.text
}

struct Tree<'a> {
    children: HashMap<Option<SpanId>, Vec<&'a WatchedSpan>>,
    first_ns: u64,
    length_ns: u64,
    colour: bool,
    text: String,
    lines: usize,
}

impl Tree<'_> {
    /// Draws the children of `parent` behind `indent`. Each list is taken out when it is drawn, so a cycle ends.
    fn draw(&mut self, parent: Option<SpanId>, indent: &str) {
        let spans = self.children.remove(&parent).unwrap_or_default();
        for (index, span) in spans.iter().enumerate() {
            if self.lines >= MAX_LINES {
                return;
            }
            let last = index + 1 == spans.len();
            let (branch, below) = match (parent.is_none(), last) {
                (true, _) => ("", ""),
                (false, true) => ("└─ ", "   "),
                (false, false) => ("├─ ", "│  "),
            };
            self.line(span, &format!("{indent}{branch}"));
            self.draw(Some(span.id), &format!("{indent}{below}"));
        }
    }

    fn line(&mut self, span: &WatchedSpan, indent: &str) {
        let room = NAME_COLUMNS.saturating_sub(indent.chars().count());
        let name: String = span.name.chars().take(room).collect();
        let padding = " ".repeat(room - name.chars().count());
        let start = seconds(span.start_ns - self.first_ns);
        let length = seconds(span.end_ns.saturating_sub(span.start_ns));
        let bar = self.bar(span);
        let (dim, cyan, plain) = if self.colour { (DIM, CYAN, PLAIN) } else { ("", "", "") };
        writeln!(
            self.text,
            "  {dim}{indent}{plain}{name}{padding} {dim}{start:>10}{plain} {length:>10}  {cyan}{bar}{plain}"
        )
        .expect("writing to a string cannot fail");
        self.lines += 1;
    }

    /// Where the span lies in the trace: at least one mark.
    fn bar(&self, span: &WatchedSpan) -> String {
        let column = |ns: u64| {
            let column = u128::from(ns - self.first_ns) * BAR_COLUMNS as u128 / u128::from(self.length_ns);
            usize::try_from(column).unwrap_or(0).min(BAR_COLUMNS)
        };
        let from = column(span.start_ns).min(BAR_COLUMNS - 1);
        let to = column(span.end_ns.max(span.start_ns)).max(from + 1);
        format!("{}{}", " ".repeat(from), "━".repeat(to - from))
    }
}

fn seconds(ns: u64) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u8, parent: u8, name: &str, start_ms: u64, end_ms: u64) -> WatchedSpan {
        WatchedSpan {
            id: SpanId::from_bytes(&[id; 8]).unwrap(),
            parent: SpanId::from_bytes(&[parent; 8]),
            name: name.to_owned(),
            start_ns: start_ms * 1_000_000,
            end_ns: end_ms * 1_000_000,
        }
    }

    #[test]
    fn children_stand_below_their_parent_with_offset_and_length() {
        let spans = [
            span(1, 0, "logon", 1000, 5000),
            span(2, 1, "winlogon.exe", 1013, 5000),
            span(4, 2, "userinit.exe", 2000, 3000),
            span(3, 1, "svchost.exe", 4000, 4500),
        ];
        let text = render(&spans, false);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert!(lines[0].starts_with("  logon ") && lines[0].contains("0.000 s") && lines[0].contains("4.000 s"));
        assert!(lines[1].starts_with("  ├─ winlogon.exe") && lines[1].contains("0.013 s"));
        assert!(lines[2].starts_with("  │  └─ userinit.exe"));
        assert!(lines[3].starts_with("  └─ svchost.exe"));
        assert_eq!(lines[0].matches('━').count(), BAR_COLUMNS);
        assert!(!text.contains('\x1b'));
        assert!(render(&spans, true).contains(CYAN));
    }

    #[test]
    fn orphans_cycles_and_nothing_at_all_are_shown_as_such() {
        assert!(render(&[span(2, 9, "orphan.exe", 0, 1)], false).contains("  orphan.exe"));
        let cycle = [span(1, 2, "a", 0, 1), span(2, 1, "b", 0, 1)];
        assert!(render(&cycle, false).contains("... and 2 more"));
        assert!(render(&[], false).contains("No logon"));
    }
}
