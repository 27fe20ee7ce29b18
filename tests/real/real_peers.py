"""A real OTLP receiver behind Millrace: rotel, by its PyPI wheel. What it passes on must be all of what was sent."""

from pathlib import Path

from harness import reference
from harness.appliance import Appliance, arrived
from harness.receiver import Receiver
from harness.registry import real
from harness.samples import sample_bytes
from harness.scene import Skip, accepts, expect, free_port, until

try:
    import rotel
except ImportError:
    rotel = None


@real("rotel takes every span and passes it on unchanged")
def through_rotel(scene):
    if rotel is None:
        raise Skip("rotel has no wheel for this machine")
    program = Path(rotel.__file__).parent / "rotel-agent"
    behind = Receiver(scene)
    http_port, grpc_port = free_port(), free_port()
    arguments = [
        program,
        "start",
        f"--otlp-http-endpoint=127.0.0.1:{http_port}",
        f"--otlp-grpc-endpoint=127.0.0.1:{grpc_port}",
        "--exporter=otlp",
        f"--otlp-exporter-endpoint=http://127.0.0.1:{behind.port}",
        "--otlp-exporter-protocol=http",
        "--otlp-exporter-compression=none",
        "--batch-timeout=100ms",
        f"--pid-file={scene.path('rotel.pid')}",
    ]
    peer = scene.start(arguments, "rotel")
    until(lambda: accepts(http_port), 15, lambda: f"rotel listens\n{peer.log()}")
    expect(peer.alive(), lambda: f"rotel ended at its start:\n{peer.log()}")
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{http_port}").start()
    appliance.send_lines(sample_bytes())
    arrived(behind, 384, 20, appliance)
    appliance.settle()
    differences = reference.check(reference.rows_of(sample_bytes()), behind.spans, "session")
    shown = "\n".join(differences[:8])
    expect(not differences, f"{len(differences)} differences behind rotel:\n{shown}")
