//! Reads spans from lines: start (Unix ms), duration (ms), host, name, then pairs.
//!
//! ```text
//! 1764000000000 12 web-1 checkout user=7 outcome=paid
//! ```
//!
//! An empty line and a comment (`#`) are passed over. A line that is none is rejected with the reason; the next one is read
//! as if it had not been there.

use millrace_plugin::prelude::*;

#[derive(Fields)]
struct Span {
    #[field(intrinsic, "name")]
    name: Text<'static, Write>,
    #[field(intrinsic, "start")]
    start_ns: Integer<'static, Write>,
    #[field(intrinsic, "duration")]
    duration_ns: Integer<'static, Write>,
    #[field(resource, "host.name")]
    host: Text<'static, Write>,
}

#[derive(Plugin)]
struct LineFormat;

#[decode]
impl Decode for LineFormat {
    type Span = Span;

    fn line(&mut self, line: &[u8], output: &mut Output<Span>) -> Result<Taken, String> {
        let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        if line.starts_with('#') {
            return Ok(Taken::Nothing);
        }
        let mut words = line.split(' ');
        let mut word = |what: &str| words.next().filter(|word| !word.is_empty()).ok_or_else(|| format!("no {what}"));
        let start_ns = milliseconds(word("start")?)?;
        let duration_ns = milliseconds(word("duration")?)?;
        output.fields.host.set(word("host")?);
        output.fields.name.set(word("name")?);
        output.fields.start_ns.set(start_ns);
        output.fields.duration_ns.set(duration_ns);
        for pair in words {
            let (key, value) = split_once(pair, b'=').ok_or_else(|| format!("{pair:?} is no pair"))?;
            output.set(key, value)?;
        }
        Ok(Taken::Span)
    }
}

/// Nanoseconds from milliseconds.
fn milliseconds(text: &str) -> Result<i64, String> {
    let ms = text.parse::<i64>().ok().filter(|ms| *ms >= 0);
    ms.and_then(|ms| ms.checked_mul(1_000_000)).ok_or_else(|| format!("{text:?} are no milliseconds"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_plugin::Level;

    const LINES: &str = "# start duration host name\r\n1764000000000 12 web-1 checkout user=7 outcome=paid\r\n\n\
                         x 1 web-1 broken user=8\n1764000000001 3 web-2 search\n1764000000002 4 we";

    #[test]
    fn lines_become_spans_and_others_are_rejected() {
        let mut plugin = testing::configured::<LineFormat>("").unwrap();
        let made = testing::decode(&mut plugin, LINES.as_bytes(), false).unwrap();
        assert_eq!((made.spans.len(), made.filtered), (2, 1));
        assert_eq!(made.spans.get(0, Level::Intrinsic, "start"), Some(&1_764_000_000_000_000_000.into()));
        assert_eq!((made.spans.text(0, "user"), made.spans.text(1, "user")), (Some("7"), None));
        assert_eq!(made.spans.get(1, Level::Intrinsic, "name"), Some(&"search".into()));
        let rejected = [(b"x 1 web-1 broken user=8".to_vec(), "\"x\" are no milliseconds".to_owned())];
        assert_eq!(made.rejected, rejected);
        assert_eq!(&LINES[made.consumed..], "1764000000002 4 we");
        let last = testing::decode(&mut plugin, &LINES.as_bytes()[made.consumed..], true).unwrap();
        assert_eq!((last.consumed, last.rejected[0].1.as_str()), (18, "no name"));
    }

    #[test]
    fn what_a_rejected_line_filled_in_is_forgotten() {
        let mut plugin = testing::configured::<LineFormat>("").unwrap();
        let made = testing::decode(&mut plugin, b"1 1 h a k=v broken\n2 2 h b\n", false).unwrap();
        assert_eq!((made.spans.len(), made.spans.text(0, "k")), (1, None));
        assert_eq!(made.spans.get(0, Level::Intrinsic, "name"), Some(&"b".into()));
    }
}
