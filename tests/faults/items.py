"""What the faults are tried on: spans and rows that are functions of a number, so that a sink can judge each by itself.

An item is `4 * number + kind`. A span of kind `OTLP` is passed through by the appliance, so it must come out byte for byte;
a row of kind `BULK` or `TCP` becomes a span whose name, times and session say which row it was.
"""

import json
import struct

from harness.samples import session_guid
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

OTLP, BULK, TCP = 0, 1, 2
LETTERS = {b"o": OTLP, b"b": BULK, b"t": TCP}
BASE_MS = 1_747_033_126_563
ROWS_A_SESSION = 40


def item(kind, number):
    return 4 * number + kind


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


def span(number, padding):
    """Span `number`, serialized, with an attribute of `padding` bytes."""
    start = BASE_MS * 1_000_000 + number * 1000
    filling = (b"%016x" % (number * 0x9E3779B97F4A7C15 % 2**64)) * (padding // 16 + 1)
    attribute = field(1, b"padding") + field(2, field(1, filling[:padding]))
    return b"".join(
        (
            field(1, struct.pack(">QQ", 1, number // 7 + 1)),
            field(2, struct.pack(">Q", number + 1)),
            field(5, b"o%d" % number),
            b"\x30\x01",
            b"\x39" + struct.pack("<Q", start),
            b"\x41" + struct.pack("<Q", start + 1000 + number % 977),
            field(9, attribute),
        )
    )


RESOURCE = field(1, field(1, field(1, b"service.name") + field(2, field(1, b"load"))))


def otlp_request(numbers, padding):
    """An ExportTraceServiceRequest of these spans."""
    return field(1, RESOURCE + field(2, b"".join(field(2, span(number, padding)) for number in numbers)))


def row(kind, number):
    """Row `number` of `kind`: one of a logon of some rows, each with a PID of its own."""
    session = 10_000 + 100_000_000 * (kind - 1) + number // ROWS_A_SESSION
    place = number % ROWS_A_SESSION
    created = BASE_MS - 40_000 + session % 100_000 * 7
    return {
        "date": (created + 40_000) / 1000,
        "@timestamp": created + 40_000,
        "Sourcetype": "uberAgent:Process:LogonProcesses",
        "SessionGUID": session_guid(session, created),
        "SessionID": session % 100_000,
        "host": f"HOST-{session % 7}",
        "LogonProcType": "Session setup",
        "ProcName": f"{'bt'[kind - 1]}{number}",
        "ProcID": 400 + 4 * place,
        "ProcParentID": 396 + 4 * place,
        "ProcStartTimeRelativeMs": place * 5,
        "ProcLifetimeMs": 100 + place,
        "TotalLogonDurationMs": 40_000,
        "ProcUser": "CORP/anna",
        "SortOrder2": place + 2,
    }


def lines(numbers):
    return b"".join(json.dumps(row(TCP, number)).encode() + b"\n" for number in numbers)


def bulk_request(numbers):
    action = b'{"create":{"_index":"uberagent"}}\n'
    return b"".join(action + json.dumps(row(BULK, number)).encode() + b"\n" for number in numbers)


def judge(body, judge_span=None):
    """The items of a request as a backend got it, and what is wrong with it. Roots that no row stands for are no items.
    `judge_span` is told where spans of kind `OTLP` do not come out as they went in."""
    judge_span = judge_span or is_as_it_was
    found, wrong = [], []
    request = ExportTraceServiceRequest.FromString(body)
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for got in scope_spans.spans:
                kind = LETTERS.get(got.name[:1].encode()) if got.name[1:].isdigit() else None
                if kind is None:
                    if not any(pair.key == "uberagent.synthesised" for pair in got.attributes):
                        wrong.append(f"a span named {got.name!r}")
                    continue
                number = int(got.name[1:])
                problem = judge_span(got, number) if kind == OTLP else judge_row(got, resource_spans, kind, number)
                if problem:
                    wrong.append(f"{got.name}: {problem}")
                else:
                    found.append(item(kind, number))
    return found, wrong


def is_as_it_was(got, number):
    padding = len(got.attributes[0].value.string_value) if got.attributes else 0
    return None if got.SerializeToString() == span(number, padding) else "its bytes are not those that were sent"


def judge_row(got, resource_spans, kind, number):
    wanted = row(kind, number)
    pairs = [*got.attributes, *resource_spans.resource.attributes]
    sessions = {pair.value.string_value for pair in pairs if pair.key == "session.id"}
    if sessions != {wanted["SessionGUID"].lower()}:
        return "another session"
    if got.end_time_unix_nano - got.start_time_unix_nano != wanted["ProcLifetimeMs"] * 1_000_000:
        return "another duration"
    return None
