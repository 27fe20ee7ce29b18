//! The other half of the table: every field, what it holds and what becomes of it.
//!
//! A field has one meaning in all sourcetypes, so it stands here once. Names match without regard to case: the vendor
//! itself spells `ProcID` and `ProcId`. The order is that of a span's attributes, whatever order the sender chose.

use crate::otlp::keys;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text, cut at [`TEXT_CAP_BYTES`].
    Text,
    /// Text, cut at [`LONG_TEXT_CAP_BYTES`].
    LongText,
    /// An account: `sys`, `lvc` and `nvc` are spelled out.
    Account,
    /// A host of a web request: `$0` and `$2` refer to the tab's host.
    RequestHost,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// A whole number that mostly is 0, which then makes no attribute.
    Count,
    /// A number that mostly is 0, which then makes no attribute.
    Amount,
    /// A truth value.
    Bool,
}

/// What a field is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It becomes an attribute.
    Attribute,
    /// It becomes the span's start, end or name, or the root's duration, and no attribute.
    Consumed,
    /// It is the transport's and says nothing of the row beyond where it came from.
    Envelope,
}

/// One field.
pub(crate) struct Field {
    /// As uberAgent spells it.
    pub name: &'static str,
    /// The attribute's key; for consumed fields, what becomes of them.
    pub key: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it is used for.
    pub role: Role,
}

/// Bytes at which texts are cut.
pub(crate) const TEXT_CAP_BYTES: usize = 4096;

/// Bytes at which command lines are cut: Windows allows 32,767 characters.
pub(crate) const LONG_TEXT_CAP_BYTES: usize = 32 * 1024;

const fn field(name: &'static str, key: &'static str, kind: Kind) -> Field {
    Field { name, key, kind, role: Role::Attribute }
}

const fn text(name: &'static str, key: &'static str) -> Field {
    field(name, key, Kind::Text)
}

const fn int(name: &'static str, key: &'static str) -> Field {
    field(name, key, Kind::Int)
}

const fn double(name: &'static str, key: &'static str) -> Field {
    field(name, key, Kind::Double)
}

const fn count(name: &'static str, key: &'static str) -> Field {
    field(name, key, Kind::Count)
}

const fn amount(name: &'static str, key: &'static str) -> Field {
    field(name, key, Kind::Amount)
}

const fn consumed(name: &'static str, what: &'static str, kind: Kind) -> Field {
    Field { name, key: what, kind, role: Role::Consumed }
}

const fn envelope(name: &'static str, what: &'static str) -> Field {
    Field { name, key: what, kind: Kind::Text, role: Role::Envelope }
}

/// Fields that are known. The order is that of a span's attributes.
pub(crate) static FIELDS: [Field; FIELD_COUNT] = [
    int("ProcID", keys::PROCESS_PID),
    int("ProcParentID", keys::PROCESS_PARENT_PID),
    text("ProcName", keys::PROCESS_EXECUTABLE_NAME),
    text("ProcPath", keys::PROCESS_EXECUTABLE_PATH),
    field("ProcCmdline", keys::PROCESS_COMMAND_LINE, Kind::LongText),
    text("ProcParentName", "uberagent.parent.name"),
    field("ProcUser", keys::USER_NAME, Kind::Account),
    text("LogonProcType", "uberagent.phase"),
    text("LogoffProcType", "uberagent.phase"),
    text("AppId", "uberagent.app.id"),
    text("AppVersion", "uberagent.app.version"),
    int("ProcCPUTimeMs", "uberagent.cpu_ms"),
    count("ProcIOReadCount", "uberagent.io.reads"),
    count("ProcIOWriteCount", "uberagent.io.writes"),
    amount("ProcIOReadMB", "uberagent.io.read_mb"),
    amount("ProcIOWriteMB", "uberagent.io.write_mb"),
    double("ProcIOLatencyReadMs2", "uberagent.io.read_latency_ms"),
    double("ProcIOLatencyWriteMs2", "uberagent.io.write_latency_ms"),
    double("ProcIOLatencyReadMs", "uberagent.io.read_latency_ms"),
    double("ProcIOLatencyWriteMs", "uberagent.io.write_latency_ms"),
    double("ProcWorkingSetMB", "uberagent.memory_mb"),
    amount("ProcNetKBPS", "uberagent.network_kb_s"),
    int("SessionID", keys::SESSION_NUMBER),
    int("SortOrder", "uberagent.order"),
    int("SortOrder2", "uberagent.order2"),
    // Logon and logoff summaries, group policy.
    field("User", keys::USER_NAME, Kind::Account),
    text("SessionLogonTime", "uberagent.session.logon_time"),
    text("SessionLogoffTime", "uberagent.session.logoff_time"),
    text("SessionEndTime", "uberagent.session.end_time"),
    int("SessionDurationMs", "uberagent.session.duration_ms"),
    int("PreLogonInitTimeMs", "uberagent.logon.init_ms"),
    text("SiteName", "uberagent.logon.site"),
    text("LogonServer", "uberagent.logon.server"),
    int("ProfileLoadTimeMs", "uberagent.logon.profile_load_ms"),
    int("CitrixPMLoadTimeMs", "uberagent.logon.citrix_profile_load_ms"),
    int("GroupPolicyTotalProcessingTimeMs", "uberagent.logon.group_policy_ms"),
    int("DcDiscoveryTimeMs", "uberagent.logon.dc_discovery_ms"),
    text("LoopbackMode", "uberagent.logon.loopback_mode"),
    int("ADLogonScriptTimeMs", "uberagent.logon.ad_script_ms"),
    int("GroupPolicyLogonScriptTimeMs", "uberagent.logon.group_policy_script_ms"),
    int("ResWmProcessingTimeMs", "uberagent.logon.res_wm_ms"),
    int("ShellStartupTimeMs", "uberagent.logon.shell_startup_ms"),
    int("AppXFileAssocStart", "uberagent.logon.appx.file_association_start_ms"),
    int("AppXFileAssocEnd", "uberagent.logon.appx.file_association_end_ms"),
    int("AppXLoadPackagesStart", "uberagent.logon.appx.load_packages_start_ms"),
    int("AppXLoadPackagesEnd", "uberagent.logon.appx.load_packages_end_ms"),
    text("AppXPackages", "uberagent.logon.appx.packages"),
    int("UserLogonWaitDurationMs", "uberagent.logon.wait_ms"),
    int("ProfileUnloadTimeMs2", "uberagent.logoff.profile_unload_ms"),
    int("GroupPolicyLogoffScriptTimeMs", "uberagent.logoff.group_policy_script_ms"),
    int("ProcessStartCount", "uberagent.total.process_starts"),
    int("IOCountRead", "uberagent.total.io.reads"),
    int("IOCountWrite", "uberagent.total.io.writes"),
    double("IOMBRead", "uberagent.total.io.read_mb"),
    double("IOMBWrite", "uberagent.total.io.write_mb"),
    double("IOLatencyReadMs", "uberagent.total.io.read_latency_ms"),
    double("IOLatencyWriteMs", "uberagent.total.io.write_latency_ms"),
    text("CseName", "uberagent.group_policy.extension"),
    text("CseGPONames", "uberagent.group_policy.objects"),
    count("CseReturnCode", "uberagent.group_policy.return_code"),
    // Starts and ends of processes.
    double("StartupIOPS", "uberagent.process.startup.iops"),
    text("ProcGUID", "uberagent.process.guid"),
    text("ProcParentGUID", "uberagent.process.parent.guid"),
    field("IsElevated", "uberagent.process.elevated", Kind::Bool),
    field("IsProtected", "uberagent.process.protected", Kind::Bool),
    text("ProcHash", "uberagent.process.hash"),
    int("HashType", "uberagent.process.hash_type"),
    text("HashMD5", "uberagent.process.hash.md5"),
    text("HashSHA1", "uberagent.process.hash.sha1"),
    text("HashSHA256", "uberagent.process.hash.sha256"),
    text("HashIMP", "uberagent.process.hash.imphash"),
    int("SignatureStatus", "uberagent.process.signature.status"),
    field("IsSignedByOSVendor", "uberagent.process.signature.os_vendor", Kind::Bool),
    text("SignerName", "uberagent.process.signature.signer"),
    // Boot, shutdown, standby.
    text("BootUID", "uberagent.boot.id"),
    int("KernelInitTimeMs", "uberagent.boot.kernel_init_ms"),
    int("SmssInitTimeMs", "uberagent.boot.smss_init_ms"),
    int("AutoCheckTimeMs", "uberagent.boot.autocheck_ms"),
    int("Session0InitDurationMs", "uberagent.boot.session0_init_ms"),
    int("Session1InitDurationMs", "uberagent.boot.session1_init_ms"),
    int("WininitInitDurationMs", "uberagent.boot.wininit_init_ms"),
    int("WinlogonInitDurationMs", "uberagent.boot.winlogon_init_ms"),
    int("AutostartServicesMs", "uberagent.boot.autostart_services_ms"),
    int("ComputerStartupMs", "uberagent.boot.computer_startup_ms"),
    int("MainPathBootTimeMs", "uberagent.boot.main_path_ms"),
    int("PostBootTimeMs", "uberagent.boot.post_boot_ms"),
    text("ProcessName", keys::PROCESS_EXECUTABLE_NAME),
    count("ProcessIOReadCount", "uberagent.io.reads"),
    count("ProcessIOWriteCount", "uberagent.io.writes"),
    amount("ProcessIOReadMB", "uberagent.io.read_mb"),
    amount("ProcessIOWriteMB", "uberagent.io.write_mb"),
    double("ProcessIOLatencyMs", "uberagent.io.latency_ms"),
    int("UserSessionTimeMs", "uberagent.shutdown.user_session_ms"),
    int("UserPolicyTimeMs", "uberagent.shutdown.user_policy_ms"),
    int("UserProfilesTimeMs", "uberagent.shutdown.user_profiles_ms"),
    int("SystemSessionsTimeMs", "uberagent.shutdown.system_sessions_ms"),
    int("PreShutdownNotificationsTimeMs", "uberagent.shutdown.notifications_ms"),
    int("ServicesTimeMs", "uberagent.shutdown.services_ms"),
    int("KernelTimeMs", "uberagent.shutdown.kernel_ms"),
    text("SleepTime", "uberagent.standby.sleep_time"),
    text("WakeTime", "uberagent.standby.wake_time"),
    int("EnterStandbyMs", "uberagent.standby.enter_ms"),
    int("ResumeFromStandbyMs", "uberagent.standby.resume_ms"),
    int("DriverInitDuration", "uberagent.standby.driver_init_ms"),
    int("BiosInitDuration", "uberagent.standby.bios_init_ms"),
    int("HiberWriteDuration", "uberagent.standby.hibernation_write_ms"),
    int("HiberReadDuration", "uberagent.standby.hibernation_read_ms"),
    int("HiberPagesWritten", "uberagent.standby.hibernation_pages"),
    int("Attributes", "uberagent.standby.attributes"),
    int("TargetState", "uberagent.standby.target_state"),
    text("EffectiveState", "uberagent.standby.effective_state"),
    int("WakeSourceType", "uberagent.standby.wake_source_type"),
    int("WakeSourceTextLength", "uberagent.standby.wake_source_length"),
    text("WakeSourceText", "uberagent.standby.wake_source"),
    int("WakeTimerOwnerLength", "uberagent.standby.wake_timer_owner_length"),
    int("WakeTimerContextLength", "uberagent.standby.wake_timer_context_length"),
    int("NoMultiStageResumeReason", "uberagent.standby.single_stage_reason"),
    text("WakeTimerOwner", "uberagent.standby.wake_timer_owner"),
    text("WakeTimerContext", "uberagent.standby.wake_timer_context"),
    // Browser requests.
    int("RequestType", "uberagent.browser.request_type"),
    field("IsFrame", "uberagent.browser.frame", Kind::Bool),
    int("Browser", "uberagent.browser.kind"),
    text("BrowserVersion", "browser.version"),
    text("TabHost", "uberagent.browser.tab.host"),
    int("TabUriScheme", "uberagent.browser.tab.uri_scheme"),
    field("RequestHost", "server.address", Kind::RequestHost),
    int("RequestUriScheme", "uberagent.browser.uri_scheme"),
    int("RequestCount", "uberagent.browser.requests"),
    int("WebRequestDurationMs", "uberagent.browser.requests_ms"),
    int("PageLoadTotalDurationMs", "uberagent.browser.page_load_ms"),
    int("PageLoadNetworkDurationMs", "uberagent.browser.page_load_network_ms"),
    int("PageLoadRenderDurationMs", "uberagent.browser.page_load_render_ms"),
    int("HttpStatusCount2xx", "uberagent.browser.status_2xx"),
    int("HttpStatusCount3xx", "uberagent.browser.status_3xx"),
    int("HttpStatusCount4xx", "uberagent.browser.status_4xx"),
    int("HttpStatusCount5xx", "uberagent.browser.status_5xx"),
    // What becomes times, names and ids.
    consumed("SessionGUID", "trace id; session.id, normalised", Kind::Text),
    consumed("ProcStartTimeRelativeMs", "start, counted from the base; span id", Kind::Int),
    consumed("ProcLifetimeMs", "duration", Kind::Int),
    consumed("StartupTimeMs", "duration", Kind::Int),
    consumed("CseDurationS", "duration", Kind::Double),
    consumed("TotalLogonDurationMs", "duration of the root", Kind::Int),
    consumed("TotalLogoffDurationMs", "duration of the root; base", Kind::Int),
    consumed("TotalLogonTimeMs", "duration; duration of the root", Kind::Int),
    consumed("TotalLogoffTimeMs", "duration; duration of the root; base", Kind::Int),
    consumed("TotalBootDurationMs", "duration of the root; base", Kind::Int),
    consumed("TotalBootTimeMs", "duration; duration of the root; base", Kind::Int),
    consumed("TotalShutdownTimeMs", "duration", Kind::Int),
    consumed("@timestamp", "event time", Kind::Double),
    consumed("Timestamp", "event time", Kind::Double),
    consumed("date", "event time", Kind::Double),
    envelope("host", "host.name of the resource"),
    envelope("Sourcetype", "which row of this table"),
    envelope("@meta", "ignored: Fluent Bit's metadata"),
    envelope("index", "ignored: the transport's"),
    envelope("source", "ignored: the transport's"),
    envelope("time", "ignored: of a HEC envelope"),
    envelope("event", "ignored: of a HEC envelope"),
];

/// How many fields are known.
pub(crate) const FIELD_COUNT: usize = 158;

/// For each field, the earlier one that becomes an attribute of the same key; looked up when compiled.
pub(crate) const EARLIER: [Option<u8>; FIELD_COUNT] = {
    let mut earlier = [None; FIELD_COUNT];
    let mut second = 0u8;
    while (second as usize) < FIELD_COUNT {
        let mut first = 0u8;
        while first < second {
            if share_key(first as usize, second as usize) {
                assert!(earlier[second as usize].is_none(), "three fields share a key");
                earlier[second as usize] = Some(first);
            }
            first += 1;
        }
        second += 1;
    }
    earlier
};

const fn share_key(first: usize, second: usize) -> bool {
    let attributes = matches!((FIELDS[first].role, FIELDS[second].role), (Role::Attribute, Role::Attribute));
    attributes && same(FIELDS[first].key.as_bytes(), FIELDS[second].key.as_bytes())
}

// The fields that code names, by their place in `FIELDS`; looked up when compiled.
pub(crate) const AT_TIMESTAMP: usize = id("@timestamp");
pub(crate) const BOOT_UID: usize = id("BootUID");
pub(crate) const BROWSER: usize = id("Browser");
pub(crate) const CSE_DURATION_S: usize = id("CseDurationS");
pub(crate) const CSE_NAME: usize = id("CseName");
pub(crate) const CSE_RETURN_CODE: usize = id("CseReturnCode");
pub(crate) const DATE: usize = id("date");
pub(crate) const EVENT: usize = id("event");
pub(crate) const HOST: usize = id("host");
pub(crate) const IS_FRAME: usize = id("IsFrame");
pub(crate) const LOGOFF_PROC_TYPE: usize = id("LogoffProcType");
pub(crate) const LOGON_PROC_TYPE: usize = id("LogonProcType");
pub(crate) const META: usize = id("@meta");
pub(crate) const PAGE_LOAD_TOTAL_DURATION_MS: usize = id("PageLoadTotalDurationMs");
pub(crate) const PROCESS_NAME: usize = id("ProcessName");
pub(crate) const PROC_CPU_TIME_MS: usize = id("ProcCPUTimeMs");
pub(crate) const PROC_GUID: usize = id("ProcGUID");
pub(crate) const PROC_ID: usize = id("ProcID");
pub(crate) const PROC_IO_LATENCY_READ_MS2: usize = id("ProcIOLatencyReadMs2");
pub(crate) const PROC_IO_LATENCY_WRITE_MS2: usize = id("ProcIOLatencyWriteMs2");
pub(crate) const PROC_IO_READ_COUNT: usize = id("ProcIOReadCount");
pub(crate) const PROC_IO_READ_MB: usize = id("ProcIOReadMB");
pub(crate) const PROC_IO_WRITE_COUNT: usize = id("ProcIOWriteCount");
pub(crate) const PROC_IO_WRITE_MB: usize = id("ProcIOWriteMB");
pub(crate) const PROC_LIFETIME_MS: usize = id("ProcLifetimeMs");
pub(crate) const PROC_NAME: usize = id("ProcName");
pub(crate) const PROC_NET_KBPS: usize = id("ProcNetKBPS");
pub(crate) const PROC_PARENT_GUID: usize = id("ProcParentGUID");
pub(crate) const PROC_PARENT_ID: usize = id("ProcParentID");
pub(crate) const PROC_START_TIME_RELATIVE_MS: usize = id("ProcStartTimeRelativeMs");
pub(crate) const PROC_USER: usize = id("ProcUser");
pub(crate) const PROC_WORKING_SET_MB: usize = id("ProcWorkingSetMB");
pub(crate) const REQUEST_HOST: usize = id("RequestHost");
pub(crate) const REQUEST_TYPE: usize = id("RequestType");
pub(crate) const RESUME_FROM_STANDBY_MS: usize = id("ResumeFromStandbyMs");
pub(crate) const SESSION_GUID: usize = id("SessionGUID");
pub(crate) const SESSION_ID: usize = id("SessionID");
pub(crate) const SLEEP_TIME: usize = id("SleepTime");
pub(crate) const SORT_ORDER: usize = id("SortOrder");
pub(crate) const SORT_ORDER2: usize = id("SortOrder2");
pub(crate) const SOURCETYPE: usize = id("Sourcetype");
pub(crate) const STARTUP_TIME_MS: usize = id("StartupTimeMs");
pub(crate) const TAB_HOST: usize = id("TabHost");
pub(crate) const TIMESTAMP: usize = id("Timestamp");
pub(crate) const TOTAL_BOOT_DURATION_MS: usize = id("TotalBootDurationMs");
pub(crate) const TOTAL_BOOT_TIME_MS: usize = id("TotalBootTimeMs");
pub(crate) const TOTAL_LOGOFF_DURATION_MS: usize = id("TotalLogoffDurationMs");
pub(crate) const TOTAL_LOGOFF_TIME_MS: usize = id("TotalLogoffTimeMs");
pub(crate) const TOTAL_LOGON_DURATION_MS: usize = id("TotalLogonDurationMs");
pub(crate) const TOTAL_LOGON_TIME_MS: usize = id("TotalLogonTimeMs");
pub(crate) const TOTAL_SHUTDOWN_TIME_MS: usize = id("TotalShutdownTimeMs");
pub(crate) const USER: usize = id("User");
pub(crate) const WAKE_TIME: usize = id("WakeTime");
pub(crate) const WEB_REQUEST_DURATION_MS: usize = id("WebRequestDurationMs");

/// The place of a field in [`FIELDS`], checked when compiled.
pub(crate) const fn id(name: &str) -> usize {
    let mut at = 0;
    while at < FIELD_COUNT {
        if same(FIELDS[at].name.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("no such field")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
