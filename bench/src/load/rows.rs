//! uberAgent rows over TCP (JSON lines, Splunk CSV) or HTTP (`_bulk`).
//!
//! A corpus of bursts is rendered once and sent again and again; before each pass the host's part of every session GUID
//! is overwritten in place, so that each pass brings new sessions at the price of eight bytes a row.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace::fleet::{Fleet, FleetOptions, Wire};
use millrace::sys::clock;

use super::{Pace, Sent, connect, due, on_threads, wait_until};
use crate::http::Messages;
use crate::usage;

/// Where the host's part of a GUID stands: `00000011-4b1e-93a7-...`, without the dash in its middle.
const HOST_PART: (Range<usize>, Range<usize>) = (9..13, 14..18);

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct RowLoad {
    /// Where to.
    pub(crate) target: SocketAddr,
    /// In which form.
    pub(crate) wire: Wire,
    /// Connections.
    pub(crate) connections: usize,
    /// Seed of the fleet.
    pub(crate) seed: u64,
    /// Logons in the corpus; about 81 rows each.
    pub(crate) logons: usize,
    /// How much, how fast.
    pub(crate) pace: Pace,
    /// Note when each burst was written.
    pub(crate) note_bursts: bool,
}

/// One connection's share of the corpus.
#[derive(Debug, Default)]
struct Share {
    bytes: Vec<u8>,
    bursts: Vec<BurstBytes>,
}

#[derive(Debug)]
struct BurstBytes {
    /// In the share's bytes.
    range: Range<usize>,
    rows: u64,
    /// Where the burst's GUIDs begin.
    guids: Vec<usize>,
    /// The GUID as rendered.
    guid: String,
}

/// Renders and sends. Returns when the count is reached or the time is up.
pub(crate) fn send(load: &RowLoad) -> Result<Sent> {
    ensure!(load.connections > 0 && load.logons > 0, "a load needs connections and logons");
    let shares: Vec<Mutex<Share>> = render(load).into_iter().map(Mutex::new).collect();
    let began = clock::monotonic();
    on_threads(load.connections, |connection| {
        let mut share = shares[connection].lock().expect("each connection locks its own share only");
        send_share(load, &mut share, began)
    })
}

fn render(load: &RowLoad) -> Vec<Share> {
    let mut shares: Vec<Share> = (0..load.connections).map(|_| Share::default()).collect();
    let options = FleetOptions::storm(load.logons, Duration::from_secs(1800), clock::wall_ns());
    for (index, burst) in Fleet::new(load.seed, options).take(load.logons).enumerate() {
        let share = &mut shares[index % load.connections];
        let start = share.bytes.len();
        let mut rendered = Vec::with_capacity(64 * 1024);
        for row in &burst.rows {
            load.wire.render(row, &mut rendered);
        }
        if load.wire == Wire::Bulk {
            let length = rendered.len();
            let head = format!(
                "POST /_bulk HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
            );
            share.bytes.extend_from_slice(head.as_bytes());
        }
        let rows_at = share.bytes.len();
        share.bytes.append(&mut rendered);
        let guids =
            memchr::memmem::find_iter(&share.bytes[rows_at..], burst.guid.as_bytes()).map(|at| rows_at + at).collect();
        let range = start..share.bytes.len();
        share.bursts.push(BurstBytes { range, rows: burst.rows.len() as u64, guids, guid: burst.guid });
    }
    shares
}

fn send_share(load: &RowLoad, share: &mut Share, began: Duration) -> Result<Sent> {
    let mut sent = Sent::default();
    let cpu_before = usage::thread_cpu();
    let mut stream = connect(load.target)?;
    let mut messages = Messages::new();
    let own_count = load.pace.count / load.connections as u64;
    let own_rate = load.pace.rate.map(|rate| rate / load.connections as u64);
    'passes: for pass in 0u32.. {
        for burst in &share.bursts {
            if sent.items >= own_count || clock::monotonic() - began >= load.pace.limit {
                break 'passes;
            }
            let host_part = renumber(&mut share.bytes, burst, pass);
            if let Some(rate) = own_rate {
                wait_until(due(began, sent.items, rate));
            }
            let bytes = &share.bytes[burst.range.clone()];
            match load.wire {
                Wire::Bulk => post(&mut stream, &mut messages, bytes, &mut sent)?,
                Wire::FluentBit | Wire::SplunkTcp => stream.write_all(bytes)?,
            }
            if load.note_bursts {
                let mut guid = burst.guid.clone();
                guid.replace_range(HOST_PART.0, &host_part[0..4]);
                guid.replace_range(HOST_PART.1, &host_part[4..8]);
                sent.bursts.push((guid, clock::monotonic()));
            }
            sent.items += burst.rows;
            sent.bytes += bytes.len() as u64;
        }
        ensure!(!share.bursts.is_empty(), "more connections than bursts");
    }
    sent.wall = clock::monotonic() - began;
    sent.cpu = usage::thread_cpu() - cpu_before;
    Ok(sent)
}

/// Gives the burst's sessions the GUIDs of this pass. Returns the new host part.
fn renumber(bytes: &mut [u8], burst: &BurstBytes, pass: u32) -> String {
    let own = burst.guid[HOST_PART.0].to_owned() + &burst.guid[HOST_PART.1];
    let host = u32::from_str_radix(&own, 16).expect("a GUID holds hexadecimal digits").wrapping_add(pass);
    let digits = format!("{host:08x}");
    for guid in &burst.guids {
        bytes[guid + HOST_PART.0.start..guid + HOST_PART.0.end].copy_from_slice(&digits.as_bytes()[0..4]);
        bytes[guid + HOST_PART.1.start..guid + HOST_PART.1.end].copy_from_slice(&digits.as_bytes()[4..8]);
    }
    digits
}

/// Sends a request until it is taken; the caller's time limit is checked between requests.
fn post(stream: &mut TcpStream, messages: &mut Messages, request: &[u8], sent: &mut Sent) -> Result<()> {
    for _ in 0..100 {
        stream.write_all(request)?;
        let head = messages.head(stream)?;
        let Some(head) = head else { anyhow::bail!("the peer closed instead of answering") };
        let refused = head.target == "429" || head.target == "503";
        messages.body(&head, stream)?;
        if !refused {
            ensure!(head.target.starts_with('2'), "answered with status {}", head.target);
            return Ok(());
        }
        sent.refusals += 1;
        wait_until(clock::monotonic() + Duration::from_millis(50));
    }
    anyhow::bail!("refused 100 times in a row")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_pass_brings_new_sessions_and_the_count_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pace = Pace { count: 1_000, limit: Duration::from_secs(20), rate: None };
        let load = RowLoad {
            target: listener.local_addr().unwrap(),
            wire: Wire::FluentBit,
            connections: 1,
            seed: 1,
            logons: 3,
            pace,
            note_bursts: true,
        };
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            text
        });
        let sent = send(&load).unwrap();
        let text = reader.join().unwrap();
        assert_eq!(text.lines().count() as u64, sent.items);
        assert!((1_000..1_100).contains(&sent.items));
        let guids: HashSet<&str> = text.split("\"SessionGUID\":\"").skip(1).map(|rest| &rest[..36]).collect();
        assert_eq!(guids, sent.bursts.iter().map(|(guid, _)| guid.as_str()).collect());
        assert_eq!(guids.len(), sent.bursts.len(), "a GUID was sent in two passes");
    }
}
