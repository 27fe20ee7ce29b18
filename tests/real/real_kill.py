"""kill -9 under an acknowledged load: whatever was answered yes arrives after the next start."""

import http.client
import itertools
import random
import threading
import time

from harness.appliance import Appliance, arrived
from harness.receiver import Receiver
from harness.registry import real
from harness.samples import as_lines, made_rows
from harness.scene import expect, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LOOPS = 20
SPANS = 20


def request(numbers):
    """A request whose spans carry a running number in their ids; the ids with it."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    service = resource.resource.attributes.add()
    service.key, service.value.string_value = "service.name", "load"
    scope = resource.scope_spans.add()
    ids = []
    for _ in range(SPANS):
        number = next(numbers)
        span = scope.spans.add()
        span.trace_id = (number // 7 + 1).to_bytes(16, "big")
        span.span_id = (number + 1).to_bytes(8, "big")
        span.name = f"span {number}"
        span.kind = 1
        span.start_time_unix_nano = 1_747_033_126_000_000_000 + number
        span.end_time_unix_nano = span.start_time_unix_nano + 1000
        ids.append((span.trace_id.hex(), span.span_id.hex()))
    return message.SerializeToString(), ids


class Load(threading.Thread):
    """One connection that sends requests until the appliance is gone, and remembers which were answered yes."""

    def __init__(self, appliance, numbers, acknowledged, sent):
        super().__init__(daemon=True)
        self.appliance, self.numbers = appliance, numbers
        self.acknowledged, self.sent = acknowledged, sent
        self.answered = 0

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.appliance.otlp, timeout=10)
        try:
            while True:
                body, ids = request(self.numbers)
                self.sent.update(ids)
                connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.acknowledged.update(ids)
                    self.answered += 1
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()


def kill_loops(scene, env):
    draw = random.Random(20)
    numbers = itertools.count()
    acknowledged, sent = set(), set()
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **env)
    slowest = 0.0
    for _ in range(LOOPS):
        before = time.monotonic()
        appliance.start()
        slowest = max(slowest, time.monotonic() - before)
        loads = [Load(appliance, numbers, acknowledged, sent) for _ in range(4)]
        for load in loads:
            load.start()
        until(lambda: sum(load.answered for load in loads) >= 3, 15, "the first requests are answered yes")
        moment = time.monotonic() + draw.uniform(0.005, 0.2)
        until(lambda: time.monotonic() > moment, 1, "the moment of the kill", every=0.002)
        appliance.kill()
        for load in loads:
            load.join(15)
            expect(not load.is_alive(), "a sender hangs after the kill")
    appliance.start()
    until(
        lambda: not acknowledged - set(receiver.seen),
        40,
        lambda: f"{len(acknowledged)} acknowledged spans arrive; {len(acknowledged - set(receiver.seen))} are missing"
        f"\n{appliance.process.log()}",
    )
    appliance.settle()
    foreign = set(receiver.seen) - sent
    expect(not foreign, f"{len(foreign)} spans arrived that nobody sent")
    expect(not receiver.problems, f"the receiver complains: {receiver.problems[:1]}")
    expect(slowest <= 5, f"a start took {slowest:.1f} s")


@real("kill -9 twenty times under load: everything acknowledged arrives", seconds=120)
def killed_under_load(scene):
    kill_loops(scene, {})


@real("kill -9 with a backlog: the balance opens from what was durable and is 0 again", seconds=60)
def killed_with_backlog(scene):
    receiver = Receiver(scene)
    receiver.down()
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    appliance.send_lines(as_lines(made_rows(50)))
    until(lambda: appliance.total("millrace_lane_spans_total", outcome="appended") == 50 * 71, 20, "3550 appended")
    appliance.kill()
    appliance.start()
    appended = appliance.total("millrace_lane_spans_total", outcome="appended")
    expect(appended == 50 * 71, f"{appended} spans are in the log after the kill, not {50 * 71}")
    receiver.up()
    arrived(receiver, 50 * 71, 40, appliance)
    appliance.settle()
    expect(receiver.distinct() == 50 * 71, f"{receiver.distinct()} spans, not {50 * 71}")
