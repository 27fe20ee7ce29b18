//! `millrace plugin inspect`: what a component is, from its file, its names, and what it says of itself.
//!
//! The first part needs no trust: nothing of the file is run, and a file that is no plugin is shown too, as far as it
//! can be read, with the reason. Then it is loaded, told its configuration, and asked what it reads and writes.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::trial::{ComponentArgs, Trial};
use crate::block::Signal;
use crate::cli::human;
use crate::otlp::columns::{Field, Kind, Level};
use crate::plugin::load::Source;
use crate::plugin::names;
use crate::sys::digest::{hex, sha256};

/// What to look at.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// Exact figures for programs.
    #[arg(long)]
    json: bool,
}

/// Looks at a component. Ends with 1 if it cannot be a plugin here.
pub(super) fn inspect(arguments: &InspectArgs) -> anyhow::Result<()> {
    let (mut seen, refused) = look(&arguments.component)?;
    if let Some(error) = &refused {
        seen["error"] = format!("{error:#}").into();
    }
    let mut out = std::io::stdout().lock();
    match arguments.json {
        true => writeln!(out, "{seen:#}")?,
        false => show(&seen, &mut out)?,
    }
    refused.map_or(Ok(()), Err)
}

/// Everything that is known, and what ended the looking.
fn look(component: &ComponentArgs) -> anyhow::Result<(Value, Option<anyhow::Error>)> {
    let file = &component.file;
    let bytes = std::fs::read(file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    let mut seen = json!({ "file": file.display().to_string(), "bytes": bytes.len(), "sha256": hex(&sha256(&bytes)) });
    match names(&bytes) {
        Ok(names) => {
            seen["imports"] = names.imports.into();
            seen["exports"] = names.exports.into();
        }
        Err(error) => return Ok((seen, Some(error.into()))),
    }
    drop(bytes);
    let source = match Source::read(file) {
        Ok(source) => source,
        Err(error) => return Ok((seen, Some(error.into()))),
    };
    seen["world"] = source.manifest.world.name().into();
    seen["version"] = source.manifest.version.clone().into();
    match Trial::load(component, &source) {
        Ok(trial) => declared(&trial, &mut seen),
        Err(error) => return Ok((seen, Some(error))),
    }
    Ok((seen, None))
}

/// What the plugin says of itself under this configuration.
fn declared(trial: &Trial, seen: &mut Value) {
    let (info, setup) = (&trial.generation().info, &trial.generation().setup);
    seen["plugin"] = json!({
        "name": info.name,
        "version": info.version,
        "description": info.description,
        "config_schema": serde_json::from_str::<Value>(&info.config_schema).unwrap_or(Value::Null),
    });
    seen["signals"] = setup.signals.iter().map(|signal| signal_word(*signal)).collect();
    seen["max_rows"] = setup.max_rows.into();
    seen["fail_closed"] = setup.fail_closed.into();
    seen["fields"] = setup.fields.iter().map(field).collect();
    seen["memory_limit_bytes"] = trial.plugin.limits.memory_bytes.into();
}

/// The word for a signal.
pub(super) fn signal_word(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "spans",
        Signal::Logs => "logs",
        Signal::Metrics => "metrics",
    }
}

fn field(field: &Field) -> Value {
    let level = match field.level {
        Level::Record => "record",
        Level::Resource => "resource",
        Level::Scope => "scope",
        Level::Intrinsic => "intrinsic",
    };
    let kind = match field.kind {
        Kind::Text => "text",
        Kind::Integer => "integer",
        Kind::Double => "double",
        Kind::Boolean => "boolean",
        Kind::Bytes => "bytes",
        Kind::Json => "json",
        Kind::Any => "any",
    };
    json!({ "level": level, "key": field.key, "kind": kind, "read": field.read, "write": field.write })
}

fn show(seen: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let text = |value: &Value| human::harmless(value.as_str().unwrap_or_default());
    let list = |key: &str| match seen[key].as_array() {
        Some(items) if !items.is_empty() => items.iter().map(text).collect::<Vec<_>>().join(", "),
        _ => "none".to_owned(),
    };
    writeln!(out, "file      {}", text(&seen["file"]))?;
    writeln!(out, "size      {}", human::size(seen["bytes"].as_u64().unwrap_or(0)))?;
    writeln!(out, "sha256    {}", text(&seen["sha256"]))?;
    if seen["imports"].is_array() {
        writeln!(out, "imports   {}", list("imports"))?;
        writeln!(out, "exports   {}", list("exports"))?;
    }
    if seen["world"].is_string() {
        writeln!(out, "world     {}, millrace:plugin@{}", text(&seen["world"]), text(&seen["version"]))?;
    }
    let plugin = &seen["plugin"];
    if plugin.is_null() {
        return Ok(());
    }
    writeln!(
        out,
        "plugin    {} {}: {}",
        text(&plugin["name"]),
        text(&plugin["version"]),
        text(&plugin["description"])
    )?;
    writeln!(out, "sees      {}", list("signals"))?;
    writeln!(out, "memory    at most {}", human::size(seen["memory_limit_bytes"].as_u64().unwrap_or(0)))?;
    if seen["fail_closed"] == true {
        writeln!(out, "fails     closed: what it fails on may not pass")?;
    }
    let mut table = human::Table::new(&["field", "of", "kind", "access"]);
    for field in seen["fields"].as_array().into_iter().flatten() {
        let access = match (field["read"] == true, field["write"] == true) {
            (true, true) => "reads, writes",
            (true, false) => "reads",
            _ => "writes",
        };
        table.row([text(&field["key"]), text(&field["level"]), text(&field["kind"]), access.to_owned()]);
    }
    table.write(out)
}
