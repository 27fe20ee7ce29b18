//! The rows of a batch, visited once and in order.
//!
//! Resources and scopes come in runs of rows; a field of a resource keeps its value while the run lasts. In worlds whose rows
//! are not records (traces, distinct values) each row is a run of its own.

use crate::bindings::types::{Column, Groups};
use crate::cell::Edits;
use crate::fields::Fields;
use crate::plugin::Signal;

/// A batch, one row at a time: [`Rows::advance`] moves `fields` to the next row.
#[derive(Debug)]
pub struct Rows<'b, R> {
    /// The fields of the current row.
    pub fields: R,
    /// What the rows are.
    pub signal: Signal,
    len: u32,
    next: u32,
    resources: Runs<'b>,
    scopes: Runs<'b>,
}

/// What the host gives of a batch.
#[derive(Debug)]
pub struct Given {
    /// What the rows are.
    pub signal: Signal,
    /// How many there are.
    pub rows: u32,
    /// Which belong together.
    pub groups: Groups,
    /// The columns of the fields that are read.
    pub columns: Vec<Column>,
}

/// Which row this is, and which runs begin with it.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The row, from 0.
    pub row: u32,
    /// Its resource, counted from 0 in the batch.
    pub resource: u32,
    /// Its scope, counted from 0 in the batch.
    pub scope: u32,
    /// It is the first row of its resource.
    pub begins_resource: bool,
    /// It is the first row of its scope.
    pub begins_scope: bool,
}

impl<'b, R: Fields<'b>> Rows<'b, R> {
    /// The rows that these columns describe; without groups each row is one.
    ///
    /// # Errors
    /// When the columns are not those of `R`'s fields.
    pub(crate) fn open(
        signal: Signal,
        len: u32,
        groups: Option<&'b Groups>,
        columns: &'b [Column],
    ) -> Result<Self, String> {
        let fields = R::open(&mut columns.iter())?;
        let resources = Runs::new(groups.map(|groups| &groups.resources[..]));
        let scopes = Runs::new(groups.map(|groups| &groups.scopes[..]));
        Ok(Self { fields, signal, len, next: 0, resources, scopes })
    }

    /// Rows of the batch, whatever was visited already.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// A batch without rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves to the next row; `None` after the last.
    #[inline(always)]
    pub fn advance(&mut self) -> Option<At> {
        if self.next == self.len {
            return None;
        }
        let row = self.next;
        self.next += 1;
        let begins_resource = self.resources.begin(row);
        let begins_scope = self.scopes.begin(row);
        let (resource, scope) = (self.resources.current, self.scopes.current);
        let at = At { row, resource, scope, begins_resource, begins_scope };
        self.fields.seek(&at);
        Some(at)
    }

    pub(crate) fn finish(self) -> Edits {
        let mut edits = Edits::default();
        self.fields.finish(&mut edits);
        edits
    }
}

/// Rows that belong together, as the first rows of the runs.
#[derive(Debug)]
struct Runs<'b> {
    /// `None`: each row is a run.
    starts: Option<&'b [u32]>,
    /// Runs begun so far.
    begun: usize,
    current: u32,
}

impl<'b> Runs<'b> {
    fn new(starts: Option<&'b [u32]>) -> Self {
        Self { starts, begun: 0, current: 0 }
    }

    /// Whether a run begins with this row; if so it is the current one.
    #[inline(always)]
    fn begin(&mut self, row: u32) -> bool {
        match self.starts {
            None => {
                self.current = row;
                true
            }
            Some(starts) if starts.get(self.begun) == Some(&row) => {
                // The rows are counted in 32 bits, and there are no more runs than rows.
                self.current = u32::try_from(self.begun).unwrap_or(u32::MAX);
                self.begun += 1;
                true
            }
            Some(_) => false,
        }
    }
}
