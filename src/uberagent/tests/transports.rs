//! The same record by JSON, as Elasticsearch document and as Splunk CSV is the same span.

use std::collections::BTreeMap;

use super::*;

type Ids = (Vec<u8>, Vec<u8>);

fn by_id(decoded: Vec<Decoded>) -> BTreeMap<Ids, Decoded> {
    decoded.into_iter().map(|one| ((one.span.trace_id.clone(), one.span.span_id.clone()), one)).collect()
}

/// Encodes a stream of Splunk's raw form: header lines and rows.
fn encode_csv(bytes: &[u8]) -> (Vec<Outcome>, Vec<Decoded>) {
    let mut encoder = Encoder::new(SESSION, SourceId(0));
    let mut header = None;
    let mut outcomes = Vec::new();
    for line in lines(bytes) {
        match CsvHeader::parse(&line) {
            Some(parsed) => header = Some(parsed),
            None => outcomes.push(encoder.csv(&line, header.as_ref().unwrap(), RECEIVED_NS)),
        }
    }
    (outcomes, drain(&mut encoder))
}

#[test]
fn elasticsearch_documents_and_csv_give_the_same_spans() {
    let (_, documents) = encode(SESSION, &lines(&data("wire_es_bulk.ndjson")));
    let (outcomes, rows) = encode_csv(&data("wire_splunk_tcp.txt"));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Encoded { .. } | Outcome::Filtered(_))));
    let (mut documents, rows) = (by_id(documents), by_id(rows));
    // Fields younger than the CSV of the samples.
    for document in documents.values_mut() {
        document
            .span
            .attributes
            .retain(|pair| !pair.key.starts_with("uberagent.logon.appx.") && pair.key != "uberagent.logon.wait_ms");
    }
    assert!(rows.len() > 350, "{}", rows.len());
    for (ids, row) in &rows {
        assert_eq!(Some(row), documents.get(ids), "{}", row.span.name);
    }
}

#[test]
fn fluent_bits_lines_give_the_same_spans_but_for_its_slashes() {
    let (_, documents) = encode(SESSION, &lines(&data("samples.ndjson")));
    let (_, forwarded) = encode(SESSION, &lines(&data("proxytrace_wire.ndjson")));
    let documents = by_id(documents);
    let slashed = |decoded: &Decoded| {
        let mut decoded = decoded.clone();
        for pair in &mut decoded.span.attributes {
            if let Some(Value::StringValue(text)) = pair.value.as_mut().and_then(|value| value.value.as_mut()) {
                *text = text.replace('\\', "/");
            }
        }
        decoded
    };
    for (ids, line) in by_id(forwarded) {
        let document = documents.get(&ids).unwrap_or_else(|| panic!("{} has another id", line.span.name));
        assert_eq!(slashed(&line), slashed(document));
    }
}

#[test]
fn what_the_row_says_wins_over_what_the_transport_says() {
    let origin = Origin { host: Some("transport"), sourcetype: Some("uberAgent:Process:LogoffProcesses") };
    let guid = r#""SessionGUID":"00000011-4b1e-93a7-f077-5d390bc3db01""#;
    let mut encoder = Encoder::new(SESSION, SourceId(0));
    let own = r#"{"host":"row","Sourcetype":"uberAgent:Process:LogonProcesses","ProcID":4,"#;
    for line in [format!("{own}{guid}}}"), format!("{{\"ProcID\":4,{guid}}}")] {
        encoder.json(line.as_bytes(), origin, RECEIVED_NS);
    }
    let decoded = drain(&mut encoder);
    let seen: Vec<(&str, &str)> = decoded.iter().map(|one| (one.host.as_str(), one.service.as_str())).collect();
    assert_eq!(seen, [("row", "uberagent.logon"), ("transport", "uberagent.logoff")]);
}

#[test]
fn csv_cells_are_unquoted_and_more_columns_than_known_are_fine() {
    let header =
        CsvHeader::parse(b"***SPLUNK*** host=\"VDA 14\" index=x sourcetype=uberAgent:Logon:GroupPolicyCSEDetail2")
            .unwrap();
    assert_eq!((header.host(), header.sourcetype()), ("VDA 14", Sourcetype::GroupPolicyCseDetail));
    let mut encoder = Encoder::new(SESSION, SourceId(0));
    let line =
        br#"1747033129443,00000011-4b1e-93a7-f077-5d390bc3db01,17,"CORP\a","a ""b"", \"c\"",3.051,,87,new,newer"#;
    assert_eq!(encoder.csv(line, &header, RECEIVED_NS), Outcome::Encoded { fields_dropped: 2 });
    assert_eq!(encoder.csv(b"", &header, RECEIVED_NS), Outcome::Blank);
    assert_eq!(encoder.csv(b"not,a,time", &header, RECEIVED_NS), Outcome::DeadLetter(reason::INVALID_CSV));
    let decoded = drain(&mut encoder);
    let span = &decoded[0].span;
    assert_eq!(span.name, r#"a "b", "c""#);
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 3_051_000_000);
    assert_eq!(attribute(span, "user.name").as_deref(), Some(r"CORP\a"));
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    assert_eq!(CsvHeader::parse(b"1747033129443,a"), None);
}

#[test]
fn rows_without_columns_are_read_as_pairs() {
    let header = CsvHeader::parse(b"***SPLUNK*** host=PC sourcetype=uberAgent:OnOffTransition:ShutdownDetail").unwrap();
    let mut encoder = Encoder::new(SESSION, SourceId(0));
    let line = b"1747064641009,TotalShutdownTimeMs=14210 UserSessionTimeMs=\"6110\", KernelTimeMs=1220 New=1";
    assert_eq!(encoder.csv(line, &header, RECEIVED_NS), Outcome::Encoded { fields_dropped: 1 });
    let span = &drain(&mut encoder)[0].span;
    assert_eq!(span.end_time_unix_nano, 1_747_064_641_009_000_000);
    assert_eq!(span.start_time_unix_nano, 1_747_064_626_799_000_000);
    assert_eq!(attribute(span, "uberagent.shutdown.user_session_ms").as_deref(), Some("Some(IntValue(6110))"));
    assert_eq!(attribute(span, "uberagent.shutdown.kernel_ms").as_deref(), Some("Some(IntValue(1220))"));
}
