"""kill -9 at any moment: what was answered yes comes out after the next start, and nothing else does.

Several appliances run side by side, half of them on a memory file system, where syncs cost nothing and the moments fall
elsewhere. Each is started over its own directory again and again, loaded over every door, and killed 5 to 200 ms after it
was ready; one life in eight is killed while it recovers. The backend refuses in some lives, so that logs grow, fill up and
are recycled. After each recovery, before anything is sent, every balance must be 0.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

from harness.scene import expect, until
from items import BULK, OTLP, TCP
from side import side_by_side
from stand import Stand, ended

LIVES = {"ci": 300, "nightly": 1_000, "gate": 20_000}
STANDS = 4
COLLECT_EVERY = 25
INFLUX = "  influxdb: {{ endpoint: 'http://127.0.0.1:{port}', max_lag: 8MiB, required: false }}\n"


def run(context):
    each = -(-context.count(LIVES) // STANDS)
    found = side_by_side(context, STANDS, lambda scene, seed, index: lives(scene, seed, index, each))
    starts = sorted(start for one in found for start in one["starts"])
    slowest = starts[-1]
    expect(slowest <= 2, f"a start took {slowest:.1f} s")
    return (
        f"{sum(one['kills'] for one in found)} kills, 0 acknowledged lost, "
        f"{sum(one['acknowledged'] for one in found):,} acknowledged, {sum(one['refused'] for one in found):,} refused, "
        f"restart p50 {statistics.median(starts) * 1e3:.0f} ms p99 {starts[len(starts) * 99 // 100] * 1e3:.0f} ms "
        f"max {slowest * 1e3:.0f} ms"
    )


def lives(scene, seed, index, count):
    draw = random.Random(seed)
    memory = Path("/dev/shm")
    state = None
    if index % 2 and memory.is_dir():
        directory = tempfile.TemporaryDirectory(prefix="millrace-kill-", dir=memory)
        scene.closing.append(directory.cleanup)
        state = Path(directory.name)
    stand = Stand(scene, state=state, queue={"max_bytes": "32MiB", "storage": ("mmap", "file")[index // 2 % 2]})
    if index == 0:
        stand.exporters += INFLUX.format(port=stand.sink.port)
    starts, kills = [], 0
    while kills < count:
        stand.sink.status = draw.choice([200, 200, 200, 503])
        if draw.random() < 1 / 8:
            stand.start(wait=False)
            pause(draw.uniform(0.0, 0.06))
        else:
            starts.append(stand.start())
            balanced(stand)
            life(stand, draw)
        stand.kill()
        kills += 1
        stand.expect_no_damage()
        if kills % COLLECT_EVERY == 0 or kills == count:
            stand.sink.status = 200
            starts.append(stand.start())
            stand.collect()
            stand.kill()
    return {"starts": starts, "kills": kills, "acknowledged": stand.journal.promised, "refused": stand.journal.refused}


def life(stand, draw):
    heavy = draw.random() < 0.2
    senders = stand.senders(OTLP, OTLP, items=100 if heavy else 10, padding=2000 if heavy else 100)
    senders += stand.senders(BULK, items=draw.choice([1, 10, 40]))
    senders += stand.senders(TCP, items=40, pause=0.002)
    pause(draw.uniform(0.005, 0.2))
    stand.kill()
    ended(senders)


def balanced(stand):
    """Before anything is sent the balances are those of the recovered log: 0, as soon as the first turns are over."""
    off = []

    def zero():
        off[:] = [(name, value) for name, _, value in stand.metrics() if "_imbalance_" in name and value != 0]
        return not off

    until(zero, 5, lambda: f"the balances are 0 after recovery: {off}{stand.evidence()}", every=0.002)


def pause(seconds):
    """The moment of the fault is drawn, not waited for."""
    time.sleep(seconds)
