//! The slow way to what a plugin did not declare: whole columns, read from the batch when they are asked for.
//!
//! The batch is lent for one call; its handle is of no use after it. Nothing can be changed by it. A column is gathered
//! exactly as a declared field would be, at the price of a walk over the batch each time.

use wasmtime::component::Resource;

use crate::otlp::columns::{self, Kind, Level};
use crate::plugin::bindings::millrace::plugin::rest;
use crate::plugin::bindings::millrace::plugin::types;
use crate::plugin::host::{Current, Host};

/// The batch of the running call: there is one, so its handle needs to say nothing.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it")]
pub struct Rows;

impl rest::Host for Host {}

impl rest::HostBatch for Host {
    fn column(
        &mut self,
        _: Resource<Rows>,
        level: u8,
        key: String,
        kind: u8,
    ) -> wasmtime::Result<Result<types::ColumnResult, String>> {
        let current = current(self)?;
        Ok(column(current, level, &key, kind))
    }

    fn keys(&mut self, _: Resource<Rows>, level: u8) -> wasmtime::Result<Vec<String>> {
        let current = current(self)?;
        let Some(level) = Level::from_u8(level) else { return Ok(Vec::new()) };
        Ok(columns::keys(current.signal, &current.payload, level)?)
    }

    fn drop(&mut self, _: Resource<Rows>) -> wasmtime::Result<()> {
        // Only borrowed handles are ever given.
        Ok(())
    }
}

fn current(host: &Host) -> wasmtime::Result<&Current> {
    host.current.as_ref().ok_or_else(|| wasmtime::format_err!("there is no batch"))
}

fn column(current: &Current, level: u8, key: &str, kind: u8) -> Result<types::ColumnResult, String> {
    let level = Level::from_u8(level).ok_or_else(|| format!("there is no level {level}"))?;
    let kind = Kind::from_u8(kind).ok_or_else(|| format!("there is no kind {kind}"))?;
    let column =
        columns::column(current.signal, &current.payload, level, key, kind).map_err(|error| error.to_string())?;
    Ok(match column {
        columns::Column::Text(columns::TextColumn { rows, ends, bytes }) => {
            types::ColumnResult::Text(types::TextColumnResult { rows, ends, bytes })
        }
        columns::Column::Num(columns::NumColumn { rows, values }) => {
            types::ColumnResult::Num(types::NumColumnResult { rows, values })
        }
    })
}
