"""Backends that misbehave in every way there is, all behind one appliance: none may lose a span or hold another up.

A table of scenarios: each is a destination with a backend of its own that first behaves, then does its worst, then behaves
again. What must have become of every span is part of the scenario. Last, rows that make no span, as log records.
"""

import collections
import json
import re
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from harness.appliance import Appliance
from harness.receiver import Receiver, body_of, decode, inflate
from harness.receiver import answer as answer_by
from harness.registry import real
from harness.samples import DATA, as_lines, made_rows
from harness.scene import Skip, accepts, expect, free_port, until
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
SESSIONS, SPANS_EACH = 12, 71
TOTAL = (1 + SESSIONS) * SPANS_EACH
MIB = 1 << 20


class Gone(Exception):
    """The connection is over."""


class Backend:
    """A server whose `act` answers one request that was read whole, or looks at its head alone when `early`."""

    def __init__(self, scene, act=None, early=False, tls=None):
        self.act, self.early, self.tls = act, early, tls
        self.is_bad, self.asked_while_bad = False, 0
        self.taken = collections.Counter()
        self.lock = threading.Lock()
        backend = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                backend.serve(self.request)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", free_port()), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        scene.closing.append(self.server.server_close)

    def serve(self, connection):
        if self.tls:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:
                self.asked_while_bad += 1
                return
        rest = b""
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    rest += received(connection)
                head, rest = rest.split(b"\r\n\r\n", 1)
                if self.is_bad and self.early:
                    self.asked_while_bad += 1
                    self.act(self, connection, b"")
                length = int(LENGTH.search(head)[1])
                while len(rest) < length:
                    rest += received(connection)
                body, rest = rest[:length], rest[length:]
                if self.is_bad:
                    self.asked_while_bad += 1
                    self.act(self, connection, body)
                else:
                    self.take(body)
                    answer(connection, 200, b"", "Content-Type: application/x-protobuf")
        except (Gone, OSError):
            connection.close()

    def take(self, body):
        ids = ids_of(body)
        with self.lock:
            self.taken.update(ids)

    def distinct(self):
        with self.lock:
            return len(self.taken)


def ids_of(body):
    request = decode(body, "application/x-protobuf")
    scopes = (scope for resource in request.resource_spans for scope in resource.scope_spans)
    return [span.span_id + span.trace_id for scope in scopes for span in scope.spans]


def received(connection):
    data = connection.recv(65536)
    if not data:
        raise Gone
    return data


def answer(connection, status, body, *headers):
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def says(status, *headers):
    return lambda backend, connection, body: answer(connection, status, b"it is so", *headers)


def takes_and_says(reply):
    """Takes every span, and answers yes in its own way."""

    def act(backend, connection, body):
        backend.take(body)
        reply(connection)

    return act


def hang(backend, connection, body):
    until(lambda: not backend.is_bad, 60, "the backend is well again", every=0.1)
    raise Gone


def reset(backend, connection, body):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Gone


def byte_a_second(connection):
    """A yes whose body would take two minutes: it is a yes, and the connection is given up at the timeout."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100\r\n\r\n")
    connection.settimeout(1)
    while True:
        connection.sendall(b"\n")
        try:
            received(connection)
        except TimeoutError:
            pass


def endless(connection):
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {3 << 30}\r\n\r\n".encode())
    while True:
        connection.sendall(bytes(MIB))


def endless_error(backend, connection, body):
    connection.sendall(f"HTTP/1.1 503 x\r\nContent-Length: {3 << 30}\r\n\r\n".encode())
    while True:
        connection.sendall(bytes(MIB))


def too_short(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort")
    raise Gone


def flapping(backend, connection, body):
    """A bad quarter of each second. Were it half, one run in forty would wait a minute: each probe that meets it doubles
    the wait for the next."""
    if int(time.monotonic() * 4) % 4 == 0:
        return answer(connection, 503, b"")
    backend.take(body)
    return answer(connection, 200, b"")


def refuses_one(backend, connection, body):
    """400 for every request that has one certain span in it."""
    ids = ids_of(body)
    backend.marked = getattr(backend, "marked", None) or ids[len(ids) // 2]
    if backend.marked in ids:
        return answer(connection, 400, b"no such span")
    backend.take(body)
    return answer(connection, 200, b"")


def refuses_large(backend, connection, body):
    if len(body) > 20_000:
        return answer(connection, 413, b"")
    backend.take(body)
    return answer(connection, 200, b"")


def refuses_some(backend, connection, body):
    backend.take(body)
    reply = ExportTraceServiceResponse()
    reply.partial_success.rejected_spans = 2
    reply.partial_success.error_message = "two of them"
    return answer(connection, 200, reply.SerializeToString(), "Content-Type: application/x-protobuf")


@dataclass
class Scenario:
    """A bad backend. `waits`: it holds on to nothing, so every span waits until it is well; `held`: nothing is tried again
    before somebody changes something; `settles`: everything is settled while it is bad."""

    expectation: str
    act: Callable
    early: bool = False
    dead_letters: int = 0
    refused_by_peer: bool = False


SCENARIOS = {
    "500": Scenario("waits", says(500)),
    "502": Scenario("waits", says(502)),
    "503": Scenario("waits", says(503)),
    "504": Scenario("waits", says(504)),
    "503-later": Scenario("waits", says(503, "Retry-After: 1")),
    "429": Scenario("waits", says(429)),
    "429-later": Scenario("waits", says(429, "Retry-After: 1")),
    "429-garbage": Scenario("waits", says(429, "Retry-After: soon, I hope")),
    "503-past": Scenario("waits", says(503, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT")),
    "429-endless": Scenario("held", says(429, "Retry-After: 99999999999999999999999")),
    "401": Scenario("held", says(401)),
    "403": Scenario("held", says(403)),
    "404": Scenario("held", says(404)),
    "redirect": Scenario("held", says(307, "Location: http://127.0.0.1:1/v1/traces")),
    "web-page": Scenario("held", says(200, "Content-Type: text/html")),
    "hang": Scenario("waits", hang),
    "hang-early": Scenario("waits", hang, early=True),
    "reset": Scenario("waits", reset),
    "reset-mid-body": Scenario("waits", reset, early=True),
    "byte-a-second": Scenario("settles", takes_and_says(byte_a_second)),
    "endless-error": Scenario("waits", endless_error),
    "endless": Scenario("settles", takes_and_says(endless)),
    "garbage": Scenario("settles", takes_and_says(lambda connection: answer(connection, 200, bytes(range(256))))),
    "short": Scenario("settles", takes_and_says(too_short)),
    "413": Scenario("settles", refuses_large),
    "400-of-one": Scenario("settles", refuses_one, dead_letters=1),
    "partial": Scenario("settles", refuses_some, refused_by_peer=True),
    "flapping": Scenario("settles", flapping),
}


def exporters(urls):
    each = "".join(
        f"  otlphttp/{name}: {{ endpoint: '{url}', timeout: 2s, compression: none, required: true,"
        f" retry_on_failure: {{ initial_interval: 200ms, max_interval: 1s }} }}\n"
        for name, url in urls.items()
    )
    names = ", ".join(f"otlphttp/{name}" for name in urls)
    pipeline = f"{{ receivers: [uberagent, otlp, elasticsearch], exporters: [{names}] }}"
    return f"memory_limit: 2GiB\nexporters:\n{each}service:\n  drain_timeout: 2s\n  pipelines:\n    traces: {pipeline}\n"


def self_signed(scene):
    """A server's TLS with a certificate that nobody trusts."""
    program = shutil.which("openssl")
    if program is None:
        return None
    key, certificate = scene.path("key.pem"), scene.path("certificate.pem")
    arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    arguments += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Backends:
    """Every scenario's backend, those that never work, and what the appliance says of each."""

    def __init__(self, scene):
        self.all = {name: Backend(scene, it.act, it.early) for name, it in SCENARIOS.items()}
        self.never = {"name": "http://no-such-host.invalid:4318"}
        tls = self_signed(scene)
        if tls:
            self.never["certificate"] = f"https://127.0.0.1:{Backend(scene, tls=tls).port}"
        urls = {name: f"http://127.0.0.1:{backend.port}" for name, backend in self.all.items()}
        self.appliance = Appliance(scene, yaml=exporters({**urls, **self.never}), WORKER_COUNT=1)

    def of(self, name, metric, **labels):
        return self.appliance.total(f"millrace_destination_{metric}", destination=f"otlphttp/{name}", **labels)

    def settled(self, name):
        outcomes = ("delivered", "dead_lettered", "refused_by_peer")
        return sum(self.of(name, "spans_total", outcome=outcome) for outcome in outcomes)

    def figures(self, names):
        """What /metrics says of these destinations, for a failure's message."""
        wanted = {f"otlphttp/{name}" for name in names}
        samples = [it for it in self.appliance.metrics() if it[1].get("destination") in wanted and it[2]]
        return "\n".join(f"{name} {labels} {value:.15g}" for name, labels, value in samples if "bucket" not in name)

    def is_as_expected(self, name, expectation):
        """Whether a backend that is bad has had its effect."""
        if expectation == "waits":
            return self.all[name].asked_while_bad >= 2
        if expectation == "held":
            return self.of(name, "held") == 1 or self.all[name].asked_while_bad >= 1
        return self.settled(name) == TOTAL

    def unlike(self, names, expected):
        return [name for name in names if not expected(name)]


@real("28 bad backends and two that never work: nothing lost, nothing held up, every span accounted for", seconds=240)
def bad_backends(scene):
    backends = Backends(scene)
    appliance = backends.appliance.start()
    rows = made_rows(1 + SESSIONS)
    appliance.send_lines(as_lines(rows[:70]))
    well = lambda name: backends.all[name].distinct() == SPANS_EACH
    until(lambda: not backends.unlike(SCENARIOS, well), 40, lambda: f"taken by {backends.unlike(SCENARIOS, well)}", 0.1)

    for backend in backends.all.values():
        backend.is_bad = True
    for begin in range(70, len(rows), 140):
        appliance.send_lines(as_lines(rows[begin : begin + 140]))
    shown = lambda name: backends.is_as_expected(name, SCENARIOS[name].expectation)
    until(
        lambda: not backends.unlike(SCENARIOS, shown),
        60,
        lambda: f"not as expected while bad: {backends.unlike(SCENARIOS, shown)}\n"
        f"{backends.figures(backends.unlike(SCENARIOS, shown))}\n{appliance.process.log()}",
        0.2,
    )
    for name, scenario in SCENARIOS.items():
        if scenario.expectation != "settles":
            waiting = backends.of(name, "in_queue_spans")
            expect(waiting == TOTAL - SPANS_EACH, f"{name}: {waiting} spans wait, not {TOTAL - SPANS_EACH}")
    for name in backends.never:
        expect(backends.of(name, "in_queue_spans") == TOTAL, f"{name}: not every span waits")
        expect(backends.of(name, "requests_total", outcome="failed") >= 1, f"{name}: no failure is counted")
    anonymous = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{appliance.process.popen.pid}/status").read_text())[1]
    expect(int(anonymous) * 1024 <= 128 * MIB, f"{anonymous} KiB of memory behind bad backends")

    for backend in backends.all.values():
        backend.is_bad = False
    by_itself = [name for name, it in SCENARIOS.items() if it.expectation == "waits"]
    recovered = lambda name: backends.settled(name) == TOTAL
    until(
        lambda: not backends.unlike(by_itself, recovered),
        60,
        lambda: f"not recovered: {backends.unlike(by_itself, recovered)}\n{appliance.process.log()}",
        0.2,
    )
    # Those that were held, and those that never worked, get a configuration that works: the log has kept it all.
    appliance.terminate(20)
    good = Backend(scene)
    urls = {name: f"http://127.0.0.1:{backend.port}" for name, backend in backends.all.items()}
    appliance.yaml = exporters({**urls, **{name: f"http://127.0.0.1:{good.port}" for name in backends.never}})
    appliance.start()
    appliance.settle(60)
    for name, scenario in SCENARIOS.items():
        letters = backends.of(name, "spans_total", outcome="dead_lettered")
        expect(letters == scenario.dead_letters, f"{name}: {letters} spans are dead letters")
        got = backends.all[name].distinct()
        expect(got == TOTAL - scenario.dead_letters, f"{name}: got {got} of {TOTAL} spans")
        refused = backends.of(name, "spans_total", outcome="refused_by_peer")
        expect((refused > 0) == scenario.refused_by_peer, f"{name}: {refused} spans refused by the peer")
    expect(good.distinct() == TOTAL, f"{good.distinct()} of {TOTAL} spans reached the backends that never worked")


class LogSink(Receiver):
    """An OTLP/HTTP receiver of logs: every record with its resource."""

    def __init__(self, scene):
        self.records = []
        super().__init__(scene)

    def serve(self, handler):
        body = inflate(body_of(handler), handler.headers.get("Content-Encoding", ""))
        request = ExportLogsServiceRequest.FromString(body)
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self.records += [(resource.resource, record) for record in scope.log_records]
        answer_by(handler, 200, b"", {"Content-Type": "application/x-protobuf"})


def log_documents():
    """Rows of sourcetypes that make no span."""
    from real_bulk import SPANS, documents

    return [document for document in documents() if document.get("Sourcetype") not in SPANS]


@real("rows that make no span arrive as log records, by way of rotel: the row is the body, its sourcetype an attribute")
def other_sourcetypes(scene):
    from real_peers import rotel

    if rotel is None:
        raise Skip("rotel has no wheel for this machine")
    sink = LogSink(scene)
    http_port = free_port()
    arguments = [
        Path(rotel.__file__).parent / "rotel-agent",
        "start",
        f"--otlp-http-endpoint=127.0.0.1:{http_port}",
        f"--otlp-grpc-endpoint=127.0.0.1:{free_port()}",
        "--exporter=otlp",
        f"--otlp-exporter-endpoint=http://127.0.0.1:{sink.port}",
        "--otlp-exporter-protocol=http",
        "--otlp-exporter-compression=none",
        "--batch-timeout=100ms",
        f"--pid-file={scene.path('rotel.pid')}",
    ]
    peer = scene.start(arguments, "rotel")
    until(lambda: accepts(http_port), 15, lambda: f"rotel listens\n{peer.log()}")
    yaml = "uberagent: { other_sourcetypes: logs }\n"
    appliance = Appliance(scene, yaml=yaml, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{http_port}").start()
    made = log_documents() * 30
    expect(len(made) >= 150, f"only {len(made)} rows make no span")
    appliance.send_lines(as_lines(made))
    until(lambda: len(sink.records) >= len(made), 20, lambda: f"{len(made)} log records, {len(sink.records)} came\n{peer.log()}")
    appliance.settle()
    wanted = sorted(json.dumps(document, sort_keys=True) for document in made)
    got = sorted(json.dumps(json.loads(record.body.string_value), sort_keys=True) for _, record in sink.records)
    expect(got == wanted, "the bodies are other rows")
    for resource, record in sink.records:
        row = json.loads(record.body.string_value)
        attributes = {pair.key: pair.value.string_value for pair in record.attributes}
        expect(attributes.get("uberagent.sourcetype") == row["Sourcetype"], f"attributes {attributes}")
        expect(record.severity_number == 9, f"severity {record.severity_number}")
        named = {pair.key: pair.value.string_value for pair in resource.attributes}
        expect(named.get("host.name") == row.get("host", row.get("Host")), f"resource {named}")
