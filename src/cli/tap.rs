//! `millrace tap`: what passes the lanes of a running appliance, as lines of OTLP in JSON.
//!
//! What is in the log by default; `--received` shows it before the plugins, where the operator allows that. The appliance
//! shows a sample where there is more than a reader takes, and ends the stream after some minutes: then it is asked again.

use std::io::{self, BufRead, Write};

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::api::{Api, ApiArgs};
use super::source::Source;

/// The flags of `millrace tap`.
#[derive(Debug, Args)]
pub(super) struct TapArgs {
    #[command(flatten)]
    choice: TapChoice,
    #[command(flatten)]
    api: ApiArgs,
    /// The configuration file that says where it listens.
    #[arg(long, short, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

/// What is listened to.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct TapChoice {
    /// Only what came in by this receiver.
    #[arg(long, value_name = "RECEIVER")]
    source: Option<String>,
    /// Only spans and log records of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only rows of this sourcetype of uberAgent.
    #[arg(long, value_name = "NAME")]
    sourcetype: Option<String>,
    /// End after so many spans and log records; without it, with Ctrl-C.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// Before the plugins, with everything that they remove; needs `management.tap: received`.
    #[arg(long)]
    received: bool,
}

/// Prints what passes.
pub(super) fn tap(arguments: &TapArgs) -> anyhow::Result<()> {
    let api = Api::find(&arguments.api, &Source::of_file(arguments.config.clone()))?;
    let mut out = io::stdout().lock();
    listen(&api, &arguments.choice, &mut |line| {
        out.write_all(line)?;
        // Whoever looks wants to see it now.
        Ok(out.flush()?)
    })
}

/// Gives each line with its end to `each`, until there were enough rows.
pub(super) fn listen(
    api: &Api,
    choice: &TapChoice,
    each: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut left = choice.rows.unwrap_or(u64::MAX);
    let mut line = Vec::new();
    while left > 0 {
        let mut lines = io::BufReader::new(api.stream(&choice.path(left))?);
        while lines.read_until(b'\n', &mut line).context("the stream broke off")? > 0 {
            each(&line)?;
            left = left.saturating_sub(rows(&line)?);
            line.clear();
        }
    }
    Ok(())
}

impl TapChoice {
    fn path(&self, rows: u64) -> String {
        let mut path = format!("/api/v1/tap?stage={}", if self.received { "received" } else { "stored" });
        for (key, value) in [("source", &self.source), ("service", &self.service), ("sourcetype", &self.sourcetype)] {
            if let Some(value) = value {
                path += &format!("&{key}={}", encoded(value));
            }
        }
        if self.rows.is_some() {
            path += &format!("&rows={rows}");
        }
        path
    }
}

/// Text with percent signs for all that has a meaning in a URL (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Spans and log records of a line.
fn rows(line: &[u8]) -> anyhow::Result<u64> {
    let request: Value = serde_json::from_slice(line).context("a line of the tap is no JSON")?;
    fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
        value[key].as_array().map_or(&[], Vec::as_slice)
    }
    let mut count = 0;
    for [resources, scopes, rows] in
        [["resourceSpans", "scopeSpans", "spans"], ["resourceLogs", "scopeLogs", "logRecords"]]
    {
        for scope in list(&request, resources).iter().flat_map(|resource| list(resource, scopes)) {
            count += list(scope, rows).len() as u64;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_signals_are_counted() {
        let spans = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{},{}]},{"spans":[{}]}]},{}]}"#;
        let logs = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#;
        assert_eq!((rows(spans).unwrap(), rows(logs).unwrap(), rows(b"{}").unwrap()), (3, 1, 0));
    }

    #[test]
    fn what_is_asked_for_is_written_so_that_it_arrives() {
        let choice =
            TapChoice { service: Some("a b&c/ü".to_owned()), rows: Some(9), received: true, ..Default::default() };
        assert_eq!(choice.path(4), "/api/v1/tap?stage=received&service=a%20b%26c%2F%C3%BC&rows=4");
        assert_eq!(TapChoice::default().path(4), "/api/v1/tap?stage=stored");
    }
}
