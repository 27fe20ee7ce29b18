"""One storage call fails, once: the n-th `fdatasync`, `pwrite64`, `rename` and so on of a thread answers an error.

strace answers in the kernel's place, at starts as well as under load. The appliance heals, or ends with a code that is not
0 and starts clean: it never panics, never hangs, and whatever it has acknowledged comes out after the next start. The seed
draws which calls fail, so that runs meet others.
"""

import itertools
import random
import shutil
import signal
import time

from harness.scene import Failed, Skip, expect, until
from items import BULK, OTLP, TCP
from part_kill import pause
from side import side_by_side
from stand import Stand, ended

FAULTS = {"ci": 60, "nightly": 2_000, "gate": 8_000}
STANDS = 3
# What the log does with files, and what a disk may answer. The loader opens files before us: its first calls are spared.
CALLS = {
    "fdatasync": 1, "fsync": 1, "pwrite64": 1, "pwritev": 1, "pread64": 2, "fallocate": 1, "openat": 25, "rename,renameat,renameat2": 1,
    "unlink,unlinkat": 1, "madvise": 1, "ftruncate": 1, "fadvise64": 1, "statfs,fstatfs": 1, "mkdir,mkdirat": 1, "mmap": 30,
}  # fmt: skip
ERRORS = ["EIO", "ENOSPC", "EINTR", "EDQUOT"]
FIRST_CALLS = 200


def run(context):
    if not shutil.which("strace"):
        raise Skip("strace is not installed")
    each = -(-context.count(FAULTS) // STANDS)
    chosen = plan(each * STANDS, context.seed)
    found = side_by_side(
        context, STANDS, lambda scene, seed, index: faults(scene, seed, chosen[index * each : (index + 1) * each])
    )
    healed, ends = sum(one["healed"] for one in found), sum(one["ended"] for one in found)
    return (
        f"{len(chosen)} faults, {sum(one['met'] for one in found)} met, {healed} healed, {ends} ended and started clean, "
        f"0 acknowledged lost of {sum(one['acknowledged'] for one in found):,}"
    )


def plan(count, seed):
    """As many faults as asked for, drawn from all."""
    every = list(itertools.product(CALLS, ERRORS, range(FIRST_CALLS)))
    # Low numbers first: most threads make few calls of a kind.
    weights = [(1 + number) ** -1.5 for _, _, number in every]
    return random.Random(seed).choices(every, weights, k=count)


def faults(scene, seed, chosen):
    draw = random.Random(seed)
    stand = Stand(scene, queue={"max_bytes": "48MiB"})
    done = {"met": 0, "healed": 0, "ended": 0}
    traced = scene.path("strace")
    for call, error, number in chosen:
        when = CALLS[call] + number
        stand.wrapper = [
            "strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", traced, "-e", f"trace={call}", "-e", "signal=none",
            "-e", f"inject={call}:error={error}:when={when}",
        ]  # fmt: skip
        traced.unlink(missing_ok=True)
        try:
            outcome = one(stand, draw)
            stand.expect_no_damage()
            stand.wrapper = []
            stand.start()
            stand.collect()
            took = stand.terminate(15)
        except Failed as failure:
            raise Failed(f"{call} number {when} with {error}: {failure}") from None
        expect(took < 10, f"{call} number {when} with {error}: {took:.1f} s to stop")
        done[outcome] += 1
        done["met"] += "(INJECTED)" in traced.read_text(errors="replace")
    return {**done, "acknowledged": stand.journal.promised}


def one(stand, draw):
    """A life in which the call fails: `healed` when it went on to be stopped, `ended` when it ended by itself."""
    stand.start(wait=False)
    until(lambda: not stand.process.alive() or is_ready(stand), 30, lambda: f"it is ready or over\n{stand.process.log()}")
    if not stand.process.alive():
        return over(stand)
    senders = stand.senders(OTLP, OTLP, items=50, padding=2000)
    senders += stand.senders(BULK, items=20) + stand.senders(TCP, items=40, pause=0.002)
    pause(draw.uniform(0.1, 0.3))
    for sender in senders:
        sender.end()
    ends_at = time.monotonic() + 20
    stand.process.signal(signal.SIGTERM)
    until(lambda: not stand.process.alive(), 20, lambda: f"it ends\n{stand.process.log()}")
    expect(time.monotonic() < ends_at, "it hangs")
    ended(senders)
    return over(stand) if stand.process.popen.returncode != 0 else "healed"


def over(stand):
    """It ended by itself: with a code, not by a signal."""
    code = stand.process.popen.wait()
    expect(code > 0, lambda: f"it ended with {code}:\n{stand.process.log()}")
    return "ended"


def is_ready(stand):
    try:
        return stand.get("/readyz")[0] == 200
    except OSError:
        return False
