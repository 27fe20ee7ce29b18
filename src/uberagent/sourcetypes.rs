//! One half of the table: every sourcetype, and how its rows become spans.
//!
//! Names and column positions are those of the vendor's Splunk app (transforms.conf) and Elasticsearch template. Columns
//! are only ever appended by the vendor, so a longer line is fine. Sourcetypes that make no span need no columns. The
//! fields themselves stand in `fields`; together they drive reading, encoding and `README.md`.

/// uberAgent's kinds of rows, as far as they are told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sourcetype {
    /// A process of a logon, or a phase of it.
    LogonProcesses,
    /// A process of a logoff, or a phase of it.
    LogoffProcesses,
    /// The summary of a logon.
    LogonDetail,
    /// The summary of a logoff.
    LogoffDetail,
    /// One client-side extension of group policy during a logon.
    GroupPolicyCseDetail,
    /// The start of a process.
    ProcessStartup,
    /// The end of a process.
    ProcessStop,
    /// The summary of a boot.
    BootDetail,
    /// A process of a boot.
    BootProcesses,
    /// The disk activity of a process during a boot.
    BootProcessDetail,
    /// A shutdown.
    ShutdownDetail,
    /// Standby and resume.
    StandbyDetail,
    /// Web requests of a browser tab.
    BrowserWebRequests,
    /// A session's gauges.
    SessionDetail,
    /// A process's gauges.
    ProcessDetail,
    /// An unresponsive user interface.
    UiDelay,
    /// An application error.
    ApplicationErrors,
    /// A failed connection.
    NetworkConnectFailure,
    /// A named sourcetype that is not in the table.
    Other,
    /// A row that names no sourcetype and has the shape of none.
    Missing,
}

impl Sourcetype {
    /// The name that uberAgent sends; a label of metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sourcetype::SessionDetail => "uberAgent:Session:SessionDetail",
            Sourcetype::ProcessDetail => "uberAgent:Process:ProcessDetail",
            Sourcetype::UiDelay => "uberAgent:Application:UIDelay",
            Sourcetype::ApplicationErrors => "uberAgent:Application:Errors",
            Sourcetype::NetworkConnectFailure => "uberAgent:Application:NetworkConnectFailure",
            Sourcetype::Other => "other",
            Sourcetype::Missing => "missing",
            spans => RULES[spans as usize].name,
        }
    }

    /// The sourcetype with this name, without regard to case.
    pub(crate) fn from_name(name: &[u8]) -> Sourcetype {
        let rule = RULES.iter().find(|rule| rule.name.as_bytes().eq_ignore_ascii_case(name));
        let named = [
            Sourcetype::SessionDetail,
            Sourcetype::ProcessDetail,
            Sourcetype::UiDelay,
            Sourcetype::ApplicationErrors,
            Sourcetype::NetworkConnectFailure,
        ];
        let other = || named.into_iter().find(|other| other.name().as_bytes().eq_ignore_ascii_case(name));
        rule.map(|rule| rule.sourcetype).or_else(other).unwrap_or(Sourcetype::Other)
    }

    /// How its rows become spans; `None` for those that make none.
    pub(crate) fn rule(self) -> Option<&'static Rule> {
        RULES.get(self as usize)
    }
}

/// How the Splunk form of a sourcetype is written, behind the timestamp.
pub(crate) enum Csv {
    /// Values in this order.
    Columns(&'static [&'static str]),
    /// `name=value` pairs.
    Pairs,
    /// Values in an order that the vendor has not published.
    Unknown,
}

/// How the rows of one sourcetype become spans.
pub(crate) struct Rule {
    /// The sourcetype.
    pub sourcetype: Sourcetype,
    /// Its name on the wire.
    pub name: &'static str,
    /// `service.name` of its spans.
    pub service: &'static str,
    /// How its Splunk form is written.
    pub csv: Csv,
    /// The rule of the trace id, for people.
    pub trace_id: &'static str,
    /// The rule of the span id, for people.
    pub span_id: &'static str,
}

const LOGON_TRACE: &str = "`1` + first 31 digits of SessionGUID";
const LOGOFF_TRACE: &str = "`2` + first 31 digits of SessionGUID";
const BOOT_TRACE: &str = "hash of `boot`, host, BootUID (else event time)";
const PROCESS_TRACE: &str = "hash of `process`, host, ProcGUID (else event time)";
const PROCESS_SPAN: &str =
    "(ProcStartTimeRelativeMs + 1) << 32 \\| ProcID; without a PID: hash of sourcetype, host, name, start";
const START_SPAN: &str =
    "hash of sourcetype, host, ProcGUID; without one: of sourcetype, host, name, event time, ProcID";
const ROW_SPAN: &str = "hash of sourcetype, host, name and what tells the rows of one trace apart";

/// The sourcetypes that make spans, in the order of [`Sourcetype`].
pub(crate) static RULES: [Rule; 13] = [
    Rule {
        sourcetype: Sourcetype::LogonProcesses,
        name: "uberAgent:Process:LogonProcesses",
        service: "uberagent.logon",
        csv: Csv::Columns(&[
            "ProcName",
            "ProcID",
            "ProcParentName",
            "ProcParentID",
            "ProcUser",
            "AppId",
            "AppVersion",
            "LogonProcType",
            "ProcStartTimeRelativeMs",
            "ProcLifetimeMs",
            "ProcCmdline",
            "ProcPath",
            "ProcCPUTimeMs",
            "ProcIOReadCount",
            "ProcIOWriteCount",
            "ProcIOReadMB",
            "ProcIOWriteMB",
            "ProcIOLatencyReadMs2",
            "ProcIOLatencyWriteMs2",
            "ProcWorkingSetMB",
            "ProcNetKBPS",
            "SessionGUID",
            "SessionID",
            "TotalLogonDurationMs",
            "SortOrder",
            "SortOrder2",
        ]),
        trace_id: LOGON_TRACE,
        span_id: PROCESS_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::LogoffProcesses,
        name: "uberAgent:Process:LogoffProcesses",
        service: "uberagent.logoff",
        csv: Csv::Columns(&[
            "ProcName",
            "ProcID",
            "ProcParentName",
            "ProcParentID",
            "ProcUser",
            "AppId",
            "AppVersion",
            "LogoffProcType",
            "ProcStartTimeRelativeMs",
            "ProcLifetimeMs",
            "ProcCmdline",
            "ProcPath",
            "ProcIOReadCount",
            "ProcIOWriteCount",
            "ProcIOReadMB",
            "ProcIOWriteMB",
            "ProcIOLatencyReadMs2",
            "ProcIOLatencyWriteMs2",
            "ProcNetKBPS",
            "SessionGUID",
            "SessionID",
            "TotalLogoffDurationMs",
            "SortOrder",
            "SortOrder2",
        ]),
        trace_id: LOGOFF_TRACE,
        span_id: PROCESS_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::LogonDetail,
        name: "uberAgent:Logon:LogonDetail",
        service: "uberagent.logon",
        csv: Csv::Columns(&[
            "SessionGUID",
            "SessionID",
            "User",
            "SessionLogonTime",
            "PreLogonInitTimeMs",
            "SiteName",
            "LogonServer",
            "ProfileLoadTimeMs",
            "CitrixPMLoadTimeMs",
            "GroupPolicyTotalProcessingTimeMs",
            "DcDiscoveryTimeMs",
            "LoopbackMode",
            "ADLogonScriptTimeMs",
            "GroupPolicyLogonScriptTimeMs",
            "ResWmProcessingTimeMs",
            "ShellStartupTimeMs",
            "TotalLogonTimeMs",
            "ProcessStartCount",
            "IOCountRead",
            "IOCountWrite",
            "IOMBRead",
            "IOMBWrite",
            "IOLatencyReadMs",
            "IOLatencyWriteMs",
        ]),
        trace_id: LOGON_TRACE,
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::LogoffDetail,
        name: "uberAgent:Logoff:LogoffDetail",
        service: "uberagent.logoff",
        csv: Csv::Columns(&[
            "SessionGUID",
            "SessionID",
            "User",
            "SessionLogoffTime",
            "SessionEndTime",
            "SessionDurationMs",
            "ProfileUnloadTimeMs2",
            "GroupPolicyLogoffScriptTimeMs",
            "TotalLogoffTimeMs",
            "ProcessStartCount",
            "IOCountRead",
            "IOCountWrite",
            "IOMBRead",
            "IOMBWrite",
            "IOLatencyReadMs",
            "IOLatencyWriteMs",
        ]),
        trace_id: LOGOFF_TRACE,
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::GroupPolicyCseDetail,
        name: "uberAgent:Logon:GroupPolicyCSEDetail2",
        service: "uberagent.logon",
        csv: Csv::Columns(&[
            "SessionGUID",
            "SessionID",
            "User",
            "CseName",
            "CseDurationS",
            "CseGPONames",
            "CseReturnCode",
        ]),
        trace_id: LOGON_TRACE,
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::ProcessStartup,
        name: "uberAgent:Process:ProcessStartup",
        service: "uberagent.process",
        csv: Csv::Columns(&[
            "ProcName",
            "ProcUser",
            "StartupTimeMs",
            "StartupIOPS",
            "AppId",
            "ProcID",
            "ProcParentID",
            "SessionID",
            "ProcGUID",
            "SessionGUID",
            "ProcParentName",
            "ProcPath",
            "ProcCmdline",
            "IsElevated",
            "AppVersion",
            "ProcParentGUID",
            "ProcHash",
            "HashType",
            "IsProtected",
            "HashMD5",
            "HashSHA1",
            "HashSHA256",
            "HashIMP",
            "SignatureStatus",
            "IsSignedByOSVendor",
            "SignerName",
        ]),
        trace_id: PROCESS_TRACE,
        span_id: START_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::ProcessStop,
        name: "uberAgentESA:Process:ProcessStop",
        service: "uberagent.process",
        csv: Csv::Unknown,
        trace_id: PROCESS_TRACE,
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::BootDetail,
        name: "uberAgent:OnOffTransition:BootDetail2",
        service: "uberagent.boot",
        csv: Csv::Columns(&[
            "KernelInitTimeMs",
            "SmssInitTimeMs",
            "AutoCheckTimeMs",
            "Session0InitDurationMs",
            "Session1InitDurationMs",
            "WininitInitDurationMs",
            "WinlogonInitDurationMs",
            "AutostartServicesMs",
            "ComputerStartupMs",
            "MainPathBootTimeMs",
            "PostBootTimeMs",
            "TotalBootTimeMs",
            "BootUID",
        ]),
        trace_id: BOOT_TRACE,
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::BootProcesses,
        name: "uberAgent:OnOffTransition:BootProcesses",
        service: "uberagent.boot",
        csv: Csv::Columns(&[
            "ProcName",
            "ProcID",
            "ProcParentID",
            "ProcStartTimeRelativeMs",
            "ProcLifetimeMs",
            "ProcCmdline",
            "ProcIOReadCount",
            "ProcIOWriteCount",
            "ProcIOReadMB",
            "ProcIOWriteMB",
            "ProcIOLatencyReadMs",
            "ProcIOLatencyWriteMs",
            "SessionID",
            "TotalBootDurationMs",
            "SortOrder",
            "BootUID",
            "SortOrder2",
        ]),
        trace_id: BOOT_TRACE,
        span_id: PROCESS_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::BootProcessDetail,
        name: "uberAgent:OnOffTransition:BootProcessDetail",
        service: "uberagent.boot",
        csv: Csv::Columns(&[
            "ProcessName",
            "ProcessIOReadCount",
            "ProcessIOWriteCount",
            "ProcessIOReadMB",
            "ProcessIOWriteMB",
            "ProcessIOLatencyMs",
            "BootUID",
        ]),
        trace_id: BOOT_TRACE,
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::ShutdownDetail,
        name: "uberAgent:OnOffTransition:ShutdownDetail",
        service: "uberagent.shutdown",
        csv: Csv::Pairs,
        trace_id: "hash of `shutdown`, host, event time",
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::StandbyDetail,
        name: "uberAgent:OnOffTransition:StandbyDetail2",
        service: "uberagent.standby",
        csv: Csv::Columns(&[
            "SleepTime",
            "WakeTime",
            "EnterStandbyMs",
            "ResumeFromStandbyMs",
            "DriverInitDuration",
            "BiosInitDuration",
            "HiberWriteDuration",
            "HiberReadDuration",
            "HiberPagesWritten",
            "Attributes",
            "TargetState",
            "EffectiveState",
            "WakeSourceType",
            "WakeSourceTextLength",
            "WakeSourceText",
            "WakeTimerOwnerLength",
            "WakeTimerContextLength",
            "NoMultiStageResumeReason",
            "WakeTimerOwner",
            "WakeTimerContext",
        ]),
        trace_id: "hash of `standby`, host, event time",
        span_id: ROW_SPAN,
    },
    Rule {
        sourcetype: Sourcetype::BrowserWebRequests,
        name: "uberAgent:Application:BrowserWebRequests2",
        service: "uberagent.browser",
        csv: Csv::Columns(&[
            "RequestType",
            "IsFrame",
            "Browser",
            "BrowserVersion",
            "ProcUser",
            "TabHost",
            "TabUriScheme",
            "RequestHost",
            "RequestUriScheme",
            "RequestCount",
            "WebRequestDurationMs",
            "PageLoadTotalDurationMs",
            "PageLoadNetworkDurationMs",
            "PageLoadRenderDurationMs",
            "HttpStatusCount2xx",
            "HttpStatusCount3xx",
            "HttpStatusCount4xx",
            "HttpStatusCount5xx",
        ]),
        trace_id: "hash of `browser`, host, event time",
        span_id: ROW_SPAN,
    },
];
