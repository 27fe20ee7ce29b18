//! Guests that misbehave: each is stopped with the right error within its limit, and neither the next call nor a neighbour
//! notices. `tests/guests/hostile` has them in text.

use super::*;
use crate::otlp::writer::push_bytes_field;
use crate::plugin::error::LoadError;
use crate::sys::clock;

macro_rules! hostile {
    ($name:literal) => {
        Guest::new(include_str!(concat!("../../../tests/guests/hostile/", $name, ".wat")))
    };
}

/// A guest misbehaves once between calls that are answered, beside a good neighbour.
fn meet(guest: &Guest) -> (Result<Answer, CallError>, Instance) {
    let bench = Bench::new();
    let (mut neighbour, mut instance) = (bench.instance(&echo()), bench.instance(guest));
    assert_eq!(call(&mut instance, 2), Ok(Answer::default()), "it behaves when the rows are even");
    instance.accept();
    let outcome = call(&mut instance, 3);
    assert_eq!(call(&mut neighbour, 3), Ok(echoed()), "the neighbour notices nothing");
    let starts = instance.counters().starts.get();
    match &outcome {
        Ok(_) | Err(CallError::Refused(_)) => assert_eq!(starts, 1, "an answer costs no instance"),
        Err(_) => assert_eq!(call(&mut instance, 2), Ok(Answer::default()), "the next call works"),
    }
    (outcome, instance)
}

fn trap(guest: &Guest) -> String {
    match meet(guest).0 {
        Err(CallError::Trap(message)) => message,
        other => panic!("no trap: {other:?}"),
    }
}

#[test]
fn a_loop_ends_with_its_processor_time() {
    let begin_ns = clock::thread_cpu_ns();
    let (outcome, instance) = meet(&hostile!("loops"));
    assert_eq!(outcome, Err(CallError::TimeOut { budget: Duration::from_millis(100) }));
    assert_eq!((instance.counters().time_outs.get(), instance.counters().starts.get()), (1, 2));
    let used_ns = instance.counters().cpu_ns.get();
    assert!(used_ns >= 100_000_000, "stopped before its budget, after {used_ns} ns");
    // The tick comes late on a busy machine, yet it comes; what compiling took is in this too.
    assert!(clock::thread_cpu_ns() - begin_ns < 20_000_000_000);
}

#[test]
fn a_batch_has_the_time_of_its_rows_and_of_its_bytes() {
    let bench = Bench::new();
    let mut plugin = bench.plugin(&hostile!("loops"));
    plugin.limits.cpu = Duration::from_millis(1);
    let mut instance = Instance::new(bench.generation(&plugin), Arc::default());
    assert_eq!(call(&mut instance, 3), Err(CallError::TimeOut { budget: Duration::from_millis(1) }));
    // What nobody gathers can still be asked for.
    let mut long = payload(3);
    push_bytes_field(&mut long, 0x7a, &vec![0; 200 << 10]);
    let budget = Duration::from_micros(20) * (3 + 200);
    assert_eq!(call_on(&mut instance, long), Err(CallError::TimeOut { budget }));
}

#[test]
fn recursion_ends_with_the_stack_and_the_thread_lives() {
    let (outcome, instance) = meet(&hostile!("recurses"));
    assert_eq!(outcome, Err(CallError::StackOverflow));
    assert_eq!(instance.counters().traps.get(), 1);
}

#[test]
fn memory_ends_at_its_limit() {
    let (outcome, instance) = meet(&hostile!("hoards"));
    assert_eq!(outcome, Err(CallError::OutOfMemory { limit_bytes: 64 << 20 }));
    assert_eq!(instance.counters().out_of_memory.get(), 1);
    assert!(instance.counters().memory_bytes.get() <= 1 << 20, "the new instance starts small");
}

#[test]
fn a_trap_says_where() {
    let message = trap(&hostile!("traps"));
    assert_eq!(message, "wasm `unreachable` instruction executed; in cards::check; misbehave; transform; function 4");
}

#[test]
fn a_trap_says_what_the_plugin_said_of_it() {
    assert_eq!(
        trap(&hostile!("panics")),
        "wasm `unreachable` instruction executed; it said: panicked at src/lib.rs:7: no host; in misbehave; transform; function 5"
    );
}

#[test]
fn answers_that_cannot_be_read_are_traps() {
    let message = trap(&hostile!("repeats"));
    assert!(message.contains("too much data") && !message.contains("\\n"), "{message}");
    let message = trap(&hostile!("points_outside"));
    assert!(message.contains("out of bounds"), "{message}");
    let message = trap(&hostile!("garbles"));
    assert!(message.contains("utf-8"), "{message}");
}

#[test]
fn a_refusal_is_an_answer_in_one_line() {
    let (outcome, instance) = meet(&hostile!("refuses"));
    assert_eq!(outcome, Err(CallError::Refused("no\\ninfo: all is well".to_owned())));
    assert_eq!(instance.counters().refused.get(), 1);
}

#[test]
fn a_flood_of_log_lines_is_cut_to_the_rate() {
    let lines = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
    // The flood itself takes longer than a call may.
    let mut bench_guest = hostile!("shouts");
    bench_guest.replace("61440", "61");
    let (outcome, instance) = tracing::subscriber::with_default(lines, || meet(&bench_guest));
    assert_eq!(outcome, Ok(Answer::default()));
    assert_eq!(instance.counters().lines_suppressed.get(), 900);
    let lines = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
    let (outcome, _) = tracing::subscriber::with_default(lines, || meet(&hostile!("shouts")));
    let is_stopped = matches!(outcome, Err(CallError::TimeOut { .. }));
    assert!(is_stopped || outcome == Ok(Answer::default()), "{outcome:?}");
}

#[test]
fn a_flood_of_state_ends_at_its_limit() {
    assert_eq!(meet(&hostile!("remembers")).0, Ok(Answer::default()));
}

#[test]
fn what_a_call_counted_is_forgotten_when_it_fails_and_counts_when_it_is_accepted() {
    let bench = Bench::new();
    let mut instance = bench.instance(&hostile!("counts"));
    let counted = |instance: &Instance| instance.counters().own()[0].value.get();
    for accepted in 1..=3 {
        assert!(call(&mut instance, 2).is_ok(), "nothing is left in its state");
        assert_eq!(counted(&instance), accepted - 1, "not yet accepted");
        instance.accept();
        assert_eq!(counted(&instance), accepted);
        assert!(matches!(call(&mut instance, 3), Err(CallError::Trap(_))));
        assert!(call(&mut instance, 2).is_ok());
        instance.reject();
        assert_eq!(counted(&instance), accepted);
    }
    assert_eq!(instance.counters().own()[0].name, "guest");
}

#[test]
fn an_instance_that_has_grown_is_replaced_before_the_next_call() {
    let (outcome, mut instance) = meet(&hostile!("swells"));
    assert_eq!(outcome, Ok(Answer::default()));
    assert!(instance.counters().memory_bytes.get() > 33 << 20);
    assert_eq!(call(&mut instance, 2), Ok(Answer::default()));
    assert_eq!(instance.counters().starts.get(), 2);
    assert!(instance.counters().memory_bytes.get() < 1 << 20);
}

#[test]
fn one_that_has_grown_and_cannot_save_is_replaced_in_a_moment_and_that_is_said() {
    let (outcome, mut instance) = meet(&hostile!("clings"));
    assert_eq!(outcome, Ok(Answer::default()));
    let begin_ns = instance.counters().cpu_ns.get();
    assert_eq!(call(&mut instance, 2), Ok(Answer::default()));
    let budget = Duration::from_millis(50);
    assert_eq!(instance.lapse(), Some(CallError::TimeOut { budget }));
    assert_eq!((instance.lapse(), instance.counters().time_outs.get(), instance.counters().starts.get()), (None, 1, 2));
    let used_ns = instance.counters().cpu_ns.get() - begin_ns;
    assert!(used_ns < 500_000_000, "{used_ns} ns");
}

#[test]
fn what_a_slot_has_no_room_for_runs_as_heavy() {
    let bench = Bench::new();
    let mut plugin = bench.plugin(&Guest::new("(memory $second 1)"));
    plugin.class = PluginClass::Heavy;
    let package = load::load(&bench.engine, &plugin, &plugin.component).unwrap();
    assert_eq!(
        Generation::new(package, &plugin, &plugin.component, 1).map(|_| ()).map_err(|error| error.to_string()),
        Ok(())
    );
}

/// Why a guest does not go live.
fn refusal(guest: &Guest) -> String {
    let bench = Bench::new();
    let plugin = bench.plugin(guest);
    let package = load::load(&bench.engine, &plugin, &plugin.component);
    let generation = package.and_then(|package| Generation::new(package, &plugin, &plugin.component, 1));
    let error: LoadError = generation.map(|_| ()).unwrap_err();
    // The bench is as good as before.
    assert_eq!(call(&mut bench.instance(&echo()), 3), Ok(echoed()));
    error.to_string()
}

#[test]
fn a_plugin_that_fails_to_start_does_not_go_live() {
    let configure = |body: &str| Guest::new(&format!("(func $configure (param i32 i32) (result i32) {body})"));
    for (guest, expected) in [
        (configure("unreachable"), "could not be configured: trapped"),
        (configure("(loop $l (br $l)) (i32.const 128)"), "could not be started: used more than 50 ms"),
        (hostile!("dawdles"), "used more than 50 ms of processor time; a light plugin is started between two blocks"),
        (Guest::new("(func $begin (loop $l (br $l)))\n(start $begin)"), "could not be started: used more than 50 ms"),
        (
            Guest::new("(memory $second 1)"),
            "memories count of 2 exceeds the per-instance limit of 1 (`class: heavy` sets no",
        ),
        (Guest::with_base("\"memory\") 1)", "\"memory\") 2000)"), "needs more than 67108864 bytes of memory"),
        // Its field has a level, a kind, no name.
        (
            Guest::with_base("\"\\00\\00\\00\\00\\20", "\"\\09\\00\\00\\00\\20"),
            "its field \"url.full\" has the level 9",
        ),
        (
            Guest::with_base("\\08\\00\\00\\00\\00\\01", "\\08\\00\\00\\00\\63\\01"),
            "its field \"url.full\" has the kind 99",
        ),
        (Guest::with_base("\\20\\00\\00\\00\\08", "\\20\\00\\00\\00\\00"), "\"\" as a name, a version or a key"),
        (Guest::with_base("\\00\\01\\01\\00\")", "\\00\\00\\00\\00\")"), "\"url.full\" is neither read nor written"),
        (Guest::with_base("\\78\\00\\00\\00\\01", "\\78\\00\\00\\00\\00"), "no signal: it would never be called"),
        (Guest::with_base("\\78\\00\\00\\00\\01", "\\20\\00\\00\\00\\01"), "it wants signal 117"),
    ] {
        let refusal = refusal(&guest);
        assert!(refusal.contains(expected), "{refusal:?} instead of {expected:?}");
    }
}
