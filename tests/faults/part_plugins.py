"""kill -9 at any moment with plugins in the chain: nothing acknowledged is lost, and no secret is ever on disk or delivered.

A redactor cuts the query off every URL; another plugin traps on some blocks, which are then quarantined. They run in either
order, on the lane or on a thread of their own, and sometimes with a circuit that opens at once. One stand keeps its log in
plain files: what the redactor has not seen may not be kept there, so senders are refused what traps. The other's log is
encrypted: there it is acknowledged as a dead letter, which comes out, redacted, when it is replayed without the plugin
that trapped. After every kill all files of the state directory are searched for the secret.
"""

import functools
import json
import mmap
import random
from pathlib import Path

from harness.appliance import post
from harness.scene import expect, until
from items import BULK, OTLP, RESOURCE, TCP, field, judge, span
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from part_kill import balanced, pause
from side import side_by_side
from sink import Sink
from stand import Stand, ended

LIVES = {"ci": 20, "nightly": 200, "gate": 2_000}
STANDS = 2
COLLECT_EVERY = 10
PLUGINS = Path(__file__).resolve().parents[1] / "data/plugins"
SECRET = b"card=4711"
# One span in so many has a URL that traps.
TRAPS_EVERY = 197


def run(context):
    each = -(-context.count(LIVES) // STANDS)
    found = side_by_side(context, STANDS, lambda scene, seed, index: lives(scene, seed, index == 1, each))
    total = {word: sum(one[word] for one in found) for word in found[0]}
    expect(total["letters"], "no block was ever quarantined")
    expect(total["refused"], "nothing that may not be kept was ever refused")
    return (
        f"{total['kills']} kills, 0 acknowledged lost, no secret in {total['searched'] >> 20:,} MiB of files or delivered, "
        f"{total['acknowledged']:,} acknowledged, {total['letters']:,} blocks quarantined and replayed, "
        f"{total['refused']:,} spans refused"
    )


def url(number, query):
    host = b"trap" if number % TRAPS_EVERY == 0 else b"shop"
    return field(9, field(1, b"url.full") + field(2, field(1, b"http://%s/%d?%s" % (host, number, query))))


def with_secrets(numbers, padding):
    """A request of these spans, each with a secret in its URL."""
    spans = (field(2, span(number, padding) + url(number, SECRET)) for number in numbers)
    return field(1, RESOURCE + field(2, b"".join(spans)))


def is_redacted(got, number):
    wanted = Span.FromString(span(number, len(got.attributes[0].value.string_value)) + url(number, b"REDACTED"))
    return None if got == wanted else f"it is not what it was, redacted: {got.attributes[1:]}"


def lives(scene, seed, encrypted, count):
    draw = random.Random(seed)
    queue = {"max_bytes": "32MiB"}
    if encrypted:
        key = scene.path("key")
        key.write_text(draw.randbytes(32).hex() + "\n")
        key.chmod(0o600)
        queue["encryption"] = f"{{ key_file: {key} }}"
    stand = Stand(scene, queue=queue, sink=Sink(functools.partial(judge, judge_span=is_redacted)))
    done = {"kills": 0, "searched": 0, "letters": 0}
    while done["kills"] < count:
        stand.sink.status = draw.choice([200, 200, 200, 503])
        stand.yaml = chain(draw, traps=True)
        if draw.random() < 1 / 8:
            stand.start(wait=False)
            pause(draw.uniform(0.0, 0.06))
        else:
            stand.start()
            balanced(stand)
            life(stand, draw)
        stand.kill()
        done["kills"] += 1
        stand.expect_no_damage()
        done["searched"] += search(stand.state)
        if done["kills"] % COLLECT_EVERY == 0 or done["kills"] == count:
            stand.sink.status = 200
            stand.yaml = chain(draw, traps=False)
            stand.start()
            if encrypted:
                done["letters"] += replay(stand)
            stand.collect()
            stand.kill()
            done["searched"] += search(stand.state)
    return {**done, "acknowledged": stand.journal.promised, "refused": 0 if encrypted else stand.journal.refused}


def chain(draw, traps):
    names = ["redact", "picky"] if traps else ["redact"]
    draw.shuffle(names)
    failures = draw.choice([3, 10_000, 10_000, 10_000])
    sections = (
        f"  plugin/{name}: {{ path: '{PLUGINS}/{name}.wasm', class: {draw.choice(['light', 'light', 'heavy'])}, "
        f"limits: {{ cpu: 1s }}, circuit: {{ failures: {failures} }} }}\n"
        for name in names
    )
    order = ", ".join(f"plugin/{name}" for name in names)
    return f"processors:\n{''.join(sections)}service: {{ pipelines: {{ traces: {{ processors: [{order}] }} }} }}\n"


def life(stand, draw):
    senders = stand.senders(OTLP, OTLP, items=draw.choice([1, 10, 100]), padding=100, otlp=with_secrets)
    senders += stand.senders(BULK, items=10)
    senders += stand.senders(TCP, items=40, pause=0.002)
    pause(draw.uniform(0.005, 0.3))
    stand.kill()
    ended(senders)


def search(state):
    """Fails when a file under `state` has the secret in it; returns how many bytes were searched."""
    searched = 0
    for path in (path for path in Path(state).rglob("*") if path.is_file()):
        size = path.stat().st_size
        if size:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
                at = content.find(SECRET)
                expect(at < 0, f"the secret is in {path} at {at}: {content[max(0, at - 100) : at + 20]!r}")
        searched += size
    return searched


def replay(stand):
    """Replays all dead letters, some at a time; returns how many there were."""
    letters = [0]

    def none_left():
        status, _, body = post(stand.metrics_port, "/api/v1/dlq/replay", json.dumps({"all": True}))
        expect(status == 200, lambda: f"a replay is answered {status}: {body[:300]}{stand.evidence()}")
        told = json.loads(body)
        expect(not told.get("failed"), lambda: f"a letter cannot be replayed: {told}{stand.evidence()}")
        letters[0] += told["replayed"]
        return not json.loads(stand.get("/api/v1/dlq")[1])["letters"]

    until(none_left, 60, "all dead letters are replayed", every=0.05)
    return letters[0]
