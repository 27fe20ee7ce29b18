//! What a plugin of the world `encode` makes of a batch: messages, checked against the rules of its contract.
//!
//! Nothing is sent here. An answer that breaks a rule is an error like one that the plugin gave itself: the batch is not to be
//! said in this format. Belongs to one sender, or to whoever tries a plugin out.

use std::ops::Range;
use std::sync::Arc;

use ureq::http::HeaderValue;

use super::super::reply::printable;
use crate::block::Signal;
use crate::otlp::columns::Columns;
use crate::plugin::answers::Encoded;
use crate::plugin::counters::Counters;
use crate::plugin::{Call, CallError, Generation, Instance};

/// See the module.
pub struct Format {
    instance: Instance,
    columns: Columns,
}

impl Format {
    /// The format that this plugin writes. The first batch starts it.
    #[must_use]
    pub fn new(generation: Arc<Generation>, counters: Arc<Counters>) -> Format {
        Format { instance: Instance::new(generation, counters), columns: Columns::default() }
    }

    pub(super) fn another(&self) -> Format {
        Format::new(Arc::clone(self.generation()), Arc::default())
    }

    /// The plugin.
    #[must_use]
    pub fn generation(&self) -> &Arc<Generation> {
        self.instance.generation()
    }

    /// What is counted of it on this thread.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        self.instance.counters()
    }

    /// What the plugin makes of a batch, which is as it was afterwards; nothing when no span of it can be said.
    ///
    /// # Errors
    ///
    /// See [`CallError`]; an answer against the rules is one that was refused.
    ///
    /// # Panics
    ///
    /// If the plugin is of another world.
    pub fn write(&mut self, signal: Signal, batch: &mut Vec<u8>) -> Result<Option<Written>, CallError> {
        let generation = Arc::clone(self.instance.generation());
        let Some(selection) = generation.selection(signal) else { return Ok(None) };
        selection.gather(batch, &mut self.columns);
        if self.columns.rows() == 0 {
            return Ok(None);
        }
        let call = Call { signal, columns: &self.columns, received_ns: 0 };
        let encoded = self.instance.encode(&call, batch)?;
        match Written::check(encoded, self.columns.rows()) {
            Ok(written) => {
                self.instance.accept();
                Ok(Some(written))
            }
            Err(why) => {
                self.instance.reject();
                self.instance.counters().bad_patches.add(1);
                Err(CallError::Refused(format!("its answer breaks a rule: {why}")))
            }
        }
    }
}

/// An answer that keeps the rules.
pub struct Written {
    pub(super) encoded: Encoded,
    pub(super) messages: Vec<Range<usize>>,
    /// What the messages are, for HTTP.
    pub content_type: HeaderValue,
}

impl Written {
    /// The messages, in order.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.messages.iter().map(|message| &self.encoded.bytes[message.clone()])
    }

    /// Rows that the format has no words for.
    #[must_use]
    pub fn unencodable(&self) -> &[u32] {
        &self.encoded.unencodable
    }

    fn check(encoded: Encoded, rows: u32) -> Result<Written, String> {
        let Encoded { bytes, ends, rows: last_rows, unencodable, content_type } = &encoded;
        let ascends = |list: &[u32]| list.array_windows().all(|[before, next]| before < next);
        let is_in = |list: &[u32]| ascends(list) && list.last().is_none_or(|last| *last < rows);
        if ends.len() != last_rows.len() || !is_in(last_rows) {
            return Err(format!("{} messages do not end after rows in order, of {rows}", ends.len()));
        }
        if !ascends(ends) || ends.first() == Some(&0) || ends.last().copied().unwrap_or(0) as usize != bytes.len() {
            return Err(format!("{} messages do not take {} bytes in order", ends.len(), bytes.len()));
        }
        if !is_in(unencodable) {
            return Err(format!("{} rows that cannot be said are not in order, or not of {rows}", unencodable.len()));
        }
        let content_type = HeaderValue::from_str(content_type)
            .ok()
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("{:?} is no content type", printable(content_type.as_bytes())))?;
        let starts = [0].into_iter().chain(ends.iter().copied());
        let messages = starts.zip(ends).map(|(start, end)| start as usize..*end as usize).collect();
        Ok(Written { messages, content_type, encoded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(ends: &[u32], rows: &[u32], unencodable: &[u32], content_type: &str) -> Encoded {
        let (ends, rows, unencodable) = (ends.to_vec(), rows.to_vec(), unencodable.to_vec());
        Encoded { bytes: b"abcdef".to_vec(), ends, rows, unencodable, content_type: content_type.to_owned() }
    }

    #[test]
    fn messages_lie_behind_each_other_and_take_all_bytes() {
        let written = Written::check(encoded(&[2, 6], &[0, 3], &[1], "a/b"), 4).map_err(drop).unwrap();
        assert_eq!(written.messages, [0..2, 2..6]);
        for (ends, rows, unencodable, content_type) in [
            (&[2][..], &[0][..], &[][..], "a/b"),
            (&[2, 7], &[0, 3], &[], "a/b"),
            (&[4, 2, 6], &[0, 1, 2], &[], "a/b"),
            (&[0, 6], &[0, 1], &[], "a/b"),
            (&[6], &[], &[], "a/b"),
            (&[6], &[4], &[], "a/b"),
            (&[2, 6], &[3, 3], &[], "a/b"),
            (&[6], &[3], &[4], "a/b"),
            (&[6], &[3], &[2, 1], "a/b"),
            (&[6], &[3], &[], "a/b\r\nx: y"),
            (&[6], &[3], &[], ""),
        ] {
            assert!(Written::check(encoded(ends, rows, unencodable, content_type), 4).is_err(), "{ends:?} {rows:?}");
        }
    }
}
