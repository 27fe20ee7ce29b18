//! Between the types of the contract and ours: vectors move, columns are lent, numbers become what they stand for.
//!
//! What has no meaning here (a level, a kind or a signal that there is not) is an error with the number in it. Whether what
//! is said makes sense is for others to judge.

use crate::block::Signal;
use crate::otlp::columns::{Column, Field, Kind, Level, NumColumn, TextColumn};
use crate::otlp::edit::{NumEdits, Patch, TextEdits, Unset};
use crate::plugin::answers::{Answer, Decision, Decoded, Encoded, Rejected, Verdicts};
use crate::plugin::bindings::exports::millrace::plugin::{decoder, encoder, enricher, lifecycle, sampler};
use crate::plugin::bindings::millrace::plugin::types;
use crate::plugin::error::{MESSAGE_BYTES, clean};
use crate::plugin::generation::{Info, Setup};

/// The contract's number of a signal.
pub(super) fn signal(signal: Signal) -> u8 {
    match signal {
        Signal::Traces => 0,
        Signal::Logs => 1,
        Signal::Metrics => unreachable!("no plugin can ask for metrics"),
    }
}

pub(super) fn info(info: lifecycle::Info) -> Info {
    Info {
        name: clean(&info.name, MESSAGE_BYTES),
        version: clean(&info.version, MESSAGE_BYTES),
        description: clean(&info.description, MESSAGE_BYTES),
        config_schema: info.config_schema,
    }
}

pub(super) fn setup(setup: lifecycle::Setup) -> Result<Setup, String> {
    let signal = |number| match number {
        0 => Ok(Signal::Traces),
        1 => Ok(Signal::Logs),
        other => Err(format!("it wants signal {other}; there are 0 and 1")),
    };
    Ok(Setup {
        signals: setup.signals.into_iter().map(signal).collect::<Result<_, _>>()?,
        fields: setup.fields.into_iter().map(field).collect::<Result<_, _>>()?,
        max_rows: setup.max_rows,
        fail_closed: setup.fail_closed,
        hints: setup.hints,
    })
}

pub(super) fn column(column: &Column) -> types::ColumnParam<'_> {
    match column {
        Column::Text(TextColumn { rows, ends, bytes }) => {
            types::ColumnParam::Text(types::TextColumnParam { rows, ends, bytes })
        }
        Column::Num(NumColumn { rows, values }) => types::ColumnParam::Num(types::NumColumnParam { rows, values }),
    }
}

pub(super) fn answer(patch: types::Patch) -> Result<Answer, String> {
    let unset = patch.unset.into_iter().map(|unset| Unset { field: unset.field, rows: unset.rows }).collect();
    Ok(Answer {
        extra: fields(patch.extra)?,
        patch: Patch { drop: patch.drop, text: texts(patch.text), num: nums(patch.num), unset },
    })
}

pub(super) fn additions(additions: enricher::Additions) -> Result<Answer, String> {
    let patch = Patch { text: texts(additions.text), num: nums(additions.num), ..Patch::default() };
    Ok(Answer { extra: fields(additions.extra)?, patch })
}

pub(super) fn verdicts(verdicts: sampler::Verdicts, traces: u32) -> Result<Verdicts, String> {
    let decision = |number: u8| match number {
        0 => Ok(Decision::Drop),
        1 => Ok(Decision::Keep),
        2 => Ok(Decision::NotYet),
        3 => Ok(Decision::NoOpinion),
        other => Err(format!("its answer has the decision {other}; there are 0 to 3")),
    };
    let decisions: Vec<Decision> = verdicts.decisions.into_iter().map(decision).collect::<Result<_, _>>()?;
    let traces = traces as usize;
    if decisions.len() != traces || ![0, traces].contains(&verdicts.weights.len()) {
        let (decisions, weights) = (decisions.len(), verdicts.weights.len());
        return Err(format!("its answer to {traces} traces has {decisions} decisions and {weights} weights"));
    }
    match verdicts.weights.iter().find(|weight| !(weight.is_finite() && **weight >= 1.0)) {
        Some(weight) => Err(format!("its answer has the weight {weight}; a trace stands for itself at least")),
        None => Ok(Verdicts { decisions, weights: verdicts.weights }),
    }
}

pub(super) fn decoded(decoded: decoder::Decoded, chunk_bytes: usize) -> Result<Decoded, String> {
    let consumed = decoded.consumed as usize;
    if consumed > chunk_bytes {
        return Err(format!("its answer has used {consumed} bytes of {chunk_bytes}"));
    }
    let rejected =
        |rejected: decoder::Rejected| match rejected.first <= rejected.end && rejected.end <= decoded.consumed {
            true => Ok(Rejected {
                bytes: rejected.first as usize..rejected.end as usize,
                reason: clean(&rejected.reason, MESSAGE_BYTES),
            }),
            false => Err(format!("its answer rejects bytes {} to {} of {consumed}", rejected.first, rejected.end)),
        };
    Ok(Decoded {
        consumed,
        rows: decoded.rows,
        answer: Answer {
            extra: fields(decoded.extra)?,
            patch: Patch { text: texts(decoded.text), num: nums(decoded.num), ..Patch::default() },
        },
        filtered: decoded.filtered,
        rejected: decoded.rejected.into_iter().map(rejected).collect::<Result<_, _>>()?,
        reply: decoded.reply,
    })
}

pub(super) fn encoded(encoded: encoder::Encoded) -> Encoded {
    let encoder::Encoded { bytes, ends, rows, unencodable, content_type } = encoded;
    Encoded { bytes, ends, rows, unencodable, content_type }
}

fn texts(edits: Vec<types::TextEdits>) -> Vec<TextEdits> {
    let edits = edits.into_iter().map(|edits| {
        let types::TextColumnResult { rows, ends, bytes } = edits.cells;
        TextEdits { field: edits.field, cells: TextColumn { rows, ends, bytes } }
    });
    edits.collect()
}

fn nums(edits: Vec<types::NumEdits>) -> Vec<NumEdits> {
    let edits = edits.into_iter().map(|edits| {
        let types::NumColumnResult { rows, values } = edits.cells;
        NumEdits { field: edits.field, cells: NumColumn { rows, values } }
    });
    edits.collect()
}

fn fields(fields: Vec<types::Field>) -> Result<Vec<Field>, String> {
    fields.into_iter().map(field).collect()
}

fn field(field: types::Field) -> Result<Field, String> {
    let named = |what: &str, number: u8| format!("its field {:?} has the {what} {number}", clean(&field.key, 64));
    let level = Level::from_u8(field.level).ok_or_else(|| named("level", field.level))?;
    let kind = Kind::from_u8(field.kind).ok_or_else(|| named("kind", field.kind))?;
    Ok(Field { level, key: field.key, kind, read: field.read, write: field.write })
}
