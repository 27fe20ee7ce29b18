"""Senders that remember exactly what they were promised: OTLP/HTTP, `_bulk`, and uberAgent's lines, which nobody promises.

A sender ends when its peer goes away or when it is told to. What was answered yes is in `journal.acknowledged`; every item
ever put into a request is below `journal.next`.
"""

import json
import socket
import threading

from items import BULK, OTLP, TCP, bulk_request, item, lines, otlp_request


class Journal:
    """What was sent and what was promised, over any number of lives of the appliance."""

    def __init__(self):
        self.next = {kind: 0 for kind in (OTLP, BULK, TCP)}
        self.acknowledged = set()
        self.promised = 0
        self.refused = 0
        self.answers = {}
        self.lock = threading.Lock()

    def take(self, kind, count):
        with self.lock:
            first = self.next[kind]
            self.next[kind] += count
            return list(range(first, first + count))

    def never_sent(self, seen):
        """Items among these that no request ever carried."""
        return [one for one in list(seen) if one // 4 >= self.next[one % 4]]

    def promise(self, kind, numbers):
        with self.lock:
            self.acknowledged.update(item(kind, number) for number in numbers)
            self.promised += len(numbers)

    def answered(self, status):
        with self.lock:
            self.answers[status] = self.answers.get(status, 0) + 1

    def settle(self, seen):
        """Forgets what has arrived; what is left is lost so far."""
        with self.lock:
            self.acknowledged -= seen
            return len(self.acknowledged)


class Sender(threading.Thread):
    """One connection of one kind, one request at a time."""

    def __init__(self, journal, port, kind, items=20, padding=100, pause=0.0, otlp=otlp_request):
        super().__init__(daemon=True)
        self.journal, self.port, self.kind = journal, port, kind
        self.items, self.padding, self.pause, self.otlp = items, padding, pause, otlp
        self.ending = threading.Event()
        self.requests = 0

    def run(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with connection.makefile("rb") as stream:
                    while not self.ending.is_set():
                        self.send(connection, stream)
                        if self.pause:
                            self.ending.wait(self.pause)
                if self.kind == TCP:
                    connection.shutdown(socket.SHUT_WR)
        except (OSError, Gone):
            pass

    def send(self, connection, stream):
        numbers = self.journal.take(self.kind, self.items)
        if self.kind == TCP:
            connection.sendall(lines(numbers))
            self.requests += 1
            return
        if self.kind == OTLP:
            path, kind, body = b"/v1/traces", b"application/x-protobuf", self.otlp(numbers, self.padding)
        else:
            path, kind, body = b"/_bulk", b"application/x-ndjson", bulk_request(numbers)
        head = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (path, kind, len(body))
        connection.sendall(head + body)
        status, reply = read_answer(stream)
        self.requests += 1
        self.journal.answered(status)
        if status == 200:
            self.journal.promise(self.kind, promised(numbers, reply) if self.kind == BULK else numbers)
        else:
            self.journal.refused += len(numbers)
            self.ending.wait(0.005)

    def end(self):
        self.ending.set()


class Gone(Exception):
    """The peer closed before it answered."""


def read_answer(stream):
    """Status and body of one answer."""
    first = stream.readline()
    if not first.endswith(b"\r\n"):
        raise Gone
    length = 0
    while (line := stream.readline()) != b"\r\n":
        if not line:
            raise Gone
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    body = stream.read(length)
    if len(body) < length:
        raise Gone
    return int(first.split()[1]), body


def promised(numbers, reply):
    """The numbers of a `_bulk` request whose items were stored."""
    told = json.loads(reply)
    statuses = [one["create"]["status"] for one in told["items"]]
    if len(statuses) != len(numbers):
        raise AssertionError(f"{len(statuses)} items answered of {len(numbers)}")
    return [number for number, status in zip(numbers, statuses) if status == 201]
