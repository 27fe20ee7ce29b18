//! The mapping `session`: one tree a logon, logoff or boot, with unique ids and a root of its own.
//!
//! Every row becomes a span. A process's id is made of its start and PID, its parent is looked up when the rows decoded
//! together are known, and hangs under the root until then. The root is synthesised from the first row that states the
//! whole duration; rows that do not, hang under its id all the same. Rows of other families are traces of their own,
//! linked to the logon by the session's GUID. Owned by one encoder; nothing is allocated per row once warm.

use super::Sourcetype;
use super::attributes::{SPAN_ATTRIBUTE, write_all};
use super::blocks::{Blocks, Item, Resource, Session, Spot};
use super::encoder::{Output, RowContext};
use super::fields;
use super::guid::Guid;
use super::ids;
use super::parents::{Parents, Place, Seen};
use super::row::FieldSet;
use super::rules::{
    Times, duration_of, event_id, family_trace, guid_of, logon_root, made_up_id, name_of, non_blank, parent_start,
    process_id, root_id, sort_order, times_alone, total_of, usual_base_alone,
};
use super::span::{self, Head, SpanKind};
use super::times::{self, Base, DAY_NS, MS, length};
use crate::otlp::keys;
use crate::otlp::writer::{Key, Writer};

static CLOCK_SKEWED: Key = Key::new(keys::CLOCK_SKEWED);
static TIME_CLAMPED: Key = Key::new(keys::TIME_CLAMPED);
static TRUNCATED: Key = Key::new(keys::TRUNCATED);
static SESSION_UNKNOWN: Key = Key::new(keys::SESSION_UNKNOWN);
static SYNTHESISED: Key = Key::new(keys::SYNTHESISED);
static TOTAL_MS: Key = Key::new(keys::TOTAL_MS);

/// Logons and logoffs of sessions, and boots: traces with a root that is synthesised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Logon,
    Logoff,
    Boot,
}

impl Tree {
    fn of(sourcetype: Sourcetype) -> Option<Tree> {
        match sourcetype {
            Sourcetype::LogonProcesses | Sourcetype::LogonDetail | Sourcetype::GroupPolicyCseDetail => {
                Some(Tree::Logon)
            }
            Sourcetype::LogoffProcesses | Sourcetype::LogoffDetail => Some(Tree::Logoff),
            Sourcetype::BootDetail | Sourcetype::BootProcesses | Sourcetype::BootProcessDetail => Some(Tree::Boot),
            _ => None,
        }
    }

    /// What times are counted from when nothing is amiss.
    fn usual_base(self) -> Base {
        match self {
            Tree::Logon => Base::SessionGuid,
            Tree::Logoff | Tree::Boot => Base::Event,
        }
    }

    /// The name of the root.
    fn name(self) -> &'static [u8] {
        match self {
            Tree::Logon => b"Logon",
            Tree::Logoff => b"Logoff",
            Tree::Boot => b"Boot",
        }
    }
}

/// What identifies a tree; kept for the next row, which is mostly of the same.
#[derive(Clone, Debug)]
struct Identity {
    tree: Tree,
    host: Vec<u8>,
    /// The GUID or boot id as it was sent.
    written: Vec<u8>,
    /// The session; `None` for a boot.
    session: Option<Session>,
    trace_id: [u8; 16],
    root_id: [u8; 8],
    /// Of host and trace, for the tables.
    key: u64,
}

impl Identity {
    /// The base of a row's relative times.
    fn base(&self, row: RowContext<'_>, total_ms: u64) -> (u64, Base) {
        match self.session {
            Some(session) if self.tree == Tree::Logon => times::logon_base(row, session.guid, total_ms),
            _ => times::end_base(row.event_ns, total_ms, row.received_ns),
        }
    }
}

/// A process whose parent is not final.
#[derive(Clone, Copy, Debug)]
struct OpenRow {
    spot: Spot,
    resolution: usize,
    key: u64,
    place: Place,
    parent_pid: u32,
}

/// The mapping with its memory of recent sessions.
#[derive(Debug)]
pub(crate) struct SessionMapping {
    parents: Parents,
    seen: Seen,
    identity: Identity,
    open: Vec<OpenRow>,
}

impl SessionMapping {
    pub(crate) fn new() -> SessionMapping {
        let identity = Identity {
            tree: Tree::Boot,
            host: Vec::with_capacity(256),
            written: Vec::with_capacity(64),
            session: None,
            trace_id: [0; 16],
            root_id: [0; 8],
            key: 0,
        };
        SessionMapping { parents: Parents::new(), seen: Seen::new(), identity, open: Vec::with_capacity(2048) }
    }

    /// Encodes a row; the number of fields left out, or why it cannot be a span.
    pub(crate) fn encode(
        &mut self,
        row: RowContext<'_>,
        service: &'static str,
        out: &mut Output,
    ) -> Result<u32, &'static str> {
        match Tree::of(row.sourcetype) {
            Some(tree) => {
                self.identify(tree, row)?;
                let resource = Resource { host: row.host, service: service.as_bytes(), session: self.identity.session };
                Ok(self.encode_in_tree(row, resource, out))
            }
            None => {
                let resource = Resource { host: row.host, service: service.as_bytes(), session: None };
                Ok(encode_alone(row, resource, out))
            }
        }
    }

    /// Gives every process its parent; what comes now is decoded apart.
    pub(crate) fn end_together(&mut self, traces: &mut Blocks) {
        for row in self.open.drain(..) {
            if let Some(parent) = self.parents.find(row.key, row.parent_pid, row.place) {
                span::patch_parent(traces.at(row.spot), row.resolution, parent);
            }
        }
        self.parents.next_turn();
    }

    /// Encodes a row of the present identity.
    fn encode_in_tree(&mut self, row: RowContext<'_>, resource: Resource<'_>, out: &mut Output) -> u32 {
        let total = total_of(row);
        let (base_ns, base) = self.identity.base(row, total.map_or(0, |total| total.ns / MS));
        if let Some(total) = total
            && self.seen.first_time(self.identity.key)
        {
            let times =
                Times { start_ns: base_ns, end_ns: base_ns.saturating_add(total.ns), base, clamped: total.clamped };
            self.write_root(row, times, &mut out.writer);
            append(out, resource, times, (0, row.received_ns));
        }
        let process = matches!(
            row.sourcetype,
            Sourcetype::LogonProcesses | Sourcetype::LogoffProcesses | Sourcetype::BootProcesses
        );
        if process {
            return self.encode_process(row, (base_ns, base), resource, out);
        }
        let duration = duration_of(row, total);
        let clamped = duration.clamped;
        let times = Times { start_ns: base_ns, end_ns: base_ns.saturating_add(duration.ns), base, clamped };
        let name = name_of(row);
        self.head(made_up_id(row, name, times.start_ns), name, times).write(&mut out.writer);
        let dropped = self.write_rest(row, times, &mut out.writer);
        if row.view.int(fields::CSE_RETURN_CODE).is_some_and(|code| code != 0) {
            span::write_error(&mut out.writer);
        }
        append(out, resource, times, (1, row.received_ns));
        dropped
    }

    fn encode_process(
        &mut self,
        row: RowContext<'_>,
        (base_ns, base): (u64, Base),
        resource: Resource<'_>,
        out: &mut Output,
    ) -> u32 {
        let view = row.view;
        let start = length(view, fields::PROC_START_TIME_RELATIVE_MS, MS);
        let lifetime = length(view, fields::PROC_LIFETIME_MS, MS);
        // The last value is kept free: ids hold start + 1.
        let start_ms = u32::try_from(start.ns / MS).unwrap_or(u32::MAX).min(u32::MAX - 1);
        let start_ns = base_ns.saturating_add(start.ns);
        let clamped = start.clamped || lifetime.clamped;
        let times = Times { start_ns, end_ns: start_ns.saturating_add(lifetime.ns), base, clamped };
        let name = name_of(row);
        let place = process_id(view, fields::PROC_ID).map(|pid| Place { start_ms, sort: sort_order(view), pid });
        let span_id = place.map_or_else(|| made_up_id(row, name, start_ns), Place::span_id);
        self.head(span_id, name, times).write(&mut out.writer);
        let resolution = span::write_resolution(&mut out.writer);
        let dropped = self.write_rest(row, times, &mut out.writer);
        let spot = append(out, resource, times, (1, row.received_ns));
        if let Some(place) = place {
            let key = self.identity.key;
            self.parents.insert(key, place);
            if let Some(parent_pid) = process_id(view, fields::PROC_PARENT_ID) {
                self.open.push(OpenRow { spot, resolution, key, place, parent_pid });
            }
        }
        dropped
    }

    /// Attributes that every span of a row in a tree has.
    #[inline]
    fn write_rest(&self, row: RowContext<'_>, times: Times, writer: &mut Writer) -> u32 {
        let mut present = row.view.present();
        if let Some(Session { guid, number }) = self.identity.session {
            if guid == Guid::default() {
                span::write_flag(writer, &SESSION_UNKNOWN);
            }
            if number.is_some() {
                present[fields::SESSION_ID / 64] &= !(1 << (fields::SESSION_ID % 64));
            }
        }
        let dropped = write_common(row, present, times, writer);
        span::write_base(writer, times.base, self.identity.tree.usual_base());
        // The root says when the rows of its tree were received, unless this one's clock is in doubt.
        if row.event_ns.is_none() || is_skewed(row) {
            span::write_received(writer, row.received_ns);
        }
        dropped
    }

    fn head<'a>(&self, span_id: [u8; 8], name: &'a [u8], times: Times) -> Head<'a> {
        Head {
            trace_id: self.identity.trace_id,
            span_id,
            parent_id: Some(self.identity.root_id),
            name,
            kind: SpanKind::Internal,
            start_ns: times.start_ns,
            end_ns: times.end_ns,
        }
    }

    /// The root: a function of one row alone, so that every lane writes the same.
    #[expect(clippy::cast_possible_wrap, reason = "a length is at most ten years")]
    fn write_root(&self, row: RowContext<'_>, times: Times, writer: &mut Writer) {
        let identity = &self.identity;
        let head = Head { parent_id: None, ..self.head(identity.root_id, identity.tree.name(), times) };
        head.write(writer);
        writer.bool_attribute(SPAN_ATTRIBUTE, &SYNTHESISED, true);
        writer.int_attribute(SPAN_ATTRIBUTE, &TOTAL_MS, ((times.end_ns - times.start_ns) / MS) as i64);
        span::write_base(writer, times.base, identity.tree.usual_base());
        span::write_received(writer, row.received_ns);
        if times.clamped {
            span::write_flag(writer, &TIME_CLAMPED);
        }
        if let Some(Session { guid, .. }) = identity.session
            && identity.tree == Tree::Logoff
        {
            let (trace_id, root_id) = logon_root(guid, row.host);
            span::write_link(writer, trace_id, root_id);
        }
    }

    /// Makes the identity that of the row's tree.
    #[inline]
    fn identify(&mut self, tree: Tree, row: RowContext<'_>) -> Result<(), &'static str> {
        let field = if tree == Tree::Boot { fields::BOOT_UID } else { fields::SESSION_GUID };
        let written = row.view.text(field).unwrap_or_default();
        let known = &self.identity;
        let same_number = known.session.is_none_or(|session| session.number == row.view.int(fields::SESSION_ID));
        if !written.is_empty()
            && same_number
            && known.tree == tree
            && known.written == written
            && known.host == row.host
        {
            return Ok(());
        }
        self.identify_anew(tree, row, written)
    }

    fn identify_anew(&mut self, tree: Tree, row: RowContext<'_>, written: &[u8]) -> Result<(), &'static str> {
        let guid = if tree == Tree::Boot { None } else { Some(guid_of(row.view)?) };
        let number = row.view.int(fields::SESSION_ID);
        let identity = &mut self.identity;
        identity.tree = tree;
        identity.host.clear();
        identity.host.extend_from_slice(row.host);
        identity.written.clear();
        identity.written.extend_from_slice(written);
        identity.session = guid.map(|guid| Session { guid, number });
        identity.trace_id = match guid {
            Some(guid) => guid.trace_id(if tree == Tree::Logon { 1 } else { 2 }),
            None if written.is_empty() => family_trace(b"boot", row.host, &event_id(row)),
            None => family_trace(b"boot", row.host, written),
        };
        identity.root_id = root_id(tree.name(), row.host);
        identity.key = ids::key(&[row.host, &identity.trace_id]);
        Ok(())
    }
}

/// Encodes a row whose trace is its own, or a process's.
fn encode_alone(row: RowContext<'_>, resource: Resource<'_>, out: &mut Output) -> u32 {
    let writer = &mut out.writer;
    let view = row.view;
    let times = times_alone(row);
    let (family, identity): (&[u8], Option<&[u8]>) = match row.sourcetype {
        Sourcetype::ProcessStartup | Sourcetype::ProcessStop => (b"process", view.text(fields::PROC_GUID)),
        Sourcetype::ShutdownDetail => (b"shutdown", None),
        Sourcetype::StandbyDetail => (b"standby", None),
        _ => (b"browser", None),
    };
    let name = name_of(row);
    let browser = row.sourcetype == Sourcetype::BrowserWebRequests;
    let head = Head {
        trace_id: family_trace(family, row.host, non_blank(identity).unwrap_or(&event_id(row))),
        span_id: made_up_id(row, name, times.start_ns),
        parent_id: None,
        name,
        kind: if browser { SpanKind::Client } else { SpanKind::Internal },
        start_ns: times.start_ns,
        end_ns: times.end_ns,
    };
    head.write(writer);
    let guid = guid_of(view).ok();
    if let Some(guid) = guid {
        span::write_session_id(writer, &guid.to_text());
    }
    let dropped = write_common(row, view.present(), times, writer);
    span::write_base(writer, times.base, usual_base_alone(row.sourcetype));
    span::write_received(writer, row.received_ns);
    if let Some(guid) = guid {
        let (trace_id, root_id) = logon_root(guid, row.host);
        span::write_link(writer, trace_id, root_id);
    }
    if let Some((trace_id, span_id)) = parent_start(row) {
        span::write_link(writer, trace_id, span_id);
    }
    append(out, resource, times, (1, row.received_ns));
    dropped
}

/// Whether event and receive time are so far apart that one of the clocks is in doubt.
fn is_skewed(row: RowContext<'_>) -> bool {
    row.event_ns.is_some_and(|event| event.abs_diff(row.received_ns) > DAY_NS)
}

/// The attributes of the row's fields that are in `present`, and what was done to them and to its times.
#[inline]
fn write_common(row: RowContext<'_>, present: FieldSet, times: Times, writer: &mut Writer) -> u32 {
    let written = write_all(writer, row.view, present, row.sourcetype);
    if is_skewed(row) {
        span::write_flag(writer, &CLOCK_SKEWED);
    }
    if times.clamped {
        span::write_flag(writer, &TIME_CLAMPED);
    }
    if written.truncated {
        span::write_flag(writer, &TRUNCATED);
    }
    written.dropped
}

/// Appends what was written; `count` is the records that it stands for, and when they were received.
#[inline]
fn append(out: &mut Output, resource: Resource<'_>, times: Times, count: (u32, u64)) -> Spot {
    let (records, received_ns) = count;
    let bytes = out.writer.as_bytes();
    let item = Item { bytes, start_ns: times.start_ns, end_ns: times.end_ns, records, received_ns };
    out.traces.append(resource, item)
}
