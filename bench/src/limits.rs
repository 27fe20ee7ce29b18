//! What this machine can do at best: the unavoidable steps of a row's way, each alone on one thread in CPU time.
//!
//! Every figure is the best of several rounds: a shared machine only ever makes it worse. The sum is a floor for a
//! program that does these steps one after the other with nothing in between; nobody reaches it, but a claim of speed
//! means something only beside it. Rows are the fleet's, spans are those of the OTLP generator.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace::fleet::{Fleet, FleetOptions, Wire};
use millrace::sys::clock;
use serde_json::json;

use crate::spans::{self, RequestTemplate};
use crate::usage;

const ROWS: usize = 8_192;
const ROUNDS: usize = 5;
const BLOCK_BYTES: usize = 64 * 1024;

/// Nanoseconds of CPU time an item.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Bytes of a row, on average.
    pub(crate) row_bytes: u64,
    /// Bytes of a span, on average.
    pub(crate) span_bytes: u64,
    receive_row: f64,
    receive_span: f64,
    scan: f64,
    tape: f64,
    encode: f64,
    check: f64,
    crc: f64,
    append: f64,
    send: f64,
}

impl Limits {
    /// Measures. `directory` is on the file system that the log would be on; 64 MiB are written there and removed.
    pub(crate) fn measure(directory: &Path) -> Result<Limits> {
        let rows = corpus();
        let template = RequestTemplate::new(512, clock::wall_ns());
        let row_bytes = rows.len() as f64 / ROWS as f64;
        let span_bytes = template.body.len() as f64 / 512.0;
        let (receive, send) = loopback()?;
        Ok(Limits {
            row_bytes: rows.len() as u64 / ROWS as u64,
            span_bytes: template.body.len() as u64 / 512,
            receive_row: receive * row_bytes,
            receive_span: receive * span_bytes,
            scan: best(ROWS, || {
                black_box(memchr::memchr_iter(b'\n', black_box(&rows)).count());
                Ok(())
            })?,
            tape: best_tape(&rows)?,
            encode: best_encode()?,
            check: best(512, || spans::walk(black_box(&template.body), spans::walk_whole))?,
            crc: best(512, || {
                for block in template.body.chunks(BLOCK_BYTES) {
                    black_box(crc_fast::crc32_iscsi(block));
                }
                Ok(())
            })?,
            append: append(directory)? * span_bytes,
            send: send * span_bytes,
        })
    }

    /// The floor of a row from socket to socket.
    pub(crate) fn row(&self) -> f64 {
        self.receive_row + self.scan + self.tape + self.encode + self.crc + self.append + self.send
    }

    /// The floor of a span passed through.
    pub(crate) fn span(&self) -> f64 {
        self.receive_span + self.check + self.crc + self.append + self.send
    }

    /// For a report.
    pub(crate) fn to_json(self) -> serde_json::Value {
        json!({
            "row_bytes": self.row_bytes, "span_bytes": self.span_bytes,
            "ns": {
                "receive a row, 64 KiB reads": self.receive_row, "receive a span, 64 KiB reads": self.receive_span,
                "find the newline": self.scan, "simd-json tape, reused buffers": self.tape,
                "encode a span by hand": self.encode, "check a span": self.check, "CRC32C of a span": self.crc,
                "append a span to recycled pages": self.append, "send a span": self.send,
            },
            "row_ns": self.row(), "span_ns": self.span(),
        })
    }
}

/// 8,192 rows as Fluent Bit sends them.
fn corpus() -> Vec<u8> {
    let options =
        FleetOptions { summaries: false, ..FleetOptions::storm(200, Duration::from_secs(60), clock::wall_ns()) };
    let mut out = Vec::new();
    for row in Fleet::new(1, options).flat_map(|burst| burst.rows).take(ROWS) {
        Wire::FluentBit.render(&row, &mut out);
    }
    out
}

/// Nanoseconds an item of the fastest round; a round repeats `work`, which does `items`, for 50 ms or so.
fn best(items: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (began, before) = (clock::monotonic(), usage::thread_cpu());
        let mut repetitions = 0u32;
        while clock::monotonic() - began < Duration::from_millis(50) {
            work()?;
            repetitions += 1;
        }
        let spent = usage::thread_cpu() - before;
        best = best.min(spent.as_secs_f64() * 1e9 / f64::from(repetitions) / items as f64);
    }
    Ok(best)
}

/// Each line is copied first, because the parser writes into it; the copy alone is measured and taken off.
fn best_tape(rows: &[u8]) -> Result<f64> {
    let lines: Vec<&[u8]> = rows.split_inclusive(|byte| *byte == b'\n').collect();
    ensure!(lines.len() == ROWS, "{} lines", lines.len());
    let mut scratch = Vec::with_capacity(BLOCK_BYTES);
    let mut buffers = simd_json::Buffers::default();
    let mut tape = simd_json::Tape(Vec::new());
    let both = best(ROWS, || {
        for line in &lines {
            scratch.clear();
            scratch.extend_from_slice(line);
            let mut own = std::mem::replace(&mut tape, simd_json::Tape(Vec::new())).reset();
            simd_json::fill_tape(&mut scratch, &mut buffers, &mut own).context("parsing a row")?;
            black_box(own.0.len());
            tape = own.reset();
        }
        Ok(())
    })?;
    let mut scratch = Vec::with_capacity(BLOCK_BYTES);
    let copy = best(ROWS, || {
        for line in &lines {
            scratch.clear();
            scratch.extend_from_slice(black_box(line));
            black_box(&scratch);
        }
        Ok(())
    })?;
    Ok(both - copy)
}

/// Spans with 12 attributes into a reused buffer, lengths known before their bytes.
fn best_encode() -> Result<f64> {
    let mut out = Vec::with_capacity(4 * BLOCK_BYTES);
    best(512, || {
        out.clear();
        for number in 0..512 {
            spans::write_span(black_box(number), &mut out);
        }
        black_box(&out);
        Ok(())
    })
}

/// Nanoseconds a byte of appending to a file whose pages are in the page cache already.
fn append(directory: &Path) -> Result<f64> {
    const FILE_BYTES: usize = 64 << 20;
    let path = directory.join(format!("millrace-bench-{}.limit", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    // Without a name it goes when it is closed, whatever happens.
    std::fs::remove_file(&path)?;
    let block = vec![0x5a; BLOCK_BYTES];
    let pass = || -> Result<()> {
        for at in (0..FILE_BYTES).step_by(BLOCK_BYTES) {
            file.write_all_at(&block, at as u64)?;
        }
        Ok(())
    };
    pass()?;
    best(FILE_BYTES, pass)
}

/// Nanoseconds a byte of receiving and of sending over loopback, each on its own thread.
fn loopback() -> Result<(f64, f64)> {
    const BYTES: usize = 512 << 20;
    let mut best = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let sender = std::thread::spawn(move || -> Result<Duration> {
            let mut stream = TcpStream::connect(address)?;
            let block = vec![0x5a; 4 * BLOCK_BYTES];
            let before = usage::thread_cpu();
            for _ in 0..BYTES / block.len() {
                stream.write_all(&block)?;
            }
            Ok(usage::thread_cpu() - before)
        });
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; BLOCK_BYTES];
        let before = usage::thread_cpu();
        while stream.read(&mut buffer)? > 0 {}
        let received = usage::thread_cpu() - before;
        let sent = sender.join().expect("the sender returns its errors")?;
        // Who pays for what changes from round to round, so the round with the least sum counts whole.
        let round = (received.as_secs_f64() * 1e9 / BYTES as f64, sent.as_secs_f64() * 1e9 / BYTES as f64);
        if round.0 + round.1 < best.0 + best.1 {
            best = round;
        }
    }
    Ok(best)
}
