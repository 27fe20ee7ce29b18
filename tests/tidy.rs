//! Reads the sources and holds them to the rules that no compiler knows.
//!
//! The import table is the first: stages are strangers, only `pipeline` joins them, and a module that is not in the table
//! fails. Then the header of every file, the sizes of files and functions, where `unsafe` may stand, words that mean
//! unfinished work, a reason for every dependency, and a line in the documentation for every directive of the units.
//! Each rule is tested with a planted source that breaks it. Text is scanned with comments and strings blanked, which is
//! enough for these rules; this is no parser. Sources are read once; nothing is written.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// What each module of the library may import. The ground first, then in the order in which a record travels.
const IMPORTS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("block", &[]),
    ("otlp", &["block"]),
    ("config", &["block"]),
    ("telemetry", &["block", "config"]),
    ("uberagent", &["block", "config", "otlp", "sys"]),
    ("receive", &["block", "config", "otlp", "plugin", "sys", "telemetry", "uberagent"]),
    ("plugin", &["block", "config", "otlp", "sys", "telemetry"]),
    ("transform", &["block", "config", "otlp", "plugin", "telemetry"]),
    ("queue", &["block", "config", "sys", "telemetry"]),
    ("deliver", &["block", "config", "telemetry"]),
    ("export", &["block", "config", "otlp", "plugin", "sys", "telemetry"]),
    ("store", &["block", "config", "otlp", "sys", "telemetry"]),
    ("query", &["config", "otlp", "store", "telemetry"]),
    ("analyse", &["config", "otlp", "query", "store", "telemetry"]),
    ("serve", &["analyse", "config", "otlp", "query", "store", "sys", "telemetry"]),
    (
        "pipeline",
        &[
            "block",
            "config",
            "deliver",
            "export",
            "otlp",
            "plugin",
            "queue",
            "receive",
            "serve",
            "store",
            "sys",
            "telemetry",
            "transform",
            "uberagent",
        ],
    ),
    ("fleet", &[]),
    (
        "cli",
        &[
            "analyse",
            "block",
            "config",
            "fleet",
            "otlp",
            "pipeline",
            "plugin",
            "query",
            "queue",
            "serve",
            "sys",
            "telemetry",
        ],
    ),
    ("sim", &["block", "config", "deliver", "queue", "sys", "telemetry"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Files that import nothing of the crate, so that a model checker can compile them alone.
const ALONE: &[&str] = &[
    "src/pipeline/drain.rs",
    "src/queue/extent.rs",
    "src/queue/progress.rs",
    "src/queue/quota.rs",
    "src/sys/handshake.rs",
    "src/sys/lost.rs",
    "src/sys/ranges.rs",
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/sys/", "src/queue/", "src/plugin/cache.rs", "tests/allocations.rs", "tests/loom/"];

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_INLINE_TEST_LINES: usize = 150;
const HEADER_LINES: std::ops::RangeInclusive<usize> = 3..=15;
/// A header with a drawing or a table of a format in it may be this long.
const MAX_FORMAT_HEADER_LINES: usize = 40;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

#[test]
fn the_sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut offences = Vec::new();
    for path in files(root) {
        let name = path.strip_prefix(root).expect("files are found under the root").display().to_string();
        // What is not text is data.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        workplace(&name, &text, &mut offences);
        if name.ends_with(".rs") {
            offences.extend(check(&name, &text));
        }
        if name.ends_with("Cargo.toml") {
            dependencies(&name, &text, &mut offences);
        }
    }
    let read = |name: &str| std::fs::read_to_string(root.join("systemd").join(name)).unwrap();
    for unit in ["millrace.service", "millrace.socket"] {
        directives(unit, &read(unit), &read("README.md"), &mut offences);
    }
    let offences: Vec<String> = offences.iter().map(Offence::to_string).collect();
    assert!(offences.is_empty(), "{} offences\n{}", offences.len(), offences.join("\n"));
}

/// Every file of the project that people wrote.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> =
        ["src", "bench", "tests", "plugins", "wit", "systemd", ".ci"].iter().map(|name| root.join(name)).collect();
    found.extend(["Cargo.toml", "README.md", ".clippy.toml"].iter().map(|name| root.join(name)));
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.map(|entry| entry.expect("a directory of the project can be read").path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match entry.is_dir() {
                true if ["target", "node_modules", "__pycache__"].contains(&name.as_str()) => {}
                true => open.push(entry),
                false => found.push(entry),
            }
        }
    }
    found.sort();
    found
}

/// The rules for one Rust source.
fn check(path: &str, text: &str) -> Vec<Offence> {
    let mut offences = Vec::new();
    let code = blank_comments_and_strings(text);
    let (product, inline_test_lines) = blank_tests(&code);
    let is_test = path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
    header(path, text, is_test, &mut offences);
    functions(path, &code, &mut offences);
    unfinished(path, text, &mut offences);
    placement_of_unsafe(path, &code, &mut offences);
    if inline_test_lines > MAX_INLINE_TEST_LINES {
        let what = format!("{inline_test_lines} lines of tests: over {MAX_INLINE_TEST_LINES} they go to a file");
        offences.push(offence(path, 1, what));
    }
    if !is_test {
        let lines = text.lines().count() - inline_test_lines;
        if lines > MAX_FILE_LINES {
            offences.push(offence(path, 1, format!("{lines} lines without tests, more than {MAX_FILE_LINES}")));
        }
        if path.starts_with("src/") {
            imports(path, &product, &mut offences);
        }
    }
    offences
}

fn offence(path: &str, line: usize, what: String) -> Offence {
    Offence { path: path.to_owned(), line, what }
}

fn imports(path: &str, code: &str, offences: &mut Vec<Offence>) {
    let parts: Vec<&str> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let module = parts[0];
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        offences.push(offence(path, 1, format!("the module {module:?} is not in the import table")));
        return;
    };
    for (line, imported) in imported_modules(code, parts.iter().filter(|part| **part != "mod").count()) {
        let is_known = IMPORTS.iter().any(|(name, _)| *name == imported);
        let is_alone = ALONE.contains(&path);
        if is_known && (is_alone || imported != module && !allowed.contains(&imported.as_str())) {
            offences.push(offence(path, line, format!("{module} may not import {imported}")));
        }
    }
}

/// The modules of the crate that code names: by `crate::`, by `millrace::`, or by as many `super::` as lead to the root.
fn imported_modules(code: &str, depth: usize) -> BTreeSet<(usize, String)> {
    let climb = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "millrace::", &climb] {
        for (at, _) in code.match_indices(prefix).filter(|(at, _)| !code[..*at].ends_with(is_word)) {
            let rest = &code[at + prefix.len()..];
            let line = line_of(code, at);
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => top_level_items(group),
                None => vec![rest],
            };
            found.extend(names.iter().map(|name| (line, word_at_start(name).to_owned())));
        }
    }
    found
}

/// The items of a `use` group, up to its closing brace.
fn top_level_items(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn header(path: &str, text: &str, is_test: bool, offences: &mut Vec<Offence>) {
    // Tests have no invariants to state: a line that says what they hold is enough.
    let least = if is_test { 1 } else { *HEADER_LINES.start() };
    let lines: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
    let has_format = lines.iter().any(|line| line.contains("```"));
    let limit = if has_format { MAX_FORMAT_HEADER_LINES } else { *HEADER_LINES.end() };
    // Blank lines give a header air and do not make it long.
    let written = lines.iter().filter(|line| line.len() > "//!".len()).count();
    if lines.len() < least || written > limit {
        let what = format!("a header of {} lines; {least}..={limit} are wanted", lines.len());
        offences.push(offence(path, 1, what));
    }
}

fn functions(path: &str, code: &str, offences: &mut Vec<Offence>) {
    for (at, _) in code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(is_word)) {
        let name = word_at_start(&code[at + 3..]);
        let Some(open) = code[at..].find(['{', ';']).map(|offset| at + offset) else { continue };
        if name.is_empty() || code[open..].starts_with(';') {
            continue;
        }
        let lines = code[open..closing(code, open)].lines().count().saturating_sub(2);
        if lines > MAX_FUNCTION_LINES {
            let what = format!("fn {name} has {lines} lines, more than {MAX_FUNCTION_LINES}");
            offences.push(offence(path, line_of(code, at), what));
        }
    }
}

fn unfinished(path: &str, text: &str, offences: &mut Vec<Offence>) {
    // Written in halves, for this file is read too.
    let words = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("To be writ", "ten."),
    ];
    for (index, line) in text.lines().enumerate() {
        if let Some(word) = words.iter().find(|word| line.contains(**word)) {
            offences.push(offence(path, index + 1, format!("{word:?} is unfinished work")));
        }
    }
}

/// Paths of the machine that the project was written on.
fn workplace(path: &str, text: &str, offences: &mut Vec<Offence>) {
    let words = [concat!("/wo", "rk/"), concat!("/fa", "rm")];
    for (index, line) in text.lines().enumerate() {
        if let Some(word) = words.iter().find(|word| line.contains(**word)) {
            offences.push(offence(path, index + 1, format!("{word:?} is a path of one machine")));
        }
    }
}

fn placement_of_unsafe(path: &str, code: &str, offences: &mut Vec<Offence>) {
    if UNSAFE.iter().any(|place| path.starts_with(place)) {
        return;
    }
    for (at, word) in code.match_indices("unsafe") {
        let is_alone = !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word);
        if is_alone {
            offences.push(offence(path, line_of(code, at), "unsafe outside sys and queue".to_owned()));
        }
    }
}

/// Every dependency says what it is for.
fn dependencies(path: &str, text: &str, offences: &mut Vec<Offence>) {
    let mut is_list = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            is_list = line.contains("dependencies");
        } else if is_list && line.starts_with(|c: char| c.is_ascii_alphabetic()) && !line.contains('#') {
            offences.push(offence(path, index + 1, "a dependency without a reason".to_owned()));
        }
    }
}

/// Every directive of a unit has its line in the page beside it.
fn directives(unit: &str, text: &str, page: &str, offences: &mut Vec<Offence>) {
    for (index, line) in text.lines().enumerate() {
        let Some((name, _)) = line.split_once('=') else { continue };
        if !page.contains(&format!("`{name}`")) {
            offences.push(offence(unit, index + 1, format!("{name} has no reason in systemd/README.md")));
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_at_start(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// One past the brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// Blanks every item under `#[cfg(test)]`; also says how many lines their bodies have.
fn blank_tests(code: &str) -> (String, usize) {
    let mut product = code.to_owned();
    let mut lines = 0;
    while let Some(at) = product.find("#[cfg(test)]") {
        let after = at + "#[cfg(test)]".len();
        let end = match product[after..].find(['{', ';']).map(|offset| after + offset) {
            Some(open) if product[open..].starts_with('{') => closing(&product, open),
            Some(semicolon) => semicolon + 1,
            None => product.len(),
        };
        lines += product[at..end].matches('\n').count();
        let blank: String = product[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        product.replace_range(at..end, &blank);
    }
    (product, lines)
}

/// The code with comments and the insides of strings and character literals turned into spaces, line by line as it was.
fn blank_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !out.ends_with(is_word) || out.ends_with('b') => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a raw string, or 0 when this is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let start = 2 + hashes;
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// The length of a character literal, or 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        Some((at, c)) if text[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 0,
    }
}

/// Three lines as a header.
const HEADER: &str = "//! One.\n//! Two.\n//! Three.\n";

fn found(path: &str, body: &str) -> String {
    let offences: Vec<String> = check(path, &format!("{HEADER}{body}")).iter().map(Offence::to_string).collect();
    offences.join("\n")
}

#[test]
fn imports_across_stages_are_found() {
    let strangers = [
        ("src/receive/lines.rs", "use crate::queue::Log;", "receive may not import queue"),
        ("src/export/influx.rs", "use crate::{block::Block, deliver::{A, B}};", "export may not import deliver"),
        ("src/deliver/mod.rs", "fn f() { crate::export::send() }", "deliver may not import export"),
        ("src/block/mod.rs", "use super::telemetry::ledger;", "block may not import telemetry"),
        ("src/queue/cursor.rs", "use super::super::receive;", "queue may not import receive"),
        ("src/queue/extent.rs", "use crate::block::Block;", "queue may not import block"),
        ("src/serve/mod.rs", "use crate::sim::Disk;", "serve may not import sim"),
        ("src/main.rs", "fn main() { millrace::pipeline::run() }", "main may not import pipeline"),
        ("src/extra/mod.rs", "", "the module \"extra\" is not in the import table"),
    ];
    for (path, body, expected) in strangers {
        assert!(found(path, body).ends_with(expected), "{path} {body}: {:?}", found(path, body));
    }
    let friends = [
        ("src/pipeline/egress.rs", "use crate::{deliver, export, queue};"),
        ("src/receive/lines.rs", "use crate::uberagent::Encoder; // use crate::queue"),
        ("src/receive/lines.rs", "const X: &str = \"use crate::queue\"; use super::queue;"),
        ("src/receive/lines.rs", "#[cfg(test)]\nmod tests { use crate::queue::Log; }"),
        ("src/receive/lines/tests.rs", "use crate::queue::Log;"),
    ];
    for (path, body) in friends {
        assert_eq!(found(path, body), "", "{path} {body}");
    }
}

#[test]
fn sizes_are_measured() {
    let function = |lines: usize| format!("fn long<'a>(x: &'a str) {{\n{}}}\n", "    a('{', \"}\");\n".repeat(lines));
    assert_eq!(found("src/sys/x.rs", &function(70)), "");
    assert_eq!(found("src/sys/x.rs", &function(71)), "src/sys/x.rs:4: fn long has 71 lines, more than 70");
    assert_eq!(found("src/sys/x.rs", &"\n".repeat(497)), "");
    assert_eq!(found("src/sys/x.rs", &"\n".repeat(498)), "src/sys/x.rs:1: 501 lines without tests, more than 500");
    let tests = |lines: usize| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(lines));
    assert_eq!(found("src/sys/x.rs", &("\n".repeat(490) + &tests(100))), "");
    assert!(found("src/sys/x.rs", &tests(150)).contains("over 150 they go to a file"));
    assert_eq!(found("src/sys/x/tests.rs", &"\n".repeat(2000)), "");
}

#[test]
fn headers_words_and_unsafe_are_seen() {
    assert_eq!(check("src/sys/x.rs", "//! Short.\n").len(), 1);
    assert_eq!(check("src/sys/x.rs", &"//! Long.\n".repeat(16)).len(), 1);
    assert_eq!(check("src/sys/x.rs", &("//! ```text\n".to_owned() + &"//! Format.\n".repeat(39))), []);
    assert_eq!(check("src/sys/x.rs", "fn f() {}\n").len(), 1);
    assert_eq!((check("src/sys/x/tests.rs", "//! One.\n").len(), check("tests/x.rs", "").len()), (0, 1));
    assert_eq!(found("src/otlp/x.rs", "fn f() { unsafe { g() } }"), "src/otlp/x.rs:4: unsafe outside sys and queue");
    assert_eq!(found("src/otlp/x.rs", "// unsafe\n#![allow(unsafe_code)] const S: &str = r#\"unsafe \"\"#;"), "");
    assert_eq!(found("src/sys/x.rs", "fn f() { unsafe { g() } }"), "");
    for word in [concat!("to", "do!()"), concat!("// TO", "DO later"), concat!("db", "g!(x)")] {
        assert!(found("src/sys/x.rs", word).contains("unfinished"), "{word}");
    }
}

#[test]
fn machines_dependencies_and_directives_are_seen() {
    let mut offences = Vec::new();
    workplace("README.md", concat!("ok\nsee /wo", "rk/shared"), &mut offences);
    dependencies("Cargo.toml", "[dependencies]\na = \"1\" # for x\nb = \"1\"\n[lints]\nc = 1\n", &mut offences);
    directives("x.service", "[Unit]\nA=1\nB=2\n", "| `A` | why |", &mut offences);
    let lines: Vec<String> = offences.iter().map(|offence| format!("{}:{}", offence.path, offence.line)).collect();
    assert_eq!(lines, ["README.md:2", "Cargo.toml:3", "x.service:3"]);
}
