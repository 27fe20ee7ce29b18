#!/usr/bin/env python3
"""A plugin at work: what `millrace plugin install` printed, in a configuration, on an appliance that is sent something.

    live.py MILLRACE SNIPPET INPUT WORD [GONE]

INPUT is a request of OTLP in JSON, or else what a peer sends to a decoder. WORD has to be in what comes out: in the log, or in
what the destination of an encoder is sent; GONE must not be. The appliance has ports of its own and ends with this script.
"""

import http.server
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

# A component with an interpreter is compiled before the first connection is taken.
START_SECONDS = 180
ARRIVAL_SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Sink(http.server.BaseHTTPRequestHandler):
    """A destination that takes everything."""

    taken = []

    def do_POST(self):
        self.taken.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def connected(port, process):
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit(f"the appliance does not listen; exit code {process.poll()}")


def send(port, process, given, is_request):
    with connected(port, process) as connection:
        if not is_request:
            connection.sendall(given)
            return
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/traces", given, headers)
    urllib.request.urlopen(request, timeout=60).read()


def main(millrace, snippet, given, word, gone=None):
    given, text = pathlib.Path(given), pathlib.Path(snippet).read_text()
    is_request, is_encoder = given.suffix == ".json", text.startswith("exporters:")
    port, sink = free_port(), http.server.HTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    text = text.replace("127.0.0.1:7000", f"127.0.0.1:{port}").replace("127.0.0.1:8080", f"127.0.0.1:{sink.server_port}")
    if is_request:
        text += f"receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n"
    with tempfile.TemporaryDirectory() as directory:
        configuration = pathlib.Path(directory, "millrace.yaml")
        configuration.write_text(text + f"state_directory: {json.dumps(directory + '/state')}\nqueue: {{max_bytes: 256MiB}}\n")
        arguments = [millrace, "run", "-c", configuration, "--metrics-port", str(free_port()), "--workers", "1"]
        log = pathlib.Path(directory, "log")
        process = subprocess.Popen(arguments, stderr=log.open("w"))
        try:
            send(port, process, given.read_bytes(), is_request)
            out, give_up_at = "", time.monotonic() + ARRIVAL_SECONDS
            while word not in out and time.monotonic() < give_up_at:
                time.sleep(0.2)
                export = [millrace, "queue", "export", "-c", configuration]
                logged = subprocess.run(export, stdout=subprocess.PIPE, check=True).stdout
                out = (b"\n".join(Sink.taken) if is_encoder else logged).decode()
        finally:
            process.terminate()
            process.wait(60)
            said = log.read_text()
            print(said)
    print(out)
    if text.startswith("processors:") and f'sha256="{re.search("sha256: (.{12})", text)[1]}"' not in said:
        sys.exit("the log does not say which component went live")
    if word not in out or (gone and gone in out):
        sys.exit(f"{word!r} has to be in what came out" + (f", and {gone!r} must not" if gone else ""))


if __name__ == "__main__":
    main(*sys.argv[1:])
