"""Faults on the real binary and real file systems: kills, power cuts, failing calls, full disks, truncation, stops.

    run.py --level ci --parts target/real --binary target/release/millrace [--only kill [--count N]] [--seed N]

Each part prints one line with its counts, seconds and seed: `ok`, `FAIL` with the reason, or `SKIP` with the privilege that
is missing; at the end `faults: N passed, N failed, N skipped`. A seed given draws the same moments again, though the
machine decides what stands at them. A count that takes hours is reached in pieces: `--only` with a smaller `--count` each
time, and another seed.
"""

import argparse
import importlib
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "real"))

from harness.scene import outcome  # noqa: E402

PARTS = ["kill", "truncate", "calls", "fsync", "full", "power", "stop", "plugins", "soak"]


@dataclass
class Context:
    """What a part is told."""

    part: str
    level: str
    seed: int
    parts: Path
    binary: Path
    asked: int | None

    def count(self, of_level):
        """How much of it: what was asked for, else what the level has."""
        return self.asked or of_level[self.level]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--level", choices=["ci", "nightly", "gate"], default="ci")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--count", type=int, help="of the one part that --only names")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.count and len(arguments.only or []) != 1:
        parser.error("--count is of one part: name it with --only")
    counts = {"ok": 0, "FAIL": 0, "SKIP": 0}
    for part in arguments.only or PARTS:
        before = time.monotonic()
        paths = arguments.parts.resolve(), arguments.binary.resolve()
        context = Context(part, arguments.level, arguments.seed, *paths, arguments.count)
        result, said = outcome(lambda: importlib.import_module(f"part_{part}").run(context))
        counts[result] += 1
        print(f"{result:4} faults {part}: {said} ({time.monotonic() - before:.1f} s, seed {arguments.seed})", flush=True)
    print(f"faults: {counts['ok']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    sys.exit(1 if counts["FAIL"] else 0)


if __name__ == "__main__":
    main()
