//! Cells of gathered columns by row, and columns made of a choice of rows.
//!
//! A column names its rows in one of several ways, and one of a resource or scope has a cell a group. Here every row has a
//! cell or none, so that whoever works on rows need not know.

use crate::otlp::columns::{Column, Columns, Level, NumColumn, TextColumn};

/// No cell.
const NONE: u32 = u32::MAX;

/// For one column, which of its cells each row has.
#[derive(Debug, Default)]
pub(super) struct Cells(Vec<u32>);

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Text(&'a [u8]),
    Num(i64),
}

impl Cells {
    /// Looks up the cells of a column, which is of a field of this level.
    pub(super) fn find(&mut self, column: &Column, level: Level, columns: &Columns) {
        let rows = columns.rows() as usize;
        self.0.clear();
        self.0.resize(rows, NONE);
        let (named, cells) = match column {
            Column::Text(text) => (&text.rows, text.ends.len()),
            Column::Num(num) => (&num.rows, num.values.len()),
        };
        let groups = match level {
            Level::Record | Level::Intrinsic => None,
            Level::Resource => Some(columns.resources()),
            Level::Scope => Some(columns.scopes()),
        };
        for cell in 0..cells {
            let first = match (named.get(cell), groups) {
                (Some(&row), _) => row,
                (None, Some(groups)) => groups[cell],
                (None, None) => number(cell),
            };
            let end = match groups {
                None => first + 1,
                Some(groups) => {
                    let next = groups.partition_point(|group| *group <= first);
                    groups.get(next).copied().unwrap_or(columns.rows())
                }
            };
            self.0[first as usize..end as usize].fill(number(cell));
        }
    }

    /// The cell of a row.
    pub(super) fn of<'a>(&self, column: &'a Column, row: u32) -> Option<Cell<'a>> {
        let cell = self.0[row as usize];
        if cell == NONE {
            return None;
        }
        let cell = cell as usize;
        Some(match column {
            Column::Num(num) => Cell::Num(num.values[cell]),
            Column::Text(text) => Cell::Text(text_cell(text, cell)),
        })
    }

    /// A column of the cells of these rows, which are numbered anew.
    pub(super) fn choose(&self, column: &Column, rows: &[u32]) -> Column {
        let mut chosen = match column {
            Column::Text(_) => Column::Text(TextColumn::default()),
            Column::Num(_) => Column::Num(NumColumn::default()),
        };
        for (position, row) in rows.iter().enumerate() {
            match (self.of(column, *row), &mut chosen) {
                (Some(Cell::Text(value)), Column::Text(text)) => push_text(text, number(position), value),
                (Some(Cell::Num(value)), Column::Num(num)) => push_num(num, number(position), value),
                _ => {}
            }
        }
        chosen
    }
}

/// The cell at `index` of a text column.
pub(super) fn text_cell(text: &TextColumn, index: usize) -> &[u8] {
    let start = index.checked_sub(1).map_or(0, |before| text.ends[before] as usize);
    &text.bytes[start..text.ends[index] as usize]
}

pub(super) fn push_text(text: &mut TextColumn, row: u32, value: &[u8]) {
    text.rows.push(row);
    text.bytes.extend_from_slice(value);
    text.ends.push(number(text.bytes.len()));
}

pub(super) fn push_num(num: &mut NumColumn, row: u32, value: i64) {
    num.rows.push(row);
    num.values.push(value);
}

/// Rows, cells and bytes of a block are counted in 32 bits.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a block is far smaller")
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, TracesData};
    use prost::Message;

    use super::super::enrich::tests::resource;
    use super::*;
    use crate::block::Signal;
    use crate::otlp::columns::{Field, Kind, Selection};

    #[test]
    fn every_row_has_its_cell_or_its_groups() {
        let named = |name: &str| Span { name: name.to_owned(), ..Span::default() };
        let unnamed = |spans| ResourceSpans { resource: None, ..resource("", spans) };
        for (second, services) in [
            (resource("b", vec![named("z")]), ["a", "a", "b", "c"].map(Some)),
            (unnamed(vec![named("z")]), [Some("a"), Some("a"), None, Some("c")]),
        ] {
            let resources = vec![resource("a", vec![named("x"), named("")]), second, resource("c", vec![named("x")])];
            let payload = TracesData { resource_spans: resources }.encode_to_vec();
            let field =
                |level, key: &str| Field { level, key: key.to_owned(), kind: Kind::Text, read: true, write: false };
            let fields = vec![field(Level::Resource, "service.name"), field(Level::Intrinsic, "name")];
            let (mut columns, mut cells) = (Columns::default(), Cells::default());
            Selection::new(Signal::Traces, fields).unwrap().gather(&payload, &mut columns);
            for (index, level, expected) in
                [(0, Level::Resource, services), (1, Level::Intrinsic, [Some("x"), None, Some("z"), Some("x")])]
            {
                let column = &columns.columns()[index];
                cells.find(column, level, &columns);
                for (row, expected) in (0..).zip(expected) {
                    assert_eq!(
                        cells.of(column, row),
                        expected.map(|text| Cell::Text(text.as_bytes())),
                        "{index} {row}"
                    );
                }
                let chosen = cells.choose(column, &[3, 2]);
                let Column::Text(text) = &chosen else { panic!("{chosen:?}") };
                let expected: Vec<&str> = [expected[3], expected[2]].into_iter().flatten().collect();
                assert_eq!((text.rows.len(), &text.bytes[..]), (expected.len(), expected.concat().as_bytes()));
            }
        }
    }
}
