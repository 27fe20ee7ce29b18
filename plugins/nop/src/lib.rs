//! Reads a field and changes nothing: what a call costs, and what the interface looked like when this was built.
//!
//! No configuration, no edits.

use millrace_plugin::prelude::*;

#[derive(Fields)]
struct Row<'b> {
    #[field("url.full")]
    _url: Text<'b>,
}

#[derive(Plugin)]
struct Nop;

#[transform]
impl Transform for Nop {
    type Row<'b> = Row<'b>;
}
