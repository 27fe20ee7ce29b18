//! Columns out of a test's batch, and a patch into it: the rules of `wit/types.wit`.
//!
//! Like the host, this checks a patch whole before it applies any of it. Unlike the host it is written to be short.

use std::collections::BTreeSet;

use super::{Batch, Value};
use crate::bindings::types::{self, Column, NumColumn, Patch, TextColumn};
use crate::fields::{Field, Level};

/// The columns of the fields that are read.
pub(super) fn gather(batch: &Batch, fields: &[Field], has_groups: bool) -> Vec<Column> {
    fields.iter().filter(|field| field.read).map(|field| column(batch, field, has_groups)).collect()
}

/// The rows that have a cell of their own.
fn starts(batch: &Batch, level: Level, has_groups: bool) -> Vec<u32> {
    if has_groups { batch.starts(level) } else { (0..batch.count()).collect() }
}

fn column(batch: &Batch, field: &Field, has_groups: bool) -> Column {
    let starts = starts(batch, field.level, has_groups);
    let is_number = matches!(field.kind, 1..=3);
    let (mut rows, mut numbers, mut ends, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &row in &starts {
        let Some(value) = batch.get(row as usize, field.level, field.key) else { continue };
        if is_number {
            let Some(number) = number(value, field.kind) else { continue };
            numbers.push(number);
        } else {
            let Some(cell) = cell(value, field.kind) else { continue };
            bytes.extend_from_slice(&cell);
            ends.push(u32::try_from(bytes.len()).expect("a test has fewer bytes"));
        }
        rows.push(row);
    }
    // Every row has its cell: the host leaves the list out.
    if rows == starts {
        rows.clear();
    }
    match is_number {
        true => Column::Num(NumColumn { rows, values: numbers }),
        false => Column::Text(TextColumn { rows, ends, bytes }),
    }
}

fn number(value: &Value, kind: u8) -> Option<i64> {
    match (value, kind) {
        (Value::Integer(number), 1) => Some(*number),
        (Value::Float(number), 2) => Some(number.to_bits().cast_signed()),
        #[allow(clippy::cast_precision_loss, reason = "an integer read as a floating point number is the nearest one")]
        (Value::Integer(number), 2) => Some((*number as f64).to_bits().cast_signed()),
        (Value::Boolean(is), 3) => Some(i64::from(*is)),
        _ => None,
    }
}

fn cell(value: &Value, kind: u8) -> Option<Vec<u8>> {
    match (value, kind) {
        (Value::Text(text), 0 | 4) => Some(text.clone().into_bytes()),
        (Value::Bytes(bytes), 4) => Some(bytes.clone()),
        (Value::Text(text), 6) => Some(text.clone().into_bytes()),
        (value, 5 | 6) => Some(json(value).into_bytes()),
        _ => None,
    }
}

fn json(value: &Value) -> String {
    match value {
        Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(is) => is.to_string(),
        Value::Bytes(bytes) => serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string(),
        Value::Json(text) => text.clone(),
    }
}

/// A column of what was not declared: text as it is, the rest as JSON.
pub(super) fn all_text(batch: &Batch, level: Level, key: &str) -> TextColumn {
    let mut column = TextColumn { rows: Vec::new(), ends: Vec::new(), bytes: Vec::new() };
    for row in batch.starts(level) {
        let Some(value) = batch.get(row as usize, level, key) else { continue };
        column.bytes.extend(cell(value, 6).unwrap_or_default());
        column.ends.push(u32::try_from(column.bytes.len()).expect("a test has fewer bytes"));
        column.rows.push(row);
    }
    column
}

/// A batch with a patch applied.
///
/// # Errors
/// Why the host would refuse the patch.
pub(super) fn apply(batch: &Batch, fields: &[Field], has_groups: bool, patch: &Patch) -> Result<Batch, String> {
    let mut after = batch.clone();
    let mut seen = BTreeSet::new();
    ascending(&patch.drop, &(0..batch.count()).collect::<Vec<_>>())?;
    let declared = fields.iter().map(Field::declared);
    let fields: Vec<types::Field> = declared.chain(patch.extra.iter().cloned()).collect();
    let mut place = |number: u16, rows: &[u32]| {
        let field = fields.get(usize::from(number)).ok_or(format!("there is no field {number}"))?;
        if !field.write {
            return Err(format!("{} is not written", field.key));
        }
        ascending(rows, &starts(batch, level(field), has_groups))?;
        match rows.iter().find(|&&row| !seen.insert((number, row))) {
            Some(row) => Err(format!("{} of row {row} is edited twice", field.key)),
            None => Ok(field),
        }
    };
    for edits in &patch.text {
        let field = place(edits.field, &edits.cells.rows)?;
        let mut start = 0;
        for (&row, &end) in edits.cells.rows.iter().zip(&edits.cells.ends) {
            let bytes = edits.cells.bytes.get(start..end as usize).ok_or("a cell ends outside the bytes")?;
            start = end as usize;
            let value = wide(field, bytes)?;
            after.values_mut(row as usize, level(field)).insert(field.key.clone(), value);
        }
        if start != edits.cells.bytes.len() || edits.cells.rows.len() != edits.cells.ends.len() {
            return Err(format!("the cells of {} are not as many as the rows", field.key));
        }
    }
    for edits in &patch.num {
        let field = place(edits.field, &edits.cells.rows)?;
        for (&row, &bits) in edits.cells.rows.iter().zip(&edits.cells.values) {
            let value = fixed(field, bits)?;
            after.values_mut(row as usize, level(field)).insert(field.key.clone(), value);
        }
    }
    for unset in &patch.unset {
        let field = place(unset.field, &unset.rows)?;
        for &row in &unset.rows {
            after.values_mut(row as usize, level(field)).remove(&field.key);
        }
    }
    Ok(after)
}

fn level(field: &types::Field) -> Level {
    [Level::Record, Level::Resource, Level::Scope, Level::Intrinsic][usize::from(field.level)]
}

fn ascending(rows: &[u32], allowed: &[u32]) -> Result<(), String> {
    if !rows.is_sorted_by(|before, after| before < after) {
        return Err(format!("rows are not ascending: {rows:?}"));
    }
    match rows.iter().find(|row| allowed.binary_search(row).is_err()) {
        Some(row) => Err(format!("row {row} has no cell of its own; there are {allowed:?}")),
        None => Ok(()),
    }
}

fn wide(field: &types::Field, bytes: &[u8]) -> Result<Value, String> {
    let text = || String::from_utf8(bytes.to_vec()).map_err(|error| format!("{}: {error}", field.key));
    match field.kind {
        0 | 6 => Ok(Value::Text(text()?)),
        4 => Ok(Value::Bytes(bytes.to_vec())),
        5 => match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) => Ok(Value::Json(text()?)),
            Err(error) => Err(format!("{}: {error}", field.key)),
        },
        kind => Err(format!("{} has kind {kind} and no text", field.key)),
    }
}

fn fixed(field: &types::Field, bits: i64) -> Result<Value, String> {
    match (field.kind, bits) {
        (1, number) => Ok(Value::Integer(number)),
        (2, bits) => Ok(Value::Float(f64::from_bits(bits.cast_unsigned()))),
        (3, 0 | 1) => Ok(Value::Boolean(bits == 1)),
        (kind, bits) => Err(format!("{} has kind {kind}, which {bits} is not", field.key)),
    }
}
