//! Instances over their life: generations, isolation; and what keeps a file from being loaded.

use super::*;
use crate::plugin::error::LoadError;

fn saves() -> Guest {
    Guest::new(include_str!("../../../tests/guests/saves.wat"))
}

#[test]
fn a_swap_hands_over_what_was_saved_and_keeps_the_old_one_when_the_new_one_fails() {
    let bench = Bench::new();
    let mut instance = bench.instance(&saves());
    assert!(call(&mut instance, 2).is_ok());
    let plugin = bench.plugin(&saves());
    for number in 2..50 {
        let package = load::load(&bench.engine, &plugin, &plugin.component).unwrap();
        let next = Arc::new(Generation::new(package, &plugin, &plugin.component, number).unwrap());
        instance.swap(next).unwrap();
        assert!(call(&mut instance, 2).is_ok());
    }
    // What this one restores is not a 2a.
    let mut other = saves();
    other.replace("0x2a", "0x2b");
    let error = instance.swap(bench.generation(&bench.plugin(&other))).unwrap_err();
    assert!(matches!(error, CallError::Start(_)), "{error}");
    assert_eq!((instance.generation().number, instance.counters().generation.get()), (49, 49));
    let starts = instance.counters().starts.get();
    assert!(call(&mut instance, 2).is_ok());
    assert_eq!(instance.counters().starts.get(), starts, "the old sandbox went on");
}

#[test]
fn one_that_cannot_save_is_replaced_all_the_same_by_one_that_begins_anew() {
    let bench = Bench::new();
    for (code, failed) in [("(loop $l (br $l)) (i32.const 240)", [1, 0]), ("unreachable", [0, 1])] {
        let mut instance = bench.instance(&Guest::new(&format!("(func $save (result i32) {code})")));
        assert!(call(&mut instance, 2).is_ok());
        // What it restores has to be a 2a: it is not asked to.
        instance.swap(bench.generation(&bench.plugin(&saves()))).unwrap();
        let counters = Arc::clone(instance.counters());
        assert_eq!([counters.time_outs.get(), counters.traps.get()], failed, "{code}");
        assert!(call(&mut instance, 2).is_ok());
        assert_eq!(counters.starts.get(), 2);
        instance.swap(bench.generation(&bench.plugin(&saves()))).unwrap();
        assert_eq!([counters.time_outs.get(), counters.traps.get()], failed, "the new one saves");
    }
}

#[test]
fn there_is_room_for_all_that_a_lane_may_run_whatever_the_configuration_had_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench { engine: Engine::start(Pool { lanes: 1, plugins: 1 }).unwrap(), directory };
    let generation = bench.generation(&bench.plugin(&saves()));
    // Thirty-two plugins with their shadows, and as many that leave.
    let mut lane: Vec<Instance> =
        (0..128).map(|_| Instance::new(Arc::clone(&generation), Arc::new(Counters::default()))).collect();
    for instance in &mut lane {
        assert_eq!(call(instance, 2), Ok(Answer::default()));
    }
    assert_eq!(lane[0].restart(), Ok(()), "one takes over from another");
    let other = bench.generation(&bench.plugin(&echo()));
    assert!(Instance::new(other, Arc::new(Counters::default())).restart().is_ok(), "another is tried");
}

#[test]
fn under_isolation_each_call_has_an_instance_of_its_own() {
    let bench = Bench::new();
    let plugin = Plugin { isolation: Isolation::Batch, ..bench.plugin(&echo()) };
    let mut instance = Instance::new(bench.generation(&plugin), Arc::new(Counters::default()));
    for calls in 1..=20 {
        assert_eq!(call(&mut instance, 3), Ok(echoed()));
        assert_eq!(instance.counters().starts.get(), calls);
    }
}

#[test]
fn big_and_broken_files_are_refused_or_loaded_and_never_more() {
    let bench = Bench::new();
    let plugin = bench.plugin(&echo());
    let good = std::fs::read(&plugin.component.path).unwrap();
    // A custom section behind the rest: its number, its length, the length of its name, and zeros.
    let padded = |bytes: u32| {
        let mut big = good.clone();
        big.push(0);
        let mut rest = bytes;
        while rest >= 0x80 {
            big.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        big.push(u8::try_from(rest).unwrap());
        big.resize(big.len() + bytes as usize, 0);
        big
    };
    let load = |bytes: &[u8]| {
        std::fs::write(&plugin.component.path, bytes).unwrap();
        load::load(&bench.engine, &plugin, &plugin.component).map(|package| package.sha256)
    };
    load(&padded(50 << 20)).unwrap();
    assert!(matches!(load(&padded(65 << 20)), Err(LoadError::TooBig { limit: 67_108_864 })));
    for part in 0..40 {
        assert!(load(&good[..good.len() * part / 40]).is_err());
    }
    assert!(matches!(load(b"\0asm\x01\0\0\0"), Err(LoadError::NotAComponent(what)) if what.contains("plugin build")));
}

#[test]
fn pins_and_capabilities_are_kept() {
    let bench = Bench::new();
    let mut plugin = bench.plugin(&Guest::new(include_str!("../../../tests/guests/hostile/shouts.wat")));
    let load = |plugin: &Plugin| load::load(&bench.engine, plugin, &plugin.component).map(|package| package.sha256);
    let sha256 = load(&plugin).unwrap();
    plugin.component.sha256 = Some(sha256);
    assert_eq!(load(&plugin).unwrap(), sha256);
    plugin.capabilities.retain(|capability| *capability != Capability::Log);
    let error = load(&plugin).unwrap_err().to_string();
    let line = "write `capabilities: [metrics, clock, state, log]` beside its `path`";
    assert_eq!(error, format!("the plugin uses `log`, which its `capabilities` do not list: {line}"));
    plugin.component.sha256 = Some([7; 32]);
    assert!(matches!(load(&plugin), Err(LoadError::Pin { .. })));
}
