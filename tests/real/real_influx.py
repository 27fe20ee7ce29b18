"""The session map in real databases: VictoriaMetrics by the v2 path, InfluxDB 1.6 by the v1 path."""

import http.client
import json
import urllib.parse
import urllib.request

from harness import reference
from harness.appliance import Appliance, arrived
from harness.receiver import Receiver
from harness.registry import real
from harness.samples import sample_bytes
from harness.scene import accepts, expect, free_port, until


def fetch(url, data=None):
    try:
        with urllib.request.urlopen(url, data=data, timeout=5) as answer:
            return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""


def wanted_map():
    """(measurement, guid, trace id) of every session and kind in the sample."""
    return {
        (
            f"uberAgent:{'logoff' if reference.is_logoff(row) else 'logon'}TraceMap",
            row["SessionGUID"].lower(),
            reference.trace_of(row),
        )
        for row in reference.rows_of(sample_bytes())
    }


def run_rows(scene, **env):
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **env).start()
    appliance.send_lines(sample_bytes())
    arrived(receiver, 384, 20, appliance)
    return appliance


def expect_map(appliance, read, seconds=20):
    wanted = wanted_map()
    got = set()

    def complete():
        got.clear()
        got.update(read())
        return len(got) >= len(wanted)

    until(complete, seconds, lambda: f"8 sessions in the database, {len(got)} are\n{appliance.process.log()}", every=0.2)
    expect(got == wanted, f"only in the database: {got - wanted}; missing: {wanted - got}")
    appliance.settle()


@real("VictoriaMetrics takes the session map by the v2 path and gives it back")
def victoria_metrics(scene):
    program = scene.part("victoria-metrics", "victoria-metrics")
    port = free_port()
    # The rows are older than the default retention of a month, which would drop them without a word.
    arguments = [
        program,
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={scene.folder('vm')}",
        "-retentionPeriod=100y",
        "-search.latencyOffset=0s",
        "-memory.allowedBytes=64MB",
    ]
    database = scene.start(arguments, "victoria-metrics")
    url = f"http://127.0.0.1:{port}"
    until(lambda: fetch(f"{url}/health")[0] == 200, 15, lambda: f"VictoriaMetrics is up\n{database.log()}")
    appliance = run_rows(scene, INFLUX_URL=url, INFLUX_BUCKET="traces")

    def read():
        fetch(f"{url}/internal/force_flush")
        query = urllib.parse.urlencode({"match[]": '{__name__=~"uberAgent:.*"}', "start": 0})
        for line in fetch(f"{url}/api/v1/export?{query}")[1].splitlines():
            labels = json.loads(line)["metric"]
            yield labels["__name__"].removesuffix("_value"), labels["guid"], labels["trace_id"]

    expect_map(appliance, read)


@real("InfluxDB 1.6 takes the session map by the v1 path and gives it back")
def influxdb(scene):
    program = scene.part("influxd", "influxdb")
    port, rpc = free_port(), free_port()
    folder = scene.folder("influx")
    configuration = scene.path("influxdb.conf")
    configuration.write_text(f"""\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
""")
    database = scene.start([program, "-config", configuration], "influxd")
    url = f"http://127.0.0.1:{port}"
    until(lambda: accepts(port) and fetch(f"{url}/ping")[0] == 204, 20, lambda: f"InfluxDB is up\n{database.log()}")
    status, body = fetch(f"{url}/query", urllib.parse.urlencode({"q": "CREATE DATABASE traces"}).encode())
    expect(status == 200, f"CREATE DATABASE: {status} {body!r}")
    yaml = f"""\
exporters:
  influxdb:
    endpoint: {url}
    v1_compatibility:
      enabled: true
      db: traces
"""
    receiver = Receiver(scene)
    appliance = Appliance(scene, yaml=yaml, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    appliance.send_lines(sample_bytes())

    def read():
        for kind in ("logon", "logoff"):
            name = f"uberAgent:{kind}TraceMap"
            query = urllib.parse.urlencode({"db": "traces", "q": f'SELECT * FROM "{name}"'})
            for result in json.loads(fetch(f"{url}/query?{query}")[1] or b"{}").get("results", []):
                for series in result.get("series", []):
                    guid, trace = series["columns"].index("guid"), series["columns"].index("trace_id")
                    for point in series["values"]:
                        yield name, point[guid], point[trace]

    expect_map(appliance, read)
    arrived(receiver, 384, 20, appliance)
