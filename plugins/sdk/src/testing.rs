//! Batches for the tests of a plugin, natively and without a host.
//!
//! A test builds a [`Batch`], runs the plugin over it and looks at what came out. Columns are gathered and patches checked and
//! applied as the host does it, by the rules of `wit/types.wit`, but without OTLP: a test that passes here says nothing about
//! speed, and `millrace plugin test` runs the component itself. Host functions are answered by [`host`].

mod columns;
pub mod host;

use std::collections::BTreeMap;

use crate::bindings::types::{Column, Groups, Patch, TextColumn};
use crate::fields::{Field, Fields, Level};
use crate::plugin::{self, Plugin, Signal};
use crate::rows::Given;
use crate::worlds::enrich::Additions;
use crate::{Decision, Decode, Encode, Enrich, Input, Sample, Transform};

/// The value of an attribute or an intrinsic.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A floating point number.
    Float(f64),
    /// A boolean.
    Boolean(bool),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An array or a map, as JSON.
    Json(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Boolean(is)
    }
}

type Values = BTreeMap<String, Value>;

/// Rows with their resources and scopes.
///
/// ```
/// use millrace_plugin::testing::Batch;
///
/// let batch = Batch::new()
///     .resource([("host.name", "PC-0815")])
///     .row([("url.full", "http://shop/")])
///     .intrinsic("duration", 5_000_000)
///     .row([("http.response.status_code", 200)]);
/// assert_eq!(batch.text(1, "host.name"), None);
/// assert_eq!(batch.resource_text(1, "host.name"), Some("PC-0815"));
/// ```
#[derive(Debug, Clone)]
pub struct Batch {
    signal: Signal,
    resources: Vec<Values>,
    scopes: Vec<Values>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Default)]
struct Row {
    resource: usize,
    scope: usize,
    attributes: Values,
    intrinsics: Values,
}

impl Batch {
    /// Spans: no rows yet, one resource without attributes, one scope.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a batch of which signal?")]
    pub fn new() -> Self {
        Self { signal: Signal::Span, resources: vec![Values::new()], scopes: vec![Values::new()], rows: Vec::new() }
    }

    /// Log records instead of spans.
    #[must_use]
    pub fn logs() -> Self {
        Self { signal: Signal::Log, ..Self::new() }
    }

    /// The rows that follow belong to a resource with these attributes, and to a scope of their own.
    #[must_use]
    pub fn resource<V: Into<Value>, const N: usize>(mut self, attributes: [(&str, V); N]) -> Self {
        self.resources.push(values(attributes));
        self.scopes.push(Values::new());
        self
    }

    /// The rows that follow belong to a scope with these attributes.
    #[must_use]
    pub fn scope<V: Into<Value>, const N: usize>(mut self, attributes: [(&str, V); N]) -> Self {
        self.scopes.push(values(attributes));
        self
    }

    /// Another row with these attributes.
    #[must_use]
    pub fn row<V: Into<Value>, const N: usize>(mut self, attributes: [(&str, V); N]) -> Self {
        let (resource, scope) = (self.resources.len() - 1, self.scopes.len() - 1);
        self.rows.push(Row { resource, scope, attributes: values(attributes), intrinsics: Values::new() });
        self
    }

    /// Another attribute of the last row.
    ///
    /// # Panics
    /// When there is no row yet.
    #[must_use]
    pub fn attribute(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.last().attributes.insert(key.to_owned(), value.into());
        self
    }

    /// An intrinsic of the last row: "name", "duration" and so on.
    ///
    /// # Panics
    /// When there is no row yet.
    #[must_use]
    pub fn intrinsic(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.last().intrinsics.insert(name.to_owned(), value.into());
        self
    }

    fn last(&mut self) -> &mut Row {
        self.rows.last_mut().expect("a row comes before what is added to it")
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The value that a row, its resource or its scope has.
    #[must_use]
    pub fn get(&self, row: usize, level: Level, key: &str) -> Option<&Value> {
        self.values(row, level).get(key)
    }

    /// A text attribute of a row.
    #[must_use]
    pub fn text(&self, row: usize, key: &str) -> Option<&str> {
        as_text(self.get(row, Level::Record, key))
    }

    /// A text attribute of a row's resource.
    #[must_use]
    pub fn resource_text(&self, row: usize, key: &str) -> Option<&str> {
        as_text(self.get(row, Level::Resource, key))
    }

    fn values(&self, row: usize, level: Level) -> &Values {
        let row = &self.rows[row];
        match level {
            Level::Record => &row.attributes,
            Level::Intrinsic => &row.intrinsics,
            Level::Resource => &self.resources[row.resource],
            Level::Scope => &self.scopes[row.scope],
        }
    }

    fn values_mut(&mut self, row: usize, level: Level) -> &mut Values {
        let row = &mut self.rows[row];
        match level {
            Level::Record => &mut row.attributes,
            Level::Intrinsic => &mut row.intrinsics,
            Level::Resource => &mut self.resources[row.resource],
            Level::Scope => &mut self.scopes[row.scope],
        }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("a test has fewer rows")
    }

    /// The first rows of the groups of a level; of the others every row.
    fn starts(&self, level: Level) -> Vec<u32> {
        let group = |row: &Row| match level {
            Level::Resource => row.resource,
            Level::Scope => row.scope,
            Level::Record | Level::Intrinsic => usize::MAX,
        };
        let rows = self.rows.iter().zip(0..);
        let mut before = None;
        rows.filter(|(row, _)| group(row) == usize::MAX || before.replace(group(row)) != Some(group(row)))
            .map(|(_, number)| number)
            .collect()
    }

    fn groups(&self) -> Groups {
        Groups { resources: self.starts(Level::Resource), scopes: self.starts(Level::Scope) }
    }

    pub(crate) fn all_text(&self, level: Level, key: &str) -> TextColumn {
        columns::all_text(self, level, key)
    }

    pub(crate) fn all_keys(&self, level: Level) -> Vec<String> {
        let rows = 0..self.rows.len();
        let keys: std::collections::BTreeSet<_> =
            rows.flat_map(|row| self.values(row, level).keys().cloned()).collect();
        keys.into_iter().collect()
    }
}

fn values<V: Into<Value>, const N: usize>(pairs: [(&str, V); N]) -> Values {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

fn as_text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// A batch after a plugin had it: its rows as edited, also those that are dropped.
#[derive(Debug)]
pub struct After {
    batch: Batch,
    dropped: Vec<u32>,
}

impl After {
    /// Whether the plugin dropped this row.
    #[must_use]
    pub fn is_dropped(&self, row: u32) -> bool {
        self.dropped.contains(&row)
    }
}

impl std::ops::Deref for After {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.batch
    }
}

/// A plugin made from the operator's JSON.
///
/// # Errors
/// What the operator would see.
pub fn configured<P: Plugin>(config: &str) -> Result<P, String> {
    plugin::make(config)
}

/// Runs a batch through a plugin.
///
/// # Errors
/// The plugin's own, or why the host would refuse its patch.
pub fn transform<P: Transform>(plugin: &mut P, batch: &Batch) -> Result<After, String> {
    let fields = <P::Row<'static> as Fields<'static>>::FIELDS;
    let columns = columns::gather(batch, fields, true);
    let all = crate::worlds::transform::All::test(batch);
    let patch = crate::worlds::transform::run(plugin, &given(batch, columns), all)?;
    apply(batch, fields, true, &patch)
}

/// Lets a plugin decide on traces: each row is one.
///
/// # Errors
/// When the plugin is called wrongly, which is a fault of this module.
pub fn sample<P: Sample>(plugin: &mut P, traces: &Batch, is_final: bool) -> Result<Vec<Decision>, String> {
    let columns = columns::gather(traces, <P::Row<'static> as Fields<'static>>::FIELDS, false);
    crate::worlds::sample::run(plugin, traces.count(), is_final, &columns)
}

/// Runs rows, which stand for distinct combinations of values, through a plugin.
///
/// # Errors
/// The plugin's own, or why the host would refuse its additions.
pub fn enrich<P: Enrich>(plugin: &mut P, batch: &Batch) -> Result<After, String> {
    let fields = <P::Row<'static> as Fields<'static>>::FIELDS;
    let columns = columns::gather(batch, fields, false);
    let Additions { extra, text, num } = crate::worlds::enrich::run(plugin, batch.signal, batch.count(), &columns)?;
    apply(batch, fields, false, &Patch { drop: Vec::new(), extra, text, num, unset: Vec::new() })
}

/// What a plugin made of a chunk.
#[derive(Debug)]
pub struct Decoded {
    /// The spans.
    pub spans: Batch,
    /// Bytes used.
    pub consumed: usize,
    /// Records understood and not wanted.
    pub filtered: u32,
    /// What could not be used, and why.
    pub rejected: Vec<(Vec<u8>, String)>,
    /// Bytes for the peer.
    pub reply: Vec<u8>,
}

/// Gives a plugin a chunk of a connection.
///
/// # Errors
/// The plugin's own, or why the host would refuse what it made.
pub fn decode<P: Decode>(plugin: &mut P, bytes: &[u8], is_last: bool) -> Result<Decoded, String> {
    let made = crate::worlds::decode::run(plugin, &Input { connection: 1, bytes, is_last })?;
    let mut spans = Batch::new();
    for _ in 0..made.rows {
        spans = spans.row::<&str, 0>([]);
    }
    let fields = <P::Span as Fields<'static>>::FIELDS;
    let patch = Patch { drop: Vec::new(), extra: made.extra, text: made.text, num: made.num, unset: Vec::new() };
    let spans = apply(&spans, fields, false, &patch)?.batch;
    let consumed = made.consumed as usize;
    if consumed > bytes.len() {
        return Err(format!("{consumed} bytes used of {}", bytes.len()));
    }
    let rejected = made.rejected.into_iter();
    let rejected = rejected.map(|(first, end, reason)| (bytes[first as usize..end as usize].to_vec(), reason));
    let (filtered, reply) = (made.filtered, made.reply);
    Ok(Decoded { spans, consumed, filtered, rejected: rejected.collect(), reply })
}

/// Lets a plugin write a batch, and returns its messages.
///
/// # Errors
/// The plugin's own.
pub fn encode<P: Encode>(plugin: &mut P, batch: &Batch) -> Result<Vec<Vec<u8>>, String> {
    let columns = columns::gather(batch, <P::Row<'static> as Fields<'static>>::FIELDS, true);
    let messages = crate::worlds::encode::run(plugin, &given(batch, columns))?;
    let (bytes, ends, _, _) = messages.into_parts();
    let mut start = 0;
    let messages = ends.iter().map(|&end| bytes[std::mem::replace(&mut start, end as usize)..end as usize].to_vec());
    Ok(messages.collect())
}

fn given(batch: &Batch, columns: Vec<Column>) -> Given {
    Given { signal: batch.signal, rows: batch.count(), groups: batch.groups(), columns }
}

fn apply(batch: &Batch, fields: &[Field], has_groups: bool, patch: &Patch) -> Result<After, String> {
    let batch = columns::apply(batch, fields, has_groups, patch)?;
    Ok(After { batch, dropped: patch.drop.clone() })
}
