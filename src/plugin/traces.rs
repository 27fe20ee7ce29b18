//! What a sampler's rows are made of: it declares fields of traces, spans are what there is to gather.
//!
//! Of the fields that it declares, three are of a trace as a whole ([`OfTrace`]); the others are those of one of its spans.
//! Which span that is, and which trace a span belongs to, is told by fields that are gathered for every sampler
//! ([`ALWAYS`]).

use crate::otlp::columns::{Field, Kind, Level};

/// A number that a trace has and a span has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfTrace {
    /// How many spans.
    Spans,
    /// How many of them failed.
    Errors,
    /// Nanoseconds from the earliest start to the latest end.
    Duration,
}

impl OfTrace {
    /// The number that a field asks for; `None` if it asks for something of a span.
    #[must_use]
    pub fn of(field: &Field) -> Option<OfTrace> {
        match (field.level, field.key.as_str()) {
            (Level::Intrinsic, "spans") => Some(OfTrace::Spans),
            (Level::Intrinsic, "errors") => Some(OfTrace::Errors),
            (Level::Intrinsic, "trace-duration") => Some(OfTrace::Duration),
            _ => None,
        }
    }
}

/// Intrinsics whose columns come behind those that a sampler declares, in this order.
pub const ALWAYS: [(&str, Kind); 5] = [
    ("trace-id", Kind::Bytes),
    ("parent-span-id", Kind::Bytes),
    ("start", Kind::Integer),
    ("end", Kind::Integer),
    ("status", Kind::Integer),
];

/// The fields to gather from spans for a sampler that declares `fields`; an error says which of them it cannot have.
pub(super) fn gathered(fields: &[Field]) -> Result<Vec<Field>, String> {
    if let Some(field) = fields.iter().find(|field| field.write || !field.read) {
        return Err(format!("a sampler only reads: {:?} cannot be written", field.key));
    }
    let is_of_trace = |field: &&Field| OfTrace::of(field).is_some();
    if let Some(field) = fields.iter().filter(is_of_trace).find(|field| field.kind != Kind::Integer) {
        return Err(format!("{:?} of a trace is an integer, not {:?}", field.key, field.kind));
    }
    let of_spans = fields.iter().filter(|field| !is_of_trace(field)).cloned();
    let always = ALWAYS.map(|(key, kind)| Field {
        level: Level::Intrinsic,
        key: key.to_owned(),
        kind,
        read: true,
        write: false,
    });
    Ok(of_spans.chain(always).collect())
}
