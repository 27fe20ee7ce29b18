"""The disk is full: before the start, while segments are made, under load, with dead letters to keep.

On a tmpfs and on ext4, for each policy: senders that can be told are told 503 or 429, the others are slowed or dropped and
counted; an optional destination gives up what it lags behind. Nothing crashes, what was acknowledged comes out, and when
there is room again everything goes on without a restart. Dropped is exactly what is missing.
"""

import random

from disks import fill, image, mount, room, tmpfs
from harness.scene import expect, until
from items import BULK, OTLP, TCP
from part_kill import pause
from stand import Stand, ended

ROUNDS = {"ci": 1, "nightly": 5, "gate": 50}
SIZE_MIB = 96
OPTIONAL = "    required: false\n    max_lag: 12MiB\n"


def run(context):
    from side import side_by_side

    cases = [(disk, policy) for disk in ("tmpfs", "ext4") for policy in ("block", "drop_newest", "optional")]
    found = side_by_side(
        context,
        2,
        lambda scene, seed, index: [
            case(scene, f"{seed}/{turn}", *one, turn)
            for turn in range(context.count(ROUNDS))
            for one in cases[index::2]
        ],
    )
    done = [one for of_stand in found for one in of_stand]
    return (
        f"{len(done)} disks filled, 0 crashes, {sum(one['refused'] for one in done):,} requests told to come again, "
        f"{sum(one['dropped'] for one in done):,.0f} spans dropped and counted, 0 acknowledged lost of "
        f"{sum(one['acknowledged'] for one in done):,}"
    )


def case(scene, seed, disk, policy, turn):
    draw = random.Random(seed)
    name = f"{disk}-{policy}-{turn}"
    where = tmpfs(scene, name, SIZE_MIB) if disk == "tmpfs" else mount(scene, image(scene.path(f"{name}.img"), disk, SIZE_MIB), name)
    state = where / "state"
    state.mkdir()
    stand = Stand(scene, name=f"stand-{name}", state=state, queue={"max_bytes": "512MiB", "reserve_bytes": "1MiB"})
    stand.exporters += OPTIONAL if policy == "optional" else ""
    stand.admission = "drop_newest" if policy == "drop_newest" else "block"
    full_before_the_start(stand, where)
    stand.sink.status = 503
    for part in range(2):
        fill_under_load(stand, where, draw, leave=(0, 5 << 20)[part])
    alive(stand)
    stand.sink.status = 200
    dropped = recovered(stand, policy)
    stand.kill()
    return {"acknowledged": stand.journal.promised, "refused": refusals(stand), "dropped": dropped}


def full_before_the_start(stand, where):
    """With no room at all a start may fail, but with a code and a reason; with room again it must not."""
    filler = fill(where)
    stand.start(wait=False)
    until(lambda: not stand.process.alive() or answers(stand), 20, "it is ready or over")
    if stand.process.alive():
        stand.kill()
    else:
        code = stand.process.popen.wait()
        expect(code > 0, lambda: f"it ended with {code}:\n{stand.process.log()}")
    filler.unlink()
    stand.start()


def fill_under_load(stand, where, draw, leave):
    """Somebody takes the rest of the disk while the backend is down and senders go on."""
    before = refusals(stand)
    senders = stand.senders(OTLP, OTLP, items=100, padding=4000)
    senders += stand.senders(BULK, items=40) + stand.senders(TCP, items=40, pause=0.001)
    pause(draw.uniform(0.05, 0.3))
    filler = fill(where, leave)
    if "required: false" not in stand.exporters:
        until(lambda: refusals(stand) > before + 20, 30, lambda: f"senders are refused: {stand.journal.answers}")
    else:
        pause(0.5)
    stand.send_lines(b"not a row\n" * 200)
    told = set(stand.journal.answers) - {200, 429, 503}
    expect(not told, lambda: f"senders were answered {stand.journal.answers}")
    alive(stand)
    filler.unlink()
    promised = stand.journal.promised
    until(lambda: stand.journal.promised > promised + 100 or room(where) < 12 << 20, 30, "it takes more once there is room")
    ended(senders)


def recovered(stand, policy):
    """Everything acknowledged comes out, but what an optional destination gave up: exactly as much as it says."""
    if policy != "optional":
        stand.collect(90)
        return stand.total("millrace_lane_spans_total", outcome="refused")
    until(lambda: stand.total("millrace_destination_in_queue_spans") == 0, 60, "the log is empty")
    stand.settle()
    stand.expect_no_damage()
    dropped = stand.total("millrace_destination_dropped_spans_total")
    left = stand.journal.settle(stand.sink.seen)
    expect(left <= dropped, f"{left} acknowledged are missing, {dropped:.0f} were dropped")
    return dropped


def alive(stand):
    expect(stand.process.alive(), lambda: f"it ended with {stand.process.popen.poll()}:\n{stand.process.log()}")
    stand.expect_no_damage()


def refusals(stand):
    return sum(count for status, count in stand.journal.answers.items() if status in (429, 503))


def answers(stand):
    try:
        return stand.get("/livez")[0] == 200
    except OSError:
        return False
