"""/metrics as promtool sees it, the six metrics of ProxyTrace, health, and the balances."""

import subprocess

from harness.appliance import Appliance, arrived
from harness.receiver import Receiver
from harness.registry import real
from harness.samples import sample_bytes
from harness.scene import expect

PROXYTRACE = {
    "records_received_total": "counter",
    "records_parsed_total": "counter",
    "batches_sent_total": "counter",
    "export_failures_total": "counter",
    "span_queue_size": "gauge",
    "batch_latency_seconds": "summary",
}


@real("promtool finds nothing to say of /metrics; ProxyTrace's six have their names and types")
def metrics_page(scene):
    promtool = scene.part("promtool", "prometheus")
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()

    def check_page():
        page = appliance.get("/metrics")[1]
        checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=20)
        said = (checked.stdout + checked.stderr).decode()
        expect(checked.returncode == 0 and not said.strip(), f"promtool says ({checked.returncode}): {said[:1500]}")
        types = dict(line.split()[2:4] for line in page.decode().splitlines() if line.startswith("# TYPE "))
        for name, kind in PROXYTRACE.items():
            expect(types.get(name) == kind, f"{name} is {types.get(name)}, not {kind}")

    check_page()
    appliance.send_lines(sample_bytes() + b"not json\n")
    arrived(receiver, 384, 20, appliance)
    appliance.settle()
    check_page()
    expect(appliance.total("batches_sent_total") >= 1, "no batch counted")
    expect(appliance.total("batch_latency_seconds_count") >= 1, "no latency recorded")
    expect(appliance.total("span_queue_size") == 0, "the queue is not empty")
    letters = appliance.total("millrace_front_records_total", outcome="dead_lettered")
    expect(letters == 1, f"{letters} rows dead-lettered, not 1")


@real("health answers on the management port, and the rest does not exist")
def health(scene):
    appliance = Appliance(scene).start()
    for path, wanted in (("/livez", 200), ("/readyz", 200), ("/startupz", 200), ("/", 200), ("/nothing", 404)):
        status, _ = appliance.get(path)
        expect(status == wanted, f"{path} answered {status}")
