//! Attribute keys: OpenTelemetry's semantic conventions where one exists, `uberagent.*` elsewhere.
//!
//! Only keys that code names are here; those that merely carry a field of a row stand in the field table of `uberagent`.

/// Semantic conventions, resource: the service.
pub const SERVICE_NAME: &str = "service.name";
/// Semantic conventions, resource: the endpoint.
pub const HOST_NAME: &str = "host.name";
/// Semantic conventions, session: the session GUID, 36 lower-case characters. Of the resource where all of it is one
/// session's, else of the span.
pub const SESSION_ID: &str = "session.id";
/// The session's number on its host; beside [`SESSION_ID`].
pub const SESSION_NUMBER: &str = "uberagent.session.number";
/// Semantic conventions, process: the PID.
pub const PROCESS_PID: &str = "process.pid";
/// Semantic conventions, process: the parent's PID as the row states it.
pub const PROCESS_PARENT_PID: &str = "process.parent_pid";
/// Semantic conventions, process: the executable's name.
pub const PROCESS_EXECUTABLE_NAME: &str = "process.executable.name";
/// Semantic conventions, process: the executable's path, with the separators that the sender used.
pub const PROCESS_EXECUTABLE_PATH: &str = "process.executable.path";
/// Semantic conventions, process: the whole command line.
pub const PROCESS_COMMAND_LINE: &str = "process.command_line";
/// Semantic conventions, user: `DOMAIN\name`.
pub const USER_NAME: &str = "user.name";
/// Where the parent of a process span was found: `together`, `table` or `root`.
pub const PARENT_RESOLUTION: &str = "uberagent.parent.resolution";
/// What the span's times are counted from: `session_guid`, `event`, `row` or `received`; absent where it is the usual
/// one of the span's kind.
pub const TIME_BASE: &str = "uberagent.time.base";
/// When the row was received, Unix milliseconds.
pub const RECEIVED_MS: &str = "uberagent.received_ms";
/// True when event time and receive time are more than a day apart.
pub const CLOCK_SKEWED: &str = "uberagent.clock.skewed";
/// True when a time or duration of the row was out of range and was clamped.
pub const TIME_CLAMPED: &str = "uberagent.time.clamped";
/// True when a text of the row was longer than its cap.
pub const TRUNCATED: &str = "uberagent.truncated";
/// True on spans that no row stands for.
pub const SYNTHESISED: &str = "uberagent.synthesised";
/// The sourcetype of a row that was passed on as a log record.
pub const SOURCETYPE: &str = "uberagent.sourcetype";
/// Total duration that a row states for its logon, logoff or boot, milliseconds.
pub const TOTAL_MS: &str = "uberagent.total_ms";
/// True when the session GUID is all zeros: such sessions share one trace.
pub const SESSION_UNKNOWN: &str = "uberagent.session.unknown";
