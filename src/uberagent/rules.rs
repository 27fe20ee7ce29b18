//! What the rows of each sourcetype mean: their names, times and ids.
//!
//! Pure functions of one row: no memory of other rows, no clock but the row's own times. What cannot be (a PID of 0,
//! a blank name) is as good as absent, and an id is then made of what tells the row from its neighbours. Trees,
//! parents and roots are `session`'s, the base of relative times is that of `times`.

use super::Sourcetype;
use super::encoder::RowContext;
use super::fields;
use super::guid::Guid;
use super::ids;
use super::row::View;
use super::times::{self, Base, Length, MS, length};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A row's session GUID, or the reason why the row cannot be a span of a session.
pub(crate) fn guid_of(view: View<'_>) -> Result<Guid, &'static str> {
    match view.value(fields::SESSION_GUID) {
        None if view.value(fields::EVENT).is_some() => Err(super::reason::HEC_ENVELOPE),
        None => Err(super::reason::SESSION_GUID_MISSING),
        Some(value) => match view.text_of(value) {
            Some([]) => Err(super::reason::SESSION_GUID_MISSING),
            Some(text) => Guid::parse(text).ok_or(super::reason::SESSION_GUID_INVALID),
            None => Err(super::reason::SESSION_GUID_INVALID),
        },
    }
}

/// A text that has something in it.
pub(crate) fn non_blank(text: Option<&[u8]>) -> Option<&[u8]> {
    text.filter(|text| !text.trim_ascii().is_empty())
}

/// A PID that can be part of an id: not 0, and no more than Windows has.
#[inline]
pub(crate) fn process_id(view: View<'_>, field: usize) -> Option<u32> {
    view.int(field).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

/// The depth-first order; 0 when the row has none.
pub(crate) fn sort_order(view: View<'_>) -> u32 {
    let order = view.int(fields::SORT_ORDER2).or_else(|| view.int(fields::SORT_ORDER));
    order.and_then(|order| u32::try_from(order).ok()).unwrap_or(0)
}

/// The name of a row's span.
pub(crate) fn name_of(row: RowContext<'_>) -> &[u8] {
    let view = row.view;
    let text = |field: usize| non_blank(view.text(field));
    let fallback: &'static [u8] = match row.sourcetype {
        Sourcetype::LogonProcesses => {
            return text(fields::PROC_NAME).or_else(|| text(fields::LOGON_PROC_TYPE)).unwrap_or(b"unknown");
        }
        Sourcetype::LogoffProcesses => {
            return text(fields::PROC_NAME).or_else(|| text(fields::LOGOFF_PROC_TYPE)).unwrap_or(b"unknown");
        }
        Sourcetype::GroupPolicyCseDetail => return text(fields::CSE_NAME).unwrap_or(b"Group policy extension"),
        Sourcetype::BootProcessDetail => return text(fields::PROCESS_NAME).unwrap_or(b"unknown"),
        Sourcetype::BrowserWebRequests => {
            let host = text(fields::REQUEST_HOST).map(|host| super::attributes::request_host(view, host));
            return non_blank(host).or_else(|| text(fields::TAB_HOST)).unwrap_or(b"unknown");
        }
        Sourcetype::LogonDetail => b"Logon summary",
        Sourcetype::LogoffDetail => b"Logoff summary",
        Sourcetype::BootDetail => b"Boot summary",
        Sourcetype::ShutdownDetail => b"Shutdown",
        Sourcetype::StandbyDetail => b"Standby",
        _ => return text(fields::PROC_NAME).unwrap_or(b"unknown"),
    };
    fallback
}

/// The duration of the whole logon, logoff or boot, where the row states it.
pub(crate) fn total_of(row: RowContext<'_>) -> Option<Length> {
    let field = match row.sourcetype {
        Sourcetype::LogonProcesses => fields::TOTAL_LOGON_DURATION_MS,
        Sourcetype::LogoffProcesses => fields::TOTAL_LOGOFF_DURATION_MS,
        Sourcetype::LogonDetail => fields::TOTAL_LOGON_TIME_MS,
        Sourcetype::LogoffDetail => fields::TOTAL_LOGOFF_TIME_MS,
        Sourcetype::BootProcesses => fields::TOTAL_BOOT_DURATION_MS,
        Sourcetype::BootDetail => fields::TOTAL_BOOT_TIME_MS,
        _ => return None,
    };
    row.view.double(field).map(|_| length(row.view, field, MS))
}

/// The duration of a row in a tree that is no process.
pub(crate) fn duration_of(row: RowContext<'_>, total: Option<Length>) -> Length {
    match row.sourcetype {
        Sourcetype::GroupPolicyCseDetail => length(row.view, fields::CSE_DURATION_S, SECOND),
        _ => total.unwrap_or(Length { ns: 0, clamped: false }),
    }
}

/// When a span began and ended, and how that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub start_ns: u64,
    pub end_ns: u64,
    pub base: Base,
    pub clamped: bool,
}

/// What the times of a row whose trace is its own are counted from when nothing is amiss.
pub(crate) fn usual_base_alone(sourcetype: Sourcetype) -> Base {
    if sourcetype == Sourcetype::StandbyDetail { Base::Row } else { Base::Event }
}

/// The times of a row whose trace is its own: it ends at its event, but standby says when it began and ended.
pub(crate) fn times_alone(row: RowContext<'_>) -> Times {
    let view = row.view;
    if row.sourcetype == Sourcetype::StandbyDetail {
        let written = |field: usize| view.text(field).and_then(times::written_ns);
        if let (Some(start_ns), Some(end_ns)) = (written(fields::SLEEP_TIME), written(fields::WAKE_TIME))
            && start_ns <= end_ns
        {
            return Times { start_ns, end_ns, base: Base::Row, clamped: false };
        }
    }
    let field = match row.sourcetype {
        Sourcetype::ProcessStartup => fields::STARTUP_TIME_MS,
        Sourcetype::ProcessStop => fields::PROC_LIFETIME_MS,
        Sourcetype::ShutdownDetail => fields::TOTAL_SHUTDOWN_TIME_MS,
        Sourcetype::StandbyDetail => fields::RESUME_FROM_STANDBY_MS,
        _ if view.value(fields::PAGE_LOAD_TOTAL_DURATION_MS).is_some() => fields::PAGE_LOAD_TOTAL_DURATION_MS,
        _ => fields::WEB_REQUEST_DURATION_MS,
    };
    let Length { ns, clamped } = length(view, field, MS);
    let (end_ns, base) = row.event_ns.map_or((row.received_ns, Base::Received), |event| (event, Base::Event));
    Times { start_ns: end_ns.saturating_sub(ns), end_ns, base, clamped }
}

/// What an id is made of when a row has nothing better: its event time, else its receive time.
pub(crate) fn event_id(row: RowContext<'_>) -> [u8; 8] {
    row.event_ns.unwrap_or(row.received_ns).to_be_bytes()
}

/// The trace of what is no session.
pub(crate) fn family_trace(family: &[u8], host: &[u8], identity: &[u8]) -> [u8; 16] {
    ids::trace_id(&[family, host, identity])
}

/// The id of a synthesised root of the given name.
pub(crate) fn root_id(name: &[u8], host: &[u8]) -> [u8; 8] {
    ids::span_id(&[b"root", host, name])
}

/// Trace and span of the start of the process that a row names as its parent.
pub(crate) fn parent_start(row: RowContext<'_>) -> Option<([u8; 16], [u8; 8])> {
    let guid = non_blank(row.view.text(fields::PROC_PARENT_GUID))?;
    let is_nobody = guid.iter().all(|byte| matches!(byte, b'0' | b'-' | b'{' | b'}'));
    (!is_nobody).then(|| (family_trace(b"process", row.host, guid), process_start_id(row.host, guid)))
}

/// The span of the start of a process: a function of its GUID, so that its children can name it.
fn process_start_id(host: &[u8], guid: &[u8]) -> [u8; 8] {
    ids::span_id(&[Sourcetype::ProcessStartup.name().as_bytes(), host, guid])
}

/// Trace and root of the logon of a session.
pub(crate) fn logon_root(guid: Guid, host: &[u8]) -> ([u8; 16], [u8; 8]) {
    (guid.trace_id(1), root_id(b"Logon", host))
}

/// The made-up id of a row without a usable PID and start, out of all that tells it from its neighbours.
pub(crate) fn made_up_id(row: RowContext<'_>, name: &[u8], start_ns: u64) -> [u8; 8] {
    let view = row.view;
    let text = |field: usize| view.text(field).unwrap_or_default();
    let number = |field: usize| view.int(field).unwrap_or(-1).to_be_bytes();
    let kind = row.sourcetype.name().as_bytes();
    let (start, event) = (start_ns.to_be_bytes(), event_id(row));
    match row.sourcetype {
        Sourcetype::BrowserWebRequests => ids::span_id(&[
            kind,
            row.host,
            name,
            &event,
            text(fields::TAB_HOST),
            text(fields::PROC_USER),
            &number(fields::BROWSER),
            &number(fields::REQUEST_TYPE),
            &number(fields::IS_FRAME),
        ]),
        Sourcetype::ProcessStartup if non_blank(view.text(fields::PROC_GUID)).is_some() => {
            process_start_id(row.host, text(fields::PROC_GUID))
        }
        Sourcetype::ProcessStartup | Sourcetype::ProcessStop => {
            ids::span_id(&[kind, row.host, name, &event, text(fields::PROC_GUID), &number(fields::PROC_ID)])
        }
        Sourcetype::GroupPolicyCseDetail => ids::span_id(&[kind, row.host, name, text(fields::USER)]),
        Sourcetype::LogonProcesses | Sourcetype::LogoffProcesses | Sourcetype::BootProcesses => {
            ids::span_id(&[kind, row.host, name, &start])
        }
        _ => ids::span_id(&[kind, row.host, name]),
    }
}
