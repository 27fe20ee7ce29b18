//! The memory budget: every pool of the process, what bounds it, and their sum against the limit.
//!
//! Memory is fixed at start. [`pools`] decides how large each pool is and the pipeline builds them of that size;
//! [`budget`] adds up what they hold when all of them are full at once, with a reason a line, and refuses more than the
//! limit. That is anonymous memory: the mapped windows of the log are page cache, which the kernel takes back when it must.
//! Each lane owns what it uses, so the default limit grows with the lanes: 164 MiB and 176 MiB a lane, 516 MiB for two; and
//! with what plugins may have.
//!
//! The figures are bounds, not expectations: an idle appliance takes a small part of its budget.

use std::fmt;

use super::words::show_bytes;
use super::{Backend, Compression, Config, Encoding, PluginLimits, PluginReceive, Protocol};
use crate::block::{MAX_BYTES, TARGET_BYTES};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Bytes of a dead letter that are kept; a longer record is cut to this.
pub const DEAD_LETTER_BYTES: usize = 64 << 10;

/// Bytes of the buffer that a HTTP connection reads into, at most.
pub const HTTP_READ_BUFFER_BYTES: usize = 16 << 10;

/// Bytes of a HTTP connection: what it reads into, 8 KiB for the head of an answer, 6 KiB of tasks, timer and state.
const HTTP_CONNECTION_BYTES: u64 = HTTP_READ_BUFFER_BYTES as u64 + 14 * KIB;

/// How large the pools are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// Blocks that a reactor may have outstanding.
    pub reactor_ring_blocks: usize,
    /// Blocks that a gateway may have outstanding.
    pub gateway_ring_blocks: usize,
    /// Spans that each of the two may have outstanding: `max_spans_in_memory` is for all producers of all lanes.
    pub ring_spans: u64,
    /// Bytes of request bodies, as sent and inflated, that a gateway may hold at once.
    pub gateway_body_bytes: usize,
    /// Bytes a reactor reads at once.
    pub reactor_scratch_bytes: usize,
    /// Bytes of unfinished lines that a reactor may keep, over all its connections.
    pub unfinished_line_bytes: usize,
    /// Bytes of closed blocks that a reactor may keep while its ring is full.
    pub reactor_waiting_bytes: usize,
    /// Dead letters that may wait for their writer, of each of the two stores.
    pub dead_letters: usize,
}

/// One pool when it is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub pool: String,
    /// Its bytes.
    pub bytes: u64,
    /// What bounds it.
    pub reason: String,
}

/// Blocks of a decoder that may be unanswered.
pub const DECODER_RING_BLOCKS: usize = 16;

/// Bytes that a decoder's plugin has not used up, over all its connections.
pub const DECODER_UNREAD_BYTES: usize = 16 << 20;

/// Blocks that wait for listeners to a tap: four of them, each with a queue of 1 MiB or one block.
pub const TAP_BYTES: u64 = 4 * MIB;

/// All pools when they are full at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Pool by pool.
    pub lines: Vec<Line>,
    /// Their sum.
    pub total_bytes: u64,
    /// What it may be.
    pub limit_bytes: u64,
}

/// The pools do not fit: says which are the largest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory_limit: the pools of this configuration take more than the limit\n{0}")]
pub struct OverBudget(pub Budget);

/// The sizes of the pools of a process with so many lanes.
#[must_use]
pub fn pools(config: &Config, lanes: usize) -> Pools {
    let lanes = lanes.max(1);
    let largest_request = config.receivers.iter().map(|receiver| match &receiver.protocol {
        Protocol::UberagentTcp(_) | Protocol::Plugin(_) => 0,
        Protocol::OtlpHttp(limits) | Protocol::Elasticsearch(limits) => {
            limits.max_body_bytes + limits.max_inflated_bytes
        }
    });
    Pools {
        reactor_ring_blocks: 128,
        gateway_ring_blocks: 64,
        ring_spans: (u64_of(config.queue.max_spans_in_memory) / u64_of(lanes) / 2).max(1),
        gateway_body_bytes: largest_request.max().unwrap_or(0),
        reactor_scratch_bytes: 256 << 10,
        unfinished_line_bytes: longest_line(config).max(32 << 20),
        reactor_waiting_bytes: 4 << 20,
        dead_letters: 128,
    }
}

fn longest_line(config: &Config) -> usize {
    let longest = config.receivers.iter().map(|receiver| match &receiver.protocol {
        Protocol::UberagentTcp(limits) => limits.max_line_bytes,
        Protocol::OtlpHttp(_) | Protocol::Elasticsearch(_) | Protocol::Plugin(_) => 0,
    });
    longest.max().unwrap_or(0)
}

/// Adds up every pool, and refuses more than the limit.
pub fn budget(config: &Config, lanes: usize) -> Result<Budget, OverBudget> {
    let lanes = lanes.max(1);
    let by_lanes = product([176 * MIB, u64_of(lanes)]).saturating_add(164 * MIB);
    let mut plugins = Vec::new();
    plugin_lines(config, lanes, &mut plugins);
    let by_plugins = plugins.iter().fold(0, |sum: u64, line| sum.saturating_add(line.bytes));
    let limit_bytes = config.memory_limit_bytes.unwrap_or(by_lanes.saturating_add(by_plugins));
    let mut lines = vec![
        Line::new("program", 24 * MIB, "code, allocator, stacks, tables of the libraries"),
        Line::new("tap", TAP_BYTES, "blocks that wait for those who listen to what passes"),
    ];
    lane_lines(config, lanes, &mut lines);
    receiver_lines(config, &mut lines);
    exporter_lines(config, &mut lines);
    lines.extend(plugins);
    let total_bytes = lines.iter().fold(0, |sum: u64, line| sum.saturating_add(line.bytes));
    let budget = Budget { lines, total_bytes, limit_bytes };
    if total_bytes > limit_bytes { Err(OverBudget(budget)) } else { Ok(budget) }
}

fn lane_lines(config: &Config, lanes: usize, lines: &mut Vec<Line>) {
    let pools = pools(config, lanes);
    let lane_count = u64_of(lanes);
    let (reactor, gateway) = (u64_of(pools.reactor_ring_blocks), u64_of(pools.gateway_ring_blocks));
    let (target, largest) = (u64_of(TARGET_BYTES), u64_of(MAX_BYTES));
    lines.push(Line::new(
        "rings of the reactors",
        // A block is closed by the row that reaches the target, so it may be that much larger.
        product([lane_count, reactor, 2, target]),
        format!("{lanes} lanes x {reactor} blocks x twice {}", show_bytes(target)),
    ));
    lines.push(Line::new(
        "rings of the gateways",
        product([lane_count, gateway, largest]),
        format!("{lanes} lanes x {gateway} blocks x {}", show_bytes(largest)),
    ));
    lines.push(Line::new(
        "request bodies",
        product([lane_count, u64_of(pools.gateway_body_bytes)]),
        format!("{lanes} lanes x the largest request, as sent and inflated"),
    ));
    lines.push(Line::new(
        "read buffers",
        product([lane_count, u64_of(pools.reactor_scratch_bytes)]),
        format!("{lanes} lanes x {}", show_bytes(u64_of(pools.reactor_scratch_bytes))),
    ));
    lines.push(Line::new(
        "unfinished lines",
        product([lane_count, u64_of(pools.unfinished_line_bytes)]),
        format!("{lanes} lanes x {}", show_bytes(u64_of(pools.unfinished_line_bytes))),
    ));
    lines.push(Line::new(
        "blocks that wait for a full ring",
        product([lane_count, u64_of(pools.reactor_waiting_bytes)]),
        format!("{lanes} lanes x {}", show_bytes(u64_of(pools.reactor_waiting_bytes))),
    ));
    lines.push(Line::new(
        "session tables of the encoders",
        product([lane_count, 2, 4 * MIB]),
        format!("{lanes} lanes x reactor and gateway x 4MiB"),
    ));
    // What waits for its sync is kept, so that a failed sync can be made good in another segment.
    let unsynced = product([lane_count, config.queue.sync_bytes]);
    lines.push(Line::new("unsynced copies", unsynced, format!("{lanes} lanes x queue.sync_bytes")));
    let letters = 2 * u64_of(pools.dead_letters) * u64_of(DEAD_LETTER_BYTES);
    lines.push(Line::new("dead letters", letters, format!("2 stores x {} waiting x 64KiB", pools.dead_letters)));
}

fn receiver_lines(config: &Config, lines: &mut Vec<Line>) {
    for receiver in &config.receivers {
        let (connections, bytes, what) = match &receiver.protocol {
            Protocol::UberagentTcp(limits) => (limits.max_connections, KIB, "an idle connection owns no buffer"),
            Protocol::OtlpHttp(limits) | Protocol::Elasticsearch(limits) => {
                (limits.max_connections, HTTP_CONNECTION_BYTES, "read buffer, head of an answer, state")
            }
            Protocol::Plugin(limits) => (limits.max_connections, KIB, "an idle connection owns no buffer"),
        };
        lines.push(Line::new(
            format!("connections of {}", receiver.name),
            product([u64_of(connections), bytes]),
            format!("{connections} x {}: {what}", show_bytes(bytes)),
        ));
    }
}

/// Bytes that a step holds on a lane beside its sandbox, in blocks: the payload that it makes, those of its calls, and columns.
const PLUGIN_BLOCKS: u64 = 6;

/// A sandbox holds its memory and its state. There are two while a plugin is changed, the old one and the new.
fn plugin_lines(config: &Config, lanes: usize, lines: &mut Vec<Line>) {
    for plugin in &config.plugins {
        let limits = &plugin.limits;
        let each = limits.memory_bytes.saturating_add(limits.state_bytes).saturating_add(limits.patch_bytes);
        let sandboxes = 2 + u64::from(plugin.shadow.is_some());
        let blocks = product([PLUGIN_BLOCKS, u64_of(MAX_BYTES)]);
        lines.push(Line::new(
            format!("processors.{}", plugin.name),
            product([u64_of(lanes), product([sandboxes, each]).saturating_add(blocks)]),
            format!(
                "{lanes} lanes x {sandboxes} sandboxes x {} with state and answer, and {PLUGIN_BLOCKS} blocks",
                show_bytes(each)
            ),
        ));
    }
    for receiver in &config.receivers {
        if let Protocol::Plugin(limits) = &receiver.protocol {
            decoder_line(&receiver.name, limits, lines);
        }
    }
    for exporter in &config.exporters {
        if let Backend::Plugin(export) = &exporter.backend {
            let PluginLimits { memory_bytes, patch_bytes, .. } = export.plugin.limits;
            let each = memory_bytes.saturating_add(product([2, patch_bytes]));
            lines.push(Line::new(
                format!("encoders of {}", exporter.name),
                product([u64_of(exporter.retry.max_concurrency), each]),
                format!(
                    "{} in flight x {}: memory, columns and answer",
                    exporter.retry.max_concurrency,
                    show_bytes(each)
                ),
            ));
        }
    }
}

fn decoder_line(name: &str, limits: &PluginReceive, lines: &mut Vec<Line>) {
    let PluginLimits { memory_bytes, patch_bytes, .. } = limits.plugin.limits;
    let blocks = product([u64_of(DECODER_RING_BLOCKS), u64_of(MAX_BYTES)]);
    let pools = [u64_of(DECODER_UNREAD_BYTES), blocks, memory_bytes, patch_bytes, patch_bytes];
    lines.push(Line::new(
        format!("decoder of {name}"),
        pools.into_iter().fold(0, u64::saturating_add),
        format!(
            "{} not used up, {DECODER_RING_BLOCKS} blocks x {}, the plugin's memory and twice its patch",
            show_bytes(u64_of(DECODER_UNREAD_BYTES)),
            show_bytes(u64_of(MAX_BYTES)),
        ),
    ));
}

fn exporter_lines(config: &Config, lines: &mut Vec<Line>) {
    for exporter in &config.exporters {
        // The request is gathered once; JSON is at most four times its protobuf.
        let written = match &exporter.backend {
            Backend::OtlpHttp(otlp) if otlp.encoding == Encoding::Json => 4 * u64_of(exporter.batch.max_request_bytes),
            Backend::OtlpHttp(_) | Backend::Influx(_) | Backend::Plugin(_) => 0,
        };
        // A compressed copy is no larger.
        let copies = 1 + u64::from(exporter.backend.http().compression != Compression::None);
        let each = product([copies, u64_of(exporter.batch.max_request_bytes)]).saturating_add(written + 128 * KIB);
        lines.push(Line::new(
            format!("requests of {}", exporter.name),
            product([u64_of(exporter.retry.max_concurrency), each]),
            format!("{} in flight x {} with the reply", exporter.retry.max_concurrency, show_bytes(each)),
        ));
    }
}

/// What is too much to be counted is over any limit: a configuration may say any number.
fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

impl Line {
    fn new(pool: impl Into<String>, bytes: u64, reason: impl Into<String>) -> Line {
        Line { pool: pool.into(), bytes, reason: reason.into() }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { pool, bytes, reason } in &self.lines {
            writeln!(f, "{:>10.1} MiB  {pool}: {reason}", mebibytes(*bytes))?;
        }
        write!(f, "{:>10.1} MiB  of {:.1} MiB", mebibytes(self.total_bytes), mebibytes(self.limit_bytes))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people, with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

fn u64_of(count: usize) -> u64 {
    u64::try_from(count).expect("a usize has at most 64 bits")
}
