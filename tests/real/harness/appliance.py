"""The real binary as its users run it: configured by environment variables and a file, watched over its own ports."""

import http.client
import os
import re
import signal
import socket
import time

from .scene import Failed, expect, free_port, until

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Appliance:
    """One `millrace run` after another over one state directory."""

    def __init__(self, scene, name="appliance", yaml="", **env):
        self.scene = scene
        self.name = name
        self.tcp = free_port()
        self.metrics_port = free_port()
        self.otlp = free_port()
        self.bulk = free_port()
        self.state = scene.folder(f"{name}-state")
        self.config = scene.path(f"{name}.yaml")
        self.admission = "block"
        self.exporters = ""
        self.queue = {"segment_bytes": "16MiB", "max_bytes": "512MiB"}
        self.yaml = yaml
        self.wrapper = []
        self.env = {key: str(value) for key, value in env.items() if value is not None}
        self.process = None
        self.starts = 0
        scene.closing.append(self.kill)

    def environment(self):
        """Nothing of the tester's own variables but PATH: an OTEL_ or INFLUX_ variable there would be obeyed."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LISTEN_HOST": "127.0.0.1",
            "LISTEN_PORT": str(self.tcp),
            "METRICS_PORT": str(self.metrics_port),
            "STATE_DIRECTORY": str(self.state),
            "BATCH_TIMEOUT": "0.05",
            **self.env,
        }

    def file(self):
        queue = "".join(f"  {key}: {value}\n" for key, value in self.queue.items())
        return f"""\
receivers:
  uberagent:
    admission: {self.admission}
    protocols:
      tcp: {{}}
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{self.otlp}
  elasticsearch:
    endpoint: 127.0.0.1:{self.bulk}
{self.exporters}queue:
{queue}{self.yaml}"""

    def start(self, wait=True):
        """Starts it and waits until it says that it is ready. Of many lives the last eight have a log each."""
        self.config.write_text(self.file())
        self.starts += 1
        name = f"{self.name}-{self.starts % 8}"
        self.scene.path(f"{name}.log").unlink(missing_ok=True)
        arguments = [*self.wrapper, self.scene.binary, "run", "--config", self.config]
        self.process = self.scene.start(arguments, name, env=self.environment())
        if wait:
            self.ready()
        return self

    def ready(self, seconds=20):
        def is_ready():
            expect(self.process.alive(), lambda: f"millrace ended at its start:\n{self.process.log()}")
            try:
                return self.get("/readyz")[0] == 200
            except OSError:
                return False

        until(is_ready, seconds, lambda: f"millrace is ready\n{self.process.log()}", every=0.002)

    def terminate(self, seconds):
        """SIGTERM; returns how long it took and fails unless it ended well within `seconds`."""
        before = time.monotonic()
        self.process.signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        expect(code == 0, lambda: f"millrace ended with {code} after SIGTERM:\n{self.process.log()}")
        return time.monotonic() - before

    def kill(self):
        if self.process is not None:
            self.process.kill()

    def get(self, path, timeout=5):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as problem:
            raise OSError(str(problem)) from problem
        finally:
            connection.close()

    def metrics(self):
        """Every sample of /metrics: (name, {label: value}) pairs with their values."""
        status, body = self.get("/metrics")
        expect(status == 200, f"/metrics answered {status}")
        samples = []
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                found = SAMPLE.match(line)
                expect(found, f"not a sample: {line!r}")
                samples.append((found[1], dict(LABEL.findall(found[2] or "")), float(found[3])))
        return samples

    def total(self, name, **labels):
        """The sum over all samples of `name` with these labels; absent counts as 0."""
        return sum(
            value
            for sample, its, value in self.metrics()
            if sample == name and all(its.get(key) == wanted for key, wanted in labels.items())
        )

    def settle(self, seconds=20):
        """Waits until nothing is in a queue and every balance is 0: at rest they must be exact."""

        def unbalanced():
            samples = self.metrics()
            off = [
                (name, labels, value)
                for name, labels, value in samples
                if value != 0
                and (name.endswith(("_imbalance_records", "_imbalance_spans")) or name.endswith("_in_queue_spans"))
            ]
            found = {name for name, _, _ in samples}
            for name in (
                "millrace_front_imbalance_records",
                "millrace_lane_imbalance_spans",
                "millrace_destination_imbalance_spans",
            ):
                if name not in found:
                    off.append((name, {}, "absent"))
            return off

        last = []

        def balanced():
            last[:] = unbalanced()
            return not last

        until(balanced, seconds, lambda: f"the balances are 0: {last}", every=0.05)

    def send_lines(self, data, pieces=None):
        """Sends bytes over one TCP connection and closes it; `pieces` cuts them at these sizes in turn."""
        with socket.create_connection(("127.0.0.1", self.tcp), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if pieces is None:
                connection.sendall(data)
            else:
                at = 0
                for size in pieces:
                    if at >= len(data):
                        break
                    connection.sendall(data[at : at + size])
                    at += size
                connection.sendall(data[at:])
            connection.shutdown(socket.SHUT_WR)
            # The peer closes when it has read to the end: whatever it says before is of no interest.
            connection.settimeout(30)
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass


def post(port, path, body, headers=None, timeout=30):
    """One HTTP request on a connection of its own: status, headers, body. OSError when the peer goes away."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body, headers or {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except http.client.HTTPException as problem:
        raise OSError(f"{type(problem).__name__}: {problem}") from problem
    finally:
        connection.close()


def arrived(receiver, count, seconds, appliance):
    """Waits until `count` different spans are there."""

    def probe():
        if receiver.problems:
            raise Failed(f"the receiver could not take a request: {receiver.problems[0]}")
        return receiver.distinct() >= count

    until(
        probe,
        seconds,
        lambda: f"{count} different spans at the receiver, {receiver.distinct()} are\n{appliance.process.log()}",
    )
