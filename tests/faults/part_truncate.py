"""Another process truncates log files under load: the appliance lives, and counts exactly what is gone.

Active and sealed segments are cut at random lengths, with the backend up or down, under both storages. Afterwards every
acknowledged item has come out or is among the spans counted as lost or kept as dead letters, every balance is 0, and the
process is the one that was started. Every fifth time it is killed behind the cut, so that recovery reads the file too: it
never refuses to start. What was cut off then cannot be counted, for the marks that counted it were cut off with it.
"""

import os
import random

from harness.scene import expect, until
from items import BULK, OTLP, TCP
from part_kill import pause
from side import side_by_side
from stand import Stand, ended

CUTS = {"ci": 20, "nightly": 100, "gate": 500}
STANDS = 2


def run(context):
    each = -(-context.count(CUTS) // STANDS)
    found = side_by_side(context, STANDS, lambda scene, seed, index: cuts(scene, seed, index, each))
    return (
        f"{sum(one['cuts'] for one in found)} truncations of {sum(one['bytes'] for one in found) >> 20} MiB, 0 crashes, "
        f"{sum(one['lost'] for one in found):,.0f} spans counted as lost, "
        f"{sum(one['missing'] for one in found):,} of {sum(one['acknowledged'] for one in found):,} acknowledged among them"
    )


def cuts(scene, seed, index, count):
    draw = random.Random(seed)
    stand = another(scene, None, index, 0)
    done, cut_bytes, lost, counted, missing, acknowledged = 0, 0, 0, 0, 0, 0
    while done < count:
        stand.sink.status = draw.choice([200, 503])
        senders = stand.senders(OTLP, OTLP, items=100, padding=2000)
        senders += stand.senders(BULK, items=10) + stand.senders(TCP, items=40, pause=0.002)
        pause(draw.uniform(0.05, 0.4))
        cut_bytes += cut_one(stand, draw)
        pause(draw.uniform(0.0, 0.1))
        done += 1
        if done % 5 == 0:
            stand.kill()
            ended(senders)
            stand.start()
            stand = another(scene, stand, index, done)
            lost = 0
            continue
        ended(senders)
        expect(stand.process.alive(), lambda: f"it ended with {stand.process.popen.poll()}:\n{stand.process.log()}")
        stand.sink.status = 200
        # What is gone is known by the next commit-mark, so something has to be appended behind it, in every lane.
        until(lambda: appended_everywhere(stand), 20, "every lane has appended something behind the cut")
        until(lambda: is_empty(stand), 60, lambda: f"the log is empty{stand.evidence()}", every=0.01)
        stand.settle()
        gone = stand.total("millrace_destination_spans_total", outcome="lost")
        gone += stand.total("millrace_destination_spans_total", outcome="dead_lettered")
        left = stand.journal.settle(stand.sink.seen)
        expect(not stand.sink.wrong, lambda: f"delivered damaged: {stand.sink.wrong[:3]}{stand.evidence()}")
        expect(left <= gone - lost, lambda: f"{left} acknowledged are missing, {gone - lost:.0f} counted{stand.evidence()}")
        missing, acknowledged = missing + left, acknowledged + len(stand.sink.seen)
        counted, lost = counted + gone - lost, gone
        stand.journal.acknowledged.clear()
        stand.sink.seen.clear()
    return {"cuts": done, "bytes": cut_bytes, "lost": counted, "missing": missing, "acknowledged": acknowledged}


def another(scene, before, index, done):
    """A stand with a directory of its own, in the place of one whose log was destroyed."""
    if before:
        expect(before.process.alive(), lambda: f"it does not start over what was cut off:\n{before.process.log()}")
        before.kill()
    stand = Stand(scene, name=f"stand-{done}", queue={"storage": ("mmap", "file")[index % 2]})
    stand.start()
    return stand


def cut_one(stand, draw):
    """Truncates a segment: the newest of a lane, or any."""
    segments = sorted((stand.state / "log").glob("lane-*/seg-*.log"))
    lane = draw.choice(sorted({path.parent for path in segments}))
    segments = [path for path in segments if path.parent == lane]
    # The newest but one is the active segment more often than not: the newest is the spare.
    path = draw.choice([*segments, *segments[-2:], *segments[-2:]])
    try:
        size = path.stat().st_size
        to = draw.choice([0, 4096, draw.randrange(size + 1), draw.randrange(min(size, 1 << 20) + 1)])
        os.truncate(path, to)
    except FileNotFoundError:
        return 0  # it was recycled under our hands
    return size - to


def appended_everywhere(stand):
    """Sends on new connections, which reach any lane, and more than the pages that may read as zeros from now on; whether
    all lanes have appended since the look before."""
    before = lanes(stand)
    tries = [sender for _ in range(8) for sender in stand.senders(OTLP, items=100, padding=2000)]
    until(lambda: all(sender.requests for sender in tries), 10, "every request is answered")
    ended(tries)
    return all(after > before[lane] for lane, after in lanes(stand).items())


def lanes(stand):
    return {
        labels["lane"]: value for name, labels, value in stand.metrics() if name == "millrace_lane_appended_blocks_total"
    }


def is_empty(stand):
    expect(stand.process.alive(), lambda: f"it ended with {stand.process.popen.poll()}:\n{stand.process.log()}")
    return stand.total("millrace_destination_in_queue_spans") == 0
