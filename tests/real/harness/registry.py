"""The list of tests: a decorator that names one and bounds its time."""

from dataclasses import dataclass
from typing import Callable

TESTS = []


@dataclass
class Test:
    """One test: what it claims, how long it may take, what runs it."""

    name: str
    seconds: int
    body: Callable


def real(name, seconds=60):
    """Registers a test under the claim that it checks; after `seconds` it has failed."""

    def register(body):
        TESTS.append(Test(name, seconds, body))
        return body

    return register
