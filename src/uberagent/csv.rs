//! Splunk's raw TCP format: a header line, then lines of CSV without field names.

/// The `***SPLUNK***` line in front of rows: where they come from and what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvHeader {
    host: String,
    sourcetype: String,
}

impl CsvHeader {
    /// Reads a header line; `None` when it is none.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<CsvHeader> {
        let rest = line.strip_prefix(b"***SPLUNK***")?;
        let text = String::from_utf8_lossy(rest);
        let value = |name: &str| text.split_whitespace().find_map(|pair| pair.strip_prefix(name)).unwrap_or("");
        Some(CsvHeader { host: value("host=").to_owned(), sourcetype: value("sourcetype=").to_owned() })
    }
}
