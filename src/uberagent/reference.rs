//! The reference of sourcetypes and fields, made from the table that the code runs on.
//!
//! `README.md` beside this file is its output; a test compares them and says how to write it anew.

use std::fmt::Write;

use super::fields::{FIELDS, Kind, Role};
use super::sourcetypes::{Csv, RULES};

/// The reference as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(HEAD);
    for rule in &RULES {
        row(&mut page, &[&code(rule.name), &code(rule.service), rule.trace_id, rule.span_id]);
    }
    page.push_str(FIELDS_HEAD);
    for field in &FIELDS {
        let key = match field.role {
            Role::Attribute => code(field.key),
            Role::Consumed | Role::Envelope => field.key.to_owned(),
        };
        let sourcetypes: Vec<&str> = RULES
            .iter()
            .filter(|rule| matches!(rule.csv, Csv::Columns(columns) if columns.contains(&field.name)))
            .map(|rule| rule.name.rsplit(':').next().unwrap_or(rule.name))
            .collect();
        row(&mut page, &[&code(field.name), holds(field.kind), &key, &sourcetypes.join(", ")]);
    }
    page
}

const HEAD: &str = "# uberAgent's rows as spans

Generated from the table in `sourcetypes.rs` and `fields.rs`; a test compares them. To write it anew:
`MILLRACE_WRITE_README=1 cargo test --lib uberagent::reference`.

Mapping `session` (the default). One row is one span. Logons, logoffs and boots have a synthesised root besides, whose id
is a hash of `root`, host and its name; it is written by the first row seen that states the whole duration. Made-up span
ids have a high word of 0. All hashes are SipHash-1-3 (128 bits for trace ids) under a fixed key.

A process's parent is the latest older row of the same session with the parent's PID, among the rows decoded together
(`uberagent.parent.resolution` = `together`), else among those remembered (`table`), else the root (`root`).

Spans of other traces link to the root of their session's logon, where they name the session; so does the root of a
logoff. Starts and ends of processes also link to the start of the process that ProcParentGUID names.

Times of a logon count from the session's creation inside its GUID where the session number agrees and the event is at
most a day behind it (`session_guid`), else from event time less total duration (`event`), else from the receive time
(`received`); standby says its times itself (`row`). `uberagent.time.base` says which, unless it is the usual one:
`session_guid` of logons, `row` of standby, `event` of all else.

Spans of a session's logon or logoff say whose they are on their resource, once for all that came in a row: `session.id`
and `uberagent.session.number` beside `service.name` and `host.name`. Other spans with a session have them themselves.

`uberagent.received_ms` is on roots, on spans without a root, and on rows whose event time is missing or in doubt. Where
they apply: `uberagent.clock.skewed` (event and receive time more than a day apart), `uberagent.time.clamped`,
`uberagent.truncated`, `uberagent.synthesised`.

Mapping `original` keeps ProxyTrace's ids and attributes for process rows: trace id as below, span id = ProcID, parent =
ProcParentID, `service.name` = LogonProcType or LogoffProcType.

## Sourcetypes that make spans

| sourcetype | service.name | trace id | span id |
|---|---|---|---|
";

const FIELDS_HEAD: &str = "
All others are counted as filtered, or passed on as log records when so configured.

## Fields

Names match in any case. Absent and empty values make no attribute; a value that does not fit is left out and counted.
Of two fields that become the same attribute and both have a value, the one that is no column of the row's sourcetype is
left out and counted; if that does not tell them apart, the one further down.
The last column names the sourcetypes whose CSV has the field; as JSON it is understood in all.

| field | holds | becomes | columns of |
|---|---|---|---|
";

fn row(page: &mut String, cells: &[&str]) {
    writeln!(page, "| {} |", cells.join(" | ")).expect("a string takes all writes");
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn holds(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text, up to 4 KiB",
        Kind::LongText => "text, up to 32 KiB",
        Kind::Account => "account; `sys`, `lvc`, `nvc` are spelled out",
        Kind::RequestHost => "host; `$0`, `$2` mean the tab's",
        Kind::Int => "whole number",
        Kind::Count => "whole number; 0 is left out",
        Kind::Amount => "number; 0 is left out",
        Kind::Double => "number",
        Kind::Bool => "truth value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/uberagent/README.md");
        if std::env::var_os("MILLRACE_WRITE_README").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let readme = std::fs::read_to_string(path).unwrap();
        let again = "run `MILLRACE_WRITE_README=1 cargo test --lib uberagent::reference`";
        assert!(readme == reference(), "src/uberagent/README.md is not what the table says: {again}");
    }
}
