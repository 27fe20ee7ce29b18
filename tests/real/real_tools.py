"""The operator's tools against the real binary: queue, dlq and status, beside a running process and without one."""

import json
import os
import signal
import struct
import subprocess

from google.protobuf import json_format
from harness import receiver as receiving
from harness.appliance import Appliance, arrived, post
from harness.receiver import Receiver, spans_of
from harness.registry import real
from harness.samples import as_lines, made_rows
from harness.scene import expect, free_port, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from real_failures import ids_of

SPANS_OF_A_SESSION = 71


def tool(scene, *words, code=0):
    """Runs a command; its stdout, and its stderr. Fails unless it ends with `code`."""
    run = subprocess.run(
        [str(scene.binary), *[str(word) for word in words]],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        cwd=scene.directory,
    )
    said = f"{' '.join(map(str, words))}: ended with {run.returncode}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"
    expect(run.returncode == code, said)
    return run.stdout, run.stderr


def asked(scene, *words, code=0):
    return json.loads(tool(scene, *words, "--json", code=code)[0])


def lag(listed):
    return sum(lane["lag_spans"] for lane in listed["destinations"])


def segments(listed):
    return [segment for lane in listed["lanes"] for segment in lane["segments"]]


def exported(folder):
    """The spans of an export as JSON lines, by id."""
    spans = {}
    for line in (folder / "traces.jsonl").read_text().splitlines():
        request = json_format.Parse(receiving.with_base64_ids(line), ExportTraceServiceRequest())
        spans.update({span.id: span for span in spans_of(request)})
    return spans


def framed(folder):
    """The same of an export as protobuf behind lengths."""
    data, spans = (folder / "traces.pb").read_bytes(), {}
    while data:
        (length,) = struct.unpack(">I", data[:4])
        request = ExportTraceServiceRequest.FromString(data[4 : 4 + length])
        spans.update({span.id: span for span in spans_of(request)})
        data = data[4 + length :]
    return spans


def same(one, other):
    """Span by span, with resource and scope."""
    expect(set(one) == set(other), lambda: f"{len(set(one) ^ set(other))} spans are in one only")
    for span_id, span in one.items():
        twin = other[span_id]
        expect(span.proto == twin.proto, f"{span_id} differs:\n{span.proto}\n{twin.proto}")
        expect((span.resource, span.scope) == (twin.resource, twin.scope), f"the resource of {span_id} differs")


def with_backend_down(scene, sessions=30):
    """An appliance that delivers to nobody, with rows in its log; the port where a backend may come up."""
    port = free_port()
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}/v1/traces").start()
    rows = made_rows(sessions)
    appliance.send_lines(as_lines(rows))
    count = sessions * SPANS_OF_A_SESSION
    until(
        lambda: appliance.total("millrace_destination_in_queue_spans") == count
        and appliance.total("export_failures_total") >= 1,
        20,
        f"{count} spans wait for a backend that is down",
    )
    return appliance, port, rows


@real("queue and status beside a running process whose backend is down: every figure is right", seconds=120)
def beside_a_process(scene):
    appliance, _, rows = with_backend_down(scene)
    count = 30 * SPANS_OF_A_SESSION
    listed = asked(scene, "queue", "ls", "--state", appliance.state)
    expect(lag(listed) == count, f"queue ls: a lag of {lag(listed)}, not {count}")
    expect(sum(segment["spans"] for segment in segments(listed)) == count, "queue ls: the spans of the segments")
    expect(sum(segment["records"] for segment in segments(listed)) == len(rows), "queue ls: the records")
    inspected = asked(scene, "queue", "inspect", "--blocks", "--state", appliance.state)["segments"]
    blocks = [entry for segment in inspected for entry in segment["entries"] if entry["kind"] == "block"]
    expect(sum(block["spans"] for block in blocks) == count, "queue inspect: the spans of the blocks")
    expect(all(block["crc_ok"] for block in blocks), "queue inspect: a checksum")
    verified = asked(scene, "queue", "verify", "--state", appliance.state)
    expect(sum(log["spans"] for log in verified["logs"]) == count, "queue verify: the spans")
    _, said = tool(scene, "queue", "repair", "--state", appliance.state, code=1)
    expect("stop it first" in said, f"queue repair beside a process says {said!r}")
    table, _ = tool(scene, "queue", "ls", "--state", appliance.state)
    expect(f"in use by process {appliance.process.popen.pid}" in table, f"queue ls says\n{table}")
    url = f"http://127.0.0.1:{appliance.metrics_port}"
    until(
        lambda: "otlphttp: cannot be reached" in tool(scene, "status", "--url", url)[0],
        30,
        lambda: f"status says what is wrong:\n{tool(scene, 'status', '--url', url)[0]}",
        every=0.2,
    )
    status = asked(scene, "status", "--url", url)
    (destination,) = status["destinations"]
    expect(destination["lag_spans"] == count, f"status: a lag of {destination['lag_spans']}")
    entry_bytes = sum(lane["log"]["entry_bytes"] for lane in status["lanes"])
    expect(0 < destination["lag_bytes"] <= entry_bytes, f"status: {destination['lag_bytes']} of {entry_bytes} bytes lag")
    expect(set(status["balances"].values()) == {0}, f"status: {status['balances']}")
    expect(sum(source["records"]["received"] for source in status["sources"]) == len(rows), "status: the sources")
    until(lambda: appliance.total("millrace_destination_lag_seconds", destination="otlphttp") > 1, 10, "the lag has an age")
    expect(appliance.total("millrace_destination_lag_seconds") < 100, "the lag is older than the test")


@real("queue export: what waits for a destination comes back by OTLP, span by span", seconds=120)
def export_and_import(scene):
    appliance, _, rows = with_backend_down(scene)
    lines, frames = scene.path("lines"), scene.path("frames")
    state = ("--state", appliance.state, "--destination", "otlphttp")
    tool(scene, "queue", "export", *state, "--out", lines)
    appliance.process.signal(signal.SIGKILL)
    appliance.process.wait(10)
    tool(scene, "queue", "export", *state, "--out", frames, "--format", "protobuf")
    as_json, as_protobuf = exported(lines), framed(frames)
    expect(ids_of(rows) <= set(as_json), "spans of rows are not among those exported")
    expect(len(as_json) == 30 * SPANS_OF_A_SESSION, f"{len(as_json)} spans are exported")
    same(as_json, as_protobuf)
    receiver = Receiver(scene)
    second = Appliance(scene, name="second", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    for line in (lines / "traces.jsonl").read_bytes().splitlines():
        answered, _, _ = post(second.otlp, "/v1/traces", line, {"Content-Type": "application/json"})
        expect(answered == 200, f"the import of a line: {answered}")
    arrived(receiver, len(as_json), 30, second)
    second.settle()
    same(as_json, receiver.first_of_each())
    nothing, _ = tool(scene, "queue", "export", "--state", appliance.state, "--to", "1h")
    expect(nothing == "", "blocks of the last minute are older than an hour")
    _, said = tool(scene, "queue", "export", "--state", appliance.state, "--destination", "nobody", code=2)
    expect("otlphttp" in said, f"an unknown destination: {said!r}")


def marked_durable(scene, appliance):
    """Blocks of one segment that a commit-mark knows to be durable: what is damaged behind it is the tail of a crash."""
    segments = asked(scene, "queue", "inspect", "--blocks", "--state", appliance.state)["segments"]
    for segment in segments:
        durable = max(entry.get("durable_sequence") or 0 for entry in segment["entries"])
        blocks = [entry for entry in segment["entries"] if entry["kind"] == "block" and entry["sequence"] <= durable]
        if len(blocks) >= 3:
            return segment, blocks
    return None


@real("a damaged segment: verify and repair say exactly what is lost, and exactly the rest is delivered", seconds=120)
def damage(scene):
    appliance, port, _ = with_backend_down(scene)
    count = 30 * SPANS_OF_A_SESSION
    segment, blocks = until(lambda: marked_durable(scene, appliance), 20, "three durable blocks", every=0.2)
    appliance.process.signal(signal.SIGKILL)
    appliance.process.wait(10)
    state = ("--state", appliance.state)
    victim = blocks[len(blocks) // 2]
    with open(segment["file"], "r+b") as file:
        file.seek(victim["offset"] + 64 + victim["stored_bytes"] // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    report = asked(scene, "queue", "verify", *state, code=1)
    lost = sum(log["lost_spans"] for log in report["logs"])
    expect(lost == victim["spans"], f"verify: {lost} spans lost, not {victim['spans']}")
    (found,) = [damage for log in report["logs"] for damage in log["damage"]]
    expect((found["offset"], found["sequence"]) == (victim["offset"], victim["sequence"]), f"verify: {found}")
    planned, _ = tool(scene, "queue", "repair", "--dry-run", *state)
    expect(f"lost for good: {victim['spans']} spans" in planned, f"repair --dry-run says\n{planned}")
    tool(scene, "queue", "repair", *state)
    again = asked(scene, "queue", "verify", *state, code=1)
    expect(sum(log["lost_spans"] for log in again["logs"]) == lost, "a repair has changed what is lost")
    receiver = Receiver(scene, port=port)
    appliance.start()
    arrived(receiver, count - lost, 40, appliance)
    appliance.settle()
    expect(receiver.distinct() == count - lost, "more arrived than there was")
    booked = appliance.total("millrace_destination_spans_total", outcome="lost")
    expect(booked == lost, f"{booked} spans are booked as lost, not {lost}")


class Picky(Receiver):
    """A backend that refuses every request with a span of a certain name, until it has changed its mind."""

    poison = "poison"

    def serve(self, handler):
        request = receiving.decode(receiving.body_of(handler), handler.headers.get("Content-Type", ""))
        if any(span.name == self.poison for span in spans_of(request)):
            receiving.answer(handler, 400, b"I do not like the name of this span", {"Content-Type": "text/plain"})
            return
        self.take(request, self.mood, "")
        receiving.answer(handler, 200, b"", {"Content-Type": "application/x-protobuf"})


def request_of(names):
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number, name in enumerate(names):
        start = 1_747_033_126_000_000_000 + number
        scope.spans.add(
            trace_id=os.urandom(16), span_id=os.urandom(8), name=name, start_time_unix_nano=start, end_time_unix_nano=start
        )
    return request.SerializeToString()


def letters(scene, appliance, *words):
    return asked(scene, "dlq", "ls", "--state", appliance.state, *words)["letters"]


@real("dead letters of a backend: kept with its reply, refused again, taken at last, gone; the balances stay 0", seconds=120)
def refused_and_taken(scene):
    receiver = Picky(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    url = ("--url", f"http://127.0.0.1:{appliance.metrics_port}")
    expect(post(appliance.otlp, "/v1/traces", request_of(["good"] * 500))[0] == 200, "the good spans were not taken")
    arrived(receiver, 500, 20, appliance)
    expect(post(appliance.otlp, "/v1/traces", request_of(["good"] * 20 + ["poison"] + ["good"] * 20))[0] == 200, "refused")
    arrived(receiver, 540, 30, appliance)
    until(lambda: appliance.total("millrace_destination_spans_total", outcome="dead_lettered") == 1, 20, "a dead letter")
    (letter,) = letters(scene, appliance, "--destination", "otlphttp")
    expect(letter["store"] == "delivery" and "do not like" in letter["reply"], f"the letter: {letter}")
    shown, _ = tool(scene, "dlq", "show", letter["id"], "--state", appliance.state)
    expect('"name":"poison"' in shown and "do not like" in shown, f"dlq show says\n{shown}")
    replayed, _ = tool(scene, "dlq", "replay", letter["id"], *url, code=1)
    expect("0 replayed, 1 failed again" in replayed, f"a refused replay says {replayed!r}")
    expect([one["id"] for one in letters(scene, appliance)] == [letter["id"]], "a letter that fails again is not the one it was")
    receiver.poison = None
    replayed, _ = tool(scene, "dlq", "replay", "--all", *url)
    expect("1 replayed, 0 failed" in replayed, f"a replay says {replayed!r}")
    expect(sum(span.name == "poison" for span in receiver.spans) == 1, "the span did not arrive once")
    expect(letters(scene, appliance) == [], "the letter is still there")
    replayed, _ = tool(scene, "dlq", "replay", "--all", *url)
    expect("0 replayed, 0 failed" in replayed, f"a replay of nothing says {replayed!r}")
    appliance.settle()
    expect(appliance.total("millrace_destination_spans_total", outcome="dead_lettered") == 1, "a closed balance was opened")
    expect(appliance.total("millrace_dead_letters_replayed_total", store="delivery") == 1, "the replay was not counted")
    appliance.terminate(15)
    appliance.start()
    expect(letters(scene, appliance) == [], "the letter came back with a restart")


@real("dead letters of the front: replayed under another mapping, purged beside a process and without one", seconds=120)
def front_letters(scene):
    receiver = Receiver(scene)
    strict = "uberagent:\n  mapping: original\n"
    appliance = Appliance(scene, yaml=strict, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    url = ("--url", f"http://127.0.0.1:{appliance.metrics_port}")
    rows = made_rows(1)
    negative, bad = dict(rows[3], ProcID=-12), dict(rows[4], SessionGUID="No GUID found for SessionID")
    appliance.send_lines(as_lines([*rows[:3], negative, bad]))
    until(lambda: appliance.total("millrace_front_records_total", outcome="dead_lettered") >= 1, 20, "dead letters")
    appliance.settle()
    kept = int(appliance.total("millrace_front_records_total", outcome="dead_lettered"))
    until(lambda: len(letters(scene, appliance, "--store", "front")) == kept, 20, f"{kept} letters are listed")
    shown, _ = tool(scene, "dlq", "show", letters(scene, appliance)[-1]["id"], "--state", appliance.state)
    expect("No GUID found" in shown, f"dlq show says\n{shown}")
    replayed, _ = tool(scene, "dlq", "replay", "--store", "front", *url, code=1)
    expect(f"{kept} failed again" in replayed, f"a replay says {replayed!r}")
    appliance.settle()
    expect(len(letters(scene, appliance)) == kept, "a letter that fails again is another letter")
    again = appliance.total("millrace_front_records_total", producer="replay", outcome="dead_lettered")
    expect(again == kept, f"{again} booked as replayed and dead-lettered, not {kept}")
    purged, _ = tool(scene, "dlq", "purge", letters(scene, appliance)[0]["id"], *url)
    expect(purged.startswith("1 "), f"purge says {purged!r}")
    expect(len(letters(scene, appliance)) == kept - 1, "the purged letter is still there")
    appliance.send_lines(as_lines([bad]))
    until(lambda: len(letters(scene, appliance)) == kept, 20, "one more letter is listed")
    appliance.terminate(15)
    purged, _ = tool(scene, "dlq", "purge", "--all", "--state", appliance.state)
    expect(purged.startswith(f"{kept} "), f"purge without a process says {purged!r}")
    expect(letters(scene, appliance) == [], "letters are left after a purge of all")
    _, said = tool(scene, "dlq", "purge", "--state", appliance.state, code=2)
    expect("--all" in said, f"a purge of nothing in particular says {said!r}")
