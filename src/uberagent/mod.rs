//! uberAgent's records and how they become spans.
//!
//! One record (a JSON object, or a line of Splunk CSV under its `***SPLUNK***` header) becomes exactly one item of OTLP,
//! encoded straight to protobuf bytes in an open block: there is no tree of structs in between. The field table drives
//! reading, encoding and the documentation in `README.md`. Nothing here does I/O or reads a clock.

mod csv;
mod encoder;
mod table;

pub use csv::CsvHeader;
pub use encoder::Encoder;
pub use table::Sourcetype;

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
