//! The other worlds: a component of each that was built once and is kept, and guests that misbehave in each.

use std::path::Path;

use super::*;
use crate::otlp::columns::Column;
use crate::plugin::answers::{Batch, Decision, Encoded};
use crate::plugin::manifest::World;

/// A kept component, on a lane.
fn kept(world: &str) -> Instance {
    let bench = Bench::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/plugins/{world}.wasm"));
    let mut plugin = bench.plugin(&echo());
    plugin.component.path = path;
    Instance::new(bench.generation(&plugin), Arc::new(Counters::default()))
}

fn batch(columns: &[Column], rows: u32) -> Batch<'_> {
    Batch { signal: Signal::Traces, rows, columns, received_ns: 0 }
}

/// `rows` spans with names, gathered by the plugin's selection.
fn encode(instance: &mut Instance, rows: usize) -> Result<Encoded, CallError> {
    let mut columns = Columns::default();
    let mut payload = payload(rows);
    instance.generation().selection(Signal::Traces).unwrap().gather(&payload, &mut columns);
    let call = Call { signal: Signal::Traces, columns: &columns, received_ns: 0 };
    let before = payload.clone();
    let encoded = instance.encode(&call, &mut payload);
    assert_eq!(payload, before, "the payload comes back whatever happens");
    encoded
}

#[test]
fn an_enricher_answers_combinations_of_values() {
    let mut instance = kept("enrich");
    assert_eq!(instance.generation().world, World::Enrich);
    let urls = Column::Text(TextColumn { rows: Vec::new(), ends: vec![1, 2], bytes: b"ab".to_vec() });
    let cells = TextColumn { rows: vec![0, 1], ends: vec![3, 6], bytes: b"yesyes".to_vec() };
    let patch = Patch { text: vec![TextEdits { field: 1, cells }], ..Patch::default() };
    assert_eq!(instance.enrich(&batch(&[urls], 2)), Ok(Answer { extra: Vec::new(), patch }));
    assert_eq!((instance.counters().calls.get(), instance.counters().rows.get()), (1, 2));
}

#[test]
fn a_sampler_decides_on_traces() {
    let mut instance = kept("sample");
    let gathered: Vec<&str> = instance
        .generation()
        .selection(Signal::Traces)
        .unwrap()
        .fields()
        .iter()
        .map(|field| field.key.as_str())
        .collect();
    assert_eq!(gathered, ["trace-id", "parent-span-id", "start", "end", "status"], "`errors` is of a trace");
    let errors = Column::Num(crate::otlp::columns::NumColumn { rows: Vec::new(), values: vec![0, 3, 1] });
    let verdicts = instance.decide(&batch(&[errors], 3)).unwrap();
    assert_eq!((verdicts.decisions, verdicts.weights), (vec![Decision::Keep; 3], vec![2.0; 3]));
}

#[test]
fn a_decoder_makes_records_of_bytes() {
    let mut instance = kept("decode");
    assert_eq!(instance.opened(7, &[("peer".to_owned(), "127.0.0.1:9".to_owned())]), Ok(()));
    let decoded = instance.decode((7, 1), b"GET /", false).unwrap();
    assert_eq!((decoded.consumed, decoded.rows, &decoded.reply[..]), (5, 1, &b"ok"[..]));
    assert_eq!(decoded.answer.patch.text[0].cells.bytes, b"GET /");
    assert_eq!(instance.decode((7, 1), b"", true).unwrap().rows, 0);
    assert_eq!(instance.closed(7), Ok(()));
    assert_eq!(instance.counters().rows.get(), 1);
}

#[test]
fn an_encoder_writes_a_batch() {
    let encoded = encode(&mut kept("encode"), 2).unwrap();
    let nothing = Encoded { unencodable: vec![0, 1], content_type: "text/plain".to_owned(), ..Encoded::default() };
    assert_eq!(encoded, nothing, "a span without a name cannot be said");
}

/// Calls a guest of `world` so that it behaves (an even size) or not (an odd one).
fn meet(instance: &mut Instance, world: &str, size: u32) -> Result<(), CallError> {
    match world {
        "enrich" => instance.enrich(&batch(&[Column::Text(TextColumn::default())], size)).map(drop),
        "sample" => instance.decide(&batch(&[Column::Text(TextColumn::default())], size)).map(drop),
        "decode" => instance.decode((1, 0), &vec![b'x'; size as usize], false).map(drop),
        "encode" => encode(instance, size as usize).map(drop),
        other => panic!("{other}"),
    }
}

macro_rules! hostile {
    ($name:literal) => {
        include_str!(concat!("../../../tests/guests/hostile/", $name, ".wat"))
    };
}

#[test]
fn whatever_a_plugin_does_in_any_world_is_an_error_and_the_next_call_works() {
    let cases = [
        (hostile!("traps"), "trap"),
        (hostile!("loops"), "time_out"),
        (hostile!("hoards"), "memory"),
        (hostile!("recurses"), "stack"),
        (hostile!("garbles"), "trap"),
        (hostile!("refuses"), "refused"),
    ];
    let word = |error: CallError| match error {
        CallError::Trap(_) => "trap",
        CallError::TimeOut { .. } => "time_out",
        CallError::OutOfMemory { .. } => "memory",
        CallError::StackOverflow => "stack",
        CallError::Refused(_) => "refused",
        CallError::Start(_) => "start",
    };
    let bench = Bench::new();
    for world in ["enrich", "sample", "decode", "encode"] {
        for (code, expected) in cases {
            let mut instance = bench.instance(&Guest::of_world(world, code));
            assert_eq!(meet(&mut instance, world, 2), Ok(()), "{world}: it behaves at first");
            assert_eq!(meet(&mut instance, world, 3).map_err(word), Err(expected), "{world}");
            // An answer that a guest of these tests has made is not undone: only a new sandbox is as it was.
            if expected != "refused" {
                assert_eq!(meet(&mut instance, world, 2), Ok(()), "{world}: the next call works");
            }
        }
    }
}

/// An answer at 176 that is otherwise than the world's usual one where the size is odd.
fn odd(world: &'static str, stores: &str) -> Result<(), CallError> {
    let bench = Bench::new();
    let mut instance = bench.instance(&Guest::of_world(world, &format!("(func $misbehave {stores})")));
    assert_eq!(meet(&mut instance, world, 2), Ok(()));
    meet(&mut instance, world, 3)
}

#[test]
fn answers_that_mean_nothing_are_refused_by_what_is_wrong() {
    for (world, stores, expected) in [
        ("sample", "(i32.store (i32.const 184) (i32.const 2))", "to 3 traces has 2 decisions and 0 weights"),
        ("sample", "(i32.store8 (i32.const 514) (i32.const 4))", "the decision 4; there are 0 to 3"),
        (
            "sample",
            "(i32.store (i32.const 188) (i32.const 600)) (i32.store (i32.const 192) (i32.const 3))",
            "the weight 0; a trace stands for itself",
        ),
        ("decode", "(i32.store (i32.const 180) (i32.const 4))", "has used 4 bytes of 3"),
        (
            "decode",
            "(i32.store (i32.const 600) (i32.const 2)) (i32.store (i32.const 604) (i32.const 9))
             (i32.store (i32.const 216) (i32.const 600)) (i32.store (i32.const 220) (i32.const 1))",
            "rejects bytes 2 to 9 of 3",
        ),
    ] {
        match odd(world, stores) {
            Err(CallError::Refused(message)) => assert!(message.contains(expected), "{message:?} not {expected:?}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn what_a_world_cannot_have_keeps_a_plugin_from_going_live() {
    let bench = Bench::new();
    let refusal = |guest: &Guest| {
        let plugin = bench.plugin(guest);
        let package = load::load(&bench.engine, &plugin, &plugin.component).unwrap();
        Generation::new(package, &plugin, &plugin.component, 1).map(drop).unwrap_err().to_string()
    };
    for (world, from, to, expected) in [
        // Read and written; of a span; an attribute of a resource; text.
        ("sample", "\\00\\01\\00\\00\")", "\\00\\01\\01\\00\")", "a sampler only reads: \"url.full\""),
        ("sample", "\\78\\00\\00\\00\\01", "\\79\\00\\00\\00\\01", "a sampler of anything but spans"),
        ("sample", "\\00\\00\\00\\00\\20", "\\03\\00\\00\\00\\20", "no intrinsic \"url.full\""),
        ("encode", "\\00\\00\\00\\00\\20", "\\03\\00\\00\\00\\20", "no intrinsic \"url.full\""),
        ("decode", "\\00\\00\\00\\00\\20", "\\03\\00\\00\\00\\20", "no intrinsic \"url.full\""),
    ] {
        let mut guest = Guest::of_world(world, "(data (i32.const 121) \"\\01\")");
        guest.replace_in_base(from, to);
        let refusal = refusal(&guest);
        assert!(refusal.contains(expected), "{world}: {refusal:?} instead of {expected:?}");
    }
}
