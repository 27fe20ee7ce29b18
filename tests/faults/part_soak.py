"""A steady load for long, before a backend that comes and goes: nothing grows.

After a warm-up of a third of the time, a line is laid through the anonymous memory: what it rises until the end is the leak.
Descriptors and threads are as many at the end as after the warm-up. When the load ends, everything acknowledged has come
out and every balance is 0. The configuration is asked to be read again now and then.
"""

import signal
import time
from pathlib import Path

from harness.scene import Scene, expect, until
from items import BULK, OTLP, TCP
from stand import Stand, ended

SECONDS = {"ci": 120, "nightly": 1_200, "gate": 7_200}
FLAP_SECONDS = 5
RELOAD_SECONDS = 20
# Of the whole time behind the warm-up; the allocator gives back in steps of some MiB.
RISE_MIB = 8


def run(context):
    scene = Scene("soak", context.parts, context.binary)
    try:
        return soak(scene, SECONDS[context.level])
    finally:
        scene.close()


def soak(scene, seconds):
    stand = Stand(scene)
    stand.start()
    started = time.monotonic()
    senders = stand.senders(OTLP, OTLP, items=50, padding=500, pause=0.005)
    senders += stand.senders(BULK, items=40, pause=0.005) + stand.senders(TCP, items=40, pause=0.005)
    samples, next_reload = [], RELOAD_SECONDS

    def over():
        nonlocal next_reload
        now = time.monotonic() - started
        expect(stand.process.alive(), lambda: f"it ended:\n{stand.process.log()}")
        stand.sink.status = 503 if int(now / FLAP_SECONDS) % 2 else 200
        samples.append((now, *footprint(stand.process.popen.pid)))
        if now > next_reload:
            next_reload += RELOAD_SECONDS
            stand.process.signal(signal.SIGHUP)
        # The promises that have come true are forgotten: this process must not grow either.
        came_true = stand.journal.acknowledged & stand.sink.seen
        stand.journal.settle(came_true)
        stand.sink.forget(came_true)
        return now > seconds

    until(over, seconds + 60, "the time is over", every=0.5)
    stand.sink.status = 200
    ended(senders)
    stand.collect(60)
    settled = [sample for sample in samples if sample[0] > seconds / 3]
    rise = slope(settled) * (settled[-1][0] - settled[0][0])
    expect(rise <= RISE_MIB, f"anonymous memory rose by {rise:.1f} MiB in {seconds * 2 // 3} s: {shown(settled)}")
    for place, name in ((2, "descriptors"), (3, "threads")):
        half = len(settled) // 2
        early, late = max(s[place] for s in settled[:half]), max(s[place] for s in settled[half:])
        # Segments of a backlog open and close with it; a thread more is one too many.
        slack = 12 if name == "descriptors" else 1
        expect(late <= early + slack, f"{late} {name}, {early} in the time before")
    return (
        f"{seconds} s, {stand.journal.promised:,} acknowledged, 0 lost, anonymous memory {settled[-1][1]:.1f} MiB, "
        f"{rise:+.1f} MiB along its line, {settled[-1][2]} descriptors, {settled[-1][3]} threads"
    )


def footprint(pid):
    """Anonymous MiB, open descriptors, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    anonymous = int(status["RssAnon"].split()[0]) + int(status["RssShmem"].split()[0])
    return anonymous / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"])


def slope(samples):
    """MiB a second, by least squares."""
    times, values = [sample[0] for sample in samples], [sample[1] for sample in samples]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    return sum((at - middle) * (value - mean) for at, value in zip(times, values)) / spread


def shown(samples):
    return ", ".join(f"{sample[1]:.1f}" for sample in samples[:: max(1, len(samples) // 12)])
