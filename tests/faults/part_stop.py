"""SIGTERM at any moment, under load, twice, and while it starts: code 0, in time, and everything taken comes out.

Taken is what was answered yes, and every line of a connection that the appliance had read to its end and closed before the
signal. With a backend that is well the log is empty at the end or the rest comes out after the next start; with one that
refuses, the time of the drain is over first. What was made durable must be so within 3 s.
"""

import random
import signal
import socket
import threading
import time

from harness.scene import expect, until
from items import BULK, OTLP, TCP, lines
from part_kill import balanced, pause
from side import side_by_side
from stand import Stand, ended

STOPS = {"ci": 40, "nightly": 200, "gate": 2_000}
STANDS = 2
DRAIN_SECONDS = 1
DURABLE_SECONDS = 3
COLLECT_EVERY = 10


def run(context):
    each = -(-context.count(STOPS) // STANDS)
    found = side_by_side(context, STANDS, lambda scene, seed, index: stops(scene, seed, index, each))
    took = sorted(second for one in found for second in one["took"])
    return (
        f"{len(took)} stops, code 0 each, 0 taken lost of {sum(one['taken'] for one in found):,} "
        f"({sum(one['rows'] for one in found):,} of them lines), p50 {took[len(took) // 2] * 1e3:.0f} ms max {took[-1]:.2f} s"
    )


class Rows(threading.Thread):
    """Sends lines on one connection after another; what was read to its end before `stopping` counts as taken."""

    def __init__(self, stand):
        super().__init__(daemon=True)
        self.stand = stand
        self.taken = 0

    def run(self):
        journal = self.stand.journal
        try:
            while not journal.stopping.is_set():
                numbers = journal.take(TCP, 40)
                with socket.create_connection(("127.0.0.1", self.stand.tcp), timeout=10) as connection:
                    connection.sendall(lines(numbers))
                    connection.shutdown(socket.SHUT_WR)
                    if connection.recv(1) == b"" and not journal.stopping.is_set():
                        journal.promise(TCP, numbers)
                        self.taken += len(numbers)
        except OSError:
            pass


def stops(scene, seed, index, count):
    draw = random.Random(seed)
    stand = Stand(scene)
    stand.yaml = f"service:\n  drain_timeout: {DRAIN_SECONDS}s\n"
    stand.journal.stopping = threading.Event()
    took, rows = [], 0
    for number in range(1, count + 1):
        stand.sink.status = draw.choice([200, 200, 503])
        stand.journal.stopping.clear()
        senders = []
        if draw.random() < 1 / 6:
            stand.start(wait=False)
            pause(draw.uniform(0.02, 0.1))
        else:
            stand.start()
            balanced(stand)
            senders = stand.senders(OTLP, OTLP, items=draw.choice([10, 100]), padding=500)
            senders += stand.senders(BULK, items=20)
            lines_senders = [Rows(stand) for _ in range(2)]
            for sender in lines_senders:
                sender.start()
            pause(draw.uniform(0.005, 0.3))
        took.append(stopped(stand, draw, early=not senders))
        if senders:
            ended(senders)
            for sender in lines_senders:
                sender.join(15)
                rows += sender.taken
        stand.expect_no_damage()
        if number % COLLECT_EVERY == 0 or number == count:
            stand.sink.status = 200
            stand.start()
            stand.collect()
            stand.terminate(10)
    return {"took": took, "taken": stand.journal.promised, "rows": rows}


def stopped(stand, draw, early):
    """Asks for the end once or twice; the seconds until it came."""
    stand.journal.stopping.set()
    twice = draw.random() < 0.3
    before = time.monotonic()
    stand.process.signal(signal.SIGTERM)
    if twice:
        pause(draw.uniform(0, 0.1))
        stand.process.signal(signal.SIGTERM)
    until(lambda: not stand.process.alive(), 15, lambda: f"it ends\n{stand.process.log()}", every=0.002)
    took = time.monotonic() - before
    code = stand.process.popen.returncode
    # Before the first instructions that set handlers a signal ends any process.
    allowed = (0, -signal.SIGTERM) if early else (0,)
    expect(code in allowed, lambda: f"code {code}:\n{stand.process.log()}")
    limit = DURABLE_SECONDS if twice or stand.sink.status == 200 else DURABLE_SECONDS + DRAIN_SECONDS
    expect(took <= limit, lambda: f"{took:.2f} s to stop, at most {limit}:\n{stand.process.log()}")
    return took
