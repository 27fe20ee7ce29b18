//! uberAgent's records and how they become spans.
//!
//! One record (a JSON object, or a line of Splunk CSV under its `***SPLUNK***` header) becomes exactly one item of OTLP,
//! encoded straight to protobuf bytes in an open block: there is no tree of structs in between. The field table drives
//! reading, encoding and the documentation in `README.md`. Nothing here does I/O or reads a clock.

mod attributes;
mod blocks;
mod csv;
mod encoder;
mod fields;
mod guid;
mod ids;
mod log;
mod marks;
mod names;
mod numbers;
mod original;
mod parents;
mod reference;
mod row;
mod rules;
mod scan;
mod session;
mod sourcetypes;
mod span;
mod tape;
mod times;

pub use csv::CsvHeader;
pub use encoder::Encoder;
pub use reference::reference;
pub use sourcetypes::Sourcetype;

/// Labels of the reasons why a row became no span.
pub mod reason {
    /// Not JSON.
    pub const INVALID_JSON: &str = "invalid_json";
    /// JSON, but no object: an array, a number, a text.
    pub const NOT_AN_OBJECT: &str = "not_an_object";
    /// Not a line of Splunk CSV: it does not begin with a time.
    pub const INVALID_CSV: &str = "invalid_csv";
    /// Splunk CSV of a sourcetype whose columns are not published.
    pub const COLUMNS_UNKNOWN: &str = "columns_unknown";
    /// A Splunk HTTP event collector envelope at a door for rows.
    pub const HEC_ENVELOPE: &str = "hec_envelope";
    /// A row of a session without session GUID.
    pub const SESSION_GUID_MISSING: &str = "session_guid_missing";
    /// A row of a session whose GUID is not 32 hexadecimal digits: no such text gets into an id.
    pub const SESSION_GUID_INVALID: &str = "session_guid_invalid";
    /// Longer than any row.
    pub const TOO_LONG: &str = "too_long";
}

/// What the transport said beside the row; the row's own fields win.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The sending host.
    pub host: Option<&'a str>,
    /// The row's sourcetype, as in `uberAgent:Process:LogonProcesses`.
    pub sourcetype: Option<&'a str>,
}

/// What became of one row. Each is booked on the front balance as one record, but `Blank`, which is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It became exactly one item of a block.
    Encoded {
        /// Fields that had to be left out: unknown ones, and values that are not what the field holds.
        fields_dropped: u32,
    },
    /// Understood and not wanted.
    Filtered(Sourcetype),
    /// Not usable; the label of the reason, one of a small fixed set.
    DeadLetter(&'static str),
    /// An empty line, white space, or an Elasticsearch action line: no record.
    Blank,
}

#[cfg(test)]
mod tests;
