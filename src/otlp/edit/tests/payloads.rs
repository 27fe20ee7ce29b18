//! Payloads as no encoder writes them, but protobuf allows: fields in any order, messages in several pieces, keys and
//! values twice, unknown fields at every level, groups without rows.

use fastrand::Rng;

use crate::block::Signal;
use crate::otlp::writer::{push_bytes_field, push_varint};

/// Keys that collide often; two are of one length.
pub(super) const KEYS: [&str; 5] =
    ["a", "key.one", "key.two", "", "a.key.of.more.than.sixty.three.characters.so.that.no.bit.is.left.for.it"];

/// The fields of one message, each ready to be written.
struct Message(Vec<Vec<u8>>);

impl Message {
    fn new() -> Message {
        Message(Vec::new())
    }

    fn bytes(&mut self, number: u8, value: &[u8]) {
        let mut field = Vec::new();
        push_bytes_field(&mut field, number << 3 | 2, value);
        self.0.push(field);
    }

    fn varint(&mut self, number: u8, value: u64) {
        let mut field = vec![number << 3];
        push_varint(&mut field, value);
        self.0.push(field);
    }

    fn fixed64(&mut self, number: u8, value: u64) {
        self.0.push([&[number << 3 | 1], value.to_le_bytes().as_slice()].concat());
    }

    /// Now and then a field that nobody knows.
    fn unknown(&mut self, rng: &mut Rng) {
        if rng.u8(0..4) == 0 {
            // Number 100: a key of two bytes.
            let field: &[u8] =
                [&[0xa0, 0x06, 7][..], &[0xa2, 0x06, 2, b'?', 0xff], &[0xa5, 0x06, 1, 2, 3, 4]][rng.usize(0..3)];
            self.0.push(field.to_vec());
        }
    }

    /// As it came, or in any order.
    fn finish(mut self, rng: &mut Rng) -> Vec<u8> {
        self.unknown(rng);
        if rng.u8(0..3) == 0 {
            rng.shuffle(&mut self.0);
        }
        self.0.concat()
    }
}

/// Mostly one, seldom none or two.
fn about_one(rng: &mut Rng) -> usize {
    [0, 1, 1, 1, 1, 2][rng.usize(0..6)]
}

fn text(rng: &mut Rng) -> String {
    let letters = ["a", "Z", "\"", "\\", "é", "日", "🦀"];
    let length = if rng.u8(0..20) == 0 { rng.usize(100..400) } else { rng.usize(0..6) };
    (0..length).map(|_| letters[rng.usize(0..letters.len())]).collect()
}

fn any_value(rng: &mut Rng, depth: u32) -> Vec<u8> {
    let mut value = Message::new();
    for _ in 0..about_one(rng) {
        match rng.u8(0..if depth < 3 { 9 } else { 6 }) {
            0 | 1 => value.bytes(1, text(rng).as_bytes()),
            2 => value.varint(2, rng.u64(0..3)),
            3 => value.varint(3, rng.u64(..) >> rng.u32(0..64)),
            4 => value.fixed64(4, rng.u64(..)),
            5 => value.bytes(7, &[0xff, 0, rng.u8(..)][..rng.usize(0..4)]),
            6 | 7 => {
                let mut list = Message::new();
                (0..rng.usize(0..3)).for_each(|_| list.bytes(1, &any_value(rng, depth + 1)));
                value.bytes(5, &list.finish(rng));
            }
            _ => {
                let mut map = Message::new();
                (0..rng.usize(0..3)).for_each(|_| map.bytes(1, &pair(rng, depth + 1)));
                value.bytes(6, &map.finish(rng));
            }
        }
    }
    value.finish(rng)
}

fn pair(rng: &mut Rng, depth: u32) -> Vec<u8> {
    let mut pair = Message::new();
    (0..about_one(rng)).for_each(|_| pair.bytes(1, KEYS[rng.usize(0..KEYS.len())].as_bytes()));
    (0..about_one(rng)).for_each(|_| pair.bytes(2, &any_value(rng, depth)));
    pair.finish(rng)
}

fn attributes(rng: &mut Rng, message: &mut Message, number: u8) {
    (0..rng.usize(0..6)).for_each(|_| message.bytes(number, &pair(rng, 0)));
}

fn id(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rng.u8(1..)).collect()
}

fn span(rng: &mut Rng) -> Vec<u8> {
    let mut span = Message::new();
    span.bytes(1, &id(rng, 16));
    span.bytes(2, &id(rng, 8));
    if rng.bool() {
        span.bytes(4, &id(rng, 8));
    }
    (0..about_one(rng)).for_each(|_| span.bytes(5, text(rng).as_bytes()));
    (0..about_one(rng)).for_each(|_| span.varint(6, rng.u64(0..6)));
    (0..about_one(rng)).for_each(|_| span.fixed64(7, rng.u64(0..1000)));
    (0..about_one(rng)).for_each(|_| span.fixed64(8, rng.u64(0..1000)));
    attributes(rng, &mut span, 9);
    (0..about_one(rng)).for_each(|_| span.bytes(3, text(rng).as_bytes()));
    for _ in 0..about_one(rng) {
        let mut event = Message::new();
        event.fixed64(1, rng.u64(1..));
        event.bytes(2, b"event");
        span.bytes(11, &event.finish(rng));
    }
    for _ in 0..about_one(rng) {
        let mut link = Message::new();
        link.bytes(1, &id(rng, 16));
        link.bytes(2, &id(rng, 8));
        span.bytes(13, &link.finish(rng));
    }
    for _ in 0..about_one(rng) {
        let mut status = Message::new();
        (0..about_one(rng)).for_each(|_| status.bytes(2, text(rng).as_bytes()));
        (0..about_one(rng)).for_each(|_| status.varint(3, rng.u64(0..3)));
        span.bytes(15, &status.finish(rng));
    }
    span.finish(rng)
}

fn log_record(rng: &mut Rng) -> Vec<u8> {
    let mut record = Message::new();
    (0..about_one(rng)).for_each(|_| record.fixed64(1, rng.u64(0..1000)));
    (0..about_one(rng)).for_each(|_| record.varint(2, rng.u64(0..25)));
    (0..about_one(rng)).for_each(|_| record.bytes(3, text(rng).as_bytes()));
    (0..about_one(rng)).for_each(|_| record.bytes(5, &any_value(rng, 0)));
    attributes(rng, &mut record, 6);
    if rng.bool() {
        record.bytes(9, &id(rng, 16));
        record.bytes(10, &id(rng, 8));
    }
    record.fixed64(11, rng.u64(0..1000));
    record.finish(rng)
}

fn scope(rng: &mut Rng, signal: Signal) -> Vec<u8> {
    let mut wrapper = Message::new();
    for _ in 0..about_one(rng) {
        let mut scope = Message::new();
        (0..about_one(rng)).for_each(|_| scope.bytes(1, text(rng).as_bytes()));
        (0..about_one(rng)).for_each(|_| scope.bytes(2, text(rng).as_bytes()));
        attributes(rng, &mut scope, 3);
        wrapper.bytes(1, &scope.finish(rng));
    }
    for _ in 0..rng.usize(0..6) {
        wrapper.bytes(2, &if signal == Signal::Traces { span(rng) } else { log_record(rng) });
    }
    if rng.bool() {
        wrapper.bytes(3, text(rng).as_bytes());
    }
    wrapper.finish(rng)
}

fn resource(rng: &mut Rng, signal: Signal) -> Vec<u8> {
    let mut wrapper = Message::new();
    for _ in 0..about_one(rng) {
        let mut resource = Message::new();
        attributes(rng, &mut resource, 1);
        resource.varint(2, 1);
        wrapper.bytes(1, &resource.finish(rng));
    }
    (0..rng.usize(0..4)).for_each(|_| wrapper.bytes(2, &scope(rng, signal)));
    if rng.bool() {
        wrapper.bytes(3, text(rng).as_bytes());
    }
    wrapper.finish(rng)
}

/// A payload that passes the check.
pub(super) fn payload(rng: &mut Rng, signal: Signal) -> Vec<u8> {
    let mut request = Message::new();
    (0..rng.usize(0..4)).for_each(|_| request.bytes(1, &resource(rng, signal)));
    request.finish(rng)
}
