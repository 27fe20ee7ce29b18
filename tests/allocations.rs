//! Nothing is allocated per row once an encoder is warm: rows, blocks and tables live in buffers that are reused.

#![allow(unsafe_code, reason = "a global allocator that counts has to be an unsafe impl")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use millrace::block::SourceId;
use millrace::config::{Mapping, OtherSourcetypes, Uberagent};
use millrace::uberagent::{CsvHeader, Encoder, Origin, Outcome};

/// Counts the allocations of each thread by itself, so that other tests do not disturb.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system allocator as it came; counting touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `realloc`, which is the same.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RECEIVED_NS: u64 = 1_747_033_200_000_000_000;

/// What a file's lines are encoded by.
type Encode = fn(&mut Encoder, &mut [u8]) -> Outcome;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/uberagent/{name}", env!("CARGO_MANIFEST_DIR"))).expect("the file is there")
}

/// Encodes all lines twice to warm up, then counts the allocations of a third time.
fn allocations(settings: Uberagent, lines: &[Vec<u8>], encode: Encode) -> u64 {
    let mut encoder = Encoder::new(settings, SourceId(0));
    let mut scratch = lines.to_vec();
    for round in 0..3 {
        for (scratch, line) in scratch.iter_mut().zip(lines) {
            scratch.copy_from_slice(line);
        }
        let before = ALLOCATIONS.get();
        let mut encoded = 0;
        for (number, line) in scratch.iter_mut().enumerate() {
            encoded += u64::from(matches!(encode(&mut encoder, line), Outcome::Encoded { .. }));
            if number % 90 == 0 {
                encoder.end_together();
                while let Some(block) = encoder.pop_closed() {
                    encoder.recycle(block.payload);
                }
            }
        }
        while let Some(block) = encoder.close() {
            encoder.recycle(block.payload);
        }
        assert!(encoded > 300, "only {encoded} rows were encoded");
        if round == 2 {
            return ALLOCATIONS.get() - before;
        }
    }
    unreachable!("the third round returns")
}

fn lines(name: &str) -> Vec<Vec<u8>> {
    data(name).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

fn json(encoder: &mut Encoder, line: &mut [u8]) -> Outcome {
    encoder.json(line, Origin::default(), RECEIVED_NS)
}

#[test]
fn rows_are_encoded_without_allocating() {
    let settings = |mapping, other_sourcetypes| Uberagent { mapping, other_sourcetypes };
    for mapping in [Mapping::Session, Mapping::Original] {
        for other in [OtherSourcetypes::Filter, OtherSourcetypes::Logs] {
            for file in ["proxytrace_wire.ndjson", "samples.ndjson", "wire_es_bulk.ndjson"] {
                let count = allocations(settings(mapping, other), &lines(file), json);
                assert_eq!(count, 0, "{file} under {mapping:?} and {other:?}");
            }
        }
    }
}

#[test]
fn csv_is_encoded_without_allocating() {
    fn csv(encoder: &mut Encoder, line: &mut [u8]) -> Outcome {
        thread_local! {
            static HEADER: CsvHeader =
                CsvHeader::parse(b"***SPLUNK*** host=A sourcetype=uberAgent:Process:LogonProcesses").expect("a header");
        }
        HEADER.with(|header| encoder.csv(line, header, RECEIVED_NS))
    }
    let settings = Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };
    let rows: Vec<Vec<u8>> =
        lines("wire_splunk_tcp.txt").into_iter().filter(|line| !line.starts_with(b"***")).collect();
    assert_eq!(allocations(settings, &rows, csv), 0);
}

/// The counter itself works: what allocates is seen.
#[test]
fn an_allocation_is_counted() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
