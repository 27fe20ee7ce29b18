//! One uberAgent row: a sourcetype, a host, an event time and the values of that sourcetype's columns.
//!
//! Columns stand in the order of uberAgent's Splunk CSV, which is positional; the JSON forms use their names. An absent
//! value is an empty CSV field and a missing JSON key. The timestamp is not among the columns: each wire form puts it
//! somewhere else.

use std::borrow::Cow;
use std::sync::Arc;

/// The sourcetypes that a fleet emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sourcetype {
    /// `uberAgent:Process:LogonProcesses`
    LogonProcesses,
    /// `uberAgent:Process:LogoffProcesses`
    LogoffProcesses,
    /// `uberAgent:Logon:LogonDetail`
    LogonDetail,
    /// `uberAgent:Logoff:LogoffDetail`
    LogoffDetail,
    /// `uberAgent:Logon:GroupPolicyCSEDetail2`
    GroupPolicyCse,
}

#[rustfmt::skip]
const LOGON_PROCESSES: &[&str] = &[
    "ProcName", "ProcID", "ProcParentName", "ProcParentID", "ProcUser", "AppId", "AppVersion", "LogonProcType",
    "ProcStartTimeRelativeMs", "ProcLifetimeMs", "ProcCmdline", "ProcPath", "ProcCPUTimeMs", "ProcIOReadCount",
    "ProcIOWriteCount", "ProcIOReadMB", "ProcIOWriteMB", "ProcIOLatencyReadMs2", "ProcIOLatencyWriteMs2",
    "ProcWorkingSetMB", "ProcNetKBPS", "SessionGUID", "SessionID", "TotalLogonDurationMs", "SortOrder", "SortOrder2",
];

#[rustfmt::skip]
const LOGOFF_PROCESSES: &[&str] = &[
    "ProcName", "ProcID", "ProcParentName", "ProcParentID", "ProcUser", "AppId", "AppVersion", "LogoffProcType",
    "ProcStartTimeRelativeMs", "ProcLifetimeMs", "ProcCmdline", "ProcPath", "ProcIOReadCount", "ProcIOWriteCount",
    "ProcIOReadMB", "ProcIOWriteMB", "ProcIOLatencyReadMs2", "ProcIOLatencyWriteMs2", "ProcNetKBPS", "SessionGUID",
    "SessionID", "TotalLogoffDurationMs", "SortOrder", "SortOrder2",
];

#[rustfmt::skip]
const LOGON_DETAIL: &[&str] = &[
    "SessionGUID", "SessionID", "User", "SessionLogonTime", "PreLogonInitTimeMs", "SiteName", "LogonServer",
    "ProfileLoadTimeMs", "CitrixPMLoadTimeMs", "GroupPolicyTotalProcessingTimeMs", "DcDiscoveryTimeMs", "LoopbackMode",
    "ADLogonScriptTimeMs", "GroupPolicyLogonScriptTimeMs", "ResWmProcessingTimeMs", "ShellStartupTimeMs",
    "TotalLogonTimeMs", "ProcessStartCount", "IOCountRead", "IOCountWrite", "IOMBRead", "IOMBWrite",
    "IOLatencyReadMs", "IOLatencyWriteMs",
];

#[rustfmt::skip]
const LOGOFF_DETAIL: &[&str] = &[
    "SessionGUID", "SessionID", "User", "SessionLogoffTime", "SessionEndTime", "SessionDurationMs",
    "ProfileUnloadTimeMs2", "GroupPolicyLogoffScriptTimeMs", "TotalLogoffTimeMs", "ProcessStartCount", "IOCountRead",
    "IOCountWrite", "IOMBRead", "IOMBWrite", "IOLatencyReadMs", "IOLatencyWriteMs",
];

#[rustfmt::skip]
const GROUP_POLICY_CSE: &[&str] =
    &["SessionGUID", "SessionID", "User", "CseName", "CseDurationS", "CseGPONames", "CseReturnCode"];

impl Sourcetype {
    /// uberAgent's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sourcetype::LogonProcesses => "uberAgent:Process:LogonProcesses",
            Sourcetype::LogoffProcesses => "uberAgent:Process:LogoffProcesses",
            Sourcetype::LogonDetail => "uberAgent:Logon:LogonDetail",
            Sourcetype::LogoffDetail => "uberAgent:Logoff:LogoffDetail",
            Sourcetype::GroupPolicyCse => "uberAgent:Logon:GroupPolicyCSEDetail2",
        }
    }

    /// Its columns in the order of the Splunk CSV, without the leading timestamp.
    #[must_use]
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Sourcetype::LogonProcesses => LOGON_PROCESSES,
            Sourcetype::LogoffProcesses => LOGOFF_PROCESSES,
            Sourcetype::LogonDetail => LOGON_DETAIL,
            Sourcetype::LogoffDetail => LOGOFF_DETAIL,
            Sourcetype::GroupPolicyCse => GROUP_POLICY_CSE,
        }
    }

    /// Whether it is one of the two that report processes.
    #[must_use]
    pub fn is_process(self) -> bool {
        matches!(self, Sourcetype::LogonProcesses | Sourcetype::LogoffProcesses)
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Integer(u64),
    /// `scaled` divided by ten to the power of `digits`.
    Decimal {
        /// The number without its decimal point.
        scaled: u64,
        /// Digits after the decimal point, 1 to 3.
        digits: u32,
    },
    /// A string with Windows' backslashes.
    Text(Cow<'static, str>),
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it reports.
    pub sourcetype: Sourcetype,
    /// The endpoint.
    pub host: Arc<str>,
    /// Event time: Unix milliseconds, UTC.
    pub event_ms: u64,
    /// One value a column of the sourcetype.
    pub values: Vec<Option<Value>>,
    /// Which order of JSON keys Fluent Bit happens to write.
    pub key_order: u8,
}

impl Row {
    /// A row with all values absent.
    pub(super) fn new(sourcetype: Sourcetype, host: Arc<str>, event_ms: u64, key_order: u8) -> Row {
        Row { sourcetype, host, event_ms, values: vec![None; sourcetype.columns().len()], key_order }
    }

    /// Sets a column. Panics when the sourcetype has no such column.
    pub(super) fn set(&mut self, column: &str, value: Value) {
        let at = self.index(column).expect("the column belongs to the sourcetype");
        self.values[at] = Some(value);
    }

    /// Sets a column to a whole number.
    pub(super) fn set_integer(&mut self, column: &str, value: impl Into<u64>) {
        self.set(column, Value::Integer(value.into()));
    }

    /// Sets a column to a number of tenths.
    pub(super) fn set_tenths(&mut self, column: &str, tenths: u64) {
        self.set(column, Value::Decimal { scaled: tenths, digits: 1 });
    }

    /// Sets a column to a text.
    pub(super) fn set_text(&mut self, column: &str, text: impl Into<Cow<'static, str>>) {
        self.set(column, Value::Text(text.into()));
    }

    /// The value of a column; `None` when it is absent or the sourcetype has no such column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.values[self.index(column)?].as_ref()
    }

    /// The whole number in a column.
    #[must_use]
    pub fn integer(&self, column: &str) -> Option<u64> {
        match self.get(column)? {
            Value::Integer(value) => Some(*value),
            Value::Decimal { .. } | Value::Text(_) => None,
        }
    }

    /// The text in a column.
    #[must_use]
    pub fn text(&self, column: &str) -> Option<&str> {
        match self.get(column)? {
            Value::Text(text) => Some(text),
            Value::Decimal { .. } | Value::Integer(_) => None,
        }
    }

    fn index(&self, column: &str) -> Option<usize> {
        self.sourcetype.columns().iter().position(|name| *name == column)
    }
}
