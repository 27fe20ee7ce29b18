//! A plugin writes the format: what it makes arrives, what it fails on is nobody's fault but the spans'.

use super::*;
use crate::config::PluginExport;
use crate::plugin::tests::configured::plugin;
use crate::plugin::tests::guest::Guest;

/// `count` spans; the second one of all has no name.
fn spans(count: u8) -> Vec<u8> {
    let span = |index: u8| if index == 1 { vec![0x12, 0] } else { vec![0x12, 3, 0x2a, 1, b'a' + index] };
    let spans: Vec<u8> = (0..count).flat_map(span).collect();
    let scope_spans = [&[0x12, u8::try_from(spans.len()).unwrap()][..], &spans].concat();
    [&[0x0a, u8::try_from(scope_spans.len()).unwrap()][..], &scope_spans].concat()
}

fn settings(address: SocketAddr, component: &[u8]) -> (tempfile::TempDir, Settings) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("encoder.wasm");
    std::fs::write(&path, component).unwrap();
    let (url, plugin) = (format!("http://{address}/take?x=1"), plugin(path));
    (directory, Settings::Plugin(Box::new(PluginExport { url, plugin, http: http_client() })))
}

/// The kept component: names, one behind the other.
fn names() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/plugins/encode.wasm")).unwrap()
}

#[test]
fn what_the_plugin_writes_is_posted_with_its_type_and_what_it_cannot_say_is_refused() {
    let backend = Backend::answering(OK);
    let (_directory, mut settings) = settings(backend.address, &names());
    if let Settings::Plugin(export) = &mut settings {
        export.http.compression = Compression::Zstd;
        export.http.headers = vec![("X-Key".into(), "s3cret".into())];
    }
    let mut exporter = Exporter::open(&settings).unwrap();
    assert!(exporter.accepts(Signal::Traces) && !exporter.accepts(Signal::Logs) && !exporter.wants_uberagent_only());
    assert!(!format!("{exporter:?}").contains("s3cret"));
    let payloads = [&spans(3)[..], &spans(1)[..]];
    let message = "1 spans cannot be said in text/plain".to_owned();
    let refused = Outcome::AcceptedPartially { refused_spans: 1, message };
    for sender in [&mut exporter.another(), &mut exporter] {
        assert_eq!(sender.send(&request(&payloads)), refused);
        let received = backend.received();
        assert!(received.head.starts_with("POST /take?x=1 HTTP/1.1\r\n"), "{}", received.head);
        assert_eq!(zstd::decode_all(&received.body[..]).unwrap(), b"aca", "both blocks in one message");
        assert_eq!((received.header("content-type"), received.header("x-key")), (Some("text/plain"), Some("s3cret")));
        assert_eq!(received.header("content-encoding"), Some("zstd"));
    }
    let plain = Request { uncompressed: true, ..request(&payloads) };
    assert_eq!(exporter.send(&plain), refused);
    assert_eq!(backend.received().body, b"aca");
    assert_eq!(exporter.send(&request(&[b"\x0a\x04\x12\x02\x12\x00"])), Outcome::NothingToSend, "no span has a name");
    assert!(backend.received.try_recv().is_err());
}

#[test]
fn what_the_backend_says_is_told_as_of_every_http_backend() {
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    const NO: &str = "HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno";
    let backend = Backend::start(vec![Act::Answer(BUSY.into()), Act::Answer(NO.into())]);
    let (_directory, settings) = settings(backend.address, &names());
    let mut exporter = Exporter::open(&settings).unwrap();
    assert!(is_unavailable(&exporter.send(&request(&[&spans(1)])), false));
    let message = "400 bad request: no".to_owned();
    assert_eq!(exporter.send(&request(&[&spans(1)])), Outcome::BadRequest { message });
}

#[test]
fn what_a_plugin_fails_on_is_not_sent_and_the_next_request_is() {
    let backend = Backend::answering(OK);
    for (code, expected) in [
        (include_str!("../../../tests/guests/hostile/traps.wat"), "the plugin: trapped: "),
        (
            include_str!("../../../tests/guests/hostile/loops.wat"),
            "the plugin: used more than 100 ms of processor time",
        ),
        (include_str!("../../../tests/guests/hostile/hoards.wat"), "the plugin: needs more than 67108864 bytes"),
        (include_str!("../../../tests/guests/hostile/refuses.wat"), "the plugin: refused: no\\ninfo: all is well"),
        // A message of 9 bytes where there are none; a whole memory of bytes, again and again: more than may cross.
        (
            "(func $misbehave (i32.store (i32.const 188) (i32.const 600)) (i32.store (i32.const 192) (i32.const 1))
                (i32.store (i32.const 600) (i32.const 9)))",
            "its answer breaks a rule: 1 messages",
        ),
        (
            "(func $misbehave (drop (memory.grow (i32.const 100)))
                (i32.store (i32.const 180) (i32.const 1024)) (i32.store (i32.const 184) (i32.const 6000000)))",
            "too much data",
        ),
    ] {
        let (_directory, settings) = settings(backend.address, &Guest::of_world("encode", code).component());
        let mut exporter = Exporter::open(&settings).unwrap();
        match exporter.send(&request(&[&spans(3)])) {
            Outcome::Unencodable { message } => assert!(message.contains(expected), "{message:?} not {expected:?}"),
            other => panic!("{expected}: {other:?}"),
        }
        if !expected.contains("refused") && !expected.contains("rule") {
            assert_eq!(
                exporter.send(&request(&[&spans(2)])),
                Outcome::NothingToSend,
                "{expected}: the next call works"
            );
        }
    }
    assert!(backend.received.try_recv().is_err(), "nothing of it was sent");
}

#[test]
fn a_plugin_that_cannot_write_a_format_is_a_fault_of_the_configuration() {
    let address = "127.0.0.1:9".parse().unwrap();
    for (component, expected) in [
        (Guest::of_world("enrich", "").component(), "takes a plugin of the world encode; this one is of enrich"),
        (b"no".to_vec(), "encoder.wasm: not a WebAssembly component"),
    ] {
        let (_directory, settings) = settings(address, &component);
        let error = Exporter::open(&settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}
