//! The commands on real components: those of tests/data/plugins, which were built once and are kept.

use std::path::{Path, PathBuf};

use super::sample;
use super::trial::{ClassWord, ComponentArgs, ToldArgs, Trial};
use crate::block::Signal;
use crate::otlp::view;
use crate::plugin::load::Source;
use crate::plugin::tests::guest::Guest;

/// The component of this world.
pub(super) fn kept(world: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/plugins").join(world).with_extension("wasm")
}

pub(super) fn component(file: PathBuf) -> ComponentArgs {
    ComponentArgs { file, told: ToldArgs::default() }
}

fn trial(arguments: &ComponentArgs) -> anyhow::Result<Trial> {
    Trial::load(arguments, &Source::read(&arguments.file)?)
}

#[test]
fn a_trial_does_to_spans_what_a_lane_would() {
    let mut trial = trial(&component(kept("transform"))).unwrap();
    let payload = sample::batch();
    let outcome = trial.hand.block(Signal::Traces, &payload).unwrap();
    assert_eq!((outcome.spent.rows, outcome.edited, outcome.dropped), (512, 511, 1));
    let marked = view::spans(&outcome.payload).filter(|(_, _, span)| {
        span.attributes().any(|attribute| attribute.key == "abi" && format!("{:?}", attribute.value).contains("GET"))
    });
    assert_eq!(marked.count(), 511);
    assert!(!trial.hand.wants(Signal::Logs));
    assert_eq!(trial.hand.block(Signal::Logs, b"as it was").unwrap().payload, b"as it was");
    assert!(trial.hand.counters().memory_bytes.get() > 0);
}

#[test]
fn big_components_are_taken_for_interpreters_unless_somebody_says_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("big.wasm");
    std::fs::write(&file, vec![0; 600 << 10]).unwrap();
    let mut told = ToldArgs::default();
    assert_eq!(super::trial::class(&file, &told), ClassWord::Heavy);
    assert_eq!(super::trial::class(&kept("transform"), &told), ClassWord::Light);
    told.class = Some(ClassWord::Light);
    assert_eq!(super::trial::class(&file, &told), ClassWord::Light);
}

#[test]
fn what_is_wrong_with_a_component_is_named() {
    let mut arguments = component(kept("transform"));
    arguments.told.lookups = vec!["sites=/no/such.csv".to_owned()];
    let error = trial(&arguments).err().unwrap();
    assert!(format!("{error:#}").contains("/no/such.csv"), "{error:#}");
    let error = trial(&component(kept("make"))).err().unwrap();
    assert!(format!("{error:#}").contains("make"), "{error:#}");
    // Once, and nothing of a configuration that it was not told.
    let error = format!("{:#}", trial(&component("/no/such.wasm".into())).err().unwrap());
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
}

/// The reason why a guest of these parts cannot be tried.
fn refusal(code: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.wasm");
    std::fs::write(&file, Guest::of_world("transform", code).component()).unwrap();
    format!("{:#}", trial(&component(file)).err().unwrap())
}

#[test]
fn what_it_was_told_is_spoken_of_only_where_that_may_be_the_reason() {
    let refuses = refusal("(func $configure (param i32 i32) (result i32) unreachable)");
    assert!(refuses.contains("it was told nothing"), "{refuses}");
    let tail = "(func $f (result i32) (return_call $g)) (func $g (result i32) (i32.const 1))";
    let tail = refusal(tail);
    assert!(tail.ends_with("(`class: heavy` runs it)") && !tail.contains("told nothing"), "{tail}");
}
