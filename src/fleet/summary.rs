//! The rows that sum a session's ends up: LogonDetail, LogoffDetail and the group policy extensions.
//!
//! Each is a function of the session alone, whose own generator draws what varies, so that a fleet of one seed always
//! says the same. Nothing here decides when rows are sent or how they are written.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::row::{Row, Sourcetype, Value};
use super::session::Session;

/// Client-side extensions of group policy: name, policies that use it.
const EXTENSIONS: &[(&str, &str)] = &[
    ("Registry", "Default Domain Policy;W11-Baseline;Edge-Policy"),
    ("Scripts", "LogonScripts-EMEA"),
    ("Group Policy Drive Maps", "Drives-Vertrieb"),
    ("Folder Redirection", "FolderRedir"),
    ("Group Policy Printers", "Drucker – Büro Köln"),
    ("Group Policy Shortcuts", "Shortcuts"),
    ("Internet Explorer Zonemapping", "Zones"),
    ("Group Policy Environment", "Environment;W11-Baseline"),
    ("Citrix Profile Management", "UPM-Base"),
    ("Deployed Printer Connections", "Printers-EMEA"),
];

/// Appends the LogonDetail and 6 to 10 extensions of a logon with `processes` process rows.
pub(super) fn logon_rows(session: &Session, processes: usize, rows: &mut Vec<Row>) {
    let mut rng = session.rng(2);
    let mut row = session_row(session, Sourcetype::LogonDetail, &mut rng);
    row.set_text("SessionLogonTime", local_time(session, session.created_ms, "%Y-%m-%d %H:%M:%S%.3f %z"));
    row.set_text("SiteName", format!("EMEA-{}", session.site));
    row.set_text("LogonServer", format!("DC{:02}", rng.u32(1..9)));
    row.set_text("LoopbackMode", "Replace");
    row.set_integer("PreLogonInitTimeMs", rng.u64(300..2_000));
    row.set_integer("ProfileLoadTimeMs", rng.u64(400..session.logon_ms / 8));
    row.set_integer("GroupPolicyTotalProcessingTimeMs", rng.u64(500..session.logon_ms / 6));
    row.set_integer("DcDiscoveryTimeMs", rng.u64(5..60));
    row.set_integer("GroupPolicyLogonScriptTimeMs", rng.u64(200..session.logon_ms / 5));
    row.set_integer("ShellStartupTimeMs", rng.u64(900..session.logon_ms / 4));
    row.set_integer("TotalLogonTimeMs", session.logon_ms);
    set_io(&mut row, processes, &mut rng);
    rows.push(row);

    let mut extensions: Vec<_> = EXTENSIONS.iter().collect();
    rng.shuffle(&mut extensions);
    for (name, policies) in extensions.into_iter().take(rng.usize(6..=10)) {
        let mut row = session_row(session, Sourcetype::GroupPolicyCse, &mut rng);
        row.set_text("CseName", *name);
        row.set("CseDurationS", Value::Decimal { scaled: rng.u64(12..4_000), digits: 3 });
        row.set_text("CseGPONames", *policies);
        // 0x80070704 is a printer driver that could not be found: the usual failure.
        row.set_integer("CseReturnCode", if rng.u32(0..40) == 0 { 2_147_944_122u64 } else { 0 });
        rows.push(row);
    }
}

/// Appends the LogoffDetail of a logoff with `processes` process rows.
pub(super) fn logoff_rows(session: &Session, processes: usize, rows: &mut Vec<Row>) {
    let mut rng = session.rng(3);
    let mut row = session_row(session, Sourcetype::LogoffDetail, &mut rng);
    let began_ms = session.event_ms - session.logoff_ms;
    row.set_text("SessionLogoffTime", local_time(session, began_ms, "%Y-%m-%d %H:%M:%S"));
    row.set_text("SessionEndTime", local_time(session, session.event_ms, "%Y-%m-%d %H:%M:%S"));
    row.set_integer("SessionDurationMs", session.event_ms - session.created_ms);
    row.set_integer("ProfileUnloadTimeMs2", rng.u64(100..session.logoff_ms / 4));
    row.set_integer("GroupPolicyLogoffScriptTimeMs", rng.u64(50..session.logoff_ms / 4));
    row.set_integer("TotalLogoffTimeMs", session.logoff_ms);
    set_io(&mut row, processes, &mut rng);
    rows.push(row);
}

fn session_row(session: &Session, sourcetype: Sourcetype, rng: &mut Rng) -> Row {
    let mut row = Row::new(sourcetype, session.host.clone(), session.event_ms, rng.u8(..));
    row.set_text("SessionGUID", session.guid());
    row.set_integer("SessionID", session.id);
    row.set_text("User", session.user.clone());
    row
}

fn set_io(row: &mut Row, processes: usize, rng: &mut Rng) {
    row.set_integer("ProcessStartCount", processes as u64);
    row.set_integer("IOCountRead", rng.u64(2_000..20_000));
    row.set_integer("IOCountWrite", rng.u64(1_000..9_000));
    row.set_tenths("IOMBRead", rng.u64(900..20_000));
    row.set_tenths("IOMBWrite", rng.u64(100..4_000));
    row.set_tenths("IOLatencyReadMs", rng.u64(2..90));
    row.set_tenths("IOLatencyWriteMs", rng.u64(2..40));
}

/// A time as the host's own clock shows it.
fn local_time(session: &Session, unix_ms: u64, format: &str) -> String {
    let unix = Duration::from_millis(unix_ms);
    let timestamp = Timestamp::from_duration(unix.try_into().unwrap_or_default()).unwrap_or_default();
    let offset = Offset::from_seconds(session.utc_offset_minutes * 60).unwrap_or(Offset::UTC);
    timestamp.to_zoned(TimeZone::fixed(offset)).strftime(format).to_string()
}
