"""One test's scene: its own temporary directory and ports, and every process it starts ended when it is over.

Nothing sleeps to synchronise: `until` polls a condition under a deadline and says what was missing when it passes.
"""

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import traceback
from pathlib import Path


class Skip(Exception):
    """This test cannot run here; the reason is printed."""


class Failed(AssertionError):
    """What was expected did not come true."""


def outcome(body):
    """Runs a test: `ok` with what it says, `SKIP` or `FAIL` with the reason."""
    try:
        return "ok", body() or ""
    except Skip as reason:
        return "SKIP", str(reason)
    except Failed as reason:
        return "FAIL", str(reason)
    except Exception:
        return "FAIL", traceback.format_exc()


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


class Ports:
    """Ports that nobody else takes: drawn below the range of outgoing connections, each held until this process ends.

    A port must be free while an appliance is down and comes again, so it cannot be held by a socket. Every test process of
    this machine locks the byte of each of its ports in one file instead; the kernel lets go of what a process leaves.
    """

    RANGE = range(20000, 32000)
    REGISTRY = Path(tempfile.gettempdir()) / f"millrace-test-ports-{os.getuid()}"

    def __init__(self):
        self.owner = None
        self.registry = None
        self.taken = set()

    def take(self):
        if self.owner != os.getpid():
            # Locks are not inherited; what the parent has taken still is.
            self.owner = os.getpid()
            self.registry = os.open(self.REGISTRY, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        for _ in range(200):
            port = random.choice(self.RANGE)
            if port not in self.taken and self.lock(port) and self.is_free(port):
                self.taken.add(port)
                return port
        raise Failed("no free port found")

    def lock(self, port):
        try:
            fcntl.lockf(self.registry, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            return True
        except OSError:
            return False

    def is_free(self, port):
        with socket.socket() as probe:
            # No SO_REUSEADDR: a port in TIME_WAIT is not free for a strict server.
            try:
                probe.bind(("127.0.0.1", port))
                return True
            except OSError:
                return False


free_port = Ports().take


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
