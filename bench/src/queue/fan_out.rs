//! What a further destination costs besides its sends: reading the log through a cursor of its own.
//!
//! Sending is what it must do anyway: the same bytes over loopback TCP, one `write` a block. All in the CPU time of the
//! one thread that does it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use bytes::Bytes;
use millrace::queue::{Entry, Reader};

use super::lane::Lane;
use crate::usage;

/// Blocks of a round: 4 MiB, so that destinations keep up and find what the writer has left in the caches.
const BLOCKS: usize = 64;
const ROUNDS: usize = 40;

/// CPU time of reading for two more destinations, over the CPU time of their sends; the best of several rounds.
pub(super) fn measure(lane: &mut Lane) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut peer, _) = listener.accept()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        // Ends when the other end goes; an error is the same.
        while peer.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
    });
    let (mut reading, mut sending) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let from = lane.log.tail();
        let mut readers: Vec<Reader> = (0..3).map(|_| lane.log.reader(from)).collect();
        for _ in 0..BLOCKS {
            lane.append()?;
        }
        // The first destination's reading is not what is asked for; it brings the pages in.
        let blocks = read(&mut readers[0])?;
        let before = usage::thread_cpu();
        read(&mut readers[1])?;
        read(&mut readers[2])?;
        let read_at = usage::thread_cpu();
        for _ in 0..2 {
            blocks.iter().try_for_each(|block| stream.write_all(block))?;
        }
        reading = reading.min((read_at - before).as_secs_f64());
        sending = sending.min((usage::thread_cpu() - read_at).as_secs_f64());
        drop((blocks, readers));
        lane.start_over()?;
    }
    Ok(reading / sending)
}

fn read(reader: &mut Reader) -> Result<Vec<Bytes>> {
    let mut payloads = Vec::with_capacity(BLOCKS);
    while payloads.len() < BLOCKS {
        if let Entry::Block { payload, .. } = reader.next().context("the log ends early")? {
            payloads.push(payload);
        }
    }
    Ok(payloads)
}
