//! Tells apart what peers send, by what is seen: the wrong protocols by a connection's first bytes, formats line by line.
//!
//! Wrong protocols are likely misconfigurations (a `_bulk` sender, TLS, Fluent Bit's default format) that have no line
//! ends to wait for, so they are recognised before framing, by as few bytes as possible. Everything that could be a line
//! is treated as one; the encoder has the last word on it. Pure functions over bytes.

/// First bytes of a connection that are enough to tell.
pub const SNIFF_BYTES: usize = 12;

/// Something that is not lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongProtocol {
    /// An HTTP request.
    Http,
    /// The preface of HTTP/2: gRPC, most likely.
    Http2,
    /// A TLS ClientHello.
    Tls,
    /// MessagePack, the default of Fluent Bit's `tcp` output.
    Msgpack,
    /// A gzip stream.
    Gzip,
    /// A zstd stream.
    Zstd,
    /// The PROXY protocol, version 1.
    ProxyV1,
    /// The PROXY protocol, version 2.
    ProxyV2,
}

/// Every wrong protocol that is recognised.
pub const WRONG_PROTOCOLS: [WrongProtocol; 8] = [
    WrongProtocol::Http,
    WrongProtocol::Http2,
    WrongProtocol::Tls,
    WrongProtocol::Msgpack,
    WrongProtocol::Gzip,
    WrongProtocol::Zstd,
    WrongProtocol::ProxyV1,
    WrongProtocol::ProxyV2,
];

impl WrongProtocol {
    /// The protocol as a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            WrongProtocol::Http => "http",
            WrongProtocol::Http2 => "http2",
            WrongProtocol::Tls => "tls",
            WrongProtocol::Msgpack => "msgpack",
            WrongProtocol::Gzip => "gzip",
            WrongProtocol::Zstd => "zstd",
            WrongProtocol::ProxyV1 => "proxy_v1",
            WrongProtocol::ProxyV2 => "proxy_v2",
        }
    }

    /// What its sender should do instead.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            WrongProtocol::Http => "send HTTP to an elasticsearch or otlp receiver; this port takes lines",
            WrongProtocol::Http2 => "send gRPC and HTTP/2 elsewhere; this port takes lines, without TLS or HTTP",
            WrongProtocol::Tls => "end TLS in front of this port, or send without it",
            WrongProtocol::Msgpack => "set `Format json_lines` in Fluent Bit's tcp output",
            WrongProtocol::Gzip | WrongProtocol::Zstd => "send uncompressed lines",
            WrongProtocol::ProxyV1 | WrongProtocol::ProxyV2 => "switch the PROXY protocol off in the load balancer",
        }
    }
}

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniff {
    /// They could still become a wrong protocol.
    NeedMore,
    /// Lines.
    Lines,
    /// Not lines.
    Wrong(WrongProtocol),
}

const HTTP_METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE "];

/// Judges the first bytes of a connection; decides for every slice of [`SNIFF_BYTES`] or more.
pub fn sniff(first: &[u8]) -> Sniff {
    // No line in any of the formats begins with these: they are UTF-8 continuation bytes, and MessagePack's small
    // maps and arrays. Fluent Bit sends an array of time and record.
    if let Some(0x80..=0x9f) = first.first() {
        return Sniff::Wrong(WrongProtocol::Msgpack);
    }
    let signatures: [(&[u8], WrongProtocol); 7] = [
        // A handshake record of TLS 1.x; SSL 3.0 has the same two bytes.
        (b"\x16\x03", WrongProtocol::Tls),
        // RFC 1952, and the one compression method that it knows.
        (b"\x1f\x8b\x08", WrongProtocol::Gzip),
        (b"\x28\xb5\x2f\xfd", WrongProtocol::Zstd),
        (b"PRI * HTTP/2", WrongProtocol::Http2),
        (b"PROXY TCP", WrongProtocol::ProxyV1),
        (b"PROXY UNKNOW", WrongProtocol::ProxyV1),
        (b"\r\n\r\n\0\r\nQUIT\n", WrongProtocol::ProxyV2),
    ];
    let methods = HTTP_METHODS.into_iter().map(|method| (method, WrongProtocol::Http));
    let mut undecided = first.is_empty();
    for (signature, protocol) in signatures.into_iter().chain(methods) {
        if first.starts_with(signature) {
            return Sniff::Wrong(protocol);
        }
        undecided |= signature.starts_with(first);
    }
    if undecided { Sniff::NeedMore } else { Sniff::Lines }
}

/// What one line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing but white space.
    Blank,
    /// A JSON object: a row, an Elasticsearch action, an envelope.
    Object,
    /// A Splunk header line.
    SplunkHeader,
    /// A row of Splunk CSV: it begins with a time in epoch milliseconds.
    Csv,
    /// Something else.
    Text,
}

/// Digits of a time in epoch milliseconds, from 2001 to 2286.
const EPOCH_MS_DIGITS: usize = 13;

/// Looks at one line without its line end.
pub fn shape(line: &[u8]) -> Shape {
    let line = line.trim_ascii_start();
    match line.first() {
        None => Shape::Blank,
        Some(b'{') => Shape::Object,
        Some(b'*') if line.starts_with(b"***SPLUNK***") => Shape::SplunkHeader,
        Some(b'0'..=b'9') if is_csv(line) => Shape::Csv,
        Some(_) => Shape::Text,
    }
}

fn is_csv(line: &[u8]) -> bool {
    line.len() > EPOCH_MS_DIGITS
        && line[..EPOCH_MS_DIGITS].iter().all(u8::is_ascii_digit)
        && line[EPOCH_MS_DIGITS] == b','
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: [(&[u8], WrongProtocol); 11] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", WrongProtocol::Http),
        (b"POST /uberagent/_bulk HTTP/1.1\r\n", WrongProtocol::Http),
        (b"PUT /_template/uberagent HTTP/1.1\r\n", WrongProtocol::Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", WrongProtocol::Http2),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 ", WrongProtocol::Tls),
        (b"\x92\xd7\x00\x68\x20\x9c\x40\x21\x8c\x4e\x80\x81\xa1a\x01", WrongProtocol::Msgpack),
        (b"\x92\x92\xd7\x00\x68\x20\x9c\x40\x21\x8c\x4e\x80\x80\x81", WrongProtocol::Msgpack),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56", WrongProtocol::Gzip),
        (b"\x28\xb5\x2f\xfd\x04\x58\x00\x00\x00\x00\x00\x00", WrongProtocol::Zstd),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", WrongProtocol::ProxyV1),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", WrongProtocol::ProxyV2),
    ];

    #[test]
    fn a_wrong_protocol_is_named_however_its_bytes_are_cut() {
        for (bytes, protocol) in WRONG {
            let decided = (1..=bytes.len()).map(|end| sniff(&bytes[..end])).find(|sniff| *sniff != Sniff::NeedMore);
            assert_eq!(decided, Some(Sniff::Wrong(protocol)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn lines_are_lines_even_when_they_begin_like_something_else() {
        let lines: [&[u8]; 10] = [
            b"{\"date\":1}",
            b"***SPLUNK*** host=a",
            b"1747033126563,smss.exe",
            b" \t{}",
            b"\xef\xbb\xbf{}",
            b"\r\n\r\n{\"date\":1}",
            b"GETTING STARTED",
            b"PROXY settings",
            b"PRI * HTML is nothing",
            b"<34>Oct 11 22:14:15",
        ];
        for bytes in lines {
            assert_eq!(sniff(bytes), Sniff::Lines, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn as_many_bytes_as_promised_are_always_enough() {
        assert_eq!(sniff(b""), Sniff::NeedMore);
        let mut starts: Vec<[u8; SNIFF_BYTES]> =
            WRONG.map(|(bytes, _)| bytes[..SNIFF_BYTES].try_into().unwrap()).into();
        for at in 0..SNIFF_BYTES {
            let mut changed = WRONG.map(|(bytes, _)| <[u8; SNIFF_BYTES]>::try_from(&bytes[..SNIFF_BYTES]).unwrap());
            changed.iter_mut().for_each(|start| start[at] ^= 0x20);
            starts.extend(changed);
        }
        for start in starts {
            assert_ne!(sniff(&start), Sniff::NeedMore, "{}", start.escape_ascii());
        }
    }

    #[test]
    fn labels_and_remedies_are_distinct_and_there() {
        let mut labels = WRONG_PROTOCOLS.map(WrongProtocol::label);
        labels.sort_unstable();
        assert!(labels.is_sorted_by(|a, b| a < b));
        assert!(WRONG_PROTOCOLS.iter().all(|protocol| !protocol.remedy().is_empty()));
    }

    #[test]
    fn lines_are_told_apart_by_their_beginning() {
        let cases: [(&[u8], Shape); 11] = [
            (b"", Shape::Blank),
            (b" \t ", Shape::Blank),
            (b"{\"date\":1}", Shape::Object),
            (b"  {\"create\":{}}", Shape::Object),
            (b"{}", Shape::Object),
            (b"{", Shape::Object),
            (b"{\"time\":1,\"event\":\"1,2\"}", Shape::Object),
            (b"***SPLUNK*** host=a", Shape::SplunkHeader),
            (b"1747033126563,smss.exe", Shape::Csv),
            (b"174703312656,smss.exe", Shape::Text),
            (b"[1]", Shape::Text),
        ];
        for (line, expected) in cases {
            assert_eq!(shape(line), expected, "{}", line.escape_ascii());
        }
    }
}
