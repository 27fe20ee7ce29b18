"""One appliance under faults: the real binary on a directory of its choice, with a sink behind it and senders before it."""

import re
import shutil
import tempfile
import time
from pathlib import Path

from harness.appliance import Appliance
from harness.scene import Failed, expect, until
from load import Journal, Sender
from sink import Sink

# What the log says of damage; nobody damaged anything unless the part says so.
DAMAGE = re.compile(r"parts of the log were damaged|cursor was damaged|are lost|panicked|a broken invariant")

# A backend that is well again is to be noticed soon.
RETRY = "    retry_on_failure: { initial_interval: 50ms, max_interval: 200ms }\n"


class Stand(Appliance):
    """`Appliance` with small segments, a small budget, a sink and a journal."""

    def __init__(self, scene, name="stand", state=None, queue=None, sink=None, **env):
        self.sink = sink or Sink()
        self.journal = Journal()
        scene.closing.append(self.sink.close)
        super().__init__(scene, name, OTEL_EXPORTER_OTLP_ENDPOINT=self.sink.url, **env)
        self.state = state or self.state
        self.queue = {"segment_bytes": "4MiB", "max_bytes": "64MiB", "pool_segments": "2", "reserve_bytes": "16MiB"}
        self.queue.update(queue or {})
        self.exporters = f"exporters:\n  otlphttp:\n{RETRY}"

    def start(self, wait=True):
        """Starts it; returns the seconds until it was ready."""
        before = time.monotonic()
        super().start(wait)
        return time.monotonic() - before

    def senders(self, *kinds, **how):
        """Starts a sender of each kind."""
        ports = (self.otlp, self.bulk, self.tcp)
        started = [Sender(self.journal, ports[kind], kind, **how) for kind in kinds]
        for sender in started:
            sender.start()
        return started

    def expect_no_damage(self):
        """Nothing of the kind was said by this life, and nothing came out that was not put in."""
        said = [line for line in self.process.log(1000).splitlines() if DAMAGE.search(line)]
        expect(not said, lambda: f"it says: {said[:3]}")
        wrong = self.sink.wrong + self.sink.undecodable
        expect(not wrong, lambda: f"delivered damaged: {wrong[:3]}")
        foreign = self.journal.never_sent(self.sink.seen)
        expect(not foreign, lambda: f"delivered and never sent: {foreign[:3]}")

    def evidence(self):
        """What a failure is found by: the ledger, the log of this life, and the files of the state directory, kept."""
        kept = Path(tempfile.mkdtemp(prefix="millrace-evidence-"))
        try:
            shutil.copytree(self.state, kept / "state")
        except shutil.Error:
            pass  # what was recycled while it was copied
        ledger = [f"{name}{labels} {value:.0f}" for name, labels, value in self.metrics() if "_spans" in name and value]
        return "\n".join(["", *ledger, self.process.log(30), f"state kept in {kept}"])

    def collect(self, seconds=60):
        """Waits until everything promised has come out and every balance is 0; then forgets it."""
        left = [0]

        def all_there():
            left[0] = self.journal.settle(self.sink.seen)
            return left[0] == 0

        until(all_there, seconds, lambda: f"{left[0]} acknowledged items are missing\n{self.process.log()}", every=0.01)
        self.settle()
        self.expect_no_damage()
        self.sink.seen.clear()


def ended(senders, seconds=25):
    """Tells senders to end and waits for them."""
    for sender in senders:
        sender.end()
    for sender in senders:
        sender.join(seconds)
        if sender.is_alive():
            raise Failed("a sender hangs")
