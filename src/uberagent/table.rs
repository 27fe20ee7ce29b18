//! The field table.

/// uberAgent's kinds of rows, as far as they are told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sourcetype {
    /// A sourcetype that makes no span, or none at all.
    Other,
}
