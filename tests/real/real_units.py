"""The service as systemd sees it: notifications, an inherited socket, and the unit files' own checks."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from harness.appliance import Appliance, arrived
from harness.receiver import Receiver
from harness.registry import real
from harness.samples import sample_bytes
from harness.scene import Skip, accepts, expect, until

UNITS = Path(__file__).resolve().parents[2] / "systemd"


class Manager:
    """What systemd is to a service of Type=notify: a datagram socket that remembers what it was told."""

    def __init__(self, scene):
        self.path = str(scene.path("notify"))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.told = []
        scene.closing.append(self.socket.close)

    def has(self, key, value=None):
        while True:
            try:
                message = self.socket.recv(4096).decode()
            except BlockingIOError:
                break
            self.told += [tuple(line.split("=", 1)) for line in message.splitlines()]
        return any(name == key and value in (None, its) for name, its in self.told)

    def count(self, key):
        self.has(key)
        return sum(1 for name, _ in self.told if name == key)


@real("systemd is told READY, STATUS, WATCHDOG while every thread lives, and STOPPING")
def notifications(scene):
    manager = Manager(scene)
    receiver = Receiver(scene)
    env = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000"}
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **env).start()
    until(lambda: manager.has("READY", "1"), 10, lambda: f"READY=1; told {manager.told}")
    until(lambda: manager.has("STATUS"), 10, lambda: f"STATUS; told {manager.told}")
    until(lambda: manager.count("WATCHDOG") >= 4, 10, lambda: f"WATCHDOG=1 four times; told {manager.told}")
    expect(not manager.has("STOPPING"), "STOPPING before the stop")
    appliance.terminate(15)
    expect(manager.has("STOPPING", "1"), lambda: f"STOPPING=1; told {manager.told}")


@real("a stopped process gives no WATCHDOG sign")
def watchdog_is_honest(scene):
    manager = Manager(scene)
    env = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    appliance = Appliance(scene, **env).start()
    until(lambda: manager.count("WATCHDOG") >= 2, 10, "WATCHDOG=1 twice")
    appliance.process.signal(signal.SIGSTOP)
    before = manager.count("WATCHDOG")
    over = time.monotonic() + 1
    until(lambda: time.monotonic() > over, 2, "five watchdog intervals have passed")
    silent = manager.count("WATCHDOG") == before
    appliance.process.signal(signal.SIGCONT)
    expect(silent, "a sign of life from a stopped process")
    until(lambda: manager.count("WATCHDOG") > before, 10, "signs again after SIGCONT")


@real("a listener passed by systemd-socket-activate is used")
def inherited_listener(scene):
    program = shutil.which("systemd-socket-activate")
    if program is None:
        raise Skip("systemd-socket-activate is not installed")
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    appliance.config.write_text(appliance.file())
    env = appliance.environment()
    settings = [f"--setenv={name}={value}" for name, value in env.items()]
    arguments = [program, f"--listen=127.0.0.1:{appliance.tcp}", "--fdname=uberagent", *settings]
    appliance.process = scene.start(
        [*arguments, scene.binary, "run", "--config", appliance.config], "activated", env=env
    )
    until(lambda: accepts(appliance.tcp), 10, lambda: f"the activator listens\n{appliance.process.log()}")
    # The probe itself was the first connection, and with it the program is started.
    appliance.ready()
    appliance.send_lines(sample_bytes())
    arrived(receiver, 384, 20, appliance)
    appliance.settle()


@real("systemd-analyze finds nothing wrong with the units, and exposes at most 1.5")
def unit_files(scene):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        raise Skip("systemd-analyze is not installed")
    if not (UNITS / "millrace.service").exists():
        raise Skip("there are no unit files")
    folder = scene.folder("units")
    for unit in UNITS.glob("millrace.*"):
        if unit.is_file():
            # The binary is not installed here: the units are checked as if it were.
            text = unit.read_text().replace("/usr/bin/millrace", str(scene.binary))
            (folder / unit.name).write_text(text)
    env = dict(os.environ, SYSTEMD_UNIT_PATH=f"{folder}:")
    units = sorted(str(unit) for unit in folder.iterdir())
    verified = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, env=env, timeout=30)
    ours = [line for line in (verified.stdout + verified.stderr).splitlines() if "millrace" in line]
    expect(verified.returncode == 0 and not ours, "systemd-analyze verify: " + "\n".join(ours or [verified.stderr]))
    arguments = [analyze, "security", "--offline=true", "--no-pager", "--threshold=15", folder / "millrace.service"]
    judged = subprocess.run(arguments, capture_output=True, text=True, env=env, timeout=30)
    said = (judged.stdout + judged.stderr).strip().splitlines()
    expect(judged.returncode == 0, f"systemd-analyze security: {said[-1:]}")
