//! What is edited says by whom: real components of three worlds, and patches of every form.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use prost::Message;

use super::super::enrich::tests::{Bench, Tried, kept, resource, text};
use super::*;
use crate::block::Signal;
use crate::config::Plugin;
use crate::otlp::columns::{NumColumn, Selection};
use crate::otlp::edit::{self, Applied, BadEdit, NumEdits, Unset};

const KEY: &str = "millrace.plugin.tried";

fn span(name: &str) -> Span {
    Span { name: name.to_owned(), trace_id: vec![7; 16], ..Span::default() }
}

/// Of each span the values of the mark.
fn marks(block: &TracesData) -> Vec<Vec<String>> {
    let scopes = block.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let values = |span: &Span| {
        let marks = span.attributes.iter().filter(|attribute| attribute.key == KEY);
        let text = |value: Value| if let Value::StringValue(text) = value { text } else { panic!("{value:?}") };
        marks.map(|mark| text(mark.value.clone().unwrap().value.unwrap())).collect()
    };
    scopes.flat_map(|scope| &scope.spans).map(values).collect()
}

fn recording(bench: &Bench, world: &str) -> Tried {
    let mut tried = bench.step(&kept(world));
    let plugin = Plugin { record: true, ..bench.plugin(&kept(world)) };
    tried.step.swap(bench.load(&plugin, 3).unwrap(), None).unwrap();
    tried
}

fn digits(world: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, &kept(world));
    digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn spans_that_a_plugin_edits_name_its_generation_and_component_and_others_do_not() {
    let bench = Bench::new();
    // It copies a name that there is, and drops the last span.
    let forged = Span { attributes: vec![text(KEY, "1@forged"), text(KEY, "2@forged")], ..span("b") };
    let block = TracesData { resource_spans: vec![resource("r", vec![span("a"), span(""), forged, span("last")])] };
    let silent = bench.step(&kept("transform")).run(&block).unwrap().unwrap();
    assert_eq!(marks(&silent).concat(), ["1@forged", "2@forged"], "nobody has asked for it");
    let mut tried = recording(&bench, "transform");
    let mark = |generation| vec![format!("{generation}@{}", digits("transform"))];
    assert_eq!(marks(&tried.run(&block).unwrap().unwrap()), [mark(3), vec![], mark(3)]);
    let next = Plugin { record: true, ..bench.plugin(&kept("transform")) };
    tried.step.swap(bench.load(&next, 4).unwrap(), None).unwrap();
    let out = tried.run(&block).unwrap().unwrap();
    assert_eq!(marks(&out), [mark(4), vec![], mark(4)]);
    assert_eq!(out.resource_spans[0].resource, block.resource_spans[0].resource, "only spans were edited");
}

#[test]
fn enrichers_and_samplers_tell_it_where_they_edit() {
    let bench = Bench::new();
    let block = TracesData { resource_spans: vec![resource("r", vec![span("a"), span("b")])] };
    for world in ["enrich", "sample"] {
        let mut tried = recording(&bench, world);
        for _ in 0..2 {
            let mark = vec![format!("3@{}", digits(world))];
            assert_eq!(marks(&tried.run(&block).unwrap().unwrap()), [mark.clone(), mark], "{world}");
        }
    }
}

fn field(level: Level, key: &str, kind: Kind) -> Field {
    Field { level, key: key.to_owned(), kind, read: false, write: true }
}

fn num(field: u16, rows: &[u32], values: &[i64]) -> NumEdits {
    NumEdits { field, cells: NumColumn { rows: rows.to_vec(), values: values.to_vec() } }
}

#[test]
fn every_form_of_an_edit_is_marked_where_it_is_and_costs_the_plugin_nothing() {
    let rows = vec![resource("a", vec![span("1"), span("2")]), resource("b", vec![span("3"), span("4")])];
    let payload = TracesData { resource_spans: rows }.encode_to_vec();
    let fields = vec![
        field(Level::Record, "n", Kind::Integer),
        field(Level::Resource, "r", Kind::Integer),
        field(Level::Scope, "s", Kind::Text),
        field(Level::Intrinsic, "kind", Kind::Integer),
    ];
    let (selection, mut columns) = (Selection::new(Signal::Traces, fields).unwrap(), Columns::default());
    selection.gather(&payload, &mut columns);
    let mark = Mark { key: KEY.to_owned(), value: "1@0".to_owned() };
    let marked = |mut patch: Patch| {
        let marks = mark.add(&mut patch, selection.fields(), &columns);
        let found: Vec<(Level, Vec<u32>)> = (marks.fields.iter().zip(&patch.text))
            .map(|(field, edits)| (field.level, edits.cells.rows.clone()))
            .collect();
        // As many bytes as the plugin's own number takes.
        let limit = (16 + "n".len()) * 4 + marks.bytes;
        let extended = selection.extended(marks.fields).unwrap();
        (found, edit::check(&extended, &columns, patch, limit))
    };
    let num = |field, rows: &[u32], values: &[i64]| Patch { num: vec![num(field, rows, values)], ..Patch::default() };
    let unset = |field, rows: &[u32]| Patch { unset: vec![Unset { field, rows: rows.to_vec() }], ..Patch::default() };
    for (patch, level, rows) in [
        (num(0, &[1, 3], &[5, 6]), Level::Record, &[1, 3][..]),
        (num(0, &[], &[5, 6, 7, 8]), Level::Record, &[0, 1, 2, 3]),
        (num(1, &[], &[5, 6]), Level::Resource, &[0, 2]),
        (unset(2, &[2]), Level::Scope, &[2]),
        (num(3, &[2], &[1]), Level::Record, &[2]),
    ] {
        let (found, checked) = marked(patch);
        assert_eq!(found, [(level, rows.to_vec())]);
        let (edits, mut out) = (checked.unwrap(), Vec::new());
        let extended = selection.extended(vec![field(level, KEY, Kind::Text)]).unwrap();
        assert!(matches!(edit::apply(&payload, &extended, &columns, &edits, &mut out), Applied::Changed { .. }));
        assert_eq!(out.windows(KEY.len()).filter(|bytes| *bytes == KEY.as_bytes()).count(), rows.len());
    }
    assert_eq!(marked(Patch { drop: vec![1], ..Patch::default() }).0, [], "nothing is left to say it");
    let (_, wrong) = marked(num(0, &[3, 9], &[5, 6]));
    assert_eq!(wrong, Err(BadEdit::Row { key: "n".to_owned(), row: 9, rows: 4 }), "the plugin's mistake, by name");
    assert!(matches!(marked(num(1, &[1], &[5])).1, Err(BadEdit::NotFirst { .. })));
    // The number that the mark would have had.
    let stray = Patch { unset: vec![Unset { field: 4, rows: vec![1] }], ..num(0, &[0], &[5]) };
    assert_eq!(marked(stray).1, Err(BadEdit::Field { field: 4, fields: 4 }));
}
