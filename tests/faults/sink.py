"""The backend behind the appliance: one that outlives every kill, judges every span it gets, and fails when told to.

Plain threads and sockets: a request is a head, a `Content-Length` and a body. `status` is what the next requests are
answered; only those answered 200 count as delivered.
"""

import socket
import threading
import time

from items import judge


class Sink:
    """Listens on a port of its own; `seen` holds the items delivered, `wrong` what was not as it was sent."""

    def __init__(self, judge=judge):
        self.judge = judge
        self.status = 200
        self.delay_seconds = 0.0
        self.seen = set()
        self.deliveries = 0
        self.wrong = []
        self.undecodable = []
        self.influx_requests = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            with connection, connection.makefile("rb") as stream:
                while True:
                    target = stream.readline()
                    if not target:
                        return
                    length = 0
                    while (line := stream.readline()) not in (b"\r\n", b""):
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    body = stream.read(length)
                    if len(body) < length:
                        return  # the sender was killed in mid-request
                    connection.sendall(self.answer(target, body))
        except OSError:
            pass

    def answer(self, target, body):
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        if self.status != 200:
            return b"HTTP/1.1 %d Failure\r\ncontent-length: 0\r\n\r\n" % self.status
        if b"/write" in target:
            with self.lock:
                self.influx_requests += 1
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        try:
            found, wrong = self.judge(body)
        except Exception as problem:  # whatever cannot be decoded is the finding
            with self.lock:
                self.undecodable.append(f"a request of {len(body)} bytes: {problem}")
            return b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
        with self.lock:
            self.seen.update(found)
            self.deliveries += len(found)
            self.wrong += wrong
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    def forget(self, items):
        with self.lock:
            self.seen -= items

    def close(self):
        self.listener.close()
