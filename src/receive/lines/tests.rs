//! The oracle is the plain splitting of the whole stream at once; every way of cutting it into chunks must agree.

use proptest::prelude::*;

use super::*;

const MAX_LINE_BYTES: usize = 24;
const MAX_KEPT_BYTES: usize = 1 << 20;

/// What was handed out, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Line(Vec<u8>),
    TooLong(Vec<u8>),
    NotKept(Vec<u8>),
}

impl Seen {
    fn of(framed: &Framed<'_>) -> Seen {
        match framed {
            Framed::Line(line) => Seen::Line(line.to_vec()),
            Framed::TooLong(beginning) => Seen::TooLong(beginning.to_vec()),
            Framed::NotKept(beginning) => Seen::NotKept(beginning.to_vec()),
        }
    }
}

fn oracle(stream: &[u8]) -> Vec<Seen> {
    let mut lines: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let seen = |line: &&[u8]| {
        if line.len() > MAX_LINE_BYTES {
            Seen::TooLong(line[..BEGINNING_BYTES.min(MAX_LINE_BYTES)].to_vec())
        } else {
            Seen::Line(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        }
    };
    lines.iter().map(seen).collect()
}

fn feed(stream: &[u8], cuts: impl Iterator<Item = usize>) -> Vec<Seen> {
    let mut lines = Lines::new(MAX_LINE_BYTES);
    let mut buffers = LineBuffers::new(MAX_KEPT_BYTES);
    let mut seen = Vec::new();
    let mut rest = stream.to_vec();
    for cut in cuts {
        let mut chunk: Vec<u8> = rest.drain(..cut.min(rest.len())).collect();
        lines.feed(&mut chunk, &mut buffers, |framed| seen.push(Seen::of(&framed)));
    }
    lines.feed(&mut rest, &mut buffers, |framed| seen.push(Seen::of(&framed)));
    lines.end(&mut buffers, |framed| seen.push(Seen::of(&framed)));
    assert!(!lines.is_unfinished());
    assert_eq!(buffers.left_bytes, MAX_KEPT_BYTES, "every buffer was given back");
    seen
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => Just(b'a'), 3 => Just(b'\n'), 2 => Just(b'\r'), 1 => any::<u8>()];
    proptest::collection::vec(byte, 0..200)
}

proptest! {
    #[test]
    fn cutting_anywhere_gives_the_same_lines(
        stream in stream(),
        cuts in proptest::collection::vec(0usize..60, 0..40),
    ) {
        prop_assert_eq!(feed(&stream, cuts.into_iter()), oracle(&stream));
    }

    #[test]
    fn so_does_byte_by_byte(stream in stream()) {
        prop_assert_eq!(feed(&stream, std::iter::repeat_n(1, stream.len())), oracle(&stream));
    }
}

#[test]
fn a_carriage_return_and_its_line_feed_may_come_apart() {
    assert_eq!(feed(b"one\r\ntwo\r\r\n", [4, 1, 4].into_iter()), oracle(b"one\r\ntwo\r\r\n"));
    assert_eq!(oracle(b"two\r\r\n"), [Seen::Line(b"two\r".to_vec())]);
}

#[test]
fn a_line_that_never_ends_grows_nothing() {
    let mut lines = Lines::new(64 * 1024);
    let mut buffers = LineBuffers::new(MAX_KEPT_BYTES);
    let mut seen = 0;
    for _ in 0..1_000 {
        lines.feed(&mut [b'x'; 4096], &mut buffers, |framed| {
            assert!(matches!(framed, Framed::TooLong(beginning) if beginning.len() == BEGINNING_BYTES));
            seen += 1;
        });
        assert!(lines.unfinished.capacity() <= 128 * 1024);
    }
    assert_eq!((seen, lines.unfinished.capacity()), (1, 0));
    lines.feed(&mut b"x\nnext\n".to_vec(), &mut buffers, |framed| {
        assert_eq!(Seen::of(&framed), Seen::Line(b"next".to_vec()));
        seen += 1;
    });
    assert_eq!(seen, 2, "the rest of the long line is no line of its own");
}

#[test]
fn what_all_connections_keep_is_bounded() {
    let mut buffers = LineBuffers::new(10 * SMALLEST_BYTES);
    let mut connections: Vec<Lines> = (0..20).map(|_| Lines::new(MAX_KEPT_BYTES)).collect();
    let mut not_kept = 0;
    for lines in &mut connections {
        lines.feed(&mut [b'x'; 100], &mut buffers, |framed| {
            assert!(matches!(framed, Framed::NotKept(beginning) if beginning.len() == 100));
            not_kept += 1;
        });
    }
    assert_eq!((not_kept, buffers.left_bytes), (10, 0));
    for lines in &mut connections {
        lines.cut(&mut buffers, |beginning| assert_eq!(beginning.len(), 100));
        assert!(!lines.is_unfinished());
    }
    assert_eq!(buffers.left_bytes, 10 * SMALLEST_BYTES);
}

#[test]
fn a_connection_between_two_lines_owns_no_buffer() {
    let mut lines = Lines::new(MAX_KEPT_BYTES);
    let mut buffers = LineBuffers::new(MAX_KEPT_BYTES);
    assert!(!lines.feed(&mut b"half".to_vec(), &mut buffers, |_| panic!("no line yet")));
    assert!(lines.is_unfinished());
    let mut seen = Vec::new();
    assert!(lines.feed(&mut b" and half\n".to_vec(), &mut buffers, |framed| seen.push(Seen::of(&framed))));
    assert_eq!(seen, [Seen::Line(b"half and half".to_vec())]);
    assert_eq!((lines.unfinished.capacity(), buffers.spares.len()), (0, 1), "the buffer waits for the next one");
}
