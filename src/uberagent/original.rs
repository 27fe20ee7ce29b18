//! The mapping `original`: ProxyTrace's rules bit for bit, with its bugs mended.
//!
//! Kept: trace id `1` or `2` and 31 digits of the GUID, span id = PID, parent id = parent PID, `service.name` = phase, the
//! attributes and their names. Mended: times count from the true base instead of the receive clock's second, megabytes
//! and latencies keep their fractions, what a row does not say is absent instead of 0, and a row without a usable PID gets
//! a made-up id instead of all zeros. Only process rows make spans, as before.

use super::Sourcetype;
use super::attributes::{SPAN_ATTRIBUTE, cut, is_empty};
use super::blocks::{Item, Resource};
use super::encoder::{Output, RowContext};
use super::fields::{self, Kind, TEXT_CAP_BYTES};
use super::ids;
use super::row::View;
use super::rules::{guid_of, non_blank, process_id};
use super::span::{Head, SpanKind};
use super::times::{self, MS, length};
use crate::otlp::writer::{Key, Writer};

/// ProxyTrace's numbers.
static ATTRIBUTES: [(usize, Key, Kind); 10] = [
    (fields::PROC_CPU_TIME_MS, Key::new("ProcCPUTimeMs"), Kind::Int),
    (fields::PROC_WORKING_SET_MB, Key::new("ProcWorkingSetMB"), Kind::Double),
    (fields::PROC_NET_KBPS, Key::new("ProcNetKBPS"), Kind::Double),
    (fields::PROC_IO_READ_COUNT, Key::new("ProcIOReadCount"), Kind::Int),
    (fields::PROC_IO_WRITE_COUNT, Key::new("ProcIOWriteCount"), Kind::Int),
    (fields::PROC_IO_READ_MB, Key::new("ProcIOReadMB"), Kind::Double),
    (fields::PROC_IO_WRITE_MB, Key::new("ProcIOWriteMB"), Kind::Double),
    (fields::PROC_IO_LATENCY_READ_MS2, Key::new("ProcIOLatencyReadMs2"), Kind::Double),
    (fields::PROC_IO_LATENCY_WRITE_MS2, Key::new("ProcIOLatencyWriteMs2"), Kind::Double),
    (fields::PROC_LIFETIME_MS, Key::new("ProcLifetimeMs"), Kind::Int),
];
static EVENT_TYPE: Key = Key::new("event_type");
static PROC_USER: Key = Key::new("ProcUser");

/// Encodes a process row; the number of fields left out, or why it cannot be a span.
pub(crate) fn encode(row: RowContext<'_>, out: &mut Output) -> Result<u32, &'static str> {
    let view = row.view;
    let guid = guid_of(view)?;
    let logoff = row.sourcetype == Sourcetype::LogoffProcesses;
    let total_field = if logoff { fields::TOTAL_LOGOFF_DURATION_MS } else { fields::TOTAL_LOGON_DURATION_MS };
    let total_ms = length(view, total_field, MS).ns / MS;
    let (base_ns, _) = if logoff {
        times::end_base(row.event_ns, total_ms, row.received_ns)
    } else {
        times::logon_base(row, guid, total_ms)
    };
    let start_ns = base_ns.saturating_add(length(view, fields::PROC_START_TIME_RELATIVE_MS, MS).ns);
    let end_ns = start_ns.saturating_add(length(view, fields::PROC_LIFETIME_MS, MS).ns);
    let phase_field = if logoff { fields::LOGOFF_PROC_TYPE } else { fields::LOGON_PROC_TYPE };
    let phase = cut(view.text(phase_field).unwrap_or_default(), TEXT_CAP_BYTES);
    let name = non_blank(view.text(fields::PROC_NAME)).unwrap_or(b"unknown-span");
    let head = Head {
        trace_id: guid.trace_id(if logoff { 2 } else { 1 }),
        span_id: process_id(view, fields::PROC_ID).map_or_else(|| made_up(row, phase, name), pid_as_id),
        parent_id: process_id(view, fields::PROC_PARENT_ID).map(pid_as_id),
        name,
        kind: SpanKind::Internal,
        start_ns,
        end_ns,
    };
    head.write(&mut out.writer);
    let dropped = write_attributes(view, if logoff { b"logoff" } else { b"logon" }, &mut out.writer);
    let item = Item { bytes: out.writer.as_bytes(), start_ns, end_ns, records: 1, received_ns: row.received_ns };
    out.traces.append(Resource { host: b"", service: phase, session: None }, item);
    Ok(dropped)
}

fn pid_as_id(pid: u32) -> [u8; 8] {
    u64::from(pid).to_be_bytes()
}

/// A made-up id above all PIDs: of a session's rows without a PID each gets its own.
fn made_up(row: RowContext<'_>, phase: &[u8], name: &[u8]) -> [u8; 8] {
    let start = row.view.int(fields::PROC_START_TIME_RELATIVE_MS).unwrap_or(0).to_be_bytes();
    let low = u64::from_be_bytes(ids::span_id(&[b"original", row.host, phase, name, &start]));
    (1 << 63 | low).to_be_bytes()
}

fn write_attributes(view: View<'_>, event_type: &[u8], writer: &mut Writer) -> u32 {
    let mut dropped = 0;
    for (field, key, kind) in &ATTRIBUTES {
        let Some(value) = view.value(*field) else { continue };
        match kind {
            Kind::Int => match view.int_of(value) {
                Some(number) => writer.int_attribute(SPAN_ATTRIBUTE, key, number),
                None => dropped += u32::from(!is_empty(value)),
            },
            _ => match view.double_of(value) {
                Some(number) => writer.double_attribute(SPAN_ATTRIBUTE, key, number),
                None => dropped += u32::from(!is_empty(value)),
            },
        }
    }
    let user = view.text(fields::PROC_USER).unwrap_or(b"unknown-user");
    writer.text_attribute(SPAN_ATTRIBUTE, &PROC_USER, cut(user, TEXT_CAP_BYTES));
    writer.text_attribute(SPAN_ATTRIBUTE, &EVENT_TYPE, event_type);
    dropped
}
