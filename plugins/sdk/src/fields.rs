//! The fields of a row, as a struct: what `#[derive(Fields)]` implements.
//!
//! The list that the host gets and the struct that the plugin sees come from the same lines, so their order cannot differ.
//! What a world does not allow to be written is refused when the plugin is compiled.

use std::slice::Iter;

use crate::bindings::types::{self, Column};
use crate::cell::Edits;
use crate::rows::At;

/// Where a field is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// An attribute of the span or log record.
    Record = 0,
    /// An attribute of its resource.
    Resource = 1,
    /// An attribute of its scope.
    Scope = 2,
    /// Not an attribute: "name", "start", "duration" and so on; the interface lists them.
    Intrinsic = 3,
}

/// One field, as it is declared to the host.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Where it is.
    pub level: Level,
    /// The attribute's key or the intrinsic's name.
    pub key: &'static str,
    /// The kind's number in the interface.
    pub kind: u8,
    /// The host gives its values.
    pub read: bool,
    /// It may be edited.
    pub write: bool,
}

impl Field {
    /// The field in the interface's own type.
    #[must_use]
    pub fn declared(&self) -> types::Field {
        types::Field {
            level: self.level as u8,
            key: self.key.to_owned(),
            kind: self.kind,
            read: self.read,
            write: self.write,
        }
    }
}

/// A struct whose fields are [`Text`](crate::Text), [`Integer`](crate::Integer) and so on. Derive it:
///
/// ```
/// # use millrace_plugin::prelude::*;
/// #[derive(Fields)]
/// struct Request<'b> {
///     #[field("url.full")]                // an attribute, read and written
///     url: Text<'b, Edit>,
///     #[field("department")]              // written only: the host does not gather it
///     department: Text<'b, Write>,
///     #[field(resource, "host.name")]     // of the resource; also: scope, intrinsic
///     host: Text<'b>,
///     #[field(intrinsic, "duration")]
///     duration_ns: Integer<'b>,
/// }
/// ```
///
/// What cannot be is refused by the compiler: to set a field that is only read,
///
/// ```compile_fail,E0599
/// # use millrace_plugin::prelude::*;
/// fn set(url: &mut Text<'_>) {
///     url.set("x");
/// }
/// ```
///
/// and to write what the world cannot write.
///
/// ```compile_fail,E0080
/// # use millrace_plugin::prelude::*;
/// #[derive(Fields)]
/// struct Row<'b> {
///     #[field(intrinsic, "duration")]
///     duration_ns: Integer<'b, Write>,
/// }
/// #[derive(Plugin)]
/// struct Slower;
/// #[transform]
/// impl Transform for Slower {
///     type Row<'b> = Row<'b>;
/// }
/// ```
pub trait Fields<'b>: Sized {
    /// The fields in the order of the struct.
    const FIELDS: &'static [Field];

    /// The fields over their columns: one for each that is read, in order.
    ///
    /// # Errors
    /// When a column is missing or of another kind than its field.
    fn open(columns: &mut Iter<'b, Column>) -> Result<Self, String>;

    /// Goes to a row.
    fn seek(&mut self, at: &At);

    /// Takes back what was written to this row.
    fn forget(&mut self);

    /// Hands over what was written.
    fn finish(self, edits: &mut Edits);
}

/// Refuses fields that a world with these `writable` intrinsics does not have, and two that write the same; for `const`
/// contexts, so that it is the compiler that says so.
pub const fn check(fields: &[Field], writable: &[&str]) {
    let mut index = 0;
    while index < fields.len() {
        let field = &fields[index];
        index += 1;
        if !field.write {
            continue;
        }
        if matches!(field.level, Level::Intrinsic) {
            assert!(
                contains(writable, field.key),
                "an intrinsic is declared as Edit or Write that this world cannot write"
            );
        }
        let mut other = index;
        while other < fields.len() {
            let is_same = field.level as u8 == fields[other].level as u8 && equal(field.key, fields[other].key);
            assert!(!(is_same && fields[other].write), "two fields write the same key: one of them may only Read");
            other += 1;
        }
    }
}

/// Refuses fields that are read, for a world that makes rows; and what [`check`] refuses.
pub const fn check_written(fields: &[Field], writable: &[&str]) {
    let mut index = 0;
    while index < fields.len() {
        assert!(!fields[index].read, "a field is declared to be read, but this world makes rows: declare it as Write");
        index += 1;
    }
    check(fields, writable);
}

/// Refuses fields that are written, for a world that only looks.
pub const fn check_read(fields: &[Field]) {
    let mut index = 0;
    while index < fields.len() {
        assert!(!fields[index].write, "a field is declared as Edit or Write, but this world writes no fields");
        index += 1;
    }
}

const fn contains(words: &[&str], word: &str) -> bool {
    let mut index = 0;
    while index < words.len() {
        if equal(words[index], word) {
            return true;
        }
        index += 1;
    }
    false
}

const fn equal(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}
