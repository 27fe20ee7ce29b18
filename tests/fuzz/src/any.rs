//! One program for every target: MILLRACE_FUZZ_TARGET says which, so that all of them are one build.
//!
//! The targets themselves are plain functions in `targets.rs`, which `tests/corpus.rs` of the product replays without
//! libFuzzer.

#![no_main]

#[path = "../targets.rs"]
mod targets;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    TARGET.get_or_init(chosen)(data);
});

fn chosen() -> fn(&[u8]) {
    let wanted = std::env::var("MILLRACE_FUZZ_TARGET").unwrap_or_default();
    let found = targets::TARGETS.iter().find(|(name, _)| *name == wanted);
    let names = targets::TARGETS.map(|(name, _)| name).join(", ");
    found.unwrap_or_else(|| panic!("MILLRACE_FUZZ_TARGET is {wanted:?}, and there are: {names}")).1
}
