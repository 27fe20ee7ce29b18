"""Elasticsearch `_bulk` in: the official client, and a request as Fluent Bit shapes it."""

import gzip
import json

from elasticsearch import Elasticsearch, helpers
from harness import reference
from harness.appliance import Appliance, arrived, post
from harness.receiver import Receiver
from harness.registry import real
from harness.samples import DATA
from harness.scene import expect

# Sourcetypes whose rows become spans; every other one is understood and counted as filtered.
SPANS = {
    "uberAgent:Process:LogonProcesses",
    "uberAgent:Process:LogoffProcesses",
    "uberAgent:Logon:LogonDetail",
    "uberAgent:Logoff:LogoffDetail",
    "uberAgent:Logon:GroupPolicyCSEDetail2",
    "uberAgent:Process:ProcessStartup",
    "uberAgentESA:Process:ProcessStop",
    "uberAgent:OnOffTransition:BootDetail2",
    "uberAgent:OnOffTransition:BootProcesses",
    "uberAgent:OnOffTransition:BootProcessDetail",
    "uberAgent:OnOffTransition:ShutdownDetail",
    "uberAgent:OnOffTransition:StandbyDetail2",
    "uberAgent:Application:BrowserWebRequests2",
}


def documents():
    return [json.loads(line) for line in (DATA / "samples.ndjson").read_text().splitlines()]


def expect_documents(appliance, receiver, documents):
    """Counts exact, and every process row's span as the reference has it."""
    spans = [document for document in documents if document.get("Sourcetype") in SPANS]
    appliance.settle()
    for outcome, wanted in (("encoded", len(spans)), ("filtered", len(documents) - len(spans)), ("rejected", 0)):
        got = appliance.total("millrace_front_records_total", outcome=outcome)
        expect(got == wanted, f"{got} records {outcome}, not {wanted}")
    rows = [
        dict(document, date=document["@timestamp"] / 1000)
        for document in documents
        if document.get("Sourcetype", "").endswith(("LogonProcesses", "LogoffProcesses"))
    ]
    pairs, differences, _ = reference.pair_up(reference.expected(rows, "session"), receiver.spans)
    for item, span in pairs:
        differences += reference.compare_session(item, span)
    shown = "\n".join(differences[:8])
    expect(not differences, f"{len(differences)} differences:\n{shown}")


def wanted_spans(documents):
    """At least so many different spans: the process rows, of which each is one, and a root for each of their traces."""
    rows = [d for d in documents if d.get("Sourcetype", "").endswith(("LogonProcesses", "LogoffProcesses"))]
    return len(rows) + len({reference.trace_of(row) for row in rows})


@real("the Elasticsearch client's bulk helper: every document answered, every row a span")
def official_client(scene):
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    made = documents()
    with Elasticsearch(f"http://127.0.0.1:{appliance.bulk}", request_timeout=20) as client:
        info = client.info()
        expect(info["tagline"] == "You Know, for Search", f"info says {info}")
        actions = ({"_op_type": "create", "_index": "uberagent", "_source": document} for document in made)
        stored, errors = helpers.bulk(client, actions, chunk_size=100, raise_on_error=False)
    expect(not errors, f"{len(errors)} items refused, first {errors[:1]}")
    expect(stored == len(made), f"{stored} of {len(made)} stored")
    arrived(receiver, wanted_spans(made), 20, appliance)
    expect_documents(appliance, receiver, made)


@real("a request as Fluent Bit shapes it: gzip, per-item answers, bad documents named and no others lost")
def fluent_bit(scene):
    receiver = Receiver(scene)
    appliance = Appliance(scene, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url).start()
    good = [d for d in documents() if d["Sourcetype"] == "uberAgent:Process:LogonProcesses"][:60]
    lines = []
    for index, document in enumerate(good):
        lines += [b'{"create":{"_index":"uberagent"}}', json.dumps(document).encode()]
        if index in (10, 20):
            spoilt = json.dumps(dict(document, SessionGUID="No GUID found for SessionID")).encode()
            lines += [b'{"create":{"_index":"uberagent"}}', spoilt if index == 10 else b'{"ProcName": tru']
    body = gzip.compress(b"\n".join(lines) + b"\n")
    headers = {
        "Content-Type": "application/x-ndjson",
        "Content-Encoding": "gzip",
        "User-Agent": "Fluent-Bit",
    }
    status, answered, reply = post(appliance.bulk, "/uberagent/_bulk", body, headers)
    expect(status == 200, f"answered {status} {reply[:300]!r}")
    expect(answered.get("X-Elastic-Product") == "Elasticsearch", "no X-Elastic-Product")
    told = json.loads(reply)
    statuses = [item["create"]["status"] for item in told["items"]]
    expect(told["errors"] is True, "errors is not true")
    expect(statuses.count(201) == 60 and statuses.count(400) == 2, f"statuses {statuses}")
    expect(statuses[11] == 400 and statuses[22] == 400, f"the wrong items are 400: {statuses}")
    expect(told["items"][11]["create"]["error"]["type"] == "mapper_parsing_exception", f"{told['items'][11]}")
    arrived(receiver, 61, 20, appliance)
    appliance.settle()
    rejected = appliance.total("millrace_front_records_total", outcome="rejected")
    expect(rejected == 2, f"{rejected} records rejected, not 2")
