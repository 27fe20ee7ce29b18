//! Plants a bug in every file that is checked: a copy whose orderings are all Relaxed, for tests that must fail.
//!
//! A model checker that finds nothing proves nothing until it has found something. The copies are included as modules, so
//! their inner documentation is left out.

use std::path::Path;
use std::{env, fs};

const CHECKED: [&str; 7] = [
    "queue/extent.rs",
    "queue/progress.rs",
    "queue/quota.rs",
    "sys/handshake.rs",
    "sys/lost.rs",
    "sys/ranges.rs",
    "pipeline/drain.rs",
];

fn main() {
    let out = env::var("OUT_DIR").expect("cargo says where build scripts write");
    for file in CHECKED {
        let path = format!("../../src/{file}");
        println!("cargo::rerun-if-changed={path}");
        let source = fs::read_to_string(&path).expect("the product's sources are beside this crate");
        let mut weak: String =
            source.lines().filter(|line| !line.starts_with("//!")).fold(String::new(), |text, line| text + line + "\n");
        // There is no Relaxed fence.
        weak = weak.replace("fence(Ordering::Acquire);", "");
        for strong in ["Ordering::Release", "Ordering::Acquire", "Ordering::AcqRel"] {
            weak = weak.replace(strong, "Ordering::Relaxed");
        }
        let name = Path::new(file).file_name().expect("every path above names a file");
        fs::write(Path::new(&out).join(name), weak).expect("the directory for build scripts can be written");
    }
}
