//! What differs between two texts, line by line, with two lines around each difference.
//!
//! The longest common subsequence, after what is the same at both ends is set aside. Texts that are too different for its
//! table are shown one after the other: whoever looks at that sees nothing in a finer difference either.

/// Lines around a difference.
const AROUND: usize = 2;

/// Cells of the table at most.
const MAX_CELLS: usize = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The difference as text, `-` for lines of `expected` alone and `+` for those of `found`; empty when there is none.
pub(super) fn diff(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same_before = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&a[same_before..], &b[same_before..]);
    let same_after = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (&rest_a[..rest_a.len() - same_after], &rest_b[..rest_b.len() - same_after]);
    let mut lines: Vec<Line<'_>> = a[..same_before].iter().map(|line| Line::Same(line)).collect();
    middle(middle_a, middle_b, &mut lines);
    lines.extend(a[a.len() - same_after..].iter().map(|line| Line::Same(line)));
    show(&lines)
}

fn middle<'a>(a: &[&'a str], b: &[&'a str], lines: &mut Vec<Line<'a>>) {
    let width = b.len() + 1;
    let mut common = vec![0_u32; if (a.len() + 1) * width > MAX_CELLS { 0 } else { (a.len() + 1) * width }];
    if common.is_empty() {
        lines.extend(a.iter().map(|line| Line::Gone(line)));
        lines.extend(b.iter().map(|line| Line::New(line)));
        return;
    }
    // How many lines what begins at i and what begins at j have in common.
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = match a[i] == b[j] {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push(Line::Same(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(Line::Gone(a[i]));
            i += 1;
        } else {
            lines.push(Line::New(b[j]));
            j += 1;
        }
    }
}

fn show(lines: &[Line<'_>]) -> String {
    let is_same = |line: &Line<'_>| matches!(line, Line::Same(_));
    let mut text = String::new();
    let mut was_shown = true;
    for (number, line) in lines.iter().enumerate() {
        let around = &lines[number.saturating_sub(AROUND)..(number + AROUND + 1).min(lines.len())];
        let is_shown = !around.iter().all(is_same);
        if is_shown {
            let (mark, line) = match line {
                Line::Same(line) => (' ', line),
                Line::Gone(line) => ('-', line),
                Line::New(line) => ('+', line),
            };
            text.push_str(if was_shown { "" } else { "  ...\n" });
            text.push(mark);
            text.push(' ');
            text.push_str(line);
            text.push('\n');
        }
        was_shown = is_shown;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_differs_nowhere() {
        assert_eq!(diff("a\nb\n", "a\nb"), "");
        assert_eq!(diff("", ""), "");
    }

    #[test]
    fn differences_stand_between_the_lines_around_them() {
        assert_eq!(diff("1\n2\n3\n4\n5\n6\n7", "1\n2\n3\nx\n5\n6\n7"), "  ...\n  2\n  3\n- 4\n+ x\n  5\n  6\n");
        assert_eq!(diff("a\nb", "a\nnew\nb"), "  a\n+ new\n  b\n");
        assert_eq!(diff("", "only"), "+ only\n");
        assert_eq!(diff("only", ""), "- only\n");
        assert_eq!(diff("a\nb\nc\nd", "b\nc\nx\nd"), "- a\n  b\n  c\n+ x\n  d\n");
    }

    #[test]
    fn differences_that_are_far_apart_are_shown_apart() {
        let expected: String = (0..20).map(|line| format!("{line}\n")).collect();
        let found = expected.replace("0\n1\n", "0\nx\n").replace("\n18\n", "\n");
        assert_eq!(diff(&expected, &found), "  0\n- 1\n+ x\n  2\n  3\n  ...\n  16\n  17\n- 18\n  19\n");
    }

    #[test]
    fn texts_that_are_too_long_are_shown_one_after_the_other() {
        let long = |word: &str| format!("{word}\n").repeat(5000);
        let text = diff(&long("a"), &long("b"));
        assert!(text.starts_with("- a\n") && text.ends_with("+ b\n") && text.lines().count() == 10_000);
    }
}
