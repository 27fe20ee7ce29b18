//! The guide for authors, plugins/README.md, held against the product: its settings against the configuration, its numbers
//! against the constants.
//!
//! Where code says otherwise than the guide, one of the two has to change. Nothing of this is in the product.

use std::path::Path;

use crate::config::{self, File, Host, Inputs, Plugin};

const GUIDE: &str = include_str!("../../../plugins/README.md");

fn source(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The block of YAML that has every key of a processor.
fn block() -> &'static str {
    let section = GUIDE.split_once("## Every setting").unwrap().1;
    section.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0
}

fn plugin(processors: &str) -> Plugin {
    let text = format!("{processors}service: {{pipelines: {{traces: {{processors: [plugin/first]}}}}}}\n");
    let host = Host { resolve: &|_| Vec::new(), is_local: &|_| false };
    let file = Some(File { name: "README.md", text: &text });
    let inputs = Inputs { file, environment: &|_| None, flags: &[], proxytrace: false, host };
    config::load(&inputs).unwrap_or_else(|error| panic!("{error}\n{text}")).config.plugins.remove(0)
}

#[test]
fn the_settings_in_the_guide_are_the_defaults() {
    let mut shown = plugin(block());
    assert!(shown.component.sha256.take().is_some() && shown.shadow.take().is_some(), "they are shown");
    let path = shown.component.path.display();
    assert_eq!(shown, plugin(&format!("processors: {{plugin/first: {{path: {path}}}}}\n")));
}

#[test]
fn the_guide_has_every_key_that_a_processor_has() {
    let code = source("src/config/plugins.rs");
    let code = code.split_once("#[cfg(test)]").unwrap().0;
    let mut keys = Vec::new();
    let asks = ["read", "read_optional", "choice", "list", "hidden", "section", "has"].map(|ask| format!(".{ask}(\""));
    for ask in asks.iter().map(String::as_str).chain(["words(&mut filter, \""]) {
        keys.extend(code.split(ask).skip(1).map(|rest| rest.split_once('"').unwrap().0));
    }
    assert!(keys.len() >= 25, "{keys:?}");
    for key in keys {
        let is_there = block().lines().any(|line| line.trim_start().starts_with(&format!("{key}:")));
        assert!(is_there, "the guide does not show `{key}`");
    }
}

#[test]
fn the_limits_in_the_guide_are_those_of_the_code() {
    let limits = [
        ("config/processors.rs", "MAX_PLUGINS: usize = 32;", "| plugins of a configuration | 32 |"),
        ("plugin/load.rs", "COMPONENT_BYTES: u64 = 64 << 20;", "| a component | 64 MiB;"),
        ("plugin/engine.rs", "LIGHT_TABLES: u32 = 8;", "8 tables"),
        ("plugin/engine.rs", "LIGHT_CORE_INSTANCES: u32 = 16;", "16 core instances"),
        ("plugin/engine.rs", "LIGHT_STACK_BYTES: usize = 256 << 10;", "| stack | 256 KiB light,"),
        ("plugin/engine.rs", "HEAVY_STACK_BYTES: usize = 4 << 20;", ", 4 MiB heavy |"),
        ("plugin/host.rs", "TABLE_ELEMENTS: usize = 100_000;", "| elements of a table of functions | 100,000 |"),
        ("plugin/sandbox.rs", "HANDLES: usize = 1024;", "and to the batch | 1,024 |"),
        ("otlp/columns/selection.rs", "MAX_FIELDS: usize = 64;", "extra ones of a patch | 64,"),
        ("otlp/columns/selection.rs", "MAX_EXTRA_FIELDS: usize = 256;", ", 256 |"),
        ("plugin/sandbox.rs", "PluginClass::Light => Duration::from_millis(50),", "and to `save` | 50 ms light,"),
        ("plugin/sandbox.rs", "PluginClass::Heavy => Duration::from_secs(10),", ", 10 s heavy |"),
        ("plugin/sandbox.rs", "SAVED_BYTES: usize = 1 << 20;", "| what `save` hands over | 1 MiB |"),
        ("plugin/imports/state.rs", "ENTRIES: usize = 16_384;", "| `state` | 16,384 entries;"),
        ("plugin/imports/state.rs", "KEY_BYTES: usize = 256;", "a key of 256 bytes"),
        ("plugin/imports/state.rs", "VALUE_BYTES: usize = 64 << 10;", "a value of 64 KiB |"),
        ("plugin/imports/lookup.rs", "FILE_BYTES: u64 = 64 << 20;", "| `lookup` | a file of 64 MiB,"),
        ("plugin/imports/lookup.rs", "ANSWER_BYTES: usize = 8 << 20;", "8 MiB of answers a call |"),
        ("plugin/imports/log.rs", "LINE_BYTES: usize = 4096;", "| `log` | a line of 4 KiB;"),
        ("plugin/imports/log.rs", "BURST_SECONDS: u64 = 10;", "the lines of 10 seconds at once |"),
        ("plugin/imports/metrics.rs", "COUNTERS: usize = 64;", "| counters of its own | 64 |"),
        ("transform/plugin/program.rs", "TRIED_ROWS: u64 = 8;", "a start tries it with | 8 |"),
        ("transform/plugin/enrich.rs", "MOST: usize = 1 << 16;", "| 65,536,"),
        ("transform/plugin/enrich.rs", "MOST_BYTES: usize = 8 << 20;", "and 8 MiB |"),
    ];
    for (file, code, guide) in limits {
        assert!(
            source(&format!("src/{file}")).contains(code),
            "{file} has another `{code}`, so has the guide to: {guide}"
        );
        assert!(GUIDE.contains(guide), "the guide lacks `{guide}`");
    }
}
