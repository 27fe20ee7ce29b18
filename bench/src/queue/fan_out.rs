//! What a further destination costs besides its sends: reading the log through a cursor of its own.
//!
//! Sending is what it must do anyway: the same bytes over loopback TCP, one `write` a block. All in the CPU time of the
//! one thread that does it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use millrace::queue::{Entry, Reader};
use millrace::sys::clock;

use super::lane::Lane;
use crate::usage;

/// Blocks of a round: 4 MiB, so that destinations keep up and find what the writer has left in the caches.
const BLOCKS: usize = 64;
const ROUNDS: usize = 40;

/// CPU time of reading for two more destinations, over the CPU time of their sends; the best of several rounds.
pub(super) struct Shares {
    /// They read within the second in which another has: its sums are theirs.
    pub(super) together: f64,
    /// They read later, and sum every block.
    pub(super) later: f64,
}

/// Reads and sends what a writer appends.
pub(super) fn measure(lane: &mut Lane) -> Result<Shares> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut peer, _) = listener.accept()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        // Ends when the other end goes; an error is the same.
        while peer.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
    });
    let (mut together, mut later, mut sending) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let from = lane.log.tail();
        let mut readers: Vec<Reader> = (0..3).map(|_| lane.log.reader(from)).collect();
        for _ in 0..BLOCKS {
            lane.append()?;
        }
        let now = clock::monotonic();
        readers.iter_mut().for_each(|reader| reader.share_sums(now));
        // The first destination's reading is not what is asked for; it brings the pages in.
        let blocks = read(&mut readers[0])?;
        together = together.min(cpu(|| readers[1..].iter_mut().try_for_each(|reader| read(reader).map(drop)))?);
        let mut readers: Vec<Reader> = (0..2).map(|_| lane.log.reader(from)).collect();
        readers[0].share_sums(now + Duration::from_secs(10));
        readers[1].share_sums(now + Duration::from_secs(20));
        later = later.min(cpu(|| readers.iter_mut().try_for_each(|reader| read(reader).map(drop)))?);
        let mut send = || blocks.iter().try_for_each(|block| stream.write_all(block));
        sending = sending.min(cpu(|| Ok(send().and_then(|()| send())?))?);
        drop((blocks, readers));
        lane.start_over()?;
    }
    Ok(Shares { together: together / sending, later: later / sending })
}

/// Seconds of this thread's CPU time.
fn cpu(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = usage::thread_cpu();
    work()?;
    Ok((usage::thread_cpu() - before).as_secs_f64())
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
