//! Between the types of the contract and ours: vectors move, columns are lent, numbers become what they stand for.
//!
//! What has no meaning here (a level, a kind or a signal that there is not) is an error with the number in it. Whether what
//! is said makes sense is for others to judge.

use crate::block::Signal;
use crate::otlp::columns::{Column, Field, Kind, Level, NumColumn, TextColumn};
use crate::otlp::edit::{NumEdits, Patch, TextEdits, Unset};
use crate::plugin::bindings::exports::millrace::plugin::lifecycle;
use crate::plugin::bindings::millrace::plugin::types;
use crate::plugin::error::{MESSAGE_BYTES, clean};
use crate::plugin::generation::{Info, Setup};
use crate::plugin::instance::Answer;

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
    let extra = patch.extra.into_iter().map(field).collect::<Result<_, _>>()?;
    let text = |edits: types::TextEdits| {
        let types::TextColumnResult { rows, ends, bytes } = edits.cells;
        TextEdits { field: edits.field, cells: TextColumn { rows, ends, bytes } }
    };
    let num = |edits: types::NumEdits| {
        let types::NumColumnResult { rows, values } = edits.cells;
        NumEdits { field: edits.field, cells: NumColumn { rows, values } }
    };
    let patch = Patch {
        drop: patch.drop,
        text: patch.text.into_iter().map(text).collect(),
        num: patch.num.into_iter().map(num).collect(),
        unset: patch.unset.into_iter().map(|unset| Unset { field: unset.field, rows: unset.rows }).collect(),
    };
    Ok(Answer { extra, patch })
}

fn field(field: types::Field) -> Result<Field, String> {
    let named = |what: &str, number: u8| format!("its field {:?} has the {what} {number}", clean(&field.key, 64));
    let level = Level::from_u8(field.level).ok_or_else(|| named("level", field.level))?;
    let kind = Kind::from_u8(field.kind).ok_or_else(|| named("kind", field.kind))?;
    Ok(Field { level, key: field.key, kind, read: field.read, write: field.write })
}
