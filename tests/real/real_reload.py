"""Reload: fifty of them, good and bad, while senders keep their connections busy; nothing is dropped, lost or doubled."""

import http.client
import itertools
import json
import signal
import socket
import threading

from harness.appliance import Appliance
from harness.receiver import Receiver
from harness.registry import real
from harness.scene import accepts, expect, free_port, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

RELOADS = 51  # the last one takes the second destination away


class Sender(threading.Thread):
    """Exports a span at a time over one kept-alive connection, and remembers those that were acknowledged."""

    def __init__(self, port, number):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.number = number
        self.acknowledged = set()
        self.problem = None
        self.over = threading.Event()

    def run(self):
        try:
            self.connection.connect()
            own = self.connection.sock
            for count in itertools.count(1):
                if self.over.is_set():
                    return
                request = ExportTraceServiceRequest()
                span = request.resource_spans.add().scope_spans.add().spans.add()
                span.trace_id = self.number.to_bytes(8, "big") + count.to_bytes(8, "big")
                span.span_id = count.to_bytes(8, "big")
                span.name = "busy"
                self.connection.request(
                    "POST", "/v1/traces", request.SerializeToString(), {"Content-Type": "application/x-protobuf"}
                )
                answer = self.connection.getresponse()
                answer.read()
                expect(answer.status == 200, f"a request was answered with {answer.status}")
                expect(self.connection.sock is own, "the connection was closed")
                self.acknowledged.add((span.trace_id.hex(), span.span_id.hex()))
        except Exception as problem:  # whatever it is, the test wants to show it
            self.problem = problem


def exporter(name, receiver, extra=""):
    return f"  otlphttp/{name}:\n    endpoint: http://127.0.0.1:{receiver.port}\n{extra}"


def reload(appliance, dry_run=False):
    connection = http.client.HTTPConnection("127.0.0.1", appliance.metrics_port, timeout=60)
    connection.request("POST", "/api/v1/reload" + ("?dry_run=1" if dry_run else ""))
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


@real("reload: fifty under load drop no connection and lose no span", seconds=240)
def fifty_reloads(scene):
    stays, comes = Receiver(scene), Receiver(scene)
    appliance = Appliance(scene, yaml="exporters:\n" + exporter("stays", stays)).start()
    line = socket.create_connection(("127.0.0.1", appliance.tcp), timeout=30)
    senders = [Sender(appliance.otlp, number) for number in range(1, 4)]
    for sender in senders:
        sender.start()
    extra = free_port()
    generation = 1
    for round_ in range(RELOADS):
        line.sendall(b'{"not": "finished"')
        kind = round_ % 5
        text = "exporters:\n" + exporter("stays", stays, f"    headers: {{ x-round: '{round_}' }}\n" if kind == 1 else "")
        if kind in (2, 3):
            text += exporter("comes", comes)
        appliance.yaml = text
        file = appliance.file()
        if kind == 3:
            file = file.replace("receivers:\n", f"receivers:\n  otlp/extra: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{extra}' }} }} }}\n", 1)
        bad = kind == 4
        if bad:
            file = file.replace("segment_bytes: 16MiB", ("segment_bytes: 32MiB", "segment_byte: 16MiB")[round_ % 2])
        appliance.config.write_text(file)
        status, body = reload(appliance)
        line.sendall(b"\n")
        if bad:
            expect(status == 422, f"a bad configuration was answered with {status}: {body}")
            expect("segment_byte" in body["error"] and ".yaml:" in body["error"], f"no key and place: {body}")
            expect(appliance.total("millrace_config_last_reload_successful") == 0, "the metric says it succeeded")
            expect(b"the last reload failed" in appliance.get("/readyz?verbose")[1], "health does not say why")
        else:
            expect(status == 200, f"reload {round_} was answered with {status}: {body}")
            generation += 1
        expect(appliance.total("millrace_config_generation") == generation, "the generation is wrong")
        expect(accepts(extra) == (kind in (3, 4)), f"the extra receiver in round {round_}")
        for sender in senders:
            expect(sender.problem is None, lambda: f"a sender failed: {sender.problem}\n{appliance.process.log()}")
    for sender in senders:
        sender.over.set()
        sender.join(30)
        expect(sender.problem is None, lambda: f"a sender failed: {sender.problem}")
    line.setblocking(False)
    try:
        expect(line.recv(1) != b"", "the line connection was closed")
    except BlockingIOError:
        pass
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    expect(len(acknowledged) > RELOADS, "the senders were not busy")
    until(lambda: set(stays.seen) >= acknowledged, 30, "everything acknowledged is at the destination that stays")
    expect(stays.doubled() == 0, f"{stays.doubled()} spans were sent twice")
    expect(comes.doubled() == 0, f"{comes.doubled()} spans were sent twice to the one that comes and goes")
    expect(appliance.total("millrace_destination_parked", destination="otlphttp/comes") == 1, "it is not parked")
    appliance.config.write_text(appliance.file().replace("exporters:\n", "exporters:\n" + exporter("comes", comes), 1))
    expect(reload(appliance)[0] == 200, "the last reload")
    until(lambda: set(comes.seen) >= acknowledged, 30, "it went on where it was, when it came back")
    expect(comes.doubled() == 0, "spans were sent twice after its return")
    appliance.settle()
    line.close()


@real("reload: SIGHUP tells systemd RELOADING and READY", seconds=60)
def systemd_is_told(scene):
    path = str(scene.path("notify"))
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(path)
    notify.settimeout(20)
    receiver = Receiver(scene)
    appliance = Appliance(scene, yaml="exporters:\n" + exporter("a", receiver), NOTIFY_SOCKET=path).start()

    def next_with(key):
        while True:
            said = dict(line.split("=", 1) for line in notify.recv(4096).decode().splitlines())
            if key in said:
                return said

    next_with("READY")
    appliance.config.write_text(appliance.file() + "service: { drain_timeout: 5s }\n")
    appliance.process.signal(signal.SIGHUP)
    expect(int(next_with("RELOADING")["MONOTONIC_USEC"]) > 0, "no time")
    next_with("READY")
    until(lambda: appliance.total("millrace_config_generation") == 2, 10, "the configuration is in force")
    notify.close()
