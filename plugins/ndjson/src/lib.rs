//! Writes spans as lines of JSON, one object a line, for whatever takes `application/x-ndjson`.
//!
//! A batch is one message. A span without a name cannot be said in this format and is counted so.

use millrace_plugin::prelude::*;
use std::io::Write as _;

#[derive(Fields)]
struct Row<'b> {
    #[field(intrinsic, "trace-id")]
    trace_id: Text<'b>,
    #[field(intrinsic, "span-id")]
    span_id: Text<'b>,
    #[field(intrinsic, "name")]
    name: Text<'b>,
    #[field(intrinsic, "start")]
    start_ns: Integer<'b>,
    #[field(intrinsic, "duration")]
    duration_ns: Integer<'b>,
    #[field(resource, "service.name")]
    service: Text<'b>,
    #[field(resource, "host.name")]
    host: Text<'b>,
}

#[derive(Plugin)]
struct NdJson;

/// Why writing to a message is expected to work.
const MEMORY: &str = "text is always JSON, and writing to memory cannot fail";

#[encode]
impl Encode for NdJson {
    type Row<'b> = Row<'b>;
    const CONTENT_TYPE: &'static str = "application/x-ndjson";

    fn row(&mut self, row: &mut Row, message: &mut Vec<u8>) -> Result<(), Unencodable> {
        let name = row.name.get().filter(|name| !name.is_empty()).ok_or(Unencodable)?;
        message.extend_from_slice(b"{\"name\":");
        quote(name, message);
        for (key, value) in [
            ("traceId", row.trace_id.get()),
            ("spanId", row.span_id.get()),
            ("service", row.service.get()),
            ("host", row.host.get()),
        ] {
            if let Some(value) = value {
                write!(message, ",\"{key}\":").expect(MEMORY);
                quote(value, message);
            }
        }
        for (key, value) in [("startNs", row.start_ns.get()), ("durationNs", row.duration_ns.get())] {
            if let Some(value) = value {
                write!(message, ",\"{key}\":{value}").expect(MEMORY);
            }
        }
        message.extend_from_slice(b"}\n");
        Ok(())
    }
}

fn quote(text: &str, message: &mut Vec<u8>) {
    serde_json::to_writer(message, text).expect(MEMORY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_message_of_lines() {
        let batch = testing::Batch::new()
            .resource([("host.name", "web-1")])
            .row::<i64, 0>([])
            .intrinsic("name", "say \"hi\"")
            .intrinsic("start", 5)
            .row::<i64, 0>([])
            .intrinsic("duration", 7)
            .row::<i64, 0>([])
            .intrinsic("name", "b")
            .intrinsic("trace-id", "0af7");
        let mut plugin = testing::configured::<NdJson>("").unwrap();
        let messages = testing::encode(&mut plugin, &batch).unwrap();
        let expected = "{\"name\":\"say \\\"hi\\\"\",\"host\":\"web-1\",\"startNs\":5}\n\
                        {\"name\":\"b\",\"traceId\":\"0af7\",\"host\":\"web-1\"}\n";
        assert_eq!(messages.iter().map(|message| String::from_utf8_lossy(message)).collect::<Vec<_>>(), [expected]);
        assert_eq!(testing::encode(&mut plugin, &testing::Batch::new()).unwrap().len(), 0);
    }
}
