"""Runs the tests of tests/real, each against the real binary, one line each.

    run.py --parts target/real --binary target/release/millrace [words of a test's name or file ...]

`ok`, `FAIL` with the reason, or `SKIP` with what is missing; at the end `real: N passed, N failed, N skipped`. A test has
its own directory, ports and time limit; whatever it started is killed when it is over.
"""

import argparse
import importlib
import re
import signal
import sys
import time
from pathlib import Path

from harness.registry import TESTS
from harness.scene import Failed, Scene, outcome

MODULES = [
    "rows", "otlp", "bulk", "influx", "peers", "metrics", "failures", "kill", "reload", "tools", "units", "hostile",
    "backends",
]


def collect():
    for module in MODULES:
        before = len(TESTS)
        importlib.import_module(f"real_{module}")
        for test in TESTS[before:]:
            test.file = module


def out_of_time(_signal, _frame):
    raise Failed("out of time")


def run(test, parts, binary):
    """One test: its outcome and what to say of it."""
    scene = Scene(re.sub(r"\W+", "-", test.name), parts, binary)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(test.seconds)
    try:
        return outcome(lambda: test.body(scene))
    finally:
        signal.alarm(0)
        scene.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    collect()
    chosen = [
        test
        for test in TESTS
        if not arguments.words or any(word in test.name or word == test.file for word in arguments.words)
    ]
    counts = {"ok": 0, "FAIL": 0, "SKIP": 0}
    for test in chosen:
        before = time.monotonic()
        result, reason = run(test, arguments.parts.resolve(), arguments.binary.resolve())
        counts[result] += 1
        print(f"{result:4} {test.name} ({time.monotonic() - before:.1f} s)")
        if reason:
            print("     " + reason.strip().replace("\n", "\n     "))
    print(f"real: {counts['ok']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    sys.exit(1 if counts["FAIL"] else 0)


if __name__ == "__main__":
    main()
