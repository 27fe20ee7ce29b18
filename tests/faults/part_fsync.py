"""The disk fails at writeback: `fdatasync` answers EIO although every write before it succeeded.

The log lies on ext4 in a sparse image on a tmpfs, and somebody fills the tmpfs: the file system has room, the device has not.
What cannot be made durable is never answered yes; the appliance says so under `/readyz?verbose` and ends with a code, so that
whoever supervises it starts it again. When the device is well and the file system is mounted again, it starts, and
everything acknowledged comes out.
"""

import random

from disks import fill, image, mount, tmpfs, unmount
from harness.scene import expect, until
from items import BULK, OTLP, TCP
from part_kill import pause
from side import side_by_side
from stand import Stand, ended

DISKS = {"ci": 4, "nightly": 20, "gate": 100}
TMPFS_MIB = 160
IMAGE_MIB = 512
# How long it holds on to what it has in memory before it ends, and time to notice on a machine that does other things.
HOLD_SECONDS = 30


def run(context):
    each = -(-context.count(DISKS) // 2)
    found = side_by_side(context, 2, lambda scene, seed, index: [fails(scene, f"{seed}/{turn}", turn) for turn in range(each)])
    done = [one for stand in found for one in stand]
    return (
        f"{len(done)} disks failed, {sum(one['ended'] for one in done)} ended with a code, 0 acknowledged lost of "
        f"{sum(one['acknowledged'] for one in done):,}, {sum(one['refused'] for one in done):,} requests refused"
    )


def fails(scene, seed, turn):
    draw = random.Random(seed)
    device = tmpfs(scene, f"device-{turn}", TMPFS_MIB)
    path = image(device / "disk.img", "ext4", IMAGE_MIB)
    where = mount(scene, path, f"disk-{turn}")
    stand = Stand(scene, name=f"stand-{turn}", state=where / "state", queue={"max_bytes": "256MiB"})
    stand.yaml = "service:\n  drain_timeout: 2s\n"
    stand.state.mkdir()
    stand.start()
    stand.sink.status = 503
    senders = stand.senders(OTLP, OTLP, items=100, padding=2000) + stand.senders(BULK, items=20)
    senders += stand.senders(TCP, items=40, pause=0.002)
    pause(draw.uniform(0.1, 0.5))
    filler = fill(device)
    until(lambda: refused(stand) > 5 or not stand.process.alive(), 60, lambda: f"it refuses: {stand.journal.answers}")
    told = set(stand.journal.answers) - {200, 429, 503}
    expect(not told, lambda: f"senders were answered {stand.journal.answers}")
    until(lambda: not stand.process.alive(), 5 * HOLD_SECONDS, lambda: f"it ends\n{stand.process.log()}", every=0.2)
    code = stand.process.popen.returncode
    expect(code > 0, lambda: f"it ended with {code}:\n{stand.process.log()}")
    ended(senders)
    stand.expect_no_damage()
    filler.unlink()
    unmount(where)
    mount(scene, path, f"disk-{turn}")
    stand.sink.status = 200
    stand.start()
    stand.collect()
    stand.kill()
    unmount(where)
    unmount(device)
    return {"ended": 1, "acknowledged": stand.journal.promised, "refused": refused(stand)}


def refused(stand):
    return sum(count for status, count in stand.journal.answers.items() if status in (429, 503))
