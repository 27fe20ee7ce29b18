//! Records of a CSV text, by RFC 4180: cells between commas, quotes around what holds commas, quotes or line ends.
//!
//! Lines may end in LF or CRLF, empty lines are passed over, a byte order mark in front is too. A quote inside of a cell that
//! does not begin with one is an error, so that a broken file is not half read.

/// The records of a text, each with the number of the line that it begins in.
pub(super) fn records(text: &str) -> impl Iterator<Item = Result<(usize, Vec<String>), String>> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    std::iter::from_fn(move || {
        while let Some(after) = rest.strip_prefix('\n').or_else(|| rest.strip_prefix("\r\n")) {
            (rest, line) = (after, line + 1);
        }
        if rest.is_empty() {
            return None;
        }
        let (begin, first) = (rest, line);
        let record = record(&mut rest).map_err(|what| format!("line {first}: {what}"));
        if record.is_err() {
            rest = "";
        }
        line += begin[..begin.len() - rest.len()].matches('\n').count();
        Some(record.map(|cells| (first, cells)))
    })
}

/// The record in front of `rest`, which is left behind its line end.
fn record(rest: &mut &str) -> Result<Vec<String>, &'static str> {
    let mut cells = Vec::new();
    loop {
        let cell = match rest.strip_prefix('"') {
            Some(after) => quoted(after)?,
            None => plain(rest)?,
        };
        cells.push(cell.0);
        *rest = cell.1;
        let Some(after) = rest.strip_prefix(',') else { break };
        *rest = after;
    }
    let end = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'));
    match end {
        Some(after) => *rest = after,
        None if rest.is_empty() => {}
        None => return Err("something follows a closing quote"),
    }
    Ok(cells)
}

fn plain(text: &str) -> Result<(String, &str), &'static str> {
    let end = text.find([',', '\n', '"']).unwrap_or(text.len());
    if text[end..].starts_with('"') {
        return Err("a quote inside of a cell without quotes");
    }
    let end = if text[end..].starts_with('\n') && text[..end].ends_with('\r') { end - 1 } else { end };
    Ok((text[..end].to_owned(), &text[end..]))
}

/// A cell whose opening quote is behind us.
fn quoted(mut text: &str) -> Result<(String, &str), &'static str> {
    let mut cell = String::new();
    loop {
        let (inside, after) = text.split_once('"').ok_or("a quote that is not closed")?;
        cell.push_str(inside);
        match after.strip_prefix('"') {
            Some(after) => {
                cell.push('"');
                text = after;
            }
            None => return Ok((cell, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::records;

    #[test]
    fn records_are_those_of_the_rfc() {
        let text = "\u{feff}host,site\r\na,\"Bern, CH\"\n\n\"b \"\"x\"\"\",\"two\nlines\"\nc,\n,\nd,e";
        let records: Vec<(usize, Vec<String>)> = records(text).map(Result::unwrap).collect();
        let expected = [
            (1, ["host", "site"]),
            (2, ["a", "Bern, CH"]),
            (4, ["b \"x\"", "two\nlines"]),
            (6, ["c", ""]),
            (7, ["", ""]),
            (8, ["d", "e"]),
        ];
        assert_eq!(records, expected.map(|(line, cells)| (line, cells.map(str::to_owned).to_vec())));
        assert_eq!(super::records("").count(), 0);
        assert_eq!(super::records("\n\r\n").count(), 0);
    }

    #[test]
    fn broken_records_name_their_line_and_end_the_reading() {
        for (text, expected) in [
            ("a\nb\"c\nd", "line 2: a quote inside of a cell without quotes"),
            ("a\n\"b", "line 2: a quote that is not closed"),
            ("\"a\"b\nc", "line 1: something follows a closing quote"),
        ] {
            let outcomes: Vec<_> = records(text).collect();
            assert_eq!(outcomes.last().unwrap().as_ref().unwrap_err(), expected);
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
        }
    }
}
