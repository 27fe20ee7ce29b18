"""An OTLP/HTTP receiver that remembers every span it took, and can be told to misbehave.

It decodes with the official protobuf classes, so nothing of Millrace judges Millrace. `mood` decides each answer before
the spans are taken: `Mood.ok`, a status with headers, a partial success, or a slow yes. `down()` closes the port.
"""

import collections
import gzip
import http.server
import json
import socket
import threading
import time
import zlib
from dataclasses import dataclass, field

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from .scene import Failed, free_port


@dataclass
class Mood:
    """How the receiver answers."""

    status: int = 200
    headers: dict = field(default_factory=dict)
    delay_seconds: float = 0.0
    refuse: object = None  # a predicate of spans; those it names are refused by partial success


@dataclass
class Span:
    """One span as it came, with its resource and scope."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict
    resource: dict
    scope: str
    links: list
    proto: object

    @property
    def id(self):
        return (self.trace_id, self.span_id)


def plain(value):
    """An AnyValue as a Python value."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: plain(item.value) for item in value.kvlist_value.values}
    return getattr(value, kind)


def attributes(pairs):
    found = {}
    for pair in pairs:
        if pair.key in found:
            raise Failed(f"attribute {pair.key} stands twice on one span or resource")
        found[pair.key] = plain(pair.value)
    return found


def spans_of(request):
    """Every span of a request, in order."""
    for resource_spans in request.resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for proto in scope_spans.spans:
                yield Span(
                    trace_id=proto.trace_id.hex(),
                    span_id=proto.span_id.hex(),
                    parent=proto.parent_span_id.hex(),
                    name=proto.name,
                    kind=proto.kind,
                    start_ns=proto.start_time_unix_nano,
                    end_ns=proto.end_time_unix_nano,
                    attributes=attributes(proto.attributes),
                    resource=resource,
                    scope=scope_spans.scope.name,
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in proto.links],
                    proto=proto,
                )


def inflate(body, encoding):
    if encoding in ("", "identity"):
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    raise Failed(f"unexpected Content-Encoding {encoding}")


class Server(http.server.ThreadingHTTPServer):
    """A server that can give its port up at once, with the connections it has, and take it again."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address, handler):
        self.open = set()
        super().__init__(address, handler)

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        pass  # a client that was killed in mid-request is what many tests do

    def cut(self):
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Receiver:
    """The receiver; `spans` and `seen` grow as requests are accepted."""

    def __init__(self, scene, port=None):
        self.port = port or free_port()
        self.mood = Mood()
        self.spans = []
        self.seen = collections.Counter()
        self.refused = collections.Counter()
        self.requests = 0
        self.turned_away = 0
        self.problems = []
        self.encodings = collections.Counter()
        self.lock = threading.Lock()
        self.server = None
        self.up()
        scene.closing.append(self.down)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def up(self):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                receiver.serve(self)

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self):
        """Closes the port and every connection: the next connect is refused."""
        if self.server is None:
            return
        server, self.server = self.server, None
        server.shutdown()
        server.server_close()
        server.cut()

    def serve(self, handler):
        body = body_of(handler)
        mood = self.mood
        if mood.delay_seconds:
            time.sleep(mood.delay_seconds)
        if mood.status != 200:
            with self.lock:
                self.turned_away += 1
            answer(handler, mood.status, b"", mood.headers)
            return
        encoding = handler.headers.get("Content-Encoding", "")
        kind = handler.headers.get("Content-Type", "")
        try:
            request = decode(inflate(body, encoding), kind)
        except Exception as problem:  # whatever is wrong with the bytes is the finding
            with self.lock:
                self.problems.append(f"{type(problem).__name__}: {problem}")
            answer(handler, 400, b"", {})
            return
        refused = self.take(request, mood, encoding)
        reply = ExportTraceServiceResponse()
        if refused:
            reply.partial_success.rejected_spans = refused
            reply.partial_success.error_message = "refused by the test"
        answer(handler, 200, reply.SerializeToString(), {"Content-Type": "application/x-protobuf"})

    def take(self, request, mood, encoding):
        with self.lock:
            self.requests += 1
            self.encodings[encoding or "identity"] += 1
            refused = 0
            try:
                for span in spans_of(request):
                    if mood.refuse and mood.refuse(span):
                        self.refused[span.id] += 1
                        refused += 1
                        continue
                    self.spans.append(span)
                    self.seen[span.id] += 1
            except Failed as problem:
                self.problems.append(str(problem))
            return refused

    def distinct(self):
        """How many different spans came."""
        with self.lock:
            return len(self.seen)

    def doubled(self):
        """How many came more than once."""
        with self.lock:
            return sum(1 for count in self.seen.values() if count > 1)

    def first_of_each(self):
        """One span for each id."""
        with self.lock:
            return {span.id: span for span in reversed(self.spans)}


def decode(body, kind):
    if kind.startswith("application/x-protobuf"):
        return ExportTraceServiceRequest.FromString(body)
    if kind.startswith("application/json"):
        return json_format.Parse(with_base64_ids(body), ExportTraceServiceRequest())
    raise Failed(f"unexpected Content-Type {kind!r}")


def with_base64_ids(body):
    """OTLP/JSON writes ids in hex where protobuf's JSON mapping wants base64."""
    import base64

    document = json.loads(body)
    for resource_spans in document.get("resourceSpans", []):
        for scope_spans in resource_spans.get("scopeSpans", []):
            for span in scope_spans.get("spans", []):
                for holder in [span, *span.get("links", [])]:
                    for key in ("traceId", "spanId", "parentSpanId"):
                        if key in holder:
                            holder[key] = base64.b64encode(bytes.fromhex(holder[key])).decode()
    return json.dumps(document)


def body_of(handler):
    if "chunked" in handler.headers.get("Transfer-Encoding", ""):
        body = b""
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return body
    return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))


def answer(handler, status, body, headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
