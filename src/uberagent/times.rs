//! Event time and the base that a row's relative times are counted from.
//!
//! All times are Unix nanoseconds in UTC. Written times without a zone are not guessed at. The base of a logon is the
//! session's creation inside its GUID where that agrees with the row: rows that are emitted late carry an event time far
//! behind the logon's end, and `event - total` would be wrong by as much. A logoff, boot or shutdown ends at its event.

use super::encoder::RowContext;
use super::fields;
use super::guid::Guid;
use super::row::View;

/// Nanoseconds of a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// A day, beyond which clocks are called skewed and a session's creation is not believed to belong to the event.
pub(crate) const DAY_NS: u64 = 24 * 3600 * 1000 * MS;

/// The longest duration that is kept: ten years. Beyond, it is clamped.
pub(crate) const MAX_DURATION_MS: u64 = 315_360_000_000;

/// What a span's times are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// The session's creation, out of its GUID.
    SessionGuid,
    /// The event time, less the duration.
    Event,
    /// Times written in the row.
    Row,
    /// The receive time: nothing better is known.
    Received,
}

impl Base {
    /// The value of the attribute.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Base::SessionGuid => "session_guid",
            Base::Event => "event",
            Base::Row => "row",
            Base::Received => "received",
        }
    }
}

/// The event time of a row, from whichever field carries it; 0 and what is before 1970 is none.
pub(crate) fn event_ns(view: View<'_>) -> Option<u64> {
    let fields = [fields::DATE, fields::AT_TIMESTAMP, fields::TIMESTAMP];
    let value = fields.into_iter().find_map(|field| view.value(field))?;
    match view.double_of(value) {
        Some(number) => unit_guessed_ns(number),
        None => view.text_of(value).and_then(written_ns),
    }
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size; kept to the millisecond.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn unit_guessed_ns(number: f64) -> Option<u64> {
    let ms = match number {
        n if n <= 0.0 => return None,
        n if n < 1e11 => n * 1e3,
        n if n < 1e14 => n,
        n if n < 1e17 => n / 1e3,
        n if n < 1.8e19 => n / 1e6,
        _ => return None,
    };
    // Beyond the year 2540 nanoseconds no longer fit.
    (ms < 1.8e13).then(|| ms.round() as u64 * MS)
}

/// A written time with a zone: RFC 3339, or `2018-07-23 10:06:02.123 +0200`.
pub(crate) fn written_ns(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        let all = digits.iter().all(u8::is_ascii_digit);
        all.then(|| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    };
    let separators = [(4, b"--"), (7, b"--"), (10, b"T "), (13, b"::"), (16, b"::")];
    if !separators.iter().all(|(at, allowed)| text.get(*at).is_some_and(|byte| allowed.contains(byte))) {
        return None;
    }
    let small = |from: usize| number(from, from + 2).and_then(|number| i8::try_from(number).ok());
    let year = i16::try_from(number(0, 4)?).ok()?;
    let date = jiff::civil::Date::new(year, small(5)?, small(8)?).ok()?;
    let time = jiff::civil::Time::new(small(11)?, small(14)?, small(17)?, 0).ok()?;
    let utc = jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(time)).ok()?.as_second();
    let fraction_end = match text.get(19) {
        Some(b'.') => 20 + text[20..].iter().take_while(|byte| byte.is_ascii_digit()).count().min(18),
        _ => 19,
    };
    let fraction_digits = u32::try_from(fraction_end.saturating_sub(20)).unwrap_or(0);
    let fraction_ns =
        number(20.min(fraction_end), fraction_end).unwrap_or(0) * 1_000_000_000 / 10i64.pow(fraction_digits);
    let offset = zone_seconds(text[fraction_end..].trim_ascii_start())?;
    let seconds = u64::try_from(utc - offset).ok().filter(|seconds| *seconds > 0)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(fraction_ns).ok()?)
}

/// The seconds that a zone is ahead of UTC: `Z`, `+0200`, `-05:30`.
fn zone_seconds(zone: &[u8]) -> Option<i64> {
    let (sign, digits) = match zone {
        b"Z" | b"z" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let digit = |at: usize| digits.get(at).filter(|byte| byte.is_ascii_digit()).map(|byte| i64::from(byte - b'0'));
    let minutes_at = match digits.len() {
        4 => 2,
        5 if digits[2] == b':' => 3,
        _ => return None,
    };
    let hours = digit(0)? * 10 + digit(1)?;
    let minutes = digit(minutes_at)? * 10 + digit(minutes_at + 1)?;
    Some(sign * (hours * 3600 + minutes * 60))
}

/// The base of a logon.
pub(crate) fn logon_base(row: RowContext<'_>, guid: Guid, total_ms: u64) -> (u64, Base) {
    let event = row.event_ns;
    // Phase rows carry no session number; where there is one it must agree.
    let number = row.view.int(fields::SESSION_ID);
    let created = guid.created_ns().filter(|_| number.is_none_or(|number| number == i64::from(guid.session_number())));
    match (created, event) {
        (Some(created), None) => (created, Base::SessionGuid),
        (Some(created), Some(event)) if event.checked_sub(created).is_some_and(|late| late <= DAY_NS) => {
            (created, Base::SessionGuid)
        }
        _ => end_base(event, total_ms, row.received_ns),
    }
}

/// The base of what ends at its event, `total_ms` after the base.
pub(crate) fn end_base(event: Option<u64>, total_ms: u64, received_ns: u64) -> (u64, Base) {
    match event {
        Some(event) => (event.saturating_sub(total_ms * MS), Base::Event),
        None => (received_ns, Base::Received),
    }
}

/// A duration or offset in milliseconds, clamped to what makes sense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Length {
    /// Milliseconds, whole and fraction, as nanoseconds.
    pub ns: u64,
    /// It was negative or absurd.
    pub clamped: bool,
}

/// Reads a length; absent or unreadable is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the range is checked, and the constants are whole"
)]
pub(crate) fn length(view: View<'_>, field: usize, unit_ns: u64) -> Length {
    let max_ns = MAX_DURATION_MS * MS;
    let Some(value) = view.value(field) else { return Length { ns: 0, clamped: false } };
    if let Some(whole) = view.int_of(value) {
        let wanted = u64::try_from(whole).unwrap_or(0).saturating_mul(unit_ns);
        return Length { ns: wanted.min(max_ns), clamped: whole < 0 || wanted > max_ns };
    }
    let wanted = view.double_of(value).unwrap_or(0.0) * unit_ns as f64;
    let clamped = !(0.0..=max_ns as f64).contains(&wanted);
    Length { ns: wanted.clamp(0.0, max_ns as f64).round() as u64, clamped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uberagent::fields::id;
    use crate::uberagent::row::{Row, Value};

    #[test]
    fn the_unit_of_an_event_time_is_told_by_its_size() {
        let expected = Some(1_747_033_126_563 * MS);
        for number in [1_747_033_126.563, 1_747_033_126_563.0, 1_747_033_126_563_000.0, 1_747_033_126_563_000_000.0] {
            assert_eq!(unit_guessed_ns(number), expected, "{number}");
        }
        for number in [0.0, -1.0, 9e13, 1e30, f64::NAN] {
            assert_eq!(unit_guessed_ns(number), None, "{number}");
        }
    }

    #[test]
    fn written_times_need_a_zone() {
        let expected = Some(1_747_033_126_563 * MS);
        assert_eq!(written_ns(b"2025-05-12T06:58:46.563Z"), expected);
        assert_eq!(written_ns(b"2025-05-12 08:58:46.563 +0200"), expected);
        assert_eq!(written_ns(b"2025-05-12T01:28:46.563000-05:30"), expected);
        assert_eq!(written_ns(b"2025-05-12T06:58:46Z"), Some(1_747_033_126_000 * MS));
        for text in
            ["2025-05-12 08:58:46", "2025-05-12 08:58:46 CEST", "2025-13-12T06:58:46Z", "2025-05-12T06:58:4", ""]
        {
            assert_eq!(written_ns(text.as_bytes()), None, "{text}");
        }
        assert_eq!(written_ns(b"yesterday"), None);
    }

    #[test]
    fn a_logon_counts_from_its_session_unless_the_row_contradicts() {
        let guid = Guid::parse(b"00000023-7165-2c71-b690-607404b9db01").unwrap();
        let created = guid.created_ns().unwrap();
        let base = |event_ms: Option<i64>, number: Option<i64>| {
            let mut row = Row::new();
            if let Some(event_ms) = event_ms {
                row.set(id("@timestamp"), Value::Int(event_ms));
            }
            if let Some(number) = number {
                row.set(id("SessionID"), Value::Int(number));
            }
            let view = View { row: &row, line: b"" };
            let sourcetype = crate::uberagent::Sourcetype::LogonProcesses;
            let row = RowContext { view, sourcetype, host: b"", received_ns: 77, event_ns: event_ns(view), raw: b"" };
            logon_base(row, guid, 1000)
        };
        let created_ms = i64::try_from(created / MS).unwrap();
        assert_eq!(base(Some(created_ms + 773_000), Some(35)), (created, Base::SessionGuid));
        assert_eq!(base(Some(created_ms + 773_000), None), (created, Base::SessionGuid));
        assert_eq!(base(None, Some(35)), (created, Base::SessionGuid));
        assert_eq!(base(Some(created_ms + 5000), Some(36)), ((created / MS + 4000) * MS, Base::Event));
        assert_eq!(base(Some(created_ms - 1), Some(35)), ((created / MS - 1001) * MS, Base::Event));
        assert_eq!(base(Some(created_ms + 86_400_001), Some(35)).1, Base::Event);
        assert_eq!(base(None, Some(36)), (77, Base::Received));
    }

    #[test]
    fn lengths_are_clamped_and_say_so() {
        let read = |value| {
            let mut row = Row::new();
            row.set(id("ProcLifetimeMs"), value);
            length(View { row: &row, line: b"" }, id("ProcLifetimeMs"), MS)
        };
        assert_eq!(read(Value::Int(15)), Length { ns: 15 * MS, clamped: false });
        assert_eq!(read(Value::Double(0.3)), Length { ns: 300_000, clamped: false });
        assert_eq!(read(Value::Int(-1)), Length { ns: 0, clamped: true });
        assert_eq!(read(Value::Int(i64::MAX)), Length { ns: MAX_DURATION_MS * MS, clamped: true });
        assert_eq!(read(Value::Double(1e300)), Length { ns: MAX_DURATION_MS * MS, clamped: true });
        assert_eq!(read(Value::Nested), Length { ns: 0, clamped: false });
    }
}
