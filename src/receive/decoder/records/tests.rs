//! Decoders, good and hostile, without a socket.

use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message;

use super::*;
use crate::plugin::tests::configured::plugin;
use crate::plugin::tests::guest::Guest;
use crate::plugin::{Engine, Generation, load};

struct Bench {
    records: Records,
    link: Link,
    letters: crossbeam::channel::Receiver<FrontDeadLetter>,
    _engine: Engine,
}

impl Bench {
    fn new(component: &[u8]) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("decoder.wasm");
        std::fs::write(&path, component).unwrap();
        let plugin = plugin(path);
        let engine = Engine::start(crate::plugin::Pool { lanes: 1, plugins: 1 }).unwrap();
        let package = load::load(&engine, &plugin, &plugin.component).unwrap();
        let generation = Generation::new(package, &plugin, &plugin.component, 1).unwrap();
        let (dead_letters, letters) = crossbeam::channel::bounded(16);
        let books = Books { source: SourceId(3), front: Arc::default(), counters: Arc::default(), dead_letters };
        let records = Records::new(Instance::new(Arc::new(generation), Arc::default()), books, 64);
        let link = Link::new(1, "127.0.0.1:9".parse().unwrap());
        Bench { records, link, letters, _engine: engine }
    }

    fn kept() -> Bench {
        Bench::new(&std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/plugins/decode.wasm")).unwrap())
    }

    fn feed(&mut self, bytes: &[u8], last: bool) -> Result<(), Broken> {
        self.link.unread.extend_from_slice(bytes);
        let outcome = self.records.feed(&mut self.link, last, 1_000);
        let front = &self.records.front;
        let (received, encoded) = (front.received.get(), front.encoded.get());
        assert_eq!(received, encoded + front.filtered.get() + front.dead_lettered.get(), "the front balances");
        outcome
    }

    fn letter(&self) -> (&'static str, Vec<u8>) {
        self.letters.try_recv().map(|letter| (letter.reason, letter.bytes)).unwrap()
    }
}

#[test]
fn what_the_plugin_makes_of_bytes_is_a_block_and_its_replies_wait_for_it() {
    let mut bench = Bench::kept();
    for chunk in [&b"GET /"[..], b"PUT /x"] {
        assert_eq!(bench.feed(chunk, false), Ok(()));
    }
    bench.records.close();
    let block = bench.records.closed.pop_front().unwrap();
    assert_eq!((block.meta.records, block.meta.spans, block.meta.source), (2, 2, SourceId(3)));
    assert!(block.awaited && block.meta.made == Made::Encoded);
    assert_eq!((block.meta.first_span_ns, block.meta.last_span_ns), (1_000, 1_000));
    let data = TracesData::decode(&block.payload[..]).unwrap();
    let scopes = data.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let spans: Vec<_> = scopes.flat_map(|scope| &scope.spans).collect();
    assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["GET /", "PUT /x"]);
    assert_ne!(spans[0].span_id, spans[1].span_id, "the place tells them apart");
    assert_eq!(bench.link.replies, [(1, b"ok".to_vec()), (1, b"ok".to_vec())]);
    assert_eq!(bench.feed(b"third", true), Ok(()));
    assert_eq!(bench.link.replies.back().unwrap().0, 2);
}

#[test]
fn the_same_bytes_at_the_same_place_and_time_are_the_same_record() {
    let payload = || {
        let mut bench = Bench::kept();
        bench.feed(b"again", false).unwrap();
        bench.records.close();
        bench.records.closed.pop_front().unwrap().payload
    };
    assert_eq!(payload(), payload());
}

#[test]
fn what_a_decoder_fails_on_is_one_dead_letter_and_ends_the_connection_and_the_next_one_works() {
    for (code, reason) in [
        (include_str!("../../../../tests/guests/hostile/traps.wat"), "trap"),
        (include_str!("../../../../tests/guests/hostile/loops.wat"), "time_out"),
        (include_str!("../../../../tests/guests/hostile/hoards.wat"), "out_of_memory"),
        (include_str!("../../../../tests/guests/hostile/recurses.wat"), "trap"),
        // More used than there is; more records than bytes.
        ("(func $misbehave (i32.store (i32.const 180) (i32.const 99)))", "refused"),
        ("(func $misbehave (i32.store (i32.const 184) (i32.const 1000000000)))", "bad_answer"),
    ] {
        // It is well when it is met, and again on the next connection.
        let code = format!(
            "{code}
            (func $transform (param $bytes i32) (param i32 i32) (result i32)
                (i32.store (i32.const 184) (i32.const 0))
                (if (i32.and (local.get $bytes) (i32.const 1)) (then (call $misbehave)) (else (call $behave)))
                (i32.const 176))"
        );
        let mut bench = Bench::new(&Guest::of_world("decode", &code).component());
        assert_eq!(bench.feed(b"even", false), Ok(()), "{reason}");
        assert_eq!(bench.feed(b"odd", false), Err(Broken("plugin")), "{reason}");
        let letter = bench.letters.try_recv().unwrap();
        assert_eq!((letter.reason, &letter.bytes[..]), (reason, &b"odd"[..]));
        assert_eq!(letter.detail, bench.records.failed().unwrap(), "{reason}: the letter says it in words");
        assert!(bench.records.closed.is_empty() && bench.link.unread.is_empty());
        bench.records.closed(&bench.link);
        bench.link = Link::new(2, bench.link.peer);
        assert_eq!(bench.feed(b"even", false), Ok(()), "{reason}");
    }
}

#[test]
fn an_instance_made_anew_is_told_of_a_connection_before_it_gets_its_bytes() {
    // Traps over bytes of nobody, and over an odd number of them.
    let code = "(func $transform (param $bytes i32) (param i32 i32) (result i32)
        (if (i32.or (i32.eqz (global.get $met)) (i32.and (local.get $bytes) (i32.const 1))) (then unreachable))
        (i32.const 176))";
    let mut bench = Bench::new(&Guest::of_world("decode", code).component());
    assert_eq!(bench.feed(b"even", false), Ok(()));
    let known = std::mem::replace(&mut bench.link, Link::new(2, "127.0.0.1:9".parse().unwrap()));
    assert_eq!(bench.feed(b"odd", false), Err(Broken("plugin")));
    bench.link = known;
    assert_eq!(bench.feed(b"even", false), Ok(()), "a connection that the one before knew");
}

#[test]
fn records_that_are_rejected_or_filtered_are_counted_and_kept_aside() {
    // Uses everything up: 3 filtered, bytes 1 to 3 rejected for "guest".
    let code = "(data (i32.const 600) \"\\01\\00\\00\\00\\03\\00\\00\\00\\10\\00\\00\\00\\05\\00\\00\\00\")
        (func $misbehave
            (i32.store (i32.const 212) (i32.const 3))
            (i32.store (i32.const 216) (i32.const 600)) (i32.store (i32.const 220) (i32.const 1)))";
    let mut bench = Bench::new(&Guest::of_world("decode", code).component());
    assert_eq!(bench.feed(b"abcde", false), Ok(()));
    let letter = bench.letters.try_recv().unwrap();
    assert_eq!((letter.reason, letter.detail.as_str(), &letter.bytes[..]), ("undecodable", "guest", &b"bc"[..]));
    let front = &bench.records.front;
    assert_eq!((front.received.get(), front.filtered.get(), front.dead_lettered.get()), (4, 3, 1));
}

#[test]
fn what_is_never_used_up_is_bounded_and_what_is_left_at_the_end_is_one_letter() {
    // Uses up nothing.
    let code = "(func $transform (param i32 i32 i32) (result i32)
        (i32.store (i32.const 180) (i32.const 0)) (i32.const 176))";
    let mut bench = Bench::new(&Guest::of_world("decode", code).component());
    for _ in 0..2 {
        assert_eq!(bench.feed(&[b'x'; 32], false), Ok(()));
    }
    assert_eq!(bench.feed(b"y", false), Err(Broken("record_too_long")));
    let (reason, bytes) = bench.letter();
    assert_eq!((reason, bytes.len()), ("record_too_long", 65));
    let mut bench = Bench::new(&Guest::of_world("decode", code).component());
    assert_eq!(bench.feed(b"rest", true), Ok(()));
    assert_eq!(bench.letter(), ("unfinished", b"rest".to_vec()));
}
