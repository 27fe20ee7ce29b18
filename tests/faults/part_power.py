"""A power cut on a real file system: the image of the disk as it is at one moment, mounted by its journal and started on.

The log lies on ext4, xfs or btrfs in an image that itself lies on a file system with reflinks: one call copies it while the
appliance writes, as a disk would be after the cut, with everything that was written to the device and nothing of what was
only in memory. What was acknowledged before the copy and had not come out by then must come out of the copy.
`queue.ack: appended` promises less, and must be caught at it: one image of each run shows that losses are seen.
"""

import random
import shutil

from disks import command, image, mount, need_root, unmount
from harness.scene import Skip, expect, until
from items import BULK, OTLP, TCP
from part_kill import pause
from side import side_by_side
from stand import Stand, ended

IMAGES = {"ci": 30, "nightly": 120, "gate": 500}
SIZE_MIB = 320
IMAGES_A_LIFE = 3


def run(context):
    need_root()
    kinds = [kind for kind in ("ext4", "xfs", "btrfs") if shutil.which(f"mkfs.{kind}")]
    if "xfs" not in kinds:
        raise Skip("mkfs.xfs, for a file system with reflinks, is not installed")
    lives = -(-context.count(IMAGES) // IMAGES_A_LIFE)
    plan = [(kinds[number % len(kinds)], number // len(kinds) % 2 == 1) for number in range(lives)]
    found = side_by_side(context, 2, lambda scene, seed, index: power(scene, seed, index, plan[index::2]))
    images = [one for stand in found for one in stand["images"]]
    lost = sum(stand["planted"] for stand in found)
    expect(lost > 0, "acknowledged on append: no loss was seen, so none would be")
    return (
        f"{len(images)} images ({', '.join(kinds)}; fresh and recycled segments), 0 acknowledged lost of "
        f"{sum(image['owed'] for image in images):,} owed; {lost:,} seen lost when acknowledged on append"
    )


def power(scene, seed, index, plan):
    draw = random.Random(seed)
    host = mount(scene, image(scene.path("host.img"), "xfs", 4096), "host")
    images = []
    for number, (kind, recycled) in enumerate(plan):
        images += life(scene, draw, host, f"{kind}-{number}", kind, recycled, ack="durable")
    planted = sum(image["lost"] for image in life(scene, draw, host, "planted", "ext4", False, ack="appended"))
    return {"images": images, "planted": planted}


def life(scene, draw, host, name, kind, recycled, ack):
    """One life on a fresh file system and some cuts in it; what each image owed and lost."""
    path = image(host / f"{name}.img", kind, SIZE_MIB)
    where = mount(scene, path, name)
    queue = {"max_bytes": "192MiB", "ack": ack}
    stand = Stand(scene, name=f"stand-{name}", state=where / "state", queue=queue)
    stand.state.mkdir()
    stand.start()
    senders = stand.senders(OTLP, OTLP, items=50, padding=1000) + stand.senders(BULK, items=20)
    senders += stand.senders(TCP, items=40, pause=0.005)
    if recycled:
        until(lambda: recycles(stand) >= 3, 30, "segments are used again")
    stand.sink.status = 503
    cuts = []
    for number in range(IMAGES_A_LIFE):
        pause(draw.uniform(0.05, 0.4))
        with stand.journal.lock, stand.sink.lock:
            owed = stand.journal.acknowledged - stand.sink.seen
        copy = host / f"{name}-{number}.img"
        command("cp", "--reflink=always", path, copy)
        cuts.append((copy, owed))
    stand.kill()
    ended(senders)
    stand.expect_no_damage()
    unmount(where)
    path.unlink()
    return [cut(scene, copy, kind, owed, queue) for copy, owed in cuts]


def cut(scene, copy, kind, owed, queue):
    """Mounts the image, starts on it, and counts what does not come out."""
    where = mount(scene, copy, copy.stem, "loop,nouuid" if kind == "xfs" else "loop")
    stand = Stand(scene, name=f"cut-{copy.stem}", state=where / "state", queue=queue)
    stand.start()
    stand.settle(60)
    lost = len(owed - stand.sink.seen)
    durable = queue["ack"] == "durable"
    expect(lost == 0 or not durable, lambda: f"{copy.stem}: {lost} of {len(owed)} acknowledged are lost{stand.evidence()}")
    wrong = stand.sink.wrong + stand.sink.undecodable
    expect(not wrong, lambda: f"{copy.stem}: delivered damaged: {wrong[:3]}")
    stand.kill()
    unmount(where)
    copy.unlink()
    return {"owed": len(owed), "lost": lost}


def recycles(stand):
    """How often segments went round: the highest number of a segment over those there are."""
    names = [int(path.stem.removeprefix("seg-"), 16) for path in (stand.state / "log").glob("lane-*/seg-*.log")]
    return max(names, default=0) - 4
