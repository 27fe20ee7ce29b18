//! Golden tests of the components in tests/data/plugins: every world is blessed, passes, and fails when something differs.

use super::super::otlp;
use super::super::sample;
use super::super::tests::kept as component_of;
use super::*;

fn arguments(directory: &Path, world: &str, bless: bool) -> TestArgs {
    let component = Some(component_of(world));
    TestArgs { directory: directory.to_owned(), component, bless, told: ToldArgs::default() }
}

fn case(input: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let case = directory.path().join("tests/first");
    fs::create_dir_all(&case).unwrap();
    fs::write(case.join(input), bytes).unwrap();
    (directory, case)
}

const IN_JSON: &[u8] = include_bytes!("../../../../plugins/templates/test/in.json");

#[test]
fn a_test_of_each_world_passes_after_a_blessing_and_fails_when_something_else_comes_out() {
    for (world, input, bytes, outputs) in [
        ("transform", "in.json", IN_JSON, &["expected.json"][..]),
        ("enrich", "in.json", IN_JSON, &["expected.json"]),
        ("sample", "in.json", IN_JSON, &["expected.json"]),
        ("decode", "in.bin", b"GET /", &["expected.json", "reply.txt"]),
        ("encode", "in.json", IN_JSON, &["expected.txt"]),
    ] {
        let (directory, case) = case(input, bytes);
        assert_eq!(test(&arguments(directory.path(), world, false)).unwrap_err().to_string(), "1 of 1 tests failed");
        test(&arguments(directory.path(), world, true)).unwrap();
        assert_eq!(kept(&case).unwrap(), outputs, "{world}");
        test(&arguments(directory.path(), world, false)).unwrap();
        for output in outputs {
            let file = case.join(output);
            let blessed = fs::read(&file).unwrap();
            fs::write(&file, [b"[1]\n", &blessed[..]].concat()).unwrap();
            assert!(test(&arguments(directory.path(), world, false)).is_err(), "{world} {output}");
            fs::remove_file(&file).unwrap();
            assert!(test(&arguments(directory.path(), world, false)).is_err(), "{world} without {output}");
            fs::write(&file, blessed).unwrap();
        }
        fs::write(case.join("unencodable.json"), "[0]").unwrap();
        assert!(test(&arguments(directory.path(), world, false)).is_err(), "{world}: what did not come out");
    }
}

#[test]
fn differences_are_shown_and_of_a_plugin_that_drops_everything_nothing_is_left() {
    let (directory, case) = case("in.json", IN_JSON);
    let arguments = |bless| arguments(directory.path(), "transform", bless);
    test(&arguments(true)).unwrap();
    let blessed = fs::read_to_string(case.join("expected.json")).unwrap();
    fs::write(case.join("expected.json"), blessed.replace("GET /pay", "GET /play")).unwrap();
    let fault = run(&case, &component_of("transform"), &arguments(false)).unwrap();
    assert!(fault.contains("- ") && fault.contains("GET /play"), "{fault}");
    // The plugin drops the last row: of one there is nothing left.
    let one = otlp::pretty(Signal::Traces, &sample::samples()[1].payload).unwrap();
    fs::write(case.join("in.json"), one).unwrap();
    fs::write(case.join("expected.json"), "\"dropped\"").unwrap();
    test(&arguments(false)).unwrap();
}

#[test]
fn a_decoder_that_consumes_what_is_no_whole_record_yet_fails() {
    // The one that is kept makes a span of every chunk.
    let (directory, case) = case("in.txt", b"GET /pay and more");
    assert!(test(&arguments(directory.path(), "decode", true)).is_err());
    let error = run(&case, &component_of("decode"), &arguments(directory.path(), "decode", false)).unwrap_err();
    assert!(error.to_string().contains("when the same bytes come 7 at a time"), "{error}");
}

#[test]
fn a_directory_without_tests_is_named() {
    let directory = tempfile::tempdir().unwrap();
    assert!(test(&arguments(directory.path(), "transform", false)).unwrap_err().is::<Unusable>());
    fs::create_dir_all(directory.path().join("tests/first")).unwrap();
    let error = test(&arguments(directory.path(), "transform", false)).unwrap_err().to_string();
    assert!(error.contains("in.json, in.txt, in.bin"), "{error}");
}
