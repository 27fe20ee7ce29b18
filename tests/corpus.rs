//! Replays what fuzzing has kept: `tests/data/fuzz`, a directory a target, through the targets of `tests/fuzz`.
//!
//! Inputs that once broke something, and a minimised set that reaches everything that was reached. No libFuzzer is
//! needed; `tests/fuzz/run` makes new ones.

use std::path::Path;
use std::{fs, panic};

#[path = "fuzz/targets.rs"]
mod targets;

#[test]
fn every_kept_input_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz");
    for (name, target) in targets::TARGETS {
        let mut files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{name} has {} inputs", files.len());
        for file in files {
            let input = fs::read(&file).unwrap();
            assert!(panic::catch_unwind(|| target(&input)).is_ok(), "{}", file.display());
        }
    }
}
