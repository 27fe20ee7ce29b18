"""One test's scene: its own temporary directory and ports, and every process it starts ended when it is over.

Nothing sleeps to synchronise: `until` polls a condition under a deadline and says what was missing when it passes.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path


class Skip(Exception):
    """This test cannot run here; the reason is printed."""


class Failed(AssertionError):
    """What was expected did not come true."""


def expect(condition, message):
    """Fails the test with `message` unless `condition`."""
    if not condition:
        raise Failed(message() if callable(message) else message)


def until(probe, seconds, what, every=0.02):
    """The first true value that `probe` returns; fails after `seconds`, naming `what` and the last value seen."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"after {seconds} s still not: {what() if callable(what) else what}")
        time.sleep(every)


def free_port():
    """A loopback port that is free now, from below the range that the kernel gives to outgoing connections."""
    for _ in range(200):
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            # No SO_REUSEADDR: a port in TIME_WAIT is not free for a strict server.
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port found")


def accepts(port):
    """Whether somebody listens on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A started program: its log in a file, ended with its whole process group."""

    def __init__(self, arguments, log, env=None, cwd=None):
        self.name = Path(arguments[0]).name
        self.log_path = log
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.alive():
            os.killpg(self.popen.pid, number)

    def wait(self, seconds):
        """The exit code; fails when the process still runs after `seconds`."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} still runs after {seconds} s") from None

    def stop(self):
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def log(self, lines=15):
        """The end of what the process printed."""
        return "\n".join(Path(self.log_path).read_text(errors="replace").splitlines()[-lines:])


class Scene:
    """Directories, processes and servers of one test."""

    def __init__(self, name, parts, binary):
        self.parts = parts
        self.binary = binary
        self.directory = Path(tempfile.mkdtemp(prefix=f"millrace-{name[:30]}-"))
        self.closing = []

    def path(self, name):
        return self.directory / name

    def folder(self, name):
        folder = self.directory / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, arguments, name, env=None, cwd=None):
        """Starts a program that is killed at the end of the test at the latest."""
        process = Process(arguments, self.path(f"{name}.log"), env=env, cwd=cwd or self.directory)
        self.closing.append(process.kill)
        return process

    def part(self, program, package):
        """The path of an unpacked Debian program; the test is skipped when its package could not be fetched."""
        for folder in ("usr/bin", "usr/sbin"):
            path = self.parts / "root" / folder / program
            if path.exists():
                return path
        raise Skip(f"{program} of Debian's {package} could not be fetched")

    def library_env(self):
        """The environment under which unpacked programs find their unpacked libraries."""
        libraries = sorted(str(folder) for folder in (self.parts / "root").glob("usr/lib/*-linux-gnu"))
        return dict(os.environ, LD_LIBRARY_PATH=":".join(libraries))

    def close(self):
        for end in reversed(self.closing):
            try:
                end()
            except (OSError, subprocess.SubprocessError):
                pass
        shutil.rmtree(self.directory, ignore_errors=True)
