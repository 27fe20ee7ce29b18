"""A steady load for long, before a backend that comes and goes: nothing grows, and a bad backend gets few retries.

First the log is filled and drained once, so that whatever a backlog needs is there before anything is measured. Then the
time is cut in halves: the second has no more anonymous memory, threads or descriptors of any kind than the first. Segments
of a backlog are opened and closed with it, and the index of a log is opened with its first full segment, for dead letters
after an hour: the descriptors of these have bounds. When the load ends, everything
acknowledged has come out and every balance is 0. The configuration is asked to be read again now and then.
"""

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

from harness.scene import Scene, expect, until
from items import BULK, OTLP, TCP
from stand import Stand, ended

SECONDS = {"ci": 120, "nightly": 1_200, "gate": 7_200}
FLAP_SECONDS = 5
RELOAD_SECONDS = 20
# In two minutes a lane's ring may be met fuller than ever before: it holds some MiB of lines. In more time it has been.
RISE_MIB = {"ci": 5, "nightly": 2, "gate": 2}
# As many files as the budget has, and those that a request still reads; the logs of two lanes and two stores of dead letters.
MOST = {"segment": 16 + 4, "index": 4}
# Connections that are closed while others are made: of the senders, and of requests.
MORE_SOCKETS = 8
# In each time that the backend is down: the requests under way as it goes, the few that open the breaker, and its probes.
MOST_FAILED = 10


def run(context):
    scene = Scene("soak", context.parts, context.binary)
    try:
        return soak(scene, context.count(SECONDS), RISE_MIB[context.level])
    finally:
        scene.close()


def soak(scene, seconds, rise_mib):
    stand = Stand(scene)
    stand.start()
    load = Load(stand)
    fill_and_drain(stand, load)
    started, next_reload = time.monotonic(), RELOAD_SECONDS
    before = requests(stand)
    samples = []

    def over():
        nonlocal next_reload
        now = time.monotonic() - started
        stand.sink.status = 503 if int(now / FLAP_SECONDS) % 2 else 200
        load.goes_on()
        samples.append(Sample(now, stand.process.popen.pid))
        if now > next_reload:
            next_reload += RELOAD_SECONDS
            stand.process.signal(signal.SIGHUP)
        return now > seconds

    until(over, seconds + 60, "the time is over", every=0.5)
    stand.sink.status = 200
    load.end()
    stand.collect(60)
    accepted, failed = (after - early for after, early in zip(requests(stand), before))
    outages = seconds / (2 * FLAP_SECONDS)
    expect(failed <= MOST_FAILED * outages, f"{failed:.0f} requests failed in {outages:.0f} outages")
    rise = compare(samples, rise_mib)
    last = samples[-1]
    return (
        f"{seconds} s, {stand.journal.promised:,} acknowledged, 0 lost, imbalance 0, {failed / outages:.1f} requests failed "
        f"in each of {outages:.0f} outages beside {accepted:,.0f} accepted, anonymous memory {last.anonymous:.1f} MiB, "
        f"{rise:+.1f} MiB from half to half, "
        f"{last.others.total()} descriptors beside {last.bounded['segment']} of segments, {last.threads} threads"
    )


class Load:
    """Senders of every kind; one whose connection was closed, because the log was full, comes again."""

    def __init__(self, stand):
        self.stand = stand
        self.senders = stand.senders(OTLP, OTLP, items=50, padding=500, pause=0.005)
        self.senders += stand.senders(BULK, TCP, items=40, pause=0.005)

    def goes_on(self):
        stand = self.stand
        expect(stand.process.alive(), lambda: f"it ended:\n{stand.process.log()}")
        gone = [sender for sender in self.senders if not sender.is_alive()]
        expect(all(sender.kind == TCP for sender in gone), "a request was not answered")
        self.senders = [sender for sender in self.senders if sender.is_alive()]
        self.senders += stand.senders(*(sender.kind for sender in gone), items=40, pause=0.005)
        # The promises that have come true are forgotten: this process must not grow either.
        came_true = stand.journal.acknowledged & stand.sink.seen
        stand.journal.settle(came_true)
        stand.sink.forget(came_true)

    def end(self):
        ended(self.senders)


def fill_and_drain(stand, load):
    """Until every lane has held back lines for so long that it closed their connections: more is never in memory."""
    lines = stand.senders(*[TCP] * 16, items=40)

    def is_full():
        load.goes_on()
        return stand.journal.refused > 0 and not any(sender.is_alive() for sender in lines)

    def is_drained():
        load.goes_on()
        return stand.total("millrace_disk_used_bytes") <= stand.total("millrace_disk_max_bytes") / 2

    stand.sink.status = 503
    until(is_full, 90, "the log is full, and lines are refused", every=0.1)
    stand.sink.status = 200
    until(is_drained, 90, "the log is drained", every=0.5)


def requests(stand):
    """Requests that the backend has accepted, and that failed."""
    return [stand.total("millrace_destination_requests_total", outcome=outcome) for outcome in ("accepted", "failed")]


class Sample:
    """What the process has at one moment: anonymous MiB, descriptors by kind, threads."""

    def __init__(self, now, pid):
        self.now = now
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        self.anonymous = (int(status["RssAnon"].split()[0]) + int(status["RssShmem"].split()[0])) / 1024
        self.threads = int(status["Threads"])
        self.others = Counter(filter(None, map(kind, Path(f"/proc/{pid}/fd").iterdir())))
        self.bounded = {name: self.others.pop(name, 0) for name in MOST}


def kind(descriptor):
    """What it is a descriptor of, by name and without numbers; `None` when it was closed meanwhile."""
    try:
        name = Path(os.readlink(descriptor)).name
    except OSError:
        return None
    return "segment" if re.match(r"(seg|free)-[0-9a-f]+", name) else re.sub(r"\d+", "", name)


def compare(samples, rise_mib):
    """The second half against the first; the MiB by which the most of its memory is more."""
    half = len(samples) // 2
    halves = samples[:half], samples[half:]
    grown = []
    for name in sorted({name for sample in samples for name in sample.others}):
        slack = MORE_SOCKETS if name.startswith("socket") else 0
        early, late = (most_held(sample.others[name] for sample in part) for part in halves)
        if late > early + slack:
            grown.append(f"{late} descriptors of {name}, {early} in the first half")
    for name, bound in MOST.items():
        held = most_held(sample.bounded[name] for sample in samples)
        if held > bound:
            grown.append(f"{held} descriptors of {name}, more than {bound}")
    early, late = (most_held(sample.threads for sample in part) for part in halves)
    if late > early:
        grown.append(f"{late} threads, {early} in the first half")
    early, late = (max(sample.anonymous for sample in part) for part in halves)
    shown = ", ".join(f"{sample.anonymous:.1f}" for sample in samples[:: max(1, len(samples) // 12)])
    if late > early + rise_mib:
        grown.append(f"anonymous memory rose by {late - early:.1f} MiB")
    expect(not grown, f"{'; '.join(grown)}; anonymous MiB over the time: {shown}")
    return late - early


def most_held(counts):
    """The most that was there at three looks in a row: what is open for a moment, a file that is replaced by another or a
    directory that is synced, is seen at one."""
    counts = list(counts)
    return max((min(three) for three in zip(counts, counts[1:], counts[2:])), default=0)
