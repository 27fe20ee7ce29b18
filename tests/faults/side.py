"""Several scenes side by side, each in a process of its own: a test that waits for disks has time for another."""

import multiprocessing
import signal
import traceback

from harness.scene import Failed, Scene


def side_by_side(context, count, body):
    """Runs `body(scene, seed, index)` in `count` processes and returns what each returned; the first failure fails all."""
    make = multiprocessing.get_context("fork")
    pipes = []
    for index in range(count):
        here, there = make.Pipe(duplex=False)
        process = make.Process(target=one, args=(context, index, body, there), daemon=True)
        process.start()
        there.close()
        pipes.append((process, here))
    results, failures = [], []
    for index, (process, here) in enumerate(pipes):
        try:
            outcome, value = here.recv()
        except EOFError:
            outcome, value = "failed", "the process ended without a word"
        (results if outcome == "ok" else failures).append(value if outcome == "ok" else f"[{index}] {value}")
        process.join(30)
    if failures:
        raise Failed("\n".join(failures))
    return results


def one(context, index, body, there):
    signal.signal(signal.SIGTERM, lambda *_: exit(1))
    scene = Scene(f"{context.part}-{index}", context.parts, context.binary)
    try:
        there.send(("ok", body(scene, f"{context.seed}/{context.part}/{index}", index)))
    except Failed as reason:
        there.send(("failed", str(reason)))
    except BaseException:
        there.send(("failed", traceback.format_exc()))
    finally:
        scene.close()
