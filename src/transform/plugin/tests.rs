//! A plugin as a step: which rows it is shown, what becomes of what it fails on, fields of one patch, and its shadow.
//!
//! The guests have one field, `url.full`, and misbehave when the number of rows is odd.

use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use prost::Message;

use super::enrich::tests::{Bench, Tried, kept, resource, text};
use super::*;
use crate::block::{Made as BlockMade, Signal};
use crate::config::{Plugin, PluginComponent, PluginFilter};
use crate::plugin::tests::guest::Guest;
use crate::transform::{Chain, Outcome};

macro_rules! hostile {
    ($name:literal) => {
        include_str!(concat!("../../../tests/guests/hostile/", $name, ".wat"))
    };
}

/// Drops the first row that it is shown.
const DROPS: &str = "(func $transform (param $rows i32) (param i32 i32) (result i32)
    (i32.store (i32.const 180) (i32.const 400)) (i32.store (i32.const 184) (i32.const 1)) (i32.const 176))";

fn of_world(world: &'static str, code: &str) -> Vec<u8> {
    Guest::of_world(world, code).component()
}

fn transform(code: &str) -> Vec<u8> {
    of_world("transform", code)
}

/// A step of a plugin that is configured so.
fn step(bench: &Bench, plugin: &Plugin) -> Tried {
    let counters = Arc::new(StepCounters::default());
    Tried { step: PluginStep::new(bench.load(plugin, 1).unwrap(), None, Arc::clone(&counters)), counters }
}

/// A span of this name; with a URL, and of a sourcetype if there is one.
fn span(name: &str, sourcetype: &str) -> Span {
    let sourcetype = (!sourcetype.is_empty()).then(|| text("uberagent.sourcetype", sourcetype));
    let attributes = [text("url.full", name)].into_iter().chain(sourcetype).collect();
    Span { name: name.to_owned(), attributes, ..Span::default() }
}

/// Two services of two sourcetypes.
fn mixed() -> TracesData {
    let spans = |names: [&str; 3]| vec![span(names[0], "Boot"), span(names[1], "Logon"), span(names[2], "")];
    TracesData {
        resource_spans: vec![resource("shop", spans(["a", "b", "c"])), resource("bank", spans(["d", "e", "f"]))],
    }
}

/// So many spans, named by their numbers.
fn numbered(spans: usize) -> TracesData {
    TracesData { resource_spans: vec![resource("shop", (0..spans).map(|n| span(&n.to_string(), "")).collect())] }
}

fn spans(block: &TracesData) -> impl Iterator<Item = &Span> {
    block.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans)
}

/// The names of the spans of a block, sorted: what a filter leaves out stands behind the rest.
fn names(block: &TracesData) -> String {
    let mut names: Vec<&str> = spans(block).map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    names.concat()
}

#[test]
fn a_filter_shows_the_rows_of_its_services_and_sourcetypes_and_no_others() {
    let bench = Bench::new();
    for (services, sourcetypes, shown) in [
        (&["shop"][..], &[][..], "abc"),
        (&["bank", "elsewhere"], &[], "def"),
        (&[], &["Boot"], "ad"),
        (&[], &["Boot", "Logon"], "abde"),
        (&["bank"], &["Logon"], "e"),
        (&["bank"], &["Logoff"], ""),
        (&["sho"], &[], ""),
        (&["shop", "bank"], &[], "abcdef"),
    ] {
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let filter =
            PluginFilter { services: strings(services), sourcetypes: strings(sourcetypes), ..PluginFilter::default() };
        let mut tried = step(&bench, &Plugin { filter, ..bench.plugin(&kept("enrich")) });
        let out = tried.run(&mixed()).unwrap();
        assert_eq!(out.is_some(), !shown.is_empty(), "{services:?} {sourcetypes:?}");
        let out = out.unwrap_or_else(mixed);
        assert_eq!(names(&out), "abcdef", "nothing else happens to anything");
        let has = |span: &&Span| span.attributes.iter().any(|attribute| attribute.key == "abi");
        let mut edited: Vec<&str> = spans(&out).filter(has).map(|span| span.name.as_str()).collect();
        edited.sort_unstable();
        assert_eq!(edited.concat(), shown, "{services:?} {sourcetypes:?}");
        assert_eq!(tried.counters.plugin.rows.get(), shown.len() as u64);
    }
}

#[test]
fn a_filter_of_sources_lets_other_blocks_by_without_a_look() {
    let bench = Bench::new();
    let program = bench.load(&bench.plugin(&kept("enrich")), 1).unwrap();
    let counters = Arc::<StepCounters>::default();
    let wanted = Wanted { program, sources: Some(vec![SourceId(3), SourceId(5)]), counters: Arc::clone(&counters) };
    let mut chain = Chain::of_plugins(vec![wanted]);
    for (source, signal, calls) in [(4, Signal::Traces, 0), (5, Signal::Logs, 0), (5, Signal::Traces, 1)] {
        let mut meta = Meta::empty(signal, BlockMade::Passed, SourceId(source), 1);
        meta.spans = 6;
        assert_eq!(chain.takes(&meta), calls > 0);
        let outcome = chain.run(&meta, &mut mixed().encode_to_vec(), Duration::ZERO);
        assert_eq!(outcome == Outcome::Untouched, calls == 0);
        assert_eq!(counters.plugin.calls.get(), calls);
    }
}

#[test]
fn one_that_cannot_hand_over_is_given_a_rest() {
    let bench = Bench::new();
    let mut tried = bench.step(&transform(hostile!("clings")));
    let failures: Vec<u64> = (0..8)
        .map(|_| {
            assert!(tried.run(&numbered(3)).is_ok_and(|out| out.is_none()) || tried.counters.circuit.get() == 2);
            tried.counters.plugin.failures()
        })
        .collect();
    // Five open the circuit, and the first block found it small.
    assert_eq!((failures, tried.counters.circuit.get()), (vec![0, 1, 2, 3, 4, 5, 5, 5], 2));
    assert_eq!(tried.counters.plugin.time_outs.get(), 5);
}

#[test]
fn one_that_cannot_be_restarted_never_meets_a_lane() {
    let bench = Bench::new();
    let loops = transform("(func $save (result i32) (loop $l (br $l)) (i32.const 240))");
    let error = bench.load(&bench.plugin(&loops), 1).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.ends_with("cannot be restarted with what it saves: used more than 50 ms of processor time"),
        "{error}"
    );
    let refuses = transform("(func $restore (param i32 i32) (result i32) unreachable)");
    let error = bench.load(&bench.plugin(&refuses), 1).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot be restarted with what it saves: no instance could be made: trapped"), "{error}");
}

#[test]
fn one_that_refuses_all_that_it_is_shown_is_said_to_fail_until_it_does_no_more() {
    let bench = Bench::new();
    // An answer that it has made is undone.
    let undo = "(func $behave (i64.store (i32.const 176) (i64.const 0)) (i64.store (i32.const 184) (i64.const 0)))";
    let component = transform(&format!("{}\n{undo}", hostile!("refuses")));
    let mut tried = step(&bench, &Plugin { on_error: OnError::Pass, ..bench.plugin(&component) });
    let mut fails = |rows, blocks| -> u64 {
        (0..blocks).for_each(|_| assert_eq!(tried.run(&numbered(rows)), Ok(None)));
        tried.counters.fails.get()
    };
    assert_eq!([(2, 5), (3, 3), (3, 1), (2, 12), (2, 1)].map(|(rows, blocks)| fails(rows, blocks)), [0, 0, 1, 1, 0]);
    assert_eq!(tried.counters.last_failure().as_deref(), Some("refused: no\\ninfo: all is well"));
    assert_eq!(tried.counters.circuit.get(), 0);
}

fn tried_names(tried: &mut Tried, block: &TracesData) -> Result<String, &'static str> {
    tried.run(block).map(|out| names(&out.unwrap_or_else(|| block.clone())))
}

#[test]
fn a_shadow_is_compared_and_changes_nothing() {
    let bench = Bench::new();
    let other = tempfile::tempdir().unwrap();
    let edits = include_str!("../../../tests/guests/echo.wat");
    for (live, shadow, rows, differences) in [
        (DROPS, DROPS, 5, 0),
        ("", DROPS, 5, 1),
        (DROPS, "", 5, 1),
        // It says of every row what that row has.
        (edits, edits, 5, 0),
        (edits, DROPS, 5, 5),
        // What it fails on is not compared, and concerns nobody.
        (DROPS, hostile!("refuses"), 0, 0),
    ] {
        let path = other.path().join("shadow.wasm");
        let refuses = u64::from(shadow == hostile!("refuses"));
        std::fs::write(&path, transform(shadow)).unwrap();
        let shadow = Some(PluginComponent { path, sha256: None, config: "{}".to_owned() });
        let plugin = bench.plugin(&transform(live));
        let alone = tried_names(&mut step(&bench, &plugin), &numbered(5));
        let mut both = step(&bench, &Plugin { shadow, ..plugin });
        assert_eq!(tried_names(&mut both, &numbered(5)), alone);
        let counters = &both.counters;
        assert_eq!((counters.shadow_rows.get(), counters.shadow_differences.get()), (rows, differences));
        assert_eq!((counters.plugin.calls.get(), counters.shadow.calls.get()), (1, 1));
        assert_eq!(counters.shadow.refused.get(), refuses);
    }
}

/// What its answer says of a row that is not there.
const NONSENSE: &str =
    "(func $misbehave (i32.store (i32.const 180) (i32.const 404)) (i32.store (i32.const 184) (i32.const 1)))
     (data (i32.const 404) \"\\09\")";

#[test]
fn a_shadow_that_fails_is_counted_by_reason_and_given_a_rest() {
    let bench = Bench::new();
    let other = tempfile::tempdir().unwrap();
    type Count = fn(&crate::plugin::counters::Counters) -> u64;
    for (shadow, failures) in [
        (hostile!("loops"), (|of| of.time_outs.get()) as Count),
        (hostile!("hoards"), |of| of.out_of_memory.get()),
        (NONSENSE, |of| of.bad_patches.get()),
    ] {
        let path = other.path().join("shadow.wasm");
        std::fs::write(&path, transform(shadow)).unwrap();
        let shadow = Some(PluginComponent { path, sha256: None, config: "{}".to_owned() });
        let mut both = step(&bench, &Plugin { shadow, ..bench.plugin(&transform(DROPS)) });
        for _ in 0..10 {
            assert_eq!(tried_names(&mut both, &numbered(3)).as_deref(), Ok("12"));
        }
        let counters = &both.counters;
        assert_eq!((failures(&counters.shadow), counters.shadow.calls.get(), counters.shadow_circuit.get()), (5, 5, 2));
        assert_eq!(
            (counters.shadow.failures(), counters.shadow_rows.get()),
            (5, 0),
            "what breaks a rule is not compared"
        );
        assert_eq!((counters.plugin.calls.get(), counters.circuit.get()), (10, 0), "the first one goes on");
    }
}

/// Of an odd number of rows, copies `url.full` to a field of the patch alone, which is described by 16 bytes at 320; its
/// key is at 352.
fn with_extra(field: &str, key: &str) -> Vec<u8> {
    let code = format!(
        "(data (i32.const 320) \"{field}\") (data (i32.const 352) \"{key}\")
        (func $transform (param $rows i32) (param $columns i32) (param i32) (result i32)
          (local $odd i32)
          (memory.copy (i32.const 260) (i32.add (local.get $columns) (i32.const 4)) (i32.const 24))
          (i32.store (i32.const 196) (i32.const 256))
          (i32.store (i32.const 200) (i32.const 1))
          (local.set $odd (i32.and (local.get $rows) (i32.const 1)))
          (i32.store16 (i32.const 256) (local.get $odd))
          (i32.store (i32.const 188) (i32.const 320))
          (i32.store (i32.const 192) (local.get $odd))
          (i32.const 176))"
    );
    transform(&code)
}

#[test]
fn a_patch_brings_fields_of_its_own_or_is_refused_for_them() {
    let bench = Bench::new();
    // Level, key and its length, kind, read, write.
    let field = |level: u8, length: u8, kind: u8, write: u8| {
        format!("\\{level:02x}\\00\\00\\00\\60\\01\\00\\00\\{length:02x}\\00\\00\\00\\{kind:02x}\\00\\{write:02x}\\00")
    };
    let mut good = bench.step(&with_extra(&field(0, 6, 0, 1), "copied"));
    let out = good.run(&numbered(3)).unwrap().unwrap();
    let copied: Vec<_> = spans(&out).map(|span| span.attributes.last().unwrap().clone()).collect();
    assert_eq!(copied, [text("copied", "0"), text("copied", "1"), text("copied", "2")]);
    for (field, key, reason) in [
        (field(9, 6, 0, 1), "copied", "refused"),
        (field(0, 6, 99, 1), "copied", "refused"),
        (field(0, 6, 0, 0), "copied", "bad_patch"),
        (field(3, 6, 0, 1), "copied", "bad_patch"),
        (field(0, 8, 0, 1), "url.full", "bad_patch"),
        (field(0, 6, 1, 1), "copied", "bad_patch"),
    ] {
        let mut bad = bench.step(&with_extra(&field, key));
        assert_eq!(bad.run(&numbered(3)), Err(reason), "{field} {key}");
        assert_eq!(bad.run(&numbered(2)).map(|_| ()), Ok(()), "the next one is done");
    }
}

#[test]
fn the_policy_decides_over_every_kind_of_failure_and_over_the_shown_rows_alone() {
    let bench = Bench::new();
    for (code, reason, calls) in [
        (hostile!("traps"), "trap", 2),
        (hostile!("recurses"), "trap", 2),
        (hostile!("loops"), "time_out", 1),
        (hostile!("hoards"), "out_of_memory", 2),
        (hostile!("refuses"), "refused", 1),
        (NONSENSE, "bad_patch", 1),
    ] {
        let component = transform(code);
        for on_error in [OnError::Pass, OnError::Drop, OnError::Quarantine] {
            // Three of the six rows of a block are shown, and then all of a block of three.
            let filter = PluginFilter { services: vec!["shop".to_owned()], ..PluginFilter::default() };
            let mut tried = step(&bench, &Plugin { on_error, filter, ..bench.plugin(&component) });
            let expected = |all: &str, left: &str| match on_error {
                OnError::Pass => Ok(all.to_owned()),
                OnError::Drop => Ok(left.to_owned()),
                OnError::Quarantine => Err(reason),
            };
            assert_eq!(tried_names(&mut tried, &mixed()), expected("abcdef", "def"), "{reason}");
            assert_eq!(tried_names(&mut tried, &numbered(3)), expected("012", ""), "{reason}");
            let counters = &tried.counters;
            let not_done = [&counters.passed_blocks, &counters.dropped_blocks, &counters.quarantined_blocks]
                .map(|count| count.get());
            assert_eq!(
                not_done,
                [OnError::Pass, OnError::Drop, OnError::Quarantine].map(|it| 2 * u64::from(it == on_error))
            );
            assert_eq!(counters.plugin.failures() + counters.plugin.refused.get(), 2, "{reason}: once a block");
            assert_eq!((counters.plugin.calls.get(), counters.retries.get()), (2 * calls, 2 * (calls - 1)), "{reason}");
        }
    }
}
