//! Which rows of a block are meant by a service or a sourcetype: what a plugin is shown, or somebody who listens.
//!
//! A filter without either means all rows and costs nothing. Otherwise the two values are gathered like any field: what
//! does not match never enters a plugin's sandbox.

use crate::block::Signal;
use crate::otlp::columns::{Column, Columns, Field, Kind, Level, Selection, TextColumn};

/// See the module.
pub struct Rows {
    services: Vec<String>,
    sourcetypes: Vec<String>,
    selections: [Option<Selection>; 2],
    columns: Columns,
    shown: Vec<u32>,
}

impl Rows {
    /// The rows of one of these services, if there are any, and of one of these sourcetypes.
    #[must_use]
    pub fn new(services: &[String], sourcetypes: &[String]) -> Rows {
        let field = |level, key: &str| Field { level, key: key.to_owned(), kind: Kind::Text, read: true, write: false };
        let fields = vec![field(Level::Resource, "service.name"), field(Level::Intrinsic, "sourcetype")];
        let filters = !services.is_empty() || !sourcetypes.is_empty();
        let selection =
            |signal| filters.then(|| Selection::new(signal, fields.clone()).expect("both signals have these fields"));
        Rows {
            services: services.to_vec(),
            sourcetypes: sourcetypes.to_vec(),
            selections: [selection(Signal::Traces), selection(Signal::Logs)],
            columns: Columns::default(),
            shown: Vec::new(),
        }
    }

    /// The rows that are meant, ascending; `None` for all of them.
    pub fn shown(&mut self, signal: Signal, payload: &[u8]) -> Option<&[u32]> {
        let selection = match signal {
            Signal::Traces => self.selections[0].as_ref()?,
            Signal::Logs => self.selections[1].as_ref()?,
            Signal::Metrics => return None,
        };
        selection.gather(payload, &mut self.columns);
        let [Column::Text(services), Column::Text(sourcetypes)] = self.columns.columns() else {
            unreachable!("both fields are text")
        };
        let (rows, groups) = (self.columns.rows(), self.columns.resources());
        self.shown.clear();
        let mut group = 0;
        for row in 0..rows {
            while group + 1 < groups.len() && groups[group + 1] <= row {
                group += 1;
            }
            // The cell of a resource stands at its first row, or in its place where every resource has one.
            let service = cell(services, groups[group], group);
            let sourcetype = cell(sourcetypes, row, row as usize);
            if matches(&self.services, service) && matches(&self.sourcetypes, sourcetype) {
                self.shown.push(row);
            }
        }
        (self.shown.len() < rows as usize).then_some(&self.shown[..])
    }
}

fn matches(wanted: &[String], value: Option<&[u8]>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|wanted| wanted.as_bytes() == value))
}

/// The cell of a row, which is the one at `index` of a column that has all of them.
fn cell(column: &TextColumn, row: u32, index: usize) -> Option<&[u8]> {
    let index = match column.rows.is_empty() {
        true => index,
        false => column.rows.binary_search(&row).ok()?,
    };
    let end = *column.ends.get(index)? as usize;
    let start = if index == 0 { 0 } else { column.ends[index - 1] as usize };
    column.bytes.get(start..end)
}
