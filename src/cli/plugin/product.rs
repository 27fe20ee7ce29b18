//! What a plugin makes of a test's input, as the files in which the test keeps it.
//!
//! ```text
//! transform, enrich, sample   in.json            -> expected.json, "dropped" if no span is left
//! decode                      in.txt or in.bin   -> expected.json; rejected.json: what became no record, and why;
//!                                                   `reply` is what the plugin says of it;
//!                                                   reply.txt or .bin: what the peer was answered
//! encode                      in.json            -> expected.txt or .bin, expected-2... for further messages;
//!                                                   unencodable.json: the rows that the format has no words for
//! ```
//!
//! A file that would be empty is not there, but for the first. A decoder is given its input twice, the second time in small
//! pieces: TCP cuts where it likes, and the records have to be the same.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::diff::diff;
use super::otlp;
use super::trial::Trial;
use crate::block::Signal;
use crate::pipeline::trial::{Messages, Received, Rejected};
use crate::plugin::World;

/// Names of inputs.
pub(super) const INPUTS: [&str; 3] = ["in.json", "in.txt", "in.bin"];

/// How the names of files begin in which something is kept that came out.
pub(super) const OUTPUTS: [&str; 4] = ["expected", "rejected.", "reply.", "unencodable."];

/// What stands for a payload of which nothing is left.
const DROPPED: &str = "\"dropped\"\n";

/// Bytes of a read, as a receiver reads; and of one that cuts everything into pieces.
pub(super) const READ_BYTES: usize = 64 * 1024;
const SMALL_READ_BYTES: usize = 7;

/// A file that a test keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// What the plugin makes of the input in this directory.
pub(super) fn of_test(trial: &mut Trial, case: &Path) -> anyhow::Result<Vec<File>> {
    let name = INPUTS.into_iter().find(|name| case.join(name).is_file()).context("there is no input")?;
    let input = fs::read(case.join(name)).with_context(|| name.to_owned())?;
    match trial.world() {
        World::Transform | World::Enrich | World::Sample => of_requests(trial, &input, name),
        World::Decode => of_connection(trial, &input),
        World::Encode => of_batch(trial, &input, name),
    }
}

/// An expected file of JSON in the form in which what comes out is written.
pub(super) fn canonical(signal: Signal, text: &[u8]) -> anyhow::Result<String> {
    let value: Value = serde_json::from_slice(text)?;
    match signal == Signal::Traces && value.get("resourceSpans").is_some() {
        true => otlp::pretty(signal, &otlp::requests(signal, text)?.concat()),
        false => Ok(format!("{value:#}\n")),
    }
}

fn of_requests(trial: &mut Trial, input: &[u8], name: &str) -> anyhow::Result<Vec<File>> {
    let signal = trial.signal();
    let mut payload = Vec::new();
    for request in otlp::requests(signal, input).with_context(|| name.to_owned())? {
        payload.extend(trial.hand.block(signal, &request)?.payload);
    }
    let text = if payload.is_empty() { DROPPED.to_owned() } else { otlp::pretty(signal, &payload)? };
    Ok(vec![File { name: "expected.json".to_owned(), bytes: text.into_bytes() }])
}

fn of_connection(trial: &mut Trial, input: &[u8]) -> anyhow::Result<Vec<File>> {
    let received = whole_and_in_pieces(trial, input)?;
    let json = otlp::pretty(trial.signal(), &received.blocks.concat())?;
    let mut files = vec![File { name: "expected.json".to_owned(), bytes: json.into_bytes() }];
    if !received.rejected.is_empty() {
        files.push(File { name: "rejected.json".to_owned(), bytes: rejected(&received).into_bytes() });
    }
    if !received.reply.is_empty() {
        files.push(text_or_binary("reply", received.reply));
    }
    Ok(files)
}

fn of_batch(trial: &mut Trial, input: &[u8], name: &str) -> anyhow::Result<Vec<File>> {
    let signal = trial.signal();
    let payload = otlp::requests(signal, input).with_context(|| name.to_owned())?.concat();
    let Messages { messages, unencodable, .. } = trial.hand.batch(signal, &payload)?;
    let mut files: Vec<File> = Vec::new();
    for (number, message) in (1..).zip(messages) {
        let stem = if number == 1 { "expected".to_owned() } else { format!("expected-{number}") };
        files.push(text_or_binary(&stem, message));
    }
    if files.is_empty() {
        files.push(text_or_binary("expected", Vec::new()));
    }
    if !unencodable.is_empty() {
        let text = format!("{:#}\n", json!(unencodable));
        files.push(File { name: "unencodable.json".to_owned(), bytes: text.into_bytes() });
    }
    Ok(files)
}

fn text_or_binary(stem: &str, bytes: Vec<u8>) -> File {
    let end = if std::str::from_utf8(&bytes).is_ok() { "txt" } else { "bin" };
    File { name: format!("{stem}.{end}"), bytes }
}

/// As dead letters show it.
fn rejected(received: &Received) -> String {
    let entry = |rejected: &Rejected| {
        let mut entry = json!({ "reason": rejected.reason, "bytes": String::from_utf8_lossy(&rejected.bytes) });
        if !rejected.reply.is_empty() {
            entry["reply"] = rejected.reply.clone().into();
        }
        entry
    };
    format!("{:#}\n", received.rejected.iter().map(entry).collect::<Value>())
}

/// What a decoder makes of the bytes of a connection.
///
/// # Errors
///
/// Also when it makes something else of them once they come in small pieces.
pub(super) fn whole_and_in_pieces(trial: &mut Trial, input: &[u8]) -> anyhow::Result<Received> {
    trial.hand.renew();
    let whole = trial.hand.connection(input, READ_BYTES)?;
    trial.hand.renew();
    let pieces = trial.hand.connection(input, SMALL_READ_BYTES);
    let pieces = pieces.with_context(|| format!("when the same bytes come {SMALL_READ_BYTES} at a time"))?;
    let signal = trial.signal();
    let say = |received: &Received| {
        // What the plugin says of a record may hang on where it stands in what it was given.
        let mut received = received.clone();
        received.rejected.iter_mut().for_each(|rejected| rejected.reply.clear());
        Ok::<_, anyhow::Error>(records(signal, &received)? + &rejected(&received))
    };
    let difference = diff(&say(&whole)?, &say(&pieces)?);
    if !difference.is_empty() {
        bail!(
            "other records when the same bytes come {SMALL_READ_BYTES} at a time: what is not a whole record yet must \
             not be consumed\n{}",
            difference.trim_end()
        );
    }
    Ok(whole)
}

/// The records one by one, without what follows from how they came: ids, and who shares a resource.
fn records(signal: Signal, received: &Received) -> anyhow::Result<String> {
    let keys = match signal {
        Signal::Traces => ["resourceSpans", "scopeSpans", "spans"],
        Signal::Logs | Signal::Metrics => ["resourceLogs", "scopeLogs", "logRecords"],
    };
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    for block in &received.blocks {
        let block: Value = serde_json::from_slice(&otlp::line(signal, block))?;
        for resource in list(&block, keys[0]) {
            for scope in list(&resource, keys[1]) {
                for mut record in list(&scope, keys[2]) {
                    for id in ["traceId", "spanId"] {
                        record.as_object_mut().and_then(|record| record.remove(id));
                    }
                    record["resource"] = resource["resource"].clone();
                    record["scope"] = scope["scope"].clone();
                    text += &format!("{record:#}\n");
                }
            }
        }
    }
    Ok(text)
}
