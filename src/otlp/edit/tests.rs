//! Gathering and editing against decoded messages, on payloads as odd as the check lets through, and every rule of the
//! check of a patch.

use fastrand::Rng;
use serde_json::json;

use super::*;
use crate::block::Signal;
use crate::otlp::columns::{Column, Columns, Field, Kind, Level, Selection};
use crate::otlp::fields::Fields;

mod model;
mod payloads;

use model::{Cell, Model};

const CASES: u64 = 4_000;

const ALL_KINDS: [Kind; 7] =
    [Kind::Text, Kind::Integer, Kind::Double, Kind::Boolean, Kind::Bytes, Kind::Json, Kind::Any];

/// What can be unset, not set.
const ONLY_UNSET: [&str; 3] = ["events", "links", "trace-state"];

fn intrinsics(signal: Signal) -> &'static [(&'static str, Kind, bool)] {
    use Kind::{Any, Bytes, Integer, Json, Text};
    if signal == Signal::Traces {
        &[
            ("name", Text, true),
            ("status", Integer, true),
            ("status-message", Text, true),
            ("trace-id", Text, false),
            ("span-id", Bytes, false),
            ("parent-span-id", Text, false),
            ("kind", Integer, true),
            ("trace-state", Text, true),
            ("events", Json, true),
            ("links", Json, true),
            ("scope-name", Text, false),
            ("scope-version", Text, false),
            ("start", Integer, false),
            ("end", Integer, false),
            ("duration", Integer, false),
            ("sourcetype", Text, false),
        ]
    } else {
        &[
            ("body", Json, true),
            ("body", Text, true),
            ("body", Any, true),
            ("scope-name", Text, false),
            ("severity", Integer, true),
            ("severity-text", Text, true),
            ("trace-id", Bytes, false),
            ("span-id", Text, false),
            ("start", Integer, false),
        ]
    }
}

/// A few fields of any level, no value written by two of them or by one of `others`.
fn fields(rng: &mut Rng, signal: Signal, others: &[Field]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for _ in 0..rng.usize(0..6) {
        let level = [Level::Record, Level::Resource, Level::Scope, Level::Intrinsic][rng.usize(0..4)];
        let (key, kind, writable) = if level == Level::Intrinsic {
            intrinsics(signal)[rng.usize(0..intrinsics(signal).len())]
        } else {
            (payloads::KEYS[rng.usize(0..payloads::KEYS.len())], ALL_KINDS[rng.usize(0..7)], true)
        };
        let same = |field: &&Field| field.write && field.level == level && field.key == key;
        let taken = fields.iter().chain(others).any(|field| same(&field));
        let write = writable && !taken && rng.u8(0..4) > 0;
        fields.push(Field { level, key: key.to_owned(), kind, read: !write || rng.u8(0..4) > 0, write });
    }
    fields
}

fn cells(column: &Column, all: &[u32], kind: Kind) -> Vec<(u32, Cell)> {
    let rows = |rows: &[u32], cells: usize| if rows.is_empty() && cells > 0 { all.to_vec() } else { rows.to_vec() };
    match column {
        Column::Num(column) => {
            let rows = rows(&column.rows, column.values.len());
            assert_eq!(rows.len(), column.values.len());
            rows.into_iter().zip(column.values.iter().map(|value| Cell::Num(*value))).collect()
        }
        Column::Text(column) => {
            let rows = rows(&column.rows, column.ends.len());
            assert_eq!(rows.len(), column.ends.len());
            let starts = [0].into_iter().chain(column.ends.iter().copied());
            let cell = |(start, end): (u32, &u32)| {
                let bytes = &column.bytes[start as usize..*end as usize];
                if kind == Kind::Json {
                    Cell::Json(serde_json::from_slice(bytes).unwrap())
                } else {
                    Cell::Bytes(bytes.to_vec())
                }
            };
            rows.into_iter().zip(starts.zip(&column.ends).map(cell)).collect()
        }
    }
}

fn all_rows<'a>(field: &Field, columns: &'a Columns, every: &'a [u32]) -> &'a [u32] {
    match field.level {
        Level::Resource => columns.resources(),
        Level::Scope => columns.scopes(),
        _ => every,
    }
}

fn agree_on_columns(selection: &Selection, columns: &Columns, model: &mut Model) {
    assert_eq!((columns.resources().to_vec(), columns.scopes().to_vec()), model.groups());
    let every: Vec<u32> = (0..columns.rows()).collect();
    let mut got = columns.columns().iter();
    for field in selection.fields().iter().filter(|field| field.read) {
        let all = all_rows(field, columns, &every);
        let mut expected = model.column(field);
        let mut got = cells(got.next().unwrap(), all, field.kind);
        if field.kind == Kind::Any {
            // Text as it is; anything else is read back as JSON, where the model says that it is no text.
            for ((_, got), (_, expected)) in got.iter_mut().zip(&mut expected) {
                if let (Cell::Bytes(bytes), Cell::Json(_)) = (&*got, &*expected) {
                    *got = Cell::Json(serde_json::from_slice(bytes).unwrap());
                }
            }
        }
        assert_eq!(got, expected, "{field:?}");
    }
    assert!(got.next().is_none());
}

fn new_cell(rng: &mut Rng, field: &Field) -> Cell {
    let long = if rng.u8(0..10) == 0 { rng.usize(100..20_000) } else { 0 };
    match field.kind {
        Kind::Text | Kind::Any => Cell::Bytes(["", "x", "é日🦀"][rng.usize(0..3)].repeat(1 + long / 3).into_bytes()),
        Kind::Bytes => Cell::Bytes(vec![rng.u8(..); rng.usize(0..3) + long]),
        Kind::Integer if field.level == Level::Intrinsic => Cell::Num(rng.i64(0..3)),
        Kind::Integer => Cell::Num(rng.i64(..) >> rng.u32(0..64)),
        Kind::Double => Cell::Num(1.5f64.to_bits().cast_signed()),
        Kind::Boolean => Cell::Num(rng.i64(0..2)),
        Kind::Json => Cell::Json(
            [
                json!(null),
                json!("t"),
                json!([1, [true, null], -2.5, u64::MAX]),
                json!({"k": {"l": []}, "m": "x".repeat(long)}),
            ][rng.usize(0..4)]
            .clone(),
        ),
    }
}

fn push_cells(patch: &mut Patch, field: u16, rows: Vec<u32>, cells: &[Cell]) {
    if let Some(Cell::Num(_)) = cells.first() {
        let number = |cell: &Cell| if let Cell::Num(number) = cell { *number } else { 0 };
        let values = cells.iter().map(number).collect();
        patch.num.push(NumEdits { field, cells: NumColumn { rows, values } });
    } else {
        let mut column = TextColumn { rows, ..TextColumn::default() };
        for cell in cells {
            match cell {
                Cell::Json(value) => column.bytes.extend_from_slice(value.to_string().as_bytes()),
                Cell::Bytes(bytes) => column.bytes.extend_from_slice(bytes),
                Cell::Num(_) => {}
            }
            column.ends.push(u32::try_from(column.bytes.len()).unwrap());
        }
        patch.text.push(TextEdits { field, cells: column });
    }
}

/// A good patch, and the model as it changes it.
fn patch(rng: &mut Rng, selection: &Selection, columns: &Columns, mut model: Model) -> (Patch, Model, Vec<bool>) {
    let mut patch = Patch::default();
    let every: Vec<u32> = (0..columns.rows()).collect();
    let mut edited = vec![false; every.len()];
    let group_end = |field: &Field, row: u32| {
        let next = all_rows(field, columns, &every).iter().find(|other| **other > row);
        next.copied().unwrap_or(columns.rows())
    };
    for (index, field) in selection.fields().iter().enumerate().filter(|(_, field)| field.write) {
        let all = all_rows(field, columns, &every);
        let only_unset = field.level == Level::Intrinsic && ONLY_UNSET.contains(&field.key.as_str());
        let density = if only_unset { 0 } else { rng.u8(0..4) };
        let is_set: Vec<u8> = all
            .iter()
            .map(|_| match density {
                3 => 3,
                _ if only_unset => 2 * rng.u8(0..2),
                _ => rng.u8(0..=density + 1),
            })
            .collect();
        let of = |what: u8| {
            all.iter().zip(&is_set).filter(move |(_, is)| **is == what).map(|(row, _)| *row).collect::<Vec<_>>()
        };
        let set = if density == 3 { all.to_vec() } else { of(1) };
        let unset = of(2);
        let cells: Vec<Cell> = set.iter().map(|_| new_cell(rng, field)).collect();
        for (row, cell) in set.iter().zip(&cells) {
            model.edit(field, *row, Some(cell));
        }
        unset.iter().for_each(|row| model.edit(field, *row, None));
        for row in set.iter().chain(&unset) {
            edited[*row as usize..group_end(field, *row) as usize].fill(true);
        }
        let rows = if density == 3 && rng.bool() { Vec::new() } else { set };
        let number = u16::try_from(index).unwrap();
        if !cells.is_empty() {
            push_cells(&mut patch, number, rows, &cells);
        }
        if !unset.is_empty() {
            patch.unset.push(Unset { field: number, rows: unset });
        }
    }
    let drop = [0, 0, 1, 3, 7][rng.usize(0..5)];
    patch.drop = every.into_iter().filter(|_| rng.u8(0..8) < drop).collect();
    (patch, model, edited)
}

fn one_case(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let signal = if rng.bool() { Signal::Traces } else { Signal::Logs };
    let payload = payloads::payload(&mut rng, signal);
    let own = fields(&mut rng, signal, &[]);
    let selection = Selection::new(signal, own.clone()).unwrap();
    let mut columns = Columns::default();
    selection.gather(&payload, &mut columns);
    let mut model = Model::decode(signal, &payload);
    agree_on_columns(&selection, &columns, &mut model);
    assert_eq!(columns.summary(), summary_of(&model));

    let extra = if rng.bool() { fields(&mut rng, signal, &own) } else { Vec::new() };
    let selection = selection.extended(extra).unwrap();
    let (patch, mut model, mut edited) = patch(&mut rng, &selection, &columns, model);
    lose_duplicates(&own, &columns, &mut model, &mut edited);
    let dropped = patch.drop.clone();
    let edits = check(&selection, &columns, patch, usize::MAX).unwrap();
    let mut out = b"what was there before".to_vec();
    let applied = apply(&payload, &selection, &columns, &edits, &mut out);
    if edits.is_empty() {
        assert_eq!((applied, out.len()), (Applied::Unchanged, 0));
        return;
    }
    dropped.iter().for_each(|row| model.drop(*row));
    let model = model.finish();
    same(&format!("{:?}", Model::decode(signal, &out)), &format!("{model:?}"));
    let kept = |(row, edited): (usize, &bool)| *edited && !dropped.contains(&u32::try_from(row).unwrap());
    let edited = u32::try_from(edited.iter().enumerate().filter(|row| kept(*row)).count()).unwrap();
    let summary = summary_of(&model);
    assert_eq!(applied, Applied::Changed { summary, edited, dropped: u32::try_from(dropped.len()).unwrap() });
    if signal == Signal::Traces {
        let checked = crate::otlp::check::check(&out).unwrap();
        assert_eq!((checked.cut_out, checked.summary), (None, summary));
    }
}

fn lose_duplicates(fields: &[Field], columns: &Columns, model: &mut Model, edited: &mut [bool]) {
    let every: Vec<u32> = (0..columns.rows()).collect();
    for field in fields.iter().filter(|field| field.write) {
        let all = all_rows(field, columns, &every);
        for (index, &row) in all.iter().enumerate() {
            let end = all.get(index + 1).copied().unwrap_or(columns.rows());
            if model.first_only(field, row) {
                edited[row as usize..end as usize].fill(true);
            }
        }
    }
}

/// Shows where two long texts part.
fn same(got: &str, expected: &str) {
    let at = got.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
    let window = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(200)..]).chars().take(400).collect::<String>()
    };
    assert!(got == expected, "got      ...{}\nexpected ...{}", window(got), window(expected));
}

fn summary_of(model: &Model) -> Summary {
    let mut summary = Summary::EMPTY;
    model.rows().map(model::Row::times).for_each(|(start_ns, end_ns)| summary.add_span(start_ns, end_ns));
    summary
}

#[test]
fn bytes_and_decoded_messages_agree() {
    for seed in 0..CASES {
        let result = std::panic::catch_unwind(|| one_case(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// Two resources with two scopes each with two spans each; unknown fields at every level.
fn eight_spans() -> Vec<u8> {
    let unknown: &[u8] = &[0xa2, 0x06, 2, b'?', b'!']; // Field 100.
    let nested = |tag: u8, parts: &[&[u8]]| {
        let mut out = Vec::new();
        crate::otlp::writer::push_bytes_field(&mut out, tag, &parts.concat());
        out
    };
    let pair = nested(0x4a, &[b"\x0a\x03url", b"\x12\x05\x0a\x03old"]);
    let span = |number: u8| {
        let ids = [&[0x0a, 16][..], &[number; 16], &[0x12, 8], &[number; 8]].concat();
        nested(0x12, &[&ids, b"\x2a\x01n", &pair, &[0x39, number, 0, 0, 0, 0, 0, 0, 0], unknown])
    };
    let scope =
        |first| nested(0x12, &[&nested(0x0a, &[b"\x0a\x01s", unknown]), &span(first), &span(first + 1), unknown]);
    let resource = |first| nested(0x0a, &[&nested(0x0a, &[unknown]), &scope(first), &scope(first + 2), unknown]);
    [&resource(1), unknown, &resource(5)].concat()
}

fn field(level: Level, key: &str, kind: Kind) -> Field {
    Field { level, key: key.to_owned(), kind, read: true, write: true }
}

struct Batch {
    payload: Vec<u8>,
    selection: Selection,
    columns: Columns,
}

impl Batch {
    fn new(fields: Vec<Field>) -> Batch {
        let (payload, selection) = (eight_spans(), Selection::new(Signal::Traces, fields).unwrap());
        let mut columns = Columns::default();
        selection.gather(&payload, &mut columns);
        Batch { payload, selection, columns }
    }

    fn check(&self, patch: Patch) -> Result<Edits, BadEdit> {
        check(&self.selection, &self.columns, patch, 1 << 20)
    }

    fn apply(&self, patch: Patch) -> Vec<u8> {
        let mut out = Vec::new();
        apply(&self.payload, &self.selection, &self.columns, &self.check(patch).unwrap(), &mut out);
        out
    }
}

fn text_edits(field: u16, rows: &[u32], ends: &[u32], bytes: &[u8]) -> Patch {
    let cells = TextColumn { rows: rows.to_vec(), ends: ends.to_vec(), bytes: bytes.to_vec() };
    Patch { text: vec![TextEdits { field, cells }], ..Patch::default() }
}

fn num_edits(field: u16, rows: &[u32], values: &[i64]) -> Patch {
    let cells = NumColumn { rows: rows.to_vec(), values: values.to_vec() };
    Patch { num: vec![NumEdits { field, cells }], ..Patch::default() }
}

fn unset(field: u16, rows: &[u32]) -> Patch {
    Patch { unset: vec![Unset { field, rows: rows.to_vec() }], ..Patch::default() }
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).filter(|window| *window == needle).count()
}

#[test]
fn what_no_edit_touches_stays_byte_for_byte() {
    let batch = Batch::new(vec![
        field(Level::Record, "url", Kind::Text),
        field(Level::Resource, "host", Kind::Text),
        field(Level::Scope, "lib", Kind::Text),
    ]);
    let resources: Vec<&[u8]> = Fields::of(&batch.payload).filter(|field| field.number == 1).map(|f| f.raw).collect();
    let out = batch.apply(text_edits(0, &[4], &[3], b"new"));
    assert!(out.starts_with(resources[0]), "the first resource is copied as it stands");
    assert_eq!(count(&out, b"?!"), count(&batch.payload, b"?!"), "unknown fields survive");
    assert_eq!((count(&out, b"new"), count(&out, b"old")), (1, 7));
    for (patch, added) in [(text_edits(1, &[0, 4], &[1, 2], b"ab"), 2), (text_edits(2, &[2], &[1], b"a"), 1)] {
        let out = batch.apply(patch);
        assert_eq!(count(&out, b"?!"), count(&batch.payload, b"?!"));
        assert_eq!(count(&out, b"host") + count(&out, b"lib"), added);
        let spans = |payload: &[u8]| {
            crate::otlp::view::spans(payload).map(|(.., span)| span.body().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(spans(&out), spans(&batch.payload));
    }
    let out = batch.apply(Patch { drop: (0..8).collect(), ..Patch::default() });
    assert_eq!(out, b"\xa2\x06\x02?!", "what belongs to the request stays");
}

#[test]
fn every_rule_of_a_patch_has_its_error() {
    let batch = Batch::new(vec![
        field(Level::Record, "url", Kind::Text),
        field(Level::Resource, "host", Kind::Text),
        field(Level::Intrinsic, "status", Kind::Integer),
        field(Level::Record, "json", Kind::Json),
        field(Level::Record, "flag", Kind::Boolean),
        Field { write: false, ..field(Level::Record, "read", Kind::Text) },
        field(Level::Scope, "raw", Kind::Bytes),
        field(Level::Intrinsic, "events", Kind::Json),
        field(Level::Intrinsic, "kind", Kind::Integer),
    ]);
    let drop = |rows: &[u32]| Patch { drop: rows.to_vec(), ..Patch::default() };
    let both = |first: Patch, second: Patch| Patch {
        text: [first.text, second.text].concat(),
        num: [first.num, second.num].concat(),
        unset: [first.unset, second.unset].concat(),
        drop: first.drop,
    };
    let cases = [
        (drop(&[1, 1]), "\"drop\" names row 1 behind row 1"),
        (drop(&[3, 2]), "\"drop\" names row 2 behind row 3"),
        (drop(&[8]), "\"drop\" names row 8, there are 8"),
        (text_edits(9, &[0], &[0], b""), "an edit of field 9, there are 9"),
        (text_edits(7, &[0], &[2], b"[]"), "\"events\" can be unset, not set"),
        (num_edits(8, &[3], &[6]), "\"kind\" of row 3 is 6, it can be 0 to 5"),
        (text_edits(5, &[0], &[0], b""), "\"read\" was not declared to be written"),
        (unset(5, &[]), "\"read\" was not declared to be written"),
        (num_edits(0, &[0], &[0]), "\"url\" is Text and got values of another form"),
        (text_edits(2, &[0], &[1], b"1"), "\"status\" is Integer and got values of another form"),
        (both(text_edits(0, &[0], &[0], b""), text_edits(0, &[1], &[0], b"")), "\"url\" is edited by two lists"),
        (both(unset(0, &[0]), unset(0, &[1])), "\"url\" is edited by two lists"),
        (both(text_edits(0, &[1, 2], &[0, 0], b""), unset(0, &[0, 2])), "\"url\" of row 2 is both set and unset"),
        (both(text_edits(0, &[], &[0; 8], b""), unset(0, &[7])), "\"url\" of row 7 is both set and unset"),
        (text_edits(0, &[0, 9], &[0, 0], b""), "\"url\" names row 9, there are 8"),
        (num_edits(4, &[2, 1], &[0, 0]), "\"flag\" names row 1 behind row 2"),
        (unset(0, &[2, 2]), "\"url\" names row 2 behind row 2"),
        (text_edits(1, &[0, 2], &[0, 0], b""), "\"host\" is of a Resource and names row 2, where none begins"),
        (unset(6, &[1]), "\"raw\" is of a Scope and names row 1, where none begins"),
        (text_edits(0, &[], &[0; 7], b""), "\"url\" has 7 values for 8 rows"),
        (text_edits(0, &[1, 2], &[0], b""), "\"url\" has 1 values for 2 rows"),
        (num_edits(4, &[1], &[0, 0]), "\"flag\" has 2 values for 1 rows"),
        (text_edits(1, &[], &[0; 3], b""), "\"host\" has 3 values for 2 rows"),
        (text_edits(0, &[0, 1], &[3, 2], b"ab"), "\"url\" has a value that ends at byte 2 of 2, behind byte 3"),
        (text_edits(0, &[0, 1], &[1, 3], b"ab"), "\"url\" has a value that ends at byte 3 of 2, behind byte 0"),
        (text_edits(0, &[0], &[1], b"ab"), "\"url\" has a value that ends at byte 1 of 2, behind byte 0"),
        (text_edits(0, &[], &[], b"ab"), "\"url\" has a value that ends at byte 0 of 2, behind byte 0"),
        (text_edits(0, &[0, 3], &[1, 2], b"a\xff"), "\"url\" of row 3 is not UTF-8"),
        (text_edits(0, &[0, 3], &[1, 2], "é".as_bytes()), "\"url\" of row 0 is not UTF-8"),
        (
            text_edits(3, &[0, 3], &[1, 2], b"1{"),
            "\"json\" of row 3 is not JSON that it can hold: EOF while parsing an object at line 1 column 1",
        ),
        (
            text_edits(3, &[0], &[2], b"\"\xff"),
            "\"json\" of row 0 is not JSON that it can hold: EOF while parsing a string at line 1 column 2",
        ),
        (num_edits(4, &[0, 1], &[1, 2]), "\"flag\" of row 1 is 2, it can be 0 to 1"),
        (num_edits(2, &[0], &[-1]), "\"status\" of row 0 is -1, it can be 0 to 2"),
        (text_edits(0, &[0], &[1 << 20], &[b'x'; 1 << 20]), "the edits add 1048595 bytes, 1048576 are allowed"),
    ];
    for (patch, expected) in cases {
        let error = batch.check(patch.clone()).expect_err(expected);
        assert_eq!(error.to_string(), expected, "{patch:?}");
    }
    assert!(batch.check(text_edits(6, &[0], &[1], b"\xff")).is_ok(), "bytes may be any");
    assert!(batch.check(Patch::default()).unwrap().is_empty());
    assert!(batch.check(both(unset(0, &[]), text_edits(0, &[], &[], b""))).unwrap().is_empty(), "lists of nothing");
}

#[test]
fn json_is_nested_as_deep_as_the_check_allows_and_no_deeper() {
    for (open, close) in [("[", "]"), ("{\"k\":", "}"), ("[{\"k\":", "}]")] {
        for level in [Level::Record, Level::Scope, Level::Resource] {
            let batch = Batch::new(vec![field(level, "deep", Kind::Json)]);
            let json = |depth: usize| format!("{}null{}", open.repeat(depth), close.repeat(depth)).into_bytes();
            let patch = |depth| text_edits(0, &[0], &[u32::try_from(json(depth).len()).unwrap()], &json(depth));
            let deepest = (1..100).find(|depth| batch.check(patch(depth + 1)).is_err()).unwrap();
            assert!(deepest >= 5, "{deepest}");
            let checked = crate::otlp::check::check(&batch.apply(patch(deepest))).map(|checked| checked.summary.spans);
            assert_eq!(checked, Ok(8), "{open} {deepest}");
        }
    }
}

#[test]
#[should_panic(expected = "another payload")]
fn columns_of_another_payload_are_refused() {
    let batch = Batch::new(vec![field(Level::Record, "url", Kind::Text)]);
    let edits = batch.check(unset(0, &[0])).unwrap();
    apply(&batch.payload[1..], &batch.selection, &batch.columns, &edits, &mut Vec::new());
}
