//! The words of settings: durations, sizes, addresses, switches. Text in, value or "what was expected" out; no context.
//!
//! Durations are Go's (`1m30s`, `200ms`, `0.2s`), because the Collector's files use them; sizes take `KiB MiB GiB TiB`,
//! `KB MB GB TB` or plain bytes. A duration without a unit is refused rather than guessed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::types::Tapping;

/// How one kind of setting is read and shown.
pub(super) struct Kind<T> {
    /// The value, or what was expected instead.
    pub(super) parse: fn(&str) -> Result<T, &'static str>,
    pub(super) show: fn(&T) -> String,
}

pub(super) const TEXT: Kind<String> = Kind { parse: |text| Ok(text.to_owned()), show: Clone::clone };

pub(super) const PATH: Kind<PathBuf> =
    Kind { parse: |text| Ok(PathBuf::from(text)), show: |path| path.display().to_string() };

pub(super) const DURATION: Kind<Duration> = Kind { parse: duration, show: |value| format!("{value:?}") };

/// A duration for which 0 would mean "at once" where somebody wanted "never".
pub(super) const TIMEOUT: Kind<Duration> = Kind {
    parse: |text| match duration(text) {
        Ok(Duration::ZERO) | Err(_) => Err("a duration of more than 0 with a unit, such as 200ms, 5s or 1h30m"),
        good => good,
    },
    show: |value| format!("{value:?}"),
};

pub(super) const BYTES: Kind<u64> = Kind { parse: bytes, show: |value| show_bytes(*value) };

pub(super) const COUNT: Kind<usize> =
    Kind { parse: |text| text.parse().map_err(|_| "a whole number"), show: usize::to_string };

/// A number of things of which there must be one.
pub(super) const AT_LEAST_ONE: Kind<usize> =
    Kind { parse: |text| text.parse().ok().filter(|n| *n > 0).ok_or("a whole number from 1"), show: usize::to_string };

/// A compression level of zstd.
pub(super) const LEVEL: Kind<i32> = Kind {
    parse: |text| text.parse().ok().filter(|n| (-7..=19).contains(n)).ok_or("a level from -7 to 19"),
    show: i32::to_string,
};

pub(super) const PORT: Kind<u16> =
    Kind { parse: |text| text.parse().map_err(|_| "a port number, 0 to 65535"), show: u16::to_string };

pub(super) const HOST: Kind<IpAddr> = Kind { parse: host, show: IpAddr::to_string };

pub(super) const ADDRESS: Kind<SocketAddr> = Kind { parse: address, show: SocketAddr::to_string };

/// A SHA-256 in hexadecimal digits.
pub(super) const SHA256: Kind<[u8; 32]> =
    Kind { parse: sha256, show: |digest| digest.iter().map(|byte| format!("{byte:02x}")).collect() };

pub(super) const SWITCH: Kind<bool> = Kind { parse: switch, show: bool::to_string };

/// What a tap may show.
pub(super) const TAPPING: Kind<Tapping> = Kind {
    parse: |text| {
        let words = [Tapping::Off, Tapping::Stored, Tapping::Received];
        words.into_iter().find(|tapping| tapping.word() == text).ok_or("received, stored or off")
    },
    show: |tapping| tapping.word().to_owned(),
};

fn sha256(text: &str) -> Result<[u8; 32], &'static str> {
    const EXPECTED: &str = "a SHA-256 as 64 hexadecimal digits";
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(EXPECTED);
    }
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| EXPECTED)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| EXPECTED)?;
    }
    Ok(digest)
}

/// Go's durations: numbers, with a fraction if need be, each with a unit.
fn duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "a duration with a unit, such as 200ms, 5s or 1h30m";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(EXPECTED)?;
        let number: f64 = rest[..digits].parse().map_err(|_| EXPECTED)?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(EXPECTED),
        };
        rest = &rest[unit..];
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| EXPECTED)?;
        total = total.checked_add(part).ok_or(EXPECTED)?;
    }
    if text.is_empty() { Err(EXPECTED) } else { Ok(total) }
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "a number of bytes, such as 65536, 64KiB or 10GiB";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| EXPECTED)?;
    let factor: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(EXPECTED),
    };
    number.checked_mul(factor).ok_or(EXPECTED)
}

/// A size as people write it, in the largest binary unit that is exact.
pub(super) fn show_bytes(value: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if value >= 1 << shift && value.is_multiple_of(1 << shift) {
            return format!("{}{unit}", value >> shift);
        }
    }
    value.to_string()
}

/// An address to listen on. Names other than `localhost` would make listening depend on a name server.
fn host(text: &str) -> Result<IpAddr, &'static str> {
    match text.trim_start_matches('[').trim_end_matches(']') {
        "" | "*" => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse().map_err(|_| "an IP address or localhost"),
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    const EXPECTED: &str = "an IP address and a port, such as 127.0.0.1:4318 or [::1]:4318";
    let (before, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
    if before.contains(':') && !before.starts_with('[') {
        return Err(EXPECTED);
    }
    Ok(SocketAddr::new(host(before).map_err(|_| EXPECTED)?, port.parse().map_err(|_| EXPECTED)?))
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let good = [
            ("200ms", 200_000_000),
            ("0.2s", 200_000_000),
            ("1m30s", 90_000_000_000),
            ("1h", 3_600_000_000_000),
            ("0", 0),
            ("1.5us", 1_500),
        ];
        for (text, nanoseconds) in good {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in ["", "5", "5 s", "s", "-1s", "1.2.3s", "1d", "99999999999999999999h", "1s2"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, expected) in
            [("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("2 GB", 2_000_000_000), ("1TiB", 1 << 40)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "-1", "1.5GiB", "1gib", "99999999999TiB", "KiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for (value, shown) in
            [(0, "0"), (1023, "1023"), (1024, "1KiB"), (3 << 20, "3MiB"), ((1 << 30) + 1, "1073741825")]
        {
            assert_eq!(show_bytes(value), shown);
        }
    }

    #[test]
    fn addresses_are_read_without_a_name_server() {
        let good = [
            ("0.0.0.0:5000", "0.0.0.0:5000"),
            ("localhost:1", "127.0.0.1:1"),
            (":80", "0.0.0.0:80"),
            ("[::1]:4318", "[::1]:4318"),
        ];
        for (text, expected) in good {
            assert_eq!(address(text).map(|a| a.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for text in ["5000", "collector:4318", "::1:4318", "1.2.3.4:70000", "1.2.3.4:"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
