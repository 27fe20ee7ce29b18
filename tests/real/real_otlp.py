"""OTLP/HTTP in: a real OpenTelemetry SDK exports, what arrives behind Millrace is byte for byte what was made."""

import gzip
import json

from google.rpc.status_pb2 import Status
from harness.appliance import Appliance, arrived, post
from harness.receiver import Mood, Receiver
from harness.registry import real
from harness.scene import expect, until
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status as SpanStatus, StatusCode


def make_spans(count):
    """Finished spans with everything a span can have: kinds, events, links, errors, every attribute type."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "checkout", "host.name": "h1"}))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("tests.real", "1.2.3")
    for index in range(0, count, 2):
        with tracer.start_as_current_span("parent ä€𝄞", kind=SpanKind.SERVER) as parent:
            link = Link(parent.get_span_context(), {"why": "test"})
            with tracer.start_as_current_span("child", kind=SpanKind.CLIENT, links=[link]) as child:
                child.set_attributes({"n": index, "f": 0.1, "b": True, "s": "x" * 200, "l": [1, 2, 3]})
                child.add_event("event", {"k": "v"})
                child.set_status(SpanStatus(StatusCode.ERROR, "broken"))
    return memory.get_finished_spans()


def protos_of(request):
    return {
        (span.trace_id.hex(), span.span_id.hex()): span.SerializeToString(deterministic=True)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def expect_identical(receiver, spans):
    wanted = protos_of(encode_spans(spans))
    got = {span.id: span.proto.SerializeToString(deterministic=True) for span in receiver.spans}
    expect(wanted == got, f"{sum(got.get(key) != value for key, value in wanted.items())} of {len(wanted)} differ")
    for span in receiver.spans:
        expect(span.resource.get("service.name") == "checkout", f"resource {span.resource}")
        expect(span.scope == "tests.real", f"scope {span.scope!r}")


def scene_with(scene, **env):
    receiver = Receiver(scene)
    return receiver, Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **env).start()


def export(appliance, spans, compression=Compression.NoCompression):
    url = f"http://127.0.0.1:{appliance.otlp}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=url, compression=compression, timeout=20)
    result = exporter.export(spans)
    exporter.shutdown()
    expect(result is SpanExportResult.SUCCESS, f"the SDK says {result}")


@real("spans of the OpenTelemetry SDK arrive byte for byte, plain and gzip")
def sdk_spans(scene):
    receiver, appliance = scene_with(scene)
    plain, packed = make_spans(200), make_spans(200)
    export(appliance, plain)
    export(appliance, packed, Compression.Gzip)
    arrived(receiver, 400, 20, appliance)
    appliance.settle()
    expect_identical(receiver, list(plain) + list(packed))
    expect(receiver.doubled() == 0, "spans came twice")


@real("what Millrace sends is gzip when so configured")
def gzip_out(scene):
    receiver, appliance = scene_with(scene, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    spans = make_spans(100)
    export(appliance, spans)
    arrived(receiver, 100, 20, appliance)
    expect_identical(receiver, spans)
    expect(set(receiver.encodings) == {"gzip"}, f"sent as {dict(receiver.encodings)}")


@real("bad spans are cut out and said: partial success, the good ones arrive")
def partial_success(scene):
    receiver, appliance = scene_with(scene)
    spans = make_spans(20)
    request = encode_spans(spans)
    bad = request.resource_spans[0].scope_spans[0].spans
    bad[3].trace_id = bytes(16)
    bad[4].span_id = b"short"
    wire = ExportTraceServiceRequest.FromString(request.SerializeToString())
    status, _, body = post(appliance.otlp, "/v1/traces", wire.SerializeToString())
    expect(status == 200, f"answered {status}")
    partial = ExportTraceServiceResponse.FromString(body).partial_success
    expect(partial.rejected_spans == 2 and partial.error_message, f"partial success says {partial}")
    arrived(receiver, 18, 20, appliance)
    appliance.settle()
    expect(receiver.distinct() == 18, f"{receiver.distinct()} arrived")


@real("refusals speak OTLP: google.rpc.Status in the request's encoding")
def refusals(scene):
    receiver, appliance = scene_with(scene)
    protobuf = {"Content-Type": "application/x-protobuf"}
    cases = [
        ("garbage", 400, "/v1/traces", b"\xff\xff\xff\xff not protobuf", protobuf),
        ("wrong type", 415, "/v1/traces", b"x", {"Content-Type": "text/plain"}),
        ("unknown encoding", 415, "/v1/traces", b"x", {**protobuf, "Content-Encoding": "br"}),
        ("broken gzip", 400, "/v1/traces", b"\x1f\x8b broken", {**protobuf, "Content-Encoding": "gzip"}),
        ("bomb", 413, "/v1/traces", gzip.compress(bytes(100 << 20)), {**protobuf, "Content-Encoding": "gzip"}),
        ("unknown path", 404, "/v1/nothing", b"", protobuf),
    ]
    for name, wanted, path, body, headers in cases:
        status, answered, reply = post(appliance.otlp, path, body, headers)
        expect(status == wanted, f"{name}: answered {status}, not {wanted}")
        if headers is protobuf and name != "unknown path":
            expect(answered.get("Content-Type") == "application/x-protobuf", f"{name}: {answered.get('Content-Type')}")
            expect(Status.FromString(reply).message, f"{name}: no message")
    status, _, reply = post(appliance.otlp, "/v1/traces", b"{ no json", {"Content-Type": "application/json"})
    expect(status in (400, 415), f"bad JSON: answered {status}")
    json.loads(reply)
    status, _, reply = post(appliance.otlp, "/v1/traces", b"")
    expect(status == 200 and not reply, f"an empty request: {status} {reply!r}")
    expect(receiver.distinct() == 0, "something of the refused arrived")


@real("the backend is down: senders are told yes, data stays, all of it arrives later", seconds=90)
def backend_down(scene):
    receiver, appliance = scene_with(scene)
    receiver.mood = Mood(status=503, headers={"Retry-After": "1"})
    made = [make_spans(100) for _ in range(5)]
    for spans in made:
        export(appliance, spans)
    until(lambda: receiver.turned_away >= 2, 15, "the backend turned requests away")
    expect(receiver.distinct() == 0, "spans arrived at a backend that is down")
    expect(appliance.total("millrace_destination_in_queue_spans") == 500, "500 spans are not in the queue")
    receiver.mood = Mood()
    arrived(receiver, 500, 40, appliance)
    appliance.settle()
    expect_identical(receiver, [span for spans in made for span in spans])


@real("what the peer refuses by partial success is counted and not sent again")
def refused_by_peer(scene):
    receiver, appliance = scene_with(scene)
    receiver.mood = Mood(refuse=lambda span: span.name == "child")
    export(appliance, make_spans(100))
    arrived(receiver, 50, 20, appliance)
    appliance.settle()
    expect(sum(receiver.refused.values()) == 50, f"{sum(receiver.refused.values())} offered and refused, not 50")
    refused = appliance.total("millrace_destination_spans_total", outcome="refused_by_peer")
    expect(refused == 50, f"{refused} booked as refused_by_peer")
