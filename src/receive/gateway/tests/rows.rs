//! Elasticsearch clients and their rows.

use super::harness::{DURABLE, Policy, REFUSED, Rig, connect, limits, post, read_reply, send};
use crate::block::VerdictOutcome;

#[test]
fn elasticsearch_clients_find_what_they_look_for() {
    let rig = Rig::start(DURABLE, 100);
    let mut stream = connect(rig.bulk);
    for (method, path, body) in [("GET", "/", ""), ("PUT", "/_template/uberagent", "{}"), ("GET", "/_license", "")] {
        send(&mut stream, method, path, &[], body.as_bytes());
        let reply = read_reply(&mut stream).unwrap();
        assert_eq!((reply.status, reply.header("x-elastic-product")), (200, Some("Elasticsearch")), "{path}");
    }
    let reply = post(rig.bulk, "/_search", &[], b"{}");
    assert_eq!((reply.status, reply.json()["status"].as_i64()), (404, Some(404)));
    let reply = post(rig.bulk, "/_bulk", &["content-type: application/x-ndjson"], b"{\"create\":{}}\n{}\nnonsense\n");
    assert_eq!(reply.status, 400);
    assert!(reply.json()["error"]["reason"].as_str().unwrap().contains("[3]"));
    assert_eq!(rig.fronts[1].received.get(), 0, "a malformed action stores nothing");
}

#[test]
fn rows_are_answered_item_by_item_and_the_ledger_balances() {
    let rig = Rig::start(DURABLE, 100);
    let rows = include_str!("../../../../tests/data/uberagent/wire_es_bulk.ndjson");
    let body = format!("{rows}{{\"create\":{{}}}}\nnot json\n{{\"delete\":{{}}}}\n");
    let reply = post(rig.bulk, "/uberagent/_bulk", &["content-type: application/x-ndjson"], body.as_bytes());
    assert_eq!(reply.status, 200);
    let reply = reply.json();
    let items = reply["items"].as_array().unwrap();
    let documents = rows.lines().count() / 2;
    assert_eq!((items.len(), reply["errors"].as_bool()), (documents + 2, Some(true)));
    assert_eq!(items[documents]["create"]["status"], 400);
    assert_eq!(items[documents]["create"]["_index"], "uberagent");
    assert_eq!(items[documents + 1]["delete"]["status"], 400);
    let front = &rig.fronts[1];
    assert_eq!(front.received.get(), documents as u64 + 2);
    assert_eq!(front.received.get(), front.rejected.get() + front.filtered.get() + front.encoded.get());
    let records: u32 = rig.outlet.blocks().iter().map(|block| block.meta.records).sum();
    assert_eq!(u64::from(records), front.encoded.get());
}

#[test]
fn a_full_ring_refuses_rows_with_429() {
    let rig = Rig::start(DURABLE, 2);
    let reply = post(rig.bulk, "/_bulk", &[], b"{\"create\":{}}\n{}\n");
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    let rig = Rig::start(Policy::Hold, 4);
    let row = format!(
        "{{\"create\":{{}}}}\n{{\"LogonProcType\":\"x\",\"SessionGUID\":\"{}\",\"pad\":\"{}\"}}\n",
        "1".repeat(32),
        "x".repeat(20_000)
    );
    let mut stream = connect(rig.bulk);
    send(&mut stream, "POST", "/_bulk", &[], row.repeat(6).as_bytes());
    while rig.fronts[1].rejected.get() == 0 {
        std::thread::yield_now();
    }
    rig.outlet.answer_all(VerdictOutcome::Durable);
    let reply = read_reply(&mut stream).unwrap().json();
    let statuses: Vec<_> =
        reply["items"].as_array().unwrap().iter().map(|item| item["create"]["status"].as_u64().unwrap()).collect();
    assert_eq!((statuses[0], statuses[5]), (201, 429), "{statuses:?}");
    assert!(statuses.is_sorted(), "what came first is taken first: {statuses:?}");
    assert_eq!(rig.fronts[1].received.get(), 6);
}

#[test]
fn a_bulk_request_larger_than_the_ring_goes_in_piece_by_piece() {
    let rig = Rig::start(DURABLE, 4);
    let rows = include_str!("../../../../tests/data/uberagent/wire_es_bulk.ndjson");
    let (documents, copies) = (rows.lines().count() / 2, (8 << 20) / rows.len());
    let reply = post(rig.bulk, "/_bulk", &[], rows.repeat(copies).as_bytes());
    assert_eq!(reply.status, 200);
    let reply = reply.json();
    let items = reply["items"].as_array().unwrap();
    assert_eq!(items.len(), documents * copies);
    assert_eq!(items.iter().filter(|item| item["create"]["status"] == 429).count(), 0);
    let front = &rig.fronts[1];
    assert_eq!(front.received.get(), (documents * copies) as u64);
    assert_eq!(front.received.get(), front.rejected.get() + front.filtered.get() + front.encoded.get());
    let records: u64 = rig.outlet.blocks().iter().map(|block| u64::from(block.meta.records)).sum();
    assert_eq!(records, front.encoded.get());
}

#[test]
fn a_bulk_request_of_more_items_than_can_be_kept_is_refused_for_good() {
    let rig = Rig::with_body_bytes(DURABLE, 100, limits(), 1 << 20);
    let reply = post(rig.bulk, "/_bulk", &[], "{\"delete\":{}}\n".repeat(10_000).as_bytes());
    assert_eq!((reply.status, reply.json()["error"]["reason"].as_str()), (413, Some("too many items in one request")));
    assert_eq!(rig.counters[1].refused_requests.iter().collect::<Vec<_>>(), [("too_many_items", 1)]);
}

#[test]
fn rows_refused_by_the_log_are_429_as_a_whole() {
    let rig = Rig::start(REFUSED, 100);
    let rows = include_str!("../../../../tests/data/uberagent/wire_es_bulk.ndjson");
    let reply = post(rig.bulk, "/_bulk", &[], rows.as_bytes());
    let stored_nothing = rig.outlet.blocks().is_empty();
    assert_eq!(reply.status, if stored_nothing { 200 } else { 429 });
}
