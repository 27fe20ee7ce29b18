"""A slow, plain reference of the two mappings for logon and logoff process rows, written from their description.

It shares nothing with the product: JSON by Python, one dictionary a row. `expected(rows, mapping)` says for every row the
span that must come of it; `check(...)` compares that with what a receiver got and returns the list of differences.
"""

import json
from dataclasses import dataclass
from fractions import Fraction

FILETIME_EPOCH_100NS = 116_444_736_000_000_000
DAY_NS = 86_400 * 10**9
INTERNAL = 1

# Field of a row -> attribute of its span, mapping `session`. Absent and empty make none, and so does 0 of ACTIVITY.
INTEGERS = {
    "ProcID": "process.pid",
    "ProcParentID": "process.parent_pid",
    "ProcCPUTimeMs": "uberagent.cpu_ms",
    "ProcIOReadCount": "uberagent.io.reads",
    "ProcIOWriteCount": "uberagent.io.writes",
    "SortOrder2": "uberagent.order2",
}
DOUBLES = {
    "ProcIOReadMB": "uberagent.io.read_mb",
    "ProcIOWriteMB": "uberagent.io.write_mb",
    "ProcIOLatencyReadMs2": "uberagent.io.read_latency_ms",
    "ProcIOLatencyWriteMs2": "uberagent.io.write_latency_ms",
    "ProcWorkingSetMB": "uberagent.memory_mb",
    "ProcNetKBPS": "uberagent.network_kb_s",
}
TEXTS = {
    "ProcName": "process.executable.name",
    "ProcPath": "process.executable.path",
    "ProcCmdline": "process.command_line",
    "ProcParentName": "uberagent.parent.name",
    "ProcUser": "user.name",
    "LogonProcType": "uberagent.phase",
    "LogoffProcType": "uberagent.phase",
    "AppId": "uberagent.app.id",
    "AppVersion": "uberagent.app.version",
}
# Of these 0 is what is usual.
ACTIVITY = {"ProcIOReadCount", "ProcIOWriteCount", "ProcIOReadMB", "ProcIOWriteMB", "ProcNetKBPS"}
# Shorthand of Windows' own accounts.
ACCOUNTS = {"sys": "NT AUTHORITY\\SYSTEM", "lvc": "NT AUTHORITY\\LOCAL SERVICE", "nvc": "NT AUTHORITY\\NETWORK SERVICE"}

# Mapping `original`: ProxyTrace's own names.
ORIGINAL = [
    "ProcCPUTimeMs",
    "ProcWorkingSetMB",
    "ProcNetKBPS",
    "ProcIOReadCount",
    "ProcIOWriteCount",
    "ProcIOReadMB",
    "ProcIOWriteMB",
    "ProcIOLatencyReadMs2",
    "ProcIOLatencyWriteMs2",
    "ProcLifetimeMs",
]


@dataclass
class Expected:
    """The span of one row. `span_id` is None where only its form is laid down (rows without a PID)."""

    row: dict
    order: int
    trace_id: str
    span_id: str | None
    name: str
    start_ns: int
    end_ns: int
    host: str


def rows_of(data):
    return [json.loads(line) for line in data.decode().splitlines() if line.strip()]


def is_logoff(row):
    return "LogoffProcType" in row


def trace_of(row):
    digits = row["SessionGUID"].replace("-", "").lower()
    return ("2" if is_logoff(row) else "1") + digits[:31]


def event_ns(row):
    return round(Fraction(repr(row["date"])) * 1000) * 10**6


def base_ns(row):
    """When the logon or logoff began."""
    event = event_ns(row)
    if not is_logoff(row):
        raw = bytes.fromhex(row["SessionGUID"].replace("-", ""))
        created = (int.from_bytes(raw[8:], "little") - FILETIME_EPOCH_100NS) * 100
        number = int.from_bytes(raw[:4], "big")
        # Phase rows do not say their session; they begin with the other rows of their GUID.
        if number == row.get("SessionID", number) and 0 <= event - created <= DAY_NS:
            return created
    total = row.get("TotalLogoffDurationMs" if is_logoff(row) else "TotalLogonDurationMs")
    return event - total * 10**6


def expected(rows, mapping):
    found = []
    for order, row in enumerate(rows):
        start = base_ns(row) + row["ProcStartTimeRelativeMs"] * 10**6
        pid = row.get("ProcID", 0)
        span_id = None
        if pid:
            span_id = f"{pid:016x}" if mapping == "original" else f"{row['ProcStartTimeRelativeMs'] + 1:08x}{pid:08x}"
        phase = row.get("LogoffProcType") or row.get("LogonProcType")
        found.append(
            Expected(
                row=row,
                order=order,
                trace_id=trace_of(row),
                span_id=span_id,
                name=row.get("ProcName") or (None if not pid else "unknown-span"),
                start_ns=start,
                end_ns=start + row["ProcLifetimeMs"] * 10**6,
                host=row.get("host"),
            )
        )
        if found[-1].name is None:
            found[-1].name = phase
    return found


def pair_up(wanted, spans):
    """Which span belongs to which row: by id, and for rows without a PID by trace, name-giving phase and times."""
    by_id = {}
    for span in spans:
        by_id.setdefault(span.id, []).append(span)
    pairs, differences = [], []
    taken = set()
    without_pid = [item for item in wanted if item.span_id is None]
    for item in wanted:
        if item.span_id is not None:
            candidates = by_id.get((item.trace_id, item.span_id), [])
            fitting = [span for span in candidates if abs(span.start_ns - item.start_ns) <= 10**6] or candidates
            if not fitting:
                differences.append(f"row {item.order + 1} ({item.name}): no span {item.trace_id}/{item.span_id}")
                continue
            pairs.append((item, fitting[0]))
            taken.add(id(fitting[0]))
    rest = [span for span in spans if id(span) not in taken]
    for item in without_pid:
        fitting = [
            span
            for span in rest
            if id(span) not in taken
            and span.trace_id == item.trace_id
            and abs(span.start_ns - item.start_ns) <= 10**6
            and abs(span.end_ns - item.end_ns) <= 10**6
            and span.parent
        ]
        if not fitting:
            differences.append(f"row {item.order + 1} (no PID): no span with its times in {item.trace_id}")
            continue
        pairs.append((item, fitting[0]))
        taken.add(id(fitting[0]))
    return pairs, differences, [span for span in spans if id(span) not in taken]


def check(rows, spans, mapping):
    """Differences between what must come of `rows` and the `spans` that came; empty when all is well."""
    wanted = expected(rows, mapping)
    if mapping == "original":
        return check_original(wanted, spans)
    pairs, differences, others = pair_up(wanted, spans)
    traces = {item.trace_id for item in wanted}
    roots = {}
    for span in others:
        if span.parent or span.trace_id not in traces or not span.span_id.startswith("00000000"):
            differences.append(f"span {span.id} {span.name!r} stands for no row and is no root")
        elif span.trace_id in roots:
            differences.append(f"trace {span.trace_id} has two roots")
        else:
            roots[span.trace_id] = span
    for trace in sorted(traces - roots.keys()):
        differences.append(f"trace {trace} has no root")
    ids = {}
    for span in spans:
        ids.setdefault(span.id, span)
    for item, span in pairs:
        differences += compare_session(item, span)
        differences += check_parent(item, span, pairs, roots.get(item.trace_id), ids)
    for trace, root in roots.items():
        differences += check_root(trace, root, [item for item in wanted if item.trace_id == trace])
    return differences


def compare_session(item, span):
    where = f"row {item.order + 1} ({item.name}, {span.span_id})"
    wrong = times(item, span, where)
    if item.row.get("ProcName") and span.name != item.name:
        wrong.append(f"{where}: name {span.name!r}")
    if span.kind != INTERNAL:
        wrong.append(f"{where}: kind {span.kind}")
    if span.span_id.startswith("00000000") != (item.span_id is None):
        wrong.append(f"{where}: id is in the wrong range")
    if span.resource.get("host.name") != item.host:
        wrong.append(f"{where}: host.name {span.resource.get('host.name')!r}, not {item.host!r}")
    service = "uberagent.logoff" if is_logoff(item.row) else "uberagent.logon"
    if span.resource.get("service.name") != service:
        wrong.append(f"{where}: service.name {span.resource.get('service.name')!r}")
    got = span.attributes
    if span.resource.get("session.id") != item.row["SessionGUID"].lower():
        wrong.append(f"{where}: session.id {span.resource.get('session.id')!r}")
    if span.resource.get("uberagent.session.number") != item.row.get("SessionID"):
        wrong.append(f"{where}: session number {span.resource.get('uberagent.session.number')!r}")
    for names, convert in ((INTEGERS, int), (DOUBLES, float), (TEXTS, str)):
        for field, key in names.items():
            if field in ("LogonProcType", "LogoffProcType") and field not in item.row:
                continue
            value = item.row.get(field)
            value = None if value in (None, "") or (value == 0 and field in ACTIVITY) else convert(value)
            if field == "ProcUser":
                value = ACCOUNTS.get(value, value)
            if got.get(key) != value or (value is not None and type(got.get(key)) is not type(value)):
                wrong.append(f"{where}: {key} is {got.get(key)!r}, {field} was {item.row.get(field)!r}")
    return wrong


def times(item, span, where):
    wrong = []
    for name, got, must in (("start", span.start_ns, item.start_ns), ("end", span.end_ns, item.end_ns)):
        if abs(got - must) > 10**6:
            wrong.append(f"{where}: {name} {got}, not {must} ({(got - must) / 1e6:+.3f} ms)")
    return wrong


def check_parent(item, span, pairs, root, ids):
    """The parent is there; it is the latest older row with the parent's PID unless that row came later."""
    where = f"row {item.order + 1} ({item.name}, {span.span_id})"
    if (item.trace_id, span.parent) not in ids:
        return [f"{where}: parent {span.parent!r} is not in the trace"]
    pid = item.row.get("ProcParentID")
    start = item.row["ProcStartTimeRelativeMs"]
    own = item.row.get("ProcID")
    candidates = [
        (other.row["ProcStartTimeRelativeMs"], other.row.get("SortOrder2", 0), other, its)
        for other, its in pairs
        if pid and other.trace_id == item.trace_id and other.row.get("ProcID") == pid and other is not item
        and other.row["ProcStartTimeRelativeMs"] <= start and (own != pid or its.id != span.id)
    ]
    allowed = {root.span_id} if root else set()
    resolution = span.attributes.get("uberagent.parent.resolution")
    if candidates:
        best = max(candidates, key=lambda candidate: candidate[:2])
        if best[2].order < item.order:
            allowed = set()
        allowed |= {candidate[3].span_id for candidate in candidates if candidate[0] == best[0]}
        earlier = [candidate for candidate in candidates if candidate[2].order < item.order]
        if best[2].order > item.order and earlier:
            allowed.add(max(earlier, key=lambda candidate: candidate[:2])[3].span_id)
    if span.parent not in allowed:
        return [f"{where}: parent {span.parent}, expected one of {sorted(allowed)}"]
    if pid is not None and resolution not in ("together", "table", "root"):
        return [f"{where}: uberagent.parent.resolution is {resolution!r}"]
    if root and pid is not None and (span.parent == root.span_id) != (resolution == "root"):
        return [f"{where}: resolution {resolution!r} with parent {span.parent}"]
    return []


def check_root(trace, root, items):
    """True start of the session's logon, the whole duration, marked as ours."""
    wrong = []
    row = items[0].row
    base = base_ns(row)
    total = row.get("TotalLogoffDurationMs" if is_logoff(row) else "TotalLogonDurationMs")
    if abs(root.start_ns - base) > 10**6:
        wrong.append(f"root of {trace}: start {root.start_ns}, not {base}")
    if total is not None and abs(root.end_ns - root.start_ns - total * 10**6) > 10**6:
        wrong.append(f"root of {trace}: lasts {root.end_ns - root.start_ns} ns, not {total} ms")
    if root.attributes.get("uberagent.synthesised") is not True:
        wrong.append(f"root of {trace}: not marked uberagent.synthesised")
    return wrong


def check_original(wanted, spans):
    """ProxyTrace's spans: one a row and none besides; ids from PIDs, so a reused PID repeats an id as it did there."""
    differences = []
    if len(spans) != len(wanted):
        differences.append(f"{len(spans)} spans for {len(wanted)} rows")
    rest = list(spans)
    for item in wanted:
        row = item.row
        where = f"row {item.order + 1} ({item.name})"
        fitting = [
            span
            for span in rest
            if span.trace_id == item.trace_id
            and (item.span_id is None or span.span_id == item.span_id)
            and not times(item, span, "")
            and span.name == (row.get("ProcName") or "unknown-span")
        ]
        if not fitting:
            differences.append(f"{where}: no span {item.trace_id}/{item.span_id} with its name and times")
            continue
        span = fitting[0]
        rest = [other for other in rest if other is not span]
        if span.span_id == "0" * 16:
            differences.append(f"{where}: all-zero span id")
        parent = row.get("ProcParentID", 0)
        if span.parent != (f"{parent:016x}" if parent else ""):
            differences.append(f"{where}: parent {span.parent!r}, ProcParentID {parent}")
        phase = row.get("LogoffProcType") or row.get("LogonProcType")
        if span.resource.get("service.name") != phase:
            differences.append(f"{where}: service.name {span.resource.get('service.name')!r}, not {phase!r}")
        if span.attributes.get("event_type") != ("logoff" if is_logoff(row) else "logon"):
            differences.append(f"{where}: event_type {span.attributes.get('event_type')!r}")
        for field in ORIGINAL:
            got, value = span.attributes.get(field), row.get(field)
            if got != value:
                differences.append(f"{where}: {field} is {got!r}, was {value!r}")
        user = row.get("ProcUser", "unknown-user")
        if span.attributes.get("ProcUser") != user:
            differences.append(f"{where}: ProcUser {span.attributes.get('ProcUser')!r}, was {row.get('ProcUser')!r}")
    return differences
