"""uberAgent's rows over TCP, span by span against the reference, and by way of a real rsyslog."""

import random

from harness import reference
from harness.appliance import Appliance, arrived
from harness.receiver import Receiver
from harness.registry import real
from harness.samples import DATA, as_lines, made_rows, sample_bytes
from harness.scene import expect, until

ROWS, TRACES = 376, 8
# Lines of hostile.ndjson that are no rows but the first bytes of another protocol.
OTHER_PROTOCOLS = range(87, 96)


def compare(receiver, mapping):
    differences = reference.check(reference.rows_of(sample_bytes()), receiver.spans, mapping)
    shown = "\n".join(differences[:12])
    expect(not differences, f"{len(differences)} differences from the reference:\n{shown}")


def session_case(scene, pieces):
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    appliance.send_lines(sample_bytes(), pieces)
    arrived(receiver, ROWS + TRACES, 20, appliance)
    appliance.settle()
    compare(receiver, "session")
    expect(appliance.total("records_received_total") == ROWS, "records_received_total is not 376")
    expect(appliance.total("records_parsed_total") == ROWS, "records_parsed_total is not 376")


@real("rows in one burst become the reference's spans, one root a trace")
def one_burst(scene):
    session_case(scene, None)


@real("rows cut at arbitrary bytes become the same spans")
def cut_anywhere(scene):
    draw = random.Random(7)
    session_case(scene, [draw.choice([1, 2, 3, 50, 711, 1400, 9000]) for _ in range(400)])


@real("mapping original gives ProxyTrace's ids and attributes")
def original_mapping(scene):
    receiver = Receiver(scene)
    yaml = "uberagent:\n  mapping: original\n"
    appliance = Appliance(scene, yaml=yaml, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    appliance.send_lines(sample_bytes())
    until(lambda: len(receiver.spans) >= ROWS, 20, lambda: f"376 spans, {len(receiver.spans)} are there")
    appliance.settle()
    compare(receiver, "original")


@real("children of a reused PID go to the latest older process that had it")
def reused_pid(scene):
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    first, *rest = made_rows(1, rows_each=5)
    made = [dict(row, ProcParentID=first["ProcID"]) for row in rest]
    made[0].update(ProcStartTimeRelativeMs=50)
    made[1].update(ProcStartTimeRelativeMs=100, ProcID=first["ProcID"], ProcParentID=4)
    made[2].update(ProcStartTimeRelativeMs=150)
    made[3].update(ProcStartTimeRelativeMs=99)
    rows = [first, *made]
    appliance.send_lines(as_lines(rows))
    arrived(receiver, 6, 20, appliance)
    differences = reference.check(rows, receiver.spans, "session")
    expect(not differences, "\n".join(differences))


@real("hostile lines, each on its own connection: each has the outcome that is written down for it")
def hostile_lines(scene):
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    lines = (DATA / "hostile.ndjson").read_bytes().split(b"\n")
    decisions = [row.split("\t") for row in (DATA / "hostile_decisions.tsv").read_text().splitlines()[1:]]
    expect(len(lines) == len(decisions), f"{len(lines)} lines, {len(decisions)} decisions")
    wanted = {"encoded": 0, "filtered": 0, "dead_lettered": 0}
    for line, (number, outcome, *_) in zip(lines, decisions):
        if int(number) in OTHER_PROTOCOLS:
            continue
        if outcome != "blank":
            wanted["dead_lettered" if outcome == "dead_letter" else outcome] += 1
        appliance.send_lines(line + b"\n")
    appliance.settle()
    got = {outcome: appliance.total("millrace_front_records_total", outcome=outcome) for outcome in wanted}
    expect(got == wanted, f"{got}, not {wanted}")
    # Other protocols are told from rows by their first bytes: the connection is closed, the service goes on.
    for number in OTHER_PROTOCOLS:
        appliance.send_lines(lines[number - 1] + b"\n")
    appliance.send_lines(as_lines(made_rows(1)))
    until(lambda: appliance.total("records_parsed_total") == got["encoded"] + 70, 10, "rows are taken after all that")
    appliance.settle()
    expect(not receiver.problems, f"the receiver complains: {receiver.problems[:1]}")
    for span in receiver.spans:
        expect(set(span.span_id) != {"0"} and span.end_ns >= span.start_ns, f"a span that cannot be: {span}")


@real("rows sent by rsyslog arrive whole")
def from_rsyslog(scene):
    rsyslogd = scene.part("rsyslogd", "rsyslog")
    modules = next((scene.parts / "root").glob("usr/lib/*-linux-gnu/rsyslog"))
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    source = scene.path("rows.ndjson")
    source.write_bytes(sample_bytes())
    configuration = scene.path("rsyslog.conf")
    configuration.write_text(f"""\
global(workDirectory="{scene.folder("rsyslog")}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")
module(load="imfile")
template(name="raw" type="string" string="%msg%\\n")
input(type="imfile" file="{source}" tag="rows" ruleset="forward")
ruleset(name="forward") {{
    action(type="omfwd" target="127.0.0.1" port="{appliance.tcp}" protocol="tcp" TCP_Framing="traditional"
           template="raw" action.resumeRetryCount="-1")
}}
""")
    arguments = [rsyslogd, "-n", "-f", configuration, "-i", scene.path("rsyslog.pid"), "-M", modules]
    rsyslog = scene.start(arguments, "rsyslogd", env=scene.library_env())
    try:
        arrived(receiver, ROWS + TRACES, 20, appliance)
    except AssertionError as problem:
        raise type(problem)(f"{problem}\nrsyslogd:\n{rsyslog.log()}") from None
    appliance.settle()
    compare(receiver, "session")
